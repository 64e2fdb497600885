"""Killed anywhere and run again is run once: real processes, held at a point by the database and then killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sweeper.clock import Clock
from sweeper.policy.schema import Policy
from sweeper.runs.sweep import sweep
from tests.processes import started, until
from tests.store.stores import POLICY, RELATIONS, Store

AS_OF = "2025-12-31T00:00:00Z"
DUE = 7
KEPT = 3
BATCH = 3
GATE = 20_251_231
"""The advisory lock that the held process waits for."""
SETTINGS = f"""
[database]
lock_timeout_ms = 60000
[policy]
file = "{POLICY}"
[purge]
batch = {BATCH}
[lease]
seconds = 1.0
[guards]
history = false
"""
WAITING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
    "AND wait_event = 'advisory'"
)


def key(kind: str, number: int) -> str:
    """The id of a record."""
    return f"{kind}0000000-0000-4000-8000-{number:012d}"


def fill(store: Store, folder: Path) -> None:
    """Conversations that are due, some that are not, one under hold, each with messages and an object; due feedback."""
    account = key("a", 1)
    with store.connect() as connection, connection.transaction():
        connection.execute("INSERT INTO accounts (id, created_at) VALUES (%s, '2019-01-01Z')", [account])
        connection.execute(
            "INSERT INTO plan_changes (id, account_id, effective_at, plan) VALUES (1, %s, '-infinity', 'free')",
            [account],
        )
        for number in range(1, DUE + KEPT + 1):
            thing = folder / f"{number}.txt"
            thing.write_text("secret words")
            _converse(connection, number, account, thing.as_uri())
        connection.execute(
            "INSERT INTO sweeper.legal_holds (matter, conversation_id, placed_at) VALUES ('case', %s, '2025-11-02Z')",
            [key("c", DUE)],
        )


def _converse(connection: psycopg.Connection[Any], number: int, account: str, uri: str) -> None:
    conversation, last = key("c", number), "2025-11-01Z" if number <= DUE else "2025-12-30Z"
    connection.execute(
        "INSERT INTO conversations (id, account_id, kind, platform, incognito, zero_retention, created_at, last_activity_at)"
        " VALUES (%s, %s, 'chat', 'first_party', false, false, '2025-10-01Z', %s)",
        [conversation, account, last],
    )
    for message in range(2):
        connection.execute(
            "INSERT INTO messages (id, conversation_id, author, created_at, body) VALUES (%s, %s, 'user', %s, %s)",
            [key("d", number * 10 + message), conversation, last, "secret words"],
        )
    connection.execute(
        "INSERT INTO attachments (id, conversation_id, uri) VALUES (%s, %s, %s)", [key("e", number), conversation, uri]
    )
    connection.execute(
        "INSERT INTO feedback (id, account_id, conversation_id, kind, submitted_at) VALUES (%s, %s, %s, 'thumbs', %s)",
        [key("f", number), account, conversation, "2015-06-01Z" if number <= 2 else "2025-06-01Z"],
    )


def state(store: Store, folder: Path) -> dict[str, Any]:
    """All there is when everything has ended, but for what names a run or the time of day."""
    found: dict[str, Any] = {
        table: store.execute(f"SELECT to_jsonb(t) FROM store.{table} t ORDER BY to_jsonb(t)::text")
        for table in RELATIONS
    }
    found["tombstones"] = store.execute(
        "SELECT to_jsonb(t) - 'id' - 'run_id' - 'purged_at' FROM sweeper.tombstones t ORDER BY record_id"
    )
    found["object_purges"] = store.execute(
        "SELECT uri, conversation_id, outcome IN ('removed', 'absent') FROM sweeper.object_purges ORDER BY uri"
    )
    found["objects"] = sorted(path.name for path in folder.iterdir())
    return found


@pytest.fixture
def once(store: Store, policy: Policy, tmp_path: Path) -> dict[str, Any]:
    """What one uninterrupted run leaves; the store is filled again afterwards."""
    fill(store, tmp_path)
    done = sweep(
        store.job(
            policy,
            AS_OF,
            Clock(),
            guards={"history": False},
            purge={"batch": BATCH},
            objects={"prefixes": [tmp_path.as_uri()]},
        )
    )
    assert done.as_json()["purged"] == DUE - 1
    left = state(store, tmp_path)
    assert len(left["conversations"]) == KEPT + 1
    assert len(left["tombstones"]) == DUE - 1 + 2
    assert len(left["objects"]) == KEPT + 1
    store.wipe()
    fill(store, tmp_path)
    # a held batch must not run into its own time bound, which follows this setting
    store.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''120s''', current_database()); END $$"
    )
    return left


@contextmanager
def gate(store: Store, table: str, event: str, condition: str) -> Iterator[psycopg.Connection[Any]]:
    """Whoever does this to the table, where the condition holds, waits until the connection is closed."""
    store.execute(
        f"CREATE OR REPLACE FUNCTION public.gate() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN "
        f"IF {condition} THEN PERFORM pg_advisory_xact_lock_shared({GATE}); END IF; "
        "RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$"
    )
    store.execute(f"CREATE TRIGGER gate AFTER {event} ON {table} FOR EACH ROW EXECUTE FUNCTION public.gate()")
    with store.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [GATE])
        yield holder
    store.execute(f"DROP TRIGGER gate ON {table}")


@contextmanager
def running(store: Store, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep in a process of its own."""
    config = folder.with_name("sweeper.toml")
    config.write_text(f"{SETTINGS}[objects]\nprefixes = ['{folder.as_uri()}']\n")
    command = [sys.executable, "-m", "sweeper.cli", "run", "--json", "--as-of", AS_OF, "--config", str(config)]
    with started(command, env={**os.environ, "SWEEPER_DATABASE_URL": store.url}) as process:
        yield process


def waiting(process: subprocess.Popen[str], holder: psycopg.Connection[Any]) -> int:
    """The server process of a sweep, once that waits at the gate."""
    until(lambda: holder.execute(WAITING).fetchone() is not None, process)
    found = holder.execute(WAITING).fetchone()
    assert found
    pid: int = found[0]
    return pid


def killed(store: Store, folder: Path, table: str, event: str, condition: str) -> None:
    """A sweep is killed while it waits at the gate, and its server process has noticed."""
    with running(store, folder) as process, store.connect() as watcher:
        with gate(store, table, event, condition) as holder:
            pid = waiting(process, holder)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
        until(lambda: watcher.execute(gone, [pid]).fetchone() == (True,), process)


def outcomes(store: Store) -> list[tuple[Any, ...]]:
    """How each run ended, in order."""
    return store.execute("SELECT outcome, finished_at IS NOT NULL FROM sweeper.runs ORDER BY id")


def run_again(store: Store, folder: Path) -> dict[str, Any]:
    """The result of one more run, to its end."""
    with running(store, folder) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def each_once(store: Store) -> bool:
    """Whether every purged record has exactly one tombstone, and nothing that is there has one."""
    stones = [row[0] for row in store.execute("SELECT record_id FROM sweeper.tombstones")]
    return len(stones) == len(set(stones)) and store.left().isdisjoint(stones)


KILLS = {
    "in a batch": ("sweeper.tombstones", "INSERT", f"(SELECT count(*) FROM sweeper.tombstones) > {BATCH}", BATCH),
    "in the DELETE of a batch": ("store.messages", "DELETE", "true", 0),
    "between two batches": ("sweeper.lease", "UPDATE", "EXISTS (SELECT FROM sweeper.tombstones)", BATCH),
    "while objects are removed": ("sweeper.object_purges", "UPDATE", "true", DUE - 1 + 2),
    "before it is closed": ("sweeper.runs", "UPDATE", "NEW.outcome = 'completed'", DUE - 1 + 2),
}


@pytest.mark.parametrize("moment", KILLS)
def test_killed_and_run_again(moment: str, once: dict[str, Any], store: Store, tmp_path: Path) -> None:
    """Killed at any moment, a run leaves what it committed; the next one makes it the same as one uninterrupted run."""
    table, event, condition, committed = KILLS[moment]
    killed(store, tmp_path, table, event, condition)
    assert store.execute("SELECT count(*) FROM sweeper.tombstones") == [(committed,)]
    assert outcomes(store) == [(None, False)]
    assert each_once(store)
    again = run_again(store, tmp_path)
    assert state(store, tmp_path) == once
    assert outcomes(store) == [("interrupted", True), ("completed", True)]
    assert each_once(store)
    assert again["purged"] == DUE - 1 - min(committed, DUE - 1)
    assert again["objects_pending"] == 0
    assert store.execute(
        "SELECT kind, run_id = (SELECT min(id) FROM sweeper.runs) FROM sweeper.events WHERE kind = %s",
        "run_interrupted",
    ) == [("run_interrupted", True)]


def test_asked_to_stop(once: dict[str, Any], store: Store, tmp_path: Path) -> None:
    """Asked to stop in a batch, a run finishes that batch, says that it stopped, and exits 1; the next does the rest."""
    with running(store, tmp_path) as process:
        with gate(store, "sweeper.tombstones", "INSERT", "true") as holder:
            waiting(process, holder)
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert process.returncode == 1, err
    found = json.loads(out)
    assert (found["outcome"], found["purged"]) == ("stopped", BATCH)
    assert "Traceback" not in err
    assert store.execute("SELECT count(*) FROM sweeper.tombstones") == [(BATCH,)]
    assert run_again(store, tmp_path)["purged"] == DUE - 1 - BATCH
    assert state(store, tmp_path) == once
    assert outcomes(store) == [("stopped", True), ("completed", True)]
    assert each_once(store)
