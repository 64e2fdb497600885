"""Behind pgbouncer in transaction mode everything works as without it, and nothing of a session stays behind."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sweeper import embedded
from sweeper.manifest import lifecycle
from sweeper.policy.schema import Policy
from sweeper.postgres.migrate import HEAD
from sweeper.runs.sweep import sweep
from tests.acceptance import commands, test_kill
from tests.acceptance.test_kill import AS_OF, BATCH, DUE, KEPT, gate, running, waiting
from tests.manifest import test_lifecycle
from tests.processes import until
from tests.store import stores
from tests.store.stores import Store
from tests.store.test_races import is_waiting
from tests.store.test_sweep import CASES
from tests.system.conftest import clients
from tests.system.pooler import SERVERS, Pooler

pytestmark = pytest.mark.system
LEFT = {
    "prepared statement": "SELECT name FROM pg_prepared_statements",
    "cursor": "SELECT name FROM pg_cursors WHERE name <> ''",
    "channel": "SELECT pg_listening_channels()",
    "temporary table": "SELECT relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'",
    "advisory lock": "SELECT objid::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
}
"""What a session can keep beyond a transaction, besides its settings."""


def traces(store: Store, pooled: Store) -> set[str]:
    """What a plain client of the pool finds that it would not find on a connection of its own."""
    with psycopg.connect(store.program) as fresh, clients(pooled) as found:
        own = settings(fresh)
        changed = {name for client in found for name, *_ in settings(client) ^ own}
        kept = {f"{kind} {name}" for client in found for kind, sql in LEFT.items() for (name,) in client.execute(sql)}
    return changed | kept


def settings(client: psycopg.Connection[Any]) -> set[tuple[str, ...]]:
    """All settings of a session that are not the program's own defaults, with where each came from."""
    return set(client.execute("SELECT name, setting, source FROM pg_settings WHERE source <> 'default'"))


# That the setting of these tests is as hard as it should be


def test_one_client_meets_all_servers(pooled: Store) -> None:
    """Two successive transactions of one client run on two server connections."""
    with psycopg.connect(pooled.program, autocommit=True) as client:
        first, second = (client.execute("SELECT pg_backend_pid()").fetchone() for _ in range(2))
    assert first != second


def test_traces_are_seen(store: Store, pooled: Store) -> None:
    """Whatever a client leaves behind in a session, another client of the pool finds."""
    assert traces(store, pooled) == set()
    with psycopg.connect(pooled.program) as client:
        client.execute(
            "SET search_path = store; SET TimeZone = 'UTC'; SET statement_timeout = 0; SET row_security = off"
        )
        client.execute("PREPARE p AS SELECT 1; LISTEN l; DECLARE c CURSOR WITH HOLD FOR SELECT 1")
        client.execute("CREATE TEMPORARY TABLE t (); SELECT pg_advisory_lock(7)")
    changed = {"search_path", "statement_timeout", "row_security"}  # pgbouncer keeps time zones apart by itself
    assert traces(store, pooled) >= changed | {
        "prepared statement p",
        "cursor c",
        "channel l",
        "temporary table t",
        "advisory lock 7",
    }


# Sweeps


def test_cases_are_purged_as_expected(store: Store, pooled: Store, policy: Policy) -> None:
    """Of each worked case, exactly the conversations that it says are purged."""
    for case in CASES:
        store.wipe()
        store.load(case)
        expected = case["expect"]["conversations"]
        kept = {store.id(name) for name, wanted in expected.items() if not wanted["purge"]}
        sweep(pooled.job(policy, case["as_of"], guards={"history": False, "volume": False}))
        assert store.left() == kept, case["name"]
    assert traces(store, pooled) == set()


def test_run_of_several_batches(store: Store, pooled: Store, tmp_path: Path) -> None:
    """A run of several batches, with feedback and objects, leaves what it leaves without the pool, and no trace."""
    left = []
    for through in (store, pooled):
        store.wipe()
        test_kill.fill(store, tmp_path)
        assert test_kill.run_again(through, tmp_path)["purged"] == DUE - 1 > BATCH
        left.append(test_kill.state(store, tmp_path))
    assert left[0] == left[1]
    assert len(left[1]["objects"]) == KEPT + 1
    assert len(left[1]["tombstones"]) == DUE - 1 + 2
    assert traces(store, pooled) == set()


def test_second_run_is_refused(store: Store, pooled: Store, tmp_path: Path) -> None:
    """A run that begins while another one's batch is at work exits 4; the first goes on to its end."""
    test_kill.fill(store, tmp_path)
    with running(pooled, tmp_path) as first:
        with gate(store, "sweeper.tombstones", "INSERT", "true") as holder:
            waiting(first, holder)
            with running(pooled, tmp_path) as second:
                _, refusal = second.communicate(timeout=60)
        out, err = first.communicate(timeout=60)
    assert (second.returncode, first.returncode) == (4, 0), refusal + err
    assert json.loads(out)["purged"] == DUE - 1
    assert test_kill.outcomes(store) == [("completed", True)]
    assert traces(store, pooled) == set()


def test_hold_placed_during_a_batch(store: Store, pooled: Store, tmp_path: Path) -> None:
    """A hold placed while a batch is at work waits for that batch, and keeps its conversation from the next."""
    test_kill.fill(store, tmp_path)
    last = test_kill.key("c", DUE - 1)
    with running(pooled, tmp_path) as run, ThreadPoolExecutor() as threads:
        with gate(store, "sweeper.tombstones", "INSERT", "true") as holder:
            waiting(run, holder)
            placing = threads.submit(commands.process, pooled, "hold", "place", "CASE-1", "--conversation", last)
            until(is_waiting(store, "sweeper.legal_holds"))
        out, err = run.communicate(timeout=60)
    assert (run.returncode, placing.result().code) == (0, 0), err + placing.result().err
    found = json.loads(out)
    assert (found["purged"], found["spared_by_reason"]) == (DUE - 2, {"protected_after_as_of": 1})
    assert last in store.left()
    assert traces(store, pooled) | traces(store.acting("officer"), pooled.acting("officer")) == set()


# The other commands


def test_explain_and_check(store: Store, pooled: Store, tmp_path: Path) -> None:
    """`explain --all` and `check` say what they say without the pool."""
    test_kill.fill(store, tmp_path)
    explain = ("explain", "--all", "--json", "--as-of", AS_OF)
    for words in (explain, ("check", "--json")):
        plain, through = (commands.process(reached, *words) for reached in (store, pooled))
        assert (through.code, through.out) == (0, plain.out), through.err
        assert through.out
    assert traces(store, pooled) == set()


@pytest.fixture
def empty(server: embedded.Server, pooler: Pooler) -> Iterator[tuple[Store, Store]]:
    """A new database with nothing in it, and the same through the pool."""
    name = "pooled_empty"
    with stores.administered(server) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield Store(server.url(name), "uuid"), Store(pooler.url(name, "postgres"), "uuid")
    stores.drop(server, name)


def migrated(pooled: Store) -> str | None:
    """The revision that `migrate` found, once it has brought the tables to the newest."""
    done = commands.process(pooled, "migrate", "--json")
    assert done.code == 0, done.err
    found: dict[str, str | None] = json.loads(done.out)
    assert found["after"] == HEAD
    return found["before"]


def test_migrate_by_two_at_once(empty: tuple[Store, Store]) -> None:
    """Of two `migrate` that have all server connections, one makes the sweeper's tables and the other finds them."""
    store, pooled = empty
    waiters = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
    with psycopg.connect(store.libpq) as holder, ThreadPoolExecutor() as threads:
        holder.execute("SELECT pg_advisory_xact_lock(5857584, 2)")
        both = [threads.submit(migrated, pooled) for _ in range(SERVERS)]
        with store.connect() as watcher:
            until(lambda: watcher.execute(waiters).fetchone() == (SERVERS,))
        holder.commit()
        assert Counter(one.result() for one in both) == Counter((None, HEAD))
    assert traces(store, pooled) == set()


def test_manifest(store: Store, pooled: Store, policy: Policy, tmp_path: Path) -> None:
    """A manifest is built, verified, started and, after a withdrawal, recalled as without the pool."""
    test_lifecycle.world(store)
    store.grant_text()
    at = test_lifecycle.job(pooled, policy)
    frozen = lifecycle.freeze(at, tmp_path / "manifest", test_lifecycle.KEY, with_text=True)
    assert frozen.description.eligible == 2 * test_lifecycle.CHATS
    assert lifecycle.verify(at, frozen.folder, test_lifecycle.KEY).ineligible == Counter()
    assert lifecycle.start(at, frozen.description.id)[1] == Counter()
    test_lifecycle.withdraw(store, "a1", test_lifecycle.NOW)
    (recalled,) = lifecycle.recall(test_lifecycle.job(pooled, policy, test_lifecycle.LATER), None)
    assert recalled.reasons.total() == test_lifecycle.CHATS
    assert traces(store, pooled) == set()
