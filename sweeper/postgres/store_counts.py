"""Counts for the guards, bounded where the store may be large."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from sweeper.errors import ConfigurationError
from sweeper.postgres.statement import statement


@dataclass(frozen=True)
class Histories:
    """The number of plan changes and consent events, and whether there are conversations."""

    plan_changes: int
    consent_events: int
    conversations: bool


def histories(connection: Connection) -> Histories:
    """Read the counts."""
    row = connection.execute(statement("count_histories")).one()
    return Histories(row.plan_changes, row.consent_events, row.conversations)


def conversations(connection: Connection, limit: int) -> int:
    """Return the number of conversations, but at most `limit`: the cost depends on the limit and not on the store."""
    found: int = connection.execute(statement("count_conversations"), {"limit": limit}).scalar_one()
    return found


def identity(connection: Connection, schema: str) -> str:
    """Return a name for this store, `database/schema/id`, to bind an approval to.

    Raises:
        ConfigurationError: sweeper.identity does not have exactly one row.
    """
    row = _identity(connection)
    return f"{row.name}/{schema}/{row.id}"


def database_identity(connection: Connection) -> str:
    """Return the id that was drawn when the sweeper's tables were made; a copy of the database has the same.

    Raises:
        ConfigurationError: sweeper.identity does not have exactly one row.
    """
    return str(_identity(connection).id)


def _identity(connection: Connection) -> Row[Any]:
    rows = connection.execute(statement("identity")).all()
    if len(rows) != 1:
        raise ConfigurationError(
            f"sweeper.identity has {len(rows)} rows instead of one: it was altered. Nothing was done. Restore the row from a "
            "backup, or from the events run_opened or the origin of the checkpoints, which also hold it."
        )
    return rows[0]
