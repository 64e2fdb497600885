"""Erasure orders withdrawn while a run works: once a withdrawal has returned, no purge is due because of the order."""

from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import Connection

from sweeper.policy.schema import Policy
from sweeper.postgres import protections, purge
from tests.processes import until
from tests.store.stores import Store
from tests.store.test_changed_facts import FACTS, arrange
from tests.store.test_races import LATER, another, buried, is_waiting, key, once_before, swept

ORDERED = FACTS["order for the account withdrawn"][0]
"""The first conversation is due only by an order for its account."""
BY_HAND = "UPDATE sweeper.erasure_orders SET withdrawn_at = '2026-07-01Z'"


@pytest.mark.parametrize("by_command", [True, False], ids=["command", "sql"])
def test_withdrawal_waits_for_the_batch_at_work(
    store: Store,
    policy: Policy,
    monkeypatch: pytest.MonkeyPatch,
    threads: ThreadPoolExecutor,
    by_command: bool,  # noqa: FBT001 — a test's parameter
) -> None:
    """A withdrawal while its conversation is being deleted returns only when the conversation is gone, with its tombstone."""
    arrange(store, [*ORDERED, f"DELETE FROM conversations WHERE id = '{key(2)}'"])
    database = store.acting("officer").database()
    seen: list[Future[set[str]]] = []

    def withdraw() -> set[str]:
        if by_command:
            assert len(protections.withdraw_orders(database, "o", None, LATER)) == 1
        else:
            store.execute(BY_HAND)
        return store.left()

    def begin(_: Connection) -> None:
        seen.append(threads.submit(withdraw))
        waits = is_waiting(store, "sweeper.erasure_orders")
        until(lambda: seen[0].done() or waits())
        assert not seen[0].done()

    once_before(monkeypatch, purge, "delete", begin)
    assert swept(store, policy).count == 1
    assert seen[0].result(20) == set()
    assert buried(store) == [key(1)]


def test_batch_waits_for_the_withdrawal_at_work(store: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """A batch that begins while a withdrawal is open waits for it, and then purges nothing by the order."""
    arrange(store, ORDERED)
    with another(store) as officer:
        officer.execute(BY_HAND)
        running = threads.submit(swept, store, policy)
        until(is_waiting(store, "LOCK TABLE sweeper.fence IN SHARE MODE"))
        assert len(store.left()) == 2
        officer.execute("COMMIT")
        assert running.result(20).count == 1
    assert store.left() == {key(1)}
    assert buried(store) == [key(2)]


def test_a_withdrawn_order_has_no_due_date(store: Store) -> None:
    """However it is withdrawn, and whoever tries to date it again: what has no due date erases nothing."""
    store.execute("INSERT INTO sweeper.erasure_orders (reference, account_id, due_at) VALUES ('o', 'x', '2026-06-01Z')")
    store.execute("UPDATE sweeper.erasure_orders SET withdrawn_at = '-infinity', due_at = '2026-06-02Z'")
    assert store.execute("SELECT due_at FROM sweeper.erasure_orders") == [(None,)]
    (told,) = store.execute("SELECT details FROM sweeper.events WHERE kind = 'order_changed'")[0]
    assert (told["was"]["due_at"][:10], told["now"]["due_at"]) == ("2026-06-01", None)
