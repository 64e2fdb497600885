"""The ledger: who gets which leaf number, what a checkpoint covers, and that no tampering goes unnoticed."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import psycopg
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ed25519
from sqlalchemy import Connection

from sweeper import embedded
from sweeper.clock import Clock
from sweeper.evidence import checkpoint as checkpoints
from sweeper.evidence import ledger, merkle, receipt, verify
from sweeper.evidence import note as notes
from sweeper.evidence.checkpoint import LedgerError, take
from sweeper.evidence.keys import Signer
from sweeper.evidence.ledger import Checkpoint
from sweeper.evidence.merkle import WIDTH, leaf_hash
from sweeper.evidence.verify import KeptCheckpoint, VerifyReport
from sweeper.evidence.walk import LedgerFaultKind
from tests.processes import until
from tests.store import stores
from tests.store.stores import Store
from tests.store.test_races import Killed, is_waiting, once_before

SIGNER, OTHER = (Signer(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([n] * 32))) for n in (1, 2))
TOMBSTONES = """
    INSERT INTO sweeper.tombstones (record, record_id, rule, due_at, as_of, run_id, policy_digest, children, approved, purged_at)
    SELECT 'conversation', 'c' || n, 'standard', '2026-01-01Z', '2026-01-02Z', (SELECT max(id) FROM sweeper.runs), 'p', '{}',
           false, '2026-01-02 03:04:05.6Z'
    FROM generate_series(1, %s) n
"""


def bury(store: Store, count: int) -> None:
    """Put tombstones of conversations c1, c2, … into the store."""
    store.execute(
        "INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, started_at) "
        "SELECT 'store', '2026-01-02Z', 'p', 'p', count(*), '2026-01-02Z' FROM sweeper.runs"
    )
    store.execute(TOMBSTONES, count)


def happen(store: Store, *kinds: str) -> None:
    """Record events."""
    for kind in kinds:
        store.execute("INSERT INTO sweeper.events (kind, details) VALUES (%s, '{\"n\": 1}')", kind)


def taken(store: Store, signer: Signer | None = SIGNER) -> Checkpoint | None:
    """A checkpoint of the store, if there is anything new."""
    return take(store.database(), Clock(), signer)


def verified(store: Store, *kept: str, keys: tuple[Signer, ...] = (SIGNER,)) -> VerifyReport:
    """What verification says."""
    return verify.verify_tree(
        store.database(), [KeptCheckpoint("kept", notes.parse(text)) for text in kept], [key.verifier for key in keys]
    )


def places(store: Store) -> dict[tuple[str, int], int]:
    """The leaf number of each row; none has two."""
    rows = store.execute(
        "SELECT source, first_id + n, first + n FROM sweeper.leaves, generate_series(0, length - 1) n ORDER BY first + n"
    )
    assert [row[2] for row in rows] == list(range(len(rows)))
    assert len({row[:2] for row in rows}) == len(rows)
    return {(source, id_): number for source, id_, number in rows}


def expected_root(store: Store) -> bytes:
    """The root over all numbered rows, made without the program's own reading."""
    told = {
        (source, row[0]): {**row[1], "source": source}
        for source, at in (("tombstones", ("due_at", "as_of", "purged_at")), ("events", ("at",)))
        for row in store.execute(
            f"SELECT id, to_jsonb(t) || jsonb_build_object({', '.join(map(utc, at))}) FROM sweeper.{source} t"
        )
    }
    return merkle.root(leaf_hash(rfc8785.dumps(told[row])) for row in places(store))


def utc(column: str) -> str:
    """A column's name and its instant as RFC 3339, as PostgreSQL formats it."""
    whole = f"to_char({column}, 'YYYY-MM-DD\"T\"HH24:MI:SS')"
    fraction = f"CASE WHEN extract(microseconds FROM {column})::bigint % 1000000 <> 0 THEN to_char({column}, '.US') ELSE '' END"
    return f"'{column}', {whole} || {fraction} || 'Z'"


# Who gets which number


def test_every_row_becomes_a_leaf(store: Store) -> None:
    """All tombstones and events are leaves, and the root is that of their canonical bytes."""
    bury(store, 300)
    happen(store, "a", "b")
    found = taken(store)
    assert found is not None
    assert (found.size, found.root) == (302, expected_root(store))
    assert Counter(source for source, _ in places(store)) == {"tombstones": 300, "events": 2}
    assert taken(store) is None
    assert verified(store).fault is None


def test_commit_order_is_not_id_order(store: Store) -> None:
    """A row that commits after a checkpoint, with a smaller id than rows under it, is a leaf of the next one."""
    with store.connect() as first, store.connect() as second, first.transaction():
        first.execute("INSERT INTO sweeper.events (kind) VALUES ('early')")
        with second.transaction():
            second.execute("INSERT INTO sweeper.events (kind) VALUES ('undone')")
            happen(store, "late")
            one = taken(store)
            raise psycopg.Rollback
        assert one is not None
        assert places(store) == {("events", 3): 0}
        assert verified(store).not_covered == {"tombstones": 0, "events": 0}
    assert verified(store).not_covered == {"tombstones": 0, "events": 1}
    happen(store, "later")
    two = taken(store)
    assert places(store) == {("events", 3): 0, ("events", 1): 1, ("events", 4): 2}
    report = verified(store, one.note, two.note if two else "")
    assert (report.fault, report.verified, report.kept_checkpoints) == (None, 3, 2)
    assert store.execute("SELECT unnumbered::text FROM sweeper.ledger_sources WHERE source = 'events'") == [
        ("{(,1),[2,3),[5,)}",)
    ]


def test_many_open_transactions(store: Store) -> None:
    """However transactions interleave with checkpoints, each committed row gets one number, and nothing else gets any."""
    with store.connect() as a, store.connect() as b, store.connect() as c:
        for round_ in range(6):
            for number, connection in enumerate((a, b, c)):
                if (round_ + number) % 3 == 0:
                    connection.execute("BEGIN")
                connection.execute("INSERT INTO sweeper.events (kind) VALUES ('x')")
                if (round_ + number) % 3 == 2:
                    connection.execute("ROLLBACK" if number == 1 else "COMMIT")
            taken(store)
        for connection in (a, b, c):
            connection.execute("COMMIT")
    taken(store)
    assert {id_ for _, id_ in places(store)} == {row[0] for row in store.execute("SELECT id FROM sweeper.events")}
    assert verified(store).fault is None


def test_ids_at_the_ends_of_bigint(store: Store) -> None:
    """Rows with ids that no identity gives, negative ones and the largest there is, are leaves like others."""
    happen(store, "a")
    for id_ in (-(2**63), -5, 0, 2**63 - 1):
        store.execute("INSERT INTO sweeper.events (id, kind) OVERRIDING SYSTEM VALUE VALUES (%s, 'x')", id_)
    taken(store)
    happen(store, "b")
    taken(store)
    assert [id_ for _, id_ in places(store)] == [-(2**63), -5, 0, 1, 2**63 - 1, 2]
    assert verified(store).fault is None


ODD_DETAILS = (
    '{"a": 1e400, "b": 0.1, "c": 12345678901234567890, "d": ' + "7" * 6000 + "}",
    "[" * 2000 + "]" * 2000,
    json.dumps({"\U0001f600": 1, "\ufb01": 2, "\n\u2028\x7f": "\b\x1f"}),
    '"text"',
    "null",
)


def test_whatever_a_person_writes(store: Store) -> None:
    """No row that PostgreSQL accepts stops a checkpoint: strange JSON, strange text, instants that no calendar holds."""
    for details in ODD_DETAILS:
        store.execute("INSERT INTO sweeper.events (kind, details) VALUES (%s, %s)", "\x01\u2028é\U0001f600", details)
    for at in ("infinity", "-infinity", "0044-03-15 BC", "12026-01-01Z", "0001-01-01 00:00:00.000001Z"):
        store.execute("INSERT INTO sweeper.events (kind, at) VALUES ('at', %s::timestamptz)", at)
    found = taken(store)
    assert found is not None
    assert found.size == 10
    assert verified(store).fault is None


def test_the_servers_formats_do_not_matter(store: Store) -> None:
    """Neither time zone, date style nor byte output of the database changes a leaf."""
    bury(store, 3)
    name = store.execute("SELECT current_database()")[0][0]
    for setting in ("timezone = 'Asia/Kathmandu'", "datestyle = 'SQL, DMY'", "bytea_output = 'escape'"):
        store.execute(f"ALTER DATABASE {name} SET {setting}")
    found = taken(store)
    assert found is not None
    assert found.root == expected_root(store)


# Interrupted, and at the same time


def test_two_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two who take checkpoints at once share the work: each row gets one number, and every checkpoint fits."""
    monkeypatch.setattr(checkpoints, "PAGE", 16)
    bury(store, 300)
    together = Barrier(2)

    def go(_: int) -> None:
        together.wait()
        take(store.database(), Clock(), SIGNER)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(go, range(2)))
    assert len(places(store)) == 300
    assert verified(store).fault is None


def test_nobody_waits_for_a_checkpoint(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While leaf numbers are given, evidence is written without waiting; only another checkpoint waits."""
    bury(store, 3)

    def meanwhile(_: Connection) -> None:
        with store.connect(options="-c lock_timeout=1s") as connection:
            connection.execute("INSERT INTO sweeper.events (kind) VALUES ('meanwhile')")
            connection.execute(TOMBSTONES, [2])
        waiting.append(pool.submit(taken, store))
        until(is_waiting(store, "FOR UPDATE"))

    waiting: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        once_before(monkeypatch, ledger, "number", meanwhile)
        taken(store)
        waiting[0].result()
    taken(store)
    assert len(places(store)) == 6
    assert verified(store).fault is None


STEPS = ("unnumbered", "rows", "keep", "number", "record")


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere(step: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any step and done again is done once, and the tree is the same as without."""
    monkeypatch.setattr(checkpoints, "PAGE", 100)
    bury(store, 250)
    happen(store, "a")

    def kill(_: Connection) -> None:
        raise Killed

    once_before(monkeypatch, ledger, step, kill)
    with pytest.raises(Killed):
        taken(store)
    found = taken(store)
    assert found is not None
    assert (found.size, found.root) == (251, expected_root(store))
    assert verified(store).fault is None


def test_killed_between_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was numbered before a kill stays, is verified, is under no checkpoint yet, and is gone on from."""
    monkeypatch.setattr(checkpoints, "PAGE", 100)
    bury(store, 250)
    renewed = []

    def renew() -> None:
        renewed.append(1)
        if len(renewed) == 2:
            raise Killed

    with pytest.raises(Killed):
        take(store.database(), Clock(), None, renew)
    assert len(places(store)) == 200
    report = verified(store, keys=())
    assert (report.fault, report.verified, report.under_a_checkpoint) == (None, 200, 0)
    assert report.not_covered == {"tombstones": 50, "events": 0}
    found = taken(store)
    assert found is not None
    assert (found.size, found.root) == (250, expected_root(store))


# Checkpoints


def test_nothing_new(store: Store) -> None:
    """No evidence is no checkpoint; the same evidence is a second one only for a key that has not signed it."""
    assert taken(store) is None
    happen(store, "a")
    found = [taken(store, signer) for signer in (None, None, SIGNER, None, SIGNER, OTHER, SIGNER)]
    assert [each is not None for each in found] == [True, False, True, False, False, True, True]
    assert store.execute("SELECT count(*), count(signed_by), count(DISTINCT root) FROM sweeper.checkpoints") == [
        (4, 3, 1)
    ]


def test_origin(store: Store) -> None:
    """The log's name is that of the settings, else one that no other database has."""
    happen(store, "a")
    first = taken(store)
    named = take(store.database(store.settings(evidence={"origin": "example.org/log"})), Clock(), SIGNER)
    identity = store.execute("SELECT id::text FROM sweeper.identity")[0][0]
    assert first is not None
    assert named is not None
    assert [notes.parse(each.note).tree.origin for each in (first, named)] == [f"sweeper/{identity}", "example.org/log"]
    assert verified(store).fault is None


@pytest.mark.parametrize("table", ["leaves", "tiles", "checkpoints"])
def test_ledger_is_insert_only(table: str, store: Store) -> None:
    """Leaf numbers, nodes and checkpoints refuse UPDATE, DELETE and TRUNCATE, even of a superuser."""
    happen(store, "a")
    taken(store)
    for change in (f"DELETE FROM sweeper.{table}", f"TRUNCATE sweeper.{table}"):
        with pytest.raises(psycopg.errors.RaiseException, match="insert-only"):
            store.execute(change)
    column = {"leaves": "length", "tiles": "level", "checkpoints": "size"}[table]
    with pytest.raises(psycopg.errors.RaiseException, match="insert-only"):
        store.execute(f"UPDATE sweeper.{table} SET {column} = {column} + 1")


# Tampering, by a superuser who switches the triggers off


@contextmanager
def tampering(store: Store) -> Iterator[Callable[..., Any]]:
    """Statements that no trigger sees, not even one that always fires."""
    always = store.execute("SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE tgenabled = 'A'")
    with store.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        for table, trigger in always:
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}")
        yield connection.execute
        for table, trigger in always:
            connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")


def evidence(store: Store) -> tuple[Checkpoint, Checkpoint]:
    """A store with 600 tombstones and 4 events under two checkpoints, which are returned."""
    bury(store, 500)
    happen(store, "a", "b", "c")
    first = taken(store)
    bury(store, 100)
    happen(store, "d")
    second = taken(store)
    assert first is not None
    assert second is not None
    return first, second


SAVED = ("checkpoints", "tiles", "leaves", "ledger_sources", "events", "tombstones")


def save(store: Store, tables: Sequence[str]) -> None:
    """Copy tables of schema sweeper to schema saved."""
    store.execute("CREATE SCHEMA saved")
    for table in tables:
        store.execute(f"CREATE TABLE saved.{table} AS TABLE sweeper.{table}")


def restore(store: Store, tables: Sequence[str]) -> None:
    """Make the tables what they were when they were saved."""
    with tampering(store) as execute:
        for table in tables:
            execute(f"DELETE FROM sweeper.{table}")
            execute(f"INSERT INTO sweeper.{table} OVERRIDING SYSTEM VALUE TABLE saved.{table}")


@pytest.fixture(scope="module")
def witnessed(server: embedded.Server, templates: dict[str, str]) -> Iterator[Store]:
    """A database with evidence under two checkpoints, which fits, and a copy of its tables."""
    opened = stores.copy(server, templates["uuid"], "witnessed", "uuid")
    evidence(opened)
    assert verified(opened).fault is None
    save(opened, SAVED)
    yield opened
    opened.close()
    stores.drop(server, "witnessed")


@pytest.fixture
def ledgered(witnessed: Store) -> Iterator[Store]:
    """The database with evidence, to be tampered with; afterwards its tables are as they were."""
    yield witnessed
    restore(witnessed, SAVED)


TAMPERED: dict[str, tuple[str, LedgerFaultKind, dict[str, Any], str]] = {
    "a row changed": (
        "UPDATE sweeper.tombstones SET rule = 'standarc' WHERE id = 300",
        LedgerFaultKind.CHANGED,
        {"source": "tombstones", "id": 300, "leaf": 299},
        "sweeper.tombstones 300 (leaf 299) was changed",
    ),
    "an instant changed": (
        "UPDATE sweeper.tombstones SET purged_at = purged_at + interval '1 microsecond' WHERE id = 1",
        LedgerFaultKind.CHANGED,
        {"source": "tombstones", "id": 1, "leaf": 0},
        "was changed",
    ),
    "a detail changed": (
        "UPDATE sweeper.events SET details = '{\"n\": 2}' WHERE kind = 'c'",
        LedgerFaultKind.CHANGED,
        {"source": "events", "id": 3, "leaf": 502},
        "sweeper.events 3 (leaf 502) was changed",
    ),
    "two rows changed": (
        "UPDATE sweeper.tombstones SET account_id = 'x' WHERE id IN (590, 20)",
        LedgerFaultKind.CHANGED,
        {"id": 20},
        "was changed",
    ),
    "two rows swapped": (
        "UPDATE sweeper.tombstones t SET record_id = o.record_id FROM sweeper.tombstones o "
        "WHERE (t.id, o.id) IN ((50, 60), (60, 50))",
        LedgerFaultKind.CHANGED,
        {"id": 50, "leaf": 49},
        "was changed, or put in the place of another",
    ),
    "a row deleted": (
        "DELETE FROM sweeper.tombstones WHERE id = 258",
        LedgerFaultKind.MISSING,
        {"source": "tombstones", "id": 258, "leaf": 257},
        "sweeper.tombstones 258 (leaf 257) is missing",
    ),
    "a row changed before one deleted": (
        "WITH d AS (DELETE FROM sweeper.tombstones WHERE id = 258) UPDATE sweeper.tombstones SET rule = 'x' WHERE id = 257",
        LedgerFaultKind.CHANGED,
        {"id": 257, "leaf": 256},
        "was changed",
    ),
    "the newest row deleted": (
        "DELETE FROM sweeper.events WHERE kind = 'd'",
        LedgerFaultKind.MISSING,
        {"source": "events", "leaf": 603},
        "is missing",
    ),
    "a node changed": (
        "UPDATE sweeper.tiles SET hashes = set_byte(hashes, 33, get_byte(hashes, 33) # 1) WHERE level = 0 AND first = 256",
        LedgerFaultKind.TILE,
        {"source": "tombstones", "leaf": 257},
        "node 257 of level 0",
    ),
    "a node above changed": (
        "UPDATE sweeper.tiles SET hashes = set_byte(hashes, 0, get_byte(hashes, 0) # 1) WHERE level = 1 AND first = 0",
        LedgerFaultKind.TILE,
        {},
        "node 0 of level 1",
    ),
    "many nodes changed": (
        "UPDATE sweeper.tiles SET hashes = decode(repeat('ab', octet_length(hashes)), 'hex')",
        LedgerFaultKind.TILE,
        {"leaf": 0},
        "node 0 of level 0",
    ),
    "a part of a tile deleted": (
        "DELETE FROM sweeper.tiles WHERE level = 0 AND first = 503",
        LedgerFaultKind.TILE,
        {},
        "node 503",
    ),
    "a tile doubled": (
        "INSERT INTO sweeper.tiles SELECT 0, 3, substr(hashes, 1, 32) FROM sweeper.tiles WHERE level = 0 AND first = 0",
        LedgerFaultKind.TILE,
        {},
        "in sweeper.tiles",
    ),
    "a node beyond": (
        "INSERT INTO sweeper.tiles SELECT 0, 700, substr(hashes, 1, 32) FROM sweeper.tiles WHERE level = 0 AND first = 0",
        LedgerFaultKind.TILE,
        {},
        "node 700 of level 0 in sweeper.tiles belongs to no leaf",
    ),
    "leaf numbers deleted": (
        "DELETE FROM sweeper.leaves WHERE first = 500",
        LedgerFaultKind.NUMBERS,
        {"leaf": 500},
        "leaf 500 to 502: sweeper.leaves does not say which rows they are",
    ),
    "the newest leaf numbers deleted": (
        "DELETE FROM sweeper.leaves WHERE first = 603",
        LedgerFaultKind.CHECKPOINT,
        {},
        "603 leaves are numbered",
    ),
    "leaf numbers moved": (
        "UPDATE sweeper.leaves SET first_id = first_id + 1 WHERE first = 503",
        LedgerFaultKind.CHANGED,
        {"id": 502, "leaf": 503},
        "it is not the row that became this leaf",
    ),
    "leaf numbers of another table": (
        "UPDATE sweeper.leaves SET source = 'runs' WHERE first = 500",
        LedgerFaultKind.NUMBERS,
        {"leaf": 500},
        "a row of runs, which holds no evidence",
    ),
    "leaf numbers of a row that never was": (
        "INSERT INTO sweeper.leaves VALUES (604, 'events', 5, 1)",
        LedgerFaultKind.MISSING,
        {"leaf": 604},
        "or sweeper.leaves was altered to name it",
    ),
    "leaf numbers made fewer": (
        "UPDATE sweeper.leaves SET length = length - 1 WHERE first = 0",
        LedgerFaultKind.NUMBERS,
        {"leaf": 499},
        "leaf 499 to 499",
    ),
    "leaf numbers made more": (
        "UPDATE sweeper.leaves SET length = length + 1 WHERE first = 0",
        LedgerFaultKind.CHANGED,
        {"source": "tombstones", "id": 501, "leaf": 500},
        "it is not the row that became this leaf",
    ),
    "a leaf number given twice": (
        "INSERT INTO sweeper.leaves VALUES (100, 'events', 77, 1)",
        LedgerFaultKind.NUMBERS,
        {"leaf": 100},
        "leaf 100: sweeper.leaves says twice which row it is",
    ),
    "a row hidden from the sequencer": (
        "INSERT INTO sweeper.events (id, kind) OVERRIDING SYSTEM VALUE VALUES (999, 'x');"
        "UPDATE sweeper.ledger_sources SET unnumbered = unnumbered - '{[999,1000)}' WHERE source = 'events'",
        LedgerFaultKind.FORGOTTEN,
        {"source": "events", "id": 999},
        "ids of sweeper.events from 999 on would never get a leaf number",
    ),
    "a row to be numbered again": (
        "UPDATE sweeper.ledger_sources SET unnumbered = unnumbered + '{[7,8)}' WHERE source = 'tombstones'",
        LedgerFaultKind.FORGOTTEN,
        {"source": "tombstones", "id": 7},
        "would get a second leaf number",
    ),
    "no list of a table's rows without a number": (
        "DELETE FROM sweeper.ledger_sources WHERE source = 'events'",
        LedgerFaultKind.FORGOTTEN,
        {"source": "events"},
        "ids of sweeper.events from the smallest on would never get a leaf number",
    ),
    "a list emptied": (
        "UPDATE sweeper.ledger_sources SET unnumbered = '{}' WHERE source = 'tombstones'",
        LedgerFaultKind.FORGOTTEN,
        {"source": "tombstones", "id": None},
        "from the smallest on would never",
    ),
    "another signer named": (
        "UPDATE sweeper.checkpoints SET signed_by = 'cafe0123' WHERE id = 2",
        LedgerFaultKind.CHECKPOINT,
        {},
        "checkpoint 2 of 604 leaves: its note differs from its row",
    ),
    "a root changed": (
        "UPDATE sweeper.checkpoints SET root = set_byte(root, 0, get_byte(root, 0) # 1) WHERE id = 1",
        LedgerFaultKind.CHECKPOINT,
        {},
        "checkpoint 1 of 503 leaves: its note differs from its row",
    ),
    "a note broken": (
        "UPDATE sweeper.checkpoints SET note = 'x'",
        LedgerFaultKind.CHECKPOINT,
        {},
        "its note is no checkpoint",
    ),
    "a signature taken away": (
        "UPDATE sweeper.checkpoints SET note = split_part(note, E'\\n\\n', 1) || E'\\n', signed_by = NULL WHERE id = 2",
        LedgerFaultKind.SIGNATURE,
        {},
        "checkpoint 2 of 604 leaves, the newest, is not signed by a key that was given",
    ),
    "a signature changed": (
        "UPDATE sweeper.checkpoints SET note = overlay(note PLACING CASE WHEN substr(note, length(note) - 9, 1) = 'A' THEN 'B' "
        "ELSE 'A' END FROM length(note) - 9) WHERE id = 1",
        LedgerFaultKind.SIGNATURE,
        {},
        "checkpoint 1 of 503 leaves: the signature of",
    ),
    "all checkpoints deleted": (
        "DELETE FROM sweeper.checkpoints",
        LedgerFaultKind.SIGNATURE,
        {},
        "there is no checkpoint",
    ),
    "checkpoints out of order": (
        "INSERT INTO sweeper.checkpoints (size, root, note, signed_by, taken_at) "
        "SELECT size, root, note, signed_by, taken_at FROM sweeper.checkpoints WHERE id = 1",
        LedgerFaultKind.CHECKPOINT,
        {},
        "of 503 leaves follows one of 604 leaves",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_named(name: str, ledgered: Store) -> None:
    """Whatever is changed by one who may change everything, the first thing that does not fit is named."""
    statement, kind, where, said = TAMPERED[name]
    with tampering(ledgered) as execute:
        execute(statement)
    fault = verified(ledgered).fault
    assert fault is not None
    assert fault.kind == kind, fault
    assert said in fault.text
    assert {key: getattr(fault, key) for key in where} == where


SCHEMA_TAMPERED: dict[str, tuple[list[str], LedgerFaultKind, str]] = {
    "a second row under one id": (
        [
            "ALTER TABLE sweeper.tombstones DROP CONSTRAINT tombstones_pkey",
            "INSERT INTO sweeper.tombstones OVERRIDING SYSTEM VALUE SELECT * FROM sweeper.tombstones WHERE id = 7",
        ],
        LedgerFaultKind.TWICE,
        "sweeper.tombstones 7 (leaf 6) is there 2 times",
    ),
    "an inherited row under one id": (
        [
            "CREATE TABLE sweeper.more () INHERITS (sweeper.events)",
            "INSERT INTO sweeper.more SELECT * FROM sweeper.events WHERE id = 2",
        ],
        LedgerFaultKind.TWICE,
        "sweeper.events 2 (leaf 501) is there 2 times",
    ),
    "no details": (
        [
            "ALTER TABLE sweeper.events ALTER details DROP NOT NULL",
            "UPDATE sweeper.events SET details = NULL WHERE id = 3",
        ],
        LedgerFaultKind.CHANGED,
        "sweeper.events 3 (leaf 502) was changed",
    ),
    "no instant": (
        [
            "ALTER TABLE sweeper.tombstones ALTER due_at DROP NOT NULL",
            "UPDATE sweeper.tombstones SET due_at = NULL WHERE id = 9",
        ],
        LedgerFaultKind.CHANGED,
        "sweeper.tombstones 9 (leaf 8) was changed",
    ),
    "no note": (
        ["ALTER TABLE sweeper.checkpoints ALTER note DROP NOT NULL", "UPDATE sweeper.checkpoints SET note = NULL"],
        LedgerFaultKind.CHECKPOINT,
        "its note is no checkpoint",
    ),
    "no hashes": (
        [
            "ALTER TABLE sweeper.tiles ALTER hashes DROP NOT NULL",
            "UPDATE sweeper.tiles SET hashes = NULL WHERE level = 0 AND first = 0",
        ],
        LedgerFaultKind.TILE,
        "node 0 of level 0",
    ),
    "no list": (
        [
            "ALTER TABLE sweeper.ledger_sources ALTER unnumbered DROP NOT NULL",
            "UPDATE sweeper.ledger_sources SET unnumbered = NULL",
        ],
        LedgerFaultKind.FORGOTTEN,
        "ids of sweeper.events from the smallest on would never",
    ),
}


@pytest.mark.parametrize("name", SCHEMA_TAMPERED)
def test_tampering_with_the_tables_is_named(name: str, store: Store) -> None:
    """Who drops keys and constraints as well meets no traceback, and no row is accused for another."""
    statements, kind, said = SCHEMA_TAMPERED[name]
    evidence(store)
    with tampering(store) as execute:
        for each in statements:
            execute(each)
    fault = verified(store).fault
    assert fault is not None
    assert fault.kind == kind, fault
    assert said in fault.text


def test_a_row_numbered_twice(store: Store) -> None:
    """A row that is two leaves, with nodes and an unsigned checkpoint to match, is named."""
    happen(store, "a", "b")
    taken(store, None)
    with tampering(store) as execute:
        execute("UPDATE sweeper.ledger_sources SET unnumbered = unnumbered + '{[1,2)}' WHERE source = 'events'")
        execute("ALTER TABLE sweeper.leaves DROP CONSTRAINT leaves_source_first_id_key")
        taken(store, None)
    fault = verified(store, keys=()).fault
    assert fault is not None
    assert (fault.kind, fault.source, fault.id, fault.leaf) == (LedgerFaultKind.TWICE, "events", 1, 2)


def rewrite(store: Store, signer: Signer | None) -> None:
    """Change a row, and make all that follows from it anew: leaf numbers, nodes and checkpoints."""
    with tampering(store) as execute:
        execute("UPDATE sweeper.tombstones SET rule = 'another' WHERE id = 100")
        for table in ("tiles", "leaves", "checkpoints"):
            execute(f"DELETE FROM sweeper.{table}")
        execute("UPDATE sweeper.ledger_sources SET unnumbered = DEFAULT")
    taken(store, signer)


def test_history_rewritten_whole(store: Store) -> None:
    """Who makes the whole ledger anew is found out by the key, or by any checkpoint that was kept elsewhere."""
    first, second = evidence(store)
    rewrite(store, None)
    assert verified(store, keys=()).fault is None  # an unsigned ledger is worth no more than its database
    kinds = {
        "no signature": verified(store),
        "first kept": verified(store, first.note, keys=()),
        "second kept": verified(store, second.note, keys=()),
    }
    assert {name: report.fault and report.fault.kind for name, report in kinds.items()} == {
        "no signature": LedgerFaultKind.SIGNATURE,
        "first kept": LedgerFaultKind.KEPT,
        "second kept": LedgerFaultKind.KEPT,
    }
    rewrite(store, OTHER)
    report = verified(store)
    assert report.fault is not None
    assert report.fault.kind == LedgerFaultKind.SIGNATURE


def test_tree_rewritten_under_a_checkpoint(store: Store) -> None:
    """Row and nodes that were changed together do not have the root that was signed, and nothing is signed over them."""
    first, _ = evidence(store)
    with store.connect() as connection:
        before = connection.execute(
            "SELECT id, size, root, note, signed_by, taken_at FROM sweeper.checkpoints"
        ).fetchall()
    rewrite(store, None)
    with tampering(store) as execute:
        execute("DELETE FROM sweeper.checkpoints")
        for row in before:
            execute("INSERT INTO sweeper.checkpoints OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s, %s, %s)", row)
    fault = verified(store).fault
    assert fault is not None
    assert fault.kind == LedgerFaultKind.ROOT
    assert f"leaves 0 to {first.size - 1}" in fault.text
    happen(store, "e")
    with pytest.raises(LedgerError, match="has another root than the last checkpoint"):
        taken(store)
    assert store.execute("SELECT count(*) FROM sweeper.checkpoints") == [(2,)]


def test_cut_off(store: Store) -> None:
    """A ledger from which the newest leaves are gone without a trace does not continue a checkpoint kept elsewhere."""
    _, second = evidence(store)
    with tampering(store) as execute:
        execute("DELETE FROM sweeper.checkpoints WHERE id = 2")
        execute("DELETE FROM sweeper.leaves WHERE first >= 503")
        execute("DELETE FROM sweeper.tiles WHERE first >= 503 >> (8 * level)")
        execute("DELETE FROM sweeper.tombstones WHERE id > 500")
        execute("DELETE FROM sweeper.events WHERE kind = 'd'")
        execute("UPDATE sweeper.ledger_sources SET unnumbered = '{(,1),[501,)}' WHERE source = 'tombstones'")
        execute("UPDATE sweeper.ledger_sources SET unnumbered = '{(,1),[4,)}' WHERE source = 'events'")
    assert verified(store).fault is None
    fault = verified(store, second.note).fault
    assert fault is not None
    assert (fault.kind, "has 604 leaves, the ledger only 503" in fault.text) == (LedgerFaultKind.KEPT, True)


def test_kept_checkpoints(store: Store) -> None:
    """Checkpoints kept elsewhere must be signed by a given key and be of this ledger."""
    first, second = evidence(store)
    report = verified(store, second.note, first.note)
    assert (report.fault, report.kept_checkpoints, +report.checkpoints) == (None, 2, {"verified": 2})
    tree = notes.parse(first.note).tree
    for foreign in (notes.Note(tree).text(), OTHER.sign(tree).text()):
        fault = verified(store, foreign).fault
        assert fault is not None
        assert fault.kind == LedgerFaultKind.SIGNATURE
        assert verified(store, foreign, keys=()).fault is None


def test_keys_that_change(store: Store) -> None:
    """After a change of keys the newest key suffices, and the older checkpoints are counted as of an unknown key."""
    happen(store, "a")
    taken(store, None)
    taken(store, OTHER)
    happen(store, "b")
    taken(store, SIGNER)
    assert +verified(store).checkpoints == {"unsigned": 1, "unknown key": 1, "verified": 1}
    assert +verified(store, keys=(SIGNER, OTHER)).checkpoints == {"unsigned": 1, "verified": 2}
    assert +verified(store, keys=()).checkpoints == {"unsigned": 1, "not checked": 2}
    fault = verified(store, keys=(OTHER,)).fault
    assert fault is not None
    assert fault.kind == LedgerFaultKind.SIGNATURE


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM sweeper.tiles WHERE level = 0 AND first = 512", "level 0 lacks the node 512"),
        ("UPDATE sweeper.tiles SET hashes = set_byte(hashes, 0, 7) WHERE level = 0 AND first = 512", "another root"),
        ("DELETE FROM sweeper.leaves WHERE first > 500", "the ledger only 503"),
        ("DELETE FROM sweeper.ledger_sources WHERE source = 'events'", "ledger_sources has no row for events"),
        ("UPDATE sweeper.ledger_sources SET unnumbered = '{(,)}'", "duplicate key"),
    ],
)
def test_nothing_is_signed_over_what_was_altered(statement: str, said: str, ledgered: Store) -> None:
    """A ledger that is not as it was left is neither continued nor signed."""
    before = places(ledgered)
    with tampering(ledgered) as execute:
        execute(statement)
    happen(ledgered, "e")
    with pytest.raises(LedgerError, match=said):
        taken(ledgered)
    assert len(places(ledgered)) <= len(before)
    assert ledgered.execute("SELECT count(*) FROM sweeper.checkpoints") == [(2,)]


# Receipts


def test_receipts_grow_with_the_logarithm(store: Store) -> None:
    """A proof has a hash for each doubling of the ledger, and two tiles are read for each level of 256-fold growth."""
    sizes: dict[int, tuple[int, int]] = {}
    buried = 0
    for size in (2, WIDTH, WIDTH + 2, 8 * WIDTH + 1, 16_001):
        bury(store, size - buried)
        buried = size
        taken(store)
        written = receipt.prove(store.database(), "c2")
        sizes[size] = len(written.receipt.proof), written.tiles
        assert written.receipt.root() == notes.parse(written.receipt.checkpoint.text()).tree.root
    assert all(hashes <= (size - 1).bit_length() for size, (hashes, _) in sizes.items())
    assert all(tiles <= 2 * merkle.levels(size) for size, (_, tiles) in sizes.items())
    assert sizes[2][0] == 1
    assert sizes[16_001][0] >= 10
