"""The ledger: a Merkle tree over tombstones and events, and its checkpoints."""

from sweeper.postgres.migrations.script import run_beside

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; the first checkpoint numbers all evidence there is."""
    run_beside(__file__)


def downgrade() -> None:
    """Evidence is not taken back."""
    raise NotImplementedError("the sweeper's evidence is never dropped by a migration")
