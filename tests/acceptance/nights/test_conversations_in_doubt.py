"""A night in which conversations were kept because their data were in doubt."""

from datetime import UTC, datetime, timedelta

from sweeper.policy.instant import rfc3339
from tests.acceptance.commands import Command
from tests.acceptance.nights import morning
from tests.acceptance.nights.morning import due
from tests.store.operated import world
from tests.store.stores import Store


def test_the_night(sweeper: Command, store: Store) -> None:
    """The run, status and explain name the doubt and the column to mend; status, until it is mended."""
    deleted = {"deleted_at": rfc3339(datetime.now(UTC) - timedelta(days=31)), "flagged_at": "-infinity"}
    store.load(world(due("gone"), *(due(f"c{number}") | deleted for number in range(16))))
    run = sweeper("run")
    assert (run.code, "0 records were skipped and 16 are in doubt" in run.out) == (0, True)
    for line in (*morning.advice(run.out), *morning.advice(sweeper("status").out)):
        assert line.startswith("! 16 records are in doubt and kept (flagged_at")
        assert "the time of its flag is implausible" in line
        assert "To mend it: fix flagged_at in store.conversations." in line
    assert morning.ALL_IS_WELL not in sweeper("status").out
    told = sweeper("explain", str(store.id("c0"))).out
    assert "It is not trained on, and runs keep it until that is mended." in told
    assert "How to mend it\n  fix flagged_at in store.conversations\n" in told
    store.execute("UPDATE conversations SET flagged_at = NULL")
    assert sweeper("run").code == 0
    assert morning.is_well(sweeper)


def test_doubt_that_no_run_meets(sweeper: Command, store: Store) -> None:
    """Status says that nobody has looked until a report has; explain tells the due date under each plan it may have."""
    store.load(world(due("gone"), *(due(f"c{number}", account="a2") for number in range(16))))
    assert sweeper("run").code == 0
    lines = sweeper("status").out.splitlines()
    assert lines[-2] == NOT_LOOKED_AT
    assert lines[-1] == "Nothing wrong was found in what was looked at."

    assert sweeper("report").code == 0
    [line] = morning.advice(sweeper("status").out)
    assert line.startswith("! 16 records are in doubt and kept (unknown_plan, by the report of 2")
    assert "a plan that the policy does not know has been in force" in line
    assert morning.statement(line, "SELECT") == "SELECT plan, count(*) FROM store.plan_changes GROUP BY plan;"
    told = sweeper("explain", str(store.id("c0"))).out
    assert "plan 'platinum' is in no class of [plans]; add it there or fix plan_changes" in told
    assert "If its unknown plan were free or max or pro: it was due at" in told

    store.execute("UPDATE plan_changes SET plan = 'pro' WHERE plan = 'platinum'")
    assert sweeper("run").code == 0
    assert morning.is_well(sweeper)


NOT_LOOKED_AT = "? Not looked at: Records in doubt that no run meets: no `sweeper report` has counted them yet."
