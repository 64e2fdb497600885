"""Removes the objects behind purged attachments, after the commit, through fsspec; what fails is tried again next run.

The law of this file: an object that any attachment still names is left alone, and removing twice is removing once.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import fsspec
from sqlalchemy import Connection, Row

from sweeper import log
from sweeper.store.database import Database
from sweeper.store.statement import statement

PAGE = 200


class OutsideError(Exception):
    """The URI lies outside the places that [objects] prefixes allows."""


def remove_pending(
    database: Database,
    run_id: int,
    now: datetime,
    renew: Callable[[], None],
    is_over: Callable[[], bool] = lambda: False,
) -> int:
    """Try to remove what is pending, each object once a run, those tried least first, up to [objects] per_run.

    Args:
        database: the store's database.
        run_id: the run that tries.
        now: when (UTC).
        renew: called before each page, to keep the lease.
        is_over: asked before each object whether to stop.

    Returns:
        How many objects are pending afterwards.
    """
    left = database.settings.objects.per_run
    while left > 0 and not is_over():
        renew()
        page = database.fetched(
            statement("objects_pending"),
            {"run_id": run_id, "store": database.settings.store.schema_name, "limit": min(PAGE, left)},
        )
        if not page:
            break
        shared = {row.uri for row in database.fetched(statement("objects_shared"), {"uris": [row.uri for row in page]})}
        for row in page:
            if is_over():
                break
            _settle(database, row, run_id, now, shared=row.uri in shared)
        left -= len(page)
    return count_pending(database)


def count_pending(database: Database) -> int:
    """How many objects are still to be removed."""
    return database.within(lambda connection: pending(connection, database.settings.store.schema_name))


def pending(connection: Connection, store: str) -> int:
    """How many objects of a store are still to be removed."""
    found: int = connection.execute(statement("objects_count"), {"store": store}).scalar_one()
    return found


def remove(uri: str, prefixes: Sequence[str]) -> str:
    """Remove one object; returns `removed`, or `absent` where there was none.

    Raises:
        OutsideError: the URI names no place (`…://`), is outside `prefixes`, or tries to climb out with `..`.
        Exception: whatever the file system of the URI raises.
    """
    if "://" not in uri or ".." in uri.split("/") or (prefixes and not _is_below(uri, prefixes)):
        raise OutsideError(uri)
    filesystem, path = fsspec.core.url_to_fs(uri)
    try:
        filesystem.rm_file(path)
    except FileNotFoundError:
        return "absent"
    return "removed"


def _is_below(uri: str, prefixes: Sequence[str]) -> bool:
    """Whether a URI lies below one of some places: `s3://a` is not above `s3://a-2/x`."""
    return any(uri.startswith(prefix if prefix.endswith("/") else f"{prefix}/") for prefix in prefixes)


def _settle(database: Database, row: Row[Any], run_id: int, now: datetime, *, shared: bool) -> None:
    """Remove one object and record the outcome; a failure is recorded by its kind, the URI is never logged."""
    name, values = "object_done", {"id": row.id, "run_id": run_id, "now": now, "outcome": "shared"}
    if not shared:
        try:
            values["outcome"] = remove(row.uri, database.settings.objects.prefixes)
        except Exception as error:  # any file system may raise anything; the object stays pending
            name, values = "object_failed", {"id": row.id, "run_id": run_id, "error": type(error).__name__}
            log.get().warning(
                "object not removed; it is tried again in the next run", object=row.id, error=type(error).__name__
            )
    database.within(lambda connection: connection.execute(statement(name), values))
