"""The tombstones of an account by index."""

from sweeper.postgres.migrations.script import run_beside

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    run_beside(__file__)


def downgrade() -> None:
    """Evidence is not taken back."""
    raise NotImplementedError("the sweeper's evidence is never dropped by a migration")
