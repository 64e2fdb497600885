"""The night on which the database restarted just when the run began."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper import embedded
from sweeper.embedded import Server
from tests.acceptance.backfills import fill
from tests.acceptance.commands import in_process
from tests.processes import started
from tests.store import stores
from tests.store.stores import POLICY, Store

SETTINGS = f'[policy]\nfile = "{POLICY}"\n[guards]\nhistory = false\nvolume = false\n'


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server of this test alone."""
    with embedded.server() as running:
        yield running


def test_server_that_comes_up_again(mortal: Server, tmp_path: Path) -> None:
    """A run that begins while the server is down says that it waits, and for how long, and purges when it is there."""
    store = Store(mortal.url(stores.create(mortal, "uuid")), "uuid")
    fill(store)
    store.close()
    (tmp_path / "sweeper.toml").write_text(SETTINGS)
    mortal.stop()
    command = [sys.executable, "-m", "sweeper.cli", "run", "--config", str(tmp_path / "sweeper.toml")]
    with started(command, env={**os.environ, "SWEEPER_DATABASE_URL": store.url}) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "waiting for the database" in line)
        assert "until" in line
        mortal.start()
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "Run 1 completed" in out


def test_server_that_stays_away(tmp_path: Path) -> None:
    """A run whose server does not come up in time fails, and says what to look at; for machines as one object."""
    (tmp_path / "sweeper.toml").write_text(f"{SETTINGS}[database]\noutage_seconds = 0.5\nattempts = 1\n")
    words = ("run", "--json", "--config", str(tmp_path / "sweeper.toml"))
    done = in_process(None, *words, SWEEPER_DATABASE_URL="postgresql://nobody@127.0.0.1:9/nothing")
    assert done.code == 1
    assert "waiting for the database" in done.err
    found = json.loads(done.out)
    assert set(found) == {"error", "guard", "remedy", "exit_code"}
    assert (found["guard"], found["exit_code"]) == (None, 1)
    assert found["error"] in done.err
    assert "that the server runs" in found["remedy"]


def test_password_is_refused(store: Store, tmp_path: Path) -> None:
    """A server that refuses the login is not waited for."""
    (tmp_path / "sweeper.toml").write_text(SETTINGS)
    words = ("run", "--config", str(tmp_path / "sweeper.toml"))
    done = in_process(None, *words, SWEEPER_DATABASE_URL=store.url.replace("//sweeper@", "//nobody_at_all@"))
    assert done.code == 1
    assert "waiting" not in done.err
    assert 'role "nobody_at_all" does not exist' in done.err


ERRORS = {
    "usage": (["run", "--json", "--no-such-option"], 2, None, "See `sweeper run --help`"),
    "settings": (["status", "--json", "--config", "/nowhere.toml"], 2, None, ""),
    "argument": (["run", "--json", "--as-of", "yesterday"], 2, None, "Write an instant with its offset"),
    "guard": (["run", "--json"], 3, "paused", "`sweeper resume`"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_for_machines(name: str, store: Store) -> None:
    """With --json an error is one object on stdout, with its exit code; stderr has the text for people all the same."""
    words, code, guard, remedy = ERRORS[name]
    store.execute("INSERT INTO sweeper.pauses (reason, paused_at) VALUES ('a reason', now())")
    done = in_process(store, *words)
    found = json.loads(done.out)
    assert (done.code, found["exit_code"], found["guard"]) == (code, code, guard)
    assert found["error"].partition("\n")[0] in done.err
    assert remedy in (found["remedy"] or "")
