"""Receipts: proof of one purge that the log's public key verifies, without the database.

Invariant: what a receipt says is taken from the leaf that it proves, and from nothing else in it.
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
    """A receipt could not be written, or a given receipt proves nothing."""


@dataclass(frozen=True)
class Receipt:
    """A leaf with its number, its inclusion proof, and the signed checkpoint of the root."""

    leaf: Leaf
    index: int
    proof: Sequence[bytes]
    checkpoint: Note

    def text(self) -> str:
        """The receipt as a file."""
        told = {
            "format": FORMAT,
            "leaf": self.leaf,
            "index": self.index,
            "size": self.checkpoint.tree.size,
            "proof": [base64.b64encode(hash_).decode() for hash_ in self.proof],
            "checkpoint": self.checkpoint.text(),
        }
        return json.dumps(told, indent=2) + "\n"

    def root(self) -> bytes:
        """The root to which leaf and proof lead.

        Raises:
            ValueError: they lead to none.
        """
        hash_ = leaf_hash(leaves.canonical(self.leaf))
        return included_root(hash_, self.index, self.checkpoint.tree.size, self.proof)


@dataclass(frozen=True)
class Written:
    """A receipt, the number of tombstones of its conversation, and the number of tiles read for it."""

    receipt: Receipt
    tombstones: int
    tiles: int


def prove(database: Database, conversation_id: str) -> Written:
    """Return a receipt of the newest purge of a conversation that a signed checkpoint covers; reads O(log leaves) tiles.

    Args:
        database: the store's settings say which schema the conversation was in.
        conversation_id: as the store wrote it.

    Raises:
        ReceiptError: there is no such purge, no signed checkpoint, or none yet that covers it.
    """
    return database.within(lambda connection: _prove(connection, database.settings.store.schema_name, conversation_id))


def _prove(connection: Connection, store: str, conversation_id: str) -> Written:
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
    return Written(receipt, len(ids), tiles.read)


def _newest(connection: Connection, ids: Sequence[int], size: int) -> tuple[int, int | None]:
    """The newest of the tombstones that is among the first `size` leaves, and its leaf number; None if none is."""
    for id_ in ids:
        index = ledger.leaf_of(connection, "tombstones", id_)
        if index is not None and index < size:
            return id_, index
    return ids[0], None


def _receipt(tiles: Tiles, id_: int, index: int, note: str) -> Receipt | None:
    """The receipt, None where the ledger does not have what it needs."""
    told = ledger.rows(tiles.connection, "tombstones", ledger.ranges([id_]))
    try:
        checkpoint = notes.parse(note)
        proof = inclusion(index, checkpoint.tree.size, tiled(tiles))
    except (NoteError, MissingNodeError):
        return None
    return Receipt(leaves.of("tombstones", told[0][1]), index, proof, checkpoint)


def check(text: str | bytes, key: Verifier) -> Receipt:
    """The receipt that a text is, once it is known to be true.

    Raises:
        ReceiptError: it is no receipt, or does not prove what it says; the text names why.
    """
    receipt = parse(text)
    try:
        if not key.signed(receipt.checkpoint):
            raise _nothing("its checkpoint is not signed by the key that was given")
        if receipt.root() != receipt.checkpoint.tree.root:
            raise _nothing("its leaf is not in the tree of its checkpoint: leaf, number or proof was altered")
    except SignatureError as error:
        raise _nothing(str(error)) from None
    except ProofError as error:
        raise _nothing(f"its proof leads to no root ({error})") from None
    except ValueError as error:
        raise _nothing(f"its leaf has no canonical form ({error})") from None
    return receipt


def parse(text: str | bytes) -> Receipt:
    """The receipt that a text tells; whether it is true is another question.

    Raises:
        ReceiptError: it is none.
    """
    try:
        told = leaves.read(text)
    except ValueError as error:
        raise _nothing(f"it is no JSON that a receipt could be ({error})") from None
    if not _is_receipt(told):
        raise _nothing(f"it has not just the keys {', '.join(sorted(KEYS))} with what belongs there")
    try:
        checkpoint = notes.parse(told["checkpoint"])
        proof = [notes.unbase64(hash_, HASH) for hash_ in told["proof"]]
    except NoteError as error:
        raise _nothing(f"its checkpoint or its proof cannot be read ({error})") from None
    if told["size"] != checkpoint.tree.size:
        raise _nothing(f"it says {told['size']} leaves, its checkpoint {checkpoint.tree.size}")
    return Receipt(told["leaf"], told["index"], proof, checkpoint)


def _is_receipt(told: Any) -> bool:
    return (
        isinstance(told, dict)
        and told.keys() == KEYS
        and told["format"] == FORMAT
        and _is_tombstone(told["leaf"])
        and all(type(told[key]) is int for key in ("index", "size"))
        and isinstance(told["checkpoint"], str)
        and isinstance(told["proof"], list)
        and all(isinstance(hash_, str) for hash_ in told["proof"])
    )


def _is_tombstone(leaf: Any) -> bool:
    return isinstance(leaf, dict) and leaf.get("source") == "tombstones" and leaf.keys() >= set(SAID.values())


SAID = {
    "record": "record",
    "record_id": "record_id",
    "rule": "rule",
    "due_at": "due_at",
    "purged_at": "purged_at",
    "as_of": "as_of",
    "run": "run_id",
    "policy": "policy_digest",
}
"""What a receipt is asked for, and the column that says it."""


def said(receipt: Receipt) -> dict[str, Any]:
    """The facts that a verified receipt proves."""
    tree = receipt.checkpoint.tree
    told = {name: receipt.leaf[column] for name, column in SAID.items()}
    return {**told, "log": tree.origin, "leaf": receipt.index, "size": tree.size}


def _nothing(why: str) -> ReceiptError:
    return ReceiptError(f"this proves nothing: {why}. Ask for the receipt again, and for the key from its owner.")
