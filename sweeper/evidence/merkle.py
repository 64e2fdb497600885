"""The Merkle tree of RFC 6962: hashes, the growing right edge, proofs and their checks.

Invariant: whoever holds the root of a tree needs to trust nothing else. A proof that checks is true of that root.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

HASH = 32
"""Bytes of a hash, SHA-256."""
LEVEL = 8
"""A tile spans so many heights of the tree: a node of level l is the root of 2 ** (8 * l) leaves."""
WIDTH = 1 << LEVEL
"""Nodes of one level in a full tile."""
EMPTY = hashlib.sha256().digest()
"""The root of no leaves."""

Node = Callable[[int, int], bytes]
"""The root of the 2 ** height leaves that begin at index * 2 ** height, given height and index."""
Tile = Callable[[int, int], Sequence[bytes]]
"""The nodes of a tile, as many as there are, given level and index."""


class ProofError(ValueError):
    """A proof does not lead to the root it is checked against."""


class MissingNodeError(ValueError):
    """A node of the tree is missing."""


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf; its prefix keeps a leaf from being taken for a node."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node with two children."""
    return hashlib.sha256(b"\1" + left + right).digest()


def full_root(hashes: Sequence[bytes]) -> bytes:
    """The root of a power of two of hashes."""
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [node_hash(left, right) for left, right in zip(pairs, pairs, strict=True)]
    return hashes[0]


@dataclass(frozen=True)
class Subtree:
    """Neighbouring nodes of one level, all in one tile: the first one's index, and their hashes."""

    level: int
    first: int
    hashes: tuple[bytes, ...]


@dataclass
class Edge:
    """The right edge of a growing tree: what its root and its next nodes follow from, in memory that grows with log(size).

    `tiles` holds, for every level, the nodes of its unfinished tile; `kept` says how many of those the last `parts` told. Between
    two calls of `parts` what it will tell is held; who wants the root alone says that it `tells` nothing.
    """

    size: int = 0
    tiles: list[list[bytes]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    done: list[Subtree] = field(default_factory=list)
    tells: bool = True

    @classmethod
    def at(cls, size: int, tile: Tile) -> "Edge":
        """The edge of a tree of `size` leaves, whose tiles are given by level and index.

        Raises:
            MissingNodeError: a tile has fewer nodes than such a tree.
        """
        edge = cls(size)
        for level in range(levels(size)):
            index, width = divmod(size >> (LEVEL * level), WIDTH)
            edge.tiles.append(list(_cut(tile, level, index, 0, width)) if width else [])
            edge.kept.append(width)
        return edge

    def append(self, hash_: bytes) -> None:
        """Add the next leaf's hash."""
        self._push(0, hash_)
        self.size += 1

    def parts(self) -> list[Subtree]:
        """The nodes that have come about since the last call, or since the beginning."""
        for level, tile in enumerate(self.tiles):
            self._tell(level, tile, (self.size >> (LEVEL * level)) - len(tile))
            self.kept[level] = len(tile)
        done, self.done = self.done, []
        return done

    def root(self) -> bytes:
        """The root of the tree as it is now."""
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
            self._tell(level, tile, (self.size >> (LEVEL * level)) + 1 - WIDTH)
            self.tiles[level], self.kept[level] = [], 0
            self._push(level + 1, full_root(tile))

    def _tell(self, level: int, tile: Sequence[bytes], begin: int) -> None:
        kept = self.kept[level]
        if self.tells and kept < len(tile):
            self.done.append(Subtree(level, begin + kept, tuple(tile[kept:])))


def levels(size: int) -> int:
    """How many levels of tiles a tree of `size` leaves has."""
    return (size.bit_length() + LEVEL - 1) // LEVEL


def _peaks(hashes: Sequence[bytes]) -> list[bytes]:
    """The roots of the largest full trees that hashes are made of, from left to right."""
    peaks, begin = [], 0
    for height in reversed(range(len(hashes).bit_length())):
        if len(hashes) >> height & 1:
            peaks.append(full_root(hashes[begin : begin + (1 << height)]))
            begin += 1 << height
    return peaks


def root(hashes: Iterable[bytes]) -> bytes:
    """The root over leaf hashes."""
    edge = Edge(tells=False)
    for hash_ in hashes:
        edge.append(hash_)
    return edge.root()


def _cut(tile: Tile, level: int, index: int, begin: int, end: int) -> Sequence[bytes]:
    hashes = tile(level, index)[begin:end]
    if len(hashes) < end - begin:
        raise MissingNodeError(f"level {level} lacks the node {index * WIDTH + begin + len(hashes)}")
    return hashes


def tiled(tile: Tile) -> Node:
    """The nodes of a tree whose tiles are given by level and index; one that is not there raises MissingNodeError."""

    def node(height: int, index: int) -> bytes:
        level, above = divmod(height, LEVEL)
        of_tile, offset = divmod(index << above, WIDTH)
        return full_root(_cut(tile, level, of_tile, offset, offset + (1 << above)))

    return node


def subroot(begin: int, end: int, node: Node) -> bytes:
    """The root over the leaves from `begin` to before `end`, of which there is at least one."""
    count = end - begin
    if count & (count - 1) == 0:
        height = count.bit_length() - 1
        return node(height, begin >> height)
    middle = begin + _split(count)
    return node_hash(subroot(begin, middle, node), subroot(middle, end, node))


def _split(count: int) -> int:
    """The largest power of two below `count`: so many leaves a tree of `count` has on its left."""
    return 1 << ((count - 1).bit_length() - 1)


def inclusion(index: int, size: int, node: Node) -> list[bytes]:
    """The proof that a leaf is in the tree of `size` leaves: the siblings on the way from it up to the root."""
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
    """The root to which an inclusion proof leads from the hash of a leaf.

    Raises:
        ProofError: a proof for this leaf in a tree of this size has another length.
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


def consistency(old: int, new: int, node: Node) -> list[bytes]:
    """The proof that the tree of `new` leaves begins with the whole tree of `old` leaves."""
    if not 0 < old <= new:
        raise ValueError(f"a tree of {new} leaves does not continue one of {old}")
    return _consistency(old, 0, new, node, whole=True)


def _consistency(old: int, begin: int, end: int, node: Node, *, whole: bool) -> list[bytes]:
    """RFC 6962's SUBPROOF; `whole`: the checker knows the root over these leaves, as it is the old one."""
    if old == end:
        return [] if whole else [subroot(begin, end, node)]
    middle = begin + _split(end - begin)
    if old <= middle:
        return [*_consistency(old, begin, middle, node, whole=whole), subroot(middle, end, node)]
    return [*_consistency(old, middle, end, node, whole=False), subroot(begin, middle, node)]


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `new` leaves begins with the whole tree of `old` leaves (RFC 9162, 2.1.4.2).

    Raises:
        ProofError: it does not, or the proof is not one of these sizes.
    """
    if not 0 < old <= new:
        raise ProofError(f"a tree of {new} leaves does not continue one of {old}")
    if old == new:
        if proof or old_root != new_root:
            raise ProofError("two trees of one size are not the same")
        return
    hashes = list(reversed([old_root, *proof] if old & (old - 1) == 0 else proof))
    if not hashes:
        raise ProofError("the proof is too short")
    if _continued(old - 1, new - 1, hashes) != (old_root, new_root):
        raise ProofError("the proof does not lead from the old root to the new one")


def _continued(old: int, new: int, hashes: list[bytes]) -> tuple[bytes, bytes]:
    """The two roots to which a consistency proof leads, from the last leaves' numbers; `hashes` is taken from its end."""
    while old & 1:
        old, new = old >> 1, new >> 1
    first = second = hashes.pop()
    while new:
        if old & 1 or old < new:
            if not hashes:
                raise ProofError("the proof is too short")
            sibling = hashes.pop()
            if old & 1:
                first, second = node_hash(sibling, first), node_hash(sibling, second)
            else:
                second = node_hash(second, sibling)
        old, new = old >> 1, new >> 1
    if hashes:
        raise ProofError("the proof is too long")
    return first, second
