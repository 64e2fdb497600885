"""A server that is gone: one that never answered fails at once, one that answered is waited for, once in effect."""

import os
import signal
from collections.abc import Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from sweeper import embedded
from sweeper.embedded import Server
from sweeper.errors import SweeperError
from sweeper.policy.schema import Policy
from sweeper.postgres import database as databases
from sweeper.postgres import purge
from sweeper.runs.session import RunKind
from sweeper.runs.sweep import preview, sweep
from sweeper.runs.throttle import Budget, ProgressListener
from tests.processes import until
from tests.store import stores
from tests.store.stores import Store
from tests.store.test_races import AS_OF, GUARDS, buried, fill, is_waiting, orphans

Logged = list[MutableMapping[str, Any]]


@pytest.fixture(scope="module")
def mortal() -> Iterator[Server]:
    """A server that tests of this module stop and start."""
    with embedded.server() as running:
        yield running


@pytest.fixture
def elsewhere(mortal: Server) -> Iterator[Store]:
    """A store on it."""
    name = stores.create(mortal, "uuid")
    opened = Store(mortal.url(name), "uuid")
    yield opened
    opened.close()
    stores.drop(mortal, name)


def retries(logged: Logged) -> int:
    """How often something was tried again so far."""
    return sum(entry["event"] in ("retrying", "waiting for the database") for entry in logged)


def crash(server: Server) -> None:
    """Stop the server at once, as a power cut does."""
    os.kill(server.pid, signal.SIGQUIT)
    server.stop()


@dataclass
class Between:
    """Holds a sweep after its first batch, so that something can happen to the server."""

    reached: Event = field(default_factory=Event)
    go_on: Event = field(default_factory=Event)

    def __call__(self, _: int) -> None:
        """Called by the sweep after each batch."""
        self.reached.set()
        assert self.go_on.wait(60)

    def __enter__(self) -> None:
        """Wait until the sweep is there."""
        assert self.reached.wait(60)

    def __exit__(self, *_: object) -> None:
        """Let it go on."""
        self.go_on.set()


def test_server_that_never_answered_fails_at_once(store: Store, policy: Policy) -> None:
    """A wrong address is told after the few attempts of the settings; outage_seconds are for a server that has answered."""
    wanted = store.settings(
        database={"url": "postgresql://nobody@127.0.0.1:9/nothing", "attempts": 3, "outage_seconds": 3}
    )
    opened = databases.connect(wanted)
    with capture_logs() as logged, pytest.raises(OperationalError):
        opened.within(lambda connection: connection)
    assert retries(logged) == 2
    assert not opened.expected.is_set()


def test_abandoned_database_is_not_waited_for(store: Store) -> None:
    """Who gives the database up is not held up by further attempts."""
    opened = databases.connect(store.settings(database={"url": "postgresql://nobody@127.0.0.1:9/nothing"}))
    opened.expected.set()
    opened.stop.abandon()
    with capture_logs() as logged, pytest.raises(OperationalError):
        opened.within(lambda connection: connection)
    assert retries(logged) == 0


@pytest.mark.parametrize("stop", [Server.stop, crash], ids=["stopped", "crashed"])
def test_server_that_answered_is_waited_for(
    elsewhere: Store, mortal: Server, policy: Policy, threads: ThreadPoolExecutor, stop: Callable[[Server], None]
) -> None:
    """A server that goes away between two batches and comes back is waited for beyond the attempts: all is purged once."""
    ids, between = fill(elsewhere, 6), Between()
    job = elsewhere.job(
        policy, AS_OF, guards=GUARDS, purge={"batch": 2}, database={"url": elsewhere.url, "attempts": 2}
    )
    with capture_logs() as logged:
        running = threads.submit(sweep, job, watch=ProgressListener(advance=between))
        with between:
            stop(mortal)
        until(lambda: retries(logged) > 3)
        mortal.start()
        result = running.result(60)
    assert (result.outcome, result.count, result.counts.failed) == ("completed", 6, 0)
    assert (buried(elsewhere), orphans(elsewhere)) == (ids, 0)
    assert elsewhere.execute("SELECT outcome FROM sweeper.runs") == [("completed",)]


def test_server_that_crashes_within_a_batch(
    elsewhere: Store, mortal: Server, policy: Policy, threads: ThreadPoolExecutor
) -> None:
    """A batch that the server's crash has undone is done again when it is back, once in effect."""
    ids = fill(elsewhere, 4)
    elsewhere.execute(
        "CREATE FUNCTION store.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM pg_advisory_xact_lock_shared(42); RETURN NEW; END $$"
    )
    elsewhere.execute(
        "CREATE TRIGGER wait AFTER INSERT ON sweeper.tombstones FOR EACH ROW EXECUTE FUNCTION store.wait()"
    )
    limits = {"url": elsewhere.url, "attempts": 2, "lock_timeout_ms": 30_000}
    job = elsewhere.job(policy, AS_OF, guards=GUARDS, database=limits)
    with psycopg.connect(elsewhere.libpq, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(42)")
        running = threads.submit(sweep, job)
        until(is_waiting(elsewhere, "INSERT INTO sweeper.tombstones"))
        crash(mortal)
    mortal.start()
    result = running.result(60)
    assert (result.outcome, result.count) == ("completed", 4)
    assert (buried(elsewhere), orphans(elsewhere)) == (ids, 0)


def test_server_that_stays_away(elsewhere: Store, mortal: Server, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """After outage_seconds the run fails and says so; what it had committed stands, and the next run does the rest."""
    ids, between = fill(elsewhere, 4), Between()
    limits = {"url": elsewhere.url, "attempts": 2, "outage_seconds": 0.5}
    options: dict[str, Any] = {"guards": GUARDS, "purge": {"batch": 2}, "lease": {"seconds": 1}}
    job = elsewhere.job(policy, AS_OF, database=limits, **options)
    running = threads.submit(sweep, job, watch=ProgressListener(advance=between))
    with between:
        mortal.stop()
    with pytest.raises(SweeperError, match="What was committed before stands"):
        running.result(60)
    mortal.start()
    assert buried(elsewhere) == ids[:2]
    assert sweep(elsewhere.job(policy, AS_OF, **options)).count == 2
    assert buried(elsewhere) == ids
    assert elsewhere.execute("SELECT outcome FROM sweeper.runs ORDER BY id") == [("interrupted",), ("completed",)]


# A COMMIT whose answer is lost


def lose_first_answer(engine: Engine) -> list[str]:
    """Let the first COMMIT of a batch with tombstones stand while the connection breaks before its answer."""
    told: list[str] = []

    def note(*arguments: Any) -> None:
        if "INSERT INTO sweeper.tombstones" in arguments[2] and not told:
            told.append("written")

    event.listen(engine, "after_cursor_execute", note)
    commit = engine.dialect.do_commit

    def committed(connection: Any) -> None:
        commit(connection)
        if told == ["written"]:
            told.append("lost")
            raise OperationalError("COMMIT", {}, psycopg.OperationalError("broken"), connection_invalidated=True)

    engine.dialect.do_commit = committed  # type: ignore[method-assign, assignment]  # the answer is lost after the real commit
    return told


@pytest.mark.parametrize("then", ["found gone", "refused first"])
def test_lost_answer_opens_no_approval(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """After a COMMIT whose answer was lost, an approval's ceiling is still kept to the row, and the counts are exact."""
    ids = fill(store, 6)
    job = store.job(policy, AS_OF, guards=GUARDS, purge={"batch": 2})
    told = lose_first_answer(job.database.engine)
    if then == "refused first":
        refuse_after(monkeypatch, told)
    approval = replace(preview(job).approval, due={"standard": 4})
    result = sweep(job, approval=approval, run_kind=RunKind("backfill"))
    assert told[:2] == ["written", "lost"]
    assert (result.count, result.counts.skipped) == (4, {"not_approved": 2})
    assert buried(store) == ids[:4]
    assert store.execute("SELECT (result ->> 'purged')::int FROM sweeper.runs") == [(4,)]


def refuse_after(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    """Let the attempt after the lost answer run into a lock time-out, so that the batch is done again in halves."""
    lock = purge.lock

    def refused(connection: Connection, *arguments: Any, **named: Any) -> Any:
        if told == ["written", "lost"]:
            told.append("refused")
            connection.exec_driver_sql("DO $$ BEGIN RAISE SQLSTATE '55P03'; END $$")
        return lock(connection, *arguments, **named)

    monkeypatch.setattr(purge, "lock", refused)


def test_lost_answer_opens_no_budget(store: Store, policy: Policy) -> None:
    """After a COMMIT whose answer was lost, --max-purge is still kept to the row."""
    ids = fill(store, 6)
    job = store.job(policy, AS_OF, guards=GUARDS, purge={"batch": 2})
    lose_first_answer(job.database.engine)
    result = sweep(job, budget=Budget(purges=3))
    assert (result.count, result.throttle.stopped, result.is_done) == (3, "max_purge", True)
    assert buried(store) == ids[:3]


def test_backend_that_dies_in_its_commit(store: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """A backend that is terminated while it commits has committed nothing: the batch is done again, counted once."""
    ids = fill(store, 6)
    store.execute("CREATE TABLE store.noted (at timestamptz DEFAULT now())")
    store.execute(
        "CREATE FUNCTION store.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
        "SET CONSTRAINTS ALL DEFERRED; INSERT INTO store.noted DEFAULT VALUES; RETURN NULL; END $$"
    )
    store.execute(
        "CREATE FUNCTION store.wait() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN "
        "PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$"
    )
    for name, table in (
        ("note", "sweeper.tombstones"),
        ("wait", "store.noted"),
    ):  # the second one is left to the commit
        store.execute(
            f"CREATE CONSTRAINT TRIGGER {name} AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED "
            f"FOR EACH ROW EXECUTE FUNCTION store.{name}()"
        )
    job = store.job(policy, AS_OF, guards=GUARDS, purge={"batch": 2})
    approval = replace(preview(job).approval, due={"standard": 4})
    with store.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(42)")
        running = threads.submit(sweep, job, approval=approval, run_kind=RunKind("backfill"))
        until(is_waiting(store, "COMMIT"))
        store.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event = 'advisory'"
        )
    result = running.result(30)
    assert (result.count, result.counts.skipped) == (4, {"not_approved": 2})
    assert buried(store) == ids[:4]
