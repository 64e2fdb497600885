"""A person asks for an account after the night: `explain` says what it has and had, what an id is, and where it looked."""

import json

import pytest

from tests.acceptance.commands import Command
from tests.acceptance.test_cli import case
from tests.store.stores import Store

DUE = case("opt-out: thirty days later")
NOBODY = "9c9a9d0e-6f4c-4f53-9d5e-0d6a3b2f1c11"


@pytest.fixture
def ids(store: Store) -> dict[str, str]:
    """An account with one conversation that is due, one that is kept, and feedback on the first one that is due."""
    chat = DUE["conversations"][0]
    kept = {"id": "kept", "created_at": "2026-01-01T00:00:00Z", "last_activity_at": DUE["as_of"], "deleted_at": None}
    message = {"id": "said", "author": "user", "created_at": "2026-01-01T00:00:00Z"}
    thumb = {"id": "thumb", "account": chat["account"], "conversation": chat["id"], "kind": "thumbs"}
    store.load(
        {
            **DUE,
            "conversations": [chat, {**chat, **kept, "messages": [message]}],
            "feedback": [
                {**thumb, "submitted_at": "2020-01-01T00:00:00Z"},
                {**thumb, "id": "later", "submitted_at": "2026-01-01T00:00:00Z"},
            ],
        }
    )
    names = (chat["account"], chat["id"], "kept", "said", "thumb", "later")
    return dict(
        zip(("account", "purged", "kept", "message", "thumb", "feedback"), map(str, map(store.id, names)), strict=True)
    )


def test_what_about_this_account(sweeper: Command, store: Store, ids: dict[str, str]) -> None:
    """The account's id alone is answered: what is stored, what was purged and by which rule, what names it."""
    at = ("--as-of", DUE["as_of"])
    assert sweeper("run", "--accept-history", *at).code == 0
    assert sweeper("hold", "place", "CASE-1", "--account", ids["account"]).code == 0
    for asked in ((ids["account"],), ("--account", ids["account"])):
        told = sweeper("explain", *asked)
        assert told.code == 0, told.err
        assert f"Account {ids['account']}: stored." in told.out
        assert "conversations: 1 stored; 1 purged (1 consent_ended)" in told.out
        assert "feedback rows: 1 stored; 1 purged" in told.out
        assert "legal holds in force that name it: 1" in told.out
        assert f"{ids['kept']}  held" in told.out
    store.execute("DELETE FROM feedback; DELETE FROM conversations; DELETE FROM accounts")
    gone = json.loads(sweeper("explain", ids["account"], "--json").out)
    assert (gone["stored"], gone["conversations"], gone["purged"]["conversation"]) == (False, 0, {"consent_ended": 1})


def test_what_is_this_id(sweeper: Command, ids: dict[str, str]) -> None:
    """The id of a message or of feedback is named for what it is, stored or purged; nobody's id is said to be nowhere seen."""
    told = {name: sweeper("explain", ids[name]) for name in ("message", "feedback")}
    assert f"is a message of conversation {ids['kept']}. Ask `sweeper explain {ids['kept']}`" in told["message"].err
    assert f"is a feedback row of account {ids['account']} on conversation {ids['purged']}" in told["feedback"].err
    assert sweeper("run", "--accept-history", "--as-of", DUE["as_of"]).code == 0
    assert "is a feedback that was PURGED" in sweeper("explain", ids["thumb"]).err
    assert "was PURGED" in sweeper("explain", ids["purged"]).out
    for words in ((NOBODY,), ("--account", NOBODY)):
        nobody = sweeper("explain", *words)
        assert (nobody.code, nobody.out) == (1, "")
        assert "Whether it was ever stored cannot be told" in nobody.err
        assert "never" not in nobody.err


@pytest.mark.parametrize("store", ["text", "bigint"], indirect=True)
def test_ids_of_other_types(sweeper: Command, store: Store, ids: dict[str, str]) -> None:
    """Whatever the type of the store's ids, an account is found; an id that no row can have is no account."""
    assert json.loads(sweeper("explain", "--account", ids["account"], "--json").out)["conversations"] == 2
    assert sweeper("explain", "--account", "no number").code == (2 if store.id_type == "bigint" else 1)
