"""The cron file and the night it starts: when, as whom, with which exit code, and what is said of it."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sweeper.settings import Settings
from tests.acceptance import test_kill
from tests.deploy import commands, crontab
from tests.deploy.rules import SECRET_NAMES
from tests.deploy.trees import ROOT
from tests.store.stores import Store

CRON = ROOT / "deploy" / "cron"
NIGHT = CRON / "sweeper-nightly"
EXAMPLE = (ROOT / "deploy" / "environment.example").read_text()


def lines(text: str) -> list[str]:
    """The lines that are no comment."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


# The file


def test_file_of_cron() -> None:
    """cron.d takes it: a name without a dot, variables, one job of a time, a user and a command, a newline at the end."""
    text = (CRON / "sweeper").read_text()
    *variables, job = lines(text)
    assert {line.partition("=")[0] for line in variables} == {"CRON_TZ", "SHELL", "PATH", "MAILTO"}
    assert "CRON_TZ=UTC" in variables
    assert text.endswith("\n")
    assert "%" not in job  # cron makes a newline of it
    *when, user, command = job.split()
    assert " ".join(when) == Settings().schedule.sweep
    assert (user, command) == ("sweeper", f"/usr/local/libexec/{NIGHT.name}")
    crontab.parse(" ".join(when))


def test_example_of_the_environment() -> None:
    """The example names variables that the program knows, quoted as shell and systemd both read them, and no secret."""
    found = dict(re.findall(r"^([A-Z_]+)='([^']*)'$", EXAMPLE, re.MULTILINE))
    assert len(found) == len(lines(EXAMPLE))
    assert set(found) <= commands.known_names()
    assert {found[name] for name in SECRET_NAMES & set(found)} == {""}
    assert "SWEEPER_DATABASE_URL" in found


COMMANDS = [shlex.split(line)[1:] for line in NIGHT.read_text().splitlines() if line.startswith("  sweeper ")]


def test_two_commands() -> None:
    """The night has two commands, and the test below overlooks neither."""
    assert [words[0] for words in COMMANDS] == ["run", "report"]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: str(words[0]))
def test_commands_are_accepted(words: list[str]) -> None:
    """The program takes what the night passes to it."""
    assert commands.refusal(words) == ""


# The night. Stand-ins for the program and for the system's log tell what the script does with them.


@dataclass(frozen=True)
class Night:
    """How a night ended: its exit code, what went to cron's mail, what went to the log, what was run."""

    code: int
    mail: str
    log: str
    ran: list[str]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine on which `sweeper` ends as RUN and REPORT say and `logger` writes to a file."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    _script(
        bin_ / "sweeper",
        f'echo "$@" "$SWEEPER_DATABASE_URL" >>{tmp_path}/ran; echo "out of $1"; echo "error of $1" >&2; '
        'case $1 in run) exit "$RUN";; report) exit "$REPORT";; esac',
    )
    _script(bin_ / "logger", f'echo "$@" >>{tmp_path}/log; cat >>{tmp_path}/log')
    (tmp_path / "environment").write_text("SWEEPER_DATABASE_URL='postgresql://h/d?a=b&c=d'\n")
    return tmp_path


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def spent(machine: Path, run: int = 0, report: int = 0, textfile: str = "/x/sweeper.prom") -> Night:
    """A night in which the sweep and the numbers, where stand-ins do them, end with these codes."""
    done = subprocess.run(
        ["/bin/sh", NIGHT],
        env={
            "PATH": f"{machine / 'bin'}{os.pathsep}{os.defpath}",
            "RUN": str(run),
            "REPORT": str(report),
            "SWEEPER_ENVIRONMENT": str(machine / "environment"),
            "SWEEPER_TEXTFILE": textfile,
        },
        capture_output=True,
        text=True,
    )
    log, ran = (machine / "log", machine / "ran")
    return Night(
        done.returncode,
        done.stdout + done.stderr,
        log.read_text() if log.exists() else "",
        ran.read_text().splitlines() if ran.exists() else [],
    )


def test_good_night_is_silent(machine: Path) -> None:
    """After a good night cron has nothing to mail; everything is in the log under the name of the sweeper."""
    night = spent(machine)
    assert (night.code, night.mail) == (0, "")
    assert night.log == "--tag sweeper\nout of run\nerror of run\nout of report\nerror of report\n"


@pytest.mark.parametrize(("run", "report", "code"), [(1, 0, 1), (3, 0, 3), (4, 2, 4), (0, 1, 1), (137, 0, 137)])
def test_code_is_not_swallowed(machine: Path, run: int, report: int, code: int) -> None:
    """The night ends as the sweep did, or as the numbers did if only they failed, and one line is mailed."""
    night = spent(machine, run, report)
    assert night.code == code
    assert night.mail.splitlines() == [
        f"sweeper: the night ended with exit code {code}; see journalctl --identifier sweeper"
    ]


@pytest.mark.parametrize("run", [0, 1, 2, 3, 4])
def test_numbers_follow_every_sweep(machine: Path, run: int) -> None:
    """Whatever came of the sweep, the numbers are written after it, both with the environment of the file."""
    url = "postgresql://h/d?a=b&c=d"
    assert spent(machine, run, 0).ran == [f"run --json {url}", f"report --textfile /x/sweeper.prom {url}"]


def test_ledger_where_one_is_named(machine: Path) -> None:
    """Where the environment names a file for the ledger, it is exported last, and a failure of that alone is the night's."""
    with (machine / "environment").open("a") as environment:
        environment.write("SWEEPER_LEDGER='/x/ledger.jsonl'\n")
    assert [line.rpartition(" ")[0] for line in spent(machine).ran][2:] == ["audit export /x/ledger.jsonl"]
    _script(machine / "bin" / "sweeper", "case $1 in audit) exit 1;; esac")
    assert spent(machine).code == 1
    assert commands.refusal(["audit", "export", "/x/ledger.jsonl"]) == ""


def test_missing_environment_is_said(machine: Path) -> None:
    """Without its environment file the night runs nothing, fails, and cron has the reason to mail."""
    (machine / "environment").unlink()
    night = spent(machine)
    assert night.code != 0
    assert "environment" in night.mail
    assert night.ran == []


def test_night_on_a_store(store: Store, machine: Path) -> None:
    """With the program itself, a night purges what is due and leaves its numbers where Prometheus finds them."""
    test_kill.fill(store, machine)
    _script(machine / "bin" / "sweeper", f'exec {shlex.join([sys.executable, "-m", "sweeper.cli"])} "$@"')
    (machine / "sweeper.toml").write_text("[guards]\nhistory = false\n")
    variables = {
        "SWEEPER_DATABASE_URL": store.url,
        "SWEEPER_CONFIG": str(machine / "sweeper.toml"),
        "SWEEPER_POLICY_FILE": str(ROOT / "config" / "policy.toml"),
        "PYTHONPATH": str(ROOT),
    }
    (machine / "environment").write_text("".join(f"{name}='{value}'\n" for name, value in variables.items()))
    night = spent(machine, textfile=str(machine / "sweeper.prom"))
    assert (night.code, night.mail) == (0, ""), night.log
    assert store.left() == {test_kill.key("c", test_kill.DUE)}  # the one under hold
    assert "\nsweeper_last_success_timestamp_seconds{" in (machine / "sweeper.prom").read_text()


# The reader of cron strings


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("17 2 * * *", ({17}, {2}, range(1, 32), range(1, 13), range(7))),
        ("*/20 0-6/3 1,15 Jan sun", ({0, 20, 40}, {0, 3, 6}, {1, 15}, {1}, {0})),
        ("59 23 31 12 6", ({59}, {23}, {31}, {12}, {6})),
        ("0 0 29 2 *", ({0}, {0}, {29}, {2}, range(7))),
        ("0 0 31 2 1", ({0}, {0}, {31}, {2}, {1})),
    ],
)
def test_cron_strings(expression: str, expected: tuple[set[int] | range, ...]) -> None:
    """Five fields are read as cron reads them; Sunday is 0."""
    assert crontab.parse(expression) == tuple(frozenset(each) for each in expected)


@pytest.mark.parametrize(
    "expression",
    [
        "", "17 2 * *", "17 2 * * * *", "17  2 * * *", "60 2 * * *", "17 24 * * *", "17 2 0 * *", "17 2 32 * *",
        "17 2 * 13 *", "17 2 * 0 *", "17 2 * * 7", "17 2 * * mond", "17 2 * * mon-fri", "17 2 * jan,feb *",
        "jan 2 * * *", "*/0 2 * * *", "5/10 2 * * *", "9-5 2 * * *", "1, 2 * * *", "-1 2 * * *", "@daily",
        "? 2 * * *", "0 0 31 2 *", "0 0 31 4,6 *", "² 2 * * *", "٣ 2 * * *",
    ],
)  # fmt: skip
def test_bad_cron_strings(expression: str) -> None:
    """What some cron would refuse or read in its own way, and a day that never comes, are refused."""
    with pytest.raises(crontab.CronError):
        crontab.parse(expression)
