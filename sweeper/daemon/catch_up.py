"""Runs each scheduled job once to catch up on its missed instants, and logs how many it missed.

A job was missed if its schedule has an instant after its last run. The evidence records the last run, whoever started it. While
the database cannot be read, the check stays pending and is tried again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.clock import Clock
from sweeper.daemon.cron import COUNTED_AT_MOST, Cron, missed
from sweeper.daemon.jobs import SCHEDULED_JOBS, EndedJob, JobOutcome
from sweeper.policy.instant import rfc3339
from sweeper.postgres import database as databases
from sweeper.postgres import last_runs
from sweeper.postgres.database import Database
from sweeper.report import operation
from sweeper.runs.throttle import StopReason

AGAIN_SECONDS, AGAIN_AT_MOST_SECONDS = 300.0, 14_400.0
"""A job that failed as a whole is retried after `AGAIN_SECONDS`; the delay doubles up to `AGAIN_AT_MOST_SECONDS`."""


@dataclass(frozen=True)
class Pending:
    """A pending check whether a job missed instants up to `until`, not to be made before `not_before` (both UTC)."""

    until: datetime
    not_before: datetime


class CatchUp:
    """The pending checks for missed jobs. Thread-safe."""

    def __init__(
        self, database: Database, clock: Clock, timetable: Mapping[str, Cron], begin: Callable[[str], None]
    ) -> None:
        """Start with no pending checks; `begin` is called with the name of each job to run now."""
        self._database, self._clock, self._timetable, self._begin = database, clock, timetable, begin
        self._store = database.settings.store.schema_name
        self._lock = Lock()
        self._pending: dict[str, Pending] = {}
        self._failures: dict[str, int] = {}
        self._is_waiting = False
        self.is_recorded = False
        """True once the evidence records that this daemon started."""

    def expect(self, until: datetime) -> None:
        """Schedule a check of every job for instants missed up to `until`, the daemon's start."""
        with self._lock:
            self._pending.update(dict.fromkeys(self._timetable, Pending(until, until)))

    def missed(self, name: str) -> None:
        """Schedule a check of a job that could not start within the grace period (the machine slept or was too busy)."""
        self._check_later(name, 0.0)

    def ended(self, ended: EndedJob) -> None:
        """Schedule another check if the job failed as a whole, was paused, or found the lease held by another run.

        A job that another guard refused is not retried: somebody has to act first.
        """
        if ended.outcome is JobOutcome.LEASE_HELD:
            self._check_later(ended.job, AGAIN_SECONDS)
        elif ended.result.get("guard") == StopReason.PAUSED:
            self._check_later(ended.job, 0.0)
        elif ended.outcome is JobOutcome.FAILED and ended.passing:
            self._failures[ended.job] = failures = self._failures.get(ended.job, 0) + 1
            self._check_later(ended.job, min(AGAIN_SECONDS * 2 ** (failures - 1), AGAIN_AT_MOST_SECONDS))
        else:
            self._failures.pop(ended.job, None)

    def due(self) -> dict[str, Pending]:
        """Return the checks to make now, by job."""
        now = self._clock.now()
        with self._lock:
            return {name: check for name, check in self._pending.items() if check.not_before <= now}

    def look(self) -> None:
        """Make the checks that are due and start the jobs that were missed; leave all pending if the database fails."""
        due = self.due()
        if not due:
            return
        try:
            with self._database.transaction() as connection:
                sinces, paused = self._sinces(connection, due), operation.pauses(connection)
        except DBAPIError as error:
            self._log_waiting(databases.reason(error))
            return
        self.is_recorded, self._is_waiting = True, False
        for name, check in due.items():
            if not (paused and SCHEDULED_JOBS[name].purges):
                self._make_up(name, check, sinces[name])

    def _sinces(self, connection: Connection, due: Mapping[str, Pending]) -> dict[str, datetime | None]:
        """Return the instant (UTC) after which each job may have been missed: its last run, or else the first daemon's start.

        If this is the first daemon, nothing was missed yet. None means that the job runs whenever a daemon starts.
        """
        if not self.is_recorded:
            last_runs.record_serving(
                connection, self._store, {name: cron.expression for name, cron in self._timetable.items()}
            )
        first = last_runs.first_served(connection, self._store)
        lasts = {name: last for name in due if (last := SCHEDULED_JOBS[name].last) is not None}
        return {name: lasts[name](connection, self._store) or first if name in lasts else None for name in due}

    def _make_up(self, name: str, check: Pending, since: datetime | None) -> None:
        with self._lock:
            if self._pending.get(name) is check:
                del self._pending[name]
        if since is not None:
            instants = missed(self._timetable[name], since, check.until)
            if not instants:
                return
            log.get().warning("missed", job=name, text=_describe(name, len(instants), since))
        self._begin(name)

    def _check_later(self, name: str, seconds: float) -> None:
        now = self._clock.now()
        with self._lock:
            self._pending[name] = Pending(now, now + timedelta(seconds=seconds))

    def _log_waiting(self, reason: str) -> None:
        if not self._is_waiting:
            log.get().warning("missed jobs are made up for once the database answers", reason=reason)
        self._is_waiting = True


def _describe(name: str, count: int, since: datetime) -> str:
    more = " or more" if count == COUNTED_AT_MOST else ""
    times, them = ("times", "them") if count > 1 else ("time", "it")
    return f"missed {count}{more} {times} since {rfc3339(since)}; one {name} makes up for {them}"
