"""Laying rows of the log in another place: one statement, so one wait of whoever writes.

SQLite runs a statement without the interpreter. A transaction of many statements waits for it
after each, and another thread that computes may keep it for 5 ms every time, with the write lock
held. So all that a step of a move does is done by a trigger.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import apsw
import orjson

from koru_delta.storage.schema import MOVED, WORN
from koru_delta.storage.tierfile import ITEM_BITS

_COLUMNS: Final = """seq, id8, key_id, op, tx_time, valid_from, valid_to, expires_at, object,
    version_id, record, body"""
# In order, so that rows share pages; taken out before any is put in again, so that they come
# closer. What others are told by is left: it is told anew, by somebody who can.
_SETUP: Final = f"""
PRAGMA temp_store = MEMORY;
CREATE TEMP TABLE laid_versions({_COLUMNS}, was, PRIMARY KEY(seq));
CREATE TEMP TABLE laid_objects(object, id8, object_id, codec, base, data, was, PRIMARY KEY(object));
CREATE TEMP VIEW laying(versions, objects) AS SELECT NULL, NULL;
CREATE TEMP TRIGGER lay INSTEAD OF INSERT ON laying BEGIN
    DELETE FROM laid_versions;
    DELETE FROM laid_objects;
    INSERT INTO laid_versions SELECT v.seq, v.id8, v.key_id, v.op, v.tx_time, v.valid_from,
        v.valid_to, v.expires_at, j.value ->> 2, v.version_id, v.record, unhex(j.value ->> 3),
        v.object
    FROM json_each(NEW.versions) j CROSS JOIN versions v ON v.seq = j.value ->> 0
    WHERE v.erased IS NULL AND (v.body IS NOT NULL OR v.object < 0) AND v.object IS j.value ->> 1;
    DELETE FROM versions WHERE seq IN (SELECT seq FROM laid_versions);
    INSERT INTO versions SELECT {_COLUMNS}, NULL FROM laid_versions ORDER BY seq;
    INSERT INTO laid_objects SELECT o.object, o.id8, o.object_id, j.value ->> 3, j.value ->> 4,
        unhex(j.value ->> 5), CASE WHEN o.codec = {MOVED} THEN o.base END
    FROM json_each(NEW.objects) j CROSS JOIN objects o ON o.object = j.value ->> 0
    WHERE o.object_id = unhex(j.value ->> 2)
    AND CASE WHEN o.codec = {MOVED} THEN o.base END IS j.value ->> 1
    AND NOT (j.value ->> 3 = {MOVED}
        AND EXISTS (SELECT 1 FROM objects d WHERE d.base = o.object AND d.base > 0));
    DELETE FROM objects WHERE object IN (SELECT object FROM laid_objects);
    INSERT INTO objects
        SELECT object, id8, object_id, codec, base, data FROM laid_objects ORDER BY object;
    UPDATE tiers SET state = max(state, {WORN}) WHERE file IN (
        SELECT -was >> {ITEM_BITS} FROM laid_versions WHERE was < 0
        UNION SELECT -was >> {ITEM_BITS} FROM laid_objects WHERE was < 0);
    INSERT OR IGNORE INTO meta VALUES('laid_anew', '1');
END;
"""
_LAY: Final = "INSERT INTO laying VALUES(?, ?)"
_LAID: Final = """SELECT json_group_array(owner) FROM
    (SELECT seq AS owner FROM laid_versions UNION ALL SELECT -object FROM laid_objects)"""


class Lay(NamedTuple):
    """How a body or vector is to be kept: an entry's own, or an object by its negative number."""

    owner: int
    was: int | None  # its place in a file before; None is in the log
    identity: bytes  # of an object
    codec: int
    base: int | None  # its place in a file
    data: bytes  # none where it lies in a file


def as_told(wanted: Iterable[Lay]) -> tuple[str, str]:
    """What `lay` is told: entries and objects, each as JSON."""
    versions: list[tuple[object, ...]] = []
    objects: list[tuple[object, ...]] = []
    for owner, was, identity, codec, base, data in wanted:
        if owner > 0:
            versions.append((owner, was, base, None if base is not None else data.hex()))
        else:
            objects.append((-owner, was, identity.hex(), codec, base, data.hex()))
    return orjson.dumps(versions).decode(), orjson.dumps(objects).decode()


def lay(con: apsw.Connection, told: tuple[str, str]) -> set[int]:
    """Keep things so, in a transaction of its own; the owners of what was where it was thought.

    The caller holds the write lock. What others are stored by their difference to is left out.
    """
    try:
        con.execute(_LAY, told)
    except apsw.SQLError as error:
        if "laying" not in str(error):
            raise
        con.execute(_SETUP).fetchall()  # this connection's first time
        con.execute(_LAY, told)
    found: set[int] = set(orjson.loads(con.execute(_LAID).get))
    return found
