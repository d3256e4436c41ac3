"""Latency, recall and memory, measured the same way for every subject."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.measure import quiet
from benchmarks.vectors.peers.base import K, Search, Vectors

_PATIENCE_SECONDS, _FEWEST = 1.0, 40  # a block of slow calls ends early, but not before so many
_SAME = 1e-6  # scores nearer than this are one: a text may be there twice


class Times(NamedTuple):
    """Of single calls."""

    median_us: float
    ninetieth_us: float
    counted: int


class Block(NamedTuple):
    """Queries that are asked once: the first few to warm up, the rest counted."""

    start: int
    warm: int
    end: int

    def asked(self, found: Sequence[Any]) -> slice:
        """The queries that were counted, given what they found."""
        return slice(self.warm, self.warm + len(found))


def blocks(available: int, warm: int, counted: int) -> Iterator[Block]:
    """Cut the queries to blocks, one for each thing measured; none is used twice."""
    for start in range(0, available - warm - counted + 1, warm + counted):
        yield Block(start, start + warm, start + warm + counted)
    raise RuntimeError("there are too few queries to measure all this without repeating one")


def timed(search: Search, queries: Vectors, block: Block) -> tuple[Times, list[Any]]:
    """Call once a query; what the counted calls returned, to be judged afterwards.

    Where a call takes tens of milliseconds not all queries of the block are asked.
    """
    for n in range(block.start, block.warm):
        search(queries[n])
    taken: list[int] = []
    found: list[Any] = []
    with quiet():
        give_up = perf_counter_ns() + _PATIENCE_SECONDS * 1e9
        for n in range(block.warm, block.end):
            if len(found) >= _FEWEST and perf_counter_ns() > give_up:
                break
            query = queries[n]
            begin = perf_counter_ns()
            answer = search(query)
            taken.append(perf_counter_ns() - begin)
            found.append(answer)
    return times(taken), found


def times(taken: Sequence[int]) -> Times:
    """From nanoseconds."""
    return Times(median(taken) / 1000, float(np.percentile(taken, 90)) / 1000, len(taken))


def recall(
    found: Sequence[Sequence[int]],
    vectors: Vectors,
    queries: Vectors,
    tenth_best: npt.NDArray[np.float32],
    rows: int,
) -> float:
    """Share of the best `K` of `rows` that were found; a hit counts by its true score.

    A row that is as good as the K-th best counts, whichever of the equals it is.
    """
    wanted = min(K, rows)
    if not wanted or not found:
        return 1.0
    hits = 0
    for numbers, query, least in zip(found, queries, tenth_best, strict=True):
        distinct = np.array(sorted(set(numbers)), dtype=np.int64)
        hits += min(wanted, int((vectors[distinct] @ query >= least - _SAME).sum()))
    return hits / (wanted * len(found))


class Memory(NamedTuple):
    """Bytes in memory: this process's own, and pages of the files in a folder."""

    private: int
    mapped: int


def memory(folder: Path) -> Memory:
    """Resident now. `private` leaves out the pages of files in `folder`, which are `mapped`.

    Raises:
        OSError: this system has no /proc/self/smaps.
    """
    gc.collect()
    private = mapped = 0
    of_folder = shared = False
    inside = str(folder.resolve())
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Private_Clean", "Private_Dirty"):
            size = int(rest.split()[0]) * 1024
            # Of a shared mapping, dirty are pages that the system has not written yet.
            if not of_folder or (name == "Private_Dirty" and not shared):
                private += size
        elif name == "Rss" and of_folder:
            mapped += int(rest.split()[0]) * 1024
        elif "-" in line.split(" ", 1)[0]:
            of_folder = inside in line
            shared = "s" in line.split(" ", 2)[1]
    return Memory(private, mapped)


def pace() -> str:
    """How long two plain things take now: for whoever compares figures of different hours."""
    matrix = np.ones((20_000, 384), dtype=np.float32)
    query = np.ones(384, dtype=np.float32)
    loops, products = [], []
    for _ in range(15):
        loops.append(seconds(lambda: sum(range(100_000))))
        products.append(seconds(lambda: np.vecdot(matrix, query)))
    return f"loop {median(loops) * 1e3:.2f} ms, product {median(products) * 1e3:.2f} ms"


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    begin = perf_counter_ns()
    call()
    return (perf_counter_ns() - begin) / 1e9
