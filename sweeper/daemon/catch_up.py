"""Catches up on missed jobs, once, and logs it.

The one rule for that: a job was missed if its schedule has an instant after the time at which it was last done. The evidence
says when that was, whoever did it. While the evidence cannot be read, the question stays open and is asked again.
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
"""Delay before a failed job is tried again; it doubles with each failure."""


@dataclass(frozen=True)
class Pending:
    """A pending check for missed times up to `until`, not to be made before `not_before`."""

    until: datetime
    not_before: datetime


class CatchUp:
    """The looks that are still to be taken. Safe from several threads."""

    def __init__(
        self, database: Database, clock: Clock, timetable: Mapping[str, Cron], begin: Callable[[str], None]
    ) -> None:
        """`begin` is told which job is to be done now."""
        self._database, self._clock, self._timetable, self._begin = database, clock, timetable, begin
        self._store = database.settings.store.schema_name
        self._lock = Lock()
        self._pending: dict[str, Pending] = {}
        self._failures: dict[str, int] = {}
        self._is_waiting = False
        self.is_recorded = False
        """Whether this daemon's beginning stands in the evidence."""

    def expect(self, until: datetime) -> None:
        """A daemon begins: look at what was missed up to then, of everything."""
        with self._lock:
            self._pending.update(dict.fromkeys(self._timetable, Pending(until, until)))

    def missed(self, name: str) -> None:
        """Something could not begin within the grace (the machine slept, or was too busy): look as after a beginning."""
        self._look_later(name, 0.0)

    def ended(self, ended: EndedJob) -> None:
        """Look again later where a job failed as a whole, others were at work or it was paused; a guard waits for people."""
        if ended.outcome is JobOutcome.LEASE_HELD:
            self._look_later(ended.name, AGAIN_SECONDS)
        elif ended.result.get("guard") == StopReason.PAUSED:
            self._look_later(ended.name, 0.0)
        elif ended.outcome is JobOutcome.FAILED and ended.passing:
            self._failures[ended.name] = failures = self._failures.get(ended.name, 0) + 1
            self._look_later(ended.name, min(AGAIN_SECONDS * 2 ** (failures - 1), AGAIN_AT_MOST_SECONDS))
        else:
            self._failures.pop(ended.name, None)

    def due(self) -> dict[str, Pending]:
        """The looks that are to be taken now, by job."""
        now = self._clock.now()
        with self._lock:
            return {name: look for name, look in self._pending.items() if look.not_before <= now}

    def look(self) -> None:
        """Take the looks that are due, as far as the evidence can be read; what was missed begins now."""
        due = self.due()
        if not due:
            return
        try:
            with self._database.transaction() as connection:
                sinces, paused = self._sinces(connection, due), operation.pauses(connection)
        except DBAPIError as error:
            self._say_waiting(databases.reason(error))
            return
        self.is_recorded, self._is_waiting = True, False
        for name, look in due.items():
            if not (paused and SCHEDULED_JOBS[name].purges):
                self._make_up(name, look, sinces[name])

    def _sinces(self, connection: Connection, due: Mapping[str, Pending]) -> dict[str, datetime | None]:
        """Since when each job may have been missed: since it was last done, or else since the first daemon began.

        Where none began before this one, nothing was missed yet. None: it is done at every beginning.
        """
        if not self.is_recorded:
            last_runs.serves(connection, self._store, {name: cron.expression for name, cron in self._timetable.items()})
        first = last_runs.first_served(connection, self._store)
        lasts = {name: last for name in due if (last := SCHEDULED_JOBS[name].last) is not None}
        return {name: lasts[name](connection, self._store) or first if name in lasts else None for name in due}

    def _make_up(self, name: str, look: Pending, since: datetime | None) -> None:
        with self._lock:
            if self._pending.get(name) is look:
                del self._pending[name]
        if since is not None:
            found = missed(self._timetable[name], since, look.until)
            if not found:
                return
            log.get().warning("missed", job=name, text=_in_words(name, len(found), since))
        self._begin(name)

    def _look_later(self, name: str, seconds: float) -> None:
        now = self._clock.now()
        with self._lock:
            self._pending[name] = Pending(now, now + timedelta(seconds=seconds))

    def _say_waiting(self, reason: str) -> None:
        if not self._is_waiting:
            log.get().warning("what was missed is made up for once the database answers", reason=reason)
        self._is_waiting = True


def _in_words(name: str, count: int, since: datetime) -> str:
    more = " or more" if count == COUNTED_AT_MOST else ""
    times, them = ("times", "them") if count > 1 else ("time", "it")
    return f"missed {count}{more} {times} since {rfc3339(since)}; one {name} makes up for {them}"
