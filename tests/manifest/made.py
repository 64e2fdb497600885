"""Small manifests for the tests: a store whose messages may be trained on, and what is built from it."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sweeper.manifest import build, lifecycle
from sweeper.manifest.description import Description
from sweeper.manifest.lifecycle import FrozenManifest
from sweeper.manifest.pseudonym import Pseudonym
from sweeper.policy.schema import Names, Policy
from tests.facts import World
from tests.store.stores import Store, frozen

AS_OF = "2026-07-01T00:00:00Z"
LATER = "2026-07-03T00:00:00Z"
KEY = Pseudonym(b"a key of the tests, with 32 bytes or more")
OTHER_KEY = Pseudonym(b"another key of the tests, also long enough")


def world(accounts: int = 3, conversations: int = 2, messages: int = 4) -> World:
    """So many accounts that all agreed, each with so many conversations, each with so many messages, two at a time."""
    owners = [f"a{number}" for number in range(1, accounts + 1)]
    return {
        "accounts": [
            {
                "id": owner,
                "plans": [{"effective_at": "2024-01-01T00:00:00Z", "plan": "pro"}],
                "consent": [{"recorded_at": "2025-09-01T00:00:00Z", "granted": True}],
            }
            for owner in owners
        ],
        "conversations": [
            {
                "id": f"{owner}c{number}",
                "account": owner,
                "kind": "coding" if number == 1 else "chat",
                "created_at": "2026-01-01T00:00:00Z",
                "last_activity_at": "2026-02-01T00:00:00Z",
                "messages": [
                    {
                        "id": f"{owner}c{number}m{turn}",
                        "author": ("user", "assistant")[turn % 2],
                        "created_at": f"2026-01-{turn // 2 + 1:02}T00:00:00.000001Z",
                    }
                    for turn in range(messages)
                ],
            }
            for owner in owners
            for number in range(1, conversations + 1)
        ],
        "holds": [],
        "orders": [],
    }


def forever(policy: Policy, max_age: str = "forever") -> Policy:
    """The policy under which chats never expire, and coding sessions after a year."""
    raw = policy.model_dump(mode="json", by_alias=True)
    allowed = next(rule for rule in raw["rules"] if rule["name"] == "training_allowed")
    allowed["due"] = [{"anchor": "last_activity", "period": "forever"}]
    year = [{"anchor": "last_activity", "period": "1 year"}]
    coding = {"name": "coding", "because": "it is a coding session", "when": {"kind": ["coding"]}, "due": year}
    raw["rules"].append(coding)
    raw["training"]["max_age"] = max_age
    return Policy.model_validate(raw, context=Names.of(raw))


def as_written(policy: Policy) -> Policy:
    """The policy under which text leaves as it stands."""
    raw = policy.model_dump(mode="json", by_alias=True)
    raw["training"]["text"] = "as_written"
    return Policy.model_validate(raw, context=Names.of(raw))


def built(
    store: Store,
    policy: Policy,
    folder: Path,
    *,
    as_of: str = AS_OF,
    key: Pseudonym = KEY,
    with_text: bool = False,
) -> Description:
    """Write a manifest's files into a new directory; nothing is recorded."""
    folder.mkdir()
    if with_text:
        store.grant_text()
    return build.build(store.job(policy, as_of), folder, key, with_text=with_text)


def freeze(store: Store, policy: Policy, folder: Path, *, now: str = AS_OF, with_text: bool = False) -> FrozenManifest:
    """Freeze a manifest as of AS_OF when it is `now`."""
    if with_text:
        store.grant_text()
    return lifecycle.freeze(store.job(policy, AS_OF, frozen(now)), folder, KEY, with_text=with_text)


def withdraw(store: Store, account: str, at: str) -> None:
    """An account takes back its consent."""
    store.execute(
        "INSERT INTO consent_events (account_id, purpose, granted, recorded_at) "
        "VALUES (%s, 'model_improvement', false, %s)",
        store.id(account),
        at,
    )


def delete(store: Store, conversation: str, at: str) -> None:
    """A user deletes a conversation."""
    store.execute("UPDATE conversations SET deleted_at = %s WHERE id = %s", at, store.id(conversation))


def rows(folder: Path, prefix: str = "part") -> list[dict[str, Any]]:
    """The rows of a manifest's files, in order."""
    return [row for path in sorted(folder.glob(f"{prefix}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def of(store: Store, world: World, *conversations: str) -> set[str]:
    """The ids of the messages of some of a world's conversations, or of all, as the store writes them."""
    return {
        str(store.id(message["id"]))
        for conversation in world["conversations"]
        if not conversations or conversation["id"] in conversations
        for message in conversation["messages"]
    }
