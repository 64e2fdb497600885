"""Stores and reads the ledger: the leaf numbers of rows, the tree's nodes in tiles, and the checkpoints.

Invariants: one transaction at a time gives leaf numbers, and only to committed rows. What is stored here never changes, except
the list of ids without a number.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Any

from psycopg.types.multirange import Int8Multirange
from psycopg.types.range import Int8Range
from sqlalchemy import Connection, Row

from sweeper.evidence.merkle import HASH, WIDTH, Edge, Subtree
from sweeper.policy.instant import StoredTimestamp
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement

SOURCES = ("tombstones", "events")
"""The tables whose rows are the leaves."""
LAST = 2**63 - 1
"""The largest bigint."""
PAGE = 1_000
"""The number of ranges or checkpoints that are read at a time."""


@dataclass(frozen=True)
class Numbered:
    """A range of consecutive leaves that are rows of one table with consecutive ids."""

    first: int
    source: str
    ids: range


@dataclass(frozen=True)
class Checkpoint:
    """A row of sweeper.checkpoints; `signed_by` is the id of the key, None if it is unsigned."""

    id: int
    size: int
    root: bytes
    note: str
    signed_by: str | None
    taken_at: StoredTimestamp


def lock(connection: Connection) -> frozenset[str]:
    """Lock out other transactions that number leaves until this one ends; return the sources that have a row."""
    return frozenset(row.source for row in connection.execute(statement("ledger_lock")).all())


def size(connection: Connection) -> int:
    """Return the number of leaves."""
    found: int = connection.execute(statement("ledger_size")).scalar_one()
    return found


def unnumbered(connection: Connection, source: str, since: int | None, limit: int) -> list[int]:
    """Return the ids, in order and from `since` on, of committed rows without a leaf number."""
    if since is not None and since > LAST:
        return []
    sql = statement("ledger_unnumbered", source=source)
    return [row.id for row in connection.execute(sql, {"since": since, "limit": limit})]


def ranges(ids: Iterable[int]) -> list[range]:
    """Return ascending ids as ranges."""
    found = (list(run) for _, run in groupby(enumerate(ids), lambda pair: pair[1] - pair[0]))
    return [range(run[0][1], run[-1][1] + 1) for run in found]


def multirange(ids: Sequence[range]) -> Int8Multirange:
    """Return ranges for PostgreSQL; a range up to the largest bigint is open, since its exclusive end is no bigint."""
    return Int8Multirange(Int8Range(each.start, each.stop if each.stop <= LAST else None) for each in ids)


def rows(connection: Connection, source: str, ids: Sequence[range]) -> list[tuple[int, str]]:
    """Return the existing rows with these ids, in order of id: the id, and the columns as JSON text."""
    parameters = {"ids": multirange(ids), "limit": sum(map(len, ids))}
    found = connection.execute(statement(f"ledger_{source}"), parameters)
    return [(row.id, row.leaf) for row in found]


def number(connection: Connection, first: int, source: str, ids: Sequence[range]) -> None:
    """Give the leaf numbers from `first` on to the rows with these ids."""
    lengths = [len(each) for each in ids]
    connection.execute(
        statement("ledger_number"),
        {
            "source": source,
            "firsts": list(accumulate(lengths[:-1], initial=first)),
            "first_ids": [each.start for each in ids],
            "lengths": lengths,
        },
    )
    connection.execute(statement("ledger_advance"), {"source": source, "ids": multirange(ids)})


def keep(connection: Connection, parts: Sequence[Subtree]) -> None:
    """Store nodes of the tree."""
    connection.execute(
        statement("ledger_keep"),
        {
            "levels": [part.level for part in parts],
            "firsts": [part.first for part in parts],
            "hashes": [b"".join(part.hashes) for part in parts],
        },
    )


@dataclass
class Tiles:
    """Reads the nodes of the tree tile by tile, with a cache of at most `most` tiles; `read` counts the tiles read."""

    connection: Connection
    most: int = 64
    held: dict[tuple[int, int], list[bytes]] = field(default_factory=dict)
    read: int = 0

    def __call__(self, level: int, index: int) -> list[bytes]:
        """Return the stored nodes of a tile, up to the first one that is missing or stored twice."""
        if (level, index) not in self.held:
            if len(self.held) >= self.most:
                self.held.clear()
            self.held[level, index] = self._read(level, index * WIDTH)
        return self.held[level, index]

    def _read(self, level: int, begin: int) -> list[bytes]:
        self.read += 1
        hashes: list[bytes] = []
        for row in self.connection.execute(statement("ledger_tile"), {"level": level, "begin": begin}):
            if row.first != begin + len(hashes) or row.hashes is None:
                return hashes[: row.first - begin]
            hashes += [row.hashes[at : at + HASH] for at in range(0, len(row.hashes), HASH)]
        return hashes


def edge(connection: Connection, tree_size: int) -> Edge:
    """Return the right edge of the tree of `tree_size` leaves."""
    return Edge.at(tree_size, Tiles(connection))


def numbered(database: Database) -> Iterator[Numbered]:
    """Yield the ranges of numbered rows, in order of leaf number."""
    pages = _pages(database, "ledger_spans", "first", -1)
    return (Numbered(row.first, row.source, range(row.first_id, row.first_id + row.length)) for row in pages)


def leaf_of(connection: Connection, source: str, id_: int) -> int | None:
    """Return the leaf number of a row, or None."""
    found: int | None = connection.execute(
        statement("ledger_leaf_of"), {"source": source, "id": id_}
    ).scalar_one_or_none()
    return found


def tombstone_ids(connection: Connection, store: str, conversation_id: str) -> list[int]:
    """Return the ids of the tombstones of a conversation, the newest first."""
    return [
        row.id for row in connection.execute(statement("ledger_tombstones_of"), {"store": store, "id": conversation_id})
    ]


def uncovered(connection: Connection, source: str) -> int:
    """Return the number of committed rows without a leaf number."""
    found: int = connection.execute(statement("ledger_uncovered", source=source)).scalar_one()
    return found


def first_fault(connection: Connection, name: str) -> Row[Any] | None:
    """Return the first faulty row that a checking statement (ledger_twice, ledger_beyond, ledger_misnumbered) finds."""
    return connection.execute(statement(name)).one_or_none()


def record(connection: Connection, taken: Checkpoint) -> None:
    """Record a checkpoint; its row gets an id of its own."""
    connection.execute(
        statement("checkpoint_record"), {name: value for name, value in vars(taken).items() if name != "id"}
    )


def was_signed(connection: Connection) -> bool:
    """Return True if any checkpoint is signed; an unsigned one then deserves a warning."""
    return bool(connection.execute(statement("ledger_was_signed")).scalar_one())


def last(connection: Connection, *, signed: bool = False) -> Checkpoint | None:
    """Return the newest checkpoint, or the newest signed one."""
    row = connection.execute(statement("checkpoint_last"), {"signed": signed}).one_or_none()
    return None if row is None else Checkpoint(**row._mapping)


def checkpoints(database: Database) -> Iterator[Checkpoint]:
    """Yield all checkpoints in the order in which they were taken."""
    return (Checkpoint(**row._mapping) for row in _pages(database, "checkpoints", "id", -LAST))


def openings(connection: Connection) -> list[int]:
    """Return the ids, in order, of the `run_opened` events."""
    return [row.id for row in connection.execute(statement("ledger_openings"))]


def reapplied(connection: Connection, origin: str, tree_size: int, root: bytes) -> frozenset[str | None]:
    """Return how each `reapply` of the ledger with this tree was accepted: by a person's digest, or None if none was needed."""
    parameters = {"log": origin, "size": tree_size, "root": root.hex()}
    return frozenset(row.confirmed for row in connection.execute(statement("ledger_reapplied"), parameters))


def _pages(database: Database, name: str, key: str, after: int) -> Iterator[Row[Any]]:
    while True:
        page = database.fetched(statement(name), {"after": after, "limit": PAGE})
        yield from page
        if len(page) < PAGE:
            return
        after = getattr(page[-1], key)
