"""Windows of dues on a real store: what is due within is proposed and purged, nothing outside is, whatever the world."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sweeper.policy.decide import Verdict, decide, exists
from sweeper.policy.evaluate import Outcome
from sweeper.policy.schema import Policy, parse
from sweeper.policy.window import Slice, Window, slices
from sweeper.postgres.proposals import Selector
from sweeper.runs.job import read_contract
from sweeper.runs.record_kind import conversations
from sweeper.runs.result import Result
from sweeper.runs.scan import evaluations
from sweeper.runs.session import RunKind
from sweeper.runs.sweep import sweep
from sweeper.runs.throttle import ProgressListener
from tests import model
from tests.facts import World, instant
from tests.store.stores import ROOT, Store
from tests.store.test_laws import doomed, fill, stones
from tests.store.test_propose import SYNTHETIC, Bench, furnished, policies
from tests.worlds import MICROSECOND as TICK
from tests.worlds import worlds

FILES = ("policy.toml", "examples/until_deletion.toml", "examples/eighteen_months.toml")
GUARDS = {"history": False, "volume": False, "earlier_as_of": False}
EDGES = st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from([-TICK, timedelta(0), timedelta(0), TICK]))
TICKS = st.sampled_from([-TICK, timedelta(0), TICK])


@pytest.fixture
def bench(store: Store, policy: Policy) -> Bench:
    """A store whose conversations, too, have a further column."""
    store.execute("ALTER TABLE conversations ADD keep_days integer")
    return Bench(store, read_contract(store.database(), policy))


@pytest.fixture(scope="module")
def every_policy() -> list[Policy]:
    """The policies that ship, and some with rules of every kind."""
    return [*(parse((ROOT / "config" / Path(file)).read_text()) for file in FILES), *SYNTHETIC]


# --- proposals --------------------------------------------------------------------------------------------------------


def verdicts(bench: Bench, policy: Policy, as_of: datetime) -> dict[str, Verdict]:
    """What `decide` says of everything that exists."""
    return {
        name: decide(facts, policy, as_of)
        for name, facts in bench.facts(policy, as_of).items()
        if exists(facts.conversation, policy, as_of)
    }


def edges(found: dict[str, Verdict], as_of: datetime) -> list[datetime]:
    """The dues that have come, and as-of: where windows begin and end."""
    return sorted({v.due for v in found.values() if v.due is not None and v.due <= as_of} | {as_of})


def windows(found: dict[str, Verdict], as_of: datetime, one: int, other: int, tick: timedelta) -> Iterator[Window]:
    """Windows from due to due and open ones, at the dues and a microsecond beside them."""
    at = edges(found, as_of)
    since, until = sorted((at[one % len(at)], at[other % len(at)]))
    yield Window(since + tick, until + tick)
    yield Window(since, until + TICK)
    yield Window(since + tick, None)
    yield Window(None, until + tick)
    yield Window(since - TICK, since)
    yield Window(since, since + TICK)


def missed(bench: Bench, policy: Policy, as_of: datetime, window: Window, found: dict[str, Verdict]) -> set[str]:
    """What is due within the window and not proposed."""
    selector = Selector(bench.store.database(), bench.contract, policy, as_of, window, 2, 2)
    pages = list(selector.pages())
    proposed = [p.record_id for page in pages for p in (*page.free, *page.held)]
    assert len(proposed) == len(set(proposed))
    due = {name for name, v in found.items() if v.expired and v.due is not None and window.holds(v.due)}
    return due - set(proposed)


@given(world=furnished(), at=EDGES)
@settings(max_examples=10)
def test_nothing_due_within_is_missed(
    bench: Bench, every_policy: list[Policy], world: World, at: tuple[int, int, timedelta]
) -> None:
    """Whatever is due in a window is proposed in it: flagged, ordered, closed, unclassified, with a period of its own."""
    bench.load(world)
    as_of = instant(world["as_of"])
    for policy in every_policy:
        found = verdicts(bench, policy, as_of)
        for window in windows(found, as_of, *at):
            assert missed(bench, policy, as_of, window, found) == set(), str(window)


@given(world=furnished(), several=st.lists(policies(), min_size=3, max_size=3), at=EDGES)
@settings(max_examples=12)
def test_any_policy_misses_nothing_within(
    bench: Bench, world: World, several: list[Policy], at: tuple[int, int, timedelta]
) -> None:
    """The same holds under a policy of one random rule, with floors of any length."""
    bench.load(world)
    as_of = instant(world["as_of"])
    for policy in several:
        found = verdicts(bench, policy, as_of)
        for window in windows(found, as_of, *at):
            assert missed(bench, policy, as_of, window, found) == set(), str(window)


def chat(name: str, last: str, **columns: object) -> World:
    """A chat of a consumer with one message at its last activity."""
    message = {"id": f"m-{name}", "author": "user", "created_at": last}
    return {
        "id": name,
        "account": "a1",
        "created_at": "2020-01-01T00:00:00Z",
        "last_activity_at": last,
        "messages": [message],
        **columns,
    }


CHOSEN = [
    {"granted": True, "recorded_at": "2025-09-01T00:00:00Z"},
    {"granted": False, "recorded_at": "2026-01-30T00:00:00Z"},
]


def world_of(chats: list[World], consent: Sequence[World] = (), **more: object) -> World:
    """A world of one consumer, who never chose unless it says so."""
    account = {"id": "a1", "plans": [{"effective_at": "-infinity", "plan": "free"}], "consent": consent}
    return {
        "as_of": "2026-06-01T00:00:00Z",
        "accounts": [account],
        "conversations": chats,
        "holds": [],
        "orders": [],
        "feedback": [],
        **more,
    }


LATE = "2026-03-01T00:00:00Z"
MOVED = {
    "a flag that keeps it": (chat("c1", "2021-01-01T00:00:00Z", flagged_at="2024-03-01T00:00:00Z"), []),
    "a flag on a chat of no retention": (
        chat("c1", "2021-01-01T00:00:00Z", zero_retention=True, flagged_at="2024-03-01T00:00:00Z"),
        [],
    ),
    "an order that hastens it": (
        chat("c1", "2026-05-01T00:00:00Z"),
        [{"conversation": "c1", "recorded_at": "2026-05-02T00:00:00Z", "due_at": LATE}],
    ),
    "an order despite a flag": (
        chat("c1", "2021-01-01T00:00:00Z", flagged_at="2025-03-01T00:00:00Z"),
        [{"account": "a1", "due_at": LATE}],
    ),
    "an order on what nobody can classify": (
        chat("c1", "2021-01-01T00:00:00Z", platform=None),
        [{"account": "a1", "due_at": LATE}],
    ),
    "a deletion": (chat("c1", "2026-02-20T00:00:00Z", deleted_at="2026-01-30T00:00:00Z"), []),
    "consent that ended": (chat("c1", "2025-10-15T00:00:00Z"), []),
}


@pytest.mark.parametrize("why", MOVED)
def test_due_that_something_else_has_moved(store: Store, policy: Policy, why: str) -> None:
    """A due that a later step has moved far from its anchor is found in the window of that due, and in no other."""
    moved, orders = MOVED[why]
    world = world_of([moved], CHOSEN if why == "consent that ended" else (), orders=orders)
    job = store.job(policy, world["as_of"])
    store.load(world)
    due = instant(LATE)
    for window, there in (
        (Window(due, due + TICK), True),
        (Window(due, None), True),
        (Window(due - TICK, due), False),
        (Window(due + TICK, None), False),
        (Window(None, due), False),
    ):
        there_job = replace(job, window=window)
        proposals = [p for page in there_job.selector.pages() for p in page.free]
        outcomes = [evaluation.outcome for _, evaluation in evaluations(conversations(there_job), proposals)]
        assert (Outcome.PURGE in outcomes) == there, str(window)


def test_window_of_a_month_proposes_no_other_years(store: Store, policy: Policy) -> None:
    """A slice costs what is due in it: of chats from sixty months only those near its own are proposed."""
    months = [f"{2020 + n // 12}-{n % 12 + 1:02d}-10T00:00:00Z" for n in range(60)]
    store.load(world_of([chat(f"c{n}", month) for n, month in enumerate(months)]))
    job = store.job(policy, "2026-06-01T00:00:00Z")
    window = Window(instant("2022-05-01T00:00:00Z"), instant("2022-06-01T00:00:00Z"))
    pages = list(Selector(job.database, job.contract, policy, job.as_of, window).pages())
    assert [p.record_id for page in pages for p in page.free] == [store.id("c27")]


# --- sweeps -----------------------------------------------------------------------------------------------------------


def swept(store: Store, policy: Policy, as_of: str, window: Window, watch: ProgressListener | None = None) -> Result:
    """A slice of a backfill without an approval of its own, so that only the window bounds it."""
    job = replace(store.job(policy, as_of, guards=GUARDS), window=window)
    return sweep(job, run_kind=RunKind("backfill"), watch=watch)


def dues_of(gone: dict[str, model.Verdict]) -> list[datetime]:
    """The dues of what the model purges, in order."""
    return sorted({v.due for v in gone.values() if v.due is not None})


@given(world=worlds(poison=True), by=st.sampled_from(Slice), cut=st.integers(0, 40), tick=TICKS)
@settings(max_examples=12)
def test_slices_in_order_equal_one_sweep(
    store: Store, policy: Policy, world: World, by: Slice, cut: int, tick: timedelta
) -> None:
    """Slice by slice or at once: the same is gone, each with one tombstone that bears the model's rule and due."""
    gone = doomed(world)
    dues, as_of = dues_of(gone), instant(world["as_of"])
    assume(dues or cut % 4 == 0)  # of worlds in which nothing is due a few are enough
    fill(store, world)
    until = min((dues[cut % len(dues)] if dues else as_of) + tick, as_of)
    since = min([*dues, until]) - TICK
    for window in slices(since, until, by):
        if any(window.holds(due) for due in dues) or window.since == since:
            swept(store, policy, world["as_of"], window)
            shows(store, world, {name: v for name, v in gone.items() if v.due and v.due < (window.until or until)})
    shows(store, world, {name: v for name, v in gone.items() if v.due and v.due < until})
    assert stones(store, "feedback") == []
    assert sweep(store.job(policy, world["as_of"], guards=GUARDS)).outcome == "completed"
    shows(store, world, gone)


def shows(store: Store, world: World, gone: dict[str, model.Verdict]) -> None:
    """That these are gone, with a tombstone each, and all others are there."""
    assert store.left() == {store.id(chat["id"]) for chat in world["conversations"] if chat["id"] not in gone}
    assert stones(store, "conversation") == sorted((store.id(name), v.rule, v.due) for name, v in gone.items())


def test_what_changes_after_its_proposal_is_spared_or_left(store: Store, policy: Policy) -> None:
    """In a slice, too, a chat resumed after it was proposed is spared; one whose due left the slice is left to its own."""
    last, since = "2026-01-01T00:00:00Z", instant("2026-01-31T00:00:00Z")
    store.load(world_of([chat(f"c{n}", last) for n in range(4)]))
    _first, resumed, moved, flagged = sorted(store.left())

    def meddle(_: int) -> None:
        store.execute("UPDATE conversations SET last_activity_at = '2026-05-31Z' WHERE id = %s", resumed)
        store.execute("UPDATE conversations SET last_activity_at = '2026-01-02Z' WHERE id = %s", moved)
        store.execute("UPDATE conversations SET flagged_at = '2026-05-31Z' WHERE id = %s", flagged)

    job = store.job(policy, "2026-06-01T00:00:00Z", guards=GUARDS, purge={"batch": 1})
    window = Window(since, since + timedelta(days=1))
    result = sweep(replace(job, window=window), run_kind=RunKind("backfill"), watch=ProgressListener(advance=meddle))
    assert store.left() == {resumed, moved, flagged}
    assert (result.count, result.counts.skipped, result.counts.outside) == (1, {"changed": 1}, 1)
    assert result.outcome == "completed"
