"""How the operation stands, as the sweeper's own tables say: pauses, lease, runs, backfills, and what was purged when.

Invariant: it reads a few rows by their index, locks nothing, and needs neither policy nor store.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from sweeper.evidence import ledger
from sweeper.postgres import backfills
from sweeper.postgres.backfills import BackfillPlan
from sweeper.postgres.statement import statement

PACE_RUNS = 20
"""So many of the newest runs say how fast it goes."""
UNCOVERED_AT_MOST = 1_000_000
"""Uncovered rows of a table are counted up to here: where nobody takes checkpoints, all rows are uncovered."""


@dataclass(frozen=True)
class Pause:
    """The kill switch is on."""

    id: int
    reason: str
    paused_at: datetime


@dataclass(frozen=True)
class Holder:
    """Who has the lease of the store, or had it last."""

    run_id: int | None
    kind: str | None
    held: bool
    renewed_at: datetime | None
    expires_at: datetime | None
    wanted_at: datetime | None


@dataclass(frozen=True)
class RunEntry:
    """One run in the list of runs; `outcome` None: it is running, or died and was not yet found to have."""

    id: int
    kind: str
    as_of: datetime
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    stop_reason: str | None
    guard: str | None
    stalled: bool
    said: str | None
    failed: int
    purged: int

    @property
    def seconds(self) -> float | None:
        """How long it took; None where it did not say when it ended."""
        if self.finished_at is None or self.outcome == "interrupted":
            return None
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True)
class Progress:
    """An unfinished backfill and how many conversations it has purged."""

    plan: BackfillPlan
    purged: int

    @property
    def share(self) -> float:
        """How much of its time is done, from 0 to 1."""
        return (self.plan.done_until - self.plan.since) / (self.plan.until - self.plan.since)

    def as_json(self) -> dict[str, Any]:
        """The backfill for machines."""
        told = ("id", "since", "until", "by", "done_until", "expected", "begun_at", "seen_at")
        return {
            **{name: getattr(self.plan, name) for name in told},
            "purged": self.purged,
            "share": round(self.share, 4),
        }


@dataclass(frozen=True)
class EndedRun:
    """How the newest plain run ended (None: none has), and when the last one did that did all that was asked of it."""

    outcome: str | None
    success: datetime | None


@dataclass(frozen=True)
class Reported:
    """What the newest report on the present found, and when it was made."""

    at: datetime
    details: Mapping[str, Any]


@dataclass(frozen=True)
class ManifestStates:
    """The training manifests by state; how many were never recalled, and the longest ago that one was."""

    by_state: Mapping[str, int]
    never_recalled: int
    oldest_recall: datetime | None


@dataclass(frozen=True)
class Covered:
    """When the newest checkpoint was taken (None: none was), whether it is signed or any was, and rows that none covers."""

    checkpoint_at: datetime | None
    is_signed: bool
    was_signed: bool
    uncovered: Mapping[str, int]

    @property
    def rows(self) -> int:
        """Rows that no checkpoint covers."""
        return sum(self.uncovered.values())


Purged = dict[str, Counter[str]]
"""Kind of record → rule → count."""


def pauses(connection: Connection) -> list[Pause]:
    """The pauses in force, the oldest first."""
    return [Pause(**row._mapping) for row in connection.execute(statement("pauses"))]


def holder(connection: Connection, store: str, seconds: float) -> Holder | None:
    """Who has the lease of a store; None: no run ever took it. `seconds`: how long a lease lasts."""
    row = connection.execute(statement("operation_lease"), {"store": store}).one_or_none()
    if row is None:
        return None
    expires = _finite(row.expires_at)
    renewed = expires - timedelta(seconds=seconds) if expires else None
    return Holder(row.run_id, row.kind, row.held, renewed, expires, _finite(row.wanted_at))


def runs(connection: Connection, store: str, limit: int) -> list[RunEntry]:
    """The newest runs of a store, the newest first."""
    rows = connection.execute(statement("operation_runs"), {"store": store, "limit": limit})
    return [RunEntry(**row._mapping) for row in rows]


def ended(connection: Connection, store: str, ordered: Iterable[str]) -> EndedRun:
    """How the newest plain runs of a store ended; `ordered`: reasons to stop that were asked for."""
    asked = {"store": store, "ordered": sorted(ordered)}
    return EndedRun(*connection.execute(statement("operation_ended"), asked).one())


def progress(connection: Connection, store: str) -> list[Progress]:
    """The unfinished backfills of a store, the oldest first."""
    return [Progress(plan, _backfilled(connection, plan.id)) for plan in backfills.unfinished(connection, store)]


def _backfilled(connection: Connection, backfill: int) -> int:
    return int(connection.execute(statement("operation_backfilled"), {"backfill": backfill}).scalar_one())


def covered(connection: Connection) -> Covered:
    """How much of the evidence a checkpoint covers."""
    last = ledger.last(connection)
    return Covered(
        checkpoint_at=_finite(last.taken_at) if last else None,
        is_signed=last is not None and last.signed_by is not None,
        was_signed=ledger.was_signed(connection),
        uncovered={source: _uncovered(connection, source) for source in ledger.SOURCES},
    )


def _uncovered(connection: Connection, source: str) -> int:
    sql = statement("operation_uncovered", source=source)
    return int(connection.execute(sql, {"limit": UNCOVERED_AT_MOST}).scalar_one())


def purged(connection: Connection, store: str, since: datetime, until: datetime) -> Purged:
    """What was purged from a store after `since`, up to `until`."""
    found: Purged = {"conversation": Counter(), "feedback": Counter()}
    for row in connection.execute(statement("operation_purged"), {"store": store, "since": since, "until": until}):
        found[row.record][row.rule] = row.purged
    return found


def pace(connection: Connection, store: str, now: datetime) -> float | None:
    """Conversations a second in the newest runs that purged any; None where none did."""
    row = connection.execute(statement("operation_pace"), {"store": store, "now": now, "runs": PACE_RUNS}).one()
    return float(row.purged) / float(row.seconds) if row.purged else None


def drain(overdue: int, per_second: float | None) -> float | None:
    """In how many seconds of work what is overdue would be purged; None where nobody can say."""
    if overdue == 0:
        return 0.0
    return overdue / per_second if per_second else None


def reported(connection: Connection, store: str) -> Reported | None:
    """The newest report on the present, if there is one."""
    row = connection.execute(statement("operation_reported"), {"store": store}).one_or_none()
    return Reported(row.at, row.details) if row is not None else None


def manifests(connection: Connection, store: str) -> ManifestStates:
    """How the manifests of a store stand."""
    rows = connection.execute(statement("operation_manifests"), {"store": store}).all()
    return ManifestStates(
        {row.state: row.manifests for row in rows},
        sum(row.never_recalled for row in rows),
        min((row.recalled_at for row in rows if row.recalled_at is not None), default=None),
    )


def _finite(instant: object) -> datetime | None:
    return instant if isinstance(instant, datetime) else None
