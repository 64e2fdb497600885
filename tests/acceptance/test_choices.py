"""Plans and consent in the sweeper's own tables: the commands, plain SQL, and a store whose views read them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from sweeper.policy.schema import Policy
from tests.acceptance.commands import Command
from tests.acceptance.test_documents import TABLES, blocks
from tests.facts import World
from tests.manifest import made
from tests.store.stores import ID_TYPES, ROLES, Store

DOCUMENTED = blocks("sql", TABLES.partition("## Plans and consent of our own")[2].partition("\n## ")[0])
"""What the page on tables tells to run: the views, the grants of an application, a constant plan and a constant account."""
MOVED = """
SET session_replication_role = replica;
INSERT INTO sweeper.plan_changes (account_id, effective_at, plan, recorded_at)
    SELECT account_id, effective_at, plan, effective_at FROM store.plan_changes;
INSERT INTO sweeper.consent_events (account_id, purpose, granted, recorded_at, effective_at)
    SELECT account_id, purpose, granted, recorded_at, recorded_at FROM store.consent_events;
RESET session_replication_role;
DROP TABLE store.plan_changes, store.consent_events;
"""
"""The history of a store, moved to our tables with its times."""
CONSENT = ("--purpose", "model_improvement")


def ago(days: int) -> str:
    """An instant some days before now."""
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


def world() -> World:
    """An account that consented 60 days ago, with a conversation of 40 days ago."""
    message = {"id": "m1", "author": "user", "created_at": ago(40)}
    chat = {"id": "c1", "account": "a1", "created_at": ago(40), "last_activity_at": ago(40), "messages": [message]}
    plans, consent = [{"effective_at": ago(90), "plan": "free"}], [{"recorded_at": ago(60), "granted": True}]
    account = {"id": "a1", "created_at": ago(90), "plans": plans, "consent": consent}
    return {"accounts": [account], "conversations": [chat], "holds": [], "orders": []}


@pytest.fixture
def ours(store: Store) -> Store:
    """A store whose relations of plans and consent are views of our tables."""
    store.load(world())
    views = DOCUMENTED[0].replace("account_id", f"account_id::{store.id_type} AS account_id")
    for script in (MOVED, views, ROLES):
        store.execute(script)
    return store


@pytest.mark.parametrize("store", ID_TYPES, indirect=True)
def test_a_withdrawal_ends_training(ours: Store, policy: Policy, sweeper: Command, tmp_path: Path) -> None:
    """What the command records is what the decision knows: no message is trained on any more, and 30 days remain."""
    account, chat, message = (str(ours.id(name)) for name in ("a1", "c1", "m1"))
    before = json.loads(sweeper("explain", chat, "--json").out)
    assert (before["rule"], before["messages"]) == ("training_allowed", {message: "eligible"})
    assert made.built(ours, policy, tmp_path / "before", as_of=ago(0)).eligible == 1

    done = sweeper("consent", "record", account, *CONSENT, "--withdrawn", "--json")
    row = json.loads(done.out)
    assert (done.code, done.err, row["in_store"], row["granted"]) == (0, "", True, False)
    assert row["effective_at"] == row["recorded_at"]
    after = json.loads(sweeper("explain", chat, "--json").out)
    assert (after["rule"], after["messages"]) == ("consent_ended", {message: "no_consent"})
    assert datetime.fromisoformat(after["due_at"]) == datetime.fromisoformat(row["recorded_at"]) + timedelta(days=30)
    assert made.built(ours, policy, tmp_path / "after", as_of=ago(0)).eligible == 0


def test_a_plan(ours: Store, sweeper: Command) -> None:
    """A plan counts from its instant on, or always; the list begins with the newest."""
    account, chat = str(ours.id("a1")), str(ours.id("c1"))
    for words in (["enterprise", "--effective", ago(41)], ["pro", "--effective", "-infinity"], ["max"]):
        done = sweeper("plan", "record", account, *words, "--json")
        assert (done.code, json.loads(done.out)["in_store"]) == (0, True)
    assert json.loads(sweeper("explain", chat, "--json").out)["rule"] == "commercial"
    listed = json.loads(sweeper("plan", "list", account, "--json").out)
    assert [row["plan"] for row in listed] == ["max", "pro", "enterprise", "free"]
    assert listed[1]["effective_at"] == "-infinity"
    assert "no consent is recorded" not in sweeper("consent", "list", account).out


@pytest.mark.parametrize("store", ["text"], indirect=True)
def test_constants(store: Store, sweeper: Command) -> None:
    """One plan for all, and one account for all, are one line of a view each."""
    store.load(world())
    store.execute(
        "UPDATE conversations SET account_id = 'all'; ALTER TABLE accounts RENAME TO people; DROP TABLE plan_changes"
    )
    for script in (DOCUMENTED[3], DOCUMENTED[2]):
        store.execute(script)
    told = json.loads(sweeper("explain", "c1", "--json").out)
    assert (told["plans"], told["rule"], told["purge"]) == (["free"], "standard", True)


def test_no_effect(store: Store, sweeper: Command) -> None:
    """A store with tables of its own does not show what is recorded, and the command says so, if it can see that."""
    store.load(world())
    account = str(store.id("a1"))
    done = sweeper("consent", "record", account, *CONSENT, "--withdrawn", "--json")
    assert (done.code, json.loads(done.out)["in_store"]) == (0, False)
    assert "NO EFFECT: store.consent_events does not show it" in done.err
    store.execute("REVOKE ALL ON store.plan_changes FROM sweeper_officer")
    done = sweeper("plan", "record", account, "free")
    assert (done.code, "could not be seen" in done.err, "NO EFFECT" in done.err) == (0, True, False)


REFUSED = {
    "a purpose that is mistyped": (
        "consent record a1 --purpose model_improvment --withdrawn",
        "did you mean model_improvement?",
    ),
    "a plan that is mistyped": ("plan record a1 fre", "the policy has no plan fre; did you mean free?"),
    "a class of plans": ("plan record a1 consumer", "the policy has no plan consumer"),
    "an account that is not there": ("plan record a2 free", "the store knows no account"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unknown(name: str, store: Store, sweeper: Command) -> None:
    """What the store or the policy does not know is refused, and nothing is recorded, unless it is said to be unknown."""
    store.load(world())
    command, told = REFUSED[name]
    words = [str(store.id(word)) if word in ("a1", "a2") else word for word in command.split()]
    done = sweeper(*words)
    assert (done.code, done.out, told in done.err, "--unknown" in done.err) == (2, "", True, True)
    assert json.loads(sweeper(words[0], "list", words[2], "--json").out) == []
    broken = sweeper(*words, "--unknown", SWEEPER_POLICY_FILE="/nowhere.toml")
    assert broken.code == 0
    assert len(json.loads(sweeper(words[0], "list", words[2], "--json").out)) == 1


INSERT = "INSERT INTO sweeper.consent_events (account_id, purpose, granted, recorded_at, effective_at) VALUES "


def test_plain_sql(store: Store) -> None:
    """A row that anybody inserts has the server's time and an event in the same transaction, and stays as it is."""
    with store.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute(INSERT + "('a', 'p', true, now(), NULL)")
        assert connection.execute("SELECT count(*) FROM sweeper.events").fetchall() == [(1,)]
    assert store.execute("SELECT count(*) FROM sweeper.events") == [(0,)]
    store.execute(INSERT + "('a', 'p', true, '2020-01-01Z', '2020-01-02Z'), ('a', 'p', false, NULL, NULL)")
    store.execute("INSERT INTO sweeper.plan_changes (account_id, plan) VALUES ('a', 'free')")
    told = store.execute("SELECT kind, details -> 'now', actor FROM sweeper.events ORDER BY id")
    assert [(kind, actor) for kind, _, actor in told] == [("consent_added", "postgres")] * 2 + [
        ("plan_added", "postgres")
    ]
    granted, withdrawn, plan = (now for _, now, _ in told)
    assert set(granted) == {"id", "account_id", "purpose", "granted", "recorded_at", "effective_at"}
    assert (granted["recorded_at"] > ago(1), granted["effective_at"][:10]) == (True, "2020-01-02")
    for row in (withdrawn, plan):
        assert row["effective_at"] == row["recorded_at"] > ago(1)
    store.execute(DOCUMENTED[1].replace("TO app", "TO stranger"))
    with psycopg.connect(store.acting("stranger").program, autocommit=True) as application:
        application.execute("INSERT INTO sweeper.consent_events (account_id, purpose, granted) VALUES ('a', 'p', true)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            application.execute(INSERT + "('a', 'p', true, now(), now())")
    assert store.execute("SELECT actor FROM sweeper.events ORDER BY id DESC LIMIT 1") == [("stranger",)]
    for table in ("consent_events", "plan_changes"):
        for deed in ("UPDATE sweeper.{} SET account_id = 'b'", "DELETE FROM sweeper.{}", "TRUNCATE sweeper.{}"):
            with pytest.raises(psycopg.errors.RaiseException, match="insert-only"):
                store.execute(deed.format(table))


@pytest.mark.parametrize("instant", ["infinity", "-infinity", "2014-12-31 23:59:59.999999Z", "9999-01-01Z"])
def test_what_would_be_in_doubt(instant: str, store: Store) -> None:
    """The tables take no instant that is not plausible, but for a plan that was always in force, and no value that is missing."""
    refused = (psycopg.errors.CheckViolation, psycopg.errors.NotNullViolation)
    plan = "INSERT INTO sweeper.plan_changes (account_id, plan, effective_at) VALUES (%s, %s, %s)"
    with pytest.raises(refused):
        store.execute(INSERT + "('a', 'p', true, NULL, %s)", instant)
    if instant == "-infinity":
        store.execute(plan, "a", "free", instant)
    else:
        with pytest.raises(refused):
            store.execute(plan, "a", "free", instant)
    for values in ("(NULL, 'p', true", "(' ', 'p', true", "('a', NULL, true", "('a', '', true", "('a', 'p', NULL"):
        with pytest.raises(refused):
            store.execute(f"{INSERT}{values}, NULL, NULL)")
    for account, name in ((None, "free"), ("", "free"), ("a", None), ("a", "")):
        with pytest.raises(refused):
            store.execute(plan, account, name, None)
