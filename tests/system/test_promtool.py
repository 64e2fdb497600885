"""The alert rules as Prometheus itself reads them, and when they fire. Needs promtool: apt-get install prometheus."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.store.stores import ROOT

pytestmark = pytest.mark.system

FOLDER = ROOT / "deploy" / "prometheus"


def promtool(*words: str, cwd: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    """Prometheus' own tool."""
    program = shutil.which("promtool")
    if program is None:
        pytest.fail("promtool is not installed, so no alert was tested: apt-get install prometheus", pytrace=False)
    return subprocess.run([program, *words], cwd=cwd, capture_output=True, text=True)


def test_rules_are_valid() -> None:
    """Prometheus accepts every rule."""
    done = promtool("check", "rules", "alerts.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_fire_when_they_should() -> None:
    """Each tested alert fires just after its edge, with its words, and not before."""
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("there", "instead"),
    [("> 93600", "> 936000"), ('purged_lately{record="conversation"}) == 0', 'purged_lately{record="conversation"}) >= 0')],
    ids=["much too late", "although something was purged"],
)  # fmt: skip
def test_wrong_rules_do_not_pass(tmp_path: Path, there: str, instead: str) -> None:
    """A copy that fires at the wrong time fails the same tests."""
    text = (FOLDER / "alerts.yml").read_text()
    assert there in text
    (tmp_path / "alerts.yml").write_text(text.replace(there, instead))
    shutil.copy(FOLDER / "alerts_test.yml", tmp_path)
    assert promtool("test", "rules", "alerts_test.yml", cwd=tmp_path).returncode != 0
