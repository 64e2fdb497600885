"""A night in which the directory of a manifest had gone, so that nothing could be recalled from it."""

from pathlib import Path

from tests.acceptance.commands import Command
from tests.acceptance.nights import morning
from tests.acceptance.nights.morning import due
from tests.store.operated import world
from tests.store.stores import Store

KEY = {"SWEEPER_PSEUDONYM_KEY": "Xk3vQ0pT7mZr9bYw2LdNfHs5JgCa8EuVti1oRnBq"}


def test_the_night(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """Status names the manifest, its directory and the commands that are due once it is back."""
    store.load(world(due("c1")))
    folder, elsewhere = tmp_path / "manifest", tmp_path / "elsewhere"
    assert sweeper("manifest", "build", str(folder), **KEY).code == 0
    assert sweeper("run").code == 0
    folder.rename(elsewhere)
    [line] = morning.advice(sweeper("status").out)
    assert f"cannot be reached: {folder} has no manifest.json on this machine" in line
    assert f"`sweeper manifest verify {folder}`" in line
    assert "`sweeper manifest recall`" in line
    elsewhere.rename(folder)
    assert sweeper("manifest", "verify", str(folder)).code == 0
    assert morning.is_well(sweeper)
