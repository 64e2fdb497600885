"""The Merkle tree: the published vectors of certificate transparency, and laws over all sizes."""

import hashlib
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.evidence import merkle
from sweeper.evidence.merkle import (
    EMPTY,
    WIDTH,
    Edge,
    MissingNodeError,
    ProofError,
    included_root,
    inclusion,
    leaf_hash,
    node_hash,
    tiled,
)

LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""The test tree of the certificate-transparency reference code, and its root after each leaf."""
A, B = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e", ROOTS[4]
C = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
D = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
INCLUDED = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        A,
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [C, D, B],
    (2, 3): [ROOTS[2]],
    (1, 5): [ROOTS[1], A, C],
}
SIZES = [1, 2, 3, 7, 8, 9, 31, WIDTH - 1, WIDTH, WIDTH + 1, 2 * WIDTH, 2 * WIDTH + 3, 1100]


def vectors(size: int) -> list[bytes]:
    """The leaf hashes of the published tree."""
    return [leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES[:size]]


def numbered(size: int) -> list[bytes]:
    """Return the hashes of so many leaves."""
    return [leaf_hash(number.to_bytes(4, "big")) for number in range(size)]


def by_the_book(hashes: Sequence[bytes]) -> bytes:
    """Compute MTH as RFC 6962 defines it."""
    if not hashes:
        return hashlib.sha256().digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(by_the_book(hashes[:split]), by_the_book(hashes[split:]))


def node_of(hashes: Sequence[bytes]) -> merkle.Node:
    """The full nodes over leaf hashes, computed anew."""
    return lambda height, index: by_the_book(hashes[index << height : (index + 1) << height])


def flipped(value: bytes, bit: int) -> bytes:
    """Return the bytes with one bit flipped."""
    return (int.from_bytes(value, "big") ^ (1 << bit % (8 * len(value)))).to_bytes(len(value), "big")


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_published_roots(size: int) -> None:
    """The roots are those of the certificate-transparency reference code."""
    assert merkle.root(vectors(size)).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUDED)
def test_published_inclusion_proofs(index: int, size: int) -> None:
    """The inclusion proofs are those of the reference code."""
    proof = inclusion(index, size, node_of(vectors(size)))
    assert [hash_.hex() for hash_ in proof] == INCLUDED[index, size]


def test_every_proof_of_every_small_size_checks() -> None:
    """Each leaf is proven in each tree, and its proof leads from no other leaf to the root."""
    hashes = numbered(34)
    roots = [by_the_book(hashes[:size]) for size in range(35)]
    for size in range(1, 34):
        node = node_of(hashes[:size])
        for index in range(size):
            proof = inclusion(index, size, node)
            assert included_root(hashes[index], index, size, proof) == roots[size]
            assert included_root(hashes[index ^ 1], index, size, proof) != roots[size]


@given(st.integers(1, 400), st.data())
def test_no_flipped_bit_checks(size: int, data: st.DataObject) -> None:
    """A changed proof, or a proof for another leaf, does not lead to the root."""
    hashes = numbered(size)
    node, root = node_of(hashes), by_the_book(hashes)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion(index, size, node)
    at = data.draw(st.integers(0, len(proof)))
    bit = data.draw(st.integers(0, 255))
    if at < len(proof):
        changed = [*proof[:at], flipped(proof[at], bit), *proof[at + 1 :]]
        assert included_root(hashes[index], index, size, changed) != root
    assert included_root(flipped(hashes[index], bit), index, size, proof) != root
    for wrong in ([*proof, root], proof[:-1] if proof else [root]):
        with pytest.raises(ProofError):
            included_root(hashes[index], index, size, wrong)
    for other in {0, size - 1, index ^ 1} - {index}:
        assert leads_to(hashes[index], other, size, proof) != root


def leads_to(hash_: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """Return the root that a proof leads to, or None."""
    try:
        return included_root(hash_, index, size, proof)
    except ProofError:
        return None


def test_sizes_that_are_none() -> None:
    """A leaf beyond the tree has no proof, and none checks for it."""
    node = node_of(numbered(8))
    for index in (-1, 8):
        with pytest.raises(ValueError, match="has no leaf"):
            inclusion(index, 8, node)
        with pytest.raises(ProofError, match="has no leaf"):
            included_root(EMPTY, index, 8, [])


# The growing edge and its tiles


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_edge_grows_as_the_tree(steps: list[int]) -> None:
    """However it is grown and resumed, the edge has the tree's root and yields each node of each tile once."""
    hashes, stored, edge, size = numbered(sum(steps)), {}, Edge(), 0
    for step in steps:
        for hash_ in hashes[size : size + step]:
            edge.append(hash_)
        size += step
        for part in edge.parts():
            assert part.first % WIDTH + len(part.hashes) <= WIDTH
            for at, hash_ in enumerate(part.hashes, part.first):
                assert (part.level, at) not in stored
                stored[part.level, at] = hash_
        assert edge.parts() == []
        edge = Edge.at(size, lambda level, index: tile(stored, level, index))
        assert edge.root() == by_the_book(hashes[:size])
    assert stored == {
        (level, at): by_the_book(hashes[at << (8 * level) : (at + 1) << (8 * level)])
        for level in range(2)
        for at in range(size >> (8 * level))
    }


def tile(stored: dict[tuple[int, int], bytes], level: int, index: int) -> list[bytes]:
    """The nodes of a tile that are stored."""
    return [stored[level, at] for at in range(index * WIDTH, (index + 1) * WIDTH) if (level, at) in stored]


@pytest.mark.parametrize("size", SIZES)
def test_proofs_from_tiles(size: int) -> None:
    """Proofs from tiles are those of the tree, and read at most two tiles a level."""
    hashes, edge, read = numbered(size), Edge(), set()
    for hash_ in hashes:
        edge.append(hash_)
    stored = {(part.level, at): hash_ for part in edge.parts() for at, hash_ in enumerate(part.hashes, part.first)}

    def reading(level: int, index: int) -> list[bytes]:
        read.add((level, index))
        return tile(stored, level, index)

    for index in {0, size // 2, size - 1}:
        read.clear()
        proof = inclusion(index, size, tiled(reading))
        assert included_root(hashes[index], index, size, proof) == edge.root() == by_the_book(hashes)
        assert len(proof) <= (size - 1).bit_length()
        assert len(read) <= 2 * merkle.levels(size)


def test_a_missing_node_is_said() -> None:
    """A tile that lacks a node raises an error."""
    with pytest.raises(MissingNodeError, match="level 0 lacks the node 2"):
        Edge.at(3, lambda level, index: numbered(2))
    with pytest.raises(MissingNodeError, match="level 0 lacks the node 2"):
        inclusion(0, 4, tiled(lambda level, index: numbered(2)))


def test_a_root_needs_no_memory() -> None:
    """The root is computed in the memory of a few tiles."""
    tracemalloc.start()
    merkle.root(leaf_hash(str(number).encode()) for number in range(20_000))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 300_000
