"""Proofs over a list of hashes: that one is in it, that one list extends another.

Trees and proofs are shaped as in RFC 9162, sections 2.1.1 to 2.1.4, with BLAKE3 in
place of SHA-256: a leaf is H(0x00 || data), a node is H(0x01 || left || right), and a
tree over n > 1 leaves splits at the largest power of two below n. Pure functions: the
log says where the leaves come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blake3 import blake3

Range = Callable[[int, int], bytes]  # (start, stop) -> hash of that subtree, stop exclusive

EMPTY = blake3(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash one leaf."""
    return blake3(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into their parent."""
    return blake3(b"\1" + left + right).digest()


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """Hash a list of leaves into the root of its tree (the data, not the leaf hashes).

    >>> tree_hash([]) == EMPTY and tree_hash([b"a"]) == leaf_hash(b"a")
    True
    """
    if not leaves:
        return EMPTY
    level = [leaf_hash(leaf) for leaf in leaves]
    # Pairing from the left and lifting an odd last node gives RFC 9162's split.
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) - len(level) % 2 :]
    return level[0]


def subtree(leaves: Sequence[bytes]) -> Range:
    """Hash any range of `leaves` by computing it."""
    return lambda start, stop: tree_hash(leaves[start:stop])


def inclusion_path(index: int, size: int, hashed: Range) -> list[bytes]:
    """List the siblings from leaf `index` up to the root of the first `size` leaves.

    Source: RFC 9162, 2.1.3.1.
    """
    if not 0 <= index < size:
        raise IndexError(f"leaf {index} is not in a tree of {size}")
    path: list[bytes] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append(hashed(middle, stop))
            stop = middle
        else:
            path.append(hashed(start, middle))
            start = middle
    return path[::-1]


def root_from_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes | None:
    """Fold an inclusion path back into a root, or None if it has the wrong shape.

    Source: RFC 9162, 2.1.3.2.
    """
    if not 0 <= index < size:
        return None
    number, last, root = index, size - 1, leaf_hash(leaf)
    for sibling in path:
        if last == 0:
            return None
        if number & 1 or number == last:
            root = node_hash(sibling, root)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        number, last = number >> 1, last >> 1
    return root if last == 0 else None


def consistency_path(old: int, new: int, hashed: Range) -> list[bytes]:
    """List the hashes that lead from the root of `old` leaves to the root of `new`.

    Source: RFC 9162, 2.1.4.1; empty when the sizes are equal or `old` is 0.
    """
    if not 0 <= old <= new:
        raise IndexError(f"a tree of {new} does not extend one of {old}")
    if old in (0, new):
        return []
    path: list[bytes] = []
    start, stop, whole = 0, new, True
    while old != stop:
        middle = start + _split(stop - start)
        if old <= middle:
            path.append(hashed(middle, stop))
            stop = middle
        else:
            path.append(hashed(start, middle))
            start, whole = middle, False
    if not whole:
        path.append(hashed(start, stop))
    return path[::-1]


def consistent(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves that the tree of `old_root` is a prefix of that of `new_root`.

    Source: RFC 9162, 2.1.4.2.
    """
    if old == new:
        return not path and old_root == new_root
    if old == 0:
        return not path and old_root == EMPTY
    if not 0 < old < new or not path:
        return False
    rest = list(path)
    if old & (old - 1) == 0:
        rest.insert(0, old_root)
    number, last = old - 1, new - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    first = second = rest[0]
    for sibling in rest[1:]:
        if last == 0:
            return False
        if number & 1 or number == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)
