"""Budgets end a run in order; nothing purged while something is overdue does not pass for a night without work."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.policy.schema import Policy
from sweeper.runs.result import Result
from sweeper.runs.session import RunKind
from sweeper.runs.sweep import preview, sweep
from sweeper.runs.throttle import Budget, ProgressListener, StopReason
from tests.acceptance.commands import in_process
from tests.store.stores import Store
from tests.store.test_races import AS_OF, GUARDS, another, buried, fill

SETTINGS = "[guards]\nhistory = false\n[purge]\nbatch = 2\nlocked_wait_seconds = 0.0\n"


def swept(store: Store, policy: Policy, budget: Budget | None = None, wait: float = 0.0, **how: Any) -> Result:
    """One run in batches of two, which waits so long for what is locked."""
    purge = {"batch": 2, "locked_wait_seconds": wait}
    return sweep(store.job(policy, AS_OF, guards=GUARDS, purge=purge), budget=budget, **how)


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A settings file for small batches."""
    file = tmp_path / "sweeper.toml"
    file.write_text(SETTINGS)
    return str(file)


# Budgets


def test_max_purge(store: Store, policy: Policy) -> None:
    """So many conversations are purged and not one more; the run did what was asked of it, and the next does the rest."""
    ids = fill(store, 5)
    result = swept(store, policy, Budget(purges=3))
    assert (result.outcome, result.throttle.stopped, result.count) == ("stopped", StopReason.MAX_PURGE, 3)
    assert (result.is_done, result.is_stalled) == (True, False)
    assert buried(store) == ids[:3]
    assert swept(store, policy, Budget(purges=3)).outcome == "completed"
    assert buried(store) == ids


def test_max_purge_of_what_is_locked(store: Store, policy: Policy) -> None:
    """What is tried again at the end counts against the budget, too."""
    fill(store, 5)
    with another(store) as application:
        application.execute("SELECT FROM conversations ORDER BY id LIMIT 2 FOR UPDATE")

        def release(_: int) -> None:
            application.execute("COMMIT")

        result = swept(store, policy, Budget(purges=4), 5.0, watch=ProgressListener(advance=release))
    assert (result.count, result.throttle.stopped) == (4, StopReason.MAX_PURGE)
    assert len(store.left()) == 1


@pytest.mark.parametrize(("conversations", "most"), [(0, 3), (5, 3), (3, 3)])
def test_max_purge_allows_as_much_feedback(store: Store, policy: Policy, conversations: int, most: int) -> None:
    """Feedback has the same budget beside the conversations: those that used theirs up leave it its own."""
    fill(store, conversations)
    store.execute(
        "INSERT INTO feedback (id, kind, submitted_at) "
        "SELECT gen_random_uuid(), 'thumbs', '2018-01-01Z' FROM generate_series(1, 5)"
    )
    result = swept(store, policy, Budget(purges=most))
    assert result.as_json()["feedback_purged"] == most
    assert store.execute("SELECT count(*) FROM feedback") == [(5 - most,)]
    assert result.count == min(conversations, most)


def test_max_runtime(store: Store, policy: Policy) -> None:
    """When its time is up a run begins no further batch, has purged what it had, and is done."""
    ids = fill(store, 6)

    def spend(_: int) -> None:
        began = time.monotonic()
        while time.monotonic() < began + 1.5:
            pass

    result = swept(store, policy, Budget(seconds=1.5), watch=ProgressListener(advance=spend))
    assert (result.outcome, result.throttle.stopped, result.count) == ("stopped", StopReason.MAX_RUNTIME, 2)
    assert (result.is_done, buried(store)) == (True, ids[:2])


def test_commands(store: Store, config: str) -> None:
    """--max-purge ends with 0 and says why; the reason is in the JSON and in the record of the run."""
    fill(store, 5)
    told = in_process(store, "run", "--config", config, "--max-purge", "2")
    assert (told.code, "--max-purge is used up" in told.out) == (0, True), told.err
    found = in_process(store, "run", "--config", config, "--max-purge", "2", "--json")
    said = json.loads(found.out)
    assert (found.code, said["outcome"], said["stop_reason"], said["purged"]) == (0, "stopped", "max_purge", 2)
    assert (said["stalled"], said["batches"]["count"] >= 1, said["pauses"]) == (False, True, {})
    assert store.execute("SELECT result ->> 'stop_reason' FROM sweeper.runs") == [("max_purge",), ("max_purge",)]
    assert in_process(store, "run", "--config", config, "--max-runtime", "1h").code == 0
    assert store.left() == set()


@pytest.mark.parametrize(
    "words", [["--max-purge", "0"], ["--max-purge", "x"], ["--max-runtime", "0"], ["--max-runtime", "1d"]]
)
def test_bad_budgets(store: Store, words: list[str]) -> None:
    """A budget that is none is refused before anything is done."""
    ids = fill(store, 1)
    done = in_process(store, "run", *words)
    assert (done.code, "Traceback" in done.err, store.left()) == (2, False, set(ids))


# Nothing purged while something is overdue


def test_nothing_due_is_no_stall(store: Store, policy: Policy) -> None:
    """A night without work is a success."""
    fill(store, 0)
    result = swept(store, policy)
    assert (result.outcome, result.is_stalled, result.is_done, result.overdue) == ("completed", False, True, 0)


@pytest.mark.parametrize(("locked", "stalled"), [(2, True), (1, False)])
def test_nothing_purged_but_something_locked(
    store: Store,
    config: str,
    locked: int,
    stalled: bool,  # noqa: FBT001 — a column of the table
) -> None:
    """If all that is due stays locked by others the exit code is 1 and the output says so; if something goes, it is 0."""
    fill(store, 2)
    with another(store) as application:
        application.execute(f"SELECT FROM conversations ORDER BY id LIMIT {locked} FOR UPDATE")
        done = in_process(store, "run", "--config", config)
        assert (done.code, "NOTHING was purged" in done.err) == (int(stalled), stalled), done.err
    assert store.execute("SELECT (result ->> 'stalled')::boolean, outcome FROM sweeper.runs") == [
        (stalled, "completed")
    ]


def test_nothing_purged_but_something_failed(store: Store, policy: Policy) -> None:
    """A run in which everything failed is stalled."""
    fill(store, 1)
    store.execute(
        "CREATE FUNCTION store.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; "
        "CREATE TRIGGER fail BEFORE DELETE ON messages FOR EACH ROW EXECUTE FUNCTION store.fail()"
    )
    result = swept(store, policy)
    assert (result.overdue, result.is_stalled, result.is_done) == (1, True, False)


def test_nothing_purged_but_something_not_approved(store: Store, policy: Policy) -> None:
    """A slice whose approval allows nothing any more is stalled."""
    fill(store, 2)
    job = store.job(policy, AS_OF, guards=GUARDS)
    result = sweep(job, approval=replace(preview(job).approval, due={}), run_kind=RunKind("backfill"))
    assert (result.count, result.overdue, result.is_stalled, result.is_done) == (0, 2, True, False)


def test_stopped_before_anything_was_purged(store: Store, policy: Policy) -> None:
    """A run whose time was up before its first batch did nothing of what was asked of it."""
    fill(store, 2)
    result = swept(store, policy, Budget(seconds=0.0))
    assert (result.throttle.stopped, result.is_stalled, result.is_done) == (StopReason.MAX_RUNTIME, True, False)


def test_held_is_not_overdue(store: Store, policy: Policy) -> None:
    """What only a hold keeps is no stall."""
    fill(store, 2)
    store.execute("INSERT INTO sweeper.legal_holds (matter, placed_at) VALUES ('all', '2026-01-01Z')")
    result = swept(store, policy)
    assert (result.counts.held, result.is_stalled, result.is_done) == (2, False, True)
