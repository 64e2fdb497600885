"""A person asks for an account after the night: `explain` says what it has and had, what an id is, and where it looked."""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from tests.acceptance.commands import Command
from tests.acceptance.test_cli import case
from tests.facts import World
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
    for words in (
        ("explain", NOBODY),
        ("explain", "--account", NOBODY),
        ("account", NOBODY),
        ("account", NOBODY, "--purged"),
    ):
        nobody = sweeper(*words)
        assert (nobody.code, nobody.out) == (1, "")
        assert "Whether it was ever stored cannot be told" in nobody.err
        assert "never" not in nobody.err


def test_everything_about_an_account(sweeper: Command, store: Store, ids: dict[str, str], tmp_path: Path) -> None:
    """An access request is answered by one command: plans, what is stored and when due, holds, orders, purges; in any format."""
    store.load(stranger())
    assert sweeper("run", "--accept-history", "--as-of", DUE["as_of"]).code == 0
    assert sweeper("hold", "place", "CASE-1", "--conversation", ids["kept"].upper()).code == 0
    assert sweeper("order", "add", "DSR-2", "--account", ids["account"], "--due", "2099-01-01T00:00:00Z").code == 0
    assert sweeper("hold", "place", "CASE-2", "--conversation", str(store.id("theirs"))).code == 0
    assert (
        sweeper("order", "add", "DSR-3", "--account", str(store.id("other")), "--due", "2099-01-01T00:00:00Z").code == 0
    )
    told = sweeper("account", ids["account"])
    assert told.code == 0, told.err
    for part in (
        "plan pro",
        "consent model_improvement",
        "(withdrawal)",
        "CASE-1",
        "DSR-2",
        ids["kept"],
        ids["purged"],
    ):
        assert part in told.out
    assert max(map(len, told.out.split("\n\n")[1].splitlines())) <= 80
    found = json.loads(sweeper("account", ids["account"], "--json").out)
    assert yaml.safe_load(sweeper("account", ids["account"], "--output", "yaml").out).keys() == found.keys()
    assert {(row["record"], row["id"]) for row in found["stored"]} == {
        ("conversation", ids["kept"]),
        ("feedback", ids["feedback"]),
    }
    assert [(hold["matter"], hold["conversation_id"]) for hold in found["holds"]] == [("CASE-1", ids["kept"])]
    assert sum(each["stored"] for each in found["stored_by_rule"]) == len(found["stored"])
    assert {row["id"] for row in found["purged"]} == {ids["purged"], ids["thumb"]}
    table = list(csv.DictReader(io.StringIO(sweeper("account", ids["account"], "--output", "csv").out)))
    assert [row["state"] for row in table] == ["stored", "stored", "purged", "purged"]
    page = tmp_path / "account.html"
    assert f"The page is in {page}." in sweeper("account", ids["account"], "--html", str(page)).out
    text = page.read_text()
    for part in ("<svg", "consent model_improvement", "CASE-1", "DSR-2", ids["kept"], ids["purged"]):
        assert part in text
    for other in ("CASE-2", "DSR-3", *(str(store.id(name)) for name in ("other", "theirs", "gone"))):
        assert other not in f"{told.out}{found}{table}{text}"


def stranger() -> World:
    """Another account with a conversation that is due and one that is not."""
    chat = DUE["conversations"][0]
    return {
        "accounts": [{**DUE["accounts"][0], "id": "other"}],
        "conversations": [
            {**chat, "id": "gone", "account": "other", "messages": []},
            {**chat, "id": "theirs", "account": "other", "messages": [], "last_activity_at": DUE["as_of"]},
        ],
        "holds": [],
        "orders": [],
    }


def test_everything_due_is_gone(sweeper: Command, store: Store, ids: dict[str, str], tmp_path: Path) -> None:
    """Whether all that was due is gone is said only after a look at what is stored; what is held or in doubt is named."""
    at = ("--as-of", DUE["as_of"])
    asked = ("account", ids["account"], "--purged", *at, "--since", "2025-01-01")
    before = sweeper(*asked)
    assert before.code == 1
    assert "NOT everything of account" in before.out
    assert f"{ids['purged']}" in before.out
    assert "the next run purges it" in before.out
    assert sweeper("run", "--accept-history", *at).code == 0
    after = sweeper(*asked, "--json")
    found = json.loads(after.out)
    assert (after.code, found["is_gone"], found["looked_at"]) == (0, True, 2)
    assert [row["id"] for row in found["purged"]] == [ids["thumb"], ids["purged"]]
    assert "lies inside a time of consent that has ended since" in sweeper(*asked).out
    due_on = found["purged"][1]["due_at"][:10]
    (same,) = json.loads(sweeper(*asked[:-2], "--since", due_on, "--until", due_on, "--json").out)["purged"]
    assert same["id"] == ids["purged"]
    store.execute("UPDATE conversations SET created_at = NULL")
    page = tmp_path / "answer.html"
    doubtful = sweeper(*asked, "--html", str(page))
    assert "NOT everything of account" in page.read_text()
    assert doubtful.code == 1
    assert "1 stored record in doubt, of which nobody can say when they were due" in doubtful.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--purged", "--since", "2026-02-01", "--until", "2026-01-01"), "no due date lies between them"),
        (("--purged", "--until", "9999-12-31"), "is in the future"),
        (("--purged", "--since", "2999-01-01T00:00:00Z"), "is in the future"),
        (("--purged", "--since", "soon"), "--since 'soon' is not an instant"),
        (("--since", "2026-01-01"), "work with --purged"),
        (("--output", "csv", "--json"), "contradicts --json"),
    ],
)
def test_account_cannot_be_asked_so(sweeper: Command, options: tuple[str, ...], told: str) -> None:
    """An empty range, one that is not over, or options that do not go together are refused before anything is read."""
    done = sweeper("account", NOBODY, *options)
    assert done.code == 2
    assert told in done.err


def test_page_that_cannot_be_written(sweeper: Command, tmp_path: Path) -> None:
    """A directory that does not exist is refused before anything is read, and nothing is left of a page of nobody."""
    assert sweeper("account", NOBODY, "--html", str(tmp_path / "none" / "a.html")).code == 2
    assert sweeper("account", NOBODY, "--html", str(tmp_path / "a.html")).code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("store", ["text", "bigint"], indirect=True)
def test_ids_of_other_types(sweeper: Command, store: Store, ids: dict[str, str]) -> None:
    """Whatever the type of the store's ids, an account is found; an id that no row can have is no account."""
    assert json.loads(sweeper("explain", "--account", ids["account"], "--json").out)["conversations"] == 2
    assert json.loads(sweeper("account", ids["account"], "--json").out)["conversations"] == 2
    for words in (("explain", "--account"), ("account",)):
        assert sweeper(*words, "no number").code == (2 if store.id_type == "bigint" else 1)
