"""Large pages for a library's memory: advice to the system, and nothing else."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import pytest

from koru_delta.search import graph, pages
from koru_delta.search.pages import large_pages


def advised(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Every advice that is given."""
    told: list[tuple[int, int, int]] = []

    def advise(start: int, length: int, advice: int) -> int:
        told.append((start, length, advice))
        return 0

    monkeypatch.setattr(pages, "_advice", lambda: advise)
    return told


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is told of pages this way")
def test_memory_taken_inside_is_asked_to_have_large_pages_and_no_other(monkeypatch):
    told = advised(monkeypatch)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    before = mmap.mmap(-1, 16 << 20, flags=private)
    with large_pages():
        within = mmap.mmap(-1, 16 << 20, flags=private)
    address = np.frombuffer(within, dtype=np.uint8).ctypes.data
    covered = [
        (start, start + length)
        for start, length, advice in told
        if advice == mmap.MADV_HUGEPAGE
        and start < address + (16 << 20)
        and address < start + length
    ]
    [(low, high)] = covered
    assert high - low >= 12 << 20
    assert all(start % (2 << 20) == 0 and length % (2 << 20) == 0 for start, length, _ in told)
    other = np.frombuffer(before, dtype=np.uint8).ctypes.data
    assert not any(start < other + 4096 and other < start + length for start, length, _ in told)


def test_little_memory_is_left_as_it_is(monkeypatch):
    told = advised(monkeypatch)
    with large_pages():
        kept = bytearray(64 << 10)
    assert kept is not None
    assert told == []


def test_where_the_system_has_no_such_advice_nothing_is_done(monkeypatch):
    monkeypatch.setattr(pages, "_advice", lambda: None)
    monkeypatch.setattr(pages, "_taken", lambda: pytest.fail("looked at the memory in vain"))
    with large_pages():
        kept = bytearray(8 << 20)
    assert len(kept) == 8 << 20


@pytest.mark.skipif(not graph.available(), reason="hnswlib is not installed")
def test_a_graph_finds_the_same_with_them_and_without(monkeypatch):
    vectors = np.random.default_rng(1).standard_normal((9_000, 64), dtype=np.float32)

    def found() -> list[list[int]]:
        made = graph.LiveGraph(64, "l2", places=9_000)
        made.feed(np.arange(9_000), vectors, threads=1)
        answers = made.nearest_many(vectors[:50], 5, 40)
        assert answers is not None
        return answers.tolist()

    with_them = found()
    monkeypatch.setattr(pages, "_advice", lambda: None)
    assert found() == with_them
