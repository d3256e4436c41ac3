"""Formats of the log's file: what makes a new one, and what brings an older one up to date."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from koru_delta.causal import marks_of
from koru_delta.storage.schema import (
    ADD_MARK,
    APPLICATION_ID,
    MARKS,
    SCHEMA,
    SEQ_OF,
    TIERS,
    first8,
)
from koru_delta.values import decode

FORMAT = 4


def _begin_marks(con: apsw.Connection) -> None:
    """Format 2 files what entries do to other versions; format 1 knew only `supersedes`."""
    _create(con, MARKS)
    found: list[tuple[int, int, int]] = []
    for seq, record in con.execute(
        "SELECT seq, record FROM versions WHERE seq IN (SELECT DISTINCT seq FROM edges)"
    ):
        if b'"supersedes"' in record:
            for kind, ref in sorted(marks_of(decode(record))):
                identity = bytes.fromhex(ref)
                target = con.execute(SEQ_OF, (first8(identity), identity)).get
                if target is not None:
                    found.append((kind, seq, target))
    con.executemany(ADD_MARK, found)


def _begin_erasing(con: apsw.Connection) -> None:
    """Format 3 notes with each version which entry erased it."""
    con.execute("ALTER TABLE versions ADD COLUMN erased INTEGER")


def _begin_tiers(con: apsw.Connection) -> None:
    """Format 4 lets bodies lie in files; an object below zero is a place in one."""
    for index in ("versions_by_object", "objects_by_base"):
        con.execute(f"DROP INDEX IF EXISTS {index}")
    _create(con, TIERS)


# From one format to the next; run in one transaction, under the write lock.
MIGRATIONS: dict[int, Callable[[apsw.Connection], None]] = {
    1: _begin_marks, 2: _begin_erasing, 3: _begin_tiers
}  # fmt: skip


def is_empty(con: apsw.Connection) -> bool:
    """Whether nothing was ever made in this file."""
    return not con.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()


def is_ours(con: apsw.Connection) -> bool:
    """Whether KoruDelta made this file."""
    return bool(con.execute("PRAGMA application_id").get == APPLICATION_ID)


def make(con: apsw.Connection, durability: str) -> None:
    """The tables of an empty file, in the caller's transaction."""
    _create(con, SCHEMA + MARKS + TIERS)
    con.execute(f"PRAGMA application_id = {APPLICATION_ID}").fetchall()
    con.execute(f"PRAGMA user_version = {FORMAT}").fetchall()
    con.execute("INSERT INTO meta VALUES('durability', ?)", (durability,))


def format_of(con: apsw.Connection) -> int:
    """The format a file of ours has."""
    found: int = con.execute("PRAGMA user_version").get
    return found


def migrate(con: apsw.Connection) -> None:
    """Bring a file up to date, in one transaction; the write lock is held."""
    con.execute("BEGIN IMMEDIATE")
    try:
        for step in range(format_of(con), FORMAT):
            MIGRATIONS[step](con)
        con.execute(f"PRAGMA user_version = {FORMAT}").fetchall()
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


def _create(con: apsw.Connection, schema: str) -> None:
    for statement in schema.split(";\n"):
        if statement.strip():
            con.execute(statement)
