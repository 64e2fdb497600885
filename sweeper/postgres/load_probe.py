"""Measures the load that batches may put on others: replication lag, WAL, sessions waiting for locks, VACUUM.

Invariant: this only reads views that every role may read. What the role may not see is logged once and left out.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
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
    """Reads the server's load repeatedly; the WAL rate needs two readings."""

    database: Database
    oids: list[int]
    wal_bytes: int | None = None
    read_at: float = 0.0
    has_warned: bool = False

    def read(self) -> dict[Pressure, str]:
        """Return what is above its limit now, each with a text that gives value and limit."""
        return self.judge(self.database.fetched(statement("pressure"), {"oids": self.oids})[0])

    def judge(self, row: Any) -> dict[Pressure, str]:
        """Return what is above its limit in a row of the statement `pressure`, each with a text that gives value and limit."""
        rate = self._wal_rate(int(row.wal_bytes))
        if row.hidden and self.limits.replica_lag_seconds + self.limits.replica_lag_mb > 0:
            self._warn_hidden()
        return dict(_above(row, rate, self.limits))

    @property
    def limits(self) -> PaceSettings:
        """The limits from the settings."""
        return self.database.settings.pace

    def _wal_rate(self, wal_bytes: int) -> float:
        """Return the server's megabytes of WAL per second since the last reading; 0.0 at the first."""
        now, before, then = time.monotonic(), self.wal_bytes, self.read_at
        self.wal_bytes, self.read_at = wal_bytes, now
        return 0.0 if before is None or now <= then else (wal_bytes - before) / MEGABYTE / (now - then)

    def _warn_hidden(self) -> None:
        if not self.has_warned:
            self.has_warned = True
            log.get().warning(
                "there are replicas, but this role may not see how far they are behind: no batch waits for them. "
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
        yield Pressure.AUTOVACUUM, "a VACUUM is running on a table that is purged"
