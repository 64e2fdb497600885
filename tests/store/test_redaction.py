"""A rule that redacts empties content columns, leaves the row to its other rules, and leaves a tombstone of its own."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import ConfigurationError, RefusedError
from sweeper.policy.schema import Policy
from sweeper.postgres import fence, manifests
from sweeper.runs import approval as approvals
from sweeper.runs.job import Job
from sweeper.runs.sweep import preview, sweep
from tests.acceptance.commands import Done, in_process
from tests.acceptance.test_kill import gate, waiting
from tests.facts import World
from tests.processes import started, until
from tests.redacting import COLUMNS, redacting
from tests.store.stores import POLICY, Store
from tests.store.test_races import once_before

AS_OF = "2026-06-01T00:00:00Z"
GUARDS = {"history": False, "volume": False}
WEEK = {"name": "content", "due": [{"anchor": "last_activity", "period": "7 days"}]}


def chat(name: str, last: str, **columns: Any) -> dict[str, Any]:
    """A conversation with two messages."""
    messages = [{"id": f"{name}m{n}", "created_at": last, "author": "user"} for n in (1, 2)]
    return {"id": name, "account": "a1", "created_at": last, "last_activity_at": last, "messages": messages, **columns}


def a_world(*chats: dict[str, Any], **rows: Any) -> World:
    """A world of one account on a consumer plan."""
    account = {"id": "a1", "plans": [{"effective_at": "2020-01-01T00:00:00Z", "plan": "free"}], "consent": []}
    return {"as_of": AS_OF, "accounts": [account], "conversations": list(chats), "holds": [], "orders": [], **rows}


@pytest.fixture
def owned(store: Store) -> Store:
    """The store for a job that may read and write content."""
    return store.acting("postgres")


def job_of(store: Store, as_of: str = AS_OF, policy: Policy | None = None, **sections: Any) -> Job:
    """A job whose policy redacts."""
    sections = {"purge": COLUMNS, "guards": GUARDS, **sections}
    return store.job(policy or redacting(WEEK), as_of, **sections)


def content(store: Store) -> dict[str, int]:
    """How many messages with content each conversation has."""
    rows = store.execute("SELECT conversation_id::text, count(body) FROM messages GROUP BY 1")
    return dict(rows)


def test_redacted(owned: Store) -> None:
    """Content goes, the row stays; what is due for purge is purged and not redacted. A second run changes nothing."""
    owned.load(
        a_world(
            chat("old", "2026-04-01T00:00:00Z"),
            chat("week", "2026-05-20T00:00:00Z"),
            chat("new", "2026-05-30T00:00:00Z"),
        )
    )
    foretold = preview(job_of(owned)).as_json()
    assert (foretold["would_purge"], foretold["would_redact"]) == (1, 1)
    told = sweep(job_of(owned)).as_json()
    assert (told["purged"], told["redacted"], told["redacted_by_rule"]) == (1, 1, {"content": 1})
    week, new = owned.id("week"), owned.id("new")
    assert content(owned) == {week: 0, new: 2}
    stones = owned.execute("SELECT record, record_id, rule, children FROM sweeper.tombstones ORDER BY id")
    assert stones[1:] == [("redaction", week, "content", {"store.messages (body)": 2})]
    since = owned.database().within(lambda connection: manifests.purged_since(connection, "store", 0))
    assert {id_: reason for id_, (reason, _) in since.items()} == {owned.id("old"): "purged", week: "redacted"}
    again = sweep(job_of(owned)).as_json()
    assert (again["purged"], again["redacted"]) == (0, 0)


CONFIG = """
[guards]
history = false
volume = false
[[purge.redact]]
table = "messages"
columns = ["body"]
"""
RULE = """
[[rules]]
name = "content"
because = "a week has passed"
due = [{ anchor = "last_activity", period = "7 days" }]
action = "redact"
"""


@pytest.fixture
def commanded(owned: Store, tmp_path: Path) -> Callable[..., Done]:
    """Commands under a policy that redacts."""
    settings, policy = tmp_path / "sweeper.toml", tmp_path / "policy.toml"
    settings.write_text(CONFIG)
    policy.write_text(Path(POLICY).read_text() + RULE)
    return partial(in_process, owned, SWEEPER_CONFIG=str(settings), SWEEPER_POLICY_FILE=str(policy))


def test_forecast(owned: Store, commanded: Callable[..., Done], tmp_path: Path) -> None:
    """A forecast, and the page, count content that is due, held or to come, but not what is empty or purged first."""
    holds = [{"conversation": "held", "placed_at": "2026-05-21T00:00:00Z"}]
    chats = {"old": "04-01", "gone": "05-19", "week": "05-20", "held": "05-20", "new": "05-30"}
    deleted = {
        **chat("deleted", "2026-05-30T00:00:00Z"),
        "created_at": "2026-05-01T00:00:00Z",
        "deleted_at": "2026-05-03T00:00:00Z",
    }
    resumed = {
        **chat("resumed", "2026-05-30T00:00:00Z"),
        "created_at": "2026-05-20T00:00:00Z",
        "last_activity_at": "2026-05-20T00:00:00Z",
    }
    others = (chat(name, f"2026-{day}T00:00:00Z") for name, day in chats.items())
    owned.load(a_world(*others, deleted, resumed, holds=holds))
    owned.execute("UPDATE messages SET body = NULL WHERE conversation_id = %s", owned.id("gone"))
    rows = json.loads(commanded("forecast", "--by", "day", "--as-of", AS_OF, "--json").out)["rows"]
    assert [list(row.values()) for row in rows if row["record"] == "redaction"] == [
        ["overdue", None, None, "redaction", "content", 1, None],
        ["skipped", None, None, "redaction", "content", 1, None],
        ["held", None, None, "redaction", "content", 1, None],
        ["due", "2026-06-06T00:00:00Z", "2026-06-07T00:00:00Z", "redaction", "content", 1, None],
    ]
    shown = commanded("forecast", "--as-of", AS_OF)
    assert "redactions due" in shown.out
    assert "whose conversation is purged first" in shown.out
    page = tmp_path / "page.html"
    commanded("report", "--as-of", AS_OF, "--html", str(page))
    assert "1 redaction comes due in the next 30 days, most on 6 June (1)." in page.read_text()
    plain = in_process(owned, "forecast", "--as-of", AS_OF)
    assert "redact" not in plain.out


def test_copy(owned: Store, tmp_path: Path) -> None:
    """A copy that asks for redactions is told of them, and of which kind each record is."""
    owned.load(a_world(chat("old", "2026-04-01T00:00:00Z"), chat("week", "2026-05-20T00:00:00Z")))
    file, kinds = tmp_path / "told", ["conversation", "redaction"]
    copy = {"name": "told", "command": ["sh", "-c", f"cat >> {file}"], "records": kinds}
    sweep(job_of(owned, copies=[copy]))
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["record"], line["record_id"]) for line in told] == list(
        zip(kinds, map(owned.id, ("old", "week")), strict=True)
    )
    owned.execute("DELETE FROM sweeper.copies")


def test_explained(owned: Store, commanded: Callable[..., Done]) -> None:
    """`explain` says when content goes and that it went; no tombstone of a redaction is taken for that of a purge."""
    recent = (datetime.now(UTC) - timedelta(days=10)).isoformat()
    owned.load(a_world(chat("week", "2026-05-20T00:00:00Z"), chat("recent", recent)))
    week, at = str(owned.id("week")), ("--as-of", AS_OF)
    told = json.loads(commanded("explain", week, "--json", *at).out)
    due = {"rule": "content", "due_at": "2026-05-27T00:00:00Z", "held": False}
    assert told["redaction"] == {**due, "redact": True, "has_content": True, "redacted_at": None}
    assert (told["purge"], set(told["messages"].values())) == (False, {"redacted"})
    assert (
        "TO BE REDACTED: it was due at 2026-05-27T00:00:00Z, 5 days ago (content)."
        in commanded("explain", week, *at).out
    )
    assert "Would redact 1 conversations that stay." in commanded("run", "--dry-run", *at).out
    overdue = json.loads(commanded("status", "--json").out)["overdue"]["redactions"]
    assert overdue["content"]["count"] == 1  # week is due for purge by now
    assert "1 conversations that stay were redacted." in commanded("run", *at).out
    told = json.loads(commanded("explain", week, "--json", *at).out)
    assert (told["redaction"]["redact"], told["redaction"]["has_content"], told["purged"]) == (False, False, None)
    assert "It was REDACTED on" in commanded("explain", week, *at).out
    owned.execute("DELETE FROM conversations")
    assert "whose content was REDACTED on" in commanded("explain", week, *at).err
    account = json.loads(commanded("explain", "--account", str(owned.id("a1")), "--json", *at).out)
    assert (account["purged"], account["redacted"], account["last_purged_at"]) == (
        {"conversation": {}, "feedback": {}},
        {"content": 1},
        None,
    )
    assert commanded("audit", "verify").code == 0
    assert commanded("audit", "receipt", week).code != 0


def test_kept(owned: Store) -> None:
    """A hold, a flag and a user message that the row does not tell of keep content as they keep a conversation."""
    held, flagged, stale = (chat(name, "2026-05-20T00:00:00Z") for name in ("held", "flagged", "stale"))
    flagged["flagged_at"] = "2026-05-21T00:00:00Z"
    stale["messages"][1]["created_at"] = "2026-05-30T00:00:00Z"
    hold = {"conversation": "held", "placed_at": "2026-05-21T00:00:00Z"}
    owned.load(a_world(held, flagged, stale, holds=[hold]))
    foretold, told = preview(job_of(owned)).as_json(), sweep(job_of(owned)).as_json()
    for found in (foretold, told):
        assert (found["redactions_held"], found["spared_by_reason"]) == (1, {"stale_last_activity": 1})
    assert (told["redacted"], set(content(owned).values())) == (0, {2})


def test_resumed(owned: Store) -> None:
    """What is written after a redaction is redacted when it is due in its turn, with a tombstone of its own."""
    owned.load(a_world(chat("week", "2026-05-10T00:00:00Z")))
    assert sweep(job_of(owned)).as_json()["redacted"] == 1
    later = "2026-05-31T00:00:00Z"
    owned.execute("UPDATE conversations SET last_activity_at = %s", later)
    owned.execute("UPDATE messages SET body = 'again', created_at = %s WHERE id = %s", later, owned.id("weekm1"))
    assert sweep(job_of(owned, "2026-06-06T00:00:00Z")).as_json()["redacted"] == 0
    assert sweep(job_of(owned, "2026-06-07T00:00:00Z")).as_json()["redacted"] == 1
    stones = owned.execute("SELECT children FROM sweeper.tombstones WHERE record = 'redaction' ORDER BY id")
    assert [stone[0]["store.messages (body)"] for stone in stones] == [2, 1]


@pytest.mark.parametrize(
    "body",
    [
        "NEW.body := OLD.body; RETURN NEW;",
        "RETURN NULL;",
        "UPDATE store.conversations SET last_activity_at = now() WHERE id = NEW.conversation_id; RETURN NEW;",
    ],
)
def test_trigger(owned: Store, body: str) -> None:
    """A redaction that leaves content, or that would move a due date, is undone and counted as failed."""
    owned.load(a_world(chat("week", "2026-05-20T00:00:00Z")))
    owned.execute(
        f"CREATE FUNCTION store.act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;"
        "CREATE TRIGGER act BEFORE UPDATE ON store.messages FOR EACH ROW EXECUTE FUNCTION store.act()"
    )
    told = sweep(job_of(owned)).as_json()
    assert (told["failed"], told["redacted"], content(owned)) == (1, 0, {owned.id("week"): 2})
    assert owned.execute("SELECT count(*) FROM sweeper.tombstones") == [(0,)]


BAD: dict[str, tuple[Any, ...]] = {
    "no settings": ((), "no [[purge.redact]]"),
    "no table": ([{"table": "nowhere", "columns": ["body"]}], "there is no table store.nowhere"),
    "no column": ([{"table": "messages", "columns": ["text"]}], "there is no column text"),
    "a key": ([{"table": "messages", "columns": ["conversation_id"]}], "conversation_id is part of a key"),
    "another's": ([{"table": "feedback", "columns": ["transcript"]}], "no column of its own ties"),
    "no value": ([{"table": "messages", "columns": ["note"]}], "note is NOT NULL, and no value is set"),
    "a bad value": (
        [{"table": "messages", "columns": ["note"], "values": {"note": "{"}}],
        "the value of note is no jsonb",
    ),
}


def test_bad_settings(owned: Store) -> None:
    """What cannot be emptied is refused before anything is done, with the setting and a remedy."""
    owned.execute("ALTER TABLE messages ADD note jsonb NOT NULL DEFAULT '{\"a\":1}', ADD plain json")
    owned.load(a_world(chat("week", "2026-05-20T00:00:00Z")))
    for redact, words in BAD.values():
        with pytest.raises(ConfigurationError) as refused:
            job_of(owned, purge={"redact": redact})
        assert words in str(refused.value)
        assert "Nothing was purged or redacted." in str(refused.value)
    values = {"note": '{"b":1}', "plain": '{"c":"50% :off"}'}
    good = {"redact": [{"table": "messages", "columns": ["note", "plain"], "values": values}]}
    assert [sweep(job_of(owned, purge=good)).as_json()["redacted"] for _ in range(2)] == [1, 0]
    assert owned.execute("SELECT DISTINCT note::text, plain::text FROM messages") == [('{"b": 1}', values["plain"])]


@pytest.mark.parametrize(
    ("kind", "stored", "value"),
    [
        ("store.pair", "(secret,)", None),
        ("store.document", '{"a":1}', "{}"),
        ("json[]", '{"{}"}', "{}"),
        ("point", "(1,1)", "(0,0)"),
    ],
)
def test_types(owned: Store, kind: str, stored: str, value: str | None) -> None:
    """Content goes whatever its type: a composite with a NULL in it has content, and not every type has an equality."""
    owned.execute("CREATE TYPE store.pair AS (a text, b text); CREATE DOMAIN store.document AS json")
    owned.execute(f"ALTER TABLE messages ADD extra {kind}")
    owned.load(a_world(chat("week", "2026-05-20T00:00:00Z")))
    owned.execute(f"UPDATE messages SET extra = '{stored}'")
    setting = {"table": "messages", "columns": ["extra"], "values": {} if value is None else {"extra": value}}
    assert [sweep(job_of(owned, purge={"redact": [setting]})).as_json()["redacted"] for _ in range(2)] == [1, 0]
    assert owned.execute("SELECT DISTINCT extra::text FROM messages") == [(value,)]


@pytest.fixture
def kept_by_column(owned: Store) -> Policy:
    """A policy that redacts, and that purges after as many days as a column says, or after 8."""
    owned.execute("ALTER TABLE conversations ADD retention int")
    owned.load(a_world(chat("week", "2026-05-20T00:00:00Z")))
    days = {"column": "conversation.retention", "unit": "day", "otherwise": "8 days"}
    return redacting(WEEK, purging={"name": "days", "due": [{"anchor": "last_activity", "period": days}]})


def test_column_of_a_rule(owned: Store, kept_by_column: Policy) -> None:
    """A redaction that empties a column which rules read would move a due date: it is refused, or undone if a trigger does it."""
    owned.execute("UPDATE conversations SET retention = 3650")
    columns = {"redact": [{"table": "conversations", "columns": ["retention"]}]}
    with pytest.raises(ConfigurationError, match="rules of the policy read retention"):
        job_of(owned, policy=kept_by_column, purge=columns)
    owned.execute(
        "CREATE FUNCTION store.act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE store.conversations SET retention = NULL WHERE id = NEW.conversation_id; RETURN NEW; END $$;"
        "CREATE TRIGGER act BEFORE UPDATE ON store.messages FOR EACH ROW EXECUTE FUNCTION store.act()"
    )
    told = [sweep(job_of(owned, policy=kept_by_column)).as_json() for _ in range(2)]
    assert [(each["failed"], each["redacted"], each["purged"]) for each in told] == [(1, 0, 0)] * 2


def test_doubtful_column(owned: Store, kept_by_column: Policy) -> None:
    """What is kept because a period of a rule that purges cannot be used keeps its content, too."""
    owned.execute("UPDATE conversations SET retention = -1")
    assert sweep(job_of(owned, policy=kept_by_column)).as_json()["redacted"] == 0
    assert content(owned) == {owned.id("week"): 2}


def test_trial(owned: Store, commanded: Callable[..., Done]) -> None:
    """`check` tries to redact a few conversations and rolls that back; what refuses is told."""
    owned.load(a_world(chat("week", "2026-05-20T00:00:00Z")))
    assert "1 conversations and 1 redactions" in commanded("check").out
    owned.execute("ALTER TABLE messages ADD CHECK (body IS NOT NULL)")
    assert "1 of 1 redactions that were tried could not be purged" in commanded("check").out
    assert content(owned) == {owned.id("week"): 2}


def test_check(store: Store, commanded: Callable[..., Done]) -> None:
    """`check` tells a role that may not empty the columns, and columns that no rule empties."""
    lacking = replace_store(commanded, store)("check")
    assert 'GRANT UPDATE ("body") ON store.messages TO sweeper' in lacking.out
    idle = commanded("check", SWEEPER_POLICY_FILE=POLICY)
    assert "no rule of the policy redacts: they are never emptied" in idle.out


def replace_store(commanded: Callable[..., Done], store: Store) -> Callable[..., Done]:
    """The same commands of another role."""
    assert isinstance(commanded, partial)
    return partial(in_process, store, **commanded.keywords)


def test_hold_between_proposal_and_redaction(owned: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hold that is placed after the proposals, by SQL, keeps content."""
    owned.load(a_world(chat("week", "2026-05-20T00:00:00Z")))
    job = job_of(owned)

    def place(_: object) -> None:
        owned.execute("INSERT INTO sweeper.legal_holds (matter, placed_at) VALUES ('m', now())")

    once_before(monkeypatch, fence, "share", place)
    told = sweep(job).as_json()
    assert (told["redacted"], told["spared_by_reason"]) == (0, {"protected_after_as_of": 1})
    assert content(owned) == {owned.id("week"): 2}


def test_volume(owned: Store) -> None:
    """The limits count redactions, and an approval permits as many of each rule as its preview found."""
    owned.load(a_world(*(chat(f"c{n}", "2026-05-20T00:00:00Z") for n in range(3))))
    limits = {"history": False, "max_count": 2, "max_share": 0.5}
    with pytest.raises(RefusedError, match="3 to be redacted"):
        sweep(job_of(owned, guards=limits))
    plan = preview(job_of(owned, guards=limits))
    approval = approvals.read(plan.as_json()["digest"])
    assert (approval, approval.redact) == (plan.approval, {"content": 3})
    fewer = replace(approval, redact={"content": 2})
    with pytest.raises(RefusedError, match="content: 3 due, 2 approved"):
        sweep(job_of(owned, guards=limits), approval=fewer)
    owned.execute("UPDATE messages SET body = NULL WHERE conversation_id = %s", owned.id("c0"))
    assert sweep(job_of(owned, guards=limits), approval=approval).as_json()["redacted"] == 2
    assert owned.execute("SELECT count(*) FROM sweeper.tombstones WHERE approved") == [(2,)]
    owned.execute("UPDATE messages SET body = 'again'")
    with pytest.raises(RefusedError, match="content: 3 due, 1 approved and not yet redacted"):
        sweep(job_of(owned, guards=limits), approval=approval)


def test_approved_by_floor(owned: Store) -> None:
    """A floor may name the due date of purges and of redactions: an approval permits both."""
    flagged = {"flagged_at": "2024-01-01T00:00:00Z"}
    owned.load(a_world(*(chat(name, "2024-01-01T00:00:00Z", **flagged) for name in ("purged", "redacted"))))
    owned.execute("UPDATE conversations SET incognito = true WHERE id = %s", owned.id("purged"))
    policy = redacting(WEEK, only="incognito")
    limits = {"history": False, "max_count": 0, "max_share": 0.1}
    approval = approvals.read(preview(job_of(owned, policy=policy, guards=limits)).as_json()["digest"])
    assert (approval.due, approval.redact) == ({"flagged": 1}, {"flagged": 1})
    told = sweep(job_of(owned, policy=policy, guards=limits), approval=approval).as_json()
    assert (told["purged"], told["redacted"]) == (1, 1)


def test_reapplied(owned: Store, commanded: Callable[..., Done], tmp_path: Path) -> None:
    """Content that a backup brings back is redacted again, but not what a user has written since."""
    owned.load(a_world(chat("back", "2026-05-20T00:00:00Z"), chat("resumed", "2026-05-20T00:00:00Z")))
    ledger, as_of = str(tmp_path / "ledger.jsonl"), ("--as-of", AS_OF)
    assert commanded("run", *as_of).code == 0
    assert commanded("audit", "export", ledger).code == 0
    owned.execute("UPDATE messages SET body = 'brought back'")
    owned.execute("UPDATE conversations SET last_activity_at = now() WHERE id = %s", owned.id("resumed"))
    words = ("reapply", "--ledger", ledger, "--accept-unsigned", "--json")
    foretold = json.loads(commanded(*words, "--dry-run").out)
    assert (foretold["would_redact"], foretold["would_purge"], foretold["spared_by_reason"]) == (1, 0, {"changed": 1})
    done = commanded(*words)
    told = json.loads(done.out)
    assert (done.code, told["redacted"], told["purged"], told["back"]) == (0, 1, 0, 2)
    assert content(owned) == {owned.id("back"): 0, owned.id("resumed"): 2}
    again = commanded(*words)
    assert (again.code, json.loads(again.out)["back"]) == (0, 1)
    owned.execute("UPDATE messages SET body = 'brought back'")
    without = commanded(*words, "--dry-run", SWEEPER_CONFIG="", SWEEPER_POLICY_FILE=POLICY)
    assert json.loads(without.out)["spared_by_reason"] == {"no_columns_to_redact": 2}
    assert without.code == 1


SECOND = "NEW.record = 'redaction' AND EXISTS (SELECT FROM sweeper.tombstones t WHERE t.xmin <> NEW.xmin)"


def test_killed_and_run_again(owned: Store, commanded: Callable[..., Done]) -> None:
    """Killed in its second batch and run again, each conversation is redacted once, with one tombstone."""
    assert isinstance(commanded, partial)
    chats = [chat(f"c{n}", "2026-05-20T00:00:00Z") for n in range(5)]
    owned.load(a_world(*chats))
    owned.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''120s''', current_database()); END $$"
    )
    config = Path(commanded.keywords["SWEEPER_CONFIG"])
    config.write_text(f"{CONFIG}[purge]\nbatch = 2\n[lease]\nseconds = 1.0\n[database]\nlock_timeout_ms = 60000\n")
    command = [sys.executable, "-m", "sweeper.cli", "run", "--json", "--as-of", AS_OF]
    environment = {**os.environ, **commanded.keywords, "SWEEPER_DATABASE_URL": owned.url}
    with started(command, env=environment) as process, owned.connect() as watcher:
        with gate(owned, "sweeper.tombstones", "INSERT", SECOND) as holder:
            pid = waiting(process, holder)
            process.kill()
            process.wait()
        gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
        until(lambda: watcher.execute(gone, [pid]).fetchone() == (True,), process)
    assert owned.execute("SELECT count(*) FROM sweeper.tombstones") == [(2,)]
    assert json.loads(commanded("run", "--json", "--as-of", AS_OF).out)["redacted"] == 3
    assert set(content(owned).values()) == {0}
    stones = owned.execute("SELECT record_id, rule FROM sweeper.tombstones WHERE record = 'redaction' ORDER BY 1")
    assert stones == sorted((owned.id(each["id"]), "content") for each in chats)
