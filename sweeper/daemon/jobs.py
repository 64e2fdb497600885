"""The jobs that `serve` runs at set times: one function per job, and a table of them.

Invariant: each job reads settings and policy from disk, so that a change takes effect with the next job; every failure becomes
an outcome. (`Job` is something else: one run on one store.)
"""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from sweeper.clock import Clock
from sweeper.encoding import to_json
from sweeper.errors import LeaseHeldError, RefusedError, SweeperError
from sweeper.manifest import extra
from sweeper.postgres import database as databases
from sweeper.postgres import last_runs, migrate
from sweeper.postgres.database import Database
from sweeper.postgres.last_runs import Last
from sweeper.postgres.stop import StopRequest
from sweeper.runs import sweep as sweeps
from sweeper.runs.job import Job, read_contract, unreachable
from sweeper.settings import Settings, load_policy

if TYPE_CHECKING:
    from sweeper.manifest.pseudonym import Pseudonym


class JobOutcome(StrEnum):
    """How a scheduled job ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    REFUSED = "refused"
    LEASE_HELD = "lease_held"
    FAILED = "failed"


Done = tuple[JobOutcome, dict[str, Any]]
"""How a scheduled job ended, and its result: counts and names for a log, no content."""


@dataclass(frozen=True)
class JobContext:
    """What a scheduled job works with: settings, clock and stop request."""

    fresh: Callable[[], Settings]
    """Reads the settings from disk."""
    clock: Clock
    stop: StopRequest

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Connect to the database of the settings; the stop request can cancel statements there.

        Raises:
            ConfigurationError: the settings are not valid, or the sweeper's own tables are missing or at another revision.
        """
        database = databases.connect(self.fresh(), self.stop)
        try:
            migrate.refuse_other(migrate.revision(database))
            yield database
        finally:
            database.engine.dispose()

    @contextmanager
    def job(self) -> Iterator[Job]:
        """Yield a job on the store as of now, with the settings and policy on disk.

        Raises:
            ConfigurationError: settings, policy or store are not valid.
            DatabaseError: the database cannot be reached.
        """
        policy = load_policy(self.fresh())
        with self.database() as database:
            yield Job(database, read_contract(database, policy), policy, self.clock, self.clock.now())


def sweep(context: JobContext) -> Done:
    """Sweep. A sweep that purged nothing although records are overdue counts as failed."""
    with context.job() as job:
        result = sweeps.sweep(job)
    stalled = result.outcome == "completed" and result.is_stalled
    return JobOutcome.FAILED if stalled else JobOutcome(result.outcome), to_json(result)


def report(context: JobContext) -> Done:
    """Report on the whole store and record the report. A report with an alarm counts as failed."""
    from sweeper.report import report as reports

    with context.job() as job:
        result = reports.report(job)
    return JobOutcome.FAILED if result.alarms else JobOutcome.COMPLETED, to_json(result)


def checkpoint(context: JobContext) -> Done:
    """Take a checkpoint if there is evidence that the last one does not cover."""
    from sweeper.evidence import checkpoint as checkpoints
    from sweeper.evidence import keys

    with context.database() as database:
        taken = checkpoints.take(database, context.clock, keys.read(database.settings))
    return JobOutcome.COMPLETED, {"size": taken.size, "signed_by": taken.signed_by} if taken else {}


def copies(context: JobContext) -> Done:
    """Tell the copies what was purged. A copy that does not acknowledge counts as a failure."""
    from sweeper.copies import delivery

    with context.database() as database:
        found = delivery.deliver(database, context.clock)
    has_failed = any(each.outcome == "failed" for each in found)
    return JobOutcome.FAILED if has_failed else JobOutcome.COMPLETED, {each.copy: each.outcome for each in found}


def export(context: JobContext) -> Done:
    """Export the ledger to a file, to be copied to where it survives the loss of the database."""
    from sweeper.evidence import export as exports

    with context.database() as database:
        file = database.settings.schedule.export_file
        note = exports.write(database, file)
    return JobOutcome.COMPLETED, {"file": str(file), "size": note.tree.size}


def manifest(context: JobContext) -> Done:
    """Freeze a manifest in a directory named after its as-of."""
    with extra.required():
        from sweeper.manifest import lifecycle
    key = _key()
    from sweeper.manifest import build

    with context.job() as job:
        folder = job.settings.schedule.manifest_directory
        with build.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        frozen = lifecycle.freeze(job, folder / f"{job.as_of:%Y%m%dT%H%M%SZ}", key)
    result = {
        "manifest": frozen.description.id,
        "directory": str(frozen.folder),
        "eligible": frozen.description.eligible,
    }
    return JobOutcome.COMPLETED, result


def recall(context: JobContext) -> Done:
    """Write files with the rows that left each manifest since its last recall. A missing manifest counts as a failure."""
    with extra.required():
        from sweeper.manifest import lifecycle
    with context.job() as job:
        recalls = list(lifecycle.recall(job, job.settings.schedule.recall_directory))
    missing = [recall.manifest_id for recall in recalls if recall.missing]
    rows = sum(recall.reasons.total() for recall in recalls)
    result = {"manifests": len(recalls), "rows": rows, "not_looked_through": missing}
    return JobOutcome.FAILED if missing else JobOutcome.COMPLETED, result


def _key() -> "Pseudonym":
    from sweeper.manifest import pseudonym

    return pseudonym.read()


def _checkpoint_needs(settings: Settings) -> None:
    from sweeper.evidence import keys

    keys.read(settings)


def _copies_need(settings: Settings) -> None:
    from sweeper.copies import sender

    sender.senders(settings)


def _recall_needs(_: Settings) -> None:
    with extra.required():
        from sweeper.manifest import lifecycle  # noqa: F401 — checks that it is installed


def _manifest_needs(settings: Settings) -> None:
    _recall_needs(settings)
    _key()


@dataclass(frozen=True)
class ScheduledJob:
    """One job that the daemon runs at set times."""

    do: Callable[[JobContext], Done]
    last: Last | None
    """Reads when the job last ran, whoever started it; None: the job is harmless and runs whenever a daemon starts."""
    purges: bool = False
    """True if the job purges: it is not made up for during a pause."""
    needs: Callable[[Settings], None] = lambda _: None
    """Raises ConfigurationError at the daemon's start if the job lacks something, rather than at the end of a month."""


SCHEDULED_JOBS: Mapping[str, ScheduledJob] = {
    "sweep": ScheduledJob(sweep, last_runs.sweep, purges=True),
    "report": ScheduledJob(report, last_runs.event("reported")),
    "checkpoint": ScheduledJob(checkpoint, None, needs=_checkpoint_needs),
    "copies": ScheduledJob(copies, None, needs=_copies_need),
    "export": ScheduledJob(export, None),
    "manifest": ScheduledJob(manifest, last_runs.manifest, needs=_manifest_needs),
    "recall": ScheduledJob(recall, last_runs.event("recalled"), needs=_recall_needs),
}
"""The jobs by their names in the settings."""


@dataclass(frozen=True)
class EndedJob:
    """How a scheduled job ended, and when (UTC)."""

    job: str
    outcome: JobOutcome
    began_at: datetime
    ended_at: datetime
    duration_s: float
    result: Mapping[str, Any]
    passing: bool = field(default=False, repr=False)
    """True if the job failed as a whole, so that a retry may succeed."""


def perform(name: str, context: JobContext) -> EndedJob:
    """Run a scheduled job; an exception becomes its outcome and never ends the daemon."""
    began_at, started, passing = context.clock.now(), time.monotonic(), False
    try:
        outcome, result = SCHEDULED_JOBS[name].do(context)
    except LeaseHeldError as error:
        outcome, result = JobOutcome.LEASE_HELD, {"text": str(error)}
    except RefusedError as refusal:
        outcome, result = JobOutcome.REFUSED, refusal.as_json()
    except Exception as error:
        outcome, passing = JobOutcome.STOPPED if context.stop.is_asked else JobOutcome.FAILED, True
        result = {"text": _describe(error)}
    seconds = round(time.monotonic() - started, 3)
    return EndedJob(name, outcome, began_at, context.clock.now(), seconds, result, passing)


def _describe(error: Exception) -> str:
    """Return what went wrong in one text without content."""
    if isinstance(error, DBAPIError):
        return str(unreachable(error))
    if isinstance(error, SweeperError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {where.filename}:{where.lineno}. This is a fault of the program: report it."
