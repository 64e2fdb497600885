"""Takes checkpoints: numbers new evidence as leaves and signs the resulting tree.

Invariant: nothing is signed that does not continue the last checkpoint; killed anywhere and done again is done
once.
"""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from sweeper import log
from sweeper.clock import Clock
from sweeper.errors import SweeperError
from sweeper.evidence import leaf, ledger
from sweeper.evidence.keys import Signer
from sweeper.evidence.ledger import SOURCES, Checkpoint
from sweeper.evidence.merkle import Edge, MissingNodeError, leaf_hash
from sweeper.evidence.note import Note, TreeHead
from sweeper.postgres import store_counts
from sweeper.postgres.database import Database, reason
from sweeper.settings import Settings

T = TypeVar("T")

PAGE = 2_048
"""Number of rows numbered in one transaction, which takes about 0.05 s."""
PORTION = 256
"""Number of rows held in memory at a time."""
WAIT_MS = 5_000
"""How long another who gives leaf numbers is waited for, in milliseconds; nobody else waits for what is locked here."""


class LedgerError(SweeperError):
    """The ledger was altered; nothing was numbered or signed. `sweeper audit verify` names what does not fit."""


def take(
    database: Database, clock: Clock, signer: Signer | None, renew: Callable[[], None] = lambda: None
) -> Checkpoint | None:
    """Number all evidence that is committed, and record a checkpoint of it, signed where there is a key.

    Args:
        database: the sweeper's tables are in it.
        clock: says when the checkpoint was taken.
        signer: None leaves the checkpoint unsigned.
        renew: called after each transaction, for a lease to be kept.

    Returns:
        The checkpoint, or None where the last one says the same and needs no signature of this key.

    Raises:
        LedgerError: the ledger was altered; nothing was signed.
        DBAPIError: the database failed; what was numbered stays so, and the next checkpoint goes on from there.
    """
    _transacted(database, _refuse_break)
    for source in SOURCES:
        since: int | None = None
        while (last := number(database, source, since)) is not None:
            since = last + 1
            renew()
    return _transacted(database, lambda connection: _record(connection, database.settings, clock, signer))


def number(database: Database, source: str, since: int | None) -> int | None:
    """Give leaf numbers to the next page of rows of a source, from an id on.

    Returns:
        The last id of the page, None where there was no row left.
    """
    return _transacted(database, lambda connection: _number(connection, source, since))


def _number(connection: Connection, source: str, since: int | None) -> int | None:
    _lock(connection)
    ids = ledger.unnumbered(connection, source, since, PAGE)
    if not ids:
        return None
    size = ledger.size(connection)
    edge = _edge(connection, size)
    for begin in range(0, len(ids), PORTION):
        _append(connection, edge, source, ids[begin : begin + PORTION])
    ledger.keep(connection, edge.parts())
    ledger.number(connection, size, source, ledger.ranges(ids))
    return ids[-1]


def _append(connection: Connection, edge: Edge, source: str, ids: list[int]) -> None:
    told = ledger.rows(connection, source, ledger.ranges(ids))
    if len(told) != len(ids):
        raise _altered(f"rows of sweeper.{source} were deleted while they were being numbered")
    for _, columns in told:
        edge.append(leaf_hash(leaf.canonical(leaf.of(source, columns))))


def _lock(connection: Connection) -> None:
    if missing := set(SOURCES) - ledger.lock(connection):
        raise _altered(f"sweeper.ledger_sources has no row for {', '.join(sorted(missing))}")


def _edge(connection: Connection, size: int) -> Edge:
    try:
        return ledger.edge(connection, size)
    except MissingNodeError as error:
        raise _altered(f"sweeper.tiles: {error}") from None


def _record(connection: Connection, settings: Settings, clock: Clock, signer: Signer | None) -> Checkpoint | None:
    size, last = _refuse_break(connection)
    if size == 0:
        return None
    tree = TreeHead(origin(connection, settings), size, _edge(connection, size).root())
    note = signer.sign(tree) if signer else Note(tree)
    if last is not None and last.size == size and (signer is None or last.note == note.text()):
        return None
    signed_by = signer.key_id(tree.origin) if signer else None
    ledger.record(connection, Checkpoint(0, size, tree.root, note.text(), signed_by, clock.now()))
    log.get().info("checkpoint taken", size=size, signed=signer is not None)
    return ledger.last(connection)


def _refuse_break(connection: Connection) -> tuple[int, Checkpoint | None]:
    """Refuse a tree that does not extend that of the last checkpoint; return its size and that checkpoint."""
    _lock(connection)
    size, last = ledger.size(connection), ledger.last(connection)
    if last is None:
        return size, None
    if last.size > size:
        raise _altered(f"the last checkpoint has {last.size} leaves, the ledger only {size}")
    if _edge(connection, last.size).root() != last.root:
        raise _altered(f"the tree of {last.size} leaves has another root than the last checkpoint says")
    return size, last


def _altered(what: str) -> LedgerError:
    return LedgerError(
        f"the ledger was altered: {what}. Nothing was numbered or signed. Run `sweeper audit verify`, and restore from a backup "
        "what it names."
    )


def origin(connection: Connection, settings: Settings) -> str:
    """The name of the log: the settings', or one of the database's own."""
    return settings.evidence.origin or f"sweeper/{store_counts.database_identity(connection)}"


def _transacted(database: Database, work: Callable[[Connection], T]) -> T:
    """What `work` returns in a transaction that waits for whoever else gives leaf numbers."""

    def once() -> T:
        with database.transaction(lock_timeout_ms=WAIT_MS) as connection:
            return work(connection)

    try:
        return database.retried(once)
    except IntegrityError as error:
        raise _altered(reason(error)) from None
