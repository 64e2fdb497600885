"""A fence that only the roles concerned can take, and holds and orders whose cost follows what they reach."""

from pathlib import Path

from alembic import op

from sweeper.postgres.migrations.script import run
from sweeper.postgres.migrations.spelling import function

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the fence's table, its triggers, the function that compares ids, and the indexes by which holds are found."""
    encoding: str = op.get_bind().exec_driver_sql("SHOW server_encoding").scalar_one()
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    run(script.replace("$spelling", function(encoding)))


def downgrade() -> None:
    """Evidence is not taken back."""
    raise NotImplementedError("the sweeper's evidence is never dropped by a migration")
