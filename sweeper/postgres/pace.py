"""The one estimate of how long the rest takes: rows that remain, divided by the recent pace of the store's runs."""

from datetime import datetime

from sqlalchemy import Connection

from sweeper.postgres.statement import statement

PACE_RUNS = 20
"""How many of the newest runs the recent pace is computed from."""


def recent(connection: Connection, store: str, now: datetime) -> float | None:
    """Return the conversations per second of the newest runs that purged any, one that is at work included; None if none did."""
    row = connection.execute(statement("recent_pace"), {"store": store, "now": now, "runs": PACE_RUNS}).one()
    return float(row.purged) / float(row.seconds) if row.purged else None


def remaining_seconds(conversations: int, per_second: float | None) -> float | None:
    """Return how many seconds of work purging so many conversations takes; None if the pace is unknown."""
    if conversations <= 0:
        return 0.0
    return conversations / per_second if per_second else None
