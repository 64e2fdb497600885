"""The throttle on a simulated clock: why a run waits, for how long, and why it stops. Nothing sleeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.postgres.load_probe import Pressure
from sweeper.runs.batch_sizer import BatchSizer
from sweeper.runs.throttle import BATCH_SECONDS, STEP_SECONDS, Budget, ProgressListener, StopReason, Throttle
from sweeper.settings import Settings

LAG, WAL, BLOCKED = Pressure.REPLICA_LAG, Pressure.WAL_RATE, Pressure.BLOCKED_QUERIES
Scene = Mapping[Pressure, str]
CALM: Scene = {}


@dataclass
class World:
    """A simulated clock that sleeping and working advance, with a server and a run."""

    now: float = 1_000.0
    purged: int = 0
    server: Callable[[float], Scene] = lambda _: CALM
    stopping: Callable[[float], str] = lambda _: ""
    looks: list[float] = field(default_factory=list)
    renewals: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def read(self) -> Scene:
        """Return the pressure now."""
        self.looks.append(self.now)
        return self.server(self.now - 1_000.0)

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        assert 0 < seconds <= STEP_SECONDS
        self.now += seconds

    def throttle(self, budget: Budget | None = None, batch: int = 500, **pace: Any) -> Throttle:
        """Return the throttle of a run in this world."""
        settings = Settings.model_validate({"pace": pace, "purge": {"batch": batch}})
        watch = ProgressListener(waits=self.told.append)
        return Throttle(
            settings,
            watch,
            budget or Budget(),
            self,
            lambda: self.renewals.append(self.now),
            lambda: self.purged,
            BatchSizer(0.25, batch, size=batch),
            lambda: self.stopping(self.now - 1_000.0),
            monotonic=lambda: self.now,
            sleep=self.sleep,
        )

    def work(self, throttle: Throttle, seconds: float = 0.25) -> int:
        """Purge the next batch as far as the throttle allows; returns its size."""
        size = throttle.next_batch()
        self.purged += size
        self.now += seconds if size else 0.0
        return size


def until(seconds: float, scene: Scene) -> Callable[[float], Scene]:
    """Return readings of a server that is above its limits until a time."""
    return lambda passed: scene if passed < seconds else CALM


# Nothing in the way


def test_calm_server_waits_for_nobody() -> None:
    """If nothing is above its limit, batches have the size of the pace and the run does not wait."""
    world = World()
    throttle = world.throttle()
    assert [world.work(throttle) for _ in range(3)] == [500, 500, 500]
    assert (throttle.waits.as_json(), throttle.stopped, world.told) == ({}, "", [])


def test_server_is_looked_at_before_the_first_batch_and_then_now_and_then() -> None:
    """The load is read before the first batch and then at most every look_seconds."""
    world = World()
    throttle = world.throttle(look_seconds=1.0)
    for _ in range(20):
        world.work(throttle, 0.25)
    assert [look - 1_000.0 for look in world.looks] == [0.0, 1.0, 2.0, 3.0, 4.0]


# Pressure


def test_wait_is_counted_told_and_over() -> None:
    """A wait is counted once under its reason with its seconds; the listener gets its text, and "" at the end."""
    world = World(server=until(3.5, {LAG: "a replica is 40 s behind, the limit is 30 s"}))
    throttle = world.throttle(look_seconds=1.0)
    assert throttle.next_batch() == 500
    assert throttle.waits.as_json() == {"replica_lag": {"count": 1, "seconds": pytest.approx(4.0, abs=0.2)}}
    assert world.told == ["a replica is 40 s behind, the limit is 30 s", ""]
    assert throttle.stopped == ""
    assert throttle.next_batch() == 500
    assert throttle.waits.count == {"replica_lag": 1}


def test_second_pause_is_a_second_one() -> None:
    """Pressure that returns after a wait counts as a second wait."""
    world = World(server=lambda passed: {LAG: "behind"} if passed < 2 or 10 <= passed < 12 else CALM)
    throttle = world.throttle()
    throttle.next_batch()
    world.now = 1_010.0
    throttle.next_batch()
    assert throttle.waits.as_json() == {"replica_lag": {"count": 2, "seconds": pytest.approx(4.0, abs=0.4)}}


def test_first_reason_is_the_one() -> None:
    """If several limits are exceeded, only the first that the probe names is counted."""
    world = World(server=until(2.0, {LAG: "behind", BLOCKED: "blocked"}))
    throttle = world.throttle()
    throttle.next_batch()
    assert throttle.waits.count == {"replica_lag": 1}
    assert world.told == ["behind", ""]


def test_reason_that_gives_way_to_another() -> None:
    """If one reason follows another in one wait, each is counted once with its own seconds."""
    world = World(server=lambda passed: {WAL: "wal"} if passed < 3 else {BLOCKED: "blocked"} if passed < 5 else CALM)
    throttle = world.throttle()
    throttle.next_batch()
    assert throttle.waits.count == {"wal_rate": 1, "blocked_queries": 1}
    assert throttle.waits.seconds == {
        "wal_rate": pytest.approx(3.0, abs=0.3),
        "blocked_queries": pytest.approx(2.0, abs=0.3),
    }
    assert world.told == ["wal", "blocked", ""]


def test_words_that_change_are_one_pause() -> None:
    """The same reason with another number is the same wait."""
    world = World(server=lambda passed: {LAG: f"{40 - passed:.0f} s behind"} if passed < 4 else CALM)
    throttle = world.throttle()
    throttle.next_batch()
    assert throttle.waits.count == {"replica_lag": 1}


def test_lease_is_renewed_while_it_waits() -> None:
    """A waiting run renews its lease between two readings."""
    world = World(server=until(60.0, {LAG: "behind"}))
    throttle = world.throttle(look_seconds=1.0)
    throttle.next_batch()
    gaps = [b - a for a, b in zip([1_000.0, *world.renewals], world.renewals, strict=False)]
    assert len(world.renewals) >= 59
    assert max(gaps) <= 1.5


@pytest.mark.parametrize("reason", list(Pressure))
def test_longest_pause_stops_with_its_reason(reason: Pressure) -> None:
    """If the pressure lasts longer than longest_pause_seconds, the run stops with the pressure as its reason."""
    world = World(server=lambda _: {reason: "above"})
    throttle = world.throttle(longest_pause_seconds=10.0)
    assert throttle.next_batch() == 0
    assert throttle.stopped == reason.value
    assert 10.0 <= world.now - 1_000.0 < 12.0
    assert throttle.next_batch() == 0
    assert throttle.waits.as_json()[reason.value] == {"count": 1, "seconds": pytest.approx(10.0, abs=1.0)}


def test_pressure_that_ends_in_time_does_not_stop() -> None:
    """Several waits together may be longer than longest_pause_seconds."""
    world = World(server=lambda passed: {LAG: "behind"} if passed % 10 < 8 else CALM)
    throttle = world.throttle(longest_pause_seconds=9.0, look_seconds=0.5)
    for _ in range(40):
        assert world.work(throttle, 1.0) == 500
    assert throttle.waits.count["replica_lag"] > 3


# Who stops it


@pytest.mark.parametrize("stop", [StopReason.SIGNAL, StopReason.YIELDED, StopReason.HOURS])
def test_whoever_asks_is_heard_during_a_wait(stop: StopReason) -> None:
    """A stop request, a preemption request and the end of the hours end a wait within a step, with their own reason."""
    world = World(server=lambda _: {LAG: "behind"}, stopping=lambda passed: stop if passed >= 7.03 else "")
    throttle = world.throttle(look_seconds=60.0)
    assert throttle.next_batch() == 0
    assert throttle.stopped == stop
    assert world.now - 1_000.0 <= 7.03 + 2 * STEP_SECONDS


def test_signal_at_the_end_of_the_longest_pause_stays_the_reason() -> None:
    """The first reason to stop stays: pressure does not replace a signal."""
    world = World(server=lambda _: {LAG: "behind"}, stopping=lambda passed: StopReason.SIGNAL if passed >= 9.5 else "")
    throttle = world.throttle(look_seconds=10.0, longest_pause_seconds=9.0)
    assert throttle.next_batch() == 0
    assert throttle.stopped == StopReason.SIGNAL


def test_signal_before_everything_else() -> None:
    """A run that must stop does not read the load."""
    world = World(server=lambda _: {LAG: "behind"}, stopping=lambda _: StopReason.SIGNAL)
    throttle = world.throttle(Budget(seconds=0.0, purges=0))
    assert (throttle.next_batch(), throttle.stopped, world.looks) == (0, StopReason.SIGNAL, [])


def test_reason_does_not_change_once_it_is_known() -> None:
    """The reason to stop does not change."""
    world = World()
    throttle = world.throttle(Budget(seconds=10.0))
    world.now += 10.0
    assert throttle.is_over()
    world.stopping = lambda _: StopReason.SIGNAL
    assert (throttle.is_over(), throttle.stopped) == (True, StopReason.MAX_RUNTIME)


# Budgets


def test_runtime() -> None:
    """Batches begin until the time budget is used up."""
    world = World()
    throttle = world.throttle(Budget(seconds=2.0))
    begun = 0
    while world.work(throttle, 0.5):
        begun += 1
    assert (begun, throttle.stopped) == (4, StopReason.MAX_RUNTIME)


def test_runtime_ends_a_wait() -> None:
    """The time budget ends a wait."""
    world = World(server=lambda _: {LAG: "behind"})
    throttle = world.throttle(Budget(seconds=5.0))
    assert (throttle.next_batch(), throttle.stopped) == (0, StopReason.MAX_RUNTIME)
    assert world.now - 1_000.0 <= 5.0 + 2 * STEP_SECONDS


@given(most=st.integers(1, 3_000), batch=st.integers(1, 700))
def test_purges_never_exceed_the_budget(most: int, batch: int) -> None:
    """A run purges exactly its budget: the last batch is smaller."""
    world = World()
    throttle = world.throttle(Budget(purges=most), batch=batch)
    while world.work(throttle):
        pass
    assert (world.purged, throttle.stopped) == (most, StopReason.MAX_PURGE)


def test_used_up_purges_leave_feedback_its_own() -> None:
    """A used-up budget of conversations does not end other work; a signal does."""
    world = World(purged=5)
    throttle = world.throttle(Budget(purges=5))
    assert throttle.is_over()
    assert (throttle.is_cut_short(), throttle.stopped) == (False, StopReason.MAX_PURGE)
    world.stopping = lambda _: StopReason.SIGNAL
    assert (throttle.is_cut_short(), throttle.stopped) == (True, StopReason.SIGNAL)


# Rate


@given(rate=st.floats(0.5, 2_000.0), batch=st.integers(1, 700), took=st.floats(0.0, 3.0))
def test_rate_is_kept_at_every_instant(rate: float, batch: int, took: float) -> None:
    """At no instant were more purged than the rate allows since the beginning, plus one batch."""
    world = World()
    throttle = world.throttle(Budget(per_second=rate), batch=batch)
    for _ in range(12):
        before, size = world.purged, world.work(throttle, took)
        assert size <= max(1, rate * BATCH_SECONDS)
        assert before <= rate * (world.now - took - 1_000.0) + 1e-6
    assert throttle.stopped == ""


def test_rate_is_not_made_up_for() -> None:
    """After a long wait a run continues at its rate; it does not catch up."""
    world = World(server=until(100.0, {LAG: "behind"}))
    throttle = world.throttle(Budget(per_second=10.0))
    begin = world.purged
    throttle.next_batch()
    resumed = world.now
    for _ in range(20):
        world.work(throttle, 0.01)
    assert world.purged - begin <= 10.0 * (world.now - resumed) + 2 * 10.0


def test_rate_renews_the_lease_while_it_waits() -> None:
    """A run with a rate of a few an hour renews its lease."""
    world = World()
    throttle = world.throttle(Budget(per_second=0.01))
    for _ in range(3):
        world.work(throttle)
    gaps = [b - a for a, b in zip(world.renewals, world.renewals[1:], strict=False)]
    assert max(gaps) < throttle.settings.lease.seconds / 2


def test_signal_is_heard_while_the_rate_is_kept() -> None:
    """A stop request ends the wait for the rate within a step."""
    world = World(stopping=lambda passed: StopReason.SIGNAL if passed >= 30.0 else "")
    throttle = world.throttle(Budget(per_second=0.01))
    world.work(throttle)
    assert (throttle.next_batch(), throttle.stopped) == (0, StopReason.SIGNAL)
    assert world.now - 1_000.0 <= 30.0 + 2 * STEP_SECONDS
