"""Rows of `log.db` that writers and moves change in place, in an open transaction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import apsw
import orjson

from koru_delta.errors import CorruptionError
from koru_delta.storage.schema import DELTA, RAW, TOLD_BY, ZSTD, compressor, unpack
from koru_delta.storage.shelf import Facts, Shelf

_VERSION = """v.seq, v.id8, v.key_id, v.op, v.tx_time, v.valid_from, v.valid_to, v.expires_at,
    {object}, v.version_id, v.record, {body}, NULL"""


def load(con: apsw.Connection, shelf: Shelf, item: int) -> bytes:
    """The bytes of an object, wherever they lie."""
    if item < 0:
        return shelf.read(item, partial(file_facts, con))
    row = con.execute("SELECT codec, base, data FROM objects WHERE object = ?", (item,)).get
    if row is None:
        raise CorruptionError(f"object {item} is missing; run: verify")
    codec, base, data = row
    return unpack(codec, data, None if base is None else load(con, shelf, base))


def file_facts(con: apsw.Connection, number: int) -> Facts | None:
    """Of a tier file its tier and root."""
    found: Facts | None = con.execute("SELECT tier, root FROM tiers WHERE file = ?", (number,)).get
    return found


def lay_anew(con: apsw.Connection, bodies: Sequence[tuple[int, int | None, bytes | None]]) -> None:
    """Give versions, none of them erased, other bodies: (place, object, inline body).

    Their rows are taken out and put in again, so that what is left of them shares pages: a row
    that only becomes shorter keeps its page to itself.
    """
    said = {seq: (item, body) for seq, item, body in bodies}
    rows: list[Any] = con.execute(
        f"""SELECT {_VERSION.format(object="NULL", body="NULL")}
        FROM json_each(?) j CROSS JOIN versions v ON v.seq = j.value ORDER BY v.seq""",
        (orjson.dumps(sorted(said)).decode(),),
    ).fetchall()
    con.executemany("DELETE FROM versions WHERE seq = ?", [row[:1] for row in rows])
    con.executemany(
        "INSERT INTO versions VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
        [(*row[:8], said[row[0]][0], *row[9:11], said[row[0]][1], None) for row in rows],
    )


def store_anew(con: apsw.Connection, objects: Sequence[tuple[int, int, int | None, bytes]]) -> None:
    """Store objects in another way: (object, codec, base, data). Rows likewise come closer."""
    said = {item: told for item, *told in objects}
    rows: list[Any] = con.execute(
        """SELECT o.object, o.id8, o.object_id FROM json_each(?) j
        CROSS JOIN objects o ON o.object = j.value ORDER BY o.object""",
        (orjson.dumps(sorted(said)).decode(),),
    ).fetchall()
    con.executemany("DELETE FROM objects WHERE object = ?", [row[:1] for row in rows])
    con.executemany(
        "INSERT INTO objects VALUES(?,?,?,?,?,?)", [(*row, *said[row[0]]) for row in rows]
    )


def tell_anew(con: apsw.Connection, shelf: Shelf, told: Sequence[int]) -> None:
    """Store without their base what is stored by its difference to it, the last one whole."""
    if not told:
        return
    first = max(told)
    last = load(con, shelf, first)
    packed = [(first, *whole(last))]
    for item in told:
        if item != first:
            body = load(con, shelf, item)
            delta = compressor(last).compress(body)
            if len(delta) * 4 < len(body):
                packed.append((item, DELTA, first, delta))
            else:
                packed.append((item, *whole(body)))
    store_anew(con, packed)


def told_by(con: apsw.Connection, base: int) -> list[int]:
    """Objects that are stored by their difference to one."""
    return [row[0] for row in con.execute(TOLD_BY, (base,))]


def whole(body: bytes) -> tuple[int, int | None, bytes]:
    """A body to be stored by itself: codec, no base, data."""
    packed = compressor(None).compress(body)
    return (ZSTD, None, packed) if len(packed) < len(body) else (RAW, None, body)


def note_laid_anew(con: apsw.Connection) -> None:
    """Say that pages may hold copies of rows that were laid anew (see `clean.py`)."""
    con.execute("INSERT OR IGNORE INTO meta VALUES('laid_anew', '1')")


def wear(con: apsw.Connection, numbers: Sequence[int], state: int) -> None:
    """Note of tier files that not all in them is used any more, or that some was erased."""
    con.executemany(
        "UPDATE tiers SET state = max(state, ?) WHERE file = ?",
        [(state, number) for number in sorted(set(numbers))],
    )
