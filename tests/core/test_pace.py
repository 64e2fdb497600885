"""Laws of the pace: whatever the batches took, the next is no surprise to the server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.runs.batch_sizer import BUCKETS, FIRST, BatchSizer

SECONDS = st.one_of(st.floats(0.0, 5.0), st.sampled_from([0.0, 1e-9, 0.25, 60.0]))
STEPS = st.lists(st.one_of(st.none(), st.tuples(st.floats(0.0, 1.2), SECONDS)), max_size=40)


def step(pace: BatchSizer, what: tuple[float, float] | None) -> None:
    """One time-out, or one batch of about that share of the size."""
    if what is None:
        pace.halve()
    else:
        pace.took(int(what[0] * pace.size), what[1])


@given(most=st.integers(1, 10_000), target=st.floats(0.001, 10.0), steps=STEPS)
def test_size_stays_in_its_bounds(most: int, target: float, steps: list[tuple[float, float] | None]) -> None:
    """Whatever happens, a batch takes at least one, at most [purge] batch, and at most twice the one before it."""
    pace = BatchSizer(target, most)
    assert 1 <= pace.size <= min(FIRST, most)
    for what in steps:
        before = pace.size
        step(pace, what)
        assert 1 <= pace.size <= min(most, 2 * before)


@given(most=st.integers(1, 10_000), target=st.floats(0.01, 10.0), each=st.floats(1e-5, 1.0))
def test_steady_batches_lead_to_the_target(most: int, target: float, each: float) -> None:
    """Where every conversation takes the same time, batches soon take the target time, or all that is allowed, or one."""
    pace = BatchSizer(target, most)
    for _ in range(40):
        pace.took(pace.size, pace.size * each)
    wanted = target / each
    assert max(1, min(most, wanted)) == pytest.approx(pace.size, abs=1.0, rel=1e-6)


@given(each=st.floats(1e-4, 1e-2), slower=st.floats(2.0, 50.0))
def test_pace_follows_a_server_that_becomes_slower_and_faster(each: float, slower: float) -> None:
    """Batches shrink when the same work takes longer, and grow again when it does not."""
    pace = BatchSizer(0.25, 100_000)
    for _ in range(60):
        pace.took(pace.size, pace.size * each)
    fast = pace.size
    for _ in range(60):
        pace.took(pace.size, pace.size * each * slower)
    assert pace.size == pytest.approx(fast / slower, rel=0.05, abs=1.0)
    for _ in range(60):
        pace.took(pace.size, pace.size * each)
    assert pace.size == pytest.approx(fast, rel=0.05, abs=1.0)


def test_one_outlier_does_not_decide() -> None:
    """One batch that took ten times as long makes the next smaller, but not a tenth."""
    pace = BatchSizer(0.25, 10_000)
    for _ in range(20):
        pace.took(pace.size, pace.size * 0.001)
    assert pace.size == 250
    pace.took(250, 2.5)
    assert 25 < pace.size < 125


@given(size=st.integers(1, 10_000), history=st.booleans())
def test_time_out_halves(size: int, history: bool) -> None:  # noqa: FBT001 — drawn
    """After a time-out the next batch is half as large, never none."""
    pace = BatchSizer(0.25, 10_000, size=size)
    if history:
        pace.took(size, 0.25)
    before = pace.size
    pace.halve()
    assert pace.size == max(1, before // 2)


def test_half_stays_until_the_average_says_otherwise() -> None:
    """After a time-out, one quick batch does not bring the old size back at once."""
    pace = BatchSizer(0.25, 10_000, size=1_000)
    for _ in range(10):
        pace.took(1_000, 0.25)
    assert pace.size == 1_000
    pace.halve()
    pace.took(500, 0.125)
    assert 500 <= pace.size < 700
    for _ in range(20):
        pace.took(pace.size, pace.size * 0.00025)
    assert pace.size == pytest.approx(1_000, abs=10)


@given(size=st.integers(2, 5_000), share=st.floats(0.0, 0.99), seconds=st.floats(0.0, 5.0))
def test_batch_that_was_cut_short_does_not_grow(size: int, share: float, seconds: float) -> None:
    """A batch of fewer than were asked for, the last of a page, makes the next no larger, however quick it was."""
    pace = BatchSizer(0.25, 10_000, size=size)
    pace.took(int(share * size), seconds)
    assert pace.size <= size


def test_batch_that_was_cut_short_and_slow_shrinks() -> None:
    """A few that took too long say enough about many."""
    pace = BatchSizer(0.25, 10_000, size=500)
    pace.took(10, 0.5)
    assert pace.size == 5


def test_batch_of_nothing_says_nothing() -> None:
    """A batch of none is timed, and changes no size."""
    pace = BatchSizer(0.25, 500)
    pace.took(0, 3.0)
    assert (pace.size, pace.average, pace.times.count) == (FIRST, None, 1)


@given(times=st.lists(st.one_of(st.floats(0.0, 5.0), st.sampled_from(BUCKETS)), max_size=30))
def test_times_are_counted_as_prometheus_counts(times: list[float]) -> None:
    """Each bucket counts the batches that took its bound or less; the last counts all."""
    pace = BatchSizer(0.25, 500)
    for seconds in times:
        pace.took(1, seconds)
    said = pace.times.as_json()
    wanted = {f"{bound:g}": sum(seconds <= bound for seconds in times) for bound in BUCKETS}
    assert said["buckets"] == {**wanted, "+Inf": len(times)}
    assert (said["count"], said["longest_s"]) == (len(times), round(max(times, default=0.0), 3))
    assert said["seconds"] == pytest.approx(sum(times), abs=0.001)
