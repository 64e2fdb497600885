"""A plan file as a person uses it: written by a dry run, reviewed, executed as it is or refused."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from sweeper.cli import context
from sweeper.policy.instant import rfc3339
from tests.acceptance.commands import Done, in_process
from tests.facts import World, instant
from tests.store.operated import NOW, chat, world
from tests.store.stores import POLICY, Store, frozen

Sweeper = Callable[..., Done]
DUE = 4
SETTINGS = "[guards]\nhistory = false\nmax_count = 0\nmax_share = 0.01\n"
"""Limits that whatever is due exceeds."""
SCOPE = ("--since", "2026-05-01T00:00:00Z", "--until", NOW)


def due(*names: str) -> World:
    """Conversations that are due, a day later each."""
    return world(*(chat(name, timedelta(days=number + 1)) for number, name in enumerate(names)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a plan is written."""
    return tmp_path / "plan.json"


@pytest.fixture
def sweeper(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweeper:
    """A command at NOW, or at another instant, on a store of which something is due, under limits that refuse it."""
    store.load(due("c1", "c2", "c3", "c4"))
    config = tmp_path / "sweeper.toml"
    config.write_text(SETTINGS)

    def run(*words: str, now: str = NOW, policy: str = POLICY) -> Done:
        monkeypatch.setattr(context, "CLOCK", frozen(now))
        done = in_process(store, *words, "--config", str(config), SWEEPER_POLICY_FILE=policy)
        assert "Traceback" not in done.err
        return done

    return run


def purged(store: Store) -> int:
    """How many conversations were purged."""
    return int(store.execute("SELECT count(*) FROM sweeper.tombstones WHERE approved")[0][0])


def test_run_purges_what_is_shown(sweeper: Sweeper, store: Store, file: Path) -> None:
    """A dry run writes the plan and says how it is executed; the run purges that, under the approval of the plan's digest."""
    assert sweeper("run").code == 3
    shown = sweeper("run", "--dry-run", "--out", str(file))
    assert (shown.code, f"sweeper run --plan {file}" in shown.out) == (0, True)
    found = json.loads(file.read_text())
    assert shown.out.splitlines()[-1] == f"digest: {found['digest']}"
    assert (found["would_purge"], found["by_rule"], found["would_refuse"]) == (DUE, {"standard": DUE}, ["volume"])
    done = sweeper("run", "--json", "--plan", str(file))
    assert (done.code, json.loads(done.out)["by_rule"]) == (0, found["by_rule"])
    assert purged(store) == DUE
    assert store.execute("SELECT approval FROM sweeper.runs WHERE outcome = 'completed'") == [(found["digest"],)]


def test_json_and_file_say_the_same(sweeper: Sweeper, file: Path) -> None:
    """Whatever --json prints is in the file under the same name."""
    for command in (("run",), ("backfill", *SCOPE)):
        printed = json.loads(sweeper(*command, "--dry-run", "--json", "--out", str(file)).out)
        found = json.loads(file.read_text())
        assert printed.items() <= found.items()


def test_no_more_than_is_shown(sweeper: Sweeper, store: Store, file: Path) -> None:
    """Fewer is fine, and what a plan has purged is used up; once more is due than is left of it, the run is refused."""
    sweeper("run", "--dry-run", "--out", str(file))
    store.execute("UPDATE conversations SET last_activity_at = %s WHERE id = %s", NOW, store.id("c1"))
    assert json.loads(sweeper("run", "--json", "--plan", str(file)).out)["purged"] == DUE - 1
    store.load({**due("c5", "c6"), "accounts": []})
    refused = sweeper("run", "--plan", str(file))
    assert (refused.code, "standard: 2 due, 1 approved and not yet purged" in refused.err) == (3, True)
    assert purged(store) == DUE - 1
    store.execute("DELETE FROM conversations WHERE id = %s", store.id("c6"))
    assert json.loads(sweeper("run", "--json", "--plan", str(file)).out)["purged"] == 1
    assert store.left() == {store.id("c1")}


def test_edited_plan(sweeper: Sweeper, store: Store, file: Path) -> None:
    """An edited plan is no plan: exit code 2 and what was found, and no run begins."""
    for command in (("run",), ("backfill", *SCOPE)):
        sweeper(*command, "--dry-run", "--out", str(file))
        found = json.loads(file.read_text())
        file.write_text(json.dumps({**found, "by_rule": {"standard": DUE + 1}, "would_purge": DUE + 1}))
        refused = sweeper(command[0], "--plan", str(file))
        assert (refused.code, refused.out) == (2, "")
        for text in (str(file), "was edited", f"would_purge is {DUE + 1}, its digest says {found['would_purge']}"):
            assert text in refused.err
    assert len(store.left()) == DUE
    assert store.execute("SELECT count(*) FROM sweeper.runs") == [(0,)]


def test_plan_that_has_lapsed(sweeper: Sweeper, store: Store, file: Path) -> None:
    """A plan is good for less than 24 hours, as its digest is."""
    sweeper("run", "--dry-run", "--out", str(file))
    late = instant(NOW) + timedelta(hours=24)
    refused = sweeper("run", "--plan", str(file), now=rfc3339(late))
    assert (refused.code, "has lapsed" in refused.err, len(store.left())) == (3, True, DUE)
    assert sweeper("run", "--plan", str(file), now=rfc3339(late - timedelta(microseconds=1))).code == 0


def test_plan_for_another_policy(sweeper: Sweeper, store: Store, file: Path, tmp_path: Path) -> None:
    """A plan made under one policy is not executed under another."""
    other = tmp_path / "policy.toml"
    other.write_text(Path(POLICY).read_text().replace("30 days", "29 days"))
    sweeper("run", "--dry-run", "--out", str(file))
    refused = sweeper("run", "--plan", str(file), policy=str(other))
    assert (refused.code, "the approval is for policy" in refused.err, len(store.left())) == (3, True, DUE)


def test_plan_for_another_store(sweeper: Sweeper, store: Store, file: Path) -> None:
    """A plan made for one store is not executed on another, a copy of it for instance."""
    sweeper("run", "--dry-run", "--out", str(file))
    store.execute("UPDATE sweeper.identity SET id = gen_random_uuid()")
    refused = sweeper("run", "--plan", str(file))
    assert (refused.code, "the approval is for store" in refused.err, len(store.left())) == (3, True, DUE)


@pytest.mark.parametrize(("made", "given"), [("run", "backfill"), ("backfill", "run")])
def test_plan_for_another_command(made: str, given: str, sweeper: Sweeper, store: Store, file: Path) -> None:
    """A run does not take a backfill's plan, nor a backfill a run's."""
    sweeper(made, *(SCOPE if made == "backfill" else ()), "--dry-run", "--out", str(file))
    refused = sweeper(given, "--plan", str(file))
    assert (refused.code, "the approval is for" in refused.err, len(store.left())) == (3, True, DUE)


def test_backfill(sweeper: Sweeper, store: Store, file: Path) -> None:
    """A backfill takes since, until and the length of its slices from the plan, and the same command goes on with it."""
    shown = sweeper("backfill", *SCOPE, "--by", "day", "--dry-run", "--out", str(file))
    assert f"sweeper backfill --plan {file}" in shown.out
    found = json.loads(file.read_text())
    assert (found["since"], found["until"], found["by"]) == (SCOPE[1], SCOPE[3], "day")
    assert [slice_["would_purge"] for slice_ in found["slices"]] == [1] * DUE
    first = json.loads(sweeper("backfill", "--json", "--plan", str(file), "--max-purge", "1").out)
    assert (first["by"], first["purged"], first["stop_reason"]) == ("day", 1, "max_purge")
    week = rfc3339(instant(NOW) + timedelta(days=7))
    second = json.loads(sweeper("backfill", "--json", "--plan", str(file), now=week).out)
    assert (second["backfill"], second["outcome"], second["purged"]) == (first["backfill"], "completed", DUE)
    assert store.left() == set()


TOGETHER = {
    "--plan and --approve": ["run", "--plan", "{plan}", "--approve", "x"],
    "--plan and --as-of": ["run", "--plan", "{plan}", "--as-of", NOW],
    "--plan and --dry-run": ["run", "--plan", "{plan}", "--dry-run"],
    "--out without --dry-run": ["run", "--out", "{out}"],
    "--out and --plan": ["run", "--plan", "{plan}", "--out", "{out}"],
    "backfill --plan and --approve": ["backfill", "--plan", "{plan}", "--approve", "x"],
    "backfill --plan and --since": ["backfill", "--plan", "{plan}", *SCOPE],
    "backfill --plan and --by": ["backfill", "--plan", "{plan}", "--by", "day"],
    "backfill --plan and --dry-run": ["backfill", "--plan", "{plan}", "--dry-run"],
    "backfill --plan and --give-up": ["backfill", "--plan", "{plan}", "--give-up"],
    "backfill --out without --dry-run": ["backfill", *SCOPE, "--out", "{out}"],
    "backfill of nothing": ["backfill", "--dry-run"],
    "--out where nothing can be written": ["run", "--dry-run", "--out", "/none/plan.json"],
    "no plan file": ["run", "--plan", "/none/plan.json"],
}


@pytest.mark.parametrize("what", TOGETHER)
def test_what_cannot_be_meant(what: str, sweeper: Sweeper, store: Store, file: Path) -> None:
    """Options that contradict each other, and files that are not there, end with 2 and words; nothing is done or written."""
    command = ("backfill", *SCOPE) if what.startswith("backfill") else ("run",)
    sweeper(*command, "--dry-run", "--out", str(file))
    out = file.with_name("out.json")
    done = sweeper(*(word.format(plan=file, out=out) for word in TOGETHER[what]))
    assert (done.code, done.out, bool(done.err.strip())) == (2, "", True), done.err
    assert (len(store.left()), out.exists()) == (DUE, False)
    assert store.execute("SELECT count(*) FROM sweeper.runs") == [(0,)]
