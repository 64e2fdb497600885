"""Windows of dues and the slices of a backfill: no due is swept twice, none is left out, whatever the calendar."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.policy.period import Period
from sweeper.policy.schema import Policy
from sweeper.policy.window import EVERYTHING, Slice, Window, slices
from tests.facts import instant

TICK = timedelta(microseconds=1)
HARD = [
    "2024-01-31T00:00:00Z",
    "2024-02-29T00:00:00Z",
    "2024-02-29T23:59:59.999999Z",
    "2024-03-01T00:00:00Z",
    "2023-02-28T23:59:59.999999Z",
    "2023-12-31T23:59:59.999999Z",
    "2024-12-30T00:00:00Z",
    "2025-03-30T01:00:00Z",
    "2025-10-26T01:30:00Z",
]
INSTANTS = st.one_of(
    st.timedeltas(timedelta(0), timedelta(days=4_000)).map(lambda passed: datetime(2019, 1, 1, tzinfo=UTC) + passed),
    st.sampled_from([instant(text) + tick for text in HARD for tick in (-TICK, timedelta(0), TICK)]),
)
LONGEST = {Slice.DAY: timedelta(days=1), Slice.WEEK: timedelta(days=7), Slice.MONTH: timedelta(days=31)}


@st.composite
def spans(draw: st.DrawFn) -> tuple[datetime, datetime, Slice]:
    """A beginning, an end at most some 60 slices later, and the slices' length."""
    since, by = draw(INSTANTS), draw(st.sampled_from(Slice))
    most = LONGEST[by] * 60 // TICK
    return since, since + TICK * draw(st.integers(1, most)), by


@given(span=spans())
def test_slices_cover_without_gap_or_overlap(span: tuple[datetime, datetime, Slice]) -> None:
    """Slices begin at `since`, end at `until`, follow one another without gap, and none is empty or longer than its name."""
    since, until, by = span
    found = list(slices(since, until, by))
    assert (found[0].since, found[-1].until) == (since, until)
    assert all(one.until == other.since for one, other in pairwise(found))
    assert all(w.since and w.until and timedelta(0) < w.until - w.since <= LONGEST[by] for w in found)


@given(span=spans())
def test_every_inner_edge_is_one_of_the_calendar(span: tuple[datetime, datetime, Slice]) -> None:
    """A slice that ends before the plan does ends at midnight UTC: of any day, of a Monday, of the first of a month."""
    since, until, by = span
    for edge in [w.until for w in slices(since, until, by)][:-1]:
        assert edge is not None
        assert edge.astimezone(UTC).time() == datetime.min.time()
        assert by is not Slice.WEEK or edge.weekday() == 0
        assert by is not Slice.MONTH or edge.day == 1
    for one, other in pairwise([w.until for w in slices(since, until, by)][:-1]):
        assert by is not Slice.MONTH or (one and other and (other - one) >= timedelta(days=28))


@given(span=spans(), pick=st.integers(0, 10**9), tick=st.sampled_from([-TICK, timedelta(0), TICK]))
def test_each_due_lies_in_exactly_one_slice(span: tuple[datetime, datetime, Slice], pick: int, tick: timedelta) -> None:
    """A due at, a microsecond before or after any edge lies in one slice if it lies in the plan, and in none otherwise."""
    since, until, by = span
    found = list(slices(since, until, by))
    edges = [since, *(w.until for w in found if w.until)]
    due = edges[pick % len(edges)] + tick
    assert sum(w.holds(due) for w in found) == int(since <= due < until)
    assert Window(since, until).holds(due) == (since <= due < until)


@given(span=spans(), data=st.data())
def test_going_on_from_any_edge_gives_the_same_slices(
    span: tuple[datetime, datetime, Slice], data: st.DataObject
) -> None:
    """Slices that begin where earlier ones ended are those that were left."""
    found = list(slices(*span))
    done = data.draw(st.integers(0, len(found) - 1))
    begin = found[done].since
    assert begin is not None
    assert list(slices(begin, span[1], span[2])) == found[done:]


@pytest.mark.parametrize(
    ("by", "begin", "end"),
    [
        (Slice.DAY, "2024-02-28T00:00:00Z", "2024-02-29T00:00:00Z"),
        (Slice.DAY, "2024-02-29T12:00:00Z", "2024-03-01T00:00:00Z"),
        (Slice.DAY, "2023-12-31T23:59:59.999999Z", "2024-01-01T00:00:00Z"),
        (Slice.WEEK, "2024-12-30T00:00:00Z", "2025-01-06T00:00:00Z"),
        (Slice.WEEK, "2025-01-05T23:59:59.999999Z", "2025-01-06T00:00:00Z"),
        (Slice.MONTH, "2024-01-31T23:00:00Z", "2024-02-01T00:00:00Z"),
        (Slice.MONTH, "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
        (Slice.MONTH, "2023-02-01T00:00:00Z", "2023-03-01T00:00:00Z"),
        (Slice.MONTH, "2023-12-31T00:00:00Z", "2024-01-01T00:00:00Z"),
    ],
)
def test_slice_that_begins_anywhere_ends_at_the_next_edge(by: Slice, begin: str, end: str) -> None:
    """Month ends, leap days, the turn of a year: the next edge is that of the calendar."""
    assert by.end(instant(begin)) == instant(end)


def test_nothing_to_slice() -> None:
    """Where nothing is left there is no slice."""
    assert list(slices(instant(HARD[0]), instant(HARD[0]), Slice.DAY)) == []


def test_edges_of_a_window() -> None:
    """`since` itself is in, `until` itself is out; a bound that is not given bounds nothing."""
    since, until = instant("2024-01-01T00:00:00Z"), instant("2024-02-01T00:00:00Z")
    both = Window(since, until)
    assert [both.holds(since + tick) for tick in (-TICK, timedelta(0), TICK)] == [False, True, True]
    assert [both.holds(until + tick) for tick in (-TICK, timedelta(0), TICK)] == [True, False, False]
    assert Window(since=since).holds(until)
    assert not Window(since=since).holds(since - TICK)
    assert Window(until=until).holds(since - TICK)
    assert not Window(until=until).holds(until)


def test_never_lies_in_no_window_with_a_bound() -> None:
    """A record without a due is nobody's, but for a sweep of everything."""
    at = instant("2024-01-01T00:00:00Z")
    assert EVERYTHING.holds(None)
    assert EVERYTHING.holds(at)
    assert not any(window.holds(None) for window in (Window(at), Window(None, at), Window(at, at + TICK)))


def test_nothing_later_than_as_of_is_looked_for() -> None:
    """The horizon is as-of or `until`, whichever comes first."""
    at = instant("2024-01-01T00:00:00Z")
    assert [Window(None, until).horizon(at) for until in (None, at - TICK, at + TICK)] == [at, at - TICK, at]


PERIODS = st.sampled_from(
    [Period(), *(Period(seconds=days * 86_400) for days in (1, 30)), *(Period(months=m) for m in (1, 2, 13, 24, 60))]
)


@given(anchor=INSTANTS, period=PERIODS)
def test_anchor_lies_between_the_bounds_at_its_due(anchor: datetime, period: Period) -> None:
    """The bounds made from a due reach its anchor from both sides, however months are cut short."""
    due = period.after(anchor)
    assert due is not None
    before, after = period.earliest(due), period.latest(due)
    assert before is not None
    assert after is not None
    assert before <= anchor <= after


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "0002-01-02T00:00:00Z", "0003-01-02T00:00:00Z"])
def test_bound_that_no_calendar_holds_is_none(policy: Policy, since: str) -> None:
    """A `since` at the beginning of the calendar bounds nothing, or as far as the calendar goes, and is no error."""
    periods = [t.period for rule in policy.rules for t in rule.due if isinstance(t.period, Period)]
    found = [period.earliest(instant(since)) for period in periods]
    assert None in found
    assert all(earliest is None or earliest <= instant(since) for earliest in found)
