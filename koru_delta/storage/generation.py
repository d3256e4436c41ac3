"""A counter in shared memory that tells every process whether the log has moved.

Odd while a write is under way, even when the log stands still. A reader that finds the
number it cached under may trust its cache; any other number sends it to the engine.
Beside the counter stand the end of the log as last acknowledged, in two slots written
by turns, so that a writer killed half-way leaves the older one whole.

Layout, little-endian: counter (8), last tx_time (8), magic (8); two slots of seq (8),
root (32), check (8) at 64 and 128; 4096 bytes in all.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

from blake3 import blake3

_MAGIC = b"KDGEN001"
_SIZE = 4096
_SLOTS = (64, 128)
_SLOT = struct.Struct("<Q32s8s")


class Generation:
    """The mapped file. `cells[0]` is the counter; read it, write it only through here."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        """Map `path`, creating it atomically when it is missing and `writable`.

        Raises:
            FileNotFoundError: missing, and not `writable`.
            ValueError: the file is not a generation file.
        """
        self.created = False
        if writable and not path.exists():
            self._create(path)
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size != _SIZE:
                raise ValueError(f"{path} is not {_SIZE} bytes long")
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self._map: Any = mmap.mmap(fd, _SIZE, access=access)
        finally:
            os.close(fd)
        if self._map[16:24] != _MAGIC:
            raise ValueError(f"{path} does not start as a generation file")
        self.cells = memoryview(self._map).cast("Q")
        self._turn = 0

    def _create(self, path: Path) -> None:
        # A start no older mapping can have had, so that a replaced file is noticed.
        start = (time.time_ns() >> 10) & ~1
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{start}")
        data = struct.pack("<QQ", start, 0) + _MAGIC
        try:
            fresh.write_bytes(data.ljust(_SIZE, b"\0"))
            fresh.chmod(0o600)
            os.link(fresh, path)  # unlike rename, leaves a file another process made alone
            self.created = True
        except FileExistsError:
            pass
        finally:
            fresh.unlink(missing_ok=True)

    def begin(self) -> int:
        """Move to the next odd number before a write; returns what stood there."""
        before = self.cells[0]
        self.cells[0] = (before + 1) | 1
        return before

    def next_even(self) -> int:
        """The number `end` will move to."""
        return (self.cells[0] + 1) & ~1

    def end(self) -> None:
        """Move to the next even number after a write."""
        self.cells[0] = self.next_even()

    def acknowledge(self, seq: int, root: bytes, tx_time: int) -> None:
        """Note the end of the log, after its commit and before `end`."""
        noted = struct.pack("<Q32s", seq, root)
        offset = _SLOTS[self._turn]
        self._turn ^= 1
        self._map[offset : offset + _SLOT.size] = noted + blake3(noted).digest(8)
        self.cells[1] = tx_time

    def acknowledged(self) -> tuple[int, bytes] | None:
        """The furthest end of the log ever noted: (seq, root), or None."""
        found: tuple[int, bytes] | None = None
        for turn, offset in enumerate(_SLOTS):
            seq, root, check = _SLOT.unpack(self._map[offset : offset + _SLOT.size])
            whole = check == blake3(struct.pack("<Q32s", seq, root)).digest(8)
            if whole and (found is None or seq > found[0]):
                found = (seq, root)
                self._turn = turn ^ 1
        return found

    def close(self) -> None:
        """Let go of the file; views still held elsewhere stay readable."""
        self.cells = memoryview(bytes(16)).cast("Q")
        self._map = bytes(_SIZE)  # the file is unmapped with the last of those views
