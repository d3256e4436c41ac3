"""Cleaning up: copies of what was erased, and pages that hold nothing any more."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import apsw
import orjson

from koru_delta.storage import clean
from koru_delta.storage.presence import SqlitePresence
from koru_delta.storage.schema import ERASED, TAINTED
from koru_delta.storage.tierfile import path_of

INCREMENTAL = 2  # what `PRAGMA auto_vacuum` says
_PAGES_AT_ONCE = 1000
_READERS_LEAVE_MS = 1000
_TRIED_AGAIN_MS = 50  # once they were waited for in vain
CHECKPOINT_PAGES = 1000  # SQLite's own choice
_log = logging.getLogger("koru_delta")


class SqliteScrubber(SqlitePresence):
    """Empties the write-ahead log of what was erased, and gives room back."""

    def scrubbing(self) -> list[str]:
        """Namespaces of which copies of what was erased may lie in files beside the log."""
        rows = self._rows("SELECT value FROM meta WHERE name = 'scrub'")
        found: list[str] = orjson.loads(rows[0][0])["namespaces"] if rows else []
        return found

    def is_scrubbed(self) -> bool:
        """Whether nothing that was erased is left anywhere that this engine knows of."""
        return not self._rows("SELECT 1 FROM meta WHERE name = 'scrub'")

    def scrubbed(self, last: dict[str, int]) -> bool:
        """Empty the write-ahead log of what was erased; False if a reader is in the way.

        Args:
            last: Of each namespace whose files were scrubbed, the last erasure then.
        """
        with self._write_lock, self._locked():
            con = self._writer_connection()
            try:
                con.execute("BEGIN IMMEDIATE")
                found = con.execute("SELECT value FROM meta WHERE name = 'scrub'").get
                con.execute("ROLLBACK")
                if found is None:
                    return True
                said = orjson.loads(found)
                late = bool(said.get("late"))
                left = [
                    name for name in said["namespaces"]
                    if last.get(name, -1) < self._last_erased(con, name)
                ]  # fmt: skip
                emptied = self._checkpoint(late=late, everywhere=late)
                if emptied and late:
                    con.execute("DELETE FROM meta WHERE name = 'laid_anew'")
                if self._tainted():
                    return False
                if emptied and not left:
                    con.execute("DELETE FROM meta WHERE name = 'scrub'")
                elif said != {**said, "namespaces": left, "late": late and not emptied}:
                    _amend_scrub(con, namespaces=left, late=late and not emptied)
                con.execute("PRAGMA shrink_memory").fetchall()
                return emptied and not left
            except apsw.BusyError:
                return False
            except apsw.Error as error:
                raise self._foreign(error) from error

    @staticmethod
    def _last_erased(con: apsw.Connection, namespace: str) -> int:
        found: int | None = con.execute(ERASED, (namespace,)).get
        return found or 0

    def _clean(self, con: apsw.Connection, *, late: bool) -> None:
        """Empty the write-ahead log of what was just erased; what is in the way stays noted."""
        con.wal_autocheckpoint(CHECKPOINT_PAGES)
        try:
            if self._checkpoint(late=late) and not late:
                _amend_scrub(con, late=False)
            # What is in memory of its pages has not been cleaned.
            con.execute("PRAGMA shrink_memory").fetchall()
        except apsw.Error as error:  # what was erased is erased; cleaning up is tried again
            _log.warning("the write-ahead log still holds what was erased: %s", error)

    def _tainted(self) -> list[Path]:
        """Tier files in which something lies that was erased."""
        found = self._rows("SELECT tier, file FROM tiers WHERE state = ?", (TAINTED,))
        paths = [path_of(self.directory, *each) for each in found]
        return [path for path in paths if path.exists()]

    def _checkpoint(self, *, late: bool = False, everywhere: bool = False) -> bool:
        """Move the write-ahead log into the file, and cut both to size, if no reader minds.

        The write lock is held, so readers that were waited for once are not waited for again.
        """
        wait = min(_READERS_LEAVE_MS, _TRIED_AGAIN_MS) if late else _READERS_LEAVE_MS
        return clean.checkpoint(
            self.directory / "log.db", wait_milliseconds=wait, everywhere=everywhere
        )

    def give_back(self, *, at_least: int = 0) -> int:
        """Return free pages to the file system, a little at a time; the bytes returned.

        Nothing happens where there are fewer than `at_least`, or the file was made by an
        older version and not yet compacted: its free pages are used again.
        """
        given = 0
        while True:
            with self._write_lock, self._locked():
                con = self._writer_connection()
                try:
                    free = con.execute("PRAGMA freelist_count").get
                    if con.execute("PRAGMA auto_vacuum").get != INCREMENTAL or not free:
                        break
                    if not given and free < at_least:
                        break
                    con.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
                    size = con.execute("PRAGMA page_size").get
                    left = con.execute("PRAGMA freelist_count").get
                except apsw.Error as error:
                    raise self._foreign(error) from error
            given += (free - left) * size
            if left >= free or not left:
                break
            self.step_aside()
        if given:
            with self._write_lock, self._locked():
                self._checkpoint()
        return given

    def compact(self) -> int:
        """Write the file anew without free pages or remains; the bytes it is shorter by.

        Writers wait, readers go on. Needs as much room again as the file takes.
        """
        file = self.directory / "log.db"
        with self._write_lock, self._locked():
            con = self._writer_connection()
            try:
                self._checkpoint()
                before = file.stat().st_size
                con.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchall()
                con.wal_autocheckpoint(0)
                try:
                    con.execute("VACUUM")
                finally:
                    con.wal_autocheckpoint(CHECKPOINT_PAGES)
                if self._checkpoint():
                    con.execute("DELETE FROM meta WHERE name = 'laid_anew'")
            except apsw.Error as error:
                raise self._foreign(error) from error
        return before - file.stat().st_size


def note_scrub(con: apsw.Connection, erased: dict[str, int]) -> bool:
    """Say, with the erasure, that copies are to be removed; whether it was late before.

    It is late until its pages have gone into the file the clean way; and if rows were laid anew
    since all of the file was looked through.
    """
    found = con.execute("SELECT value FROM meta WHERE name = 'scrub'").get
    said = orjson.loads(found) if found else {"namespaces": []}
    namespaces = sorted({*erased, *said["namespaces"]})
    _amend_scrub(con, namespaces=namespaces, late=True)
    laid: int = con.execute("SELECT count(*) FROM meta WHERE name = 'laid_anew'").get
    return bool(laid) or bool(said.get("late"))


def _amend_scrub(
    con: apsw.Connection, *, late: bool, namespaces: Sequence[str] | None = None
) -> None:
    if namespaces is None:
        found = con.execute("SELECT value FROM meta WHERE name = 'scrub'").get
        namespaces = orjson.loads(found)["namespaces"]
    value = orjson.dumps({"namespaces": namespaces, "late": late}).decode()
    con.execute("INSERT OR REPLACE INTO meta VALUES('scrub', ?)", (value,))
