"""A checkpoint that leaves nothing of what was erased in the room between rows.

SQLite overwrites what is deleted (`secure_delete`), but when it spreads rows over pages anew,
the places they lay at before may keep a copy, in room that belongs to no row. If such a row is
erased later, nothing would overwrite that. So the pages an erasure has written go from the
write-ahead log into the file through a layer that fills this room with zeros. It belongs to
nothing, and no hash or checksum covers it. Pages that went another way, since a reader was in
the way of this one, are looked through where they lie in the file. So is all of it when something
is erased after a move to a tier, or after a put of what had been moved: these lay rows anew, too.
"""

from __future__ import annotations

import threading
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
    begin, end = _remains(page, first=first)
    return page[:begin] + bytes(end - begin) + page[end:] if begin < end else page


def _remains(page: bytes, *, first: bool) -> tuple[int, int]:
    """From where to where, exclusive, a page holds nothing and yet is not zero."""
    start = _FILE_HEADER if first else 0
    if page[start] != _LEAF:
        return 0, 0
    rows = int.from_bytes(page[start + 3 : start + 5], "big")
    content = int.from_bytes(page[start + 5 : start + 7], "big") or 65536
    begin = start + _HEADER + 2 * rows
    if not begin <= content <= len(page):
        return 0, 0  # not what it seems
    if not page[begin:content].strip(b"\0"):
        return 0, 0
    places = memoryview(page)[start + _HEADER : begin]
    if any(
        not content <= int.from_bytes(places[at : at + 2], "big") < len(page)
        for at in range(0, len(places), 2)
    ):
        return 0, 0
    return begin, content


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int]) -> None:
        self._is_log = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)
        super().__init__("", name, flags)
        if self._is_log:
            _here.log = self

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        size = len(data)
        whole = self._is_log and size >= 512 and offset % size == 0
        if whole and self.xFileSize() // size < _OTHER_PAGES:
            data = cleaned(bytes(data), first=not offset)
        super().xWrite(data, offset)

    def clean(self, page_bytes: int) -> None:
        """Fill with zeros where pages hold nothing: no byte of a row is written."""
        size = self.xFileSize()
        if size // page_bytes >= _OTHER_PAGES:
            return
        for offset in range(0, size, page_bytes):
            page = self.xRead(page_bytes, offset)
            begin, end = _remains(page, first=not offset)
            if begin < end:
                super().xWrite(bytes(end - begin), offset + begin)
        self.xSync(apsw.SQLITE_SYNC_FULL)


_here = threading.local()  # `log`: what this thread opened last


class _Layer(apsw.VFS):
    def __init__(self) -> None:
        super().__init__(_NAME, "")

    def xOpen(self, name: Any, flags: list[int]) -> _File:  # noqa: N802
        return _File(name, flags)


@cache
def _layer() -> _Layer:
    return _Layer()  # registered for as long as it lives


def checkpoint(file: Path, *, wait_milliseconds: int, everywhere: bool = False) -> bool:
    """Move all of the write-ahead log into the file, and empty it; False if a reader is using it.

    The caller holds the lock that keeps writers out. With `everywhere` all of the file is looked
    through; what others keep of its pages in memory is from before, until the next commit.
    """
    _layer()
    con = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READWRITE, vfs=_NAME)
    try:
        con.set_busy_timeout(wait_milliseconds)
        con.execute("PRAGMA fullfsync = ON").fetchall()
        con.execute("PRAGMA checkpoint_fullfsync = ON").fetchall()
        con.execute("PRAGMA synchronous = FULL").fetchall()
        found: Any = con.execute("PRAGMA wal_checkpoint(TRUNCATE)").get
        if not found[0] and everywhere:
            con.execute("BEGIN IMMEDIATE")
            _here.log.clean(con.execute("PRAGMA page_size").get)
            con.execute("ROLLBACK")
        return not found[0]
    except apsw.BusyError:
        return False
    finally:
        con.close()
