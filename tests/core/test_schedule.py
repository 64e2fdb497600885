"""The schedule: what is refused at the start, and a scheduler that keeps cron's times when clocks change."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from freezegun import freeze_time

from sweeper.daemon import cron
from sweeper.daemon.schedule import CronTrigger, EveryTrigger, Scheduler, timetable
from sweeper.errors import ConfigurationError
from sweeper.settings import ScheduleSettings
from tests.processes import until

NAMES = ("sweep", "report", "checkpoint", "manifest", "recall")
GRACE = 3_600


def at(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_empty_is_never() -> None:
    """A job with an empty expression is not in the timetable."""
    assert sorted(timetable(ScheduleSettings(), NAMES)) == ["checkpoint", "report", "sweep"]
    assert sorted(timetable(ScheduleSettings(sweep=" ", recall="@daily"), ("sweep", "recall"))) == ["recall"]


def test_zone_holds_for_all() -> None:
    """Expressions are in the zone of the settings."""
    found = timetable(ScheduleSettings(zone="America/New_York", sweep="0 2 * * *"), ("sweep",))["sweep"]
    assert next(found.after(at("2026-01-10T00:00"))) == at("2026-01-10T07:00")


def test_every_fault_is_named() -> None:
    """Every invalid zone or expression is listed with its setting, its value and the fault."""
    with pytest.raises(ConfigurationError) as caught:
        timetable(ScheduleSettings(zone="Mars/Base", sweep="61 * * * *", recall="* * * * fri-mon"), NAMES)
    first, *faults = str(caught.value).splitlines()
    assert first == "[schedule]: nothing was started. Fix:"
    assert [fault.split(" ")[2] for fault in faults] == ["schedule.zone", "schedule.sweep", "schedule.recall"]
    assert "'Mars/Base' is not a known time zone" in faults[0]
    assert "'61 * * * *': minute '61' is not valid" in faults[1]


NIGHTLY = cron.parse("17 2 * * *", UTC)
NOW = at("2026-01-10T02:17")
TICK = timedelta(microseconds=1)


def test_trigger_fires_at_the_instant() -> None:
    """Without a previous time the next one may be now; otherwise it is later than the previous one."""
    trigger = CronTrigger(NIGHTLY)
    assert trigger.get_next_fire_time(None, NOW) == NOW
    assert trigger.get_next_fire_time(None, NOW + TICK) == NOW + timedelta(days=1)
    assert trigger.get_next_fire_time(NOW, NOW) == NOW + timedelta(days=1)


def test_trigger_leaps_over_what_has_passed() -> None:
    """Instants in the past are skipped in one step, even after a month of suspension."""
    trigger = CronTrigger(cron.parse("* * * * *", UTC))
    long_ago = NOW - timedelta(days=45)
    assert trigger.get_next_fire_time(long_ago, NOW + TICK) == NOW + timedelta(minutes=1)
    assert trigger.get_next_fire_time(NOW, NOW - timedelta(days=1)) == NOW + timedelta(minutes=1)
    assert trigger.get_next_fire_time(NOW, NOW + TICK) == NOW + timedelta(minutes=1)
    every = EveryTrigger(5)
    assert every.get_next_fire_time(None, NOW) == NOW
    assert every.get_next_fire_time(long_ago, NOW) == NOW + timedelta(seconds=5)


@contextmanager
def scheduling(expression: str, zone: str, **told: Callable[[str], None]) -> Iterator[tuple[Scheduler, list[datetime]]]:
    """Run a scheduler with one job; yields the instants of the frozen clock at which the job ran."""
    done: list[datetime] = []
    scheduler = Scheduler(
        threads=2, grace_seconds=GRACE, missed=told.get("missed", print), busy=told.get("busy", lambda _: None)
    )
    read = cron.parse(expression, ZoneInfo(zone))
    scheduler.on_time("job", read, lambda: done.append(datetime.now(UTC)), datetime.now(UTC))
    thread = Thread(target=scheduler.run, daemon=True)
    thread.start()
    until(lambda: scheduler.running)
    try:
        yield scheduler, done
    finally:
        scheduler.stop()
        thread.join(10)
        assert not thread.is_alive()


def pass_by(frozen: Any, scheduler: Scheduler, done: list[datetime], start: datetime, hours: int) -> None:
    """Advance the clock in steps of 15 minutes; at each step the scheduler runs what is due."""
    for quarter in range(1, hours * 4 + 1):
        now, next_one, before = start + quarter * timedelta(minutes=15), scheduler.nexts()["job"], len(done)
        frozen.move_to(now)
        if next_one <= now:
            scheduler.look()
            until(lambda: len(done) > before and scheduler.nexts()["job"] > now)  # noqa: B023 — called in this very turn


CHANGES = {
    ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00"): ["2026-03-29T01:00", "2026-03-30T00:30"],
    ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00"): ["2026-10-25T00:30", "2026-10-26T01:30"],
    ("America/New_York", "30 2 * * *", "2026-03-07T18:00"): ["2026-03-08T07:00", "2026-03-09T06:30"],
    ("America/New_York", "30 1 * * *", "2026-10-31T18:00"): ["2026-11-01T05:30", "2026-11-02T06:30"],
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T06:00"): ["2026-10-03T15:30", "2026-10-04T15:15"],
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T06:00"): ["2026-04-04T14:45", "2026-04-05T15:15"],
}


@pytest.mark.parametrize(("night", "expected"), CHANGES.items(), ids=str)
def test_scheduler_over_changes_of_clocks(night: tuple[str, str, str], expected: list[str]) -> None:
    """Across clock changes, a nightly job runs once a night, when cron would run it."""
    zone, expression, start = night
    with freeze_time(start) as frozen, scheduling(expression, zone) as (scheduler, done):
        pass_by(frozen, scheduler, done, at(start), 42)
        assert done == [at(fire) for fire in expected]


def test_scheduler_misses() -> None:
    """A job later than the grace period is reported once as missed; within the grace period it runs."""
    missed: list[str] = []
    with (
        freeze_time("2026-01-01T12:00") as frozen,
        scheduling("17 2 * * *", "UTC", missed=missed.append) as (scheduler, done),
    ):
        frozen.move_to(at("2026-02-15T03:17:01"))
        scheduler.look()
        until(lambda: bool(missed))
        assert (missed, done) == (["job"], [])
        frozen.move_to(at("2026-02-16T03:17:00"))
        scheduler.look()
        until(lambda: bool(done))
        assert (missed, done) == (["job"], [at("2026-02-16T03:17:00")])
        frozen.move_to(at("2026-02-18T02:30:00"))
        scheduler.look()
        until(lambda: len(missed) == 2)  # the night of the 17th, which the evidence is to tell
        assert (len(done), scheduler.nexts()) == (1, {"job": at("2026-02-19T02:17")})


def test_scheduler_begins_nothing_twice() -> None:
    """A running job is not started again, and this is reported; `run_now` runs a job at once."""
    busy: list[str] = []
    going, go_on = Event(), Event()

    def work() -> None:
        going.set()
        go_on.wait(30)

    scheduler = Scheduler(threads=3, grace_seconds=GRACE, missed=print, busy=busy.append)
    scheduler.on_time("slow", NIGHTLY, work, datetime.now(UTC))
    thread = Thread(target=scheduler.run, daemon=True)
    thread.start()
    until(lambda: scheduler.running)
    scheduler.run_now("slow", datetime.now(UTC))
    assert going.wait(10)
    scheduler.run_now("slow", datetime.now(UTC))
    until(lambda: busy == ["slow"])
    scheduler.stop()
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()
