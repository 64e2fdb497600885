"""Removes the objects behind purged attachments, after the commit, through fsspec; what fails is tried again next run.

The law of this file: an object that any attachment still names is left alone, and removing twice is removing once. A file
system that hangs holds nobody up.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import fsspec
from sqlalchemy import Connection, Row

from sweeper import log
from sweeper.store.database import Database
from sweeper.store.statement import statement

PAGE = 200
LOOK_SECONDS = 0.1
RENEW_SECONDS = 2.0
"""How often, at least, the lease is renewed while objects are removed."""
HANGS_SECONDS = 30.0
"""A file system that has not answered for so long hangs: the others wait for the next run."""


class StoppedError(Exception):
    """Whoever works is to stop, and the file system has not answered."""


class HangsError(Exception):
    """The file system has not answered for HANGS_SECONDS."""


class _Raised(Exception):  # noqa: N818 — it carries an error of a file system, and is none of ours
    """What a file system raised: kept apart from what renewing the lease raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


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
        renew: called before each page and every few seconds, to keep the lease.
        is_over: asked before each object, and while one is waited for, whether to stop.

    Returns:
        How many objects are pending afterwards.
    """
    left, renewed = database.settings.objects.per_run, 0.0

    def goes_on() -> bool:
        nonlocal renewed
        if time.monotonic() - renewed > RENEW_SECONDS:
            renew()
            renewed = time.monotonic()
        return not is_over()

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
            if not goes_on() or not _settle(database, row, run_id, now, goes_on, shared=row.uri in shared):
                return count_pending(database)
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


def _settle(
    database: Database, row: Row[Any], run_id: int, now: datetime, goes_on: Callable[[], bool], *, shared: bool
) -> bool:
    """Remove one object and record the outcome; a failure is recorded by its kind, the URI is never logged.

    Returns:
        Whether to go on with the next: not where the file system hangs.
    """
    name, values, hangs = "object_done", {"id": row.id, "run_id": run_id, "now": now, "outcome": "shared"}, False
    if not shared:
        try:
            values["outcome"] = _waited(lambda: remove(row.uri, database.settings.objects.prefixes), goes_on)
        except StoppedError:
            return False
        except _Raised as raised:
            error = raised.error
            name, values = "object_failed", {"id": row.id, "run_id": run_id, "error": type(error).__name__}
            log.get().warning(
                "object not removed; it is tried again in the next run", object=row.id, error=type(error).__name__
            )
            hangs = isinstance(error, HangsError)
    database.within(lambda connection: connection.execute(statement(name), values))
    return not hangs


def _waited(work: Callable[[], str], goes_on: Callable[[], bool]) -> str:
    """What `work` returns, done in a thread of its own: one that hangs is left to itself and ends with the process.

    Raises:
        StoppedError: it does not go on.
        _Raised: with what the work raised, or that it hangs.
    """
    answers: SimpleQueue[str | BaseException] = SimpleQueue()
    Thread(target=lambda: answers.put(_answer(work)), name="object", daemon=True).start()
    until = time.monotonic() + HANGS_SECONDS
    while True:
        try:
            answer = answers.get(timeout=LOOK_SECONDS)
        except Empty:
            if not goes_on():
                raise StoppedError from None
            if time.monotonic() < until:
                continue
            answer = HangsError()
        if isinstance(answer, Exception):
            raise _Raised(answer)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _answer(work: Callable[[], str]) -> str | BaseException:
    try:
        return work()
    except BaseException as error:  # any file system may raise anything; the object stays pending
        return error
