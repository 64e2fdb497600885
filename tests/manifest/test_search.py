"""An account's messages are found in manifests by its pseudonym; a manifest that was not read is never one without them."""

from collections import Counter
from pathlib import Path

import pytest

from sweeper.manifest import lifecycle
from sweeper.manifest.lifecycle import FrozenManifest
from sweeper.manifest.pseudonym import FILE, INLINE
from sweeper.manifest.search import FoundRows, search
from sweeper.policy.schema import Policy
from sweeper.report import account as accounts
from tests.manifest.made import OTHER_KEY, withdraw
from tests.manifest.test_lifecycle import CHATS, KEY, LATER, NOW, job, made
from tests.store.stores import Store

__all__ = ["made"]


def found(store: Store, policy: Policy, name: str) -> FoundRows:
    """What the one manifest has of an account."""
    (only,) = search(job(store, policy, LATER).database, KEY, str(store.id(name)))
    return only


def test_found_and_recalled(store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path) -> None:
    """The messages of an account are counted, and how many of them left and by what; those of another one never."""
    at = job(store, policy, LATER)
    before = found(store, policy, "a1")
    assert (before.messages, before.revoked, before.rows, before.recalled_at) == (CHATS, Counter(), 2 * CHATS, None)
    withdraw(store, "a1", NOW)
    assert [each.missing for each in lifecycle.recall(at, tmp_path / "recalls")] == [None]
    after = found(store, policy, "a1")
    assert (after.messages, after.revoked, after.recalled_at is None) == (CHATS, {"recall": CHATS}, False)
    assert (found(store, policy, "a2").messages, found(store, policy, "a2").revoked) == (CHATS, Counter())
    assert found(store, policy, "nobody").messages == 0
    lifecycle.retire(at.database, made.description.id)
    retired = found(store, policy, "a1")
    assert (retired.messages, retired.retired_at is None) == (CHATS, False)


def test_not_read(store: Store, policy: Policy, made: FrozenManifest) -> None:
    """Another key, a changed file and a missing directory are told, and no number is given."""
    database = job(store, policy, LATER).database
    (other,) = search(database, OTHER_KEY, str(store.id("a1")))
    assert other.messages is None
    assert "another key" in str(other.not_read)
    part = next(made.folder.glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    assert (found(store, policy, "a1").messages, str(found(store, policy, "a1").not_read).count("was changed")) == (
        None,
        1,
    )
    made.folder.rename(made.folder.with_name("elsewhere"))
    assert (found(store, policy, "a1").messages, "cannot be read" in str(found(store, policy, "a1").not_read)) == (
        None,
        True,
    )


def test_without_a_key(
    store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the key nobody looked, which is said; with it the command's report has what was found."""
    at = job(store, policy, LATER)
    for name in (FILE, INLINE):
        monkeypatch.delenv(name, raising=False)
    blind = accounts.in_manifests(at, str(store.id("a1")))
    assert (blind.found, blind.manifests, FILE in str(blind.not_looked)) == ([], 1, True)
    (tmp_path / "key").write_bytes(KEY.key)
    monkeypatch.setenv(FILE, str(tmp_path / "key"))
    seen = accounts.in_manifests(at, str(store.id("a1")))
    assert (seen.messages, seen.not_looked) == (CHATS, None)
