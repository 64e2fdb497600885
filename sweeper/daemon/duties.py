"""What `serve` does at set times: one small function a job, and a table of them.

A job of the schedule is called a duty here, since a `Job` is one look at one store. The law of this file: each duty reads
settings and policy afresh, so that what was changed on disk holds from the next one on; whatever fails ends as an outcome.
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

from sweeper import sweep as sweeps
from sweeper.clock import Clock
from sweeper.core.instant import rfc3339
from sweeper.errors import LeaseHeldError, RefusedError, SweeperError
from sweeper.job import Job, read_contract, unreachable
from sweeper.manifest import extra
from sweeper.settings import Settings, load_policy
from sweeper.steering import Stop, Watch
from sweeper.stopping import Stopping
from sweeper.store import database as databases
from sweeper.store import done, migrate
from sweeper.store.database import Database
from sweeper.store.done import Last
from sweeper.store.live import Live

if TYPE_CHECKING:
    from sweeper.manifest.pseudonym import Pseudonym


class Outcome(StrEnum):
    """How a duty ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    REFUSED = "refused"
    LEASE_HELD = "lease_held"
    FAILED = "failed"


Done = tuple[Outcome, dict[str, Any]]
"""How a duty ended, and what came of it: counts and names for a log, no content."""


@dataclass(frozen=True)
class Bench:
    """What the duties work with."""

    fresh: Callable[[], Settings]
    """Reads the settings as they are on disk now."""
    clock: Clock
    stopping: Stopping
    live: Live

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The database of the settings, with the sweeper's own tables in it; what runs there can be cancelled.

        Raises:
            ConfigurationError: the settings cannot be used, or the tables are of another revision.
        """
        database = databases.connect(self.fresh())
        self.live.watch(database.engine)
        try:
            with self.live.also(database.abandoned.set):  # what is cancelled is not tried again
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


def sweep(bench: Bench) -> Done:
    """One sweep. One that purged nothing although something is overdue has failed."""
    with bench.job() as job:
        watch = Watch(stopping=lambda: Stop.SIGNAL if bench.stopping.asked else "")
        result = sweeps.sweep(job, watch=watch)
    stalled = result.outcome == "completed" and result.is_stalled
    return Outcome.FAILED if stalled else Outcome(result.outcome), result.as_json()


def report(bench: Bench) -> Done:
    """A report on everything, recorded. One that sees what is overdue while nothing is purged has failed."""
    from sweeper.numbers import report as reports

    with bench.job() as job:
        found = reports.report(job)
    return Outcome.FAILED if found.alarms else Outcome.COMPLETED, found.as_json()


def checkpoint(bench: Bench) -> Done:
    """A checkpoint of the evidence, where there is any that the last one does not cover."""
    from sweeper.audit import checkpoint as checkpoints
    from sweeper.audit import signing

    with bench.database() as database:
        taken = checkpoints.take(database, bench.clock, signing.read(database.settings))
    return Outcome.COMPLETED, {"size": taken.size, "signed_by": taken.signed_by} if taken else {}


def export(bench: Bench) -> Done:
    """The ledger in a file, to be copied to where the database's loss does not reach; rows that do not fit fail it."""
    from sweeper.audit import export as exports

    with bench.database() as database:
        file = database.settings.schedule.export_file
        note = exports.write(database, file)
    return Outcome.COMPLETED, {"file": str(file), "size": note.tree.size}


def manifest(bench: Bench) -> Done:
    """A manifest in a directory of its own, named after its as-of."""
    lifecycle, key = extra.lifecycle(), _key()
    from sweeper.manifest import build, snapshot

    with bench.job() as job, bench.live.also(snapshot.cancel):
        folder = job.settings.schedule.manifest_directory
        with build.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        frozen = lifecycle.freeze(job, folder / f"{job.as_of:%Y%m%dT%H%M%SZ}", key)
    said = {"manifest": frozen.description.id, "directory": str(frozen.folder), "eligible": frozen.description.eligible}
    return Outcome.COMPLETED, said


def recall(bench: Bench) -> Done:
    """What left each manifest since the last recall, handed over in files."""
    lifecycle = extra.lifecycle()
    with bench.job() as job:
        found = list(lifecycle.recall(job, job.settings.schedule.recall_directory))
    missing = [one.manifest_id for one in found if one.missing]
    said = {"manifests": len(found), "rows": sum(one.reasons.total() for one in found), "not_looked_through": missing}
    return Outcome.FAILED if missing else Outcome.COMPLETED, said


def _key() -> "Pseudonym":
    from sweeper.manifest import pseudonym

    return pseudonym.read()


def _nothing(_: Settings) -> None:
    """What needs nothing but what every duty needs."""


def _checkpoint_needs(settings: Settings) -> None:
    from sweeper.audit import signing

    signing.read(settings)


def _manifest_needs(_: Settings) -> None:
    extra.lifecycle()
    _key()


def _recall_needs(_: Settings) -> None:
    extra.lifecycle()


@dataclass(frozen=True)
class Duty:
    """Something to be done at set times."""

    do: Callable[[Bench], Done]
    last: Last | None
    """When it was last done, by whomever; None: it harms nothing to do it whenever a daemon begins."""
    purges: bool = False
    """It is not made up for while nothing may be purged."""
    needs: Callable[[Settings], None] = _nothing
    """Raises a ConfigurationError where it could not be done: better when a daemon begins than at the end of a month."""


DUTIES: Mapping[str, Duty] = {
    "sweep": Duty(sweep, done.sweep, purges=True),
    "report": Duty(report, done.event("reported")),
    "checkpoint": Duty(checkpoint, None, needs=_checkpoint_needs),
    "export": Duty(export, None),
    "manifest": Duty(manifest, done.manifest, needs=_manifest_needs),
    "recall": Duty(recall, done.event("recalled"), needs=_recall_needs),
}
"""By its name in the settings."""


@dataclass(frozen=True)
class Ended:
    """How a duty ended, and when (UTC)."""

    duty: str
    outcome: Outcome
    began_at: datetime
    ended_at: datetime
    seconds: float
    result: Mapping[str, Any]
    passing: bool = False
    """It failed as a whole, so that it may fare better a little later."""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "job": self.duty,
            "outcome": self.outcome.value,
            "began_at": rfc3339(self.began_at),
            "ended_at": rfc3339(self.ended_at),
            "duration_s": round(self.seconds, 3),
            "result": dict(self.result),
        }


def perform(name: str, bench: Bench) -> Ended:
    """Do a duty; whatever it raises is its outcome, never this program's end."""
    began_at, started, passing = bench.clock.now(), time.monotonic(), False
    try:
        outcome, result = DUTIES[name].do(bench)
    except LeaseHeldError as error:
        outcome, result = Outcome.LEASE_HELD, {"text": str(error)}
    except RefusedError as refusal:
        outcome, result = Outcome.REFUSED, {"guard": refusal.guard, "text": str(refusal)}
    except Exception as error:
        outcome, passing = Outcome.STOPPED if bench.stopping.asked else Outcome.FAILED, True
        result = {"text": _told(error)}
    seconds = time.monotonic() - started
    return Ended(name, outcome, began_at, bench.clock.now(), seconds, result, passing)


def _told(error: Exception) -> str:
    """What went wrong, in words without content."""
    if isinstance(error, DBAPIError):
        return str(unreachable(error))
    if isinstance(error, SweeperError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {where.filename}:{where.lineno}. This is a fault of the program: report it."
