"""A checkpoint that leaves nothing of what was erased in the room between rows.

SQLite overwrites what is deleted (`secure_delete`), but when it spreads rows over pages anew,
the places they lay at before may keep a copy, in room that belongs to no row. If such a row is
erased later, nothing would overwrite that. So the pages an erasure has written go from the
write-ahead log into the file through a layer that fills this room with zeros. It belongs to
nothing, and no hash or checksum covers it.

A move to a tier lays rows anew, too. It says so in the generation file, and until all its pages
are swept, nobody else moves pages into the file: a writer leaves that to whoever moves things,
and does it itself, in this way, if that one is gone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import apsw

_NAME: Final = "koru-delta-clean"
_LEAF: Final = 13  # the first byte of a page of table rows
_OTHER_PAGES: Final = _LEAF << 24  # in a file of so many pages another kind may begin so
_HEADER: Final = 8
_FILE_HEADER: Final = 100


def cleaned(page: bytes, *, first: bool) -> bytes:
    """A page with zeros where it holds nothing; as it is if it holds no rows."""
    start = _FILE_HEADER if first else 0
    if page[start] != _LEAF:
        return page
    rows = int.from_bytes(page[start + 3 : start + 5], "big")
    content = int.from_bytes(page[start + 5 : start + 7], "big") or 65536
    begin = start + _HEADER + 2 * rows
    if not begin <= content <= len(page):
        return page  # not what it seems
    gap = page[begin:content]
    if not gap.strip(b"\0"):
        return page
    places = memoryview(page)[start + _HEADER : begin]
    if any(
        not content <= int.from_bytes(places[at : at + 2], "big") < len(page)
        for at in range(0, len(places), 2)
    ):
        return page
    return page[:begin] + bytes(len(gap)) + page[content:]


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int]) -> None:
        self._is_log = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        size = len(data)
        whole = self._is_log and size >= 512 and offset % size == 0
        if whole and self.xFileSize() // size < _OTHER_PAGES:
            data = cleaned(bytes(data), first=not offset)
        super().xWrite(data, offset)


class _Layer(apsw.VFS):
    def __init__(self) -> None:
        super().__init__(_NAME, "")

    def xOpen(self, name: Any, flags: list[int]) -> _File:  # noqa: N802
        return _File(name, flags)


@cache
def _layer() -> _Layer:
    return _Layer()  # registered for as long as it lives


class Sweeping:
    """A connection that moves the write-ahead log into the file, keeping nobody waiting."""

    def __init__(self, file: Path) -> None:
        _layer()
        self._con = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READWRITE, vfs=_NAME)
        for name in ("fullfsync", "checkpoint_fullfsync"):
            self._con.execute(f"PRAGMA {name} = ON").fetchall()
        self._con.execute("PRAGMA synchronous = FULL").fetchall()

    def run(self) -> bool:
        """Whether all of it is in the file now; False if a reader still needs what was there."""
        try:
            row: Any = self._con.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()[0]
        except apsw.BusyError:
            return False
        return bool(not row[0] and row[1] == row[2])

    def close(self) -> None:
        """Close the connection."""
        self._con.close()


def checkpoint(file: Path, *, wait_milliseconds: int) -> bool:
    """Move all of the write-ahead log into the file, and empty it; False if a reader is using it.

    The caller holds the lock that keeps writers out.
    """
    _layer()
    con = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READWRITE, vfs=_NAME)
    try:
        con.set_busy_timeout(wait_milliseconds)
        con.execute("PRAGMA fullfsync = ON").fetchall()
        con.execute("PRAGMA checkpoint_fullfsync = ON").fetchall()
        con.execute("PRAGMA synchronous = FULL").fetchall()
        found: Any = con.execute("PRAGMA wal_checkpoint(TRUNCATE)").get
        return not found[0]
    except apsw.BusyError:
        return False
    finally:
        con.close()
