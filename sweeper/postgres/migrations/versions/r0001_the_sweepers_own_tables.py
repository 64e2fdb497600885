"""The sweeper's own tables: runs, lease, holds, orders, tombstones, events, object purges."""

from sweeper.postgres.migrations.script import run_beside

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, the fence that legal holds take, and the triggers that keep evidence insert-only."""
    run_beside(__file__)


def downgrade() -> None:
    """Evidence is not taken back."""
    raise NotImplementedError("the sweeper's evidence is never dropped by a migration")
