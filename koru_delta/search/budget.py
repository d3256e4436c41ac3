"""Which vectors are near, and which are cheap: a budget of memory shared out among segments.

Hot segments have their vectors in memory, warm ones codes in memory and vectors in a file,
cold ones both in files. Answers are the same from all three, since every hit is scored
again from its own vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from koru_delta.search.signs import PIECE
from koru_delta.storage import CACHE_BYTES

Tier = Literal["hot", "warm", "cold"]

_LEAST_PAGES: Final = 1024 * 1024  # of SQLite's, kept by a connection however little there is
_SCANNED: Final = 12  # bytes for each row of a segment whose codes are read: scores, their order
_READ: Final = 128  # and for each of those that are looked at together
_LINKS: Final = 180  # bytes of a graph for each vector, beside the vector
_CODE_EXTRA: Final = 8  # bytes of a code beside four bits a dimension


class Need(NamedTuple):
    """One segment: `share` of its rows hold what nothing has ended, `stop` tells its age."""

    space: int
    start: int
    stop: int
    dimensions: int
    share: float


class Place(NamedTuple):
    """Where one space's segments are to be, by their first slots, and whether it has a graph."""

    tiers: dict[int, Tier]
    graph: bool


def page_bytes(budget: int | None) -> int:
    """Of the log's pages, what a connection keeps."""
    return CACHE_BYTES if budget is None else min(CACHE_BYTES, max(_LEAST_PAGES, budget // 16))


def scan_bytes(rows: int) -> int:
    """Of a search through codes in a file, for as long as it takes."""
    return _SCANNED * rows + _READ * min(rows, PIECE)


def code_bytes(dimensions: int) -> int:
    """Of the codes of one vector, about."""
    return (dimensions + 31) // 32 * 16 + _CODE_EXTRA


def graph_bytes(dimensions: int) -> int:
    """Of one vector in a graph, about: it holds a copy."""
    return 4 * dimensions + _LINKS


def allot(budget: int, fixed: int, needs: Sequence[Need], live: dict[int, int]) -> dict[int, Place]:
    """Share out `budget` bytes: first codes for all, then graphs, then vectors.

    Segments of which most is alive go first, and among these the newest.

    Args:
        fixed: Bytes that are taken whatever is decided.
        live: Of each space, how many vectors a graph would hold.
    """
    left = budget - fixed
    tiers: dict[int, dict[int, Tier]] = {space: {} for space in live}
    ordered = sorted(needs, key=lambda need: (-need.share, -need.stop, need.space))
    for need in ordered:
        size = (need.stop - need.start) * code_bytes(need.dimensions)
        fits = size <= left
        left -= size if fits else 0
        tiers[need.space][need.start] = "warm" if fits else "cold"
    graphs = set()
    dimensions = {need.space: need.dimensions for need in needs}
    for space, count in sorted(live.items(), key=lambda item: (item[1], item[0])):
        size = count * graph_bytes(dimensions.get(space, 0))
        if count and size <= left and "cold" not in tiers[space].values():
            left -= size
            graphs.add(space)
    for need in ordered:
        size = (need.stop - need.start) * need.dimensions * 4
        if tiers[need.space][need.start] == "warm" and size <= left:
            left -= size
            tiers[need.space][need.start] = "hot"
    return {space: Place(tiers[space], space in graphs) for space in live}
