"""Reads how far each copy lags behind the purges."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from sweeper.policy.instant import StoredTimestamp
from sweeper.postgres.statement import statement
from sweeper.settings import Settings

COUNTED_AT_MOST = 1_000_000
"""Counting what a copy lags behind stops here."""


@dataclass(frozen=True)
class CopyLag:
    """How far a copy lags: how many purged records it has not acknowledged, and for how many seconds the oldest of them.

    `delivered_at`: when it last acknowledged. `failed_at` and `last_error`: when and why the last delivery failed, else None.
    """

    copy: str
    records: int
    seconds: float
    next_leaf: int
    delivered_at: datetime | None
    failed_at: datetime | None
    last_error: str | None

    def as_json(self) -> dict[str, Any]:
        """Return it for --json."""
        return {**vars(self), "seconds": round(self.seconds, 3)}


def read(
    connection: Connection, settings: Settings, now: datetime, at_most: int = COUNTED_AT_MOST
) -> Sequence[CopyLag]:
    """Return the lag of each copy of the settings as of now; counting stops at `at_most`."""
    found = []
    for copy in settings.copies:
        parameters = {"store": settings.store.schema_name, "name": copy.name, "records": list(copy.records)}
        row = connection.execute(statement("copy_lag"), {**parameters, "limit": at_most}).one()
        age = max((now - row.since).total_seconds(), 0.0) if isinstance(row.since, datetime) else 0.0
        delivered_at, failed_at = _finite(row.delivered_at), _finite(row.failed_at)
        lag = CopyLag(copy.name, row.records, age, row.next_leaf or 0, delivered_at, failed_at, row.last_error)
        found.append(lag)
    return found


def _finite(instant: StoredTimestamp) -> datetime | None:
    return instant if isinstance(instant, datetime) else None
