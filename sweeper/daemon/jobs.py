"""The jobs of `serve`: one small function each, and a table of them.

Invariant: each job reads settings and policy anew, so that a change on disk applies from the next one on; a failure becomes an
outcome.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from sweeper.clock import Clock
from sweeper.errors import LeaseHeldError, RefusedError, SweeperError
from sweeper.manifest import extra
from sweeper.policy.instant import rfc3339
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
    """The outcome of a job."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    REFUSED = "refused"
    LEASE_HELD = "lease_held"
    FAILED = "failed"


Done = tuple[JobOutcome, dict[str, Any]]
"""The outcome of a job with its counts and names for the log; never content."""


@dataclass(frozen=True)
class JobContext:
    """What the jobs work with."""

    fresh: Callable[[], Settings]
    """Reads the settings as they are on disk now."""
    clock: Clock
    stop: StopRequest

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The database of the settings, with the sweeper's own tables in it; what runs there can be cancelled.

        Raises:
            ConfigurationError: the settings cannot be used, or the tables are of another revision.
        """
        database = databases.connect(self.fresh(), self.stop)
        try:
            migrate.refuse_other(migrate.revision(database))
            yield database
        finally:
            database.engine.dispose()

    @contextmanager
    def job(self) -> Iterator[Job]:
        """A job on the store as of now, with settings and policy as they are on disk now.

        Raises:
            ConfigurationError: settings, policy or store cannot be used.
            DatabaseError: the database cannot be reached.
        """
        policy = load_policy(self.fresh())
        with self.database() as database:
            yield Job(database, read_contract(database, policy), policy, self.clock, self.clock.now())


def sweep(bench: JobContext) -> Done:
    """Run a sweep; it fails if it purges nothing although records are overdue."""
    with bench.job() as job:
        result = sweeps.sweep(job)
    stalled = result.outcome == "completed" and result.is_stalled
    return JobOutcome.FAILED if stalled else JobOutcome(result.outcome), result.as_json()


def report(bench: JobContext) -> Done:
    """Make and record a report; it fails if records are overdue while nothing is purged."""
    from sweeper.report import report as reports

    with bench.job() as job:
        found = reports.report(job)
    return JobOutcome.FAILED if found.alarms else JobOutcome.COMPLETED, found.as_json()


def checkpoint(bench: JobContext) -> Done:
    """Take a checkpoint if there is evidence that the last one does not cover."""
    from sweeper.evidence import checkpoint as checkpoints
    from sweeper.evidence import keys

    with bench.database() as database:
        taken = checkpoints.take(database, bench.clock, keys.read(database.settings))
    return JobOutcome.COMPLETED, {"size": taken.size, "signed_by": taken.signed_by} if taken else {}


def export(bench: JobContext) -> Done:
    """The ledger in a file, to be copied to where the database's loss does not reach; rows that do not fit fail it."""
    from sweeper.evidence import export as exports

    with bench.database() as database:
        file = database.settings.schedule.export_file
        note = exports.write(database, file)
    return JobOutcome.COMPLETED, {"file": str(file), "size": note.tree.size}


def manifest(bench: JobContext) -> Done:
    """A manifest in a directory of its own, named after its as-of."""
    with extra.required():
        from sweeper.manifest import lifecycle
    key = _key()
    from sweeper.manifest import build

    with bench.job() as job:
        folder = job.settings.schedule.manifest_directory
        with build.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        frozen = lifecycle.freeze(job, folder / f"{job.as_of:%Y%m%dT%H%M%SZ}", key)
    said = {"manifest": frozen.description.id, "directory": str(frozen.folder), "eligible": frozen.description.eligible}
    return JobOutcome.COMPLETED, said


def recall(bench: JobContext) -> Done:
    """Recall every manifest: write the rows that may no longer be trained on to files."""
    with extra.required():
        from sweeper.manifest import lifecycle
    with bench.job() as job:
        found = list(lifecycle.recall(job, job.settings.schedule.recall_directory))
    missing = [one.manifest_id for one in found if one.missing]
    said = {"manifests": len(found), "rows": sum(one.reasons.total() for one in found), "not_looked_through": missing}
    return JobOutcome.FAILED if missing else JobOutcome.COMPLETED, said


def _key() -> "Pseudonym":
    from sweeper.manifest import pseudonym

    return pseudonym.read()


def _nothing(_: Settings) -> None:
    """What needs nothing but what every job needs."""


def _checkpoint_needs(settings: Settings) -> None:
    from sweeper.evidence import keys

    keys.read(settings)


def _manifest_needs(_: Settings) -> None:
    with extra.required():
        from sweeper.manifest import lifecycle  # noqa: F401 — only to see that it is there
    _key()


def _recall_needs(_: Settings) -> None:
    with extra.required():
        from sweeper.manifest import lifecycle  # noqa: F401 — only to see that it is there


@dataclass(frozen=True)
class ScheduledJob:
    """Something to be done at set times."""

    do: Callable[[JobContext], Done]
    last: Last | None
    """When it was last done, by whomever; None: it harms nothing to do it whenever a daemon begins."""
    purges: bool = False
    """It is not made up for while nothing may be purged."""
    needs: Callable[[Settings], None] = _nothing
    """Raises a ConfigurationError where it could not be done: better when a daemon begins than at the end of a month."""


SCHEDULED_JOBS: Mapping[str, ScheduledJob] = {
    "sweep": ScheduledJob(sweep, last_runs.sweep, purges=True),
    "report": ScheduledJob(report, last_runs.event("reported")),
    "checkpoint": ScheduledJob(checkpoint, None, needs=_checkpoint_needs),
    "export": ScheduledJob(export, None),
    "manifest": ScheduledJob(manifest, last_runs.manifest, needs=_manifest_needs),
    "recall": ScheduledJob(recall, last_runs.event("recalled"), needs=_recall_needs),
}
"""By its name in the settings."""


@dataclass(frozen=True)
class EndedJob:
    """A finished job: its outcome, and when it began and ended (UTC)."""

    name: str
    outcome: JobOutcome
    began_at: datetime
    ended_at: datetime
    seconds: float
    result: Mapping[str, Any]
    passing: bool = False
    """It failed as a whole, so that it may fare better a little later."""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "job": self.name,
            "outcome": self.outcome.value,
            "began_at": rfc3339(self.began_at),
            "ended_at": rfc3339(self.ended_at),
            "duration_s": round(self.seconds, 3),
            "result": dict(self.result),
        }


def perform(name: str, bench: JobContext) -> EndedJob:
    """Do a job; an exception becomes its outcome and does not end the program."""
    began_at, started, passing = bench.clock.now(), time.monotonic(), False
    try:
        outcome, result = SCHEDULED_JOBS[name].do(bench)
    except LeaseHeldError as error:
        outcome, result = JobOutcome.LEASE_HELD, {"text": str(error)}
    except RefusedError as refusal:
        outcome, result = JobOutcome.REFUSED, refusal.to_dict()
    except Exception as error:
        outcome, passing = JobOutcome.STOPPED if bench.stop.is_asked else JobOutcome.FAILED, True
        result = {"text": _told(error)}
    seconds = time.monotonic() - started
    return EndedJob(name, outcome, began_at, bench.clock.now(), seconds, result, passing)


def _told(error: Exception) -> str:
    """What went wrong, in words without content."""
    if isinstance(error, DBAPIError):
        return str(unreachable(error))
    if isinstance(error, SweeperError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {where.filename}:{where.lineno}. This is a fault of the program: report it."
