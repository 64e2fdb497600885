"""Writes the ledger to a file for an auditor, and reads such a file without a database.

JSON lines, each canonical: first `{"checkpoint": …, "ledger": 1}`, then for every tile of 256 leaves one
`{"hashes": …}` (base64 of the leaves' hashes) followed by the leaves themselves.

Invariant: the reader returns no leaf before the whole file was checked against the checkpoint, and then only leaves that are
still the checked ones.
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
from sweeper.log import Told, untold
from sweeper.postgres.database import Database

FORMAT = 1
MOST_LINE = 1 << 29
"""The most bytes in a line; larger than any row, since jsonb is limited to 256 MB. Bounds the memory for any input."""


class ExportError(SweeperError):
    """A file does not match its checkpoint; nothing was read from it. The message has the line number."""


def write(database: Database, path: Path, told: Told = untold) -> Note:
    """Write the ledger up to its newest checkpoint to a file, which appears only when it is complete.

    Args:
        database: has the sweeper's tables.
        path: the file.
        told: is told how many leaves were written.

    Returns:
        The checkpoint.

    Raises:
        LedgerError: there is no checkpoint, or the evidence does not match it.
        ConfigurationError: the file cannot be written.
    """
    with database.transaction() as connection:
        last = ledger.last(connection)
    if last is None:
        raise LedgerError("there is no checkpoint. Nothing was written. Run `sweeper audit checkpoint` first.")
    try:
        note = notes.parse(last.note)
        with atomic_write(path) as file:
            _write(Walk(database), note, file, told)
    except (FaultError, NoteError) as error:
        raise LedgerError(f"{error}. Nothing was written. Run `sweeper audit verify`.") from None
    return note


def _write(walk: Walk, note: Note, file: BinaryIO, told: Told) -> None:
    edge = Edge(collects=False)
    _write_line(file, {"ledger": FORMAT, "checkpoint": note.text()})
    while edge.size < note.tree.size:
        lines = [each.leaf for each in walk.leaves(min(edge.size + WIDTH, note.tree.size))]
        hashes = [leaf_hash(line) for line in lines]
        _write_line(file, {"hashes": base64.b64encode(b"".join(hashes)).decode()})
        file.write(b"\n".join(lines) + b"\n")
        for hash_ in hashes:
            edge.append(hash_)
        told(edge.size, note.tree.size)
    if edge.root() != note.tree.root:
        raise LedgerError(
            f"the rows have another root than the newest checkpoint, of {note.tree.size} leaves. Nothing was written. "
            "Run `sweeper audit verify`."
        )


def _write_line(file: BinaryIO, line: dict[str, Any]) -> None:
    file.write(leaves.canonical(line) + b"\n")


@dataclass(frozen=True)
class OpenedRun:
    """A run from its `run_opened` event; early versions of the sweeper recorded no store or no identity."""

    run_id: int | str
    store: str | None
    identity: str | None


def opened_run(leaf: Leaf) -> OpenedRun | None:
    """Return the run that a leaf records as opened, or None if it records anything else."""
    details, run_id = leaf.get("details"), leaf.get("run_id")
    if leaf["source"] != "events" or leaf.get("kind") != "run_opened" or not isinstance(details, dict):
        return None
    if not isinstance(run_id, int | str):
        return None
    store, identity = (None if (value := details.get(name)) is None else str(value) for name in ("store", "identity"))
    return OpenedRun(run_id, store, identity)


@dataclass(frozen=True)
class Ledger:
    """An exported ledger that was checked against its checkpoint; `blocks` are the roots of its tiles of leaves."""

    path: Path
    checkpoint: Note
    signed: bool
    blocks: Sequence[bytes]

    @property
    def tree(self) -> TreeHead:
        """The tree of the checkpoint."""
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
        """Read the file again tile by tile, and compare each with the checked root: the file may have changed."""
        with _opened(self.path) as file:
            reading = _Reading(self.path, file)
            reading.checkpoint()
            for expected in self.blocks:
                block = reading.block(WIDTH)
                if merkle.root(block.hashes) != expected:
                    raise reading.wrong("the file has changed since it was checked")
                yield block

    def opened(self) -> Iterator[OpenedRun]:
        """Yield each run that was opened; raises as `leaves`."""
        return filter(None, map(opened_run, self.leaves()))


def read(path: Path, key: Verifier | None, told: Told = untold) -> Ledger:
    """Check an exported ledger against its checkpoint, one tile of leaves in memory at a time.

    Args:
        path: the file.
        key: must have signed the checkpoint; None skips that check.
        told: is told how many leaves were checked.

    Raises:
        ExportError: a line does not match, or the key did not sign the checkpoint; the message has the first such line.
        ConfigurationError: the file cannot be read.
    """
    with _opened(path) as file:
        reading = _Reading(path, file)
        note = reading.checkpoint()
        if key is not None:
            _refuse_unsigned(reading, note, key)
        edge, blocks = Edge(collects=False), []
        while edge.size < note.tree.size:
            block = reading.block(note.tree.size - edge.size)
            blocks.append(merkle.root(block.hashes))
            for hash_ in block.hashes:
                edge.append(hash_)
            told(edge.size, note.tree.size)
        reading.end()
        if edge.root() != note.tree.root:
            raise reading.wrong(f"its leaves have another root than its checkpoint of {note.tree.size} leaves")
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
    """The position of the reader in the file."""

    path: Path
    file: BinaryIO
    line: int = 0

    def wrong(self, why: str) -> ExportError:
        """Return an error about the last line read."""
        return ExportError(f"{self.path}, line {self.line}: {why}. Nothing was taken from it. Export the ledger again.")

    def checkpoint(self) -> Note:
        """Read the checkpoint from the first line."""
        _, header = self._next()
        if header.keys() != {"ledger", "checkpoint"} or header["ledger"] != FORMAT:
            raise self.wrong("this is no exported ledger, or one in another format")
        try:
            return notes.parse(str(header["checkpoint"]))
        except NoteError as error:
            raise self.wrong(f"its checkpoint cannot be read ({error})") from None

    def block(self, left: int) -> _Block:
        """Read the next tile, of `left` remaining leaves, and check each leaf against its hash."""
        _, line = self._next()
        hashes = self._hashes(line, min(left, WIDTH))
        found = []
        for hash_ in hashes:
            raw, leaf = self._next()
            if leaf_hash(raw) != hash_:
                raise self.wrong("the leaf is not what it was when the ledger was written")
            if "source" not in leaf:
                raise self.wrong("this is no leaf")
            found.append(leaf)
        return _Block(hashes, found)

    def _hashes(self, line: Leaf, most: int) -> list[bytes]:
        try:
            raw = notes.unbase64(str(line.get("hashes")))
        except NoteError:
            raw = b""
        if line.keys() != {"hashes"} or not raw or len(raw) % HASH or len(raw) > most * HASH:
            raise self.wrong("the hashes of the next leaves are expected here")
        return [raw[at : at + HASH] for at in range(0, len(raw), HASH)]

    def end(self) -> None:
        """Refuse further lines."""
        if self.file.read(1):
            self.line += 1
            raise self.wrong("there is more than the checkpoint covers")

    def _next(self) -> tuple[bytes, Leaf]:
        """Return the next line without its end, and the object in it."""
        self.line += 1
        raw = self.file.readline(MOST_LINE + 1)
        if len(raw) > MOST_LINE:
            raise self.wrong(f"the line has more than {MOST_LINE} bytes")
        if not raw.endswith(b"\n"):
            raise self.wrong("the file ends too early" if not raw else "the line is cut off")
        raw = raw.removesuffix(b"\n")
        try:
            content = leaves.read(raw)
        except ValueError as error:
            raise self.wrong(f"this is no JSON that a ledger holds ({error})") from None
        if not isinstance(content, dict):
            raise self.wrong("this is no JSON object")
        return raw, content
