"""A rule that redacts empties content columns, leaves the row to its other rules, and leaves a tombstone of its own."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from sweeper import toml
from sweeper.policy import schema as policies
from sweeper.policy.schema import Policy
from sweeper.runs.job import Job
from sweeper.runs.sweep import preview, sweep
from tests.facts import World
from tests.store.stores import POLICY, Store

AS_OF = "2026-06-01T00:00:00Z"
GUARDS = {"history": False, "volume": False}
COLUMNS = {"redact": [{"table": "messages", "columns": ["body"]}]}
RULES = [
    {"name": "content", "because": "a week has passed", "due": [{"anchor": "last_activity", "period": "7 days"}]},
]


def redacting(*rules: dict[str, Any]) -> Policy:
    """The shipped policy with rules that redact."""
    raw = deepcopy(toml.parse(Path(POLICY).read_text()))
    raw["rules"] += [{**rule, "action": "redact"} for rule in rules]
    return policies.checked(raw)


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
    return store.job(policy or redacting(*RULES), as_of, **sections)


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
    again = sweep(job_of(owned)).as_json()
    assert (again["purged"], again["redacted"]) == (0, 0)
