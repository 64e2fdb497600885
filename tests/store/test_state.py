"""`audit verify` beyond the tree: runs, holds, orders, pauses, manifests and the identity are what the events tell."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper import embedded
from sweeper.clock import Clock
from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError, RefusedError
from sweeper.evidence import checkpoint, state, verify
from sweeper.evidence.verify import VerifyReport
from sweeper.evidence.walk import LedgerFaultKind
from sweeper.manifest import lifecycle
from sweeper.policy.instant import OutOfRange
from sweeper.policy.schema import Policy
from sweeper.postgres import choices, evidence, pauses, protections
from sweeper.postgres.choices import Choice
from sweeper.runs.sweep import sweep
from sweeper.settings import Settings
from tests.facts import instant
from tests.manifest import made
from tests.store import stores
from tests.store.stores import Store
from tests.store.test_ledger import restore, save, tampering
from tests.store.test_races import AS_OF, GUARDS, fill, swept

LEDGER = ("leaves", "tiles", "checkpoints")
TABLES = ("identity", "runs", "tombstones", "events", *state.PREFIXES, "manifests", "ledger_sources", *LEDGER)
NOW = instant(AS_OF)


def found(store: Store, **sections: Any) -> VerifyReport:
    """What verification says, unsigned."""
    return verify.verify(store.database(store.settings(**sections)))


def told(store: Store) -> list[tuple[LedgerFaultKind, str | None, int | str | None, str | None]]:
    """The faults that verification names: kind, table, id and column."""
    return [(fault.kind, fault.source, fault.id, fault.column) for fault in found(store).faults]


def opened(store: Store, of: str, token: int, approval: str | None = None) -> int:
    """A run that is opened and left so."""
    with store.database().transaction() as connection:
        return evidence.open_run(
            connection,
            store=of,
            as_of=NOW,
            policy_name="p",
            policy_digest="d",
            token=token,
            approval=approval,
            started_at=NOW,
            kind="run",
            backfill_id=None,
        )


def runs(store: Store, policy: Policy) -> None:
    """One run that a later one found interrupted, one completed, one refused, one still open."""
    opened(store, "store", -1, "approved")
    fill(store, 3)
    swept(store, policy)
    with pytest.raises(RefusedError):
        sweep(store.job(policy, "2026-06-01T00:00:00Z", guards=GUARDS))  # an as-of before that of the last run
    opened(store, "elsewhere", 1)
    assert store.execute("SELECT outcome FROM sweeper.runs ORDER BY id") == [
        ("interrupted",),
        ("completed",),
        ("refused",),
        (None,),
    ]


def people(store: Store) -> None:
    """Holds placed, changed, released and dropped, from sessions of several time zones; orders; pauses."""
    officer = store.acting("officer").database()
    placed = [protections.place_hold(officer, f"m{n}", None, f"c{n}", NOW)["id"] for n in range(4)]
    protections.release_holds(officer, "m1", None, NOW)
    with store.connect() as connection:
        for zone, ends in (("Asia/Kathmandu", "infinity"), ("America/St_Johns", "1890-01-01 00:00:00.000001Z")):
            connection.execute(f"SET TIME ZONE '{zone}'")
            connection.execute(
                "INSERT INTO sweeper.legal_holds (matter, account_id, placed_at, released_at) VALUES ('z', 'a', now(), %s)",
                [ends],
            )
        connection.execute("UPDATE sweeper.legal_holds SET matter = 'renamed' WHERE id = %s", [placed[0]])
        connection.execute("UPDATE sweeper.legal_holds SET id = DEFAULT WHERE id = %s", [placed[3]])
        connection.execute("DELETE FROM sweeper.legal_holds WHERE id = %s", [placed[2]])
        connection.execute("INSERT INTO sweeper.legal_holds (matter) VALUES ('undone') RETURNING id")
        with connection.transaction(force_rollback=True):
            connection.execute("DELETE FROM sweeper.legal_holds")
    protections.add_order(officer, "DSR-1", "a", None, NOW, None)
    protections.add_order(officer, "DSR-2", None, "c", NOW, NOW)
    store.execute("DELETE FROM sweeper.erasure_orders WHERE reference = 'DSR-1'")
    protections.add_order(officer, "DSR-3", "a", None, NOW, NOW)
    protections.withdraw_orders(officer, "DSR-3", None, NOW)
    choices.record(officer, Choice("a", "free", None, OutOfRange.ALWAYS))
    choices.record(officer, Choice("a", "model_improvement", granted=False))
    pauses.pause(store.database(), "why", NOW)
    pauses.resume(store.database(), NOW)
    pauses.pause(store.database(), "again", NOW)


def trained(store: Store, policy: Policy, folder: Path) -> None:
    """One manifest frozen, copied, started, completed and recalled, and one only frozen."""
    store.load(made.world())
    first = made.freeze(store, policy, folder / "first").description.id
    made.freeze(store, policy, folder / "copy")
    lifecycle.start(store.job(policy, made.LATER), first)
    lifecycle.complete(store.database(), Clock(), first)
    store.execute("UPDATE messages SET author = 'assistant'")
    made.freeze(store, policy, folder / "second")
    made.freeze(store, policy, folder / "its copy")
    made.withdraw(store, "a2", made.LATER)
    list(lifecycle.recall(store.job(policy, made.LATER), folder / "out"))


@pytest.fixture(scope="module")
def history(
    server: embedded.Server, templates: dict[str, str], policy: Policy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """A database with an honest history, a checkpoint of it, and a copy of its tables."""
    store = stores.copy(server, templates["uuid"], "history", "uuid")
    runs(store, policy)
    people(store)
    trained(store, policy, tmp_path_factory.mktemp("manifests"))
    checkpoint.take(store.database(), Clock(), None)
    save(store, TABLES)
    yield store
    store.close()
    stores.drop(server, "history")


@pytest.fixture
def honest(history: Store) -> Iterator[Store]:
    """That database, to be tampered with; afterwards its tables are as they were."""
    yield history
    restore(history, TABLES)


def test_an_honest_history_fits(honest: Store) -> None:
    """Whatever the commands and people did by SQL, with the triggers on, is what the events tell; auditors can see it."""
    report = found(honest.acting("auditor"))
    assert report.faults == []
    expected = {"runs": 4, "legal_holds": 6, "erasure_orders": 2, "pauses": 2, "manifests": 2} | {
        "plan_changes": 1,
        "consent_events": 1,
    }
    assert report.compared == expected
    assert report.faults_found == 0


# Edits, column by column

SET = {
    "text": "coalesce({0}, '') || 'x'",
    "bigint": "coalesce({0}, 0) + 1000",
    "boolean": "NOT {0}",
    "timestamp with time zone": "CASE WHEN isfinite({0}) THEN {0} + interval '1 microsecond' ELSE '2026-01-01Z' END",
    "jsonb": "coalesce({0}, '{{}}') || '{{\"purged\": 999}}'",
}
ODD = {
    ("runs", "outcome"): "'failed'",
    ("runs", "kind"): "'reapply'",
    ("manifests", "state"): "'started'",
}
TOUCHED = {
    "runs": ("completed", "refused", "interrupted", None),
    **dict.fromkeys((*state.PREFIXES, "manifests"), ("all",)),
}
ALL = [(table, which) for table, rows in TOUCHED.items() for which in rows]


@pytest.mark.parametrize(("table", "which"), ALL)
def test_every_edit_is_named(table: str, which: str | None, honest: Store) -> None:
    """Each column of each row, changed by one who switches triggers and constraints off, is named with its row."""
    columns = honest.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'sweeper' AND table_name = %s AND column_name <> 'id' ORDER BY 1",
        table,
    )
    assert len(columns) >= 3
    condition = (
        f"outcome IS NOT DISTINCT FROM {'NULL' if which is None else repr(which)}" if table == "runs" else "true"
    )
    ids = [row[0] for row in honest.execute(f"SELECT id FROM sweeper.{table} WHERE {condition} ORDER BY id")]
    checks = honest.execute(
        f"SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'sweeper.{table}'::regclass "
        "AND contype = 'c'"
    )
    for name, _ in checks:
        honest.execute(f"ALTER TABLE sweeper.{table} DROP CONSTRAINT {name}")
    for column, type_ in columns:
        for id_ in ids:
            with tampering(honest) as execute:
                value = ODD.get((table, column), SET[type_]).format(column)
                execute(f"UPDATE sweeper.{table} SET {column} = {value} WHERE id = %s", [id_])
                assert told(honest) == [(LedgerFaultKind.CHANGED, table, id_, column)], (column, id_)
                execute(f"UPDATE sweeper.{table} t SET {column} = s.{column} FROM saved.{table} s WHERE s.id = t.id")
    for name, definition in checks:
        honest.execute(f"ALTER TABLE sweeper.{table} ADD CONSTRAINT {name} {definition}")
    assert told(honest) == []


@pytest.mark.parametrize("table", TOUCHED)
def test_deleted_inserted_and_dropped_rows_are_named(table: str, honest: Store) -> None:
    """A row that went or came without an event is named, whichever it is."""
    for (id_,) in honest.execute(f"SELECT id FROM sweeper.{table} ORDER BY id"):
        with tampering(honest) as execute:
            execute(f"DELETE FROM sweeper.{table} WHERE id = %s", [id_])
            assert (LedgerFaultKind.MISSING, table, id_, None) in told(honest)
            execute(
                f"INSERT INTO sweeper.{table} OVERRIDING SYSTEM VALUE SELECT * FROM saved.{table} WHERE id = %s", [id_]
            )
    assert told(honest) == []
    new = "'new'" if table == "manifests" else "4711"
    with tampering(honest) as execute:
        execute(f"CREATE TEMPORARY TABLE spare AS SELECT * FROM sweeper.{table} ORDER BY id LIMIT 1")
        execute(f"UPDATE spare SET id = {new}")
        if table == "runs":
            execute("UPDATE spare SET token = 4711")
        execute(f"INSERT INTO sweeper.{table} OVERRIDING SYSTEM VALUE TABLE spare")
    assert told(honest) == [(LedgerFaultKind.UNTOLD, table, "new" if table == "manifests" else 4711, None)]


def test_all_rows_deleted_at_once(honest: Store) -> None:
    """Holds that were truncated with the triggers off are all missing; the first few are told, the others counted."""
    with tampering(honest) as execute:
        execute("INSERT INTO sweeper.events (kind, details) SELECT 'hold_added', jsonb_build_object('now', "
                "jsonb_build_object('id', 1000 + n, 'matter', 'm')) FROM generate_series(1, 50) n")  # fmt: skip
        execute("TRUNCATE sweeper.legal_holds")
    report = found(honest)
    assert (len(report.faults), report.faults_found) == (verify.FEW, 56)
    assert {fault.kind for fault in report.faults} == {LedgerFaultKind.MISSING}
    assert json.loads(json.dumps(to_json(report)))["faults"][0]["source"] == "legal_holds"


def test_a_truncation_that_left_its_event(store: Store) -> None:
    """A TRUNCATE with the triggers on is in the evidence, and so is what is placed after it, under old ids."""
    for _ in range(2):
        store.execute("INSERT INTO sweeper.legal_holds (matter) VALUES ('m'), ('n')")
    store.execute("TRUNCATE sweeper.legal_holds RESTART IDENTITY")
    assert told(store) == []
    store.execute("INSERT INTO sweeper.legal_holds (matter) VALUES ('m')")
    assert told(store) == []
    with tampering(store) as execute:
        execute("INSERT INTO sweeper.legal_holds (matter) VALUES ('again')")
    assert told(store) == [(LedgerFaultKind.UNTOLD, "legal_holds", 2, None)]


def test_texts_that_read_as_instants(store: Store) -> None:
    """Instants may be told in another time zone; a text is another text."""
    store.execute("INSERT INTO sweeper.legal_holds (matter) VALUES ('2026-01-01T00:00:00+00:00')")
    with tampering(store) as execute:
        execute("UPDATE sweeper.legal_holds SET matter = '2026-01-01T01:00:00+01:00'")
    assert told(store) == [(LedgerFaultKind.CHANGED, "legal_holds", 1, "matter")]


def test_a_run_that_was_only_closed(store: Store) -> None:
    """A run of which the events tell an end and no beginning is not told of."""
    store.execute(
        "INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, started_at, finished_at, outcome) "
        "VALUES ('store', now(), '', '', 0, now(), now(), 'completed')"
    )
    store.execute(
        "INSERT INTO sweeper.events (kind, run_id, details) VALUES ('run_closed', 1, '{\"outcome\": \"completed\"}')"
    )
    assert told(store) == [(LedgerFaultKind.UNTOLD, "runs", 1, None)]


def test_a_dropped_hold_put_back(honest: Store) -> None:
    """A hold that is there although an event tells that it was dropped is named."""
    ((id_,),) = honest.execute("SELECT details -> 'was' ->> 'id' FROM sweeper.events WHERE kind = 'hold_dropped'")
    with tampering(honest) as execute:
        execute("INSERT INTO sweeper.legal_holds (id, matter) OVERRIDING SYSTEM VALUE VALUES (%s, 'back')", [int(id_)])
    (fault,) = found(honest).faults
    assert (fault.kind, "although event" in fault.text, fault.id) == (LedgerFaultKind.UNTOLD, True, int(id_))


def test_no_words_of_people(honest: Store) -> None:
    """A fault tells ids, columns and instants, and nothing that a person wrote."""
    with tampering(honest) as execute:
        execute("UPDATE sweeper.legal_holds SET matter = 'secret words', released_at = '2020-01-01Z'")
        execute("UPDATE sweeper.pauses SET reason = 'secret words'")
        execute("UPDATE sweeper.erasure_orders SET reference = 'secret words'")
        execute("UPDATE sweeper.runs SET result = '{\"words\": \"secret words\"}', approval = 'secret words'")
    text = json.dumps(to_json(found(honest)))
    assert "secret" not in text
    assert "renamed" not in text
    assert "released_at is 2020-01-01T00:00:00+00:00, the events" in text


def test_identity(honest: Store) -> None:
    """An identity that is another than runs and checkpoint say, that is gone or is there twice, is named."""
    other = "00000000-0000-4000-8000-000000000000"
    with tampering(honest) as execute:
        execute("UPDATE sweeper.identity SET id = %s", [other])
        assert told(honest) == [(LedgerFaultKind.IDENTITY, "identity", None, "id")] * 2
        assert other in found(honest).faults[1].text
        execute("UPDATE sweeper.events SET details = details - 'identity'")
        assert verify.verify_tree(honest.database()).fault is not None  # which stops before anything is compared
        assert found(honest).compared == {}
        execute("DELETE FROM sweeper.identity")
        execute("DELETE FROM sweeper.events; INSERT INTO sweeper.events OVERRIDING SYSTEM VALUE TABLE saved.events")
        assert [fault.text for fault in found(honest).faults] == ["sweeper.identity has 0 rows instead of one"]
        with pytest.raises(ConfigurationError, match=r"has 0 rows instead of one.*Nothing was done"):
            opened(honest, "store", 99)


def test_a_log_with_a_name_of_its_own(store: Store) -> None:
    """The newest checkpoint's origin says nothing of the identity where the settings named the log."""
    named: Settings = store.settings(evidence={"origin": "sweeper/00000000-0000-4000-8000-000000000000"})
    store.execute("INSERT INTO sweeper.events (kind) VALUES ('x')")
    checkpoint.take(store.database(named), Clock(), None)
    assert found(store, evidence={"origin": named.evidence.origin}).faults == []
    assert [fault.kind for fault in found(store).faults] == [LedgerFaultKind.IDENTITY]


def test_tombstones_of_no_run(honest: Store) -> None:
    """A run that is gone together with what its events told is still named by its tombstones."""
    ((run_id,),) = honest.execute("SELECT DISTINCT run_id FROM sweeper.tombstones")
    with tampering(honest) as execute:
        execute("DELETE FROM sweeper.runs WHERE id = %s", [run_id])
    texts = [fault.text for fault in found(honest).faults]
    assert len(texts) == 2
    assert "is missing: event" in texts[0]
    assert "is missing: 3 tombstones name it, the first is 1" in texts[1]


# Events of the version before

OLD = """
    UPDATE sweeper.events SET details = CASE kind
        WHEN 'run_opened' THEN jsonb_build_object('store', details -> 'store', 'as_of', replace(details ->> 'as_of', 'T', ' '),
                                                  'policy', details -> 'policy', 'kind', details -> 'kind')
        WHEN 'run_closed' THEN jsonb_build_object('outcome', details -> 'outcome')
        WHEN 'run_interrupted' THEN jsonb_build_object('found_by', details -> 'found_by')
        WHEN 'recalled' THEN details - 'recalled_at'
        ELSE jsonb_build_object('manifest', details -> 'manifest', 'directory', details -> 'directory', 'revoked', '{}'::jsonb)
    END
    WHERE kind LIKE 'run\\_%' OR kind LIKE 'manifest\\_%' OR kind = 'recalled'
"""


@pytest.fixture
def old(honest: Store) -> Store:
    """The history as the version before told it, under a checkpoint of its own."""
    with tampering(honest) as execute:
        execute(OLD)
        for table in LEDGER:
            execute(f"DELETE FROM sweeper.{table}")
        execute("UPDATE sweeper.ledger_sources SET unnumbered = DEFAULT")
    checkpoint.take(honest.database(), Clock(), None)
    return honest


def test_old_events_fit(old: Store, policy: Policy) -> None:
    """A history of the version before verifies, and goes on under this one."""
    assert found(old).faults == []
    pauses.resume(old.database(), NOW)
    swept(old, policy)
    assert found(old).faults == []


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("UPDATE sweeper.runs SET as_of = as_of - interval '1 day' WHERE id = 2", "as_of"),
        ("UPDATE sweeper.runs SET store = 'x' WHERE id = 2", "store"),
        ("UPDATE sweeper.runs SET policy_digest = 'x' WHERE id = 2", "policy_digest"),
        ("UPDATE sweeper.runs SET outcome = 'failed' WHERE id = 2", "outcome"),
        ("UPDATE sweeper.runs SET outcome = 'failed', finished_at = now() WHERE id = 4", "outcome"),
        ("DELETE FROM sweeper.runs WHERE id = 1", None),
        ("UPDATE sweeper.manifests SET directory = '/x' WHERE state = 'completed'", "directory"),
        ("UPDATE sweeper.manifests SET state = 'started', completed_at = NULL WHERE state = 'completed'", "state"),
    ],
)
def test_tampering_with_an_old_history(change: str, column: str | None, old: Store) -> None:
    """What the earlier events tell is held against the rows as well."""
    with tampering(old) as execute:
        execute(change)
    assert [fault.column for fault in found(old).faults] == [column]


# What others write meanwhile, and what no trigger wrote


def test_changes_meanwhile_are_no_fault(honest: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is placed, released and swept between two statements of a verification is no fault."""
    compared = state.differences
    held = [0]

    def meanwhile(connection: Any, table: str) -> Iterator[state.Difference]:
        held[0] += 1
        honest.execute("INSERT INTO sweeper.legal_holds (matter) VALUES ('new')")
        honest.execute("UPDATE sweeper.legal_holds SET released_at = now()")
        opened(honest, "meanwhile", held[0])
        yield from compared(connection, table)

    monkeypatch.setattr(state, "differences", meanwhile)
    report = found(honest)
    assert (held[0], report.faults, report.compared["legal_holds"]) == (len(state.TABLES), [], 6)
    monkeypatch.undo()
    assert found(honest).faults == []


FORGED = (
    "'\"text\"'",
    "'[1]'",
    '\'{"now": 7, "was": "x"}\'',
    '\'{"now": {"id": "x"}}\'',
    '\'{"policy": [1], "as_of": "never", "identity": 7, "outcome": {}}\'',
    "'\"identity\"'",
    '\'{"manifest": "x"}\'',
)


@pytest.mark.parametrize("details", FORGED)
def test_events_that_no_trigger_wrote(details: str, honest: Store) -> None:
    """Whatever an event of somebody's own making tells, verification ends, and names at most what the event is about."""
    kinds = [row[0] for row in honest.execute("SELECT DISTINCT kind FROM sweeper.events")]
    for kind in kinds:
        honest.execute(f"INSERT INTO sweeper.events (kind, run_id, details) VALUES (%s, 77, {details})", kind)
    assert {fault.id for fault in found(honest).faults} <= {77, "x", None, *range(5)}
    with tampering(honest) as execute:
        execute("DELETE FROM sweeper.events WHERE run_id = 77")
    assert found(honest).faults == []


def test_a_run_opened_twice(store: Store) -> None:
    """A run whose opening was done again after a lost answer, and one without any event, are told apart."""
    assert opened(store, "store", 1) == opened(store, "store", 1)
    assert told(store) == []
    with tampering(store) as execute:
        execute("DELETE FROM sweeper.events")
    assert told(store) == [(LedgerFaultKind.UNTOLD, "runs", 1, None)]
