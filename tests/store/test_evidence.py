"""What a sweep leaves behind: evidence that is insert-only, complete and without content; no orphan in any tree of keys."""

import inspect
import json
import sys
from typing import Any

import psycopg
import pytest

from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError, RefusedError, SweeperError
from sweeper.policy.schema import Policy
from sweeper.postgres import evidence, fence, protections
from sweeper.runs.sweep import sweep
from tests.facts import instant
from tests.store.stores import Store
from tests.store.test_races import ACCOUNT, AS_OF, GUARDS, Killed, buried, fill, once_before, refuse, swept

SECRET = "secret words"  # noqa: S105 — the body of every message, not a password


def texts(store: Store) -> str:
    """Everything that the sweeper's own tables hold, as text."""
    tables = store.execute(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'sweeper' ORDER BY 1"
    )
    return "\n".join(row[0] for (table,) in tables for row in store.execute(f"SELECT t::text FROM {table} t"))


def events(store: Store) -> list[str]:
    """The kinds of the events, oldest first."""
    return [row[0] for row in store.execute("SELECT kind FROM sweeper.events ORDER BY id")]


# Insert-only


CHANGES = (
    "UPDATE sweeper.{} SET run_id = NULL",
    "UPDATE sweeper.{} SET run_id = run_id WHERE false",
    "DELETE FROM sweeper.{}",
    "TRUNCATE sweeper.{}",
    "TRUNCATE sweeper.{} CASCADE",
    "INSERT INTO sweeper.{0} OVERRIDING SYSTEM VALUE SELECT * FROM sweeper.{0} ON CONFLICT (id) DO UPDATE SET run_id = 0",
    "MERGE INTO sweeper.{0} t USING sweeper.{0} s ON t.id = s.id WHEN MATCHED THEN DELETE",
)


@pytest.mark.parametrize("table", ["tombstones", "events"])
def test_evidence_is_insert_only(store: Store, policy: Policy, table: str) -> None:
    """Tombstones and events refuse UPDATE, DELETE and TRUNCATE in every form, even of a superuser."""
    fill(store, 1)
    swept(store, policy)
    before = store.execute(f"SELECT t::text FROM sweeper.{table} t ORDER BY id")
    for change in CHANGES:
        with pytest.raises(psycopg.errors.RaiseException, match="insert-only"):
            store.execute(change.format(table))
    assert store.execute(f"SELECT t::text FROM sweeper.{table} t ORDER BY id") == before != []


# What is recorded


def test_tombstone_tells_what_and_why(store: Store, policy: Policy) -> None:
    """A tombstone names conversation, account, rule, due, as-of, run, policy and the counts of children."""
    (id_,) = fill(store, 1)
    store.execute("INSERT INTO attachments VALUES (gen_random_uuid(), %s, NULL)", id_)
    result = swept(store, policy)
    assert store.execute(
        "SELECT record, record_id, conversation_id, account_id, rule, due_at, as_of, run_id, policy_digest, children, "
        "approved, purged_at FROM sweeper.tombstones"
    ) == [
        (
            "conversation",
            id_,
            id_,
            ACCOUNT,
            "standard",
            instant("2026-03-03T00:00:00Z"),
            instant(AS_OF),
            result.run_id,
            policy.digest,
            {"store.messages": 2, "store.attachments": 1},
            False,
            instant(AS_OF),
        )
    ]


def test_counts_of_children_are_each_conversations_own(store: Store, policy: Policy) -> None:
    """Each tombstone counts the children of its own conversation; a conversation without children counts none."""
    ids = fill(store, 3)
    store.execute("DELETE FROM messages WHERE conversation_id = %s", ids[0])
    store.execute(
        "INSERT INTO messages (id, conversation_id) SELECT gen_random_uuid(), %s FROM generate_series(1, 5)", ids[1]
    )
    store.execute(
        "INSERT INTO attachments SELECT gen_random_uuid(), %s, 'memory://x' FROM generate_series(1, 3)", ids[2]
    )
    swept(store, policy)
    assert dict(store.execute("SELECT record_id, children FROM sweeper.tombstones")) == {
        ids[0]: {},
        ids[1]: {"store.messages": 7},
        ids[2]: {"store.messages": 2, "store.attachments": 3},
    }


def test_evidence_holds_no_content(store: Store, policy: Policy) -> None:
    """No table of the sweeper holds a word of a message or of a transcript, also where rows failed or were spared."""
    ids = fill(store, 6)
    store.execute(
        "INSERT INTO feedback (id, account_id, kind, submitted_at, transcript) "
        "VALUES (gen_random_uuid(), %s, 'survey', '2020-01-01Z', %s)",
        ACCOUNT,
        SECRET,
    )
    refuse(store, "conversations", "id", ids[0], "raise")
    store.execute(
        "CREATE FUNCTION store.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF OLD.conversation_id = '{ids[1]}' THEN RAISE EXCEPTION 'no %', OLD.body USING DETAIL = OLD.body; END IF; "
        "RETURN OLD; END $$"
    )
    store.execute("CREATE TRIGGER tell BEFORE DELETE ON messages FOR EACH ROW EXECUTE FUNCTION store.tell()")
    protections.place_hold(store.acting("officer").database(), "m", None, ids[2], instant(AS_OF))
    result = swept(store, policy).as_json()
    assert (result["purged"], result["failed"], result["held"], result["feedback_purged"]) == (3, 2, 1, 1)
    assert SECRET not in texts(store)
    assert SECRET not in json.dumps(to_json(result))


def test_feedback_has_its_own_tombstone(store: Store, policy: Policy) -> None:
    """A purged feedback row is recorded as feedback, and the purge of its conversation does not touch younger feedback."""
    (id_,) = fill(store, 1)
    for at in ("2020-01-01Z", "2026-01-20Z"):
        store.execute(
            "INSERT INTO feedback (id, account_id, conversation_id, kind, submitted_at) "
            "VALUES (gen_random_uuid(), %s, %s, 'thumbs', %s)",
            ACCOUNT,
            id_,
            at,
        )
    old = store.execute("SELECT id::text FROM feedback ORDER BY submitted_at LIMIT 1")[0][0]
    result = swept(store, policy).as_json()
    assert (result["purged"], result["feedback_purged"]) == (1, 1)
    assert store.execute("SELECT submitted_at FROM feedback") == [(instant("2026-01-20T00:00:00Z"),)]
    assert store.execute(
        "SELECT record_id, conversation_id, account_id, rule, due_at FROM sweeper.tombstones WHERE record = 'feedback'"
    ) == [(old, id_, ACCOUNT, "feedback", instant("2025-01-01T00:00:00Z"))]


def test_tombstone_and_purge_stand_or_fall_together(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A purge whose evidence cannot be written is undone."""
    ids = fill(store, 3)
    store.execute(f"ALTER TABLE sweeper.tombstones ADD CHECK (record_id <> '{ids[1]}')")
    result = swept(store, policy).as_json()
    assert store.left() == {ids[1]}
    assert (result["purged"], result["failed"], result["outcome"]) == (2, 1, "failed")
    assert store.execute("SELECT count(*) FROM messages") == [(2,)]
    assert buried(store) == [ids[0], ids[2]]


def test_run_that_can_purge_nothing_stops(store: Store, policy: Policy) -> None:
    """Where record after record fails and none is purged, the run stops, says so and is recorded as failed."""
    fill(store, 150)
    store.execute(
        "CREATE FUNCTION store.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
        "CREATE TRIGGER keep BEFORE DELETE ON messages FOR EACH ROW EXECUTE FUNCTION store.keep()"
    )
    with pytest.raises(SweeperError, match="100 records could not be purged, and none was purged"):
        swept(store, policy)
    assert len(store.left()) == 150
    assert store.execute("SELECT outcome FROM sweeper.runs") == [("failed",)]
    assert events(store).count("purge_failed") == 100


# Runs


def test_run_is_recorded_from_start_to_end(store: Store, policy: Policy) -> None:
    """A run leaves one row with its outcome and its result, and an event each for its opening and closing."""
    fill(store, 3)
    result = swept(store, policy)
    assert store.execute(
        "SELECT id, store, as_of, policy_name, policy_digest, outcome, started_at, finished_at, plan_changes, "
        "consent_events, approval FROM sweeper.runs"
    ) == [
        (
            result.run_id,
            "store",
            instant(AS_OF),
            policy.name,
            policy.digest,
            "completed",
            instant(AS_OF),
            instant(AS_OF),
            1,
            0,
            None,
        )
    ]
    assert store.execute("SELECT result FROM sweeper.runs") == [(to_json(result),)]
    assert result.as_json()["purged"] == 3
    assert events(store) == ["run_opened", "policy_recorded", "run_closed"]


def test_refused_run_is_recorded(store: Store, policy: Policy) -> None:
    """A refused run has a row, its reason and an event, purges nothing and lets the next run begin at once."""
    ids = fill(store, 3)
    with pytest.raises(RefusedError) as refused:
        sweep(store.job(policy, AS_OF))
    assert (refused.value.guard, refused.value.exit_code) == ("history", 3)
    rows = store.execute("SELECT outcome, result, finished_at FROM sweeper.runs")
    assert rows == [("refused", refused.value.as_json(), instant(AS_OF))]
    assert events(store) == ["run_opened", "run_closed", "refusal"]
    assert store.left() == set(ids)
    assert swept(store, policy).as_json()["purged"] == 3


def test_failed_run_is_recorded(store: Store, policy: Policy) -> None:
    """A run with a row that failed is recorded as failed, and names that row in an event without further words."""
    ids = fill(store, 2)
    refuse(store, "conversations", "id", ids[0], "raise")
    swept(store, policy)
    assert store.execute("SELECT outcome, result ->> 'failed' FROM sweeper.runs") == [("failed", "1")]
    assert store.execute("SELECT details FROM sweeper.events WHERE kind = 'purge_failed'") == [
        ({"record": f"conversation {ids[0]}", "sqlstate": "P0001"},)
    ]


def test_holds_leave_events(store: Store) -> None:
    """Placing, releasing and dropping a hold leaves an event each, whoever did it."""
    database = store.acting("officer").database()
    protections.place_hold(database, "m", None, "c", instant(AS_OF))
    protections.release_holds(database, "m", None, instant(AS_OF))
    store.execute("DELETE FROM sweeper.legal_holds")
    assert events(store) == ["hold_added", "hold_changed", "hold_dropped"]


def test_killed_before_its_end_is_counted_by_its_own_tombstones(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstones of an interrupted run stay its own; the next run's result counts only what it purged itself."""
    ids = fill(store, 2)
    once_before(monkeypatch, evidence, "purged_by_rule", lambda _: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        swept(store, policy, lease={"seconds": 1})
    result = swept(store, policy, lease={"seconds": 1}).as_json()
    assert (result["purged"], result["by_rule"]) == (0, {})
    assert buried(store) == ids


def test_emptied_holds_and_orders_leave_an_event(store: Store) -> None:
    """Emptying the holds or the orders leaves an event, as dropping each would."""
    store.execute("TRUNCATE sweeper.legal_holds; TRUNCATE sweeper.erasure_orders")
    assert events(store) == ["hold_truncated", "order_truncated"]


def test_lost_lease_row(store: Store, policy: Policy) -> None:
    """A lease that somebody deleted is made again with a higher token: a new run is a run of its own."""
    fill(store, 1)
    first = swept(store, policy).run_id
    store.execute("DELETE FROM sweeper.lease")
    again = swept(store, policy)
    assert (again.run_id > first, again.as_json()["purged"]) == (True, 0)


def test_portions_of_one_row(store: Store, policy: Policy) -> None:
    """However little one transaction may take, all is purged, without calls inside calls."""
    count = 130
    depth = len(inspect.stack(0))
    ids = fill(store, count)
    job = store.job(policy, AS_OF, guards=GUARDS, purge={"batch": count, "batch_children": 1})
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(
        depth + 120
    )  # a sweep needs some 60, calls inside calls one more for each of its first hundred
    try:
        result = sweep(job).as_json()
    finally:
        sys.setrecursionlimit(before)
    assert (result["purged"], store.left()) == (len(ids), set())


def test_tombstone_names_the_account_of_the_locked_row(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation that changed hands after it was proposed is buried under its present account."""
    (id_,) = fill(store, 1)
    other = "acc0ffee-0000-4000-8000-000000000002"
    store.execute("INSERT INTO accounts (id, created_at) VALUES (%s, '2019-01-01Z')", other)
    store.execute("INSERT INTO plan_changes (account_id, effective_at, plan) VALUES (%s, '-infinity', 'free')", other)
    once_before(monkeypatch, fence, "share", lambda _: store.execute("UPDATE conversations SET account_id = %s", other))
    swept(store, policy)
    assert store.execute("SELECT record_id, account_id FROM sweeper.tombstones") == [(id_, other)]


def test_locked_feedback_is_tried_again(store: Store, policy: Policy) -> None:
    """Feedback that others hold locked is waited for at the end, and counted as spared where the wait is too long."""
    store.execute(
        "INSERT INTO feedback (id, kind, submitted_at) SELECT gen_random_uuid(), 'thumbs', '2016-06-01Z' "
        "FROM generate_series(1, 2)"
    )
    with store.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT 1 FROM feedback LIMIT 1 FOR UPDATE")
        result = swept(store, policy).as_json()
    assert (result["feedback_purged"], result["spared_by_reason"]) == (1, {"locked": 1})
    assert swept(store, policy).as_json()["feedback_purged"] == 1


def test_order_for_another_store_of_the_database(store: Store, policy: Policy) -> None:
    """An erasure order that names another store of the same database erases nothing here; one that names none does."""
    ids = fill(store, 2)
    store.execute("UPDATE conversations SET last_activity_at = '2026-06-20Z'")
    store.execute(
        "INSERT INTO sweeper.erasure_orders (reference, conversation_id, recorded_at, due_at, store) VALUES "
        "('theirs', %s, NULL, '2026-06-25Z', 'other'), ('ours', %s, NULL, '2026-06-25Z', NULL)",
        *ids,
    )
    assert swept(store, policy).as_json()["by_rule"] == {"erasure_order": 1}
    assert store.left() == {ids[0]}


def test_row_security_never_reads_as_nothing(store: Store, policy: Policy) -> None:
    """Where row security would hide rows from the role, the run fails: what is hidden must not read as "nothing there"."""
    ids = fill(store, 2)
    store.execute("ALTER TABLE consent_events ENABLE ROW LEVEL SECURITY")
    with pytest.raises(SweeperError, match="row-level security"):
        swept(store, policy)
    store.execute("ALTER TABLE consent_events DISABLE ROW LEVEL SECURITY")
    assert store.left() == set(ids)
    assert swept(store, policy).as_json()["purged"] == 2


# Trees of foreign keys

ACTIONS = ("CASCADE", "RESTRICT", "NO ACTION", "NO ACTION DEFERRABLE INITIALLY DEFERRED")


@pytest.mark.parametrize(("upper", "count"), [("CASCADE", 1), ("CASCADE", 3), ("RESTRICT", 3), ("NO ACTION", 1)])
def test_grandchildren_go_with_their_conversation(store: Store, policy: Policy, upper: str, count: int) -> None:
    """Children and grandchildren go, unless a foreign key lets them live; those of a kept conversation stay."""
    store.execute(
        f"CREATE TABLE store.drafts (id serial PRIMARY KEY, chat uuid REFERENCES conversations ON DELETE {upper})"
    )
    for lower in ACTIONS:
        store.wipe()
        store.execute("TRUNCATE store.drafts CASCADE")
        ids = fill(store, count + 1)
        store.execute("UPDATE conversations SET last_activity_at = '2026-06-30Z' WHERE id = %s", ids[-1])
        store.execute(
            f"CREATE TABLE store.edits (id serial PRIMARY KEY, draft int REFERENCES drafts ON DELETE {lower})"
        )
        store.execute("CREATE TABLE store.notes (edit int REFERENCES edits ON DELETE RESTRICT)")
        store.execute("INSERT INTO store.drafts (chat) SELECT id FROM conversations, generate_series(1, 2)")
        store.execute("INSERT INTO store.edits (draft) SELECT id FROM store.drafts")
        store.execute("INSERT INTO store.notes SELECT id FROM store.edits")
        result = swept(store, policy).as_json()
        assert (result["purged"], result["failed"]) == (count, 0), lower
        assert store.execute("SELECT DISTINCT chat::text FROM store.drafts") == [(ids[-1],)], lower
        for table in ("drafts", "edits", "notes"):
            assert store.execute(f"SELECT count(*) FROM store.{table}") == [(2,)], (lower, table)
        assert store.execute("SELECT count(*) FROM edits e JOIN drafts d ON d.id = e.draft") == [(2,)], lower
        assert store.execute("SELECT DISTINCT children -> 'store.drafts' FROM sweeper.tombstones") == [(2,)], lower
        store.execute("DROP TABLE store.notes, store.edits")


@pytest.mark.parametrize("action", ["SET NULL", "SET DEFAULT"])
def test_rows_that_a_key_lets_live_stay(store: Store, policy: Policy, action: str) -> None:
    """A row whose key is unset when its parent goes outlives the conversation, with all that hangs on it."""
    fill(store, 2)
    store.execute(
        f"CREATE TABLE store.invoices (id int PRIMARY KEY, chat uuid REFERENCES conversations ON DELETE {action})"
    )
    store.execute("CREATE TABLE store.payments (invoice int REFERENCES invoices ON DELETE RESTRICT)")
    store.execute(f"CREATE TABLE store.likes (message uuid REFERENCES messages ON DELETE {action})")
    store.execute("INSERT INTO store.invoices SELECT row_number() OVER (), id FROM conversations")
    store.execute("INSERT INTO store.payments SELECT id FROM store.invoices")
    store.execute("INSERT INTO store.likes SELECT id FROM messages")
    result = swept(store, policy).as_json()
    assert (result["purged"], result["failed"]) == (2, 0)
    assert store.execute("SELECT count(*), count(chat) FROM store.invoices") == [(2, 0)]
    assert store.execute("SELECT count(*) FROM store.payments") == [(2,)]
    assert store.execute("SELECT count(*), count(message) FROM store.likes") == [(4, 0)]


@pytest.mark.parametrize("action", ["SET NULL", "SET DEFAULT"])
def test_content_goes_even_where_its_key_is_unset(store: Store, policy: Policy, action: str) -> None:
    """Messages go with their conversation although their key would let them live; so does a table that the settings name."""
    fill(store, 2)
    store.execute(
        "ALTER TABLE messages ALTER conversation_id DROP NOT NULL, DROP CONSTRAINT messages_conversation_id_fkey, "
        f"ADD FOREIGN KEY (conversation_id) REFERENCES conversations ON DELETE {action}"
    )
    store.execute(f"CREATE TABLE store.drafts (chat uuid REFERENCES conversations ON DELETE {action})")
    store.execute("INSERT INTO store.drafts SELECT id FROM conversations")
    children = [{"table": "store.drafts", "key": "chat"}]
    result = swept(store, policy, purge={"children": children}).as_json()
    assert (result["purged"], result["failed"]) == (2, 0)
    assert store.execute("SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM store.drafts)") == [(0, 0)]


def test_messages_without_any_key_go(store: Store, policy: Policy) -> None:
    """Messages that no foreign key ties to their conversation go all the same: the contract says whose they are."""
    fill(store, 2)
    store.execute("ALTER TABLE messages DROP CONSTRAINT messages_conversation_id_fkey")
    assert swept(store, policy).as_json()["purged"] == 2
    assert store.execute("SELECT count(*) FROM messages") == [(0,)]
    assert store.execute("SELECT DISTINCT children -> 'store.messages' FROM sweeper.tombstones") == [(2,)]


@pytest.mark.parametrize("action", ["SET NULL", "CASCADE", "NO ACTION"])
def test_messages_of_other_conversations_never_go(store: Store, policy: Policy, action: str) -> None:
    """A second key from messages to conversations takes no message of a kept conversation along."""
    ids = fill(store, 2)
    protections.place_hold(store.acting("officer").database(), "m", None, ids[1], instant(AS_OF))
    store.execute(f"ALTER TABLE messages ADD forked_from uuid REFERENCES conversations ON DELETE {action}")
    store.execute("UPDATE messages SET forked_from = %s WHERE conversation_id = %s", ids[0], ids[1])
    result = swept(store, policy).as_json()
    assert store.execute("SELECT count(*) FROM messages WHERE conversation_id = %s", ids[1]) == [(2,)]
    if action == "SET NULL":
        assert (result["purged"], result["failed"], store.left()) == (1, 0, {ids[1]})
    else:
        assert (result["purged"], result["failed"], store.left()) == (0, 1, set(ids))


@pytest.mark.parametrize("action", ["CASCADE", "RESTRICT", "NO ACTION", "SET NULL"])
def test_messages_that_answer_messages(store: Store, policy: Policy, action: str) -> None:
    """Messages that point to messages of their conversation go together."""
    fill(store, 3)
    store.execute(f"ALTER TABLE messages ADD answers uuid REFERENCES messages ON DELETE {action}")
    store.execute(
        "UPDATE messages m SET answers = (SELECT max(o.id::text)::uuid FROM messages o "
        "WHERE o.conversation_id = m.conversation_id AND o.id::text < m.id::text)"
    )
    result = swept(store, policy).as_json()
    assert (result["purged"], result["failed"]) == (3, 0)
    assert store.execute("SELECT count(*) FROM messages") == [(0,)]


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "NO ACTION"])
def test_conversation_forked_from_a_purged_one_stays(store: Store, policy: Policy, action: str) -> None:
    """A kept conversation that points to a purged one, and is under a legal hold, never goes with it."""
    ids = fill(store, 3)
    store.execute(f"ALTER TABLE conversations ADD forked_from uuid REFERENCES conversations ON DELETE {action}")
    store.execute("UPDATE conversations SET forked_from = %s WHERE id = %s", ids[0], ids[1])
    protections.place_hold(store.acting("officer").database(), "m", None, ids[1], instant(AS_OF))
    swept(store, policy)
    assert ids[1] in store.left()
    assert sorted([*buried(store), *store.left()]) == ids


@pytest.mark.parametrize("action", ["CASCADE", "RESTRICT", "NO ACTION"])
def test_composite_keys(store: Store, policy: Policy, action: str) -> None:
    """Children that name account and conversation go, are counted on the tombstone, and leave no orphan."""
    ids = fill(store, 3)
    _compose(store, action)
    store.execute("UPDATE conversations SET last_activity_at = '2026-06-30Z' WHERE id = %s", ids[2])
    result = swept(store, policy).as_json()
    assert (result["purged"], result["failed"]) == (2, 0)
    assert store.execute("SELECT DISTINCT conversation_id::text FROM messages") == [(ids[2],)]
    assert store.execute("SELECT DISTINCT children -> 'store.messages' FROM sweeper.tombstones") == [(2,)]


@pytest.mark.parametrize("action", ["CASCADE", "NO ACTION"])
def test_message_kept_back_under_a_composite_key_is_no_orphan(store: Store, policy: Policy, action: str) -> None:
    """A trigger that keeps back a message under a composite key keeps the whole conversation, counted as failed."""
    ids = fill(store, 3)
    _compose(store, action)
    refuse(store, "messages", "conversation_id", ids[1], "keep back")
    result = swept(store, policy).as_json()
    assert (store.left(), result["purged"], result["failed"]) == ({ids[1]}, 2, 1)
    assert store.execute("SELECT DISTINCT conversation_id::text FROM messages") == [(ids[1],)]


def _compose(store: Store, action: str) -> None:
    store.execute("ALTER TABLE conversations ADD UNIQUE (account_id, id)")
    store.execute("ALTER TABLE messages DROP CONSTRAINT messages_conversation_id_fkey, ADD account_id uuid")
    store.execute("UPDATE messages SET account_id = %s", ACCOUNT)
    store.execute(
        "ALTER TABLE messages ADD FOREIGN KEY (account_id, conversation_id) "
        f"REFERENCES conversations (account_id, id) ON DELETE {action}"
    )


def test_two_keys_of_one_table_are_counted_together(store: Store, policy: Policy) -> None:
    """A table that names the conversation in two columns is counted by rows that go, not by the last of its keys."""
    (id_,) = fill(store, 1)
    store.execute(
        "CREATE TABLE store.links (source uuid REFERENCES conversations ON DELETE CASCADE, "
        "target uuid REFERENCES conversations ON DELETE CASCADE)"
    )
    store.execute("INSERT INTO store.links SELECT %s, NULL FROM generate_series(1, 3)", id_)
    store.execute("INSERT INTO store.links VALUES (NULL, %s)", id_)
    swept(store, policy)
    assert store.execute("SELECT count(*) FROM store.links") == [(0,)]
    assert store.execute("SELECT children -> 'store.links' FROM sweeper.tombstones") == [(4,)]


@pytest.mark.parametrize("action", ["CASCADE", "RESTRICT"])
def test_partitioned_messages(store: Store, policy: Policy, action: str) -> None:
    """Messages in a partitioned table go, are counted under its name, and leave no orphan in any partition."""
    ids = fill(store, 4)
    store.execute("UPDATE conversations SET last_activity_at = '2026-06-30Z' WHERE id = %s", ids[3])
    store.execute("ALTER TABLE messages RENAME TO old_messages")
    store.execute(
        "CREATE TABLE store.messages (id uuid, conversation_id uuid NOT NULL REFERENCES conversations "
        f"ON DELETE {action}, author text, created_at timestamptz, body text) PARTITION BY HASH (conversation_id)"
    )
    for number in range(3):
        store.execute(
            f"CREATE TABLE store.messages_{number} PARTITION OF store.messages "
            f"FOR VALUES WITH (MODULUS 3, REMAINDER {number})"
        )
    store.execute("INSERT INTO messages SELECT * FROM old_messages")
    store.execute("DROP TABLE old_messages")
    result = swept(store, policy).as_json()
    assert (result["purged"], result["failed"]) == (3, 0)
    assert store.execute("SELECT conversation_id::text, count(*) FROM messages GROUP BY 1") == [(ids[3], 2)]
    assert store.execute("SELECT DISTINCT children FROM sweeper.tombstones") == [({"store.messages": 2},)]


# A store of other tables behind views

FOREIGN = """
CREATE SCHEMA app;
CREATE TABLE app.people (person text PRIMARY KEY, since bigint);
CREATE TABLE app.chats (chat_key text PRIMARY KEY, owner text, started bigint, touched bigint, removed_on bigint);
CREATE TABLE app.lines (line bigserial PRIMARY KEY, chat text NOT NULL, by_user boolean, at bigint, words text);
CREATE TABLE app.files (file bigserial PRIMARY KEY, chat text REFERENCES app.chats, place text);
CREATE TABLE app.reports (report_key text PRIMARY KEY, person text, chat text, at bigint);
CREATE SCHEMA lens;
CREATE VIEW lens.accounts AS
    SELECT person AS id, to_timestamp(since) AS created_at, NULL::timestamptz AS closed_at FROM app.people;
CREATE VIEW lens.plan_changes AS
    SELECT 1::bigint AS id, person AS account_id, '-infinity'::timestamptz AS effective_at, 'free'::text AS plan FROM app.people;
CREATE VIEW lens.consent_events AS
    SELECT 1::bigint AS id, NULL::text AS account_id, NULL::text AS purpose, NULL::boolean AS granted,
           NULL::timestamptz AS recorded_at, NULL::timestamptz AS effective_at WHERE false;
CREATE VIEW lens.conversations AS
    SELECT chat_key AS id, owner AS account_id, 'chat'::text AS kind, 'first_party'::text AS platform, false AS incognito,
           false AS zero_retention, to_timestamp(started) AS created_at, to_timestamp(max(touched)) AS last_activity_at,
           to_timestamp(removed_on) AS deleted_at, NULL::timestamptz AS restored_at, NULL::timestamptz AS flagged_at
    FROM app.chats GROUP BY chat_key;
CREATE VIEW lens.messages AS
    SELECT line AS id, chat AS conversation_id, CASE WHEN by_user THEN 'user' ELSE 'assistant' END AS author,
           to_timestamp(at) AS created_at, words AS body FROM app.lines;
CREATE VIEW lens.attachments AS SELECT file AS id, chat AS conversation_id, place AS uri FROM app.files;
CREATE VIEW lens.feedback AS
    SELECT report_key AS id, person AS account_id, chat AS conversation_id, 'thumbs'::text AS kind,
           to_timestamp(at) AS submitted_at, NULL::int AS rating, NULL::text AS transcript FROM app.reports;
INSERT INTO app.people VALUES ('Ann', extract(epoch FROM timestamptz '2019-01-01Z'));
INSERT INTO app.chats
    SELECT name, 'Ann', extract(epoch FROM timestamptz '2026-01-01Z'), extract(epoch FROM touched), extract(epoch FROM removed)
    FROM (VALUES ('old', timestamptz '2026-02-01Z', NULL::timestamptz), ('Removed', '2026-06-20Z', '2026-05-01Z'),
                 ('young', '2026-06-20Z', NULL), ('HELD', '2026-02-01Z', NULL)) v (name, touched, removed);
INSERT INTO app.lines (chat, by_user, at, words)
    SELECT chat_key, true, started, 'secret words' FROM app.chats, generate_series(1, 3);
INSERT INTO app.files (chat, place) SELECT chat_key, 'memory://lens/' || chat_key FROM app.chats;
INSERT INTO app.reports VALUES ('r1', 'Ann', 'old', extract(epoch FROM timestamptz '2020-01-01Z')),
                               ('r2', 'Ann', 'old', extract(epoch FROM timestamptz '2026-01-01Z'))
"""
LENS: dict[str, Any] = {
    "store": {"schema": "lens"},
    "purge": {
        "table": "app.chats",
        "key": "chat_key",
        "children": [{"table": "app.lines", "key": "chat"}],
        "feedback": {"table": "app.reports", "key": "report_key"},
    },
}


def test_store_of_views(store: Store, policy: Policy) -> None:
    """A store whose relations are views over other tables, with text ids and epoch seconds, is swept in those tables."""
    for statement in FOREIGN.split(";"):
        store.execute(statement)
    protections.place_hold(store.acting("officer").database(), "m", None, "HELD", instant(AS_OF))
    result = sweep(store.job(policy, AS_OF, guards=GUARDS, **LENS)).as_json()
    assert (result["purged"], result["held"], result["failed"], result["feedback_purged"]) == (2, 1, 0, 1)
    assert result["by_rule"] == {"deleted": 1, "standard": 1}
    for table, column in (("chats", "chat_key"), ("lines", "chat"), ("files", "chat")):
        left = {row[0] for row in store.execute(f"SELECT DISTINCT {column} FROM app.{table}")}
        assert left == {"young", "HELD"}, table
    assert store.execute("SELECT report_key FROM app.reports") == [("r2",)]
    assert dict(store.execute("SELECT record_id, children FROM sweeper.tombstones WHERE record = 'conversation'")) == {
        id_: {"app.lines": 3, "app.files": 1} for id_ in ("old", "Removed")
    }
    assert SECRET not in texts(store)
    assert sweep(store.job(policy, AS_OF, guards=GUARDS, **LENS)).as_json()["purged"] == 0


@pytest.mark.parametrize("store", ["uuid", "text", "bigint"], indirect=True)
def test_every_id_type_is_buried_as_written(store: Store, policy: Policy) -> None:
    """The ids on a tombstone are those of the store, whatever their type."""
    account, conversation = store.id("a1"), store.id("c1")
    store.load(
        {
            "accounts": [{"id": "a1", "plans": [{"effective_at": "-infinity", "plan": "free"}], "consent": []}],
            "conversations": [
                {
                    "id": "c1",
                    "account": "a1",
                    "created_at": "2026-01-01T00:00:00Z",
                    "last_activity_at": "2026-02-01T00:00:00Z",
                    "messages": [{"id": "m1", "author": "user", "created_at": "2026-01-01T00:00:00Z"}],
                }
            ],
            "holds": [],
            "orders": [],
        }
    )
    swept(store, policy)
    assert store.execute("SELECT conversation_id, account_id FROM sweeper.tombstones") == [(conversation, account)]
    assert store.execute("SELECT count(*) FROM messages") == [(0,)]


@pytest.mark.parametrize("table", ["accounts", "plan_changes", "consent_events", "feedback"])
def test_accounts_histories_and_feedback_outlive_a_conversation(store: Store, policy: Policy, table: str) -> None:
    """A key from a record that outlives its conversation is unset; one that would take it along is refused beforehand."""
    ids = fill(store, 2)
    store.execute("INSERT INTO feedback (id, kind, submitted_at) VALUES (gen_random_uuid(), 'thumbs', '2026-06-01Z')")
    before = store.execute(f"SELECT count(*) FROM {table}")
    store.execute(f"ALTER TABLE {table} ADD latest uuid REFERENCES conversations ON DELETE CASCADE")
    store.execute(f"UPDATE {table} SET latest = %s", ids[0])
    with pytest.raises(ConfigurationError, match="must outlive it"):
        swept(store, policy)
    store.execute(
        f"ALTER TABLE {table} DROP CONSTRAINT {table}_latest_fkey, "
        "ADD FOREIGN KEY (latest) REFERENCES conversations ON DELETE SET NULL"
    )
    assert swept(store, policy).as_json()["purged"] == 2
    assert store.execute(f"SELECT count(*), count(latest) FROM {table}") == [(before[0][0], 0)]
