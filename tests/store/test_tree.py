"""What goes with a conversation and what never does, whatever the store's tables and the settings look like."""

from typing import Any

import pytest

from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError
from sweeper.policy.schema import Policy
from sweeper.runs.sweep import sweep
from tests.store.stores import Store
from tests.store.test_races import ACCOUNT, AS_OF, GUARDS, fill, swept

VIEWS = """
CREATE SCHEMA lens;
CREATE VIEW lens.accounts AS SELECT id, created_at, closed_at FROM store.accounts;
CREATE VIEW lens.plan_changes AS SELECT * FROM store.plan_changes;
CREATE VIEW lens.consent_events AS SELECT * FROM store.consent_events;
CREATE VIEW lens.conversations AS SELECT * FROM store.conversations;
CREATE VIEW lens.messages AS SELECT m.id, m.conversation_id, m.author, m.created_at, m.body FROM store.messages m;
CREATE VIEW lens.attachments AS SELECT * FROM store.attachments;
CREATE VIEW lens.feedback AS SELECT * FROM store.feedback
"""
TABLE = {"table": "store.conversations"}


def with_views(store: Store) -> None:
    """Make every relation of the contract a view in the schema `lens`."""
    for statement in VIEWS.split(";"):
        store.execute(statement)


def seen(store: Store, policy: Policy, **purge: Any) -> dict[str, Any]:
    """What a sweep says that reads the views."""
    sections: dict[str, Any] = {"store": {"schema": "lens"}, "purge": {**TABLE, **purge}, "guards": GUARDS}
    found: dict[str, Any] = to_json(sweep(store.job(policy, AS_OF, **sections)))
    return found


@pytest.mark.parametrize("action", ["SET NULL", "NO ACTION", "RESTRICT"])
@pytest.mark.parametrize("table", ["accounts", "plan_changes", "feedback"])
def test_what_views_show_of_accounts_outlives(store: Store, policy: Policy, table: str, action: str) -> None:
    """A table behind a view of accounts, histories or feedback never loses a row, however a key ties it to conversations."""
    with_views(store)
    ids = fill(store, 2)
    store.execute("INSERT INTO feedback (id, kind, submitted_at) VALUES (gen_random_uuid(), 'thumbs', '2026-06-01Z')")
    before = store.execute(f"SELECT count(*) FROM {table}")
    store.execute(f"ALTER TABLE {table} ADD latest uuid REFERENCES conversations ON DELETE {action}")
    store.execute(f"UPDATE {table} SET latest = %s", ids[0])
    result = seen(store, policy)
    assert store.execute(f"SELECT count(*) FROM {table}") == before
    assert (result["purged"], result["failed"]) == ((2, 0) if action == "SET NULL" else (1, 1))


def test_key_that_would_take_an_account_along_is_refused(store: Store, policy: Policy) -> None:
    """Behind a view, too, a key that would delete an account with its conversation stops the run before it begins."""
    with_views(store)
    fill(store, 1)
    store.execute("ALTER TABLE accounts ADD latest uuid REFERENCES conversations ON DELETE CASCADE")
    with pytest.raises(ConfigurationError, match="must outlive it"):
        seen(store, policy)


def test_messages_behind_a_view_without_a_key(store: Store, policy: Policy) -> None:
    """Where no key ties the table behind a view of messages, nothing is purged until the settings name it."""
    with_views(store)
    fill(store, 2)
    store.execute("ALTER TABLE messages DROP CONSTRAINT messages_conversation_id_fkey")
    with pytest.raises(ConfigurationError, match=r"messages is a view.*\[\[purge.children\]\]"):
        seen(store, policy)
    named = [{"table": "store.messages", "key": "conversation_id"}]
    assert seen(store, policy, children=named)["purged"] == 2
    assert store.execute("SELECT count(*) FROM messages") == [(0,)]


def test_view_whose_id_is_another_column(store: Store, policy: Policy) -> None:
    """Where the view's id is not the key column that the settings name, nothing is deleted and every row is counted."""
    with_views(store)
    ids = fill(store, 2)
    store.execute("ALTER TABLE conversations ADD number uuid UNIQUE")
    store.execute(
        "GRANT SELECT (ctid, tableoid) ON messages, attachments TO sweeper"
    )  # where they lie tells that they go
    store.execute(
        "UPDATE conversations SET number = CASE id WHEN %s THEN %s::uuid ELSE %s::uuid END", ids[0], ids[1], ids[0]
    )
    store.execute("UPDATE conversations SET last_activity_at = '2026-06-30Z' WHERE id = %s", ids[1])
    result = seen(store, policy, key="number")
    assert (result["purged"], result["failed"], result["outcome"]) == (0, 1, "failed")
    assert store.left() == set(ids)
    store.execute("UPDATE conversations SET number = gen_random_uuid()")
    result = seen(store, policy, key="number")
    assert (result["purged"], result["failed"], result["outcome"]) == (0, 1, "failed")
    assert store.left() == set(ids)


def test_view_that_shows_a_row_twice(store: Store, policy: Policy) -> None:
    """A conversation, or its account, that a view shows more than once is kept and counted: its rows may differ."""
    with_views(store)
    ids = fill(store, 2)
    store.execute("CREATE TABLE store.flags (chat uuid, at timestamptz)")
    store.execute("INSERT INTO store.flags VALUES (%s, NULL), (%s, '2026-06-01Z')", ids[0], ids[0])
    store.execute("ALTER TABLE conversations DROP flagged_at CASCADE")
    store.execute(
        "CREATE VIEW lens.conversations AS SELECT c.*, f.at AS flagged_at FROM store.conversations c "
        "LEFT JOIN store.flags f ON f.chat = c.id"
    )
    result = seen(store, policy)
    assert (result["purged"], result["unclassified_by_reason"]) == (1, {"repeated_row": 1})
    assert store.left() == {ids[0]}
    store.execute("DELETE FROM store.flags")
    store.execute("CREATE OR REPLACE VIEW lens.accounts AS SELECT a.* FROM store.accounts a, generate_series(1, 2)")
    result = seen(store, policy)
    assert (result["purged"], result["unclassified_by_reason"]) == (0, {"repeated_row": 1})


def test_rows_without_an_id_stop_nothing(store: Store, policy: Policy) -> None:
    """A conversation without an id is never proposed, a history entry without one is a doubt; the others are purged."""
    with_views(store)
    ids = fill(store, 2)
    store.execute(
        "CREATE OR REPLACE VIEW lens.conversations AS SELECT NULLIF(id, %s) AS id, account_id, kind, platform, incognito, "
        "zero_retention, created_at, last_activity_at, deleted_at, restored_at, flagged_at FROM store.conversations".replace(
            "%s", f"'{ids[0]}'"
        )
    )
    assert seen(store, policy)["purged"] == 1
    assert store.left() == {ids[0]}
    store.execute("CREATE OR REPLACE VIEW lens.conversations AS SELECT * FROM store.conversations")
    store.execute(
        "CREATE OR REPLACE VIEW lens.plan_changes AS SELECT NULL::bigint AS id, account_id, effective_at, plan "
        "FROM store.plan_changes"
    )
    assert seen(store, policy)["unclassified_by_reason"] == {"plan_change": 1}


WRONG: dict[str, dict[str, Any]] = {
    "the conversations themselves": {"children": [{"table": "store.conversations", "key": "account_id"}]},
    "accounts": {"children": [{"table": "store.accounts", "key": "id"}]},
    "messages by their own id": {"children": [{"table": "store.messages", "key": "id"}]},
    "feedback as a child": {"children": [{"table": "store.feedback", "key": "conversation_id"}]},
    "conversations as feedback": {"feedback": {"table": "store.conversations"}},
    "messages as conversations": {"table": "store.messages", "key": "conversation_id"},
    "a column of another type": {"children": [{"table": "store.notes", "key": "number"}]},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_table_in_the_settings(store: Store, policy: Policy, wrong: str) -> None:
    """Settings that name a table which cannot be meant are refused before anything is purged."""
    ids = fill(store, 2)
    store.execute("CREATE TABLE store.notes (chat uuid, number int)")
    with pytest.raises(ConfigurationError, match=r"cannot be meant.*Nothing was purged"):
        swept(store, policy, purge=WRONG[wrong])
    assert store.left() == set(ids)
    assert store.execute("SELECT id::text FROM accounts") == [(ACCOUNT,)]


@pytest.mark.parametrize("type_", ["citext", "numeric"])
def test_ids_that_compare_otherwise_than_they_read(store: Store, policy: Policy, type_: str) -> None:
    """An id type that takes two spellings for one is refused: what is read and what is deleted could differ."""
    if type_ == "citext" and not store.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'citext'"):
        type_ = "numeric"
    if type_ == "citext":
        store.execute("CREATE EXTENSION citext SCHEMA store")
    store.execute("ALTER TABLE messages DROP CONSTRAINT messages_conversation_id_fkey")
    store.execute(f"ALTER TABLE messages ALTER conversation_id TYPE {type_} USING NULL")
    with pytest.raises(ConfigurationError, match=rf"messages.conversation_id is {type_}, must be one of"):
        swept(store, policy)
