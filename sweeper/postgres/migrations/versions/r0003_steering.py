"""Pauses, backfills, and a lease that a nightly run can ask for."""

from sweeper.postgres.migrations.script import run_beside

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, the trigger that records pauses, and the lease's new columns."""
    run_beside(__file__)


def downgrade() -> None:
    """Evidence is not taken back."""
    raise NotImplementedError("the sweeper's evidence is never dropped by a migration")
