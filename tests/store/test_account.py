"""Everything about one account: it is what the model says of that account, and nothing of another one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from sweeper.policy.evaluate import Outcome
from sweeper.policy.schema import Policy
from sweeper.policy.window import Window
from sweeper.postgres import lookup
from sweeper.postgres.statement import filled
from sweeper.report import account as accounts
from sweeper.report.account import AccountView
from sweeper.runs.sweep import sweep
from tests import model
from tests.facts import World, instant
from tests.store.stores import Store
from tests.store.test_laws import both, doomed, doomed_feedback, fill, run
from tests.store.test_redaction import AS_OF as REDACTED_AS_OF
from tests.store.test_redaction import a_world, chat, job_of


def owners(world: World) -> set[str]:
    """The names of the accounts that have a row or own a record."""
    records = (*world["conversations"], *world["feedback"])
    return {row["id"] for row in world["accounts"]} | {row["account"] for row in records if row.get("account")}


def ids(store: Store, rows: list[World], account: str, names: set[str]) -> set[str]:
    """The stored ids of an account's records with these names."""
    return {str(store.id(row["id"])) for row in rows if row.get("account") == account and row["id"] in names}


def agrees(view: AccountView, store: Store, world: World, account: str) -> None:
    """What is stored and what was purged of the account are together what the model knows of it, with rule and due date."""
    kinds = (
        ("conversation", world["conversations"], model.verdicts(world), doomed(world)),
        ("feedback", world["feedback"], model.feedback(world), doomed_feedback(world)),
    )
    lines, stones = list(view.stored()), list(view.purged())
    for kind, rows, every, gone in kinds:
        stored = {line.id: line for line in lines if line.record == kind}
        purged = {stone.id: stone for stone in stones if stone.record == kind}
        assert stored.keys() == ids(store, rows, account, every.keys() - gone.keys())
        assert purged.keys() == ids(store, rows, account, set(gone))
        for name, verdict in every.items():
            id_ = str(store.id(name))
            if id_ in stored:
                assert (stored[id_].due_at, stored[id_].held) == (verdict.due, verdict.held)
            if id_ in purged:
                assert purged[id_].due_at == verdict.due
    totals = accounts.overview(view, 1).totals
    assert sum(each.stored for each in totals) == len(lines)


@given(world=both, days=st.integers(0, 400))
@settings(max_examples=8)
def test_account_equals_model(store: Store, policy: Policy, world: World, days: int) -> None:
    """After a sweep each account shows its own records and no others; everything due is gone only if the model has none left."""
    fill(store, world)
    run(store, policy, world["as_of"])
    as_of = model.now(world)
    since, until = model.date_of(as_of - days * model.ONE_DAY), instant(world["as_of"])
    every = {**model.verdicts(world), **model.feedback(world)}
    gone = {**doomed(world), **doomed_feedback(world)}
    for account in owners(world):
        with accounts.opened(store.job(policy, world["as_of"]), str(store.id(account))) as view:
            agrees(view, store, world, account)
            found = accounts.answer(view, Window(since, until))
        mine = {row["id"] for row in (*world["conversations"], *world["feedback"]) if row.get("account") == account}
        due = {name: v for name, v in every.items() if name in mine and v.due is not None and since <= v.due < until}
        assert {each.id for each in found.purged} == {str(store.id(name)) for name in due if name in gone}
        assert {each.id for each in found.stored} == {str(store.id(name)) for name in due if name not in gone}
        doubtful = any(
            v.unclassified and name in mine and name not in gone and (v.due is None or v.due >= until)
            for name, v in every.items()
        )
        assert found.is_gone == (not doubtful and not due.keys() - gone.keys())


def test_large_account_in_pages(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records an account has, the ids of one page of them are in memory at a time."""
    monkeypatch.setattr(lookup, "PAGE", 3)
    one = {"account": "a1", "created_at": "2026-01-01T00:00:00Z", "last_activity_at": "2026-01-01T00:00:00Z"}
    store.load(
        {
            "accounts": [{"id": "a1", "plans": [], "consent": []}],
            "conversations": [{**one, "id": f"c{number}", "messages": []} for number in range(7)],
            "holds": [],
            "orders": [],
        }
    )
    job = store.job(policy, "2026-07-01T00:00:00Z")
    with accounts.opened(job, str(store.id("a1"))) as view:
        pages = list(lookup.keys(view.connection, job.contract, view.key, "conversations"))
        assert [len(page) for page in pages] == [3, 3, 1]
        assert [line.id for line in view.stored()] == sorted(id_ for page in pages for id_ in page)


def test_content_that_is_due(store: Store) -> None:
    """Content that was due to be redacted and is still there is named; once it is redacted, that is no purge."""
    owned = store.acting("postgres")
    owned.load(a_world(chat("week", "2026-05-20T00:00:00Z")))
    job, window = job_of(owned), Window(None, instant(REDACTED_AS_OF))
    id_ = str(owned.id("week"))
    with accounts.opened(job, str(owned.id("a1"))) as view:
        before = accounts.answer(view, window)
    assert ([(line.record, line.id) for line in before.stored], before.is_gone) == ([("redaction", id_)], False)
    assert "the next run redacts it" in before.stored[0].why
    sweep(job)
    with accounts.opened(job, str(owned.id("a1"))) as view:
        after = accounts.answer(view, window)
        assert [(line.record, line.outcome) for line in view.stored()] == [("conversation", Outcome.NOT_DUE)]
        assert (view.found.purged, view.found.redacted) == ({}, {"content": 1})
    assert [(line.record, line.rule, line.because) for line in after.purged] == [("redaction", "content", "…")]
    assert after.is_gone
    assert "0 records have a tombstone, and content was redacted 1 time" in after.sentence


@pytest.mark.parametrize("name", ["lookup_tombstones", "lookup_purges"])
def test_tombstones_by_index(store: Store, name: str) -> None:
    """The tombstones of an account are found by index, however many others there are."""
    store.execute(
        "INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, started_at) "
        "VALUES ('store', now(), '', '', 1, now())"
    )
    store.execute(
        "INSERT INTO sweeper.tombstones (record, record_id, account_id, rule, due_at, as_of, run_id, policy_digest, children, "
        "approved, purged_at) SELECT 'conversation', n::text, (n % 1000)::text, '', now(), now(), 1, '', '{}', false, now() "
        "FROM generate_series(1, 20000) AS s (n)"
    )
    store.execute("ANALYZE sweeper.tombstones")
    asked = {"store": "store", "id": "7", "since": None, "until": None}
    with store.database().transaction() as connection:
        plan = connection.execute(text(f"EXPLAIN {filled(name)}"), asked).scalars().all()
    assert any("tombstones_account" in line for line in plan)
    assert not any("Seq Scan on tombstones" in line for line in plan)


def test_in_doubt(store: Store, policy: Policy) -> None:
    """What is in doubt may have been due before the date that a rule which needs no plan gives it, and never after."""
    as_of, long_ago = "2026-06-01T00:00:00Z", "2026-01-01T00:00:00Z"
    known = {"account": "a1", "created_at": long_ago, "last_activity_at": long_ago, "messages": []}
    deleted = {**known, "id": "c1", "deleted_at": "2026-05-31T00:00:00Z"}
    account = {"id": "a1", "plans": [], "consent": []}
    store.load({"accounts": [account], "conversations": [deleted], "holds": [], "orders": []})
    with accounts.opened(store.job(policy, as_of), str(store.id("a1"))) as view:
        before, after = (
            accounts.answer(view, Window(None, instant(as_of))),
            accounts.answer(view, Window(instant("2026-07-01T00:00:00Z"), instant("2026-08-01T00:00:00Z"))),
        )
    assert (before.in_doubt, before.stored, before.is_gone) == (1, [], False)
    assert (after.in_doubt, after.is_gone) == (0, True)


def test_purged_meanwhile(store: Store, policy: Policy) -> None:
    """What a run purges while somebody looks is still stored in what they see: nothing is missing from both lists."""
    chat_ = {
        "id": "c1",
        "account": "a1",
        "created_at": "2026-01-01T00:00:00Z",
        "last_activity_at": "2026-01-01T00:00:00Z",
    }
    account = {"id": "a1", "plans": [{"effective_at": "2024-01-01T00:00:00Z", "plan": "free"}], "consent": []}
    store.load({"accounts": [account], "conversations": [{**chat_, "messages": []}], "holds": [], "orders": []})
    as_of = "2026-07-01T00:00:00Z"
    with accounts.opened(store.job(policy, as_of), str(store.id("a1"))) as view:
        run(store, policy, as_of)
        assert not store.left()
        assert [line.outcome for line in view.stored()] == [Outcome.PURGE]
        assert list(view.purged()) == []
