"""Read the state of operation from the sweeper's own tables: pauses, lease, runs, backfills and purges.

Every query reads a few rows by an index and locks nothing. None needs the policy or the store.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from sweeper.evidence import ledger
from sweeper.policy.counts import Kind
from sweeper.postgres import backfills
from sweeper.postgres.backfills import BackfillPlan
from sweeper.postgres.manifests import stored
from sweeper.postgres.statement import statement

UNCOVERED_AT_MOST = 1_000_000
"""Counting uncovered rows of a table stops here, because without checkpoints all rows are uncovered."""


@dataclass(frozen=True)
class Pause:
    """One pause in force."""

    id: int
    reason: str
    paused_at: datetime


@dataclass(frozen=True)
class Holder:
    """The run that holds the lease of the store, or held it last."""

    run_id: int | None
    kind: str | None
    held: bool
    renewed_at: datetime | None
    expires_at: datetime | None
    wanted_at: datetime | None


@dataclass(frozen=True)
class RunEntry:
    """One run in the list of runs. `outcome` is None while it runs, and after it died until the next run records that."""

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
    skipped: int

    @property
    def seconds(self) -> float | None:
        """How many seconds the run took; None if it did not record its end."""
        if self.finished_at is None or self.outcome == "interrupted":
            return None
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True)
class RunDay:
    """The runs that began on one day (UTC). `not_well` counts those that failed, were refused or interrupted."""

    day: date
    runs: int
    not_well: int
    conversations: int
    redactions: int
    feedback: int
    seconds: float
    longest: float

    def of(self, kind: Kind) -> int:
        """Return how many records of a kind the runs purged or redacted."""
        return {"conversation": self.conversations, "redaction": self.redactions, "feedback": self.feedback}[kind]


@dataclass(frozen=True)
class Progress:
    """An unfinished backfill and how many conversations it has purged."""

    plan: BackfillPlan
    purged: int

    @property
    def share(self) -> float:
        """The purged share of the conversations that were due when the plan was approved, from 0 to 1."""
        return min(self.purged / self.plan.expected, 1.0) if self.plan.expected else 1.0

    def as_json(self) -> dict[str, Any]:
        """Return the backfill for --json."""
        fields = ("id", "since", "until", "by", "done_until", "expected", "begun_at", "seen_at", "stopped_at")
        return {
            **{name: getattr(self.plan, name) for name in fields},
            "purged": self.purged,
            "share": round(self.share, 4),
        }


@dataclass(frozen=True)
class EndedRun:
    """The outcome of the newest run that is not a backfill (None: none has ended), and when the last successful one ended."""

    outcome: str | None
    success: datetime | None


@dataclass(frozen=True)
class Reported:
    """The newest report as of its own present: when it was made, and its counts."""

    at: datetime
    details: Mapping[str, Any]


@dataclass(frozen=True)
class ManifestStates:
    """The training manifests: how many in each state, how many were never recalled, and the oldest last recall."""

    by_state: Mapping[str, int]
    never_recalled: int
    oldest_recall_at: datetime | None


@dataclass(frozen=True)
class Covered:
    """The newest checkpoint: when it was taken (None: never) and whether it or any earlier one is signed.

    `uncovered` counts the rows by table that no checkpoint covers.
    """

    checkpoint_at: datetime | None
    signed: bool
    was_signed: bool = field(repr=False)
    uncovered: Mapping[str, int]

    @property
    def rows(self) -> int:
        """How many rows no checkpoint covers."""
        return sum(self.uncovered.values())


Purged = dict[str, Counter[str]]
"""Kind of record → rule → count."""


def pauses(connection: Connection) -> list[Pause]:
    """Return the pauses in force, oldest first."""
    return [Pause(**row._mapping) for row in connection.execute(statement("pauses"))]


def holder(connection: Connection, store: str, seconds: float) -> Holder | None:
    """Return the holder of the lease of a store; None if no run ever took it. `seconds` is how long a lease lasts."""
    row = connection.execute(statement("operation_lease"), {"store": store}).one_or_none()
    if row is None:
        return None
    expires = _finite(row.expires_at)
    renewed = expires - timedelta(seconds=seconds) if expires else None
    return Holder(row.run_id, row.kind, row.held, renewed, expires, _finite(row.wanted_at))


def runs(connection: Connection, store: str, limit: int) -> list[RunEntry]:
    """Return at most `limit` runs of a store, newest first."""
    rows = connection.execute(statement("operation_runs"), {"store": store, "limit": limit})
    return [RunEntry(**row._mapping) for row in rows]


def run_days(connection: Connection, store: str, since: datetime, until: datetime) -> list[RunDay]:
    """Return the runs of a store that began after `since` and up to `until` by day, oldest first, without days of no run."""
    rows = connection.execute(statement("operation_days"), {"store": store, "since": since, "until": until})
    return [RunDay(**row._mapping) for row in rows]


def ended(connection: Connection, store: str, ordered: Iterable[str]) -> EndedRun:
    """Return how the newest runs of a store ended. Runs that stopped for a reason in `ordered` count as successful."""
    parameters = {"store": store, "ordered": sorted(ordered)}
    return EndedRun(*connection.execute(statement("operation_ended"), parameters).one())


def progress(connection: Connection, store: str) -> list[Progress]:
    """Return the unfinished backfills of a store, oldest first."""
    return [Progress(plan, _backfilled(connection, plan.id)) for plan in backfills.unfinished(connection, store)]


def _backfilled(connection: Connection, backfill: int) -> int:
    return int(connection.execute(statement("operation_backfilled"), {"backfill": backfill}).scalar_one())


def covered(connection: Connection) -> Covered:
    """Return the newest checkpoint and how many rows of evidence it does not cover."""
    last = ledger.last(connection)
    return Covered(
        checkpoint_at=_finite(last.taken_at) if last else None,
        signed=last is not None and last.signed_by is not None,
        was_signed=ledger.was_signed(connection),
        uncovered={source: _uncovered(connection, source) for source in ledger.SOURCES},
    )


def _uncovered(connection: Connection, source: str) -> int:
    sql = statement("operation_uncovered", source=source)
    return int(connection.execute(sql, {"limit": UNCOVERED_AT_MOST}).scalar_one())


def purged(connection: Connection, store: str, since: datetime, until: datetime) -> Purged:
    """Return what was purged from a store after `since` and up to `until`."""
    found: Purged = {"conversation": Counter(), "redaction": Counter(), "feedback": Counter()}
    for row in connection.execute(statement("operation_purged"), {"store": store, "since": since, "until": until}):
        found[row.record][row.rule] = row.purged
    return found


def reported(connection: Connection, store: str) -> Reported | None:
    """Return the newest report as of its own present; None if there is none."""
    row = connection.execute(statement("operation_reported"), {"store": store}).one_or_none()
    return Reported(row.at, row.details) if row is not None else None


def manifests(connection: Connection, store: str) -> ManifestStates:
    """Return the states of the manifests of a store."""
    rows = connection.execute(stored("operation_manifests"), {"store": store}).all()
    return ManifestStates(
        {row.state: row.manifests for row in rows},
        sum(row.never_recalled for row in rows),
        min((row.recalled_at for row in rows if row.recalled_at is not None), default=None),
    )


def _finite(instant: object) -> datetime | None:
    return instant if isinstance(instant, datetime) else None
