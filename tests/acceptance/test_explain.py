"""What `explain` says: that it agrees with a run, names what is at fault, and counts everything."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.commands import Command
from tests.acceptance.test_cli import case
from tests.facts import World
from tests.store.stores import ROOT, Store

DUE = case("opt-out: thirty days later")
STANDARD = case("standard: at due")
EIGHTEEN = str(ROOT / "config" / "examples" / "eighteen_months.toml")


def changed(**columns: Any) -> World:
    """The case that is due, with other columns in its conversation."""
    return {**DUE, "conversations": [{**DUE["conversations"][0], **columns}]}


@pytest.fixture
def id_(store: Store) -> str:
    """The conversation of the case that is due."""
    return str(store.id("c1"))


def test_what_a_run_would_spare(sweeper: Command, store: Store, id_: str) -> None:
    """Due on the row as stored, but with a newer user message: `purge` stays true, and both texts say that a run skips it."""
    late = {"id": "late", "author": "user", "created_at": STANDARD["as_of"]}
    store.load({**STANDARD, "conversations": [{**STANDARD["conversations"][0], "messages": [late]}]})
    at = ("--as-of", STANDARD["as_of"])
    told = json.loads(sweeper("explain", id_, "--json", *at).out)
    assert (told["purge"], told["rule"], told["spared"]) == (True, "standard", "stale_last_activity")
    text = sweeper("explain", id_, *at).out
    assert "A run would skip it: a user message is newer" in text
    assert "TO BE PURGED" not in text
    assert f"{id_}  spare" in sweeper("explain", "--all", *at).out
    run = json.loads(sweeper("run", "--json", "--accept-history", *at).out)
    assert run["spared_by_reason"] == {"stale_last_activity": 1}
    assert [advice.partition(":")[0] for advice in run["advice"]] == ["1 records are skipped (stale_last_activity)"]
    assert (told["true_rule"], told["true_due_at"] > told["due_at"], len(told["mend"])) == ("standard", True, 1)


def test_what_a_run_would_purge(sweeper: Command, store: Store, id_: str) -> None:
    """Nothing spares what a run purges."""
    store.load(DUE)
    told = json.loads(sweeper("explain", id_, "--json", "--as-of", DUE["as_of"]).out)
    assert (told["purge"], told["spared"], told["purged"], told["mend"]) == (True, None, None, [])
    assert (told["true_rule"], told["true_due_at"]) == (told["rule"], told["due_at"])


def test_totals(sweeper: Command, store: Store, id_: str) -> None:
    """`--all` ends with totals by rule and by reason for doubt: on stdout for a person, on stderr for a machine."""
    first = DUE["conversations"][0]
    odd = {"id": "odd", "plans": [{"effective_at": "2024-01-01T00:00:00Z", "plan": "platinum"}], "consent": []}
    doubt = {**first, "id": "doubt", "account": "odd", "messages": []}
    store.load({**DUE, "accounts": [*DUE["accounts"], odd], "conversations": [first, doubt]})
    at = ("--as-of", DUE["as_of"])
    text = sweeper("explain", "--all", *at)
    lines = [" ".join(line.split()) for line in text.out.splitlines()]
    assert lines[2:] == [
        "",
        "rule purge held spare keep",
        "consent_ended 1 0 0 0",
        "unclassified 0 0 0 1",
        "all 1 0 0 1",
        "unclassified (unknown_plan): 1",
    ]
    machine = sweeper("explain", "--all", "--json", *at)
    assert {json.loads(line)["conversation_id"] for line in machine.out.splitlines()} == {id_, str(store.id("doubt"))}
    logged = json.loads(machine.err.splitlines()[0])
    assert (logged["event"], logged["conversations"]) == ("totals", 2)
    assert logged["by_rule"] == {"consent_ended": {"purge": 1}, "unclassified": {"keep": 1}}
    assert logged["unclassified_by_reason"] == {"unknown_plan": 1}


def test_what_if_needs_one_id(sweeper: Command) -> None:
    """A supposition about everything is a usage error, not a question that is left unanswered."""
    done = sweeper("explain", "--all", "--what-if", "delete")
    assert (done.code, done.out, "--what-if works with one ID" in done.err) == (2, "", True)


def test_the_plan_at_fault(sweeper: Command, store: Store, id_: str) -> None:
    """An unknown plan is named, with the two places where it can be mended."""
    plans = [{"effective_at": "2020-01-01T00:00:00Z", "plan": "platinum"}]
    store.load({**DUE, "accounts": [{**DUE["accounts"][0], "plans": plans}]})
    text = sweeper("explain", id_, "--as-of", DUE["as_of"]).out
    assert "plan 'platinum' is in no class of [plans]; add it there or fix plan_changes" in text


def test_the_period_at_fault(sweeper: Command, store: Store, id_: str) -> None:
    """A column that cannot be a period is named with its value; the columns that the policy reads are among the facts."""
    account = {**DUE["accounts"][0], "columns": {"history_enabled": True, "retention_days": -7}}
    store.load({**DUE, "accounts": [account]})
    text = sweeper("explain", id_, "--as-of", DUE["as_of"], SWEEPER_POLICY_FILE=EIGHTEEN).out
    assert "account.retention_days is -7; a whole number of days is needed, or none" in text
    assert "account.history_enabled: yes" in text
    assert "account.retention_days: -7" in text


def test_a_policy_without_purposes(sweeper: Command, store: Store, id_: str) -> None:
    """Where no consent matters, no line speaks of one; what would be due at once would be purged by the next run."""
    store.load(changed(kind=None, last_activity_at="2025-12-01T00:00:00Z"))
    text = sweeper("explain", id_, "--as-of", DUE["as_of"], SWEEPER_POLICY_FILE=EIGHTEEN).out
    assert "withdrew its consent" not in text
    assert "If the user deleted it now: it would be purged by the next run (deleted)." in text
    assert "kind not set" in text


def test_neither_conversation_nor_tombstone(sweeper: Command) -> None:
    """What no row and no tombstone names is exit 1, on stderr."""
    done = sweeper("explain", "9c9a9d0e-6f4c-4f53-9d5e-0d6a3b2f1c11")
    assert (done.code, done.out, "no tombstone names it" in done.err) == (1, "", True)


def test_refusals_seen_from_a_preview(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """A preview sends to the digest below it, and names what keeps a run from looking ahead."""
    store.load(DUE)
    (tmp_path / "s.toml").write_text("[guards]\nmax_count = 0\nmax_share = 0.01")
    config = ("--config", str(tmp_path / "s.toml"))
    text = sweeper("run", "--dry-run", "--as-of", DUE["as_of"], *config).out
    refusal = next(line for line in text.splitlines() if "A run would refuse (volume)" in line)
    assert "approve the digest below" in refusal
    assert "--dry-run" not in refusal
    ahead = sweeper("run", "--dry-run", "--json", "--as-of", "2090-01-01T00:00:00Z", *config)
    assert set(json.loads(ahead.out)["would_refuse"]) == {"future_as_of", "volume"}
