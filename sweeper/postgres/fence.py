"""The fence between batches and placements of legal holds: batches share it, a placement takes it exclusively.

Withdrawals of erasure orders and transitions of manifests take it as placements do.

Invariant: once a placement has committed, every batch that could have missed the hold has ended. The fence is a lock on a table
of schema `sweeper`, which only the sweeper's roles may lock, and it ends with its transaction.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.exc import OperationalError

from sweeper.errors import SweeperError
from sweeper.policy.instant import rfc3339
from sweeper.postgres.database import Database, sqlstate
from sweeper.postgres.statement import statement

WAIT_MS = 30_000
"""How long a placement or a transition of a manifest waits for the batch at work: a batch takes well under a second."""
TOO_LONG = frozenset({"55P03", "57014"})
"""SQLSTATEs of lock and statement time-outs."""


class FenceBusyError(SweeperError):
    """Another transaction held the fence for too long; nothing was purged or placed."""


def share(connection: Connection) -> None:
    """Share the fence until the transaction ends; wait up to lock_timeout for a placement to commit.

    Raises:
        FenceBusyError: a placement stayed open for longer.
    """
    try:
        connection.execute(statement("fence_shared"))
    except OperationalError as error:
        if sqlstate(error) not in TOO_LONG:
            raise
        raise FenceBusyError("the fence of legal holds could not be taken in time") from None


def take_exclusively(connection: Connection) -> None:
    """Take the fence exclusively until the transaction ends; wait up to lock_timeout for the current batch."""
    connection.execute(statement("fence_exclusive"))


def is_installed(connection: Connection) -> bool:
    """Return True if the trigger is enabled by which every placement of a legal hold takes the fence."""
    found: bool = connection.execute(statement("fence_is_installed")).scalar_one()
    return found


@contextmanager
def transaction(database: Database, undone: str, *, statement_timeout_ms: int) -> Iterator[Connection]:
    """Open a transaction to change what the fence guards; it waits up to WAIT_MS for the current batch.

    Args:
        database: the store's database.
        undone: a sentence that says what was not done if the wait fails.
        statement_timeout_ms: longer than WAIT_MS, so that a failed wait is reported as a lock time-out.

    Raises:
        FenceBusyError: the wait timed out; the message names the holder of the fence.
    """
    try:
        with database.transaction(lock_timeout_ms=WAIT_MS, statement_timeout_ms=statement_timeout_ms) as connection:
            yield connection
    except OperationalError as error:
        if sqlstate(error) not in TOO_LONG:
            raise
        raise busy(database, undone) from None


def busy(database: Database, undone: str) -> FenceBusyError:
    """Return the error for a failed wait: it names the holders by process and role, and what was not done."""
    holders = database.fetched(statement("fence_holders"), {})
    named = "; ".join(map(_named, holders)) or "nobody now"
    return FenceBusyError(
        f"the fence between purging and legal holds could not be taken in time; it is held by: {named}. {undone} "
        "Let that transaction end, or end it (pg_terminate_backend, ROLLBACK PREPARED), and try again."
    )


def _named(holder: Row[Any]) -> str:
    what = (
        "a placement of a legal hold, a withdrawal, or a manifest that changes"
        if holder.alone
        else "a batch of a sweep"
    )
    application = f", application {holder.application!r}" if holder.application else ""
    state = f", {holder.state}" if holder.state else ""  # hidden, like the time, from who may not read statistics
    since = f" since {rfc3339(holder.since)}" if isinstance(holder.since, datetime) else ""
    who = f"process {holder.pid}" if holder.pid else f"the prepared transaction {holder.prepared!r}"
    return f"{who} of role {holder.role}{application} ({what}{state}{since})"
