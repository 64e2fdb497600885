"""Writes the ledger to a file for an auditor, and reads it without a database.

JSON lines, each canonical: first `{"checkpoint": …, "ledger": 1}`, then for every tile of 256 leaves one
`{"hashes": …}` (base64 of the leaves' hashes) followed by the leaves themselves.

Invariant: the reader gives out nothing before the whole file has been held against the checkpoint, and then
only what it was that was held against it.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from sweeper.errors import ConfigurationError, SweeperError
from sweeper.evidence import leaf as leaves
from sweeper.evidence import ledger, merkle
from sweeper.evidence import note as notes
from sweeper.evidence.checkpoint import LedgerError
from sweeper.evidence.keys import SignatureError, Verifier
from sweeper.evidence.leaf import Leaf
from sweeper.evidence.merkle import HASH, WIDTH, Edge, leaf_hash
from sweeper.evidence.note import Note, NoteError, TreeHead
from sweeper.evidence.walk import FaultError, Walk
from sweeper.files import atomic_write
from sweeper.postgres.database import Database

FORMAT = 1
MOST_LINE = 1 << 29
"""Bytes: longer than any row, since jsonb is limited to 256 MB. Keeps an endless device out of memory."""


class ExportError(SweeperError):
    """A file is not the ledger that its checkpoint signs; nothing was taken from it. The message names the line."""


def write(database: Database, path: Path) -> Note:
    """Write the ledger up to its newest checkpoint to a file, atomically.

    Returns:
        The checkpoint.

    Raises:
        LedgerError: there is no checkpoint, or the evidence is not what it covers.
        ConfigurationError: the file cannot be written.
    """
    with database.transaction() as connection:
        last = ledger.last(connection)
    if last is None:
        raise LedgerError("there is no checkpoint. Nothing was written. Run `sweeper audit checkpoint` first.")
    try:
        note = notes.parse(last.note)
        with atomic_write(path) as file:
            _write(Walk(database), note, file)
    except (FaultError, NoteError) as error:
        raise LedgerError(f"{error}. Nothing was written. Run `sweeper audit verify`.") from None
    return note


def _write(walk: Walk, note: Note, file: BinaryIO) -> None:
    edge = Edge(tells=False)
    _put(file, {"ledger": FORMAT, "checkpoint": note.text()})
    while edge.size < note.tree.size:
        lines = [each.leaf for each in walk.leaves(min(edge.size + WIDTH, note.tree.size))]
        hashes = [leaf_hash(line) for line in lines]
        _put(file, {"hashes": base64.b64encode(b"".join(hashes)).decode()})
        file.write(b"\n".join(lines) + b"\n")
        for hash_ in hashes:
            edge.append(hash_)
    if edge.root() != note.tree.root:
        raise LedgerError(
            f"the rows have another root than the newest checkpoint, of {note.tree.size} leaves, says. Nothing was written. "
            "Run `sweeper audit verify`."
        )


def _put(file: BinaryIO, line: dict[str, Any]) -> None:
    file.write(leaves.canonical(line) + b"\n")


@dataclass(frozen=True)
class Opened:
    """The event `run_opened`; the oldest versions recorded no store, the last one no identity."""

    run_id: int | str
    store: str | None
    identity: str | None


def opening(leaf: Leaf) -> Opened | None:
    """Return the run that a leaf records as opened, or None if it records anything else."""
    details, run_id = leaf.get("details"), leaf.get("run_id")
    if leaf["source"] != "events" or leaf.get("kind") != "run_opened" or not isinstance(details, dict):
        return None
    if not isinstance(run_id, int | str):
        return None
    store, identity = (None if (told := details.get(name)) is None else str(told) for name in ("store", "identity"))
    return Opened(run_id, store, identity)


@dataclass(frozen=True)
class Ledger:
    """An exported ledger that was held against its checkpoint; `blocks` are the roots of its tiles of leaves."""

    path: Path
    checkpoint: Note
    signed: bool
    blocks: Sequence[bytes]

    @property
    def tree(self) -> TreeHead:
        """What the checkpoint says."""
        return self.checkpoint.tree

    def leaves(self) -> Iterator[Leaf]:
        """Yield every leaf in order.

        Raises:
            ExportError: the file has changed since it was checked.
        """
        return chain.from_iterable(block.leaves for block in self._read_again())

    def hashes(self) -> Iterator[bytes]:
        """Yield the hash of every leaf in order; raises as `leaves`."""
        return chain.from_iterable(block.hashes for block in self._read_again())

    def _read_again(self) -> "Iterator[_Block]":
        """Read the file a tile at a time, each compared with what was checked before: the file may change meanwhile."""
        with _opened(self.path) as file:
            reading = _Reading(self.path, file)
            reading.checkpoint()
            for expected in self.blocks:
                block = reading.block(WIDTH)
                if merkle.root(block.hashes) != expected:
                    raise reading.wrong("the file has changed since it was checked")
                yield block

    def opened(self) -> Iterator[Opened]:
        """Yield each run that was opened; raises as `leaves`."""
        return filter(None, map(opening, self.leaves()))


def read(path: Path, key: Verifier | None) -> Ledger:
    """Hold an exported ledger against its checkpoint, in memory that does not grow with the leaves' size.

    Args:
        path: the file.
        key: the checkpoint must be signed by it; None takes what the file says for true.

    Raises:
        ExportError: a line does not fit, the first such is named; or it is not signed by the key.
        ConfigurationError: the file cannot be read.
    """
    with _opened(path) as file:
        reading = _Reading(path, file)
        note = reading.checkpoint()
        if key is not None:
            _refuse_unsigned(reading, note, key)
        edge, blocks = Edge(tells=False), []
        while edge.size < note.tree.size:
            block = reading.block(note.tree.size - edge.size)
            blocks.append(merkle.root(block.hashes))
            for hash_ in block.hashes:
                edge.append(hash_)
        reading.end()
        if edge.root() != note.tree.root:
            raise reading.wrong(f"up to here it has not the root that its checkpoint of {note.tree.size} leaves says")
    return Ledger(path, note, key is not None, tuple(blocks))


def _refuse_unsigned(reading: "_Reading", note: Note, key: Verifier) -> None:
    try:
        if not key.signed(note):
            raise reading.wrong("its checkpoint is not signed by the key that was given")
    except SignatureError as error:
        raise reading.wrong(str(error)) from None


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read ({error.strerror}). Nothing was done. Name the ledger."
        ) from None


@dataclass(frozen=True)
class _Block:
    hashes: Sequence[bytes]
    leaves: Sequence[Leaf]


@dataclass
class _Reading:
    """Where the reader is in the file."""

    path: Path
    file: BinaryIO
    line: int = 0

    def wrong(self, why: str) -> ExportError:
        """What to say of the line that was read last."""
        return ExportError(f"{self.path}, line {self.line}: {why}. Nothing was taken from it. Export the ledger again.")

    def checkpoint(self) -> Note:
        """The checkpoint, from the first line."""
        _, told = self._next()
        if told.keys() != {"ledger", "checkpoint"} or told["ledger"] != FORMAT:
            raise self.wrong("this is no exported ledger, or one of another program")
        try:
            return notes.parse(str(told["checkpoint"]))
        except NoteError as error:
            raise self.wrong(f"its checkpoint cannot be read ({error})") from None

    def block(self, left: int) -> _Block:
        """The next tile of leaves, of which `left` are to come; each leaf is held against its hash."""
        _, told = self._next()
        hashes = self._hashes(told, min(left, WIDTH))
        found = []
        for hash_ in hashes:
            raw, leaf = self._next()
            if leaf_hash(raw) != hash_:
                raise self.wrong("the leaf is not what it was when the ledger was written")
            if "source" not in leaf:
                raise self.wrong("this is no leaf")
            found.append(leaf)
        return _Block(hashes, found)

    def _hashes(self, told: Leaf, most: int) -> list[bytes]:
        try:
            raw = notes.unbase64(str(told.get("hashes")))
        except NoteError:
            raw = b""
        if told.keys() != {"hashes"} or not raw or len(raw) % HASH or len(raw) > most * HASH:
            raise self.wrong("the hashes of the next leaves should be here")
        return [raw[at : at + HASH] for at in range(0, len(raw), HASH)]

    def end(self) -> None:
        """There must be no more."""
        if self.file.read(1):
            self.line += 1
            raise self.wrong("there is more than the checkpoint covers")

    def _next(self) -> tuple[bytes, Leaf]:
        """The next line, without its end, and what it tells."""
        self.line += 1
        raw = self.file.readline(MOST_LINE + 1)
        if len(raw) > MOST_LINE:
            raise self.wrong(f"the line has more than {MOST_LINE} bytes")
        if not raw.endswith(b"\n"):
            raise self.wrong("the file ends too early" if not raw else "the line is cut off")
        raw = raw.removesuffix(b"\n")
        try:
            told = leaves.read(raw)
        except ValueError as error:
            raise self.wrong(f"this is no JSON that a ledger holds ({error})") from None
        if not isinstance(told, dict):
            raise self.wrong("this is no JSON object")
        return raw, told
