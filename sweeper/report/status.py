"""Read the status of a store: pauses, lease, runs, backfills, what is overdue, and advice on what is wrong.

Reading the status changes nothing. If a part cannot be read, for instance because of a broken policy, the status says why.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from sweeper.clock import Clock
from sweeper.policy.counts import Counts
from sweeper.policy.instant import rfc3339
from sweeper.policy.times import length as length
from sweeper.postgres import backfills, migrate, pace, run_sign
from sweeper.postgres.backfills import BackfillPlan
from sweeper.postgres.database import Database
from sweeper.postgres.run_sign import ReadSign
from sweeper.report import numbers as numbers
from sweeper.report import operation, upkeep
from sweeper.report import overdue as overdues
from sweeper.report.operation import Covered, EndedRun, Holder, Pause, Progress, Reported, RunEntry
from sweeper.report.overdue import PATIENCE, Overdue
from sweeper.report.upkeep import Upkeep
from sweeper.runs.session import CHECKPOINT_SECONDS
from sweeper.runs.throttle import ORDERED, StopReason

RUNS_SHOWN = 10
REPORT_AGE = timedelta(hours=50)
"""Runs do not meet every record in doubt, `report` counts them all; what an older report counted is not relied on."""
RESUMED = frozenset({StopReason.YIELDED, StopReason.HOURS, StopReason.PAUSED})
"""Reasons why a slice of a backfill stops and the backfill continues it by itself."""


@dataclass(frozen=True)
class Status:
    """The status at one instant (UTC). `overdue` is an error message if it could not be counted; `signs` are of this store."""

    at: datetime
    store: str
    pauses: list[Pause]
    holder: Holder | None
    runs: list[RunEntry]
    ended: EndedRun
    backfills: list[Progress]
    covered: Covered
    pace: float | None
    overdue: Overdue | str
    upkeep: Upkeep
    reported: Reported | None
    signs: Mapping[str, ReadSign] = field(default_factory=dict)

    @property
    def running(self) -> list[RunEntry]:
        """The runs without a recorded outcome: they are running or died."""
        return [run for run in self.runs if run.outcome is None]

    def is_alive(self, run: RunEntry) -> bool:
        """Return whether a run without an outcome still holds the lease."""
        return self.holder is not None and self.holder.held and self.holder.run_id == run.id

    @property
    def binding(self) -> BackfillPlan | None:
        """The backfill whose conversations runs leave to it; None if there is none or it has been silent for too long."""
        return backfills.binding([progress.plan for progress in self.backfills], self.at)

    def remaining(self, progress: Progress) -> float | None:
        """Return how many seconds of work the rest of a backfill takes; None if the pace is unknown."""
        return pace.remaining_seconds(progress.plan.expected - progress.purged, self.pace)

    @property
    def success_age(self) -> timedelta | None:
        """How long ago the last successful run ended, not counting backfills; None if none has succeeded."""
        return self.at - self.ended.success if self.ended.success else None

    @property
    def advice(self) -> list[str]:
        """What is wrong and what to do about it; empty if nothing is wrong."""
        return [line for look in ADVICE for line in look(self)]

    @property
    def not_looked_at(self) -> list[str]:
        """What this status did not look at, so that nothing is known about it; empty if it looked at everything."""
        return list(_not_looked_at(self))

    @property
    def now(self) -> Counts | None:
        """The counts of all records that may be due; None if they were not counted to the end."""
        return self.overdue.counts if isinstance(self.overdue, Overdue) and self.overdue.complete else None

    def as_json(self) -> dict[str, Any]:
        """Return the status for --json."""
        return {
            "at": self.at,
            "store": self.store,
            "paused": bool(self.pauses),
            "pauses": self.pauses,
            "lease": self.holder,
            "running": [run.id for run in self.running if self.is_alive(run)],
            "runs": [{**vars(run), "duration_s": run.seconds} for run in self.runs],
            "last_success_at": self.ended.success,
            "last_success_age_seconds": self.success_age.total_seconds() if self.success_age else None,
            "signs": self.signs,
            "backfills": self.backfills,
            "overdue": self.overdue if isinstance(self.overdue, Overdue) else None,
            "overdue_unknown": self.overdue if isinstance(self.overdue, str) else None,
            "upkeep": self.upkeep.as_json(),
            "advice": self.advice,
            "not_looked_at": self.not_looked_at,
        }


def read(database: Database, clock: Clock, enough: Callable[[], bool] = lambda: False) -> Status:
    """Read the status as of now.

    Args:
        database: the database of the store; policy and store may be broken.
        clock: the source of the present.
        enough: called between portions of the count of overdue records; True stops the count.

    Raises:
        ConfigurationError: the sweeper's own tables are missing, older or newer.
        DBAPIError: the database failed.
    """
    migrate.refuse_other(migrate.revision(database))
    now = clock.now()
    found = database.within(lambda connection: _read(connection, database, now))
    return replace(found, overdue=overdues.attempt(database, clock, enough))


def _read(connection: Connection, database: Database, now: datetime) -> Status:
    store = database.settings.store.schema_name
    runs, backfills = operation.runs(connection, store, RUNS_SHOWN), operation.progress(connection, store)
    names = {*(f"run {run.id}" for run in runs), *(f"backfill {each.plan.id}" for each in backfills)}
    return Status(
        at=now,
        store=numbers.store_name(database.settings),
        pauses=operation.pauses(connection),
        holder=operation.holder(connection, store, database.settings.lease.seconds),
        runs=runs,
        ended=operation.ended(connection, store, ORDERED),
        backfills=backfills,
        covered=operation.covered(connection),
        pace=pace.recent(connection, store, now),
        overdue="not counted",
        upkeep=upkeep.read(connection, database.settings, now),
        reported=operation.reported(connection, store),
        signs={who: sign for who, sign in run_sign.read(connection).items() if who in names},
    )


def _paused(status: Status) -> Iterator[str]:
    if status.pauses:
        first = status.pauses[0]
        yield (
            f"Paused since {rfc3339(first.paused_at)} ({first.reason}): nothing is purged. "
            "When the reason is gone: `sweeper resume`."
        )


def _success(status: Status) -> Iterator[str]:
    age = status.success_age
    if age is None:
        yield "No run has completed yet: `sweeper check`, then `sweeper run --dry-run`, then `sweeper run`."
    elif age > PATIENCE:
        yield (
            f"The last success was {length(age)} ago: check whether cron, the timer, the CronJob or `sweeper serve` is alive, "
            "then make up for it with `sweeper run`."
        )


def _last_run(status: Status) -> Iterator[str]:
    """Advice on the newest run and the newest run that is not a backfill; a later slice does not make up for a failed run."""
    ended = [run for run in status.runs if run.outcome is not None]
    plain = [run for run in ended if run.kind != "backfill"]
    for last in dict.fromkeys([*plain[:1], *ended[:1]]):
        yield from _ended(last)


def _ended(last: RunEntry) -> Iterator[str]:
    if last.kind == "backfill" and (last.outcome == "interrupted" or last.stop_reason in RESUMED):
        return  # the backfill continues by itself; if nobody works on it, `_stalled` says so
    if last.outcome == "refused":
        yield f"Run {last.id} was refused by {last.guard or 'a guard'}: {last.said or 'see sweeper.runs'}"
    elif last.outcome == "failed":
        reason = last.said or f"{last.failed:,} records could not be purged"
        yield f"Run {last.id} failed: {reason}. Its log and sweeper.events name each reason; `sweeper check`, then `sweeper run`."
    elif last.stalled:
        yield f"Run {last.id} purged nothing although records were due: its log and `sweeper run --dry-run` say which."
    elif last.outcome == "interrupted" or (last.outcome == "stopped" and last.stop_reason not in ORDERED):
        why = f" ({last.stop_reason})" if last.stop_reason else ""
        yield f"Run {last.id} was {last.outcome}{why}: what it purged stays purged, and the next `sweeper run` continues."


def _dead(status: Status) -> Iterator[str]:
    for run in status.running:
        if not status.is_alive(run):
            yield f"Run {run.id} has not ended and holds no lease: it died. The next `sweeper run` records that and continues."


def _stalled(status: Status) -> Iterator[str]:
    """Backfills that no process works on, by the lease and their heartbeat."""
    if status.holder is not None and status.holder.held and status.holder.kind == "backfill":
        return
    for plan in (progress.plan for progress in status.backfills):
        if plan.is_silent(status.at):
            ended = f"its process ended {rfc3339(plan.stopped_at)}" if plan.stopped_at else "its process died"
            yield (
                f"Nobody works on backfill {plan.id} ({ended}, last heartbeat {length(status.at - plan.seen_at)} ago), done "
                f"until {rfc3339(plan.done_until)}: `{plan.command}` continues from there."
            )


def _overdue(status: Status) -> Iterator[str]:
    if isinstance(status.overdue, str):
        yield f"Overdue records could not be counted: {status.overdue}"
        return
    found = status.overdue.counts
    kinds = (
        ("conversations", found.conversations),
        ("redactions", found.redactions),
        ("feedback rows", found.feedback),
    )
    for kind, counts in kinds:
        earliest, due = counts.earliest_due, counts.due.total()
        if earliest is not None and status.at - earliest > PATIENCE:
            at_least = "" if status.overdue.complete else "at least "
            drain = pace.remaining_seconds(due, status.pace) if kind == "conversations" else None
            forecast = f"; at the recent pace {length(drain)} of work" if drain else ""
            yield (
                f"{at_least}{due:,} {kind} are overdue, the oldest for {length(status.at - earliest)}{forecast}: "
                f"{_remedy(status, earliest, kind)}"
            )


def _remedy(status: Status, earliest: datetime, kind: str) -> str:
    """Return what purges it. Until a backfill is finished or given up, runs leave to it what is due before its end."""
    plan = status.binding
    if kind == "conversations" and plan is not None and earliest < plan.until:
        reason = f"runs leave what is due before {rfc3339(plan.until)} to backfill {plan.id}"
        return f"{reason}: `{plan.command}` continues it, the same with --give-up leaves the rest to runs."
    more = ", or `sweeper backfill` for a backlog of years." if kind == "conversations" else "."
    return f"`sweeper run --dry-run`, then `sweeper run`{more}"


def _unmatched(status: Status) -> Iterator[str]:
    """Holds and orders that match nothing; somebody may rely on them."""
    if isinstance(status.overdue, str) or status.overdue.unmatched is None:
        return
    found = status.overdue.unmatched
    if found.holds:
        yield (
            f"{len(found.holds)} legal holds protect nothing: the store has no account or conversation with their ids. "
            "`sweeper hold list` marks them; place each again with the id as the store writes it, then release the old one."
        )
    if found.misspelt or found.orders:
        yield (
            f"{len(found.orders) + len(found.misspelt)} erasure orders erase nothing: {len(found.misspelt)} spell an id "
            f"differently from the store, {len(found.orders)} name an id that it does not have. `sweeper order list` marks them; "
            "add each again with the id as the store writes it, then withdraw the old one (`sweeper order withdraw --id`)."
        )


def _unsigned(status: Status) -> Iterator[str]:
    if status.covered.was_signed and not status.covered.signed:
        yield (
            "The newest checkpoint of the evidence is unsigned, though earlier ones are signed: give runs the key again "
            "(SWEEPER_SIGNING_KEY_FILE), then run `sweeper audit checkpoint`."
        )


def _uncovered(status: Status) -> Iterator[str]:
    """Evidence that no checkpoint covers although a run, which takes one at its end, has ended since, or for too long."""
    checkpoint, ended = status.covered.checkpoint_at, status.ended.success
    grace = timedelta(seconds=CHECKPOINT_SECONDS)
    missed = ended is not None and status.at - ended > grace and (checkpoint is None or checkpoint < ended)
    is_old = checkpoint is not None and status.at - checkpoint > PATIENCE
    if status.covered.rows and (missed or is_old):
        since = rfc3339(checkpoint) if checkpoint else "the beginning"
        yield (
            f"No checkpoint covers the evidence since {since} ({status.covered.rows:,} rows), so a change of it could not be "
            "told: `sweeper audit checkpoint`."
        )


def _skipped(status: Status) -> Iterator[str]:
    yield from upkeep.skipped(status.upkeep, status.now)


def _doubted(status: Status) -> Iterator[str]:
    yield from upkeep.doubted(status.upkeep, status.now, status.reported)


def _installation(status: Status) -> Iterator[str]:
    yield from upkeep.installation(status.upkeep, status.at)


def _copies(status: Status) -> Iterator[str]:
    for copy in status.upkeep.copies:
        if copy.records:
            reason = f" The last delivery failed: {copy.last_error}." if copy.failed_at else ""
            yield (
                f"Copy {copy.copy} has not acknowledged {copy.records:,} purged records, the oldest for {length(copy.seconds)}."
                f"{reason} The next run tries again; `sweeper copies deliver {copy.copy}` does now."
            )


def _not_looked_at(status: Status) -> Iterator[str]:
    if isinstance(status.overdue, str):
        yield "What is overdue, skipped or in doubt now, for the reason above."
    elif not status.overdue.complete:
        yield "Overdue records beyond those counted: `sweeper report` counts all."
    elif status.overdue.unmatched is None:
        yield "Whether each hold and order matches a record, because that could not be searched: see `sweeper hold list`."
    if isinstance(status.upkeep.indexes, str):
        yield f"Indexes, because the store cannot be read ({status.upkeep.indexes}): see `sweeper check`."
    if status.upkeep.views:
        yield f"Indexes of {', '.join(status.upkeep.views)}: looked at are those of tables and behind plain views."
    if status.reported is None:
        yield "Records in doubt that no run meets: no `sweeper report` has counted them yet."
    elif status.at - status.reported.at > REPORT_AGE:
        yield f"Records in doubt that no run meets, since the report of {rfc3339(status.reported.at)}: run `sweeper report`."


ADVICE: tuple[Callable[[Status], Iterator[str]], ...] = (
    *(_paused, _overdue, _skipped, _doubted, _unmatched, _success, _last_run, _dead, _stalled),
    *(_copies, _installation, _uncovered, _unsigned),
)
"""The checks behind `Status.advice`, most urgent first."""
