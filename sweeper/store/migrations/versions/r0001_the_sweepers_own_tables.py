"""The sweeper's own tables: runs, lease, holds, orders, tombstones, events, object purges."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, the fence that legal holds take, and the triggers that keep evidence insert-only."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    driver = op.get_bind().connection.driver_connection
    assert driver is not None  # noqa: S101 — Alembic's offline mode, which we never use, has none
    driver.execute(script)  # as written: a percent sign in it is no parameter


def downgrade() -> None:
    """Evidence is not taken back."""
    raise NotImplementedError("the sweeper's evidence is never dropped by a migration")
