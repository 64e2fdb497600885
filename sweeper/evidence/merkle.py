"""The Merkle tree of RFC 6962: hashes, the growing right edge, proofs and their verification.

Invariant: a verifier needs to trust the root of a tree and nothing else.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

HASH = 32
"""Bytes of a hash, SHA-256."""
LEVEL = 8
"""The number of heights of the tree in a tile: a node of level l is the root of 2 ** (8 * l) leaves."""
WIDTH = 1 << LEVEL
"""The number of nodes of one level in a full tile."""
EMPTY = hashlib.sha256().digest()
"""The root of an empty tree."""

Node = Callable[[int, int], bytes]
"""Returns, for a height and an index, the root of the 2 ** height leaves that begin at index * 2 ** height."""
Tile = Callable[[int, int], Sequence[bytes]]
"""Returns, for a level and an index, the existing nodes of a tile."""


class ProofError(ValueError):
    """A proof does not lead to the root it is checked against."""


class MissingNodeError(ValueError):
    """A node of the tree is missing."""


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf; its prefix distinguishes it from a node."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node with two children."""
    return hashlib.sha256(b"\1" + left + right).digest()


def full_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root over hashes whose number is a power of two."""
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [node_hash(left, right) for left, right in zip(pairs, pairs, strict=True)]
    return hashes[0]


@dataclass(frozen=True)
class Subtree:
    """Consecutive nodes of one level in one tile: the index of the first, and their hashes."""

    level: int
    first: int
    hashes: tuple[bytes, ...]


@dataclass
class Edge:
    """The right edge of a growing tree, from which its root and new nodes are computed, in memory that grows with log(size).

    `tiles`: the nodes of the unfinished tile of every level. `kept`: how many of those `parts` has returned.
    `done`: finished nodes for the next `parts`; False for `collects` drops them, for a caller that needs only the root.
    """

    size: int = 0
    tiles: list[list[bytes]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    done: list[Subtree] = field(default_factory=list)
    collects: bool = True

    @classmethod
    def at(cls, size: int, tile: Tile) -> "Edge":
        """Return the edge of a tree of `size` leaves with these tiles.

        Raises:
            MissingNodeError: a tile has fewer nodes than a tree of that size.
        """
        edge = cls(size)
        for level in range(levels(size)):
            index, width = divmod(size >> (LEVEL * level), WIDTH)
            edge.tiles.append(list(_slice(tile, level, index, 0, width)) if width else [])
            edge.kept.append(width)
        return edge

    def append(self, hash_: bytes) -> None:
        """Add the next leaf's hash."""
        self._push(0, hash_)
        self.size += 1

    def parts(self) -> list[Subtree]:
        """Return the nodes that were added since the last call."""
        for level, tile in enumerate(self.tiles):
            self._collect(level, tile, (self.size >> (LEVEL * level)) - len(tile))
            self.kept[level] = len(tile)
        done, self.done = self.done, []
        return done

    def root(self) -> bytes:
        """Return the root of the current tree."""
        root: bytes | None = None
        for tile in self.tiles:
            for peak in reversed(_peaks(tile)):
                root = peak if root is None else node_hash(peak, root)
        return EMPTY if root is None else root

    def _push(self, level: int, hash_: bytes) -> None:
        if level == len(self.tiles):
            self.tiles.append([])
            self.kept.append(0)
        tile = self.tiles[level]
        tile.append(hash_)
        if len(tile) == WIDTH:
            self._collect(level, tile, (self.size >> (LEVEL * level)) + 1 - WIDTH)
            self.tiles[level], self.kept[level] = [], 0
            self._push(level + 1, full_root(tile))

    def _collect(self, level: int, tile: Sequence[bytes], begin: int) -> None:
        kept = self.kept[level]
        if self.collects and kept < len(tile):
            self.done.append(Subtree(level, begin + kept, tuple(tile[kept:])))


def levels(size: int) -> int:
    """Return the number of levels of tiles in a tree of `size` leaves."""
    return (size.bit_length() + LEVEL - 1) // LEVEL


def _peaks(hashes: Sequence[bytes]) -> list[bytes]:
    """Return the roots of the largest full subtrees over the hashes, from left to right."""
    peaks, begin = [], 0
    for height in reversed(range(len(hashes).bit_length())):
        if len(hashes) >> height & 1:
            peaks.append(full_root(hashes[begin : begin + (1 << height)]))
            begin += 1 << height
    return peaks


def root(hashes: Iterable[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    edge = Edge(collects=False)
    for hash_ in hashes:
        edge.append(hash_)
    return edge.root()


def _slice(tile: Tile, level: int, index: int, begin: int, end: int) -> Sequence[bytes]:
    hashes = tile(level, index)[begin:end]
    if len(hashes) < end - begin:
        raise MissingNodeError(f"level {level} lacks the node {index * WIDTH + begin + len(hashes)}")
    return hashes


def tiled(tile: Tile) -> Node:
    """Return a `Node` that reads from tiles; it raises MissingNodeError for a missing node."""

    def node(height: int, index: int) -> bytes:
        level, above = divmod(height, LEVEL)
        of_tile, offset = divmod(index << above, WIDTH)
        return full_root(_slice(tile, level, of_tile, offset, offset + (1 << above)))

    return node


def subroot(begin: int, end: int, node: Node) -> bytes:
    """Return the root over the leaves from `begin` to before `end`; there must be at least one."""
    count = end - begin
    if count & (count - 1) == 0:
        height = count.bit_length() - 1
        return node(height, begin >> height)
    middle = begin + _split(count)
    return node_hash(subroot(begin, middle, node), subroot(middle, end, node))


def _split(count: int) -> int:
    """Return the size of the left subtree of a tree of `count` leaves: the largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def inclusion(index: int, size: int, node: Node) -> list[bytes]:
    """Return the proof that a leaf is in the tree of `size` leaves: the siblings on the path from the leaf to the root."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    return _inclusion(index, 0, size, node)


def _inclusion(index: int, begin: int, end: int, node: Node) -> list[bytes]:
    if end - begin == 1:
        return []
    middle = begin + _split(end - begin)
    if index < middle:
        return [*_inclusion(index, begin, middle, node), subroot(middle, end, node)]
    return [*_inclusion(index, middle, end, node), subroot(begin, middle, node)]


def included_root(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root that follows from the hash of a leaf and an inclusion proof.

    Raises:
        ProofError: the proof has the wrong length for this leaf and size.
    """
    if not 0 <= index < size:
        raise ProofError(f"a tree of {size} leaves has no leaf {index}")
    found, last = leaf, size - 1
    left = list(reversed(proof))
    while last:
        if index & 1 or index < last:
            if not left:
                raise ProofError("the proof is too short")
            sibling = left.pop()
            found = node_hash(sibling, found) if index & 1 else node_hash(found, sibling)
        index, last = index >> 1, last >> 1
    if left:
        raise ProofError("the proof is too long")
    return found
