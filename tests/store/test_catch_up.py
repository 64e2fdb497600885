"""What a daemon makes up for when it begins or wakes: by the evidence, once, and said. Against a real database."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from freezegun import freeze_time
from structlog.testing import capture_logs

from sweeper.clock import Clock
from sweeper.daemon.catch_up import AGAIN_SECONDS, CatchUp
from sweeper.daemon.jobs import SCHEDULED_JOBS, EndedJob, JobOutcome
from sweeper.daemon.schedule import timetable
from sweeper.daemon.serve import CATCH_UP_SECONDS, Daemon
from sweeper.settings import ScheduleSettings
from tests.facts import instant
from tests.processes import until
from tests.store.stores import DIGEST, Store

LAST = instant("2026-01-10T02:17:00Z")
"""The last scheduled instant before the daemons of these tests begin."""
NOW = instant("2026-01-10T12:00:00Z")
TICK = timedelta(microseconds=1)
NEVER = {"report": "", "copies": "", "checkpoint": "", "manifest": "", "recall": "", "sweep": ""}
LONG_AGO = "2025-01-01T00:00:00Z"


class Hand:
    """A clock that is set by hand."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    @property
    def clock(self) -> Clock:
        """The clock."""
        return Clock(lambda: self.now, lambda _: self.now)


class Watched(CatchUp):
    """It is told which jobs begin; a daemon has just begun."""

    def __init__(self, store: Store, hand: Hand, **schedule: str) -> None:
        self.begun: list[str] = []
        read = timetable(ScheduleSettings(**{**NEVER, **schedule}), tuple(SCHEDULED_JOBS))
        super().__init__(store.database(), hand.clock, read, self.begun.append)
        self.expect(hand.now)


@contextmanager
def begun(store: Store, hand: Hand | None = None, **schedule: str) -> Iterator[tuple[Watched, list[Any]]]:
    """What is made up for by a daemon that has just begun, and its log."""
    with capture_logs() as logged:
        yield Watched(store, hand or Hand(), **schedule), logged


def run(at: Store, began: datetime, outcome: str | None = "completed", **columns: Any) -> None:
    """A run as it may stand in the record."""
    row = {
        "store": "store",
        "as_of": began,
        "policy_name": "p",
        "policy_digest": DIGEST,
        "token": at.execute("SELECT count(*) FROM sweeper.runs")[0][0],
        "started_at": began,
        "finished_at": began if outcome else None,
        "outcome": outcome,
        **columns,
    }
    at.execute(f"INSERT INTO sweeper.runs ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})", *row.values())


def served(store: Store, since: str = LONG_AGO) -> None:
    """A daemon has served the store since then."""
    event(store, "serving", since)


def event(store: Store, kind: str, at: str | datetime, of: str = "store") -> None:
    """An event as it may stand in the record."""
    store.execute(
        "INSERT INTO sweeper.events (at, kind, details) VALUES (%s, %s, jsonb_build_object('store', %s::text))",
        at,
        kind,
        of,
    )


def missed(logged: list[Any]) -> list[str]:
    """What was said to have been missed."""
    return [line["text"] for line in logged if line["event"] == "missed"]


@pytest.mark.parametrize(
    ("began", "outcome", "is_made_up"),
    [
        (LAST, "completed", False),
        (LAST + TICK, "completed", False),
        (LAST - TICK, "completed", True),
        (LAST, "stopped max_runtime", False),
        (LAST, "stopped max_purge", False),
        (LAST, "stopped signal", True),
        (LAST, "stopped replica_lag", True),
        (LAST + timedelta(hours=3), "refused", True),
        (LAST + timedelta(hours=3), "failed", True),
        (LAST + timedelta(hours=3), "interrupted", True),
        (LAST + timedelta(hours=3), None, True),
    ],
)
def test_what_counts_as_swept(began: datetime, outcome: str | None, is_made_up: bool, store: Store) -> None:  # noqa: FBT001
    """A run that completed or used up its budget, begun at the scheduled instant or later, is in time; nothing else is."""
    run(store, LAST - timedelta(days=1))
    ended, _, reason = (outcome or "").partition(" ")
    run(store, began, ended or None, result=json.dumps({"stop_reason": reason or None}))
    with begun(store, sweep="17 2 * * *") as (catch_up, logged):
        catch_up.look()
        assert catch_up.begun == ["sweep"] * is_made_up
        since = "2026-01-10T02:16:59.999999Z" if began < LAST else "2026-01-09T02:17:00Z"
        assert missed(logged) == [f"missed 1 time since {since}; one sweep makes up for it"] * is_made_up


@pytest.mark.parametrize(
    "columns", [{"store": "another"}, {"kind": "backfill"}, {"as_of": LAST - timedelta(days=30)}], ids=str
)
def test_what_is_no_sweep_of_now(columns: dict[str, Any], store: Store) -> None:
    """A run of another store, a slice of a backfill and a run as of an earlier time do not stand for the nightly sweep."""
    run(store, LAST - timedelta(days=1))
    run(store, LAST + timedelta(hours=1), **columns)
    with begun(store, sweep="17 2 * * *") as (catch_up, _):
        catch_up.look()
        assert catch_up.begun == ["sweep"]


def test_an_outage_of_45_days(store: Store) -> None:
    """However many nights were missed, one sweep makes up for them; it is said how many and since when."""
    run(store, LAST - timedelta(days=45), "completed")
    with begun(store, sweep="17 2 * * *") as (catch_up, logged):
        catch_up.look()
        catch_up.look()
        assert catch_up.begun == ["sweep"]
        assert missed(logged) == ["missed 45 times since 2025-11-26T02:17:00Z; one sweep makes up for them"]


def test_the_first_beginning_ever(store: Store) -> None:
    """Where nothing was done and no daemon served yet, nothing was missed; from then on it was, also if nothing is ever done."""
    with begun(store, sweep="17 2 * * *", recall="* * * * *") as (catch_up, logged):
        catch_up.look()
        assert (catch_up.begun, missed(logged)) == ([], [])
    served_at = store.execute("SELECT at FROM sweeper.events WHERE kind = 'serving'")[0][0]
    nights = Hand(served_at + timedelta(days=3))
    with begun(store, nights, sweep="17 2 * * *") as (catch_up, logged):
        catch_up.look()
        assert catch_up.begun == ["sweep"]
        assert missed(logged)[0].startswith("missed 3 times since ")


def test_every_beginning_is_recorded(store: Store) -> None:
    """Each daemon leaves one event that says what it does when."""
    with begun(store, sweep="17 2 * * *") as (catch_up, _):
        catch_up.look()
        catch_up.missed("sweep")
        catch_up.look()
    assert store.execute("SELECT details FROM sweeper.events WHERE kind = 'serving'") == [
        ({"store": "store", "schedule": {"sweep": "17 2 * * *"}},)
    ]


@pytest.mark.parametrize("of", ["store", "another"])
def test_other_jobs_by_their_own_evidence(of: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest counts when it was frozen, a recall and a report when their events were written, each for its own store only."""
    monkeypatch.setenv("SWEEPER_PSEUDONYM_KEY", "a key of the tests, with 32 bytes or more")
    served(store)
    store.execute(
        "INSERT INTO sweeper.manifests (id, store, directory, as_of, policy_digest, eligible, state, frozen_at) "
        "VALUES ('m', %s, '/m', %s, 'd', 1, 'frozen', %s)",
        of,
        LAST,
        LAST,
    )
    for kind in ("recalled", "reported"):
        event(store, kind, LAST, of)
    with begun(store, manifest="17 2 * * *", recall="17 2 * * *", report="17 2 * * *") as (catch_up, _):
        catch_up.look()
        assert sorted(catch_up.begun) == ([] if of == "store" else ["manifest", "recall", "report"])


def test_no_database_yet(store: Store) -> None:
    """What cannot be looked up yet is looked up again, and said once."""
    served(store)
    store.execute("ALTER TABLE sweeper.pauses RENAME TO away")
    with begun(store, sweep="17 2 * * *") as (catch_up, logged):
        catch_up.look()
        catch_up.look()
        assert catch_up.begun == []
        assert [line["event"] for line in logged] == ["missed jobs are made up for once the database answers"]
        store.execute("ALTER TABLE sweeper.away RENAME TO pauses")
        catch_up.look()
        assert catch_up.begun == ["sweep"]


def test_not_while_paused(store: Store) -> None:
    """While purging is paused no sweep is made up for, what purges nothing is; when it is resumed the sweep follows."""
    served(store)
    store.execute("INSERT INTO sweeper.pauses (reason) VALUES ('audit')")
    with begun(store, sweep="17 2 * * *", recall="17 2 * * *") as (catch_up, _):
        catch_up.look()
        assert catch_up.begun == ["recall"]
        store.execute("UPDATE sweeper.pauses SET resumed_at = now()")
        catch_up.look()
        assert catch_up.begun == ["recall", "sweep"]


def test_checkpoints_at_every_beginning(store: Store) -> None:
    """A checkpoint is taken whenever a daemon begins: it harms nothing, and nothing is said to have been missed."""
    with begun(store, checkpoint="@yearly") as (catch_up, logged):
        catch_up.look()
        catch_up.look()
        assert (catch_up.begun, missed(logged)) == (["checkpoint"], [])


def test_a_sweep_that_came_in_a_pause(store: Store) -> None:
    """A sweep that was due while paused is made up for when that is over."""
    run(store, LAST - timedelta(days=1))
    hand = Hand(LAST - timedelta(hours=1))
    with begun(store, hand, sweep="17 2 * * *") as (catch_up, _):
        store.execute("INSERT INTO sweeper.pauses (reason) VALUES ('audit')")
        catch_up.look()
        hand.now = LAST
        catch_up.ended(EndedJob("sweep", JobOutcome.REFUSED, LAST, LAST, 1.0, {"guard": "paused"}))
        catch_up.look()
        assert catch_up.begun == []
        store.execute("UPDATE sweeper.pauses SET resumed_at = now()")
        catch_up.look()
        assert catch_up.begun == ["sweep"]


def ended(outcome: JobOutcome, *, passing: bool = False) -> EndedJob:
    """How a sweep may have ended."""
    return EndedJob("sweep", outcome, NOW, NOW, 1.0, {}, passing)


@pytest.mark.parametrize(
    ("outcome", "passing", "pauses"),
    [
        (JobOutcome.FAILED, True, [1, 2, 4]),
        (JobOutcome.LEASE_HELD, False, [1, 1, 1]),
        (JobOutcome.FAILED, False, []),
        (JobOutcome.REFUSED, False, []),
        (JobOutcome.STOPPED, False, []),
    ],
)
def test_what_is_tried_again(outcome: JobOutcome, passing: bool, pauses: list[int], store: Store) -> None:  # noqa: FBT001
    """What failed as a whole is tried again after growing pauses, a held lease after equal ones, a refusal not at all."""
    run(store, LAST - timedelta(days=1))
    hand = Hand(LAST)
    with begun(store, hand, sweep="17 2 * * *") as (catch_up, _):
        catch_up.look()
        assert catch_up.begun.pop() == "sweep"
        for factor in pauses:
            catch_up.ended(ended(outcome, passing=passing))
            hand.now += factor * timedelta(seconds=AGAIN_SECONDS) - TICK
            catch_up.look()
            assert catch_up.begun == []
            hand.now += TICK
            catch_up.look()
            assert catch_up.begun.pop() == "sweep"
        catch_up.ended(ended(JobOutcome.COMPLETED))
        hand.now += timedelta(hours=12)
        catch_up.look()
        assert catch_up.begun == []


def test_growing_pauses_begin_anew(store: Store) -> None:
    """After a success the next failure is tried again soon; and what others have done meanwhile is not done again."""
    hand = Hand(LAST)
    served(store)
    with begun(store, hand, sweep="17 2 * * *") as (catch_up, _):
        catch_up.look()
        catch_up.begun.clear()
        for outcome in (JobOutcome.FAILED, JobOutcome.COMPLETED, JobOutcome.FAILED):
            catch_up.ended(ended(outcome, passing=True))
        hand.now += timedelta(seconds=AGAIN_SECONDS)
        catch_up.look()
        assert catch_up.begun.pop() == "sweep"
        catch_up.ended(ended(JobOutcome.FAILED, passing=True))
        run(store, hand.now)
        hand.now += timedelta(days=1)
        catch_up.look()
        assert catch_up.begun == []


def test_nights_that_pass_while_it_sleeps(store: Store) -> None:
    """A daemon that slept through nights sweeps once when it wakes, says so, and then goes by its schedule again."""
    settings = store.settings(schedule={**NEVER, "sweep": "17 2 * * *"}, guards={"history": False, "clock": False})
    told: list[EndedJob] = []
    with capture_logs() as logged, freeze_time("2026-01-10T02:16:00", tick=True) as frozen:
        served(store, "2026-01-10T02:16:30Z")  # by the database's clock it would be in the future
        daemon = Daemon(lambda: settings, Clock(), told.append)
        daemon.begin()
        until(lambda: daemon.scheduler.running and daemon.catch_up.is_recorded)
        frozen.move_to("2026-01-10T02:17:00")
        daemon.scheduler.look()
        until(lambda: len(told) == 1)
        frozen.move_to("2026-02-24T12:00:00")
        daemon.scheduler.look()
        until(lambda: bool(daemon.catch_up.due()))
        frozen.move_to(datetime(2026, 2, 24, 12, 0, tzinfo=UTC) + timedelta(seconds=2 * CATCH_UP_SECONDS))
        daemon.scheduler.look()
        until(lambda: len(told) == 2)
        frozen.move_to("2026-02-25T02:17:00")
        daemon.scheduler.look()
        until(lambda: len(told) == 3)
        assert daemon.end() == []
    assert [one.outcome for one in told] == [JobOutcome.COMPLETED] * 3
    assert len(missed(logged)) == 1
    assert missed(logged)[0].startswith("missed 45 times since 2026-01-10T02:17:0")
    assert store.execute("SELECT count(*) FROM sweeper.runs WHERE outcome = 'completed'") == [(3,)]
