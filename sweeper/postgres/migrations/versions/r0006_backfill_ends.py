"""Backfills record that their process has ended, so that nobody takes the plan for one that is worked on."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; plans of earlier versions count as worked on until their heartbeat is old."""
    op.execute("ALTER TABLE sweeper.backfills ADD COLUMN stopped_at timestamptz")
    op.execute(
        "COMMENT ON COLUMN sweeper.backfills.stopped_at IS "
        "'When the process ended in order before the plan was finished; NULL while one works on it, or if it was killed.'"
    )


def downgrade() -> None:
    """Evidence is not taken back."""
    raise NotImplementedError("the sweeper's evidence is never dropped by a migration")
