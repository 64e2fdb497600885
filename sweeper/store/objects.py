"""Removes the objects behind purged attachments, after the commit, through fsspec; what fails is tried again next run.

The law of this file: an object that any attachment still names is left alone, and removing twice is removing once.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import fsspec
from sqlalchemy import Row

from sweeper import log
from sweeper.store.database import Database
from sweeper.store.statement import statement

PAGE = 200


class OutsideError(Exception):
    """The URI lies outside the places that [objects] prefixes allows."""


def remove_pending(database: Database, now: datetime) -> int:
    """Try to remove what is pending, up to [objects] per_run; returns how many objects are pending afterwards."""
    tried = 0
    for page in _pending(database):
        shared = _shared(database, [row.uri for row in page])
        for row in page:
            _settle(database, row, now, shared=row.uri in shared)
        tried += len(page)
        if tried >= database.settings.objects.per_run:
            break
    return count_pending(database)


def count_pending(database: Database) -> int:
    """How many objects are still to be removed."""
    with database.transaction() as connection:
        found: int = connection.execute(statement("objects_count")).scalar_one()
    return found


def remove(uri: str, prefixes: Sequence[str]) -> str:
    """Remove one object; returns `removed`, or `absent` where there was none.

    Raises:
        OutsideError: the URI is outside `prefixes`, or tries to climb out with `..`.
        Exception: whatever the file system of the URI raises.
    """
    if ".." in uri.split("/") or (prefixes and not uri.startswith(tuple(prefixes))):
        raise OutsideError(uri)
    filesystem, path = fsspec.core.url_to_fs(uri)
    try:
        filesystem.rm_file(path)
    except FileNotFoundError:
        return "absent"
    return "removed"


def _pending(database: Database) -> Iterator[Sequence[Row[Any]]]:
    after = 0
    while True:
        with database.transaction() as connection:
            page = connection.execute(statement("objects_pending"), {"after": after, "limit": PAGE}).all()
        if not page:
            return
        yield page
        after = page[-1].id


def _shared(database: Database, uris: list[str]) -> set[str]:
    with database.transaction() as connection:
        return {row.uri for row in connection.execute(statement("objects_shared"), {"uris": uris})}


def _settle(database: Database, row: Row[Any], now: datetime, *, shared: bool) -> None:
    """Remove one object and record the outcome; a failure is recorded by its kind, the URI is never logged."""
    name, values = "object_done", {"id": row.id, "now": now, "outcome": "shared"}
    if not shared:
        try:
            values["outcome"] = remove(row.uri, database.settings.objects.prefixes)
        except Exception as error:  # any file system may raise anything; the object stays pending
            name, values = "object_failed", {"id": row.id, "error": type(error).__name__}
            log.get().warning(
                "object not removed; it is tried again in the next run", object=row.id, error=type(error).__name__
            )
    with database.transaction() as connection:
        connection.execute(statement(name), values)
