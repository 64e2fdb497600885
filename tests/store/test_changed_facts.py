"""A fact outside of the conversation's row that changes between its reading and the commit of the purge always wins.

Each change is committed by a connection of its own after the batch has deleted its rows and before it commits.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection

from sweeper.policy.schema import Policy
from sweeper.postgres import evidence, purge
from sweeper.runs.result import Result
from tests.processes import until
from tests.store.stores import Store
from tests.store.test_races import (
    ACCOUNT,
    another,
    buried,
    fill,
    is_waiting,
    key,
    once_before,
    swept,
)

OTHER = "acc0ffee-0000-4000-8000-000000000002"
GRANT = (
    "INSERT INTO consent_events (account_id, purpose, granted, recorded_at) "
    f"VALUES ('{ACCOUNT}', 'model_improvement', true, '2026-01-10Z')"
)
ORDER = "INSERT INTO sweeper.erasure_orders (reference, {named}, recorded_at, due_at) VALUES ('o', '{id}', NULL, '2026-06-01Z')"
FACTS: dict[str, tuple[list[str], str]] = {
    "account reopened": (
        [GRANT, f"UPDATE accounts SET closed_at = '2026-04-01Z' WHERE id = '{ACCOUNT}'"],
        f"UPDATE accounts SET closed_at = NULL WHERE id = '{ACCOUNT}'",
    ),
    "plan changed": (
        [],
        f"INSERT INTO plan_changes (account_id, effective_at, plan) VALUES ('{ACCOUNT}', '2026-01-15Z', 'unheard of')",
    ),
    "plan withdrawn": ([], "DELETE FROM plan_changes WHERE account_id = '" + ACCOUNT + "'"),
    "granted": ([], GRANT),
    "order for the account withdrawn": (
        [GRANT, ORDER.format(named="account_id", id=ACCOUNT)],
        "DELETE FROM sweeper.erasure_orders",
    ),
    "order for the conversation put off": (
        [GRANT, ORDER.format(named="conversation_id", id=key(1))],
        "UPDATE sweeper.erasure_orders SET due_at = '2027-01-01Z'",
    ),
    "account gone": ([], f"DELETE FROM accounts WHERE id = '{ACCOUNT}'"),
}
"""What makes the conversation due, and the change after which it is not."""


def arrange(store: Store, before: list[str]) -> None:
    """Two conversations that are due, each of an account of its own; what changes is about the first one's."""
    store.execute("ALTER TABLE plan_changes DROP CONSTRAINT IF EXISTS plan_changes_account_id_fkey")
    store.execute("ALTER TABLE conversations DROP CONSTRAINT IF EXISTS conversations_account_id_fkey")
    fill(store, 2)
    store.execute("INSERT INTO accounts (id, created_at) VALUES (%s, '2019-01-01Z')", OTHER)
    store.execute("INSERT INTO plan_changes (account_id, effective_at, plan) VALUES (%s, '-infinity', 'free')", OTHER)
    store.execute("UPDATE conversations SET account_id = %s WHERE id = %s", OTHER, key(2))
    for statement in before:
        store.execute(statement)


def commit_meanwhile(
    monkeypatch: pytest.MonkeyPatch, store: Store, change: str, record: str | None = None
) -> list[int]:
    """Commit a change through another connection once a batch, that of `record` if one is named, has deleted its rows.

    Returns:
        A list that grows by one with every batch that gets so far.
    """
    original, left, tried = evidence.insert_tombstones, [change], list[int]()

    def bury(connection: Connection, *args: Any) -> None:
        tried.append(len(args[2]))
        if left and (record is None or record in {stone.record_id for stone in args[2]}):
            store.execute(left.pop())
        original(connection, *args)

    monkeypatch.setattr(evidence, "insert_tombstones", bury)
    return tried


@pytest.mark.parametrize("name", FACTS)
def test_fact_that_changes_while_its_conversation_is_purged(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The conversation is kept and leaves no tombstone, the rest of its batch is purged, and the next run finds it not due."""
    before, change = FACTS[name]
    arrange(store, before)
    commit_meanwhile(monkeypatch, store, change, key(1))
    result = swept(store, policy)
    assert store.left() == {key(1)}
    assert buried(store) == [key(2)]
    assert result.as_json()["purged"] == 1
    assert result.as_json()["spared"] + result.as_json()["unclassified"] == 1
    assert result.is_done
    assert swept(store, policy).count == 0


@pytest.mark.parametrize("name", FACTS)
def test_fact_is_what_makes_it_due(store: Store, policy: Policy, name: str) -> None:
    """Without the change both conversations are purged: the tests above show something."""
    arrange(store, FACTS[name][0])
    assert swept(store, policy).count == 2


def test_change_that_decides_nothing(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change after which the conversation is due all the same, under the same rule, stops no batch."""
    arrange(store, [])
    change = GRANT.replace("'2026-01-10Z'", "'2026-06-20Z'")
    tried = commit_meanwhile(monkeypatch, store, change)
    assert swept(store, policy).count == 2
    assert len(tried) == 1


def test_hold_that_passed_the_fence(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hold that no fence kept waiting, as where somebody switched the trigger off, is seen before the commit."""
    arrange(store, [])
    store.execute("ALTER TABLE sweeper.legal_holds DISABLE TRIGGER fence")
    hold = f"INSERT INTO sweeper.legal_holds (matter, account_id) VALUES ('m', '{ACCOUNT.upper()}')"
    commit_meanwhile(monkeypatch, store, hold)
    result = swept(store, policy, guards={"history": False, "volume": False, "fence": False}).as_json()
    assert store.left() == {key(1)}
    assert (result["purged"], result["spared_by_reason"]) == (1, {"protected_after_as_of": 1})


def test_feedback_whose_order_is_withdrawn_meanwhile(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feedback that only an order makes due is kept where the order is withdrawn before the commit."""
    arrange(store, [ORDER.format(named="account_id", id=ACCOUNT)])
    store.execute("DELETE FROM messages; DELETE FROM conversations")
    for owner in (ACCOUNT, OTHER):
        store.execute(
            "INSERT INTO feedback (id, account_id, kind, submitted_at) VALUES (gen_random_uuid(), %s, 'thumbs', '2026-01-01Z')",
            owner,
        )
    commit_meanwhile(monkeypatch, store, "DELETE FROM sweeper.erasure_orders")
    assert swept(store, policy).as_json()["feedback_purged"] == 0
    assert store.execute("SELECT count(*) FROM feedback") == [(2,)]
    assert buried(store) == []


@pytest.mark.parametrize("seam", ["count_children", "remember_objects", "bound_by_budget"])
@pytest.mark.parametrize("count", [1, 2])
def test_message_that_no_key_keeps_out(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch, seam: str, count: int
) -> None:
    """A message that comes under a locked conversation, where no foreign key guards the table, is never deleted with it."""
    fill(store, count)
    store.execute("ALTER TABLE messages DROP CONSTRAINT messages_conversation_id_fkey")
    write = (
        "INSERT INTO messages (id, conversation_id, author, created_at, body) "
        f"VALUES (gen_random_uuid(), '{key(1)}', 'user', '2026-06-30Z', 'words')"
    )
    once_before(monkeypatch, purge, seam, lambda _: store.execute(write))
    children = {"children": [{"table": "store.messages", "key": "conversation_id"}]}
    result = swept(store, policy, purge=children).as_json()
    assert store.left() == {key(1)}
    assert store.execute("SELECT count(*) FROM messages") == [(3,)]
    assert (result["purged"], result["spared_by_reason"]) == (count - 1, {"stale_last_activity": 1})


def test_change_during_a_deferred_trigger(store: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """What commits while a deferred trigger of the application runs is seen, too: it runs before the last look."""
    arrange(store, [])
    store.execute(
        "CREATE FUNCTION store.wait() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$"
    )
    store.execute(
        "CREATE CONSTRAINT TRIGGER wait AFTER DELETE ON conversations DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION store.wait()"
    )
    with another(store) as gate:
        gate.execute("SELECT pg_advisory_xact_lock(42)")
        running = threads.submit(
            swept, store, policy, database={"url": store.url, "lock_timeout_ms": 10_000}, purge={"batch": 1}
        )
        until(is_waiting(store, "SET CONSTRAINTS"))
        store.execute(GRANT)
        gate.execute("ROLLBACK")
        result: Result = running.result(30)
    assert store.left() == {key(1)}
    assert result.count == 1


def test_fact_that_never_rests(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation whose facts change each time it is tried is counted as changed; the others are purged."""
    arrange(store, [])
    original, granted = evidence.insert_tombstones, [0]

    def bury(connection: Connection, *args: Any) -> None:
        original(connection, *args)
        if key(1) in {stone.record_id for stone in args[2]}:
            granted[0] += 1
            store.execute(GRANT)

    reread = _forgetting(store)
    monkeypatch.setattr(evidence, "insert_tombstones", bury)
    monkeypatch.setattr("sweeper.postgres.facts.FactsReader.conversations", reread)
    result = swept(store, policy).as_json()
    assert store.left() == {key(1)}
    assert (result["purged"], result["spared_by_reason"], result["failed"]) == (1, {"changed": 1}, 0)
    assert granted[0] > 1


def _forgetting(store: Store) -> Callable[..., Any]:
    """A reading of facts before which the application takes back what it granted, so that it is due again each time."""
    from sweeper.postgres.facts import FactsReader

    original = FactsReader.conversations

    def conversations(self: FactsReader, connection: Connection, *args: Any, **named: Any) -> Any:
        store.execute("DELETE FROM consent_events")
        return original(self, connection, *args, **named)

    return conversations
