"""Checkpoints as text: the C2SP tlog-checkpoint in a C2SP signed note. Values in, values out; no key is read here.

    sweeper/4bb0e7a4-…        the origin: which log
    12345                     the size: how many leaves
    q1xYb…=                   the root, base64
                              (an empty line)
    — sweeper/4bb0e7a4-… mVg… the signature: the key's name, and base64 of its id and the signature of all above the empty line

Invariant: what is not exactly of this form is refused; one text has one meaning.
"""

import base64
import binascii
import re
from dataclasses import dataclass

from sweeper.evidence.merkle import HASH

NAME = re.compile(r"[!-*,-~]+")
"""What an origin may be: it is a key's name as well."""
_DIGITS = re.compile(r"[1-9][0-9]{0,18}")


class NoteError(ValueError):
    """A text is not a checkpoint."""


@dataclass(frozen=True)
class TreeHead:
    """What a checkpoint says of a log: its size in leaves, and the root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True)
class Signature:
    """A signature line: the key's name, its id (four bytes, told as hex) and the signature."""

    name: str
    key_id: str
    signature: bytes

    def line(self) -> str:
        """The line, with its end."""
        return f"— {self.name} {base64.b64encode(bytes.fromhex(self.key_id) + self.signature).decode()}\n"


@dataclass(frozen=True)
class Note:
    """A checkpoint with its signatures; an unsigned one has none."""

    tree: TreeHead
    signatures: tuple[Signature, ...] = ()

    def text(self) -> str:
        """The whole text."""
        if not self.signatures:
            return self.tree.text()
        return self.tree.text() + "\n" + "".join(signature.line() for signature in self.signatures)


def parse(text: str) -> Note:
    """The checkpoint that a text is.

    Raises:
        NoteError: it is none.
    """
    body, blank, lines = text.partition("\n\n")
    note = Note(_tree(body if blank else body.removesuffix("\n")), _signatures(lines) if blank else ())
    if note.text() != text:
        raise NoteError("it is not written as a checkpoint is")
    return note


def _tree(body: str) -> TreeHead:
    lines = body.split("\n")
    if len(lines) != 3:
        raise NoteError("a checkpoint has three lines: origin, size and root")
    origin, size, root = lines
    if not NAME.fullmatch(origin) or not _DIGITS.fullmatch(size):
        raise NoteError("its origin or its size is none")
    return TreeHead(origin, int(size), unbase64(root, HASH))


def _signatures(lines: str) -> tuple[Signature, ...]:
    found = []
    for line in lines.removesuffix("\n").split("\n"):
        mark, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if mark != "—" or not NAME.fullmatch(name):
            raise NoteError("a line under it is no signature")
        raw = unbase64(encoded)
        if len(raw) < 5:
            raise NoteError("a signature under it is too short")
        found.append(Signature(name, raw[:4].hex(), raw[4:]))
    return tuple(found)


def unbase64(text: str, length: int | None = None) -> bytes:
    """The bytes that base64 tells, of `length` if one is given.

    Raises:
        NoteError: the text is no base64, another text would tell the same, or the length is another.
    """
    try:
        raw = base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise NoteError(f"{text[:60]!r} is no base64") from None
    if base64.b64encode(raw).decode() != text or length not in (None, len(raw)):
        raise NoteError(f"{text[:60]!r} is not the base64 of what belongs there")
    return raw
