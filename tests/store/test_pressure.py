"""Pressure, seen on a real server with real sessions: what a run waits for, what it says of it, and when it gives up."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from structlog.testing import capture_logs

from sweeper.embedded import Server
from sweeper.encoding import to_json
from sweeper.policy.schema import Policy
from sweeper.postgres.load_probe import LoadProbe, Pressure
from sweeper.runs.sweep import sweep
from sweeper.runs.throttle import ProgressListener
from tests.acceptance.commands import in_process
from tests.processes import until
from tests.store import stores
from tests.store.stores import Store
from tests.store.test_races import AS_OF, GUARDS, fill

QUIET = {"replica_lag_seconds": 0, "replica_lag_mb": 0, "wal_mb_per_second": 0, "blocked_queries": 0}


def gauge(store: Store, policy: Policy, **limits: Any) -> LoadProbe:
    """A gauge of this store's purged tables that looks at these limits alone."""
    job = store.job(policy, AS_OF, pace={**QUIET, **limits})
    root = job.contract.conversations
    return LoadProbe(job.database, [root.oid, *(key.oid for key in root.children)])


@contextmanager
def blocked(store: Store, threads: ThreadPoolExecutor, count: int, statement: str) -> Iterator[None]:
    """So many sessions that wait for the lock of another for longer than a second."""
    with ExitStack() as sessions:
        holder = sessions.enter_context(store.connect())
        holder.execute("BEGIN")
        holder.execute(statement)
        waiters = [threads.submit(_wait, store, statement) for _ in range(count)]
        waits = (
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted "
            "AND a.datname = current_database() AND l.waitstart < clock_timestamp() - interval '1.01 seconds'"
        )
        until(lambda: store.execute(waits) == [(count,)])
        yield
        holder.execute("ROLLBACK")
        for waiter in waiters:
            waiter.result(10)


def _wait(store: Store, statement: str) -> None:
    with store.connect() as connection, connection.transaction():
        connection.execute(statement)


@contextmanager
def vacuum(store: Store, table: str) -> Iterator[psycopg.Connection[Any]]:
    """The lock of a VACUUM on a table, as long as it takes."""
    with store.connect() as connection:
        connection.execute(f"BEGIN; LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE")
        yield connection


# What a look sees


def test_calm_server(store: Store, policy: Policy) -> None:
    """A server that does nothing is above no limit, with every limit set."""
    fill(store, 1)
    limits = {"replica_lag_seconds": 1, "replica_lag_mb": 1, "wal_mb_per_second": 1_000, "blocked_queries": 1}
    found = gauge(store, policy, **limits, autovacuum=True)
    assert [found.read(), found.read()] == [{}, {}]


def test_sessions_that_wait_for_a_lock(store: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """More waiting sessions than the limit are pressure, as many are not; a limit of 0 is not looked at."""
    fill(store, 1)
    with blocked(store, threads, 2, "SELECT FROM accounts FOR UPDATE"):
        assert gauge(store, policy, blocked_queries=2).read() == {}
        found = gauge(store, policy, blocked_queries=1).read()
        assert list(found) == [Pressure.BLOCKED_QUERIES]
        assert "2 sessions" in found[Pressure.BLOCKED_QUERIES]
        assert "limit is 1" in found[Pressure.BLOCKED_QUERIES]
        assert gauge(store, policy).read() == {}


def test_sessions_of_another_database_are_not_counted(
    store: Store, policy: Policy, server: Server, templates: dict[str, str], threads: ThreadPoolExecutor
) -> None:
    """What waits in another database of the server has nothing to do with this store."""
    other = stores.copy(server, templates["uuid"], "elsewhere", "uuid")
    try:
        fill(other, 1)
        with blocked(other, threads, 2, "SELECT FROM accounts FOR UPDATE"):
            assert gauge(store, policy, blocked_queries=1).read() == {}
    finally:
        other.close()
        stores.drop(server, "elsewhere")


def test_sessions_that_queue_for_an_advisory_lock_are_not_counted(
    store: Store, policy: Policy, threads: ThreadPoolExecutor
) -> None:
    """Workers that queue for an advisory lock, as some do all their life, wait for one another and never for a sweep."""
    with blocked(store, threads, 2, "SELECT pg_advisory_xact_lock(5)"):
        assert gauge(store, policy, blocked_queries=1).read() == {}


@pytest.mark.parametrize("table", ["conversations", "messages", "attachments"])
def test_vacuum_of_a_purged_table(store: Store, policy: Policy, table: str) -> None:
    """A VACUUM of a table that is purged from is pressure where the setting says so, and not otherwise."""
    with vacuum(store, table):
        assert list(gauge(store, policy, autovacuum=True).read()) == [Pressure.AUTOVACUUM]
        assert gauge(store, policy).read() == {}
    assert gauge(store, policy, autovacuum=True).read() == {}


def test_vacuum_of_another_table(store: Store, policy: Policy) -> None:
    """A VACUUM of a table that is not purged from is none of our business."""
    with vacuum(store, "consent_events"):
        assert gauge(store, policy, autovacuum=True).read() == {}


def test_wal_between_two_looks(store: Store, policy: Policy) -> None:
    """WAL that others write between two looks is a rate; the first look knows of none."""
    found = gauge(store, policy, wal_mb_per_second=0.001)
    _write(store)
    assert found.read() == {}
    _write(store)
    said = found.read()
    assert list(said) == [Pressure.WAL_RATE]
    assert "MB of WAL a second" in said[Pressure.WAL_RATE]
    assert gauge(store, policy).read() == {}


def _write(store: Store) -> None:
    store.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 4000000))")


# What a run makes of it


def test_pause_shows_everywhere(store: Store, policy: Policy) -> None:
    """A run that waits says so in the log, to whoever watches and in its result, and goes on when it may."""
    fill(store, 3)
    told: list[str] = []
    with vacuum(store, "messages") as maintenance, capture_logs() as logged:

        def release(reason: str) -> None:
            told.append(reason)
            maintenance.execute("COMMIT")

        job = store.job(policy, AS_OF, guards=GUARDS, pace={"autovacuum": True, "look_seconds": 0.1})
        result = sweep(job, watch=ProgressListener(waits=release))
    assert (result.outcome, result.count, result.is_done) == ("completed", 3, True)
    assert told == ["a VACUUM is running on a table that is purged", ""]
    pauses = to_json(result)["pauses"]
    assert (list(pauses), pauses["autovacuum"]["count"]) == (["autovacuum"], 1)
    assert 0 < pauses["autovacuum"]["seconds"] < 10
    assert store.execute("SELECT result -> 'pauses' FROM sweeper.runs") == [(pauses,)]
    waits = [entry for entry in logged if entry["event"] in ("waits", "goes on")]
    assert [(entry["event"], entry.get("reason", entry.get("waited_for"))) for entry in waits] == [
        ("waits", "autovacuum"),
        ("goes on", "autovacuum"),
    ]


def test_pressure_that_lasts_stops_the_run(store: Store, tmp_path: Path) -> None:
    """A run that waits too long ends as stopped for that reason with exit code 1 and has purged nothing more."""
    ids = fill(store, 3)
    config = tmp_path / "sweeper.toml"
    config.write_text(
        "[guards]\nhistory = false\n[pace]\nautovacuum = true\nlook_seconds = 0.1\nlongest_pause_seconds = 0.3\n"
    )
    with vacuum(store, "messages"):
        done = in_process(store, "run", "--config", str(config))
    assert done.code == 1, done.err
    assert "stopped early" in done.out
    assert "VACUUM" in done.out
    assert "Traceback" not in done.err
    assert store.left() == set(ids)
    assert store.execute("SELECT outcome, result ->> 'stop_reason', result ->> 'stalled' FROM sweeper.runs") == [
        ("stopped", "autovacuum", "true")
    ]


def test_lease_lasts_through_a_pause(store: Store, policy: Policy) -> None:
    """A run that waits longer than its lease lasts keeps it, and nobody else takes it meanwhile."""
    fill(store, 2)
    with vacuum(store, "messages") as maintenance:

        def release() -> str:
            if maintenance.info.transaction_status is TransactionStatus.INTRANS and is_extended():
                maintenance.execute("COMMIT")
            return ""

        def is_extended() -> bool:
            """Whether the lease that the run took has been renewed beyond its first end."""
            return (
                store.execute(
                    "SELECT 1 FROM sweeper.lease l JOIN sweeper.runs r ON r.id = l.run_id "
                    "WHERE l.expires_at > r.started_at_really + interval '2.2 seconds'"
                )
                != []
            )

        store.execute("ALTER TABLE sweeper.runs ADD started_at_really timestamptz DEFAULT clock_timestamp()")
        pace = {"autovacuum": True, "look_seconds": 0.2}
        job = store.job(policy, AS_OF, guards=GUARDS, pace=pace, lease={"seconds": 1})
        result = sweep(replace(job, further_reason=release))
    assert (result.outcome, result.count) == ("completed", 2)
    assert store.execute("SELECT token FROM sweeper.lease") == [(1,)]
