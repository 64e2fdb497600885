"""An order for the wrong account: a terminal is asked before it is placed, and it can be withdrawn before a run obeys it."""

import json
import os
import pty
import sys

import pytest

from tests.acceptance.commands import Command, in_process
from tests.acceptance.nights.test_account import ids
from tests.store.stores import Store

__all__ = ["ids"]
SOON = "2026-01-01T00:00:00Z"


def typed(store: Store, answer: str, *words: str) -> tuple[int, str]:
    """Type a command at a terminal and answer what it asks; returns its exit code and what stderr said."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        with pytest.MonkeyPatch.context() as patched, os.fdopen(theirs) as terminal:
            patched.setattr(sys, "stdin", terminal)
            done = in_process(store, *words)
    finally:
        os.close(ours)
    return done.code, done.err


@pytest.mark.parametrize("words", [("hold", "place", "CASE"), ("order", "add", "DSR", "--due", SOON)])
def test_a_terminal_is_asked(words: tuple[str, ...], sweeper: Command, store: Store, ids: dict[str, str]) -> None:
    """The question says how much is reached; no is nothing done; --yes, a script and a single conversation are not asked."""
    account = (*words, "--account", ids["account"])
    listed = (words[0], "list", "--json")
    code, told = typed(store, "n", *account)
    assert (code, "covers 2 conversations now, and 2 feedback rows" in told, "Nothing was" in told) == (1, True, True)
    assert json.loads(sweeper(*listed).out) == []
    for answer, more in (("y", ()), ("n", ("--yes",))):
        code, told = typed(store, answer, *account, *more)
        assert (code, "Do it?" in told) == (0, not more)
    code, told = typed(store, "n", *words, "--conversation", ids["kept"])
    assert (code, "Do it?" in told) == (0, False)
    assert json.loads(sweeper(*account, "--json").out)["covers_feedback"] == 2
    assert len(json.loads(sweeper(*listed).out)) == 4


def test_a_withdrawn_order(sweeper: Command, store: Store, ids: dict[str, str]) -> None:
    """It erases nothing more, says so, is listed as withdrawn with an event, and its records stay out of training."""
    kept = ("explain", ids["kept"], "--json", "--as-of", "2026-12-01T00:00:00Z")
    before = json.loads(sweeper(*kept).out)
    assert sweeper("order", "add", "DSR", "--account", ids["account"], "--due", SOON).code == 0
    assert json.loads(sweeper(*kept).out)["rule"] == "erasure_order"
    withdrawn = sweeper("order", "withdraw", "DSR")
    assert withdrawn.code == 0
    assert SOON in withdrawn.out
    assert "What was purged under them stays purged" in withdrawn.out
    after = json.loads(sweeper(*kept).out)
    assert (after["rule"], after["due_at"]) == (before["rule"], before["due_at"])
    assert set(after["messages"].values()) == {"erasure_order"}
    (listed,) = json.loads(sweeper("order", "list", "--json").out)
    assert (listed["due_at"], listed["withdrawn_at"] is not None) == (None, True)
    assert store.execute("SELECT actor FROM sweeper.events WHERE kind = 'order_changed'") == [("officer",)]
    again = sweeper("order", "withdraw", "--id", str(listed["id"]))
    assert (again.code, "Nothing was withdrawn" in again.err) == (1, True)
    assert sweeper("order", "withdraw").code == 2
    assert sweeper("order", "add", "DSR-2", "--account", ids["purged"], "--unknown").code == 0
    assert "erasure orders erase nothing" in sweeper("status").out
    assert sweeper("order", "withdraw", "DSR-2").code == 0
    assert "erasure orders erase nothing" not in sweeper("status").out
