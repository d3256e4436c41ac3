"""The counter that lets caches be trusted, and the end of the log noted beside it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from koru_delta.storage.generation import Generation


def test_a_write_moves_from_even_through_odd_to_the_next_even(tmp_path: Path) -> None:
    mine = Generation(tmp_path / "generation", writable=True)
    theirs = Generation(tmp_path / "generation", writable=False)
    start = mine.cells[0]
    assert start % 2 == 0
    assert mine.begin() == start
    assert theirs.cells[0] == start + 1
    assert mine.next_even() == start + 2
    mine.end()
    assert theirs.cells[0] == start + 2


def test_a_killed_writer_leaves_an_odd_number_that_the_next_moves_past(tmp_path: Path) -> None:
    first = Generation(tmp_path / "generation", writable=True)
    start = first.cells[0]
    first.begin()  # and no end: killed
    second = Generation(tmp_path / "generation", writable=True)
    assert second.begin() == start + 1
    assert second.cells[0] == start + 3
    second.end()
    assert second.cells[0] == start + 4


def test_a_slot_that_was_half_written_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "generation"
    mine = Generation(path, writable=True)
    assert mine.acknowledged() is None
    mine.acknowledge(1, b"a" * 32, 10)
    mine.acknowledge(2, b"b" * 32, 20)
    assert mine.acknowledged() == (2, b"b" * 32)

    data = bytearray(path.read_bytes())
    newer = data.index(struct.pack("<Q", 2) + b"b" * 32)
    data[newer + 12] ^= 1
    path.write_bytes(data)
    assert Generation(path, writable=False).acknowledged() == (1, b"a" * 32)


def test_what_is_no_generation_file_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"x" * 4096):
        path = tmp_path / "generation"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="generation"):
            Generation(path, writable=True)
