"""The demo in another directory, with another policy, schema or date, and what it leaves behind."""

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sweeper import embedded
from sweeper.demo import walkthrough
from sweeper.demo.fixture import OBJECTS
from sweeper.embedded import _HOMES
from sweeper.encoding import to_json
from tests.acceptance.commands import process
from tests.processes import children, started
from tests.store.stores import ROOT, frozen

ENVIRONMENT = {"SWEEPER_POLICY_FILE": "", "SWEEPER_CONFIG": "", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that the server's account may enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp(dir=_HOMES))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_another_policy_and_schema(folder: Path) -> None:
    """The commands of the demo use its settings; a purged conversation is explained before and after the run."""
    shutil.copy(ROOT / "config" / "examples" / "until_deletion.toml", folder)
    (folder / "s.toml").write_text("[policy]\nfile = 'until_deletion.toml'\n[store]\nschema = 'chats'")
    done = process(None, "demo", "--config", "s.toml", cwd=folder, TMPDIR=str(folder), **ENVIRONMENT)
    assert (done.code, done.err) == (0, "")
    (page,) = folder.glob("sweeper-report-*/report.html")
    assert f"The report is {page}" in " ".join(done.out.split())
    assert "<title>Retention report for postgres/chats</title>" in page.read_text()
    assert "policy 'kept until deleted'" in done.out
    assert "commercial" not in done.out
    assert "Run 2 completed: 0 conversations" in done.out
    assert done.out.index("TO BE PURGED") < done.out.index("Run 1 completed") < done.out.index("was PURGED on")
    assert "3 legal holds (1 released)" in " ".join(done.out.split())


def test_refused_before_anything_is_loaded(folder: Path) -> None:
    """A policy with columns that the demo's store lacks is refused, and the directory can be used again."""
    policy = str(ROOT / "config" / "examples" / "eighteen_months.toml")
    done = process(None, "demo", "--keep", str(folder / "kept"), cwd=ROOT, SWEEPER_POLICY_FILE=policy)
    assert (done.code, "Traceback" in done.err) == (2, False)
    assert "nothing was loaded" in done.err
    assert "history_enabled is missing" in done.err
    with (
        embedded.server(folder / "kept") as server,
        psycopg.connect(server.url().replace("+psycopg", "")) as connection,
    ):
        left = connection.execute("SELECT to_regnamespace('store'), (SELECT count(*) FROM pg_database)").fetchone()
    assert left == (None, 3)


def test_before_the_choice_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a date at which too much is due, the demo approves its own preview; the JSON summary agrees with the runs."""
    monkeypatch.chdir(ROOT)
    found = to_json(walkthrough.summary(None, frozen("2026-03-01T00:00:00Z"), 1, None))
    first, second = found["runs"]
    assert first["purged"] > 0.2 * 7_168
    assert (first["outcome"], second["outcome"], second["purged"]) == ("completed", "completed", 0)
    assert (found["conversations"], found["messages"]) == (7_168, 258_145)
    assert sum(counts["purged"] + counts["kept"] for counts in found["rules"].values()) == 7_168
    assert first["by_rule"] == {rule: c["purged"] for rule, c in sorted(found["rules"].items()) if c["purged"]}
    assert set() < set(found["examples"]["purged"]) <= set(first["by_rule"])
    assert set() < set(found["examples"]["kept"]) <= {rule for rule, c in found["rules"].items() if c["kept"]}


def test_sigterm() -> None:
    """SIGTERM ends the demo without a traceback, stops its server and removes its temporary directory."""
    command = [sys.executable, "-u", "-m", "sweeper.cli", "demo"]
    with started(command, cwd=ROOT) as running:
        assert running.stdout is not None
        while "Loaded" not in running.stdout.readline():
            assert running.poll() is None
        (server,) = children(running.pid)
        home = Path(f"/proc/{server}/cwd").resolve().parent  # PostgreSQL changes into its data directory
        assert (home / OBJECTS).is_dir()
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate()
    assert (running.returncode, "Traceback" in err, "asked to stop" in err) == (1, False, True)
    assert not home.exists()
