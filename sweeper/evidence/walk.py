"""Walks through the leaves in order, computed from the rows as they are now, and reports where the walk cannot continue.

Invariant: what is read is the evidence itself and never what was kept of it; no transaction lasts.
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
"""Number of rows held in memory at a time."""


class LedgerFaultKind(StrEnum):
    """In what way something does not fit."""

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
    UNTOLD = "not told"
    IDENTITY = "identity altered"


@dataclass(frozen=True)
class LedgerFault:
    """A fault of the ledger: its kind, a description and, as far as known, the row, leaf and column.

    `source` is the table; of one of text ids, `id` is such a text.
    """

    kind: LedgerFaultKind
    text: str
    source: str | None = None
    id: int | str | None = None
    leaf: int | None = None
    column: str | None = None


class FaultError(Exception):
    """Something does not fit."""

    def __init__(self, fault: LedgerFault) -> None:
        super().__init__(fault.text)
        self.fault = fault


class Placed(NamedTuple):
    """A row at its place in the tree: its leaf's number and canonical bytes."""

    number: int
    source: str
    id: int
    leaf: bytes


@dataclass
class Walk:
    """Where the walk is: the next leaf's number, and the ranges that are to come."""

    database: Database
    position: int = 0
    coming: Iterator[Numbered] = field(init=False)
    left: Numbered | None = None

    def __post_init__(self) -> None:
        self.coming = ledger.numbered(self.database)

    def leaves(self, end: int) -> Iterator[Placed]:
        """The leaves from where the walk is to before `end`.

        Raises:
            FaultError: there is a leaf number without a row, or with two.
        """
        while self.position < end:
            yield from self._read(self._batch(end))

    def _batch(self, end: int) -> list[Numbered]:
        """The next ranges of one table in order of id, no more than a portion of rows."""
        batch: list[Numbered] = []
        number = self.position
        limit = min(end, number + PORTION)
        while number < limit:
            try:
                part = self._next(number)
            except FaultError:
                if batch:
                    break  # what comes before it is read first
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
        source, told = batch[0].source, defaultdict[int, list[str]](list)
        with self.database.transaction() as connection:
            for id_, columns in ledger.rows(connection, source, [part.ids for part in batch]):
                told[id_].append(columns)
        for part in batch:
            for id_ in part.ids:
                if len(told[id_]) != 1:
                    raise self._not_one(source, id_, len(told[id_]))
                yield Placed(self.position, source, id_, leaf.canonical(leaf.of(source, told[id_][0])))
                self.position += 1

    def _not_one(self, source: str, id_: int, count: int) -> FaultError:
        said = f"sweeper.{source} {id_} (leaf {self.position}) is"
        if count:
            text = f"{said} there {count} times: somebody put a second row under its id"
            return FaultError(LedgerFault(LedgerFaultKind.TWICE, text, source, id_, self.position))
        text = f"{said} missing: the row was deleted, or sweeper.leaves was altered to name it"
        return FaultError(LedgerFault(LedgerFaultKind.MISSING, text, source, id_, self.position))


def _row(part: Numbered) -> str:
    return f"sweeper.{part.source} {part.ids.start}"
