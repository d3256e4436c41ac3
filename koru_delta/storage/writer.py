"""The one open write of a SQLite engine: rows gathered, then inserted together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import apsw
import orjson

from koru_delta.causal import ERASE, FOREVER, PUT
from koru_delta.errors import CorruptionError
from koru_delta.storage.engine import Entry, Facts, Head, KeyHead, NewVersion, Shade, Space, Stored
from koru_delta.storage.recent import MOST_ENTRIES, Written
from koru_delta.storage.rows import (
    file_facts,
    lay_anew,
    load,
    note_laid_anew,
    store_anew,
    tell_anew,
    told_by,
    wear,
    whole,
)
from koru_delta.storage.schema import (
    ADD_MARK,
    BLOCK,
    DELTA,
    ERASING,
    FRESH,
    GONE,
    INLINE_BYTES,
    IS_USED,
    KEY_HEAD,
    KEY_HEADS,
    LAST_OBJECT,
    MOVED,
    OBJECTS_LIKE,
    RAW,
    SEQ_OF,
    SHADE,
    SPACES,
    STORED,
    TAINTED,
    VISIBLE,
    WORN,
    compressor,
    first8,
    read_stored,
    shade_of,
)
from koru_delta.storage.tierfile import parts_of

if TYPE_CHECKING:
    from koru_delta.storage.sqlite import SqliteEngine

_UNKNOWN = -1
_MUCH_SHORTER = 200  # bytes
_INSERTS = {
    table: f"INSERT INTO {table} VALUES({','.join('?' * columns)})"
    for table, columns in {
        "namespaces": 2, "spaces": 5, "keys": 3, "objects": 6, "versions": 13, "vectors": 3,
        "edges": 2, "commits": 5, "blocks": 2,
    }.items()
}  # fmt: skip


class SqliteWriter:
    """The rows of one write, gathered and then inserted together."""

    def __init__(
        self,
        engine: SqliteEngine,
        con: apsw.Connection,
        head: Head,
        numbers: dict[str, int],
        spaces: dict[str, list[Space]],
    ) -> None:
        self._engine = engine
        self._con = con
        self.head = head
        self.dirty = False
        self.new_namespaces: dict[str, int] = {}
        self._unflushed: set[int] = set()  # namespaces without a key in the file
        self._key_ids: dict[tuple[int, str], int | None] = {}  # None: looked for, not there
        self._objects: dict[bytes, int | None] = {}  # likewise
        self._far: set[int] = set()  # of those the ones in tier files
        self._next = numbers
        self._spaces = spaces
        self._rows: dict[str, list[tuple[Any, ...]]] = {}  # by table
        self.written: list[Written] | None = []  # what was flushed; None: too much to keep
        self._gathered: list[Written] = []
        self._marks: list[tuple[int, int, int]] = []  # kind, seq, target
        self.erased: dict[str, int] = {}  # by namespace the last entry that erased something
        self.given_back = 0  # bytes of values and vectors that were removed

    def key_head(self, namespace: str, key: str) -> KeyHead | None:
        """The last entry of a key, among those flushed."""
        ns = self._namespace(namespace)
        if ns is None:
            return None
        row = self._con.execute(KEY_HEAD, (ns, key)).get
        self._key_ids[ns, key] = None if row is None else row[0]
        return None if row is None else KeyHead(*row)

    def key_heads(self, namespace: str, keys: Sequence[str]) -> dict[str, KeyHead]:
        """The last entry of each of these keys that has one, among those flushed."""
        ns = self._namespace(namespace)
        if ns is None:
            return {}
        rows = self._con.execute(KEY_HEADS, {"ns": ns, "keys": orjson.dumps(keys).decode()})
        found = {row[0]: KeyHead(*row[1:]) for row in rows}
        for key in keys:
            head = found.get(key)
            self._key_ids[ns, key] = None if head is None else head.key_id
        return found

    def find_objects(self, identities: Sequence[bytes]) -> None:
        """Look for these together, so that `append` need not for each."""
        if not identities:
            return
        wanted = dict.fromkeys(identities)
        beginnings = orjson.dumps([first8(identity) for identity in wanted]).decode()
        for identity, item, codec in self._con.execute(OBJECTS_LIKE, (beginnings,)):
            if identity in wanted:
                wanted[identity] = item
                if codec == MOVED:
                    self._far.add(item)
        self._objects.update(wanted)

    def visible(
        self, namespace: str, key: str, seq: int, valid_at: int, *, body: bool = True
    ) -> Stored | None:
        """As `SqliteEngine.visible`, seeing what this write has flushed; with `body` or empty."""
        ns = self._namespace(namespace)
        if ns is None:
            return None
        row = self._con.execute(VISIBLE, {"ns": ns, "key": key, "seq": seq, "at": valid_at}).get
        if row is None:
            return None
        return read_stored(row, self._object if body else lambda _: b"")

    def ever_put(self, namespace: str, key: str) -> bool:
        """Whether the key was ever put, among what was flushed."""
        ns = self._namespace(namespace)
        return ns is not None and bool(
            self._con.execute(
                f"""SELECT EXISTS (SELECT 1 FROM versions WHERE op = {PUT} AND key_id =
                (SELECT key_id FROM keys WHERE ns = ? AND key = ?))""",
                (ns, key),
            ).get
        )

    def at(self, seq: int) -> Stored | None:
        """The entry at a place, among those flushed."""
        row = self._con.execute(
            f"SELECT {STORED}, v.body, v.object, 0 FROM versions v WHERE v.seq = ?", (seq,)
        ).get
        return None if row is None else read_stored(row, self._object)

    def facts(self, seq: int) -> Facts | None:
        """What and whose the entry at a place is, among those flushed."""
        row = self._con.execute(
            """SELECT v.seq, v.op, s.name, k.key, coalesce(v.erased, 0) FROM versions v
            JOIN keys k USING (key_id) JOIN namespaces s USING (ns) WHERE v.seq = ?""",
            (seq,),
        ).get
        return None if row is None else Facts(*row)

    def kept(self, namespace: str, key: str) -> list[bytes]:
        """The ids of all puts of a key that were not erased, among those flushed."""
        ns = self._namespace(namespace)
        rows = self._con.execute(
            f"""SELECT v.version_id FROM versions v WHERE v.op = {PUT} AND v.erased IS NULL
            AND v.key_id = (SELECT key_id FROM keys WHERE ns = ? AND key = ?) ORDER BY v.seq""",
            (ns, key),
        )
        return [row[0] for row in rows]

    def shade(self, seq: int) -> Shade:
        """What marks, among those flushed, have made of the version at a place."""
        return shade_of(self._con.execute(SHADE, (seq, FOREVER)).fetchall())

    def seq_of(self, version_id: bytes) -> int | None:
        found: int | None = self._con.execute(SEQ_OF, (first8(version_id), version_id)).get
        return found

    def space(self, namespace: str, model: str) -> Space | None:
        """The vector space of a model in a namespace, if it has begun."""
        for space in self._spaces_of(namespace):
            if space.model == model:
                return space
        return None

    def add_space(self, namespace: str, model: str, dimensions: int, metric: str) -> Space:
        """Begin a vector space."""
        number = self._take("spaces", "space")
        self._add("spaces", (number, self._namespace_id(namespace), model, dimensions, metric))
        space = Space(number, namespace, model, dimensions, metric)
        self._spaces[namespace] = [*self._spaces_of(namespace), space]
        return space

    def _spaces_of(self, namespace: str) -> list[Space]:
        known = self._spaces.get(namespace)
        if known is None:
            known = [Space(*row) for row in self._con.execute(SPACES, (namespace,))]
            self._spaces[namespace] = known
        return known

    def append(self, version: NewVersion) -> None:
        """Add one entry, its key, objects, vectors and edges; inserted at `flush`."""
        ns = self._namespace_id(version.namespace)
        key_id = self._key_id(ns, version.key)
        body, item = version.body, None
        if body is not None and len(body) > INLINE_BYTES:
            assert version.distinction is not None
            item = self._put_object(version.distinction, body, key_id)
            body = None
        self._add(
            "versions",
            (
                version.seq, first8(version.version_id), key_id, version.operation,
                version.tx_time, version.valid_from, version.valid_to, version.expires_at,
                item, version.version_id, version.record, body, None,
            ),
        )  # fmt: skip
        vectors: list[tuple[int, int, bytes | None]] = []
        for space, identity, data in version.vectors:
            if not identity:  # of what was erased elsewhere
                self._add("vectors", (space, version.seq, GONE))
                continue
            vector = self._object_row(identity)
            if vector is None:
                if data is None:
                    raise CorruptionError(
                        f"vector {identity.hex()[:16]} is in the log and not in the store; "
                        "restore a backup"
                    )
                vector = self._new_object(identity, RAW, None, data)
            elif vector in self._far:
                near = self._object(vector) if data is None else data
                self._bring_back(vector, RAW, None, near)
            self._add("vectors", (space, version.seq, vector))
            vectors.append((space, vector, data))
        if self.written is not None:
            entry = Entry(
                version.seq, key_id, version.operation, version.tx_time, version.valid_from,
                version.valid_to, version.expires_at, None,
            )  # fmt: skip
            self._gathered.append(Written(version.namespace, version.key, entry, vectors))
            if len(self._gathered) > MOST_ENTRIES:
                self._gathered, self.written = [], None
        # A cause named twice, by two kinds, is one edge.
        if version.causes:
            for cause in {first8(cause) for cause in version.causes}:
                self._add("edges", (cause, version.seq))
        if version.marks:
            self._marks += [(kind, version.seq, target) for kind, target in version.marks]
            if version.operation == ERASE:
                # What is kept of late writes may be what is erased.
                self._gathered, self.written = [], None

    def append_commit(self, commit: Head, first_seq: int) -> None:
        """Close what was appended since `first_seq` as one commit."""
        number = commit.commits - 1
        self._add("commits", (commit.tx_time, number, first_seq, commit.seq, commit.root))
        if number % BLOCK == 0:
            self._add("blocks", (number // BLOCK, commit.tx_time))
        self.head = commit

    def flush(self) -> None:
        """Insert what was gathered, so that this write's own reads see it."""
        for table, rows in self._rows.items():
            self.dirty = True
            if len(rows) == 1:
                self._con.execute(_INSERTS[table], rows[0])
            else:
                self._con.executemany(_INSERTS[table], rows)
        self._rows.clear()
        self._unflushed.clear()
        if self._marks:
            self._con.executemany(ADD_MARK, self._marks)  # its target may be of this very batch
            erasing = [(seq, target) for kind, seq, target in self._marks if kind == ERASE]
            if erasing:
                self._erase(erasing)
            if self.written is not None:
                self._gathered += map(self._written_mark, self._marks)
                self._gathered.sort(key=lambda one: one.entry.seq)  # stable: after their entry
            self._marks = []
        if self.written is not None:
            self.written += self._gathered
            if len(self.written) > MOST_ENTRIES:
                self.written = None
        self._gathered = []

    def _erase(self, erasing: Sequence[tuple[int, int]]) -> None:
        """Remove the bodies and vectors of versions: (place of the erase, place of the version).

        What another version holds too stays. What is told by its difference to something that
        goes is told anew, by something that stays.
        """
        con = self._con
        for statement in ERASING.split(";\n"):
            if statement.strip():
                con.execute(statement)
        places = orjson.dumps([target for _, target in erasing]).decode()
        objects: set[int] = set()
        rows: list[Any] = con.execute(
            """SELECT v.object, coalesce(length(v.body), 0), s.name, v.seq FROM json_each(?) j
            CROSS JOIN versions v ON v.seq = j.value
            JOIN keys k USING (key_id) JOIN namespaces s USING (ns)""",
            (places,),
        ).fetchall()
        named: dict[int, str] = {}
        shorter: list[int] = []
        places_left: list[int] = []  # in tier files
        for item, inline, namespace, target in rows:
            self.given_back += inline
            named[target] = namespace
            if item is not None and item > 0:
                objects.add(item)
            elif item is not None:
                places_left.append(item)
            if inline > _MUCH_SHORTER:
                shorter.append(target)
        for seq, target in erasing:
            name = named[target]
            self.erased[name] = max(seq, self.erased.get(name, 0))
        lay_anew(con, [(target, None, None) for target in shorter])
        con.executemany(
            "UPDATE versions SET body = NULL, object = NULL, erased = ? WHERE seq = ?", erasing
        )
        for name in set(named.values()):
            for space in self._spaces_of(name):
                carried: list[Any] = con.execute(
                    f"""SELECT x.seq, x.object FROM json_each(?) j CROSS JOIN vectors x
                    ON x.space = ? AND x.seq = j.value AND x.object <> {GONE}""",
                    (places, space.space_id),
                ).fetchall()
                objects.update(item for _, item in carried)
                con.executemany(
                    f"UPDATE vectors SET object = {GONE} WHERE space = ? AND seq = ?",
                    [(space.space_id, seq) for seq, _ in carried],
                )
        dead = [item for item in sorted(objects) if not self._is_used(item)]
        for item in dead:
            told = [each for each in told_by(con, item) if self._is_used(each)]
            tell_anew(con, self._engine._shelf, told)
        self._objects.clear()
        for item in dead:
            base, size = con.execute(
                "SELECT base, length(data) FROM objects WHERE object = ?", (item,)
            ).get
            self.given_back += size
            if base is not None and base < 0:
                places_left.append(base)
            con.execute("DELETE FROM objects WHERE object = ?", (item,))
        if dead:  # whoever has read a number may still ask for it, and is not to find another
            con.execute(
                """INSERT INTO meta VALUES('last_object', :last) ON CONFLICT(name)
                DO UPDATE SET value = max(CAST(value AS INTEGER), :last)""",
                {"last": dead[-1]},
            )
        self._taint(places_left, [*named, *(-item for item in dead)])

    def _taint(self, places: Sequence[int], owners: Sequence[int]) -> None:
        """Note which tier files hold what was just erased, or a copy that was left in one."""
        con, shelf = self._con, self._engine._shelf
        files = dict(con.execute("SELECT file, state FROM tiers"))
        if not files:
            return
        numbers = {parts_of(place)[0] for place in places}
        worn = [number for number, state in files.items() if state in (FRESH, WORN)]
        numbers.update(shelf.holding(worn, owners, partial(file_facts, con)))
        wear(con, sorted(numbers), TAINTED)
        for place in places:
            with suppress(CorruptionError):  # lost anyway
                self.given_back += shelf.size(place, partial(file_facts, con))

    def _is_used(self, item: int) -> bool:
        return bool(self._con.execute(IS_USED, {"item": item}).get)

    def _written_mark(self, mark: tuple[int, int, int]) -> Written:
        """A mark as readings want it: with the key and vectors of its target."""
        kind, seq, target = mark
        namespace, key, key_id, tx_time, operation, erased = self._con.execute(
            """SELECT s.name, k.key, k.key_id, v.tx_time, v.op, v.erased FROM versions v
            JOIN keys k USING (key_id) JOIN namespaces s USING (ns) WHERE v.seq = ?""",
            (target,),
        ).get
        if operation != PUT or erased is not None:  # it holds nothing that could be found
            namespace = ""
        vectors = [
            (space.space_id, item, None)
            for space in self._spaces_of(namespace)
            for (item,) in self._con.execute(
                "SELECT object FROM vectors WHERE space = ? AND seq = ?", (space.space_id, target)
            )
        ]
        entry = Entry(seq, key_id, kind, tx_time, None, None, None, None, target)
        return Written(namespace, key, entry, vectors)

    def discard(self) -> None:
        """Drop what was gathered since the last flush."""
        for known in (
            self.new_namespaces, self._key_ids, self._objects, self._far, self._spaces,
            self._next,
        ):  # fmt: skip
            known.clear()  # what was flushed is found again by asking
        self._rows.clear()
        self._gathered, self._marks = [], []
        self._unflushed.clear()

    def _add(self, table: str, row: tuple[Any, ...]) -> None:
        rows = self._rows.get(table)
        if rows is None:
            self._rows[table] = [row]
        else:
            rows.append(row)

    def _take(self, table: str, column: str) -> int:
        number = self._next.get(table)
        if number is None:
            number = 1 + (self._con.execute(f"SELECT max({column}) FROM {table}").get or 0)
            if table == "objects":
                number = max(number, 1 + int(self._con.execute(LAST_OBJECT).get or 0))
        self._next[table] = number + 1
        return number

    def _namespace(self, name: str) -> int | None:
        found = self._engine._namespaces.get(name) or self.new_namespaces.get(name)
        if found is None:
            found = self._con.execute("SELECT ns FROM namespaces WHERE name = ?", (name,)).get
            if found is not None:
                self.new_namespaces[name] = found
        return found

    def _namespace_id(self, name: str) -> int:
        found = self._namespace(name)
        if found is None:
            found = self._take("namespaces", "ns")
            self._add("namespaces", (found, name))
            self.new_namespaces[name] = found
            self._unflushed.add(found)
        return found

    def _key_id(self, ns: int, key: str) -> int:
        found = self._key_ids.get((ns, key), _UNKNOWN)
        if found == _UNKNOWN and ns not in self._unflushed:
            found = self._con.execute(
                "SELECT key_id FROM keys WHERE ns = ? AND key = ?", (ns, key)
            ).get
        if found is None or found == _UNKNOWN:
            found = self._take("keys", "key_id")
            self._add("keys", (found, ns, key))
        self._key_ids[ns, key] = found
        return found

    def _object_row(self, identity: bytes) -> int | None:
        found = self._objects.get(identity, _UNKNOWN)
        if found == _UNKNOWN:
            row = self._con.execute(
                "SELECT object, codec FROM objects WHERE id8 = ? AND object_id = ?",
                (first8(identity), identity),
            ).get
            found, codec = row or (None, RAW)
            if found is not None and codec == MOVED:
                self._far.add(found)
        return found

    def _bring_back(self, item: int, codec: int, base: int | None, data: bytes) -> None:
        """What is written again lies in the log again."""
        place = self._con.execute("SELECT base FROM objects WHERE object = ?", (item,)).get
        store_anew(self._con, [(item, codec, base, data)])
        wear(self._con, [parts_of(place)[0]], WORN)
        self._far.discard(item)
        note_laid_anew(self._con)
        self.dirty = True

    def _new_object(self, identity: bytes, codec: int, base: int | None, data: bytes) -> int:
        item = self._take("objects", "object")
        self._add("objects", (item, first8(identity), identity, codec, base, data))
        self._objects[identity] = item
        return item

    def _put_object(self, identity: bytes, body: bytes, key_id: int) -> int:
        found = self._object_row(identity)
        if found is not None:
            if found in self._far:
                codec, base, data = self._pack(body, key_id)
                if base == found:  # it is not to be told by its difference to itself
                    codec, base, data = whole(body)
                self._bring_back(found, codec, base, data)
            return found
        codec, base, data = self._pack(body, key_id)
        return self._new_object(identity, codec, base, data)

    def _pack(self, body: bytes, key_id: int) -> tuple[int, int | None, bytes]:
        """Compress a body, against the key's last whole one when that is much shorter.

        A delta's base is always stored whole, so reading costs two look-ups at most, and never
        in a tier file, so that what is near is read from near.
        """
        row = self._con.execute(
            f"""SELECT coalesce(o.base, o.object) FROM objects o WHERE o.codec <> {MOVED}
            AND o.object = (SELECT object FROM versions WHERE key_id = ? AND object > 0
            ORDER BY seq DESC LIMIT 1)""",
            (key_id,),
        ).get
        if row is not None:
            base = self._object(row)
            delta = compressor(base).compress(body)
            if len(delta) * 4 < len(body):
                return DELTA, row, delta
        return whole(body)

    def _object(self, item: int) -> bytes:
        return load(self._con, self._engine._shelf, item)
