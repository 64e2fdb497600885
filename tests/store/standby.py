"""A second server that follows the tests' first one, made with pg_basebackup."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from sweeper import embedded


@contextmanager
def standby(primary: embedded.Server) -> Iterator[embedded.Server]:
    """A hot standby of the primary, streaming; it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="standby-", dir=embedded._HOMES))
    try:
        _copied(primary, folder / "postgres")
        with embedded.server(folder, settings={"fsync": "off"}) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copied(primary: embedded.Server, target: Path) -> None:
    """A base backup that knows whom to follow; it belongs to whom the primary's files belong to."""
    subprocess.run(
        [primary.programs / "pg_basebackup", "-h", primary.sockets, "-U", "postgres", "-D", target, "-R", "-c", "fast"],
        check=True,
    )
    owner = primary.data.stat()
    for path in (target.parent, target, *target.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)


def on(server: embedded.Server, query: str) -> object:
    """The one value of a statement on a server."""
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None
