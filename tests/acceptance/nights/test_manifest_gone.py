"""A night in which the directory of a manifest had gone, so that nothing could be recalled from it."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.acceptance.commands import Command
from tests.acceptance.nights import morning
from tests.acceptance.nights.morning import due
from tests.store.operated import world
from tests.store.stores import Store

KEY = {"SWEEPER_PSEUDONYM_KEY": "Xk3vQ0pT7mZr9bYw2LdNfHs5JgCa8EuVti1oRnBq"}


def built(sweeper: Command, folder: Path) -> str:
    """Build a manifest, sweep, and return the manifest's id."""
    told = sweeper("manifest", "build", str(folder), "--json", **KEY)
    assert told.code == 0, told.err
    assert sweeper("run").code == 0
    return str(json.loads(told.out)["id"])


def test_the_night(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """Status names the manifest, its directory and the commands that are due once it is back."""
    store.load(world(due("c1")))
    folder, elsewhere = tmp_path / "manifest", tmp_path / "elsewhere"
    built(sweeper, folder)
    folder.rename(elsewhere)
    [line] = morning.advice(sweeper("status").out)
    assert f"cannot be reached: {folder} has no manifest.json on this machine" in line
    assert f"`sweeper manifest verify {folder}`" in line
    assert "`sweeper manifest recall`" in line
    elsewhere.rename(folder)
    assert sweeper("manifest", "verify", str(folder)).code == 0
    assert morning.is_well(sweeper)


@pytest.mark.parametrize("told_by", ["status", "manifest recall"])
@pytest.mark.parametrize("way", ["relocate", "retire"])
def test_moved_or_ended(way: str, told_by: str, sweeper: Command, store: Store, tmp_path: Path) -> None:
    """What names the lost directory also names the commands for one that was moved and for one that has ended."""
    store.load(world(due("c1")))
    id_ = built(sweeper, tmp_path / "manifest")
    moved = (tmp_path / "manifest").rename(tmp_path / "moved")
    told = sweeper(*told_by.split())
    assert told.code == (told_by == "manifest recall")
    found = re.search(rf"`sweeper (manifest {way} {id_}( DIR)?)`", told.out)
    assert found, told.out
    assert sweeper(*found[1].replace("DIR", str(moved)).split()).code == 0
    assert sweeper("manifest", "recall").code == 0
    assert morning.is_well(sweeper)


def test_built_anew_where_one_was_removed(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """A directory that was removed and built into again is recalled by the new id alone, and `build` says so."""
    store.load(world(due("c1")))
    folder = tmp_path / "manifest"
    first = built(sweeper, folder)
    shutil.rmtree(folder)
    told = sweeper("manifest", "build", str(folder), **KEY)
    assert f"Manifest {first} was in this directory before and never started: it is retired." in told.out
    recalled = sweeper("manifest", "recall", "--json")
    assert recalled.code == 0
    (found,) = json.loads(recalled.out)["manifests"]
    assert found["id"] in told.out
    assert (json.loads(recalled.out)["retired"], morning.is_well(sweeper)) == (1, True)
