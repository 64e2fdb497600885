"""Wires the jobs to APScheduler and its threads.

It decides nothing: `cron.py` computes when a job fires, `jobs.py` runs it, `catch_up.py` finds what was missed.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler import events
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.base import BaseTrigger

from sweeper import log
from sweeper.daemon import cron
from sweeper.daemon.cron import Cron, CronError
from sweeper.errors import ConfigurationError
from sweeper.settings import ScheduleSettings

logging.getLogger("apscheduler").addHandler(logging.NullHandler())  # `Scheduler` logs these events itself
INSTANT = timedelta(microseconds=1)


class CronTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler ships no types
    """Fires at the instants of a cron expression. Of those that passed in between only the first counts, as late or missed."""

    def __init__(self, cron: Cron) -> None:
        self._cron = cron

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the first instant after both the previous one and now; without a previous one it may be now."""
        latest = max(previous_fire_time, now) if previous_fire_time else now - INSTANT
        return next(self._cron.after(latest), None)


class EveryTrigger(BaseTrigger):  # type: ignore[misc]
    """Fires immediately, then `seconds` after each firing."""

    def __init__(self, seconds: float) -> None:
        self._every = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return now for the first firing, otherwise one interval from now."""
        return now if previous_fire_time is None else now + self._every


def timetable(schedule: ScheduleSettings, names: tuple[str, ...]) -> dict[str, Cron]:
    """Return when each of the named jobs fires; a job whose expression is empty is left out.

    Raises:
        ConfigurationError: the zone or an expression is not valid; every fault is listed.
    """
    faults: list[str] = []
    crons: dict[str, Cron] = {}
    try:
        zone = cron.zone(schedule.zone)
    except CronError as error:
        faults.append(f"  schedule.zone {schedule.zone!r} {error}")
        zone = UTC
    for name in names:
        expression: str = getattr(schedule, name)
        try:
            if expression.strip():
                crons[name] = cron.parse(expression, zone)
        except CronError as error:
            faults.append(f"  schedule.{name} {expression!r}: {error}")
    if faults:
        raise ConfigurationError("[schedule]: nothing was started. Fix:", *faults)
    return crons


class Scheduler:
    """Runs jobs at the instants of cron expressions, and others every few seconds."""

    def __init__(
        self, *, threads: int, grace_seconds: int, missed: Callable[[str], None], busy: Callable[[str], None]
    ) -> None:
        """Prepare the scheduler; nothing runs before `run`.

        Args:
            threads: how many jobs can run at once.
            grace_seconds: how late a job may start.
            missed: called with the name of a job that could not start within the grace period.
            busy: called with the name of a job that was still running when it should have started again.
        """
        self._scheduler = BlockingScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(threads)},
            job_defaults={"misfire_grace_time": grace_seconds},
        )
        self._scheduler.add_listener(lambda event: missed(event.job_id), events.EVENT_JOB_MISSED)
        self._scheduler.add_listener(lambda event: busy(event.job_id), events.EVENT_JOB_MAX_INSTANCES)
        self._scheduler.add_listener(_log_failed, events.EVENT_JOB_ERROR)

    def on_time(self, name: str, cron: Cron, work: Callable[[], None], after: datetime) -> None:
        """Call `work` at each instant of a cron expression later than `after`."""
        first = next(cron.after(after), None)
        self._scheduler.add_job(work, CronTrigger(cron), id=name, next_run_time=first)

    def every(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        """Call `work` now and every `seconds`, however late."""
        self._scheduler.add_job(work, EveryTrigger(seconds), id=name, misfire_grace_time=None)

    def run_now(self, name: str, now: datetime) -> None:
        """Run a job of `on_time` now; no effect if it is already running."""
        self._scheduler.modify_job(name, next_run_time=now)

    def nexts(self) -> Mapping[str, datetime]:
        """Return when each job runs next (UTC)."""
        jobs = self._scheduler.get_jobs()
        instants: dict[str, Any] = {  # a job has no next_run_time before the scheduler starts
            job.id: getattr(job, "next_run_time", None) for job in jobs
        }
        return {name: instant for name, instant in instants.items() if instant is not None}

    @property
    def running(self) -> bool:
        """True after `run` was called and before `stop`."""
        is_running: bool = self._scheduler.running
        return is_running

    def run(self) -> None:
        """Run jobs until another thread calls `stop`."""
        self._scheduler.start()

    def look(self) -> None:
        """Read the clock again: it may have been set."""
        self._scheduler.wakeup()

    def stop(self) -> None:
        """Start no more jobs; those that are running go on."""
        if self.running:
            self._scheduler.shutdown(wait=False)


def _log_failed(event: Any) -> None:
    """Log an exception that a job raised: `perform` catches all it expects, so this is a bug."""
    log.get().error(
        "unexpected error: this is a fault of the program", job=event.job_id, error=type(event.exception).__name__
    )
