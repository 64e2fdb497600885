"""The night after somebody has mistyped a key: the message says where, and what was probably meant."""

from pathlib import Path

import pytest

from tests.acceptance.commands import Command
from tests.store.stores import ROOT

TYPOS = {
    "settings": ("sweeper.toml", "max_share =", "max_shares =", "guards.max_shares", "max_share"),
    "section": ("sweeper.toml", "[guards]", "[gaurds]", "gaurds", "guards"),
    "policy": (
        "policy.toml",
        "stands_unclassified =",
        "stand_unclassified =",
        "stand_unclassified",
        "stands_unclassified",
    ),
    "inline table": ("policy.toml", "any_plan =", "any_plans =", "when.any_plans", "any_plan"),
}


@pytest.mark.parametrize("name", TYPOS)
def test_typo(name: str, sweeper: Command, tmp_path: Path) -> None:
    """A key that nobody knows is named with its line and the key that is meant, nothing is done, and mending it helps."""
    file, right, wrong, key, meant = TYPOS[name]
    for each in ("policy.toml", "sweeper.toml"):
        (tmp_path / each).write_text((ROOT / "config" / each).read_text())
    text = (tmp_path / file).read_text()
    assert right in text
    (tmp_path / file).write_text(text.replace(right, wrong, 1))
    (line,) = (n for n, words in enumerate((tmp_path / file).read_text().splitlines(), 1) if wrong in words)
    variables = {"SWEEPER_POLICY_FILE": "", "SWEEPER_CONFIG": str(tmp_path / "sweeper.toml")}
    done = sweeper("run", **variables)
    assert (done.code, done.out) == (2, "")
    assert f"{key}: unknown key (line {line}); did you mean {meant}?" in done.err
    assert str(tmp_path / file) in done.err
    assert "nothing was d" in done.err
    (tmp_path / file).write_text(text)
    assert sweeper("run", "--dry-run", **variables).code == 0
