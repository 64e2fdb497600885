"""Conversations and children whose keys are no plain column: expressions, keys of several columns, and keys of many rows."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sweeper.clock import Clock
from sweeper.errors import ConfigurationError
from sweeper.policy.schema import Policy
from sweeper.postgres import purge
from sweeper.postgres.check import check
from sweeper.postgres.finding import Level
from sweeper.runs.sweep import sweep
from tests.processes import until
from tests.store.stores import Store
from tests.store.test_races import (
    AS_OF,
    GUARDS,
    LOCK_ROWS_WAITING,
    another,
    fill,
    is_waiting,
    once_before,
    swept,
)

SNAPSHOTS = """
CREATE TABLE store.snapshots (number serial PRIMARY KEY, meta jsonb, snapshot text, title text);
CREATE INDEX ON store.snapshots ((meta->>'chat'));
GRANT SELECT, UPDATE (snapshot, title) ON store.snapshots TO sweeper
"""
SNAPSHOT = {
    "table": "store.snapshots",
    "key": "(meta->>'chat')::uuid",
    "action": "redact",
    "columns": ["snapshot", "title"],
}


def with_snapshots(store: Store, ids: list[str]) -> None:
    """Give the conversations two copies each in a table that names them in a document."""
    store.execute(SNAPSHOTS)
    store.execute("CREATE INDEX ON store.snapshots (((meta->>'chat')::uuid))")
    for id_ in ids:
        for title in ("a title", None):
            store.execute(
                "INSERT INTO store.snapshots (meta, snapshot, title) VALUES (%s, 'secret words', %s)",
                json.dumps({"chat": id_, "at": "12:30"}),
                title,
            )


def children_of(store: Store, id_: str) -> dict[str, int]:
    """What the tombstone of a conversation counts as its children."""
    [[children]] = store.execute("SELECT children FROM sweeper.tombstones WHERE conversation_id = %s", id_)
    return dict(children)


def faults(store: Store, policy: Policy, sections: dict[str, Any]) -> list[str]:
    """What `check` calls a fault."""
    findings = check(store.database(store.settings(**sections)), policy, Clock())
    return [f"{finding.subject}: {finding.text}" for finding in findings if finding.level is Level.FAULT]


def test_child_by_expression_is_redacted(store: Store, policy: Policy) -> None:
    """Rows that name a purged conversation in a document lose the columns, keep the rest, and are counted; others keep all."""
    ids = fill(store, 3)
    with_snapshots(store, ids)
    store.execute("UPDATE conversations SET last_activity_at = '2026-06-30Z' WHERE id = %s", ids[2])
    result = swept(store, policy, purge={"children": [SNAPSHOT]}).as_json()
    assert (result["purged"], result["failed"]) == (2, 0)
    rows = store.execute("SELECT meta->>'chat', snapshot, title FROM store.snapshots ORDER BY number")
    emptied = [(id_, None, None) for id_ in ids[:2] for _ in range(2)]
    assert rows == [*emptied, (ids[2], "secret words", "a title"), (ids[2], "secret words", None)]
    assert children_of(store, ids[0])["store.snapshots (snapshot, title)"] == 2


def test_child_loses_its_reference(store: Store, policy: Policy) -> None:
    """With set_null, rows stay without their reference, and those of others keep it."""
    ids = fill(store, 2)
    store.execute(
        "CREATE TABLE store.tasks (number serial PRIMARY KEY, chat uuid, result text);"
        "CREATE INDEX ON store.tasks (chat); GRANT SELECT, UPDATE (chat) ON store.tasks TO sweeper"
    )
    store.execute("INSERT INTO store.tasks (chat, result) VALUES (%s, 'kept'), (gen_random_uuid(), 'other')", ids[0])
    child = {"table": "store.tasks", "key": "chat", "action": "set_null"}
    assert swept(store, policy, purge={"children": [child]}).as_json()["purged"] == 2
    assert store.execute("SELECT chat IS NULL, result FROM store.tasks ORDER BY number") == [
        (True, "kept"),
        (False, "other"),
    ]
    assert children_of(store, ids[0])["store.tasks (chat)"] == 1


def test_redaction_that_a_trigger_undoes(store: Store, policy: Policy) -> None:
    """If a trigger keeps the column as it was, the conversation is not purged and counts as failed."""
    ids = fill(store, 1)
    with_snapshots(store, ids)
    store.execute(
        "CREATE FUNCTION store.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';"
        "CREATE TRIGGER keep BEFORE UPDATE ON store.snapshots FOR EACH ROW EXECUTE FUNCTION store.keep()"
    )
    result = swept(store, policy, purge={"children": [SNAPSHOT]}).as_json()
    assert (result["purged"], result["failed"], store.left()) == (0, 1, set(ids))


REFUSED = {
    "messages are always deleted": (
        {"table": "store.messages", "key": "conversation_id", "action": "redact", "columns": ["body"]},
        "always deleted",
    ),
    "another type": ({**SNAPSHOT, "key": "meta->>'chat'"}, "it is text there"),
    "no expression": ({**SNAPSHOT, "key": "meta->>"}, "cannot evaluate the expression meta->>"),
    "an unknown column": ({**SNAPSHOT, "key": "lower(chat)"}, 'column "chat" does not exist'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_child_that_cannot_be_meant(name: str, store: Store, policy: Policy) -> None:
    """A setting that would redact what is to be deleted, or that the server cannot evaluate, stops the run before it begins."""
    ids = fill(store, 1)
    with_snapshots(store, ids)
    child, text = REFUSED[name]
    with pytest.raises(ConfigurationError, match=text.replace("+", r"\+")):
        swept(store, policy, purge={"children": [child]})
    assert store.left() == set(ids)


SESSIONS = """
CREATE SCHEMA app;
CREATE TABLE app.sessions (app text, person text, id text, at timestamptz, PRIMARY KEY (app, person, id));
CREATE TABLE app.events (
    app text, person text, session text, number integer, words text, PRIMARY KEY (app, person, session, number),
    FOREIGN KEY (app, person, session) REFERENCES app.sessions ON DELETE CASCADE
);
CREATE FUNCTION app.key(app text, person text, id text) RETURNS text IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
    $$SELECT length(app) || ':' || length(person) || ':' || app || person || id$$;
CREATE INDEX ON app.sessions (app.key(app, person, id));
CREATE INDEX ON app.events (app.key(app, person, session));
INSERT INTO app.sessions VALUES
    ('ab', 'c', 'x', '2026-02-01Z'), ('a', 'bc', 'x', '2026-06-30Z'), ('a', 'b', 'x', '2026-02-01Z');
INSERT INTO app.events SELECT app, person, id, n, 'words' FROM app.sessions, generate_series(1, 3) n;
CREATE SCHEMA lens;
CREATE VIEW lens.accounts AS SELECT 'one' AS id, '2019-01-01Z'::timestamptz AS created_at, NULL::timestamptz AS closed_at;
CREATE VIEW lens.plan_changes AS
    SELECT 1::bigint AS id, 'one' AS account_id, '-infinity'::timestamptz AS effective_at, 'free' AS plan;
CREATE VIEW lens.consent_events AS SELECT NULL::bigint AS id, NULL::text AS account_id, NULL::text AS purpose,
    NULL::boolean AS granted, NULL::timestamptz AS recorded_at, NULL::timestamptz AS effective_at WHERE false;
CREATE VIEW lens.conversations AS SELECT app.key(app, person, id) AS id, 'one' AS account_id, 'chat' AS kind,
    'first_party' AS platform, false AS incognito, false AS zero_retention, at AS created_at, at AS last_activity_at,
    NULL::timestamptz AS deleted_at, NULL::timestamptz AS restored_at, NULL::timestamptz AS flagged_at FROM app.sessions;
CREATE VIEW lens.messages AS SELECT number AS id, app.key(app, person, session) AS conversation_id, 'assistant' AS author,
    NULL::timestamptz AS created_at, words AS body FROM app.events;
CREATE VIEW lens.attachments AS SELECT 1 AS id, NULL::text AS conversation_id, NULL::text AS uri WHERE false;
CREATE VIEW lens.feedback AS SELECT NULL::text AS id, NULL::text AS account_id, NULL::text AS conversation_id,
    NULL::text AS kind, NULL::timestamptz AS submitted_at, NULL::integer AS rating, NULL::text AS transcript WHERE false;
GRANT USAGE ON SCHEMA app, lens TO sweeper;
GRANT SELECT ON ALL TABLES IN SCHEMA lens TO sweeper;
GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA app TO sweeper
"""
SESSION_SECTIONS: dict[str, Any] = {
    "store": {"schema": "lens"},
    "purge": {"table": "app.sessions", "key": "app.key(app, person, id)"},
    "guards": GUARDS,
}


def test_key_of_several_columns(store: Store, policy: Policy) -> None:
    """Sessions with a key of three columns go with their events, which refer to all three; one that is not due stays.

    The job needs to read no other column of either table.
    """
    store.execute(SESSIONS)
    store.execute(
        "REVOKE ALL ON app.sessions, app.events FROM sweeper;"
        "GRANT SELECT (app, person, id), UPDATE (at), DELETE ON app.sessions TO sweeper;"
        "GRANT SELECT (app, person, session, ctid, tableoid), UPDATE (number) ON app.events TO sweeper"
    )
    result = sweep(store.job(policy, AS_OF, **SESSION_SECTIONS)).as_json()
    assert (result["purged"], result["failed"]) == (2, 0)
    assert store.execute("SELECT app, person FROM app.sessions") == [("a", "bc")]
    assert store.execute("SELECT DISTINCT app, person, count(*) FROM app.events GROUP BY 1, 2") == [("a", "bc", 3)]
    assert children_of(store, "2:1:abcx") == {"app.events": 3}
    assert faults(store, policy, SESSION_SECTIONS) == []


THREADS = """
CREATE SCHEMA app;
CREATE TABLE app.checkpoints (thread text, number integer, at timestamptz, state text, PRIMARY KEY (thread, number));
CREATE TABLE app.blobs (thread text, number integer, blob text, PRIMARY KEY (thread, number));
INSERT INTO app.checkpoints
    SELECT 't' || t, n, '2026-02-01Z'::timestamptz + n * interval '1 minute', 'words'
    FROM generate_series(1, 3) t, generate_series(1, 4) n;
INSERT INTO app.blobs SELECT thread, number, state FROM app.checkpoints;
"""
THREADS += "CREATE SCHEMA lens;" + SESSIONS.partition("CREATE SCHEMA lens;")[2].replace(
    SESSIONS[SESSIONS.index("CREATE VIEW lens.conversations") : SESSIONS.index("CREATE VIEW lens.attachments")],
    """CREATE VIEW lens.conversations AS SELECT c.thread AS id, 'one' AS account_id, 'chat' AS kind,
    'first_party' AS platform, false AS incognito, false AS zero_retention, c.at AS created_at, c.at AS last_activity_at,
    NULL::timestamptz AS deleted_at, NULL::timestamptz AS restored_at, NULL::timestamptz AS flagged_at FROM app.checkpoints c
    WHERE NOT EXISTS (SELECT FROM app.checkpoints n WHERE n.thread = c.thread AND n.number > c.number);
CREATE VIEW lens.messages AS SELECT 1 AS id, NULL::text AS conversation_id, 'user' AS author,
    NULL::timestamptz AS created_at, NULL::text AS body WHERE false;
""",
)
THREAD_SECTIONS: dict[str, Any] = {
    "store": {"schema": "lens"},
    "purge": {
        "table": "app.checkpoints",
        "key": "thread",
        "many_rows": True,
        "children": [{"table": "app.blobs", "key": "thread"}],
        "locked_wait_seconds": 0.2,
    },
    "guards": GUARDS,
}


def threads_left(store: Store) -> dict[str, int]:
    """The number of rows that each thread still has."""
    return dict(store.execute("SELECT thread, count(*) FROM app.checkpoints GROUP BY thread"))


def test_conversation_of_many_rows(store: Store, policy: Policy) -> None:
    """All rows that share a key are one conversation: they go together, with one tombstone that counts them."""
    store.execute(THREADS)
    store.execute("UPDATE app.checkpoints SET at = '2026-06-30Z' WHERE thread = 't2' AND number = 4")
    assert faults(store, policy, THREAD_SECTIONS) == []
    result = sweep(store.job(policy, AS_OF, **THREAD_SECTIONS)).as_json()
    assert (result["purged"], result["failed"], threads_left(store)) == (2, 0, {"t2": 4})
    assert store.execute("SELECT DISTINCT thread FROM app.blobs") == [("t2",)]
    assert children_of(store, "t1") == {"app.blobs": 4, "app.checkpoints": 4}
    assert store.execute("SELECT count(*) FROM sweeper.tombstones") == [(2,)]


def test_one_of_many_rows_is_locked(store: Store, policy: Policy) -> None:
    """A conversation of which another transaction holds one row keeps all of them, and counts as skipped."""
    store.execute(THREADS)
    with another(store) as application:
        application.execute("SELECT FROM app.checkpoints WHERE thread = 't1' AND number = 2 FOR UPDATE")
        result = sweep(store.job(policy, AS_OF, **THREAD_SECTIONS)).as_json()
    assert (result["purged"], result["spared_by_reason"], threads_left(store)) == (2, {"locked": 1}, {"t1": 4})
    assert store.execute("SELECT count(*) FROM app.blobs WHERE thread = 't1'") == [(4,)]


def test_conversation_gets_a_row_while_it_is_locked(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that comes between the lock and the delete keeps the conversation, with all that it has."""
    store.execute(THREADS)

    def resume(_: object) -> None:
        with another(store) as application:
            application.execute("INSERT INTO app.checkpoints VALUES ('t1', 5, '2026-06-30Z', 'again')")
            application.execute("COMMIT")

    once_before(monkeypatch, purge, "delete", resume)
    result = sweep(store.job(policy, AS_OF, **THREAD_SECTIONS)).as_json()
    assert (result["purged"], result["failed"], threads_left(store)) == (2, 0, {"t1": 5})
    assert store.execute("SELECT count(*) FROM app.blobs WHERE thread = 't1'") == [(4,)]


def test_id_that_is_used_again(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A purged conversation whose id the application uses again before the run ends keeps its new children."""
    store.execute(THREADS)

    def use_again(_: object) -> None:
        store.execute("INSERT INTO app.checkpoints VALUES ('t1', 1, '2026-06-30Z', 'anew')")
        store.execute("INSERT INTO app.blobs VALUES ('t1', 1, 'anew')")

    once_before(monkeypatch, purge, "delete_orphans", use_again)
    assert sweep(store.job(policy, AS_OF, **THREAD_SECTIONS)).as_json()["purged"] == 3
    assert store.execute("SELECT thread, blob FROM app.blobs") == [("t1", "anew")]


FILES = """
CREATE TABLE store.files (id text PRIMARY KEY, path text);
CREATE TABLE store.conversation_files (
    conversation_id uuid REFERENCES store.conversations ON DELETE CASCADE, file_id text REFERENCES store.files ON DELETE CASCADE,
    PRIMARY KEY (conversation_id, file_id)
);
CREATE TABLE store.library (file_id text REFERENCES store.files ON DELETE CASCADE);
CREATE INDEX ON store.conversation_files (file_id);
CREATE INDEX ON store.library (file_id);
INSERT INTO store.files SELECT name, '/' || name FROM unnest('{own,both,kept,library,unnamed}'::text[]) name;
GRANT SELECT, UPDATE, DELETE ON store.files, store.conversation_files, store.library TO sweeper
"""
SHARED = {"shared": [{"table": "store.files", "key": "id"}]}


def with_files(store: Store, ids: list[str]) -> None:
    """Let conversations name files: `own` the first, `both` the first two, `kept` the last as well, `library` a library, too."""
    store.execute(FILES)
    names = {"own": ids[:1], "both": ids[:2], "kept": [ids[0], ids[2]], "library": ids[:1]}
    for file, conversations in names.items():
        for id_ in conversations:
            store.execute("INSERT INTO store.conversation_files VALUES (%s, %s)", id_, file)
    store.execute("INSERT INTO store.library VALUES ('library')")
    store.execute("UPDATE conversations SET last_activity_at = '2026-06-30Z' WHERE id = %s", ids[2])


def files_left(store: Store) -> set[str]:
    """The files that there are."""
    return {row[0] for row in store.execute("SELECT id FROM store.files")}


def test_shared_row_goes_with_the_last_that_names_it(store: Store, policy: Policy) -> None:
    """A file goes when nothing names it any more; what another conversation or table names, or nothing ever named, stays."""
    ids = fill(store, 3)
    with_files(store, ids)
    assert swept(store, policy, purge=SHARED).as_json()["purged"] == 2
    assert files_left(store) == {"kept", "library", "unnamed"}
    counts = [children_of(store, id_).get("store.files", 0) for id_ in ids[:2]]
    assert sum(counts) == 2
    store.execute("UPDATE conversations SET last_activity_at = '2026-02-01Z' WHERE id = %s", ids[2])
    assert swept(store, policy, purge=SHARED).as_json()["purged"] == 1
    assert files_left(store) == {"library", "unnamed"}


def test_shared_row_is_named_meanwhile(store: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """A reference that another transaction has added and not yet committed is waited for, and keeps the file."""
    ids = fill(store, 3)
    with_files(store, ids)
    with another(store) as application:
        application.execute("INSERT INTO store.conversation_files VALUES (%s, 'own')", [ids[2]])
        running = threads.submit(swept, store, policy, purge=SHARED)
        until(is_waiting(store, LOCK_ROWS_WAITING))
        application.execute("COMMIT")
    assert running.result().as_json()["purged"] == 2
    assert files_left(store) == {"own", "kept", "library", "unnamed"}


def test_shared_row_that_a_condition_keeps(store: Store, policy: Policy) -> None:
    """A file stays while a condition on it is true or unknown; the same purge without it would delete the file."""
    with_files(store, fill(store, 3))
    condition = "CASE id WHEN 'own' THEN true WHEN 'both' THEN NULL ELSE false END"
    table = SHARED["shared"][0]
    assert swept(store, policy, purge={"shared": [table | {"unless": condition}]}).as_json()["purged"] == 2
    assert files_left(store) == {"own", "both", "kept", "library", "unnamed"}


def test_shared_table_that_cannot_be_meant(store: Store, policy: Policy) -> None:
    """A table that no conversation's row refers to, or that belongs to conversations itself, is refused."""
    fill(store, 1)
    store.execute("CREATE TABLE store.alone (id text PRIMARY KEY)")
    for table, text in {
        "store.alone": "refers to",
        "store.messages": "belongs to conversations itself",
    }.items():
        with pytest.raises(ConfigurationError, match=text):
            swept(store, policy, purge={"shared": [{"table": table}]})
    store.execute(FILES)
    for condition, text in {"id": "neither true nor false", "no_column": "cannot evaluate"}.items():
        with pytest.raises(ConfigurationError, match=text):
            swept(store, policy, purge={"shared": [SHARED["shared"][0] | {"unless": condition}]})


def test_expression_without_an_index(store: Store, policy: Policy) -> None:
    """`check` names the index that a key by expression lacks, and no longer once it is there."""
    ids = fill(store, 1)
    with_snapshots(store, ids)
    store.execute("DROP INDEX store.snapshots_uuid_idx")
    sections = {"purge": {"children": [SNAPSHOT]}}

    def remedies() -> list[str]:
        findings = check(store.database(store.settings(**sections)), policy, Clock())
        return [finding.remedy for finding in findings if finding.subject == "store.snapshots"]

    [remedy] = remedies()
    store.execute(remedy.replace(" CONCURRENTLY", ""))
    assert remedies() == []
