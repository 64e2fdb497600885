"""Verifies the ledger: computes the tree from the rows, and reports the first inconsistency.

If there is none, the sweeper's other tables are compared with the ledger's events, and every difference is counted.

Invariant: stored nodes are never trusted. A result follows from the rows, and from checkpoints that are signed or kept elsewhere.
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
from sweeper.log import Told, untold
from sweeper.postgres.database import Database


@dataclass(frozen=True)
class KeptCheckpoint:
    """A checkpoint that was kept outside the database, with the name of its file."""

    name: str
    note: Note


STATES = ("verified", "unknown key", "not checked", "unsigned")
"""States of a checkpoint's signature: verified, by a key that was not given, unverified since no key was given, absent."""


@dataclass
class VerifyReport:
    """The result of a verification; `fault` is None if everything is consistent.

    `faults`: the first few of `faults_found`. `compared`: how many rows of each table were compared with the events; empty if
    the ledger itself has a fault, since nothing can then be compared with it.
    """

    leaves: int = 0
    verified: int = 0
    checkpoints: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(STATES, 0)))
    under_a_checkpoint: int = 0
    kept_checkpoints: int = 0
    not_covered: dict[str, int] = field(default_factory=dict)
    faults: list[LedgerFault] = field(default_factory=list)
    faults_found: int = 0
    compared: dict[str, int] = field(default_factory=dict)

    @property
    def fault(self) -> LedgerFault | None:
        """The first fault, or None."""
        return self.faults[0] if self.faults else None

    def add(self, fault: LedgerFault) -> None:
        """Count a fault, and keep it if it is among the first few."""
        self.faults_found += 1
        if len(self.faults) < FEW:
            self.faults.append(fault)

    def as_json(self) -> dict[str, Any]:
        """Return the fields with the first fault, and with `fits` if there is none."""
        return {"fits": self.fault is None, "fault": self.fault, **vars(self)}


FEW = 20
"""Number of faults reported in full; further ones are only counted."""
COMPARING_MS = 3_600_000
"""Statement time-out while a table is compared with the events; a million holds take some seconds."""

RESTORED = ", or a backup was restored: then the ledger exported before it continues this one, and the event `reapply` names it"
"""The other possible cause if a kept checkpoint does not match."""


def verify(
    database: Database, kept: Sequence[KeptCheckpoint] = (), keys: Sequence[Verifier] = (), told: Told = untold
) -> VerifyReport:
    """Verify the tree and, if it fits, compare the sweeper's other tables with the events.

    Args:
        database: has the sweeper's tables; nothing is written.
        kept: checkpoints from outside the database; the ledger must continue each.
        keys: one of these must have signed the newest checkpoint, if any are given.
        told: is told how many leaves were verified.

    Returns:
        A report with the first fault of the tree, or the first few of the tables.
    """
    report = verify_tree(database, kept, keys, told)
    if report.fault is not None:
        return report
    return database.retried(lambda: _compared(database, report))


def _compared(database: Database, report: VerifyReport) -> VerifyReport:
    """Add the faults of the tables, read in one snapshot so that concurrent changes are no faults."""
    whole = replace(report, faults=[], faults_found=0, compared={})
    with database.snapshot(statement_timeout_ms=COMPARING_MS) as connection:
        for fault in comparison.faults(connection, database.settings):
            whole.add(fault)
        whole.compared = state.counts(connection)
    return whole


def verify_tree(
    database: Database, kept: Sequence[KeptCheckpoint] = (), keys: Sequence[Verifier] = (), told: Told = untold
) -> VerifyReport:
    """Compute the tree from all rows and compare it with the stored nodes and with all checkpoints.

    Returns:
        A report with at most one fault.
    """
    with database.transaction() as connection:
        last = ledger.last(connection)
        size = ledger.size(connection)  # read after `last`, so that it is at least as large
    verification = _Verification(database, keys, last, VerifyReport(size), Walk(database), told)
    try:
        verification.run(sorted(kept, key=lambda each: each.note.tree.size))
    except FaultError as found:
        verification.report.add(found.fault)
    return verification.report


@dataclass
class _Verification:
    database: Database
    keys: Sequence[Verifier]
    last: Checkpoint | None
    report: VerifyReport
    walk: Walk
    told: Told
    edge: Edge = field(default_factory=Edge)
    recent: list[Placed] = field(default_factory=list)
    """The leaves that were not yet compared with the stored nodes."""

    def run(self, kept: list[KeptCheckpoint]) -> None:
        """Verify leaves, checkpoints and tables, in the order of the leaves."""
        before = 0
        for checkpoint in self._checkpoints():
            while kept and kept[0].note.tree.size <= checkpoint.size:
                self._verify_kept(kept.pop(0))
            note = self._note(checkpoint, before)
            self._verify_checkpoint(checkpoint, note)
            self._verify_signature(checkpoint, note)
            before = self.report.under_a_checkpoint = checkpoint.size
        for each in kept:
            self._verify_kept(each)
        self._advance(self.report.leaves, None)
        self._refuse_unsigned()
        self._verify_tables()

    def _checkpoints(self) -> Iterator[Checkpoint]:
        """Yield the checkpoints that existed when the verification began."""
        for checkpoint in ledger.checkpoints(self.database):
            if self.last is None or checkpoint.id > self.last.id:
                return
            yield checkpoint

    def _note(self, checkpoint: Checkpoint, before: int) -> Note:
        """Return the parsed note of a checkpoint after comparing it with the row."""
        subject = f"checkpoint {checkpoint.id} of {checkpoint.size} leaves"
        try:
            note = notes.parse(checkpoint.note or "")
        except NoteError as error:
            raise _fault(LedgerFaultKind.CHECKPOINT, f"{subject}: its note is no checkpoint ({error})") from None
        tree = note.tree
        signers: set[str | None] = {signature.key_id for signature in note.signatures}
        if (tree.size, tree.root) != (checkpoint.size, checkpoint.root) or checkpoint.signed_by not in (
            signers or {None}
        ):
            raise _fault(LedgerFaultKind.CHECKPOINT, f"{subject}: its note differs from its row")
        if not before <= checkpoint.size <= self.report.leaves:
            raise _fault(
                LedgerFaultKind.CHECKPOINT,
                f"{subject} follows one of {before} leaves, and {self.report.leaves} leaves are numbered: it was altered, or "
                "what it covers was cut off",
            )
        return note

    def _verify_checkpoint(self, checkpoint: Checkpoint, note: Note) -> None:
        self._advance(checkpoint.size, note)
        if self.edge.root() != checkpoint.root:
            raise _fault(
                LedgerFaultKind.ROOT,
                f"checkpoint {checkpoint.id} of {checkpoint.size} leaves has another root than its rows: it was altered, or "
                f"leaves {self.report.under_a_checkpoint} to {checkpoint.size - 1} were rewritten together with the tree",
            )

    def _verify_signature(self, checkpoint: Checkpoint, note: Note) -> None:
        try:
            state = self._signature_state(note)
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

    def _signature_state(self, note: Note) -> str:
        if not note.signatures:
            return "unsigned"
        if not self.keys:
            return "not checked"
        return "verified" if any(key.signed(note) for key in self.keys) else "unknown key"

    def _refuse_unsigned(self) -> None:
        if self.keys and self.last is None and self.report.leaves:
            raise _fault(
                LedgerFaultKind.SIGNATURE, f"{self.report.leaves} leaves are numbered, and there is no checkpoint"
            )

    def _verify_kept(self, kept: KeptCheckpoint) -> None:
        tree = kept.note.tree
        try:
            signed = not self.keys or any(key.signed(kept.note) for key in self.keys)
        except SignatureError as error:
            raise _fault(LedgerFaultKind.SIGNATURE, f"{kept.name}: {error}") from None
        if not signed:
            raise _fault(LedgerFaultKind.SIGNATURE, f"{kept.name}: is not signed by a key that was given")
        if tree.size > self.report.leaves:
            cut = f"the ledger only {self.report.leaves}: what came after was cut off{RESTORED}"
            raise _fault(LedgerFaultKind.KEPT, f"{kept.name} has {tree.size} leaves, {cut}")
        self._advance(tree.size, kept.note)
        if self.edge.root() != tree.root:
            text = f"{kept.name} of {tree.size} leaves is not of this ledger, or what it covers was rewritten{RESTORED}"
            raise _fault(LedgerFaultKind.KEPT, text)
        self.report.kept_checkpoints += 1

    def _advance(self, end: int, note: Note | None) -> None:
        """Read the leaves up to before `end`; with a note, that is the size of its tree."""
        try:
            for placed in self.walk.leaves(end):
                self.edge.append(leaf_hash(placed.leaf))
                self.recent.append(placed)
                if len(self.recent) == PORTION:
                    self._compare(note)
        except FaultError:
            self._compare(note)  # a fault before the unreadable leaf is the first one
            raise
        self._compare(note)

    def _compare(self, note: Note | None) -> None:
        """Compare the new nodes with the stored ones."""
        parts = sorted(self.edge.parts(), key=lambda part: (part.level, part.first))
        with self.database.transaction() as connection:
            tiles = Tiles(connection)
            for part in parts:
                self._compare_part(part, tiles, note)
        self.recent.clear()
        self.report.verified = self.edge.size
        self.told(self.edge.size, self.report.leaves)

    def _compare_part(self, part: Subtree, tiles: Tiles, note: Note | None) -> None:
        tile, offset = divmod(part.first, WIDTH)
        stored = tiles(part.level, tile)[offset : offset + len(part.hashes)]
        if tuple(stored) == part.hashes:
            return
        at = next(
            (at for at, hashes in enumerate(zip(stored, part.hashes, strict=False)) if hashes[0] != hashes[1]),
            len(stored),
        )
        self._raise_fault(part, at, stored, tiles, note)

    def _raise_fault(self, part: Subtree, at: int, stored: Sequence[bytes], tiles: Tiles, note: Note | None) -> None:
        """Raise the fault of a row or of its node: of the row only if the rows do not lead to the root of the checkpoint."""
        number = part.first + at
        text = f"node {number} of level {part.level} in sweeper.tiles is missing or altered: it does not match its rows"
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
        """True if the rows alone lead to the root of a checkpoint, so that only stored nodes were altered."""
        leaves = Walk(self.database).leaves(note.tree.size)
        try:
            return root(leaf_hash(placed.leaf) for placed in leaves) == note.tree.root
        except FaultError:
            return False

    def _verify_tables(self) -> None:
        """Find the faults that reading the leaves does not show: rows with two numbers or none, nodes without a leaf."""
        with self.database.transaction() as connection:
            if row := ledger.first_fault(connection, "ledger_twice"):
                text = f"sweeper.{row.source} {row.id} has two leaf numbers, one is {row.leaf}"
                raise FaultError(LedgerFault(LedgerFaultKind.TWICE, text, row.source, row.id, row.leaf))
            if row := ledger.first_fault(connection, "ledger_beyond"):
                text = f"node {row.first} of level {row.level} in sweeper.tiles belongs to no leaf that is numbered"
                raise _fault(LedgerFaultKind.TILE, text)
            if row := ledger.first_fault(connection, "ledger_misnumbered"):
                since = "the smallest" if row.first_id is None else row.first_id
                text = f"sweeper.ledger_sources: ids of sweeper.{row.source} from {since} on "
                text += "would never get a leaf number" if row.forgotten else "would get a second leaf number"
                raise FaultError(LedgerFault(LedgerFaultKind.FORGOTTEN, text, row.source, row.first_id))
            self.report.not_covered = {source: ledger.uncovered(connection, source) for source in SOURCES}


def _leads(hash_: bytes, number: int, note: Note, tiles: Tiles) -> bool:
    """True if a leaf's hash and the stored nodes lead to the root of a checkpoint."""
    size = note.tree.size
    try:
        return included_root(hash_, number, size, inclusion(number, size, tiled(tiles))) == note.tree.root
    except MissingNodeError:
        return False


def _fault(kind: LedgerFaultKind, text: str, placed: Placed | None = None) -> FaultError:
    if placed is None:
        return FaultError(LedgerFault(kind, text))
    return FaultError(LedgerFault(kind, text, placed.source, placed.id, placed.number))
