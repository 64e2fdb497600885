"""One look goes through any number of manifests."""

from pathlib import Path

from sweeper.manifest import lifecycle
from sweeper.policy.schema import Policy
from tests.manifest import made
from tests.manifest.made import LATER
from tests.store.stores import Store


def test_several_manifests(store: Store, policy: Policy, tmp_path: Path) -> None:
    """A recall names what left each of several manifests."""
    world = made.world()
    store.load(world)
    for number, name in enumerate(("first", "second", "third")):
        store.execute("UPDATE messages SET author = %s", name)
        made.freeze(store, policy, tmp_path / name, now=f"2026-07-01T00:00:0{number}Z")
    made.withdraw(store, "a2", LATER)
    found = list(lifecycle.recall(store.job(policy, LATER), tmp_path / "out"))
    assert [Path(one.directory).name for one in found] == ["first", "second", "third"]
    assert [one.reasons for one in found] == [{"no_consent": 8}] * 3
    recalled = made.rows(tmp_path / "out", "recall")
    assert len(recalled) == 24
    assert {row["message_id"] for row in recalled} == made.of(store, world, "a2c1", "a2c2")
