"""The night on which a backfill had ended or was killed, and the run after it left everything to it."""

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sweeper.policy.instant import rfc3339
from sweeper.postgres import backfills
from tests.acceptance.backfills import SCOPE, done, fill, running, words
from tests.acceptance.commands import Done, in_process
from tests.acceptance.test_kill import gate, waiting
from tests.store.stores import Store

GO_ON = f"`sweeper backfill --since {rfc3339(SCOPE.since)} --until {rfc3339(SCOPE.until)}` continues it"
STATUS_GO_ON = GO_ON.removesuffix(" it") + " from there"


def run(store: Store, folder: Path) -> Done:
    """A run as a person sees it."""
    return in_process(store, "run", "--config", str(folder / "sweeper.toml"))


def approved(store: Store, folder: Path) -> list[str]:
    """The command of the plan with what its preview printed; a first run has purged what is due outside of it."""
    fill(store)
    _, found, _ = done(store, folder, *words("--dry-run"))
    return words("--approve", found["digest"])


def test_run_after_a_backfill_has_ended(store: Store, tmp_path: Path) -> None:
    """A backfill that its own limit ended is not at work a moment later: the run says so, names the command, and fails."""
    code, found, _ = done(store, tmp_path, *approved(store, tmp_path), "--max-purge", "2")
    assert (code, found["purged"]) == (0, 2)
    first = run(store, tmp_path)
    assert (first.code, "NOBODY works on that" in first.err, GO_ON in first.err) == (0, True, True)
    second = run(store, tmp_path)
    assert (second.code, "NOBODY works on that" in second.err, GO_ON in second.err) == (1, True, True)
    assert "NOTHING was purged" in second.err
    status = in_process(store, "status", "--config", str(tmp_path / "sweeper.toml"))
    assert "Nobody works on backfill 1 (its process ended" in status.out
    assert STATUS_GO_ON in status.out
    assert done(store, tmp_path, *words())[0] == 0
    assert "backfill" not in run(store, tmp_path).out


def test_run_after_a_backfill_was_killed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill that was killed a moment ago is not at work: the run waits for a heartbeat, says that none came, and fails."""
    with (
        running(store, tmp_path, *approved(store, tmp_path)) as filler,
        gate(store, "sweeper.tombstones", "INSERT", "true") as holder,
    ):
        waiting(filler, holder)
        os.kill(filler.pid, signal.SIGKILL)
        filler.wait()
    monkeypatch.setattr(backfills, "SILENT", timedelta(seconds=1))
    first, second = run(store, tmp_path), run(store, tmp_path)
    assert (first.code, "NOBODY works on that" in first.err, GO_ON in first.err) == (0, True, True)
    assert (second.code, "NOBODY works on that" in second.err, GO_ON in second.err) == (1, True, True)


def test_run_beside_a_backfill_at_work(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a backfill waits for its hours and gives heartbeats, a run leaves its range to it, says so, and succeeds."""
    monkeypatch.setattr(backfills, "SILENT", timedelta(minutes=10))
    soon = datetime.now(UTC) + timedelta(hours=2)
    closed = f"{soon:%H:%M}-{soon + timedelta(hours=2):%H:%M}"
    waits = [*approved(store, tmp_path), "--between", closed]
    with running(store, tmp_path, *waits) as filler:
        assert filler.stderr is not None
        next(line for line in filler.stderr if "backfill waits" in line)
        first, second = run(store, tmp_path), run(store, tmp_path)
    assert (first.code, second.code) == (0, 0), second.err
    assert "is left to backfill 1. Its last heartbeat was at" in second.out
    assert "NOBODY" not in second.err
