"""A run that purges nothing although records are due fails, whatever spared them; a night without work does not."""

import re
from typing import Any

import pytest

from sweeper.cli.run import NOT_PURGED, print_result
from sweeper.policy import remedies
from sweeper.policy.decide import Doubt
from sweeper.policy.evaluate import Spared
from sweeper.policy.schema import Policy
from sweeper.report import status
from sweeper.runs.result import LEFT_THOUGH_DUE, Result
from sweeper.runs.sweep import sweep
from sweeper.runs.throttle import ProgressListener
from tests.acceptance.commands import Command
from tests.facts import World
from tests.store.operated import MONTH, NOW, TICK, chat, world
from tests.store.stores import Store, frozen

LATER = {"placed_at": "2026-06-01T00:00:00.000001Z"}
RELEASED = LATER | {"released_at": "2026-06-01T00:00:00.000002Z"}
SEEN = {"id": "m1", "author": "user", "created_at": "2026-05-31T00:00:00Z"}
FEEDBACK = {"id": "f1", "account": "a1", "kind": "thumbs", "submitted_at": "2021-05-31T00:00:00Z"}
DUE = chat("due", MONTH)


def run(store: Store, policy: Policy, watch: ProgressListener | None = None, **sections: Any) -> Result:
    """A run at a frozen now."""
    return sweep(store.job(policy, NOW, frozen(NOW), **sections), watch=watch)


SPARED: dict[str, tuple[World, str, int]] = {
    "a universal hold, placed and released within the run": (
        world(DUE, chat("other", MONTH), holds=[RELEASED]),
        "protected_after_as_of",
        2,
    ),
    "a universal hold, placed within the run": (world(DUE, holds=[LATER]), "protected_after_as_of", 1),
    "a hold on the account": (world(DUE, holds=[RELEASED | {"account": "a1"}]), "protected_after_as_of", 1),
    "a flag": (world(chat("due", MONTH, flagged_at=LATER["placed_at"])), "protected_after_as_of", 1),
    "feedback under such a hold": (world(feedback=[FEEDBACK], holds=[RELEASED]), "protected_after_as_of", 1),
    "a column that tells too little": (world(chat("due", MONTH, messages=[SEEN])), "stale_last_activity", 1),
}


@pytest.mark.parametrize("name", SPARED)
def test_spared_entirely(name: str, store: Store, sweeper: Command) -> None:
    """Nothing is purged of what is due as stored: `stalled`, exit 1, and a person is told what spared how many."""
    found, reason, count = SPARED[name]
    store.load(found)
    done = sweeper("run", "--as-of", NOW)
    assert (done.code, f"NOTHING was purged, and {count} records were due" in done.err) == (1, True)
    assert f"{count} {NOT_PURGED[reason]} ({reason})" in done.err
    assert store.execute("SELECT outcome, result -> 'stalled', result -> 'spared_by_reason' FROM sweeper.runs") == [
        ("completed", True, {reason: count})
    ]


KEPT: dict[str, World] = {
    "nothing due": world(chat("kept", -TICK)),
    "a hold known at as-of": world(DUE, holds=[{"placed_at": NOW}]),
    "a hold since always": world(DUE, holds=[{"account": "a1"}], feedback=[FEEDBACK]),
    "doubt": world(chat("doubt", MONTH, account="a2")),
    "spared beside one that was purged": world(DUE, chat("stale", MONTH, messages=[SEEN])),
}


@pytest.mark.parametrize("name", KEPT)
def test_in_order(name: str, store: Store, sweeper: Command) -> None:
    """What is held as known at as-of, in doubt or not due is no failure, nor is what was spared beside a purge."""
    store.load(KEPT[name])
    done = sweeper("run", "--as-of", NOW)
    assert (done.code, "NOTHING" in done.err) == (0, False)
    assert store.execute("SELECT result -> 'stalled' FROM sweeper.runs") == [(False,)]


def test_changed(store: Store, policy: Policy, capsys: pytest.CaptureFixture[str]) -> None:
    """A chat that is resumed before it is locked is not due any more: the run says so, and has not failed."""
    store.load(world(DUE))

    def resume(_: int) -> None:
        store.execute("UPDATE conversations SET last_activity_at = %s", NOW)

    result = run(store, policy, ProgressListener(expect=resume))
    assert (result.counts.skipped, result.is_stalled, result.is_done) == ({"changed": 1}, False, True)
    print_result(result)
    assert "1 conversations were due when they were proposed, and had changed" in capsys.readouterr().out


def test_every_reason_has_a_remedy() -> None:
    """Each reason to skip and each doubt is told with its cause and with what mends it, for the store's own schema."""
    assert set(remedies.SKIPPED) == set(Spared)
    assert set(remedies.DOUBTED) == set(Doubt)
    told = [remedies.skipped(reason, 2, "shop") for reason in Spared]
    told += [remedies.in_doubt(doubt, 2, "shop") for doubt in Doubt]
    told += [remedies.skipped("of_old", 2, "shop"), remedies.in_doubt("of_old", 2, "shop")]
    for line in told:
        assert re.fullmatch(r"2 records are .+ \(\w+\): .+ To mend it: .+[.;]", line)
        assert "{" not in line


@pytest.mark.parametrize(("changed", "advised"), [(remedies.USUAL + 1, False), (remedies.USUAL + 2, True)])
def test_changed_beside_one_purge(store: Store, policy: Policy, changed: int, advised: bool) -> None:  # noqa: FBT001 — of the table
    """A few chats always change while a run is at work; many beside one purge are said to be, by the run and by status."""
    store.load(world(DUE, *(chat(f"c{number}", MONTH) for number in range(changed))))

    def resume(_: int) -> None:
        store.execute("UPDATE conversations SET last_activity_at = %s WHERE id <> %s", NOW, store.id("due"))

    result = run(store, policy, ProgressListener(expect=resume))
    assert (result.counts.skipped, result.count) == ({"changed": changed}, 1)
    assert [f"{changed} records are skipped (changed)" in line for line in result.advice] == [True] * advised
    told = [line for line in status.read(store.database(), frozen(NOW)).advice if "(changed, by run 1" in line]
    assert len(told) == advised


def test_every_reason_is_decided() -> None:
    """Each reason to spare is either a failure where nothing is purged, with words for it, or is `changed`."""
    assert set(Spared) - set(LEFT_THOUGH_DUE) == {Spared.CHANGED}
    assert set(NOT_PURGED) == {"failed", *(reason.value for reason in LEFT_THOUGH_DUE)}
