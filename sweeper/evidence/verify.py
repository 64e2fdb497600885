"""Verifies the ledger: computes the tree again from the rows and names the first thing that does not fit.

If the ledger fits, the sweeper's other tables are compared with its events, and every difference is counted.

Invariant: nothing here is believed because it is stored; what is called good follows from the rows and from
checkpoints that are signed or kept elsewhere.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sweeper.evidence import comparison, ledger, state
from sweeper.evidence import note as notes
from sweeper.evidence.keys import SignatureError, Verifier
from sweeper.evidence.ledger import SOURCES, Checkpoint, Tiles
from sweeper.evidence.merkle import (
    WIDTH,
    Edge,
    MissingNodeError,
    Subtree,
    included_root,
    inclusion,
    leaf_hash,
    root,
    tiled,
)
from sweeper.evidence.note import Note, NoteError
from sweeper.evidence.walk import PORTION, FaultError, LedgerFault, LedgerFaultKind, Placed, Walk
from sweeper.postgres.database import Database


@dataclass(frozen=True)
class KeptCheckpoint:
    """A checkpoint kept outside of the database, and the name of its file."""

    name: str
    note: Note


@dataclass
class VerifyReport:
    """What verification found; `fault` is None if everything fits.

    `faults`: the first few of `found` faults. `compared`: how many rows of each table were compared with the events; empty if
    the ledger itself does not fit, since nothing can then be compared with it.
    """

    size: int = 0
    verified: int = 0
    checkpoints: Counter[str] = field(default_factory=Counter)
    covered: int = 0
    kept: int = 0
    uncovered: dict[str, int] = field(default_factory=dict)
    faults: list[LedgerFault] = field(default_factory=list)
    found: int = 0
    compared: dict[str, int] = field(default_factory=dict)

    @property
    def fault(self) -> LedgerFault | None:
        """The first thing that does not fit."""
        return self.faults[0] if self.faults else None

    def add(self, fault: LedgerFault) -> None:
        """Count a fault, and keep it if it is among the first few."""
        self.found += 1
        if len(self.faults) < FEW:
            self.faults.append(fault)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "fits": self.fault is None,
            "leaves": self.size,
            "verified": self.verified,
            "checkpoints": {state: self.checkpoints[state] for state in STATES},
            "under_a_checkpoint": self.covered,
            "kept_checkpoints": self.kept,
            "not_covered": self.uncovered,
            "fault": None if self.fault is None else _as_json(self.fault),
            "faults": [_as_json(fault) for fault in self.faults],
            "faults_found": self.found,
            "compared": self.compared,
        }


def _as_json(fault: LedgerFault) -> dict[str, Any]:
    return {**vars(fault), "kind": fault.kind.value}


FEW = 20
"""Number of faults reported in full; further ones are only counted."""
COMPARING_MS = 3_600_000
"""Statement time-out while a table is compared with the events; a million holds take some seconds."""

STATES = ("verified", "unknown key", "not checked", "unsigned")
"""What a checkpoint's signature is: good, by a key that was not given, without any key to check it with, not there."""

RESTORED = (
    ", or a backup was restored: then the exported ledger of before continues it, and the event `reapply` names that"
)
"""What else it can be, where a checkpoint from elsewhere does not fit."""


def verify(database: Database, kept: Sequence[KeptCheckpoint] = (), keys: Sequence[Verifier] = ()) -> VerifyReport:
    """Verify the tree and, if it fits, compare the sweeper's other tables with the events.

    Args:
        database: the sweeper's tables are in it; nothing is written.
        kept: checkpoints from elsewhere; the ledger must continue each.
        keys: the newest checkpoint must be signed by one of these, where any is given.

    Returns:
        What was found: the first fault of the tree, or the first few of the tables.
    """
    report = verify_tree(database, kept, keys)
    if report.fault is not None:
        return report
    return database.retried(lambda: _compared(database, report))


def _compared(database: Database, report: VerifyReport) -> VerifyReport:
    """Add the faults of the tables, read in one snapshot so that concurrent changes are no faults."""
    whole = replace(report, faults=[], found=0, compared={})
    with database.snapshot(statement_timeout_ms=COMPARING_MS) as connection:
        for fault in comparison.faults(connection, database.settings):
            whole.add(fault)
        whole.compared = state.counts(connection)
    return whole


def verify_tree(database: Database, kept: Sequence[KeptCheckpoint] = (), keys: Sequence[Verifier] = ()) -> VerifyReport:
    """Compute the tree anew from all rows and hold it against what is stored, signed and kept elsewhere.

    Returns:
        What was found, with the first fault.
    """
    with database.transaction() as connection:
        last = ledger.last(connection)
        size = ledger.size(connection)  # read later, so that no new checkpoint is larger
    verifying = _Verifying(database, keys, last, VerifyReport(size), Walk(database))
    try:
        verifying.run(sorted(kept, key=lambda each: each.note.tree.size))
    except FaultError as found:
        verifying.report.add(found.fault)
    return verifying.report


@dataclass
class _Verifying:
    database: Database
    keys: Sequence[Verifier]
    last: Checkpoint | None
    report: VerifyReport
    walk: Walk
    edge: Edge = field(default_factory=Edge)
    recent: list[Placed] = field(default_factory=list)
    """The leaves not yet compared with the stored nodes."""

    def run(self, kept: list[KeptCheckpoint]) -> None:
        """Yield everything in the order of the leaves."""
        before = 0
        for checkpoint in self._checkpoints():
            while kept and kept[0].note.tree.size <= checkpoint.size:
                self._hold_kept(kept.pop(0))
            note = self._note(checkpoint, before)
            self._hold_checkpoint(checkpoint, note)
            self._hold_signature(checkpoint, note)
            before = self.report.covered = checkpoint.size
        for each in kept:
            self._hold_kept(each)
        self._advance(self.report.size, None)
        self._refuse_unsigned()
        self._hold_tables()

    def _checkpoints(self) -> Iterator[Checkpoint]:
        """Those that were there when this began."""
        for checkpoint in ledger.checkpoints(self.database):
            if self.last is None or checkpoint.id > self.last.id:
                return
            yield checkpoint

    def _note(self, checkpoint: Checkpoint, before: int) -> Note:
        """What a checkpoint says, once its row says the same as its text."""
        said = f"checkpoint {checkpoint.id} of {checkpoint.size} leaves"
        try:
            note = notes.parse(checkpoint.note or "")
        except NoteError as error:
            raise _fault(LedgerFaultKind.CHECKPOINT, f"{said}: its note is no checkpoint ({error})") from None
        tree = note.tree
        signers: set[str | None] = {signature.key_id for signature in note.signatures}
        if (tree.size, tree.root) != (checkpoint.size, checkpoint.root) or checkpoint.signed_by not in (
            signers or {None}
        ):
            raise _fault(LedgerFaultKind.CHECKPOINT, f"{said}: its note says other than its row")
        if not before <= checkpoint.size <= self.report.size:
            raise _fault(
                LedgerFaultKind.CHECKPOINT,
                f"{said} follows one of {before} leaves, and {self.report.size} leaves are numbered: it was altered, or what it "
                "covers was cut off",
            )
        return note

    def _hold_checkpoint(self, checkpoint: Checkpoint, note: Note) -> None:
        self._advance(checkpoint.size, note)
        if self.edge.root() != checkpoint.root:
            raise _fault(
                LedgerFaultKind.ROOT,
                f"checkpoint {checkpoint.id} of {checkpoint.size} leaves has another root than its rows: it was altered, or "
                f"leaves {self.report.covered} to {checkpoint.size - 1} were rewritten together with the tree",
            )

    def _hold_signature(self, checkpoint: Checkpoint, note: Note) -> None:
        try:
            state = self._state(note)
        except SignatureError as error:
            text = f"checkpoint {checkpoint.id} of {checkpoint.size} leaves: {error}"
            raise _fault(LedgerFaultKind.SIGNATURE, text) from None
        self.report.checkpoints[state] += 1
        if self.keys and self.last == checkpoint and state != "verified":
            raise _fault(
                LedgerFaultKind.SIGNATURE,
                f"checkpoint {checkpoint.id} of {checkpoint.size} leaves, the newest, is not signed by a key that was given; if "
                "that is because the key is new, take a checkpoint with it: sweeper audit checkpoint",
            )

    def _state(self, note: Note) -> str:
        if not note.signatures:
            return "unsigned"
        if not self.keys:
            return "not checked"
        return "verified" if any(key.signed(note) for key in self.keys) else "unknown key"

    def _refuse_unsigned(self) -> None:
        if self.keys and self.last is None and self.report.size:
            raise _fault(
                LedgerFaultKind.SIGNATURE, f"{self.report.size} leaves are numbered, and there is no checkpoint"
            )

    def _hold_kept(self, kept: KeptCheckpoint) -> None:
        tree = kept.note.tree
        try:
            signed = not self.keys or any(key.signed(kept.note) for key in self.keys)
        except SignatureError as error:
            raise _fault(LedgerFaultKind.SIGNATURE, f"{kept.name}: {error}") from None
        if not signed:
            raise _fault(LedgerFaultKind.SIGNATURE, f"{kept.name}: is not signed by a key that was given")
        if tree.size > self.report.size:
            cut = f"the ledger only {self.report.size}: what came after was cut off{RESTORED}"
            raise _fault(LedgerFaultKind.KEPT, f"{kept.name} has {tree.size} leaves, {cut}")
        self._advance(tree.size, kept.note)
        if self.edge.root() != tree.root:
            text = f"{kept.name} of {tree.size} leaves is not of this ledger, or what it covers was rewritten{RESTORED}"
            raise _fault(LedgerFaultKind.KEPT, text)
        self.report.kept += 1

    def _advance(self, end: int, note: Note | None) -> None:
        """Go on to before leaf `end`, where the tree should be the note's if there is one."""
        try:
            for placed in self.walk.leaves(end):
                self.edge.append(leaf_hash(placed.leaf))
                self.recent.append(placed)
                if len(self.recent) == PORTION:
                    self._compare(note)
        except FaultError:
            self._compare(note)  # what does not fit before a leaf that cannot be read is the first to be told
            raise
        self._compare(note)

    def _compare(self, note: Note | None) -> None:
        """Compare the computed nodes with the stored ones."""
        parts = sorted(self.edge.parts(), key=lambda part: (part.level, part.first))
        with self.database.transaction() as connection:
            tiles = Tiles(connection)
            for part in parts:
                self._compare_part(part, tiles, note)
        self.recent.clear()
        self.report.verified = self.edge.size

    def _compare_part(self, part: Subtree, tiles: Tiles, note: Note | None) -> None:
        tile, offset = divmod(part.first, WIDTH)
        stored = tiles(part.level, tile)[offset : offset + len(part.hashes)]
        if tuple(stored) == part.hashes:
            return
        at = next(
            (at for at, hashes in enumerate(zip(stored, part.hashes, strict=False)) if hashes[0] != hashes[1]),
            len(stored),
        )
        self._blame(part, at, stored, tiles, note)

    def _blame(self, part: Subtree, at: int, stored: Sequence[bytes], tiles: Tiles, note: Note | None) -> None:
        """Which of two is altered, the row or its node: the row only where rows do not lead to the root of the checkpoint."""
        number = part.first + at
        text = (
            f"node {number} of level {part.level} in sweeper.tiles is missing or altered: it is not what its rows give"
        )
        if part.level or at == len(stored):
            raise _fault(LedgerFaultKind.TILE, text)
        placed = self.recent[number - self.recent[0].number]
        if note and (_leads(part.hashes[at], number, note, tiles) or self._rows_lead(note)):
            raise _fault(LedgerFaultKind.TILE, text, placed)
        raise _fault(
            LedgerFaultKind.CHANGED,
            f"sweeper.{placed.source} {placed.id} (leaf {number}) was changed, or put in the place of another: it is not the row "
            "that became this leaf",
            placed,
        )

    def _rows_lead(self, note: Note) -> bool:
        """Whether all rows, without any node that is stored, lead to the root of a checkpoint: then only nodes are altered."""
        leaves = Walk(self.database).leaves(note.tree.size)
        try:
            return root(leaf_hash(placed.leaf) for placed in leaves) == note.tree.root
        except FaultError:
            return False

    def _hold_tables(self) -> None:
        """What the walk along the leaves cannot see: rows with two numbers or none, nodes of no leaf."""
        with self.database.transaction() as connection:
            if row := ledger.suspect(connection, "ledger_twice"):
                text = f"sweeper.{row.source} {row.id} has two leaf numbers, one is {row.leaf}"
                raise FaultError(LedgerFault(LedgerFaultKind.TWICE, text, row.source, row.id, row.leaf))
            if row := ledger.suspect(connection, "ledger_beyond"):
                text = f"node {row.first} of level {row.level} in sweeper.tiles belongs to no leaf that is numbered"
                raise _fault(LedgerFaultKind.TILE, text)
            if row := ledger.suspect(connection, "ledger_misnumbered"):
                since = "the smallest" if row.first_id is None else row.first_id
                text = f"sweeper.ledger_sources: ids of sweeper.{row.source} from {since} on "
                text += "would never get a leaf number" if row.forgotten else "would get a second leaf number"
                raise FaultError(LedgerFault(LedgerFaultKind.FORGOTTEN, text, row.source, row.first_id))
            self.report.uncovered = {source: ledger.uncovered(connection, source) for source in SOURCES}


def _leads(hash_: bytes, number: int, note: Note, tiles: Tiles) -> bool:
    """Whether a leaf's hash and the stored nodes lead to the root of a checkpoint."""
    size = note.tree.size
    try:
        return included_root(hash_, number, size, inclusion(number, size, tiled(tiles))) == note.tree.root
    except MissingNodeError:
        return False


def _fault(kind: LedgerFaultKind, text: str, placed: Placed | None = None) -> FaultError:
    if placed is None:
        return FaultError(LedgerFault(kind, text))
    return FaultError(LedgerFault(kind, text, placed.source, placed.id, placed.number))
