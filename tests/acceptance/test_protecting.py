"""Holds and orders: what a typing error, a broken policy or a strange store does to them."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.commands import Command
from tests.acceptance.test_cli import case
from tests.store.stores import ID_TYPES, Store

WORKED = case("training allowed: five years")
NOBODY = {"uuid": "9c9a9d0e-6f4c-4f53-9d5e-0d6a3b2f1c11", "text": "nobody", "bigint": "42"}


@pytest.fixture
def ids(store: Store) -> tuple[str, str]:
    """The account and the conversation of the worked case, loaded twice: the account has two."""
    first = WORKED["conversations"][0]
    store.load({**WORKED, "conversations": [first, {**first, "id": "other", "messages": []}]})
    return str(store.id(first["account"])), str(store.id(first["id"]))


@pytest.mark.parametrize("store", ID_TYPES, indirect=True)
@pytest.mark.parametrize("option", ["--account", "--conversation"])
@pytest.mark.parametrize("command", ["hold place CASE", "order add DSR"])
def test_unknown_ids(command: str, option: str, sweeper: Command, store: Store, ids: tuple[str, str]) -> None:
    """An id that the store does not know is refused, and nothing is recorded, unless it is said to be unknown."""
    words = [*command.split(), option, NOBODY[store.id_type]]
    done = sweeper(*words)
    assert (done.code, done.out) == (2, "")
    assert f"the store knows no {option.removeprefix('--')} {NOBODY[store.id_type]}" in done.err
    assert "--unknown" in done.err
    placed = sweeper(*words, "--unknown", "--json")
    assert (placed.code, json.loads(placed.out)["covers"]) == (0, 0)
    assert len(json.loads(sweeper(command.split()[0], "list", "--json").out)) == 1


@pytest.mark.parametrize("store", ID_TYPES, indirect=True)
def test_how_many_are_covered(sweeper: Command, ids: tuple[str, str]) -> None:
    """A hold covers what is of its account or is its conversation; an order of both only what is exactly both."""
    account, conversation = ids
    expected = {("--account", account): 2, ("--conversation", conversation): 1}
    for words, count in expected.items():
        for command in (("hold", "place", "CASE"), ("order", "add", "DSR")):
            assert f"covers {count} conversation{'s' * (count > 1)} now" in sweeper(*command, *words).out
    both = ("--account", account, "--conversation", conversation, "--json")
    assert json.loads(sweeper("hold", "place", "CASE", *both).out)["covers"] == 2
    assert json.loads(sweeper("order", "add", "DSR", *both).out)["covers"] == 1
    everything = sweeper("hold", "place", "CASE", "--everything")
    assert (everything.code, "covers everything" in everything.out) == (0, True)


def test_a_conversation_of_somebody_else(sweeper: Command, store: Store, ids: tuple[str, str]) -> None:
    """An order that names an account and another's conversation would cover nothing, and is refused."""
    store.execute("INSERT INTO accounts VALUES (%s, '2020-01-01Z')", NOBODY["uuid"])
    done = sweeper("order", "add", "DSR", "--account", NOBODY["uuid"], "--conversation", ids[1])
    assert (done.code, "does not belong to account" in done.err) == (2, True)
    assert json.loads(sweeper("order", "list", "--json").out) == []


BROKEN = {
    "no policy file": "[policy]\nfile = 'nowhere.toml'",
    "no table to purge": "[purge]\ntable = 'store.nothing'",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_holds_do_not_need(name: str, sweeper: Command, tmp_path: Path, ids: tuple[str, str]) -> None:
    """Neither a broken policy nor a table that is not there keeps anybody from placing, listing or releasing."""
    (tmp_path / "s.toml").write_text(BROKEN[name])
    broken = partial(sweeper, SWEEPER_CONFIG=str(tmp_path / "s.toml"), SWEEPER_POLICY_FILE="")
    assert broken("run").code == 2
    account = ("--account", ids[0])
    order = ("order", "add", "DSR", *account, "--due", "2030-01-01T00:00:00Z")
    for words in (
        ("hold", "place", "C", *account),
        ("hold", "list"),
        ("hold", "release", "C"),
        order,
        ("order", "list"),
    ):
        done = broken(*words)
        assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("policy", ["", "/nowhere.toml"])
@pytest.mark.parametrize("due", ["1970-01-01T00:00:00Z", "9999-12-31T00:00:00Z", "2014-12-31T23:59:59.999999Z"])
def test_a_due_that_nobody_believes(due: str, policy: str, sweeper: Command, ids: tuple[str, str]) -> None:
    """A due date outside the plausible range is refused, whether or not the policy can be read."""
    variables = {"SWEEPER_POLICY_FILE": policy} if policy else {}
    done = sweeper("order", "add", "DSR", "--account", ids[0], "--due", due, **variables)
    assert (done.code, done.out, "accepts instants from 2015-01-01T00:00:00Z" in done.err) == (2, "", True)
    assert json.loads(sweeper("order", "list", "--json").out) == []
    first = sweeper("order", "add", "DSR", "--account", ids[0], "--due", "2015-01-01T00:00:00Z", **variables)
    assert first.code == 0


@pytest.mark.parametrize("words", [("hold", "place"), ("order", "add")])
@pytest.mark.parametrize("name", ["", "  ", "\udcff"])
def test_a_name_that_cannot_be_read(words: tuple[str, str], name: str, sweeper: Command, ids: tuple[str, str]) -> None:
    """A matter or a reference must say something, in UTF-8."""
    done = sweeper(*words, name, "--account", ids[0])
    assert (done.code, done.out, "Nothing was done" in done.err) == (2, "", True)
    listed = sweeper(words[0], "list")
    assert (listed.code, listed.out.splitlines()[0][:3]) == (0, "no ")


def test_order_of_lists(sweeper: Command, store: Store, ids: tuple[str, str]) -> None:
    """Both lists begin with the newest; of the holds, those in force come first. What no calendar holds has its name."""
    for name in ("1", "2", "3"):
        sweeper("hold", "place", name, "--account", ids[0])
        sweeper("order", "add", name, "--account", ids[0])
    sweeper("hold", "release", "3")
    store.execute("UPDATE sweeper.legal_holds SET released_at = 'infinity' WHERE matter = '1'")
    store.execute(
        "INSERT INTO sweeper.erasure_orders (reference, account_id, recorded_at) VALUES ('0', 'x', '-infinity')"
    )
    holds = json.loads(sweeper("hold", "list", "--all", "--json").out)
    assert [hold["matter"] for hold in holds] == ["2", "3", "1"]
    assert [order["reference"] for order in json.loads(sweeper("order", "list", "--json").out)] == ["0", "3", "2", "1"]
    assert " infinity" in sweeper("hold", "list", "--all").out
    assert " -infinity" in sweeper("order", "list").out


def test_order_without_due(sweeper: Command, ids: tuple[str, str]) -> None:
    """An order without a due says loudly that nothing will be erased by it, and the explanation says so too."""
    added = sweeper("order", "add", "DSR-9", "--conversation", ids[1])
    assert added.code == 0
    assert "NOTHING will be erased" in added.err
    told = sweeper("explain", ids[1])
    assert "Erasure order 'DSR-9' covers it and has no due date" in " ".join(told.out.split())
    assert "NOTHING" not in sweeper("order", "add", "D", "--conversation", ids[1], "--due", "2099-01-01T00:00:00Z").err
