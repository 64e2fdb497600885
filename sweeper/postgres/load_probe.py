"""Probes the load that batches may cause: replica lag, WAL, sessions waiting for locks, VACUUM.

Invariant: it only looks, at views that every role may read; what it may not see it says once and leaves out.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sweeper import log
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement
from sweeper.settings import PaceSettings

MEGABYTE = 1024 * 1024


class Pressure(StrEnum):
    """Why a run waits before its next batch."""

    REPLICA_LAG = "replica_lag"
    WAL_RATE = "wal_rate"
    BLOCKED_QUERIES = "blocked_queries"
    AUTOVACUUM = "autovacuum"


@dataclass
class LoadProbe:
    """Probes the load of the server; a rate needs two probes."""

    database: Database
    oids: list[int]
    wal_bytes: int | None = None
    looked: float = 0.0
    told: set[str] = field(default_factory=set)

    def read(self) -> dict[Pressure, str]:
        """Return what is above its limit now, each with its value and limit in words."""
        row = self.database.fetched(statement("pressure"), {"oids": self.oids})[0]
        rate = self._wal_rate(int(row.wal_bytes))
        if row.hidden and self.limits.replica_lag_seconds + self.limits.replica_lag_mb > 0:
            self._tell_hidden()
        return dict(_above(row, rate, self.limits))

    @property
    def limits(self) -> PaceSettings:
        """The limits from the settings."""
        return self.database.settings.pace

    def _wal_rate(self, wal_bytes: int) -> float:
        """Return the megabytes of WAL a second of the whole server since the last probe."""
        now, before, then = time.monotonic(), self.wal_bytes, self.looked
        self.wal_bytes, self.looked = wal_bytes, now
        return 0.0 if before is None or now <= then else (wal_bytes - before) / MEGABYTE / (now - then)

    def _tell_hidden(self) -> None:
        if "hidden" not in self.told:
            self.told.add("hidden")
            log.get().warning(
                "replicas are there, but this role may not see how far they are behind: nothing waits for them. "
                "GRANT pg_read_all_stats to it, or set [pace] replica_lag_seconds and replica_lag_mb to 0"
            )


def _above(row: Any, rate: float, limits: PaceSettings) -> Iterator[tuple[Pressure, str]]:
    behind = float(row.lag_bytes) / MEGABYTE
    if 0 < limits.replica_lag_mb < behind:
        yield Pressure.REPLICA_LAG, f"a replica is {behind:.0f} MB behind, the limit is {limits.replica_lag_mb:g} MB"
    elif 0 < limits.replica_lag_seconds < row.lag_seconds:
        yield (
            Pressure.REPLICA_LAG,
            f"a replica is {row.lag_seconds:.0f} s behind, the limit is {limits.replica_lag_seconds:g} s",
        )
    if 0 < limits.wal_mb_per_second < rate:
        yield Pressure.WAL_RATE, f"{rate:.0f} MB of WAL a second, the limit is {limits.wal_mb_per_second:g}"
    if 0 < limits.blocked_queries < row.blocked:
        yield (
            Pressure.BLOCKED_QUERIES,
            f"{row.blocked} sessions have waited for a lock for a second, the limit is {limits.blocked_queries}",
        )
    if limits.autovacuum and row.vacuums:
        yield Pressure.AUTOVACUUM, "a VACUUM is at work on a table that is purged from"
