"""Cleaning up: copies of what was erased, and pages that hold nothing any more."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import apsw
import orjson

from koru_delta.storage import clean
from koru_delta.storage.feeds import SqliteFeeds
from koru_delta.storage.schema import ERASED, TAINTED
from koru_delta.storage.tierfile import path_of

INCREMENTAL = 2  # what `PRAGMA auto_vacuum` says
_PAGES_AT_ONCE = 1000
_READERS_LEAVE_MS = 1000
_SWEPT_AFTER = 256  # commits
CHECKPOINT_PAGES = 1000  # SQLite's own choice
_log = logging.getLogger("koru_delta")


class SqliteScrubber(SqliteFeeds):
    """Empties the write-ahead log of what was erased, and gives room back."""

    _left = 0  # commits whose pages somebody else is to sweep

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
                if (
                    self._tainted()
                    or not self._checkpoint()
                    or any(
                        last.get(name, -1) < self._last_erased(con, name)
                        for name in said["namespaces"]
                    )
                ):
                    return False
                if said.get("late"):
                    # Pages may have gone into the file by another way meanwhile.
                    value = orjson.dumps({"namespaces": [], "late": True}).decode()
                    con.execute("UPDATE meta SET value = ? WHERE name = 'scrub'", (value,))
                    return False
                con.execute("DELETE FROM meta WHERE name = 'scrub'")
                return True
            except apsw.BusyError:
                return False
            except apsw.Error as error:
                raise self._foreign(error) from error

    @staticmethod
    def _last_erased(con: apsw.Connection, namespace: str) -> int:
        found: int | None = con.execute(ERASED, (namespace,)).get
        return found or 0

    def _clean(self, con: apsw.Connection) -> None:
        """Empty the write-ahead log of what was just erased; what is in the way is noted."""
        con.wal_autocheckpoint(CHECKPOINT_PAGES)
        try:
            emptied = self._checkpoint()
        except apsw.Error as error:  # what was erased is erased; cleaning up is tried again
            _log.warning("the write-ahead log still holds what was erased: %s", error)
            emptied = False
        if not emptied:
            found = con.execute("SELECT value FROM meta WHERE name = 'scrub'").get
            value = orjson.dumps({**orjson.loads(found), "late": True}).decode()
            con.execute("UPDATE meta SET value = ? WHERE name = 'scrub'", (value,))

    # Pages of which rows were laid anew, and nothing erased

    def _is_swept(self) -> bool:
        return self._generation is None or self._generation.is_swept

    def _sweep_now_and_then(self, con: apsw.Connection) -> None:
        """After such a commit: whoever lays rows anew sweeps, unless that one is gone."""
        con.wal_autocheckpoint(CHECKPOINT_PAGES)
        self._left += 1
        if self._left % _SWEPT_AFTER == 0:
            self._sweep()

    def _sweep(self, sweeping: clean.Sweeping | None = None) -> bool:
        """Have pages go into the file without copies of rows; False if a reader is in the way.

        No lock is needed, and nobody waits.
        """
        if self._generation is None:
            return True
        laid = self._generation.laid
        mine = sweeping or clean.Sweeping(self.directory / "log.db")
        try:
            done = mine.run()
        finally:
            if sweeping is None:
                mine.close()
        if done:
            self._generation.swept(laid)
        return done

    def _release(self) -> None:
        if not self.read_only and self._writer is not None and not self._is_swept():
            with suppress(apsw.Error):  # then whoever opens it next does it
                self._sweep()
        super()._release()

    def _tainted(self) -> list[Path]:
        """Tier files in which something lies that was erased."""
        found = self._rows("SELECT tier, file FROM tiers WHERE state = ?", (TAINTED,))
        paths = [path_of(self.directory, *each) for each in found]
        return [path for path in paths if path.exists()]

    def _checkpoint(self) -> bool:
        """Move the write-ahead log into the file, and cut both to size, if no reader minds.

        The write lock is held.
        """
        file = self.directory / "log.db"
        laid = 0 if self._generation is None else self._generation.laid
        done = clean.checkpoint(file, wait_milliseconds=_READERS_LEAVE_MS)
        if done and self._generation is not None:
            self._generation.swept(laid)
        return done

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
            if left >= free:
                break
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
                    con.execute("DELETE FROM meta WHERE name = 'scrub' AND value LIKE '%[]%'")
            except apsw.Error as error:
                raise self._foreign(error) from error
        return before - file.stat().st_size


def note_scrub(con: apsw.Connection, erased: dict[str, int]) -> None:
    """Say, with the erasure, that copies in files beside the log are to be removed."""
    found = con.execute("SELECT value FROM meta WHERE name = 'scrub'").get
    said = orjson.loads(found) if found else {"namespaces": []}
    said["namespaces"] = sorted({*erased, *said["namespaces"]})
    value = orjson.dumps(said).decode()
    con.execute("INSERT OR REPLACE INTO meta VALUES('scrub', ?)", (value,))
