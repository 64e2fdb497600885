"""Tombstones of redactions."""

from sweeper.postgres.migrations.script import run_beside

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let a tombstone tell of a redaction."""
    run_beside(__file__)


def downgrade() -> None:
    """Evidence is not taken back."""
    raise NotImplementedError("the sweeper's evidence is never dropped by a migration")
