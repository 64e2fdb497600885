"""The systemd units: what systemd would refuse or overlook, what they run, and that they give nothing away."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.settings import Settings
from tests.deploy import commands, crontab, units
from tests.deploy.trees import ROOT

FOLDER = ROOT / "deploy" / "systemd"
UNITS = units.read(FOLDER)
SERVICES = [name for name in UNITS if name.endswith(".service")]
PROGRAM = "/opt/sweeper/bin/sweeper"


def test_units() -> None:
    """There are a sweep, its timer, the numbers after it, and the daemon."""
    assert set(UNITS) == {"sweeper.service", "sweeper.timer", "sweeper-report.service", "sweeper-serve.service"}


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_hardened(name: str) -> None:
    """Every service has the same user, environment file and walls around it, and time to end its batch."""
    assert units.faults(UNITS[name]) == []


@pytest.mark.parametrize("name", SERVICES)
def test_commands_are_accepted(name: str) -> None:
    """The program takes the words after its name."""
    (command,) = UNITS[name]["Service"]["ExecStart"]
    program, *words = command.split()
    assert program == PROGRAM
    assert commands.refusal(words) == ""


def test_numbers_follow_every_sweep() -> None:
    """The numbers are written after a sweep that ended well and after one that did not; only they may write."""
    unit = UNITS["sweeper.service"]["Unit"]
    assert unit["OnSuccess"] == unit["OnFailure"] == ["sweeper-report.service"]
    report = UNITS["sweeper-report.service"]["Service"]
    (folder,) = report["ReadWritePaths"]
    assert str(Path(report["ExecStart"][0].split()[-1]).parent) == folder
    assert report["UMask"] == ["0022"]  # the exporter, another user, must read them
    assert not any("ReadWritePaths" in UNITS[name]["Service"] for name in SERVICES if name != "sweeper-report.service")


def test_timer() -> None:
    """The timer sweeps when the daemon would, in UTC, makes up a night that was missed, and is spread a little."""
    timer = UNITS["sweeper.timer"]["Timer"]
    minutes, hours, *_ = crontab.parse(Settings().schedule.sweep)
    (calendar,) = timer["OnCalendar"]
    assert calendar == f"*-*-* {min(hours):02}:{min(minutes):02}:00 UTC"
    assert timer["Persistent"] == ["yes"]
    assert 0 < units.seconds(timer["RandomizedDelaySec"][0]) <= 900
    assert UNITS["sweeper.timer"]["Install"]["WantedBy"] == ["timers.target"]


def test_daemon_and_timer_exclude_each_other() -> None:
    """Whoever starts the daemon stops the timer; a wrong configuration is not tried again and again."""
    assert UNITS["sweeper-serve.service"]["Unit"]["Conflicts"] == ["sweeper.timer"]
    assert UNITS["sweeper-serve.service"]["Service"]["RestartPreventExitStatus"] == ["2"]


def test_sweep_ends_before_the_next_night() -> None:
    """A sweep that takes too long is asked to stop before the next one is due."""
    (span,) = UNITS["sweeper.service"]["Service"]["TimeoutStartSec"]
    assert 3600 <= units.seconds(span) < 82_800


# That the checks can fail


@pytest.mark.parametrize("name", units.HARDENING)
def test_missing_wall_is_seen(name: str) -> None:
    """A service without one of its walls is told."""
    lines = (FOLDER / "sweeper.service").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith(f"{name}="))
    assert units.faults(units.parse(text)) == [f"{name}=None"]


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("User=sweeper", "User=root"),
        ("EnvironmentFile=/etc/sweeper/environment", "EnvironmentFile=/home/me/environment"),
        ("TimeoutStopSec=60s", "TimeoutStopSec=10s"),
        ("run --json", "run --json --database=postgresql://a:b@c/d"),
    ],
)
def test_weaker_service_is_seen(line: str, instead: str) -> None:
    """A service that runs as another, reads its secrets elsewhere or shows them, or is killed too early is told."""
    text = (FOLDER / "sweeper.service").read_text()
    assert line in text
    assert len(units.faults(units.parse(text.replace(line, instead)))) == 1


@pytest.mark.parametrize("line", ["ProtectSystems=strict", "[Services]", "nothing"])
def test_unknown_line_is_refused(line: str) -> None:
    """A misspelt directive or section, of which systemd only warns, is refused."""
    with pytest.raises(units.UnitError):
        units.parse(f"[Service]\n{line}\n")


# By systemd itself


def analyzed(*words: str | Path) -> str:
    """What systemd-analyze says; "" if nothing is wrong."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.fail("systemd-analyze is not installed, so no unit was verified: apt-get install systemd", pytrace=False)
    done = subprocess.run([program, *words], capture_output=True, text=True)
    return done.stderr if done.returncode == 0 else f"{done.stderr}\nexit code {done.returncode}"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units in a folder of their own, with this environment's program in the place of the installed one."""
    for file in FOLDER.iterdir():
        text = file.read_text().replace(PROGRAM, str(Path(sys.prefix) / "bin" / "sweeper"))
        (tmp_path / file.name).write_text(text)
    return tmp_path


@pytest.mark.system
def test_systemd_takes_the_units(installed: Path) -> None:
    """The units are read by systemd itself, which has nothing to say."""
    assert analyzed("verify", "--man=no", *sorted(installed.iterdir())) == ""


@pytest.mark.system
def test_systemd_finds_them_safe(installed: Path) -> None:
    """By systemd's own measure (10 is an open door) every service stays below 2."""
    for name in SERVICES:
        assert analyzed("security", "--offline=yes", "--no-pager", "--threshold=20", installed / name) == ""


@pytest.mark.system
@pytest.mark.parametrize(
    ("name", "line", "instead"),
    [
        ("sweeper.service", "ProtectSystem=", "ProtectSystems="),
        ("sweeper.service", "ProtectSystem=strict", "ProtectSystem=stricter"),
        ("sweeper.service", "OnFailure=sweeper-report", "OnFailure=sweeper report"),
        ("sweeper.timer", "02:17:00 UTC", "02:77:00 UTC"),
        ("sweeper.timer", "RandomizedDelaySec=5m", "RandomizedDelaySec=five"),
    ],
)
def test_systemd_sees_a_broken_unit(installed: Path, name: str, line: str, instead: str) -> None:
    """Each of these makes systemd speak: its silence about ours means something."""
    text = (installed / name).read_text()
    (installed / name).write_text(text.replace(line, instead))
    assert line in text
    assert analyzed("verify", "--man=no", *sorted(installed.iterdir())) != ""


@pytest.mark.system
def test_systemd_sees_an_open_service(installed: Path) -> None:
    """A service without its walls is over the threshold."""
    service = installed / "sweeper.service"
    lines = service.read_text().splitlines()
    service.write_text("\n".join(line for line in lines if line.partition("=")[0] not in units.HARDENING))
    assert "exit code" in analyzed("security", "--offline=yes", "--no-pager", "--threshold=20", service)
