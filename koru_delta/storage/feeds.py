"""What readings of the log are made of: entries of a namespace in log order, and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from koru_delta.causal import DELETE, ERASE, FOREVER, HIDE, PUT, SUPERSEDE, UNHIDE
from koru_delta.errors import CorruptionError
from koru_delta.storage.engine import (
    Entry,
    Space,
    chunks,
)
from koru_delta.storage.reader import SqliteReader
from koru_delta.storage.schema import (
    ENTRY,
    ENTRY_MARK,
    GONE,
    SPACES,
)
from koru_delta.values import distinction_id


class SqliteFeeds(SqliteReader):
    """What indexes of vectors, texts and values read, much of it from what was just written."""

    def spaces(self, namespace: str) -> list[Space]:
        """The vector spaces of a namespace, oldest first."""
        generation, (known_at, known) = self.generation(), self._spaces
        if generation == known_at and namespace in known:
            return known[namespace]
        found = [Space(*row) for row in self._rows(SPACES, (namespace,))]
        if not generation & 1 and self.generation() == generation:
            if generation != known_at:
                known = {}
            self._spaces = (generation, {**known, namespace: found})
        return found

    def space_used(self, space: Space) -> int:
        """The place of the first entry with a vector of this space."""
        first: int | None = self._rows(
            "SELECT min(seq) FROM vectors WHERE space = ?", (space.space_id,)
        )[0][0]
        return FOREVER if first is None else first

    def entries(self, space: Space, after: int, *, key_id: int | None = None) -> list[Entry]:
        """Puts, deletes and marks of the space's namespace after a place, in log order.

        With `key_id`, those of one key only, from the first on.
        """
        recent = self._recent
        if key_id is None and recent.at == self.generation() and after >= recent.start:
            return recent.entries(space.namespace, space.space_id, after)
        vector = f"""(SELECT nullif(x.object, {GONE}) FROM vectors x
            WHERE x.space = :space AND x.seq = v.seq)"""
        return self._entries(space.namespace, after, key_id, vector, {"space": space.space_id})

    def records(self, namespace: str, after: int, *, key_id: int | None = None) -> list[Entry]:
        """As `entries`, whatever vectors they carry: each put's `vector` is its own place.

        That of a mark is the place of its target; what was erased has none.
        """
        recent = self._recent
        if key_id is None and recent.at == self.generation() and after >= recent.start:
            return recent.entries(namespace, None, after)
        vector = f"CASE WHEN v.op = {PUT} AND v.erased IS NULL THEN v.seq END"
        return self._entries(namespace, after, key_id, vector, {})

    def _entries(
        self, namespace: str, after: int, key_id: int | None, vector: str, names: dict[str, Any]
    ) -> list[Entry]:
        names |= {"ns": self._namespace(namespace)}
        target = "marks m CROSS JOIN versions v ON v.seq = m.target WHERE m.ns = :ns"
        if key_id is not None:
            source = "versions v WHERE v.key_id = :key"
            target = "versions v CROSS JOIN marks m ON m.target = v.seq WHERE v.key_id = :key"
            names |= {"key": key_id}
        elif after:  # read the end of the log, and look whose keys these are
            source = """versions v CROSS JOIN keys k ON k.key_id = v.key_id
                WHERE v.seq > :after AND k.ns = :ns"""
            target += f" AND m.kind IN ({HIDE}, {UNHIDE}, {SUPERSEDE}) AND m.seq > :after"
            names |= {"after": after}
        else:  # read only this namespace, however long the rest of the log is
            source = "keys k CROSS JOIN versions v ON v.key_id = k.key_id WHERE k.ns = :ns"
        # One statement, and so one moment.
        rows = self._rows(
            f"""{ENTRY.format(vector)} FROM {source} AND v.op <= {DELETE}
            UNION ALL {ENTRY_MARK.format(vector)} FROM {target} AND v.op = {PUT}
                AND m.kind <> {ERASE}""",
            names,
        )
        rows.sort(key=_by_place)
        return [Entry(*row) for row in rows]

    def stored(self, namespace: str) -> int:
        """How many entries there are of a namespace's keys."""
        rows = self._rows(
            """SELECT count(*) FROM keys k CROSS JOIN versions v ON v.key_id = k.key_id
            WHERE k.ns = ?""",
            (self._namespace(namespace),),
        )
        count: int = rows[0][0]
        return count

    def keys_of(self, key_ids: Sequence[int]) -> list[str]:
        """The names of keys, in the order asked for."""
        recent = self._recent.names(key_ids)
        if recent is not None:
            return recent
        found: dict[int, str] = {}
        for some in chunks(key_ids):
            marks = ",".join("?" * len(some))
            found.update(
                self._rows(f"SELECT key_id, key FROM keys WHERE key_id IN ({marks})", tuple(some))
            )
        return [found[key_id] for key_id in key_ids]

    def vectors(self, rows: Sequence[int]) -> list[bytes]:
        """The float32 bytes of vector objects, in the order asked for."""
        recent = self._recent
        if recent.at == self.generation():  # else another may have erased one, and used its number
            known = recent.vectors(rows)
            if known is not None:
                return known
        found: dict[int, bytes] = {}
        far: list[tuple[int, int, bytes]] = []
        for some in chunks(rows):
            marks = ",".join("?" * len(some))
            for item, identity, base, data in self._rows(
                f"SELECT object, object_id, base, data FROM objects WHERE object IN ({marks})",
                tuple(some),
            ):
                if base is None:
                    found[item] = self._checked_vector(identity, data)
                else:
                    far.append((base, item, identity))
        far.sort(reverse=True)  # what is near each other in a tier file together
        for _, item, identity in far:
            found[item] = self._checked_vector(identity, self._object(item))
        try:
            return [found[row] for row in rows]
        except KeyError as error:
            raise CorruptionError(
                f"vector object {error} of {self.directory} is missing; restore a backup"
            ) from error

    def _checked_vector(self, identity: bytes, data: bytes) -> bytes:
        if distinction_id("vec", data) != identity:
            raise CorruptionError(
                f"vector {identity.hex()[:16]} of {self.directory} does not match its "
                "hash; restore a backup"
            )
        return data

    def vectors_at(self, seq: int) -> list[tuple[str, str, int, bytes, bytes]]:
        """What an entry carries: (model, metric, dimensions, vector id, float32 bytes)."""
        rows = self._rows(
            """SELECT p.model, p.metric, p.dimensions, o.object_id, o.base, o.data, o.object
            FROM spaces p CROSS JOIN vectors x ON x.space = p.space AND x.seq = ?
            JOIN objects o ON o.object = x.object ORDER BY p.model""",
            (seq,),
        )
        return [
            (*row[:4], data if base is None else self._object(item))
            for *row, base, data, item in rows
        ]


def _by_place(row: tuple[Any, ...]) -> tuple[int, int]:
    """An entry before the marks it makes."""
    return row[0], row[2]
