"""A night in which a guard was off, and nobody knew."""

from pathlib import Path

from tests.acceptance.commands import Command
from tests.acceptance.nights import morning
from tests.acceptance.nights.morning import due
from tests.store.operated import world
from tests.store.stores import Store


def test_the_night(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """Status and check name the guard, what runs no longer refuse, and the setting; then nothing is wrong."""
    store.load(world(due("c1")))
    settings = tmp_path / "sweeper.toml"
    settings.write_text("[guards]\nvolume = false\n")
    config = ("--config", str(settings))
    assert sweeper("run", *config).code == 0
    [line] = morning.advice(sweeper("status", *config).out)
    assert line.startswith("! Guard volume is off, so runs do not refuse if more is due than")
    assert line.endswith("set [guards] volume = true.")
    checked = sweeper("check", *config).out
    assert "WARNING  guards: guard volume is off" in checked
    assert "→ [guards] volume = true" in checked
    settings.write_text("[guards]\nvolume = true\n")
    assert "guard volume" not in sweeper("check", *config).out
    [line] = morning.advice(sweeper("status", *config).out)  # who reads it may have other settings than the run
    assert line.startswith("! Guard volume was off in run 1 of 2")
    assert "Set [guards] volume = true there" in line
    assert sweeper("run", *config).code == 0
    assert morning.is_well(sweeper)
