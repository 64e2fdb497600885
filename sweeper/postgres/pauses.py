"""The pause: while it lasts, no batch begins in any store of this database. Each change leaves an event."""

from datetime import datetime
from typing import Any

from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement


def pause(database: Database, reason: str, now: datetime) -> dict[str, Any]:
    """Pause. Batches that have begun still end, usually within a second; none begins after this returns."""
    with database.transaction() as connection:
        return dict(connection.execute(statement("pause"), {"reason": reason, "now": now}).one()._mapping)


def resume(database: Database, now: datetime) -> list[dict[str, Any]]:
    """End every pause; return those ended."""
    with database.transaction() as connection:
        return [dict(row._mapping) for row in connection.execute(statement("resume"), {"now": now})]


def in_force(database: Database) -> list[dict[str, Any]]:
    """Return the pauses in force, oldest first."""
    return [dict(row._mapping) for row in database.fetched(statement("pauses"), {})]
