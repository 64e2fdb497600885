"""APScheduler wiring: what fires when and on how many threads.

It decides nothing: `cron.py` says when a job fires, `jobs.py` what it does, `catch_up.py` what was missed.
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

logging.getLogger("apscheduler").addHandler(logging.NullHandler())  # what it would say is told by our own log
INSTANT = timedelta(microseconds=1)


class CronTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler ships no types
    """Fires when a cron expression says. Of the instants that have passed meanwhile only the first counts, as late or missed."""

    def __init__(self, cron: Cron) -> None:
        self._cron = cron

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first instant later than the previous one and than now; where there is no previous one, it may be now."""
        latest = max(previous_fire_time, now) if previous_fire_time else now - INSTANT
        return next(self._cron.after(latest), None)


class EveryTrigger(BaseTrigger):  # type: ignore[misc]
    """Fires at once, and then after each interval (seconds)."""

    def __init__(self, seconds: float) -> None:
        self._every = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Now, or later than now."""
        return now if previous_fire_time is None else now + self._every


def timetable(schedule: ScheduleSettings, names: tuple[str, ...]) -> dict[str, Cron]:
    """The jobs of those names that are ever to be done, and when.

    Raises:
        ConfigurationError: the zone or an expression cannot be used; every fault is listed.
    """
    faults: list[str] = []
    found: dict[str, Cron] = {}
    try:
        zone = cron.zone(schedule.zone)
    except CronError as error:
        faults.append(f"  schedule.zone {schedule.zone!r} {error}")
        zone = UTC
    for name in names:
        expression: str = getattr(schedule, name)
        try:
            if expression.strip():
                found[name] = cron.parse(expression, zone)
        except CronError as error:
            faults.append(f"  schedule.{name} {expression!r}: {error}")
    if faults:
        raise ConfigurationError("[schedule]: nothing was started. Fix:", *faults)
    return found


class Scheduler:
    """The scheduler and its jobs: what comes back at set times, and what comes back every few seconds."""

    def __init__(
        self, *, threads: int, grace_seconds: int, missed: Callable[[str], None], busy: Callable[[str], None]
    ) -> None:
        """Told the name of a job: `missed` where it could not begin within the grace, `busy` where it was still at work."""
        self._scheduler = BlockingScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(threads)},
            job_defaults={"misfire_grace_time": grace_seconds},
        )
        self._scheduler.add_listener(lambda event: missed(event.job_id), events.EVENT_JOB_MISSED)
        self._scheduler.add_listener(lambda event: busy(event.job_id), events.EVENT_JOB_MAX_INSTANCES)
        self._scheduler.add_listener(_say_failed, events.EVENT_JOB_ERROR)

    def on_time(self, name: str, cron: Cron, work: Callable[[], None], after: datetime) -> None:
        """Do something at each instant of a cron expression that is later than `after`."""
        first = next(cron.after(after), None)
        self._scheduler.add_job(work, CronTrigger(cron), id=name, next_run_time=first)

    def every(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        """Do something now and every few seconds, late or not."""
        self._scheduler.add_job(work, EveryTrigger(seconds), id=name, misfire_grace_time=None)

    def at_once(self, name: str, now: datetime) -> None:
        """Run a scheduled job now, unless it is already running."""
        self._scheduler.modify_job(name, next_run_time=now)

    def nexts(self) -> Mapping[str, datetime]:
        """When each job is done next."""
        jobs = self._scheduler.get_jobs()
        found: dict[str, Any] = {
            job.id: getattr(job, "next_run_time", None) for job in jobs
        }  # none before the beginning
        return {name: instant for name, instant in found.items() if instant is not None}

    @property
    def running(self) -> bool:
        """Whether it has begun, and was not stopped."""
        found: bool = self._scheduler.running
        return found

    def run(self) -> None:
        """Work until `stop` is called from another thread."""
        self._scheduler.start()

    def look(self) -> None:
        """Read the clock again, since it may have been set."""
        self._scheduler.wakeup()

    def stop(self) -> None:
        """Start no more jobs; running jobs continue."""
        if self.running:
            self._scheduler.shutdown(wait=False)


def _say_failed(event: Any) -> None:
    """What is scheduled here fails for faults of the program alone."""
    log.get().error(
        "unforeseen: this is a fault of the program", job=event.job_id, error=type(event.exception).__name__
    )
