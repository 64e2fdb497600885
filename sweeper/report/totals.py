"""Sum all runs of a store into counters that only grow, independent of the process that reads them.

Invariant: a purge is counted once, from the result of its run or, if the run left none, from its tombstones.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from sweeper.postgres.statement import statement


@dataclass(frozen=True)
class LifetimeTotals:
    """Sums over all runs of a store. Skipped and failed records are known only of runs that recorded a result."""

    purged: Mapping[tuple[str, str], int]
    runs: Mapping[tuple[str, str], int]
    refusals: Mapping[str, int]
    spared: Mapping[str, int]
    failed: int
    batch_seconds: float
    batch_buckets: Mapping[str, int]
    pauses: Mapping[str, int]
    pause_seconds: Mapping[str, float]


def read(connection: Connection, store: str) -> LifetimeTotals:
    """Return the current sums."""
    purged = connection.execute(statement("totals_purged"), {"store": store})
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in connection.execute(statement("totals_of_runs"), {"store": store}):
        found[row.what][row.label] = row.total
    return LifetimeTotals(
        purged={(row.record, row.rule): row.purged for row in purged},
        runs={_pair(label): int(total) for label, total in found["runs"].items()},
        refusals=_whole(found["refusals"]),
        spared=_whole(found["spared"]),
        failed=int(found["failed"].get("", 0)),
        batch_seconds=float(found["batch seconds"].get("", 0)),
        batch_buckets=_whole(found["batch buckets"]),
        pauses=_whole(found["pauses"]),
        pause_seconds=found["pause seconds"],
    )


def _whole(found: Mapping[str, float]) -> Counter[str]:
    return Counter({label: int(total) for label, total in found.items()})


def _pair(label: str) -> tuple[str, str]:
    kind, _, outcome = label.partition(" ")
    return kind, outcome
