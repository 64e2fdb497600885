"""Two servers: one that falls behind is waited for, and when the first one dies the second one takes over."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sweeper import embedded
from sweeper.clock import Clock
from sweeper.encoding import to_json
from sweeper.policy.schema import Policy
from sweeper.postgres import database
from sweeper.postgres.load_probe import LoadProbe
from sweeper.runs.job import Job, read_contract
from sweeper.runs.sweep import sweep
from sweeper.runs.throttle import ProgressListener
from sweeper.settings import Settings
from tests.facts import instant
from tests.store import stores
from tests.store.standby import on, standby
from tests.store.stores import POLICY, Store

AS_OF = "2026-07-01T00:00:00Z"
DUE = 60
BATCH = 10


@pytest.fixture
def primary() -> Iterator[embedded.Server]:
    """A server of this test's own: it is going to be killed."""
    with embedded.server() as server:
        yield server


@pytest.fixture
def filled(primary: embedded.Server) -> Iterator[Store]:
    """A store in which so many conversations are due."""
    store = stores.copy(primary, stores.create(primary, "uuid"), "filled", "uuid")
    last = "2026-01-02T00:00:00Z"
    chats = [
        {"id": f"c{n}", "account": "a1", "created_at": last, "last_activity_at": last, "messages": []}
        for n in range(DUE)
    ]
    account = {"id": "a1", "plans": [{"effective_at": "-infinity", "plan": "free"}], "consent": []}
    store.load({"accounts": [account], "conversations": chats, "holds": [], "orders": []})
    store.execute("GRANT pg_read_all_stats TO sweeper")  # how far replicas are behind is not for everybody to see
    yield store
    store.close()


@contextmanager
def job(url: str, policy: Policy, **sections: Any) -> Iterator[Job]:
    """A job on whichever server of the URL takes writes."""
    wanted = {"guards": {"history": False, "clock": False}, "purge": {"batch": BATCH}, **sections}
    settings = Settings.model_validate({"database": {"url": url}, "policy": {"file": POLICY}, **wanted})
    opened = database.connect(settings)
    yield Job(opened, read_contract(opened, policy), policy, Clock(lambda: instant(AS_OF)), instant(AS_OF))
    opened.engine.dispose()


def caught_up(primary: embedded.Server, follower: embedded.Server) -> None:
    """Poll until the follower has replayed all that the primary has written."""
    written = on(primary, "SELECT pg_current_wal_lsn()")
    for _ in range(10_000):
        if on(follower, f"SELECT pg_last_wal_replay_lsn() >= '{written}'"):
            return
    pytest.fail("the standby did not catch up")


def test_a_replica_that_is_behind_is_waited_for(primary: embedded.Server, filled: Store, policy: Policy) -> None:
    """Before the next batch the run waits until the replica has caught up, and says for what."""
    said: list[str] = []
    with standby(primary) as follower:
        caught_up(primary, follower)
        on(follower, "SELECT pg_wal_replay_pause()")

        def waits(reason: str) -> None:
            said.append(reason)
            on(follower, "SELECT pg_wal_replay_resume()")

        pace = {"look_seconds": 0.0, "replica_lag_mb": 0.001, "replica_lag_seconds": 0.0}
        with job(filled.url, policy, pace=pace) as work:
            result = to_json(sweep(work, watch=ProgressListener(waits=waits)))
        caught_up(primary, follower)
    assert said[0].startswith("a replica is ")
    assert said[-1] == ""
    assert result["pauses"]["replica_lag"]["count"] >= 1
    assert (result["outcome"], result["purged"]) == ("completed", DUE)


def test_a_replica_that_stays_behind_ends_the_run(primary: embedded.Server, filled: Store, policy: Policy) -> None:
    """A replica that never catches up is not overrun: the run ends, names it, and is no success."""
    with standby(primary) as follower:
        caught_up(primary, follower)
        on(follower, "SELECT pg_wal_replay_pause()")
        pace = {"look_seconds": 0.0, "replica_lag_mb": 0.001, "replica_lag_seconds": 0.0, "longest_pause_seconds": 0.0}
        with job(filled.url, policy, pace=pace) as work:
            result = sweep(work)
        on(follower, "SELECT pg_wal_replay_resume()")
    assert (result.outcome, result.throttle.stopped, result.is_done) == ("stopped", "replica_lag", False)
    assert result.count < DUE


def test_failover(primary: embedded.Server, filled: Store, policy: Policy) -> None:
    """The primary dies in the middle of a run and the standby is promoted: the run goes on there, each purge once in effect."""
    with standby(primary) as follower:
        caught_up(primary, follower)
        name = filled.url.partition("@/")[2].partition("?")[0]
        hosts = f"host={primary.sockets},{follower.sockets}&port=5432,5432&target_session_attrs=read-write"
        purged: list[int] = []

        def advance(count: int) -> None:
            purged.append(count)
            if len(purged) == 2:
                os.kill(primary.pid, signal.SIGQUIT)
                primary.stop()
                on(follower, "SELECT pg_promote()")

        with job(f"postgresql+psycopg://sweeper@/{name}?{hosts}", policy) as work:
            assert sweep(work, watch=ProgressListener(advance=advance)).outcome == "completed"
            sweep(work)  # what the first server had not handed on before it died
        survivor = Store(follower.url(name), "uuid")
        assert survivor.left() == set()
        assert survivor.execute("SELECT count(*), count(DISTINCT record_id) FROM sweeper.tombstones") == [(DUE, DUE)]
        assert [row[0] for row in survivor.execute("SELECT outcome FROM sweeper.runs ORDER BY id")] == ["completed"] * 2
        survivor.close()


def test_look_at_a_server_that_is_no_primary(primary: embedded.Server, filled: Store, policy: Policy) -> None:
    """Whoever looks how hard the server has it, after a failover, at one that follows another, is not told that it failed."""
    with standby(primary) as follower, job(filled.url, policy) as leading:
        root = leading.contract.conversations
        at_follower = Settings.model_validate({"database": {"url": follower.url("filled")}, "policy": {"file": POLICY}})
        opened = database.connect(at_follower)
        assert LoadProbe(opened, [root.oid]).read() == {}
        opened.engine.dispose()
