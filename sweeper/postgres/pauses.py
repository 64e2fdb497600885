"""The kill switch: during a pause no batch of any store in this database begins. Every change is recorded as an event."""

from datetime import datetime
from typing import Any

from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement


def pause(database: Database, reason: str, now: datetime) -> dict[str, Any]:
    """Pause all stores. A batch that has begun ends normally, in under a second; none begins after this returns."""
    with database.transaction() as connection:
        return dict(connection.execute(statement("pause"), {"reason": reason, "now": now}).one()._mapping)


def resume(database: Database, now: datetime) -> list[dict[str, Any]]:
    """Lift every pause and return those lifted."""
    with database.transaction() as connection:
        return [dict(row._mapping) for row in connection.execute(statement("resume"), {"now": now})]


def in_force(database: Database) -> list[dict[str, Any]]:
    """Return the pauses in force, oldest first."""
    return [dict(row._mapping) for row in database.fetched(statement("pauses"), {})]
