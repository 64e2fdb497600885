"""Manifests that end and that move: retired, relocated, built again into a directory that was removed."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeper.evidence import comparison
from sweeper.manifest import lifecycle
from sweeper.manifest.description import DamagedError
from sweeper.manifest.lifecycle import FrozenManifest, StateError
from sweeper.policy.schema import Policy
from sweeper.postgres import fence
from sweeper.report import operation
from tests.manifest.made import withdraw
from tests.manifest.test_lifecycle import KEY, LATER, NOW, complete, events, job, made
from tests.store.stores import Store, frozen

__all__ = ["made"]


def in_use(store: Store) -> dict[str, int]:
    """How many manifests reports and metrics count, by state."""
    with store.database().transaction() as connection:
        return dict(operation.manifests(connection, "store").by_state)


def is_honest(store: Store) -> bool:
    """Whether the tables are what the events tell."""
    database = store.database()
    with database.snapshot(statement_timeout_ms=60_000) as connection:
        return not list(comparison.faults(connection, database.settings))


def test_relocated(store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path) -> None:
    """A moved manifest is found at its new place once all its files are seen there, those of revoked rows included."""
    withdraw(store, "a1", NOW)
    at, id_ = job(store, policy, LATER), made.description.id
    lifecycle.start(at, id_)
    moved = made.folder.rename(tmp_path / "moved")
    (lost,) = lifecycle.recall(at, None)
    assert lost.missing is not None
    partial = Path(shutil.copytree(moved, tmp_path / "partial"))
    (partial / "revoked-start-00000.parquet").unlink()
    with pytest.raises(DamagedError, match="revoked-start-00000"):
        lifecycle.relocate(at.database, id_, partial)
    with pytest.raises(DamagedError, match="cannot be read"):
        lifecycle.relocate(at.database, id_, tmp_path / "nowhere")
    assert lifecycle.relocate(at.database, id_, moved)["directory"] == str(moved)
    (found,) = lifecycle.recall(at, None)
    assert (found.directory, found.missing, found.reasons) == (str(moved), None, {"no_consent": 6})
    (moved / "revoked-start-00000.parquet").unlink()
    assert lifecycle.verify(at, moved, None).faults == ("revoked-start-00000.parquet is missing",)
    complete(at, id_)
    assert events(store) == ["manifest_frozen", "manifest_started", "manifest_relocated", "manifest_completed"]
    assert is_honest(store)


def test_retired(store: Store, policy: Policy, made: FrozenManifest) -> None:
    """A retired manifest is not started, moved, recalled or counted any more, and nobody is told to train on it."""
    at, id_ = job(store, policy, LATER), made.description.id
    assert in_use(store) == {"frozen": 1}
    retired = lifecycle.retire(at.database, id_)
    assert list(lifecycle.recall(at, None)) == []
    assert in_use(store) == {}
    assert lifecycle.verify(at, made.folder, None).retired_at == retired["retired_at"] is not None
    for act in (
        lambda: lifecycle.start(at, id_),
        lambda: lifecycle.retire(at.database, id_),
        lambda: lifecycle.find_in_use(at.database, id_),
        lambda: lifecycle.relocate(at.database, id_, made.folder),
    ):
        with pytest.raises(StateError, match="was retired on"):
            act()
    assert (events(store), is_honest(store)) == (["manifest_frozen", "manifest_retired"], True)


def test_retired_and_built_again(store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path) -> None:
    """The same manifest built again is in use again, and is searched where it is now."""
    at = job(store, policy)
    lifecycle.retire(at.database, made.description.id)
    shutil.rmtree(made.folder)
    again = lifecycle.freeze(at, tmp_path / "again", KEY)
    assert again.description.id == made.description.id
    (found,) = lifecycle.recall(at, None)
    assert (found.missing, found.directory) == (None, str(again.folder))


@pytest.mark.parametrize("started", [False, True])
def test_built_into_a_removed_directory(
    store: Store,
    policy: Policy,
    made: FrozenManifest,
    started: bool,  # noqa: FBT001 — a test's parameter
) -> None:
    """A manifest that never started ends with its directory; one on which training was started is still asked for."""
    at, first = job(store, policy, LATER), made.description.id
    if started:
        lifecycle.start(at, first)
    shutil.rmtree(made.folder)
    second = lifecycle.freeze(at, made.folder, KEY)
    assert (second.replaced, second.displaced) == (((), (first,)) if started else ((first,), ()))
    missing = {one.manifest_id: one.missing for one in lifecycle.recall(at, None)}
    assert missing.pop(second.description.id) is None
    assert list(missing) == ([first] if started else [])
    assert all(f"holds manifest {second.description.id}" in str(why) for why in missing.values())


def test_retired_while_it_is_started(
    store: Store, policy: Policy, made: FrozenManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that began before a retirement changes nothing after it."""
    at, id_ = job(store, policy, LATER), made.description.id
    other = store.job(policy, LATER, frozen(LATER), lease={"seconds": 21.0})  # with its own connections
    original, left = fence.take_exclusively, [True]

    def take(connection: Any) -> None:
        if left:
            left.pop()
            lifecycle.retire(other.database, id_)
        original(connection)

    monkeypatch.setattr(fence, "take_exclusively", take)
    withdraw(store, "a1", NOW)
    with pytest.raises(StateError, match="was changed by another command"):
        lifecycle.start(at, id_)
    assert not list(made.folder.glob("revoked-start-*"))
    assert events(store) == ["manifest_frozen", "manifest_retired"]
