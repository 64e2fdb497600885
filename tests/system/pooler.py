"""A real pgbouncer in transaction mode in front of the tests' own server.

Invariant: pgbouncer gets no setting that would help the sweeper, is reached by a private socket only, and never
outlives the thread that started it.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg.pq import PGconn, Ping
from sqlalchemy.engine import make_url

from sweeper import embedded
from tests.processes import until

SERVERS = 2
"""So many server connections serve all clients of a database."""
PORT = 6432
"""Only a part of the socket's name: without listen_addr no TCP port is opened."""
# Round robin makes one client's transactions change servers even while nobody else is there: the worst for session state.
CONFIGURATION = """
[databases]
* = host={sockets} port={port}
[pgbouncer]
unix_socket_dir = {home}
listen_port = {own_port}
auth_type = trust
auth_file = {home}/users.txt
pool_mode = transaction
default_pool_size = {servers}
server_round_robin = 1
ignore_startup_parameters =
"""


@dataclass(frozen=True)
class Pooler:
    """A pgbouncer that serves every database of one server."""

    home: Path

    def url(self, database: str, role: str) -> str:
        """The SQLAlchemy URL of a database through the pool that serves the role."""
        return f"postgresql+psycopg://{role}@/{database}?host={self.home}&port={PORT}"


@contextmanager
def pooler(server: embedded.Server) -> Iterator[Pooler]:
    """Run pgbouncer for the body of the `with` statement; as root it runs as `nobody`."""
    command = [*_launcher(), _program()]
    home = _configured(server)
    log = home / "pgbouncer.log"
    with log.open("wb") as opened:
        process = subprocess.Popen(
            [*command, home / "pgbouncer.ini"], stdin=subprocess.DEVNULL, stdout=opened, stderr=opened, cwd="/"
        )
    try:
        until(lambda: process.poll() is not None or _answers(home))
        assert process.poll() is None, f"pgbouncer did not start:\n{log.read_text()}"
        yield Pooler(home)
    finally:
        process.kill()  # it has no state, and what asks it to stop politely differs between its versions
        process.wait()


def _program() -> str:
    """Where pgbouncer is; Debian puts it where only root looks by itself."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        pytest.fail(
            "pgbouncer is not installed, so nothing was tested behind it: apt-get install pgbouncer", pytrace=False
        )
    return found


def _launcher() -> list[str]:
    """What runs before pgbouncer: it refuses root, and must be killed with its parent."""
    launcher = ["setpriv", "--pdeathsig=KILL"]
    if os.geteuid() != 0:
        return launcher
    nobody = pwd.getpwnam("nobody")
    return [*launcher, f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


def _configured(server: embedded.Server) -> Path:
    """A directory of pgbouncer's own beside the server's, with its configuration; it goes when the server goes."""
    home = server.home / "pgbouncer"
    home.mkdir(mode=0o700)
    port = make_url(server.url()).query["port"]
    configuration = CONFIGURATION.format(sockets=server.sockets, port=port, home=home, own_port=PORT, servers=SERVERS)
    (home / "pgbouncer.ini").write_text(configuration)
    (home / "users.txt").write_text("".join(f'"{role}" ""\n' for role in ("postgres", "sweeper", "officer")))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (*home.iterdir(), home):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return home


def _answers(home: Path) -> bool:
    return PGconn.ping(f"host={home} port={PORT} user=postgres dbname=postgres connect_timeout=5".encode()) == Ping.OK
