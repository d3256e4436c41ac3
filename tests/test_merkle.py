"""Trees and proofs against the recursive definitions of RFC 9162."""

from __future__ import annotations

import pytest

from koru_delta import merkle

LEAVES = [bytes([n]) * 3 for n in range(33)]


def by_definition(leaves: list[bytes]) -> bytes:
    if not leaves:
        return merkle.EMPTY
    if len(leaves) == 1:
        return merkle.leaf_hash(leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return merkle.node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


@pytest.mark.parametrize("size", range(34))
def test_the_root_is_that_of_the_definition(size: int) -> None:
    assert merkle.tree_hash(LEAVES[:size]) == by_definition(LEAVES[:size])


@pytest.mark.parametrize("size", range(1, 34))
def test_every_leaf_is_proved_and_no_other(size: int) -> None:
    root = merkle.tree_hash(LEAVES[:size])
    for index in range(size):
        path = merkle.inclusion_path(index, size, merkle.subtree(LEAVES))
        assert merkle.root_from_inclusion(index, size, LEAVES[index], path) == root
        assert merkle.root_from_inclusion(index, size, b"other", path) != root
        assert merkle.root_from_inclusion(index, size, LEAVES[index], [*path, root]) != root
        if path:
            assert merkle.root_from_inclusion(index, size, LEAVES[index], path[:-1]) != root


@pytest.mark.parametrize("new", range(1, 34))
def test_every_prefix_is_proved_and_no_other(new: int) -> None:
    new_root = merkle.tree_hash(LEAVES[:new])
    for old in range(new + 1):
        path = merkle.consistency_path(old, new, merkle.subtree(LEAVES))
        old_root = merkle.tree_hash(LEAVES[:old])
        assert merkle.consistent(old, new, old_root, new_root, path)
        forged = merkle.tree_hash([b"forged", *LEAVES[1:old]])
        assert not merkle.consistent(old, new, forged, new_root, path) or old == 0
        assert not merkle.consistent(old, new, old_root, forged, path) or old == 0


def test_a_leaf_outside_the_tree_has_no_path() -> None:
    with pytest.raises(IndexError):
        merkle.inclusion_path(3, 3, merkle.subtree(LEAVES))
    with pytest.raises(IndexError):
        merkle.consistency_path(4, 3, merkle.subtree(LEAVES))
    assert merkle.root_from_inclusion(3, 3, b"x", []) is None
