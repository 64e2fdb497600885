"""Reads the leaves in order from the current rows, and raises a fault where a leaf has no row or two.

Invariants: leaves are computed from the evidence itself, never from stored hashes. No transaction lasts longer than one batch.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from sweeper.evidence import leaf, ledger
from sweeper.evidence.ledger import SOURCES, Numbered
from sweeper.postgres.database import Database

PORTION = 1_024
"""The number of rows in memory at a time."""


class LedgerFaultKind(StrEnum):
    """The kind of a fault."""

    CHANGED = "changed"
    MISSING = "missing"
    TWICE = "there twice"
    FORGOTTEN = "forgotten"
    NUMBERS = "leaf numbers altered"
    TILE = "tile altered"
    CHECKPOINT = "checkpoint altered"
    SIGNATURE = "signature wrong"
    ROOT = "root wrong"
    KEPT = "not consistent"
    UNTOLD = "not columns_of"
    IDENTITY = "identity altered"


@dataclass(frozen=True)
class LedgerFault:
    """An inconsistency: its kind, a description and, if known, the row, the leaf and the column.

    `source` is the table; `id` is a text if the ids of that table are.
    """

    kind: LedgerFaultKind
    text: str
    source: str | None = None
    id: int | str | None = None
    leaf: int | None = None
    column: str | None = None


class FaultError(Exception):
    """A fault was found."""

    def __init__(self, fault: LedgerFault) -> None:
        super().__init__(fault.text)
        self.fault = fault


class Placed(NamedTuple):
    """A row with its leaf: the leaf's number and its canonical bytes."""

    number: int
    source: str
    id: int
    leaf: bytes


@dataclass
class Walk:
    """A pass over the leaves.

    `position`: the number of the next leaf. `coming`: the ranges still to read. `left`: a range that was read ahead.
    """

    database: Database
    position: int = 0
    coming: Iterator[Numbered] = field(init=False)
    left: Numbered | None = None

    def __post_init__(self) -> None:
        self.coming = ledger.numbered(self.database)

    def leaves(self, end: int) -> Iterator[Placed]:
        """Yield the leaves from `position` to before `end`.

        Raises:
            FaultError: there is a leaf number without a row, or with two.
        """
        while self.position < end:
            yield from self._read(self._batch(end))

    def _batch(self, end: int) -> list[Numbered]:
        """Return the next ranges of one table in ascending order of id, with at most `PORTION` rows."""
        batch: list[Numbered] = []
        number = self.position
        limit = min(end, number + PORTION)
        while number < limit:
            try:
                part = self._next(number)
            except FaultError:
                if batch:
                    break  # read the ranges before the fault first
                raise
            if batch and (part.source != batch[-1].source or part.ids.start < batch[-1].ids.stop):
                self.left = part
                break
            room = limit - number
            batch.append(replace(part, ids=part.ids[:room]))
            if rest := part.ids[room:]:
                self.left = Numbered(part.first + room, part.source, rest)
            number += len(batch[-1].ids)
        return batch

    def _next(self, number: int) -> Numbered:
        part = self.left = self.left or next(self.coming, None)
        if part is None or part.first > number:
            until = f"to {part.first - 1}" if part else "and those after it"
            text = f"leaf {number} {until}: sweeper.leaves does not say which rows they are"
            raise FaultError(LedgerFault(LedgerFaultKind.NUMBERS, text, leaf=number))
        if part.first < number:
            text = f"leaf {part.first}: sweeper.leaves says twice which row it is, the second is {_row(part)}"
            raise FaultError(LedgerFault(LedgerFaultKind.NUMBERS, text, part.source, part.ids.start, part.first))
        if part.source not in SOURCES:
            text = f"leaf {number}: sweeper.leaves says that it is a row of {part.source}, which holds no evidence"
            raise FaultError(LedgerFault(LedgerFaultKind.NUMBERS, text, leaf=number))
        self.left = None
        return part

    def _read(self, batch: list[Numbered]) -> Iterator[Placed]:
        source, columns_of = batch[0].source, defaultdict[int, list[str]](list)
        with self.database.transaction() as connection:
            for id_, columns in ledger.rows(connection, source, [part.ids for part in batch]):
                columns_of[id_].append(columns)
        for part in batch:
            for id_ in part.ids:
                if len(columns_of[id_]) != 1:
                    raise self._not_one(source, id_, len(columns_of[id_]))
                yield Placed(self.position, source, id_, leaf.canonical(leaf.of(source, columns_of[id_][0])))
                self.position += 1

    def _not_one(self, source: str, id_: int, count: int) -> FaultError:
        subject = f"sweeper.{source} {id_} (leaf {self.position}) is"
        if count:
            text = f"{subject} there {count} times: somebody put a second row under its id"
            return FaultError(LedgerFault(LedgerFaultKind.TWICE, text, source, id_, self.position))
        text = f"{subject} missing: the row was deleted, or sweeper.leaves was altered to name it"
        return FaultError(LedgerFault(LedgerFaultKind.MISSING, text, source, id_, self.position))


def _row(part: Numbered) -> str:
    return f"sweeper.{part.source} {part.ids.start}"
