"""The tables of `log.db`, and how their rows are read and packed (see FORMAT.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import zstandard

from koru_delta.causal import DELETE, ERASE, FOREVER, HIDE, PUT, SUPERSEDE, UNHIDE
from koru_delta.errors import CorruptionError
from koru_delta.storage.engine import Shade, Stored
from koru_delta.values import MAX_VALUE_BYTES

APPLICATION_ID = 0x4B6F7275  # "Koru"
INLINE_BYTES = 4096  # larger bodies are objects, shared by all versions that hold them
BLOCK = 1024  # commits under one stored node of the Merkle log
RAW, ZSTD, DELTA, MOVED = 0, 1, 2, 3  # moved: `base` says where in a tier file

SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE namespaces(ns INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE keys(
    key_id INTEGER PRIMARY KEY, ns INTEGER NOT NULL, key TEXT NOT NULL, UNIQUE(ns, key)
) STRICT;
CREATE TABLE versions(
    seq INTEGER PRIMARY KEY, id8 INTEGER NOT NULL, key_id INTEGER NOT NULL,
    op INTEGER NOT NULL, tx_time INTEGER NOT NULL, valid_from INTEGER, valid_to INTEGER,
    expires_at INTEGER, object INTEGER, version_id BLOB NOT NULL, record BLOB NOT NULL,
    body BLOB, erased INTEGER
) STRICT;
CREATE INDEX versions_by_key ON versions(key_id, seq);
CREATE INDEX versions_by_id ON versions(id8);
CREATE TABLE commits(
    tx_time INTEGER PRIMARY KEY, number INTEGER NOT NULL, first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL, root BLOB NOT NULL
) STRICT;
CREATE TABLE blocks(block INTEGER PRIMARY KEY, tx_time INTEGER NOT NULL) STRICT;
CREATE TABLE objects(
    object INTEGER PRIMARY KEY, id8 INTEGER NOT NULL, object_id BLOB NOT NULL,
    codec INTEGER NOT NULL, base INTEGER, data BLOB NOT NULL
) STRICT;
CREATE INDEX objects_by_id ON objects(id8);
CREATE TABLE spaces(
    space INTEGER PRIMARY KEY, ns INTEGER NOT NULL, model TEXT NOT NULL,
    dimensions INTEGER NOT NULL, metric TEXT NOT NULL, UNIQUE(ns, model)
) STRICT;
CREATE TABLE vectors(
    space INTEGER NOT NULL, seq INTEGER NOT NULL, object INTEGER NOT NULL,
    PRIMARY KEY(space, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE edges(
    cause8 INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(cause8, seq)
) STRICT, WITHOUT ROWID;
"""
MARKS = """
CREATE TABLE marks(
    ns INTEGER NOT NULL, kind INTEGER NOT NULL, seq INTEGER NOT NULL, target INTEGER NOT NULL,
    PRIMARY KEY(ns, kind, seq, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX marks_by_target ON marks(target, seq);
CREATE INDEX marks_by_seq ON marks(seq);
"""
# The files of the cold and deep tiers, by number (see `tierfile.py`), and what is to be done.
TIERS = """
CREATE TABLE tiers(
    file INTEGER PRIMARY KEY, tier INTEGER NOT NULL, state INTEGER NOT NULL,
    items INTEGER NOT NULL, raw INTEGER NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL
) STRICT;
CREATE INDEX objects_by_base ON objects(base) WHERE base > 0;
"""
# All in use; so far not, since it is being filled; some is not any more; some was erased.
WHOLE, FRESH, WORN, TAINTED = 0, 1, 2, 3
# Made by the first erasure: who uses an object.
ERASING = """
CREATE INDEX IF NOT EXISTS versions_by_object ON versions(object) WHERE object > 0;
CREATE INDEX IF NOT EXISTS vectors_by_object ON vectors(object) WHERE object > 0;
"""
# Each says what its index says, word for word: bound values do not tell that it may be used.
IS_USED = """SELECT EXISTS (SELECT 1 FROM versions WHERE object = :item AND object > 0)
    OR EXISTS (SELECT 1 FROM vectors WHERE object = :item AND object > 0)"""
TOLD_BY = "SELECT object FROM objects WHERE base = ? AND base > 0"
GONE = 0  # the object of a vector that was erased; real ones count from 1

STORED = f"""
    v.seq, v.version_id, v.op, v.tx_time, coalesce(v.valid_from, v.tx_time),
    coalesce(v.valid_to, {FOREVER}), coalesce(v.expires_at, {FOREVER}), v.record,
    coalesce(v.erased, 0)"""
LATEST = f"""NOT EXISTS (SELECT 1 FROM versions n
    WHERE n.key_id = v.key_id AND n.seq > v.seq AND n.op <= {DELETE})"""
# The definition of "visible" (DESIGN, "Two clocks"), in SQL.
COVERS = f"""{{0}}.op <= {DELETE} AND {{0}}.seq <= :seq
    AND coalesce({{0}}.valid_from, {{0}}.tx_time) <= :at
    AND ({{0}}.valid_to IS NULL OR {{0}}.valid_to > :at)"""
VISIBLE = f"""SELECT {STORED}, v.body, v.object, {LATEST} FROM versions v
    WHERE v.key_id = (SELECT key_id FROM keys WHERE ns = :ns AND key = :key)
    AND {COVERS.format("v")} ORDER BY v.seq DESC LIMIT 1"""
# Whether the winner at a cut is hidden there, and whether anything in a namespace ever was.
HIDDEN = f"""coalesce((SELECT m.kind FROM marks m WHERE m.target = v.seq AND m.seq <= :seq
    AND m.kind IN ({HIDE}, {UNHIDE}) ORDER BY m.seq DESC LIMIT 1), {UNHIDE}) = {HIDE}"""
ANY_HIDDEN = f"""SELECT EXISTS (SELECT 1 FROM marks
    WHERE ns = ? AND kind = {HIDE} AND seq <= ?)"""
WINNER = f"""(SELECT w.seq FROM versions w WHERE w.key_id = k.key_id
    AND {COVERS.format("w")} ORDER BY w.seq DESC LIMIT 1)"""
COMMITS = """SELECT c.number, c.first_seq, c.last_seq, c.tx_time, c.root, v.record
    FROM commits c JOIN versions v ON v.seq = c.first_seq"""


KEY_HEAD = """SELECT k.key_id, v.version_id, v.record, v.object FROM keys k
    JOIN versions v ON v.key_id = k.key_id WHERE k.ns = ? AND k.key = ?
    ORDER BY v.seq DESC LIMIT 1"""
# The same for many keys (a JSON array), each with its name in front.
KEY_HEADS = """SELECT k.key, k.key_id, v.version_id, v.record, v.object
    FROM json_each(:keys) j CROSS JOIN keys k ON k.ns = :ns AND k.key = j.value
    CROSS JOIN versions v ON v.seq = (SELECT max(n.seq) FROM versions n WHERE n.key_id = k.key_id)
    """
SPACES = """SELECT p.space, s.name, p.model, p.dimensions, p.metric
    FROM spaces p JOIN namespaces s USING (ns) WHERE s.name = ? ORDER BY p.space"""
OBJECTS_LIKE = """SELECT o.object_id, o.object, o.codec
    FROM json_each(?) j CROSS JOIN objects o ON o.id8 = j.value"""
# For many entries at once, each given by its place or the first 8 bytes of an id (JSON arrays).
RECORDS_AT = """SELECT v.seq, v.version_id, v.record FROM json_each(?) j
    CROSS JOIN versions v ON v.seq = j.value"""
PLACES = """SELECT v.seq, v.version_id FROM json_each(?) j
    CROSS JOIN versions v ON v.id8 = j.value ORDER BY v.seq"""
EFFECTS = """SELECT e.seq FROM json_each(:ids) j
    CROSS JOIN edges e ON e.cause8 = j.value AND e.seq <= :seq"""
# A mark by kind, seq and target; it is filed under the namespace of its target.
ADD_MARK = """INSERT INTO marks SELECT k.ns, ?, ?, v.seq
    FROM versions v JOIN keys k USING (key_id) WHERE v.seq = ?"""
SHADE = f"""SELECT kind FROM marks WHERE target = ? AND seq <= ? AND kind <> {ERASE}
    ORDER BY seq"""
# The highest number of an object that was erased: none is given twice.
LAST_OBJECT = "SELECT value FROM meta WHERE name = 'last_object'"
# The last erasure in a namespace.
ERASED = f"""SELECT max(seq) FROM marks WHERE kind = {ERASE}
    AND ns = (SELECT ns FROM namespaces WHERE name = ?)"""
ERASED_BETWEEN = f"""SELECT target FROM marks
    WHERE ns = ? AND kind = {ERASE} AND seq > ? AND seq <= ? ORDER BY target"""
# Whether what a key holds at a cut and valid time was erased, for any key of a namespace.
LACKS = f"""SELECT EXISTS (SELECT 1 FROM versions e JOIN keys k USING (key_id)
    WHERE e.seq IN (SELECT target FROM marks WHERE ns = :ns AND kind = {ERASE})
    AND e.seq = {{}} AND (e.expires_at IS NULL OR e.expires_at > :clock))"""
# Versions whose key has moved on up to a place, or that expired by then, and how long ago; all
# but the last few of each key. `ended` is when, in microseconds.
CANDIDATES = f"""WITH odd AS MATERIALIZED (
    SELECT DISTINCT v.key_id FROM keys k CROSS JOIN versions v ON v.key_id = k.key_id
    WHERE k.ns = :ns AND v.op <= {DELETE}
    AND (v.valid_from IS NOT NULL OR v.valid_to IS NOT NULL)),
    past AS (
    SELECT v.seq, v.key_id, v.version_id, k.key, v.expires_at,
        (SELECT n.tx_time FROM versions n WHERE n.key_id = v.key_id AND n.seq > v.seq
            AND n.op <= {DELETE} ORDER BY n.seq LIMIT 1) AS replaced,
        (SELECT count(*) FROM (SELECT 1 FROM versions n WHERE n.key_id = v.key_id
            AND n.seq > v.seq AND n.op <= {DELETE} LIMIT :last)) AS later
    FROM keys k CROSS JOIN versions v ON v.key_id = k.key_id
    WHERE k.ns = :ns AND v.op = {PUT} AND v.erased IS NULL AND v.tx_time <= :time)
    SELECT p.seq, p.key_id, p.version_id, p.key,
        min(coalesce(p.replaced, {FOREVER}), coalesce(p.expires_at, {FOREVER})) AS ended,
        p.key_id IN (SELECT key_id FROM odd)
    FROM past p
    WHERE (p.replaced <= :time OR p.expires_at <= :time)
    AND p.later + (p.expires_at IS NOT NULL AND p.expires_at <= :time) >= :last
    ORDER BY p.seq"""

# What indexes read of the log, columns as in `Entry`; `{}` is what they call a vector.
ENTRY = """SELECT v.seq, v.key_id, v.op, v.tx_time, v.valid_from, v.valid_to, v.expires_at,
    {}, NULL"""
ENTRY_MARK = "SELECT m.seq, v.key_id, m.kind, v.tx_time, NULL, NULL, NULL, {}, m.target"
SEQ_OF = "SELECT seq FROM versions WHERE id8 = ? AND version_id = ? ORDER BY seq LIMIT 1"


def read_stored(row: Sequence[Any], load: Callable[[int], bytes]) -> Stored:
    """A row of `STORED`, body, object and latest, with the object's bytes as the body."""
    (seq, identity, operation, tx_time, starts, ends, expires, record, erased, body, item,
     latest) = row  # fmt: skip
    if item is not None:
        body = load(item)
    return Stored(
        seq, identity, operation, tx_time, starts, ends, expires, record, body, bool(latest),
        erased,
    )  # fmt: skip


def shade_of(rows: Sequence[Sequence[Any]]) -> Shade:
    """What marks of these kinds (one a row, in log order) have made of their target."""
    hidden = superseded = False
    for (kind,) in rows:
        if kind == SUPERSEDE:
            superseded = True
        else:
            hidden = kind == HIDE
    return Shade(hidden, superseded)


def unpack(codec: int, data: bytes, base: bytes | None) -> bytes:
    """Turn an object's stored bytes back into what was stored.

    An object below zero is a place in a tier file, and what lies there its bytes.
    """
    if codec == RAW:
        return data
    if codec == MOVED:
        assert base is not None
        return base
    try:
        shared = None if base is None else _shared(base)
        body: bytes = zstandard.ZstdDecompressor(dict_data=shared).decompress(
            data, max_output_size=MAX_VALUE_BYTES
        )
    except zstandard.ZstdError as error:
        raise CorruptionError(f"a stored object cannot be decompressed: {error}") from error
    return body


def compressor(base: bytes | None) -> zstandard.ZstdCompressor:
    """A compressor, by what differs from `base` if there is one."""
    if base is None:
        return zstandard.ZstdCompressor(level=3)
    return zstandard.ZstdCompressor(level=3, dict_data=_shared(base))


def _shared(base: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def first8(identity: bytes) -> int:
    """The beginning of an id as the integer that indexes hold."""
    return int.from_bytes(identity[:8], "big", signed=True)
