"""The guide to running it: its commands are ones that the program takes, its files are there."""

import re
import shlex

import pytest

from tests.deploy import commands
from tests.deploy.trees import ROOT

FOLDER = ROOT / "deploy"
GUIDE = (FOLDER / "README.md").read_text()
COMMANDS = re.findall(r"^\$ sweeper (.+)$", GUIDE, re.MULTILINE)


def test_guide_shows_commands() -> None:
    """It shows how to begin, to look, to stop and to go on."""
    assert {line.split()[0] for line in COMMANDS} >= {
        "migrate",
        "check",
        "run",
        "status",
        "pause",
        "resume",
        "backfill",
    }


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_accepted(line: str) -> None:
    """The program takes each command as it is shown."""
    assert commands.refusal(shlex.split(line)) == ""


def test_files_are_there() -> None:
    """Every file that the guide leads to or installs exists."""
    links = [FOLDER / target for target in re.findall(r"\]\(([^)]+)\)", GUIDE)]
    installed = [ROOT / word for word in re.findall(r"\b(?:config|deploy)/[\w./-]+", GUIDE)]
    assert len(links) > 8
    assert len(installed) >= 8
    assert [path for path in (*links, *installed) if not path.exists()] == []
