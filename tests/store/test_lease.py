"""The lease between a run and a backfill: a slice gives way to a run, a run to nobody, the dead to everybody."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Connection

from sweeper.errors import LeaseHeldError
from sweeper.policy.schema import Policy
from sweeper.postgres import lease as leases
from sweeper.postgres import purge
from sweeper.postgres.database import Database
from sweeper.runs.result import Result
from sweeper.runs.session import RunKind
from sweeper.runs.sweep import sweep
from sweeper.runs.throttle import ProgressListener, StopReason
from tests.processes import until
from tests.store.stores import Store
from tests.store.test_races import AS_OF, GUARDS, buried, fill, once_before

SLICE = RunKind("backfill")
LOOKED = "SELECT yields, wanted_at > clock_timestamp() - interval '5 seconds', expires_at > clock_timestamp() FROM sweeper.lease"


def swept(
    store: Store, policy: Policy, run_kind: RunKind, watch: ProgressListener | None = None, **sections: Any
) -> Result:
    """A run or a slice at AS_OF."""
    return sweep(store.job(policy, AS_OF, guards=GUARDS, **sections), run_kind=run_kind, watch=watch)


def is_wanted(store: Store) -> Callable[[], bool]:
    """Whether somebody has asked for the lease."""
    return lambda: store.execute("SELECT wanted_at > '-infinity' FROM sweeper.lease") == [(True,)]


def outcomes(store: Store) -> list[tuple[Any, ...]]:
    """What kind each run was and how it ended."""
    return store.execute("SELECT kind, outcome, result ->> 'stop_reason' FROM sweeper.runs ORDER BY id")


def test_slice_gives_way_to_a_run_after_its_batch(store: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """A run that begins while a slice is at work gets the lease after the batch at work and completes; the slice says why."""
    ids = fill(store, 6)
    runs: list[Any] = []

    def begin(_: int) -> None:
        if not runs:
            runs.append(threads.submit(swept, store, policy, RunKind(), purge={"batch": 4}))
            until(is_wanted(store))

    sliced = swept(store, policy, SLICE, ProgressListener(advance=begin), purge={"batch": 1})
    assert (sliced.outcome, sliced.throttle.stopped, sliced.is_done) == ("stopped", StopReason.YIELDED, False)
    assert 1 <= sliced.count <= 2
    assert (runs[0].result(30).outcome, runs[0].result().count) == ("completed", 6 - sliced.count)
    assert outcomes(store) == [("backfill", "stopped", "yielded"), ("run", "completed", None)]
    assert buried(store) == ids


def test_waiting_slice_gives_way_too(store: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """A slice that waits for the server hears a run as well; it holds nobody up for its own pause."""
    fill(store, 4)
    runs: list[Any] = []

    def begin(reason: str) -> None:
        if reason and not runs:
            runs.append(threads.submit(swept, store, policy, RunKind()))

    with store.connect() as maintenance:
        maintenance.execute("BEGIN; LOCK TABLE conversations IN SHARE UPDATE EXCLUSIVE MODE")
        pace = {"autovacuum": True, "look_seconds": 0.1}
        sliced = swept(store, policy, SLICE, ProgressListener(waits=begin), pace=pace)
    assert (sliced.throttle.stopped, sliced.count) == (StopReason.YIELDED, 0)
    assert runs[0].result(30).count == 4


@pytest.mark.parametrize(
    ("first", "others"), [(RunKind(), (RunKind(), SLICE)), (SLICE, (SLICE,))], ids=["run", "slice"]
)
def test_second_is_refused_at_once(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch, first: RunKind, others: tuple[RunKind, ...]
) -> None:
    """A run gives way to nobody, a slice not to a slice: whoever else begins is refused, and the one at work goes on."""
    fill(store, 3)
    refused: list[int] = []

    def begin(_: Connection) -> None:
        for run_kind in others:
            with pytest.raises(LeaseHeldError) as held:
                swept(store, policy, run_kind, purge={"batch": 2})
            refused.append(held.value.exit_code)
        assert store.execute(LOOKED) == [(first.preemptible, False, True)]

    once_before(monkeypatch, purge, "delete", begin)
    result = swept(store, policy, first)
    assert (result.outcome, result.count, refused) == ("completed", 3, [4] * len(others))
    assert outcomes(store) == [(first.kind, "completed", None)]


def test_renewed_lease_is_refused_between_batches(store: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """Whoever looks between two batches sees at the next renewal that the holder lives, and is refused long before the end."""
    lease, stop = leases.take(store.database()), Event()

    def renew() -> None:
        while not stop.wait(0.05):
            store.database().within(lease.renew)

    renewing = threads.submit(renew)
    began = time.monotonic()
    try:
        with pytest.raises(LeaseHeldError):
            leases.take(store.database())
    finally:
        stop.set()
    renewing.result(10)
    assert time.monotonic() - began < lease.seconds / 2


def freed(store: Store, wanted_ago: str) -> Database:
    """A store whose lease a slice has given back, for which a run asked so long ago."""
    database = store.database(store.settings(lease={"seconds": 1}))
    leases.take(database, preemptible=True)
    store.execute(
        "UPDATE sweeper.lease SET expires_at = '-infinity', wanted_at = clock_timestamp() - CAST(%s AS interval)",
        wanted_ago,
    )
    return database


def test_free_lease_that_is_wanted_is_left_to_the_run(store: Store) -> None:
    """While a run waits, a slice does not take even a lease that is free; the run does, at once."""
    database = freed(store, "0 seconds")
    with pytest.raises(LeaseHeldError):
        leases.take(database, preemptible=True)
    assert store.execute("SELECT token FROM sweeper.lease") == [(1,)]
    assert leases.take(database).token == 2
    assert store.execute(LOOKED) == [(False, False, True)]


def test_wish_of_a_run_that_is_gone_is_nobodys(store: Store) -> None:
    """A wish that is not said again is forgotten after five seconds: a run that died keeps no backfill waiting."""
    assert leases.take(freed(store, "5 seconds"), preemptible=True).token == 2
    assert store.execute("SELECT yields FROM sweeper.lease") == [(True,)]


def test_run_that_was_given_the_lease_is_asked_by_nobody(store: Store) -> None:
    """With the lease the wish is fulfilled: the run's own renewals do not tell it to give way."""
    database = store.database()
    leases.take(database, preemptible=True)
    store.execute("UPDATE sweeper.lease SET wanted_at = clock_timestamp(), expires_at = '-infinity'")
    lease = leases.take(database)
    database.within(lease.renew)
    assert not lease.preemption_requested


def test_renewal_tells_a_slice_that_it_is_wanted(store: Store) -> None:
    """A slice learns of a wish with its next renewal, and of none where there is none or it is stale."""
    database = store.database()
    lease = leases.take(database, preemptible=True)
    heard = []
    for ago in ("-infinity", "'1 minute'", "'0 seconds'"):
        at = "'-infinity'" if ago == "-infinity" else f"clock_timestamp() - interval {ago}"
        store.execute(f"UPDATE sweeper.lease SET wanted_at = {at}")
        database.within(lease.renew)
        heard.append(lease.preemption_requested)
    assert heard == [False, False, True]


@pytest.mark.parametrize("run_kind", [RunKind(), SLICE], ids=["run", "backfill"])
def test_dead_backfill_is_replaced(store: Store, policy: Policy, run_kind: RunKind) -> None:
    """A slice whose process died is waited for no longer than its lease lasts, by a run and by the next slice."""
    fill(store, 2)
    leases.take(store.database(store.settings(lease={"seconds": 1})), preemptible=True)
    began = time.monotonic()
    assert swept(store, policy, run_kind, lease={"seconds": 1}).count == 2
    assert 0.5 < time.monotonic() - began < 10


def test_wish_waits_for_the_batch_at_work(store: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """A run that finds the lease's row locked by a batch waits for it, instead of taking that for a refusal."""
    fill(store, 2)
    lease = leases.take(store.database(), preemptible=True)
    with store.connect() as batch:
        batch.execute("BEGIN; SELECT FROM sweeper.lease FOR UPDATE")
        running = threads.submit(swept, store, policy, RunKind())
        waits = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
            "AND query LIKE '%UPDATE sweeper.lease SET wanted_at%'"
        )
        until(lambda: bool(store.execute(waits)))
        batch.execute("COMMIT")
    until(is_wanted(store))
    store.database().within(lease.give_back)
    assert running.result(30).count == 2
