"""Plans and consent of our own, for applications that keep none."""

from sweeper.postgres.migrations.script import run_beside

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the two tables and their triggers."""
    run_beside(__file__)


def downgrade() -> None:
    """Evidence is not taken back."""
    raise NotImplementedError("the sweeper's evidence is never dropped by a migration")
