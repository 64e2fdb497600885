"""Reads the state of operation again and again, for a person who watches: a few bounded statements in one short transaction.

What an earlier look has counted is not counted again, so that a look costs the same in a store with millions of tombstones.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from sweeper.clock import Clock
from sweeper.copies import lag
from sweeper.copies.lag import CopyLag
from sweeper.postgres import run_sign
from sweeper.postgres.database import Database
from sweeper.postgres.load_probe import LoadProbe
from sweeper.postgres.run_sign import ReadSign
from sweeper.postgres.statement import statement
from sweeper.report import numbers, operation
from sweeper.report.operation import Holder, Pause, Progress, RunEntry

LOOK_MS = 2_000
"""Time limit of each statement of a look."""
BASE_MS = 30_000
"""The same of those that count what a run purged before the first look at it."""
RATE_SECONDS = 10.0
"""The present rate is that of so many seconds."""
COPIES_SECONDS = 10.0
"""How often the lag of copies is read."""
IDLE_SECONDS = 10.0
"""How often runs and backfills are read while no run is at work."""
COPIES_AT_MOST = 100_000
"""Counting what a copy lags behind stops here."""
TOMBSTONES_AT_MOST = 50_000
"""A look reads no more tombstones than these; the next one reads on."""
RUNS_SHOWN = 3


@dataclass(frozen=True)
class Replica:
    """A replica and how far it is behind; None where that is not known, or hidden from this role."""

    name: str
    hidden: bool
    seconds: float | None
    bytes: int | None


@dataclass(frozen=True)
class Look:
    """One look.

    Attributes:
        at: when.
        store: the name of the store.
        pauses: the pauses in force.
        holder: who holds the lease.
        run: the run that holds it, as it was when it was first looked at; None if none does.
        done: how many conversations it has purged or redacted.
        rate: how many a second it does now; None at the first look.
        left: how many it, or its backfill as a whole, expects to do still; None if that is not known.
        backfills: the unfinished backfills, with what they have purged.
        ended: the newest ended runs.
        doing: what the run is doing instead of purging, for instance why it waits, or the backfill if no run is at work.
        load: what is above a limit of [pace] now, in words.
        replicas: the replicas.
        copies: how far each copy lags.
    """

    at: datetime
    store: str
    pauses: Sequence[Pause]
    holder: Holder | None
    run: RunEntry | None
    done: int
    rate: float | None
    left: int | None
    backfills: Sequence[Progress]
    ended: Sequence[RunEntry]
    doing: str
    load: Sequence[str]
    replicas: Sequence[Replica]
    copies: Sequence[CopyLag]

    @property
    def average(self) -> float | None:
        """How many conversations a second the run has done since it began; None if none is at work."""
        seconds = (self.at - self.run.started_at).total_seconds() if self.run else 0.0
        return self.done / seconds if seconds > 0 else None

    @property
    def remaining_seconds(self) -> float | None:
        """How long the rest takes at the present rate, or at the average while it waits; None if that is not known."""
        rate = self.rate or self.average
        return self.left / rate if self.left and rate else None


@dataclass(frozen=True)
class _Base:
    """What was read when the holder of the lease changed: who that is and whether it holds it still, runs and backfills."""

    read_at: float
    held: tuple[int | None, bool]
    runs: Sequence[RunEntry]
    backfills: Sequence[Progress]

    @property
    def run(self) -> RunEntry | None:
        """The run that holds the lease."""
        run_id, is_held = self.held
        return next((run for run in self.runs if is_held and run.id == run_id and run.outcome is None), None)

    def is_fresh(self, holder: Holder | None) -> bool:
        """Return False if another run is at work than then, or none and it is long ago: a backfill may have ended."""
        is_recent = self.run is not None or time.monotonic() - self.read_at < IDLE_SECONDS
        return self.held == _held(holder) and is_recent

    @property
    def backfill(self) -> Progress | None:
        """The backfill whose slice is at work."""
        is_slice = self.run is not None and self.run.kind == "backfill"
        return max(self.backfills, key=lambda each: each.plan.seen_at, default=None) if is_slice else None


@dataclass
class Watcher:
    """Looks at a store again and again."""

    database: Database
    clock: Clock
    _base: _Base | None = None
    _tombstone: int = 0
    _done: int = 0
    _done_before: int = 0
    _copies: Sequence[CopyLag] = ()
    _copies_read_at: float = field(default=-COPIES_SECONDS)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._probe = LoadProbe(self.database, [], has_warned=True)  # a look shows which replicas it may not see

    def look(self) -> Look:
        """Return how the store stands now.

        Raises:
            DBAPIError: the database did not answer, or not in time.
        """
        found = self._looked()
        while found is None:
            self._begin()
            found = self._looked()
        return found

    @property
    def _store(self) -> str:
        return self.database.settings.store.schema_name

    @property
    def _plan(self) -> Progress | None:
        """The backfill whose slice is at work."""
        return self._base.backfill if self._base else None

    def _begin(self) -> None:
        """Read what looks at another run need, in one snapshot, so that no batch is counted twice."""
        with self.database.snapshot(statement_timeout_ms=BASE_MS) as connection:
            held = _held(self._holder(connection))
            self._tombstone = int(connection.execute(statement("newest_tombstone")).scalar_one())
            runs = operation.runs(connection, self._store, RUNS_SHOWN + 1)
            self._base = _Base(time.monotonic(), held, runs, operation.progress(connection, self._store))
            run = self._base.run
            self._done = int(connection.execute(statement("done_by_run"), {"run": run.id}).scalar_one()) if run else 0
            self._done_before = self._done
        self._recent.clear()

    def _holder(self, connection: Connection) -> Holder | None:
        return operation.holder(connection, self._store, self.database.settings.lease.seconds)

    def _looked(self) -> Look | None:
        """Return a look; None if `_begin` must read again."""
        with self.database.transaction(statement_timeout_ms=LOOK_MS) as connection:
            holder, base = self._holder(connection), self._base
            return self._look(connection, holder, base) if base and base.is_fresh(holder) else None

    def _look(self, connection: Connection, holder: Holder | None, base: _Base) -> Look:
        if base.run is not None:
            self._count_done(connection, base.run)
        signs = run_sign.read(connection)
        names = [f"run {base.run.id}"] if base.run else [f"backfill {each.plan.id}" for each in base.backfills]
        sign = next((signs[name] for name in names if name in signs), None)
        pressure = connection.execute(statement("pressure"), {"oids": []}).one()
        return Look(
            at=self.clock.now(),
            store=numbers.store_name(self.database.settings),
            pauses=operation.pauses(connection),
            holder=holder,
            run=base.run,
            done=self._done,
            rate=self._rate() if base.run else None,
            left=self._left(sign),
            backfills=[self._progressed(each) for each in base.backfills],
            ended=[run for run in base.runs if run is not base.run][:RUNS_SHOWN],
            doing=sign.doing if sign else "",
            load=list(self._probe.judge(pressure).values()),
            replicas=[_replica(row) for row in connection.execute(statement("replicas"))],
            copies=self._lag(connection),
        )

    def _count_done(self, connection: Connection, run: RunEntry) -> None:
        parameters = {"run": run.id, "after": self._tombstone, "limit": TOMBSTONES_AT_MOST}
        found = connection.execute(statement("done_meanwhile"), parameters).one()
        self._done, self._tombstone = self._done + found.done, found.last

    def _rate(self) -> float | None:
        """Return the conversations a second of the last `RATE_SECONDS`."""
        now = time.monotonic()
        self._recent.append((now, self._done))
        while len(self._recent) > 2 and now - self._recent[1][0] >= RATE_SECONDS:
            self._recent.popleft()
        then, before = self._recent[0]
        return (self._done - before) / (now - then) if now > then else None

    def _progressed(self, progress: Progress) -> Progress:
        """Return the backfill with what its slice at work has purged since it was read."""
        base = self._base
        if progress is not self._plan or base is None or base.run is None:
            return progress
        return Progress(progress.plan, progress.purged + self._done - self._done_before)

    def _left(self, sign: ReadSign | None) -> int | None:
        if self._plan is not None:
            progress = self._progressed(self._plan)
            return max(progress.plan.expected - progress.purged, 0)
        return None if sign is None or sign.expected is None else max(sign.expected - self._done, 0)

    def _lag(self, connection: Connection) -> Sequence[CopyLag]:
        if time.monotonic() - self._copies_read_at >= COPIES_SECONDS:
            self._copies = lag.read(connection, self.database.settings, self.clock.now(), COPIES_AT_MOST)
            self._copies_read_at = time.monotonic()
        return self._copies


def _held(holder: Holder | None) -> tuple[int | None, bool]:
    return (holder.run_id, holder.held) if holder else (None, False)


def _replica(row: Any) -> Replica:
    seconds = None if row.seconds is None else float(row.seconds)
    return Replica(row.name or "replica", row.hidden, seconds, None if row.bytes is None else int(row.bytes))
