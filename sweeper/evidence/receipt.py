"""Receipts: proof of one purge, which can be verified with the log's public key and without the database.

Invariant: all statements of a receipt are read from the leaf that it proves.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from sweeper.errors import SweeperError
from sweeper.evidence import leaf as leaves
from sweeper.evidence import ledger
from sweeper.evidence import note as notes
from sweeper.evidence.keys import SignatureError, Verifier
from sweeper.evidence.leaf import Leaf
from sweeper.evidence.ledger import Tiles
from sweeper.evidence.merkle import HASH, MissingNodeError, ProofError, included_root, inclusion, leaf_hash, tiled
from sweeper.evidence.note import Note, NoteError
from sweeper.postgres.database import Database

FORMAT = "sweeper receipt 1"
KEYS = {"format", "leaf", "index", "size", "proof", "checkpoint"}


class ReceiptError(SweeperError):
    """A receipt cannot be written, or a given receipt proves nothing."""


@dataclass(frozen=True)
class Receipt:
    """A leaf, its number, its inclusion proof, and the signed checkpoint with the root."""

    leaf: Leaf
    index: int
    proof: Sequence[bytes]
    checkpoint: Note

    def text(self) -> str:
        """Return the receipt as the text of a file."""
        fields = {
            "format": FORMAT,
            "leaf": self.leaf,
            "index": self.index,
            "size": self.checkpoint.tree.size,
            "proof": [base64.b64encode(hash_).decode() for hash_ in self.proof],
            "checkpoint": self.checkpoint.text(),
        }
        return json.dumps(fields, indent=2) + "\n"

    def root(self) -> bytes:
        """Return the root that follows from leaf and proof.

        Raises:
            ValueError: the proof has the wrong length, or the leaf has no canonical form.
        """
        hash_ = leaf_hash(leaves.canonical(self.leaf))
        return included_root(hash_, self.index, self.checkpoint.tree.size, self.proof)


@dataclass(frozen=True)
class WrittenReceipt:
    """A receipt, the number of tombstones of the conversation, and the number of tiles read for the proof."""

    receipt: Receipt
    tombstones: int
    tiles: int


def prove(database: Database, conversation_id: str) -> WrittenReceipt:
    """Return a receipt of the newest purge of a conversation under a signed checkpoint; reads O(log leaves) tiles.

    Args:
        database: its settings name the schema of the conversation.
        conversation_id: the id as text, as in the store.

    Raises:
        ReceiptError: there is no such purge, or no signed checkpoint that covers it yet.
    """
    return database.within(lambda connection: _prove(connection, database.settings.store.schema_name, conversation_id))


def _prove(connection: Connection, store: str, conversation_id: str) -> WrittenReceipt:
    ids = ledger.tombstone_ids(connection, store, conversation_id)
    if not ids:
        raise ReceiptError(
            f"there is no tombstone of a conversation {conversation_id} of schema {store}. No receipt was written. "
            "Ask `sweeper explain` about it."
        )
    last = ledger.last(connection, signed=True)
    if last is None:
        raise ReceiptError(
            "there is no signed checkpoint. No receipt was written. Name a key (see `sweeper audit key --help`) and run "
            "`sweeper audit checkpoint`."
        )
    id_, index = _newest(connection, ids, last.size)
    if index is None:
        raise ReceiptError(
            f"the last signed checkpoint does not cover the purge of {conversation_id} yet. No receipt was written. "
            "Run `sweeper audit checkpoint`."
        )
    tiles = Tiles(connection)
    receipt = _receipt(tiles, id_, index, last.note)
    if receipt is None or receipt.root() != last.root:
        raise ReceiptError(
            f"leaf {index} and the stored tree do not lead to the checkpoint of {last.size} leaves: one of them was altered. No "
            "receipt was written. Run `sweeper audit verify`."
        )
    return WrittenReceipt(receipt, len(ids), tiles.read)


def _newest(connection: Connection, ids: Sequence[int], size: int) -> tuple[int, int | None]:
    """Return the newest tombstone among the first `size` leaves and its leaf number, which is None if there is none."""
    for id_ in ids:
        index = ledger.leaf_of(connection, "tombstones", id_)
        if index is not None and index < size:
            return id_, index
    return ids[0], None


def _receipt(tiles: Tiles, id_: int, index: int, note: str) -> Receipt | None:
    """Return the receipt, or None if the ledger lacks a node or the checkpoint cannot be parsed."""
    rows = ledger.rows(tiles.connection, "tombstones", ledger.ranges([id_]))
    try:
        checkpoint = notes.parse(note)
        proof = inclusion(index, checkpoint.tree.size, tiled(tiles))
    except (NoteError, MissingNodeError):
        return None
    return Receipt(leaves.of("tombstones", rows[0][1]), index, proof, checkpoint)


def check(text: str | bytes, key: Verifier) -> Receipt:
    """Parse and verify a receipt.

    Raises:
        ReceiptError: the text is no receipt, or it proves nothing; the message has the reason.
    """
    receipt = parse(text)
    try:
        if not key.signed(receipt.checkpoint):
            raise _proves_nothing("its checkpoint is not signed by the key that was given")
        if receipt.root() != receipt.checkpoint.tree.root:
            raise _proves_nothing("its leaf is not in the tree of its checkpoint: leaf, number or proof was altered")
    except SignatureError as error:
        raise _proves_nothing(str(error)) from None
    except ProofError as error:
        raise _proves_nothing(f"its proof leads to no root ({error})") from None
    except ValueError as error:
        raise _proves_nothing(f"its leaf has no canonical form ({error})") from None
    return receipt


def parse(text: str | bytes) -> Receipt:
    """Parse a receipt without verifying it.

    Raises:
        ReceiptError: the text is no receipt.
    """
    try:
        fields = leaves.read(text)
    except ValueError as error:
        raise _proves_nothing(f"it is no JSON that a receipt could be ({error})") from None
    if not _is_receipt(fields):
        raise _proves_nothing(f"it must have exactly the keys {', '.join(sorted(KEYS))} and valid values")
    try:
        checkpoint = notes.parse(fields["checkpoint"])
        proof = [notes.unbase64(hash_, HASH) for hash_ in fields["proof"]]
    except NoteError as error:
        raise _proves_nothing(f"its checkpoint or its proof cannot be read ({error})") from None
    if fields["size"] != checkpoint.tree.size:
        raise _proves_nothing(f"it says {fields['size']} leaves, its checkpoint {checkpoint.tree.size}")
    return Receipt(fields["leaf"], fields["index"], proof, checkpoint)


def _is_receipt(fields: Any) -> bool:
    return (
        isinstance(fields, dict)
        and fields.keys() == KEYS
        and fields["format"] == FORMAT
        and _is_tombstone(fields["leaf"])
        and all(type(fields[key]) is int for key in ("index", "size"))
        and isinstance(fields["checkpoint"], str)
        and isinstance(fields["proof"], list)
        and all(isinstance(hash_, str) for hash_ in fields["proof"])
    )


def _is_tombstone(leaf: Any) -> bool:
    return isinstance(leaf, dict) and leaf.get("source") == "tombstones" and leaf.keys() >= set(PROVEN_FIELDS.values())


PROVEN_FIELDS = {
    "record": "record",
    "record_id": "record_id",
    "rule": "rule",
    "due_at": "due_at",
    "purged_at": "purged_at",
    "as_of": "as_of",
    "run": "run_id",
    "policy": "policy_digest",
}
"""The fields of a proven purge, with the columns of the leaf that they are read from."""


def proven(receipt: Receipt) -> dict[str, Any]:
    """Return what a verified receipt proves."""
    tree = receipt.checkpoint.tree
    fields = {name: receipt.leaf[column] for name, column in PROVEN_FIELDS.items()}
    return {**fields, "log": tree.origin, "leaf": receipt.index, "size": tree.size}


def _proves_nothing(why: str) -> ReceiptError:
    return ReceiptError(f"this proves nothing: {why}. Ask for the receipt again, and for the key from its owner.")
