"""Counts of the store that the guards weigh: bounded where the store may be large."""

from dataclasses import dataclass

from sqlalchemy import Connection

from sweeper.postgres.statement import statement


@dataclass(frozen=True)
class Histories:
    """How much history there is, and whether there is anything it could be about."""

    plan_changes: int
    consent_events: int
    conversations: bool


def histories(connection: Connection) -> Histories:
    """The counts as they are now."""
    row = connection.execute(statement("count_histories")).one()
    return Histories(row.plan_changes, row.consent_events, row.conversations)


def conversations(connection: Connection, limit: int) -> int:
    """How many conversations there are, or `limit` if there are more: the cost follows the limit, not the store."""
    found: int = connection.execute(statement("count_conversations"), {"limit": limit}).scalar_one()
    return found


def identity(connection: Connection, schema: str) -> str:
    """A name for this store, to bind an approval to."""
    row = connection.execute(statement("identity")).one()
    return f"{row.name}/{schema}/{row.id}"
