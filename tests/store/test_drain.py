"""What ends a backfill, and what it says of what it left: locked rows, more than was approved, another policy, a lost lease."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import RefusedError
from sweeper.policy.schema import Policy
from sweeper.policy.window import Slice
from sweeper.runs.backfill import BackfillScope, begin
from sweeper.runs.backfill_runner import BackfillOutcome, BackfillRunner
from sweeper.runs.job import Job
from sweeper.runs.sweep import preview
from sweeper.runs.throttle import Budget, ProgressListener
from sweeper.settings import PolicyFile
from tests.acceptance import commands
from tests.facts import instant
from tests.store.operated import NOW, chat, world
from tests.store.stores import POLICY, Store

SCOPE = BackfillScope(instant("2026-04-01T00:00:00Z"), instant("2026-06-01T00:00:00Z"), Slice.MONTH)
SETTINGS: dict[str, Any] = {
    "guards": {"history": False, "volume": False},
    "purge": {"batch": 1, "locked_wait_seconds": 0.0},
}
OF_MAY, OF_APRIL = timedelta(days=3), timedelta(days=40)


def made(store: Store, policy: Policy) -> Job:
    """A job on a store in which two conversations were due in April and one in May."""
    store.load(world(chat("c1", OF_APRIL), chat("c2", OF_APRIL), chat("c3", OF_MAY)))
    return store.job(policy, NOW, **SETTINGS)


def drained(job: Job, budget: Budget | None = None, watch: ProgressListener | None = None) -> BackfillOutcome:
    """The plan, previewed, approved and worked on."""
    plan = begin(job, SCOPE, preview(job, scope=SCOPE).approval)
    return BackfillRunner(job, plan, watch or ProgressListener(), budget or Budget()).run()


def test_all_locked(store: Store, policy: Policy) -> None:
    """A plan that came to its end while others held every row has purged nothing, and says what it left."""
    job = made(store, policy)
    with store.connect() as holder, holder.transaction():
        holder.execute("SELECT FROM conversations FOR UPDATE")
        found = drained(job)
    assert (found.outcome, found.purged_now, found.left, found.is_stalled) == ("completed", 0, 3, True)


def test_all_spared(store: Store, policy: Policy) -> None:
    """A plan of which a universal hold, placed and released after as-of, spared everything has purged nothing, and has failed."""
    job = made(store, policy)
    plan = begin(job, SCOPE, preview(job, scope=SCOPE).approval)
    store.execute(
        "INSERT INTO sweeper.legal_holds (matter, placed_at, released_at) VALUES ('m', now() + '1 h', now() + '2 h')"
    )
    found = BackfillRunner(job, plan, ProgressListener(), Budget()).run()
    assert (found.outcome, found.purged_now, found.left, found.is_stalled) == ("completed", 0, 3, True)


def test_one_locked(store: Store, policy: Policy) -> None:
    """What was left beside what was purged is counted, and the work is no failure."""
    job = made(store, policy)
    with store.connect() as holder, holder.transaction():
        holder.execute("SELECT FROM conversations WHERE id = %s FOR UPDATE", [store.id("c3")])
        found = drained(job)
    assert (found.purged_now, found.left, found.is_stalled) == (2, 1, False)


def test_budget_of_nothing(store: Store, policy: Policy) -> None:
    """A backfill whose time is used up before its first batch has purged nothing; one with nothing to do is done."""
    job = made(store, policy)
    assert drained(job, Budget(seconds=0.0)).is_stalled
    assert drained(job).is_stalled is False
    assert drained(job).is_stalled is False


def test_exit_code(store: Store, policy: Policy, tmp_path: Path) -> None:
    """A backfill that purged nothing although something is locked says so and exits 1."""
    job = made(store, policy)
    begin(job, SCOPE, preview(job, scope=SCOPE).approval)
    words = ("backfill", "--since", "2026-04-01T00:00:00Z", "--until", "2026-06-01T00:00:00Z")
    with store.connect() as holder, holder.transaction():
        holder.execute("SELECT FROM conversations FOR UPDATE")
        settings = tmp_path / "impatient.toml"
        settings.write_text("[purge]\nlocked_wait_seconds = 0.0\n")
        done = commands.in_process(store, *words, "--accept-history", SWEEPER_CONFIG=str(settings))
    assert (done.code, "NOTHING was purged" in done.err) == (1, True)
    assert "3 due conversations were skipped" in done.out


def after(purges: int, deed: Callable[[], None]) -> ProgressListener:
    """A watch that does something when so many proposals have been dealt with."""
    seen: list[int] = []

    def advance(count: int) -> None:
        seen.append(count)
        if len(seen) == purges:
            deed()

    return ProgressListener(advance=lambda count: advance(count) if count else None)


def test_policy_changed_on_disk(store: Store, policy: Policy, tmp_path: Path) -> None:
    """What was approved under one policy is not purged on under another: the slice at work is the last."""
    file = tmp_path / "policy.toml"
    text = Path(POLICY).read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    job = made(store, policy)
    settings = job.settings.model_copy(update={"policy": PolicyFile(file=file)})
    job = replace(job, database=replace(job.database, settings=settings))
    change = after(1, lambda: void(file.write_text(text.replace("30 days", "90 days"), encoding="utf-8")))
    with pytest.raises(RefusedError, match=r"2 were purged before it changed; no more was\. Preview again"):
        drained(job, watch=change)
    assert store.left() == {store.id("c3")}


def test_lease_taken_over(store: Store, policy: Policy) -> None:
    """A backfill that was frozen while a run took its lease tries the slice again, and its budget counts what it did before."""
    job = made(store, policy)
    take_over = "UPDATE sweeper.lease SET token = token + 1, expires_at = '-infinity'"
    found = drained(job, Budget(purges=2), after(1, lambda: void(store.execute(take_over))))
    assert (found.outcome, found.stop_reason, found.purged_now) == ("stopped", "max_purge", 2)
    assert store.execute("SELECT outcome FROM sweeper.runs ORDER BY id LIMIT 1") == [("interrupted",)]


def void(_: object) -> None:
    """Nothing of what it is given."""
