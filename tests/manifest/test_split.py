"""Splits: one per account, the same in every manifest, with about the configured shares."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sweeper.manifest import lifecycle
from sweeper.manifest.split import SALT, Split, Splitter
from sweeper.policy.schema import Policy
from sweeper.settings import ManifestSettings
from tests.manifest import made
from tests.store.stores import Store, frozen

PERCENT = st.floats(0, 50)


@given(validation=PERCENT, test=PERCENT)
def test_shares(validation: float, test: float) -> None:
    """Of many accounts each split gets about its share, and the shares add up to everybody."""
    splitter = Splitter(validation, test)
    count = 4_000
    found = Counter(splitter.of(f"account {number}") for number in range(count))
    assert sum(splitter.shares.values()) == pytest.approx(100)
    for name, share in splitter.shares.items():
        assert found[Split(name)] / count * 100 == pytest.approx(share, abs=3)


@given(account=st.text(), test=st.lists(PERCENT, min_size=2).map(sorted))
def test_a_larger_share_keeps_whom_it_had(account: str, test: list[float]) -> None:
    """An account that is in the test data stays in it if that share grows, whatever the share for validation."""
    splits = [Splitter(5, share).of(account) for share in test]
    assert all(after is Split.TEST for before, after in pairwise(splits) if before is Split.TEST)


def test_fixed() -> None:
    """The hash never changes: another one would move people between the splits of two manifests."""
    found = [Splitter(5, 5).of(f"00000000-0000-4000-8000-0000000000{number:02}") for number in range(60)]
    assert [n for n, split in enumerate(found) if split is Split.TEST] == [31, 40, 42, 44, 47]
    assert [n for n, split in enumerate(found) if split is Split.VALIDATION] == [35, 53]


def test_one_split_for_each_person(store: Store, policy: Policy, tmp_path: Path) -> None:
    """All rows of an account are in one split, the same under another key and at a later as-of; the manifest records how."""
    store.load(made.world(accounts=40, messages=2))
    made.built(store, policy, tmp_path / "first")
    later = made.built(store, policy, tmp_path / "later", as_of=made.LATER, key=made.OTHER_KEY)
    assert later.split is not None
    splits = []
    for folder in ("first", "later"):
        rows = made.rows(tmp_path / folder)
        of_subject = {(row["subject"], row["split"]) for row in rows}
        assert len(of_subject) == len(dict(of_subject)) == 40
        splits.append({row["message_id"]: row["split"] for row in rows})
    assert splits[0] == splits[1]
    assert (later.split.salt, later.split.shares) == (SALT, {"train": 90, "validation": 5, "test": 5})
    counted = Counter(splits[1].values())
    assert later.split.messages == {split.value: counted[split] for split in Split}
    assert {"train", "test"} <= set(counted)


def test_shares_of_the_settings(store: Store, policy: Policy, tmp_path: Path) -> None:
    """The shares are those of the settings, which refuse more than half for validation or test."""
    store.load(made.world(accounts=6))
    job = store.job(policy, made.AS_OF, frozen(made.AS_OF), manifest={"validation_percent": 50, "test_percent": 50})
    split = lifecycle.freeze(job, tmp_path / "m", made.KEY).description.split
    assert split is not None
    assert split.messages["train"] == 0
    with pytest.raises(ValidationError):
        ManifestSettings(test_percent=51)
