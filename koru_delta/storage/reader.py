"""Reading the log: one statement, and so one moment, for each question.

What is kept in memory holds for one generation (see `generation.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import orjson

from koru_delta.causal import DELETE, FOREVER, GENESIS, PUT
from koru_delta.storage.connections import Connections, Durability
from koru_delta.storage.engine import (
    Candidate,
    Head,
    Shade,
    Space,
    Stored,
    StoredCommit,
    chunks,
)
from koru_delta.storage.generation import Generation
from koru_delta.storage.recent import Recent
from koru_delta.storage.schema import (
    ANY_HIDDEN,
    BLOCK,
    CANDIDATES,
    COMMITS,
    EFFECTS,
    ERASED,
    ERASED_BETWEEN,
    HIDDEN,
    LACKS,
    PLACES,
    RECORDS_AT,
    SEQ_OF,
    SHADE,
    STORED,
    VISIBLE,
    WINNER,
    first8,
    read_stored,
    shade_of,
    unpack,
)
from koru_delta.storage.shelf import Facts, MissingError, Shelf
from koru_delta.values import MAX_KEY_BYTES

LAST_KEY = "\U0010ffff" * (MAX_KEY_BYTES // 4 + 1)  # longer than any key


class SqliteReader(Connections):
    """What can be asked of the rows of one log."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        durability: Durability,
        read_only: bool,
        lock_timeout_seconds: float,
        cache_bytes: int,
    ) -> None:
        super().__init__(
            path, durability=durability, read_only=read_only,
            lock_timeout_seconds=lock_timeout_seconds, cache_bytes=cache_bytes,
        )  # fmt: skip
        self._generation: Generation | None = None  # until it is opened
        self._namespaces: dict[str, int] = {}
        self._known: tuple[int, Head] | None = None  # the head at a generation
        self._spaces: tuple[int, dict[str, list[Space]]] = (0, {})  # likewise
        self._erased: tuple[int, dict[str, int]] = (0, {})  # likewise, by namespace
        self._recent = Recent(-1, 0)  # no generation yet
        self._shelf = Shelf(self.directory)

    def _release(self) -> None:
        super()._release()
        if self._generation is not None:
            self._generation.close()

    def _forget(self) -> None:
        self._known = None
        self._recent = Recent(-1, 0)
        self._shelf = Shelf(self.directory)

    def cells(self) -> memoryview | None:
        """The generation's shared memory (see `generation.py`), or None without one."""
        return None if self._generation is None else self._generation.cells

    def generation(self) -> int:
        """The counter of `generation.py`; odd means: ask, and do not cache."""
        return 1 if self._generation is None else self._generation.cells[0]

    def head(self) -> Head:
        """The end of the log, over all processes."""
        before, known = self.generation(), self._known
        if known is not None and before == known[0]:
            return known[1]
        with self._reading() as con:
            head = read_head(con)
        if not before & 1 and self.generation() == before:
            self._known = (before, head)
        return head

    def last_time(self) -> int:
        """The time of the last commit of any process."""
        if self._generation is not None and not self._generation.cells[0] & 1:
            noted = self._generation.cells[1]
            if noted:  # else the file is younger than the log
                return noted
        return self.head().tx_time

    def _known_head(self, con: apsw.Connection, generation: int) -> Head:
        known = self._known
        return known[1] if known is not None and known[0] == generation else read_head(con)

    def _namespace(self, name: str) -> int | None:
        found = self._namespaces.get(name)
        if found is None:
            rows = self._rows("SELECT ns FROM namespaces WHERE name = ?", (name,))
            if not rows:
                return None
            found = self._namespaces[name] = rows[0][0]
        return found

    def _stored(self, row: tuple[Any, ...]) -> Stored:
        try:
            return read_stored(row, self._object)
        except MissingError:  # erased or moved since the row was read, perhaps
            rows = self._rows(
                f"SELECT {STORED}, v.body, v.object, ? FROM versions v WHERE v.seq = ?",
                (row[-1], row[0]),
            )
            if rows[0][-2] == row[-2]:
                raise
            return self._stored(rows[0])

    def _all_stored(self, rows: Sequence[tuple[Any, ...]], skip: int = 0) -> list[Stored]:
        """Many such rows, without their first columns; neighbours in tier files together."""
        found: list[Stored | None] = [None] * len(rows)
        for number in _by_places([row[-2] for row in rows]):
            found[number] = self._stored(rows[number][skip:])
        return found  # type: ignore[return-value]

    def _object(self, item: int) -> bytes:
        """The bytes of an object, wherever they lie."""
        if item < 0:
            return self._shelf.read(item, self._file_facts)
        told: Any = None
        while True:
            rows = self._rows("SELECT codec, base, data FROM objects WHERE object = ?", (item,))
            if not rows:
                raise MissingError(f"object {item} of {self.directory} is missing; run: verify")
            codec, base, data = rows[0]
            try:
                return unpack(codec, data, None if base is None else self._object(base))
            except MissingError:  # what it is told by was erased or moved meanwhile, perhaps
                if told == (codec, base):
                    raise
                told = codec, base

    def _file_facts(self, number: int) -> Facts | None:
        rows = self._rows("SELECT tier, root FROM tiers WHERE file = ?", (number,))
        return rows[0] if rows else None

    # Keys at a cut

    def visible(self, namespace: str, key: str, seq: int, valid_at: int) -> Stored | None:
        """The put or delete of greatest seq up to `seq` whose valid interval holds `valid_at`."""
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return None
        rows = self._rows(VISIBLE, {"ns": ns, "key": key, "seq": seq, "at": valid_at})
        return self._stored(rows[0]) if rows else None

    def visible_keys(
        self,
        namespace: str,
        seq: int,
        valid_at: int,
        clock: int,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        bodies: bool = True,
        hidden: bool = True,
        erased: bool = False,
    ) -> list[tuple[str, Stored]]:
        """Present keys in order, from `prefix` on, with what each holds at the cut.

        Those whose version there was erased are left out unless `erased`, and those whose
        version there is hidden unless `hidden`.
        """
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return []
        body = "v.body, v.object" if bodies else "NULL, NULL"
        shown = "" if hidden or not self._any_hidden(ns, seq) else f"AND NOT {HIDDEN}"
        rows = self._rows(
            f"""SELECT k.key, {STORED}, {body}, 0 FROM keys k
            CROSS JOIN versions v ON v.seq = {WINNER}
            WHERE k.ns = :ns AND k.key >= :prefix AND k.key < :end AND k.key > :after
            AND v.op = {PUT} {"" if erased else "AND v.erased IS NULL"}
            AND (v.expires_at IS NULL OR v.expires_at > :clock) {shown}
            ORDER BY k.key LIMIT :limit""",
            {
                "ns": ns, "seq": seq, "at": valid_at, "clock": clock, "prefix": prefix,
                "end": prefix + LAST_KEY, "after": "" if after is None else after,
                "limit": -1 if limit is None else limit,
            },
        )  # fmt: skip
        stored = self._all_stored(rows, skip=1)
        return [(row[0], entry) for row, entry in zip(rows, stored, strict=True)]

    def count_visible(self, namespace: str, seq: int, valid_at: int, clock: int) -> int:
        """How many keys are present at the cut, with a version not hidden there, nor erased."""
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return 0
        shown = f"AND NOT {HIDDEN}" if self._any_hidden(ns, seq) else ""
        count: int = self._rows(
            f"""SELECT count(*) FROM keys k CROSS JOIN versions v ON v.seq = {WINNER}
            WHERE k.ns = :ns AND v.op = {PUT} AND v.erased IS NULL
            AND (v.expires_at IS NULL OR v.expires_at > :clock) {shown}""",
            {"ns": ns, "seq": seq, "at": valid_at, "clock": clock},
        )[0][0]
        return count

    def _any_hidden(self, ns: int, seq: int) -> bool:
        """Whether any version of a namespace was ever hidden, up to `seq`."""
        return bool(self._rows(ANY_HIDDEN, (ns, seq))[0][0])

    def namespaces(self, seq: int, valid_at: int, clock: int, *, hidden: bool) -> list[str]:
        """Namespaces with a key present at the cut, in order."""
        rows = self._rows(
            f"""SELECT name FROM namespaces s WHERE EXISTS (
                SELECT 1 FROM keys k CROSS JOIN versions v ON v.seq = {WINNER}
                WHERE k.ns = s.ns AND v.op = {PUT}
                AND (v.expires_at IS NULL OR v.expires_at > :clock))
            ORDER BY name""",
            {"seq": seq, "at": valid_at, "clock": clock},
        )
        return [name for (name,) in rows if hidden or not name.startswith("$")]

    def shade(self, seq: int, until: int) -> Shade:
        """What marks up to place `until` have made of the version at `seq`."""
        return shade_of(self._rows(SHADE, (seq, until)))

    def marks_at(self, seq: int) -> list[tuple[int, bytes]]:
        """What an entry does to other versions: kind and id of each."""
        return self._rows(
            """SELECT m.kind, v.version_id FROM marks m JOIN versions v ON v.seq = m.target
            WHERE m.seq = ?""",
            (seq,),
        )

    def lacks(self, namespace: str, seq: int, valid_at: int, clock: int) -> bool:
        """Whether some key holds at the cut and valid time what was erased."""
        ns = self._namespace(namespace)
        if ns is None:
            return False
        names = {"ns": ns, "seq": seq, "at": valid_at, "clock": clock}
        return bool(self._rows(LACKS.format(WINNER), names)[0][0])

    # Entries

    def key_versions(
        self,
        namespace: str,
        key: str,
        seq: int,
        *,
        reverse: bool,
        limit: int | None,
        annotations: bool = False,
    ) -> list[Stored]:
        """All puts and deletes of a key up to `seq`, oldest first unless `reverse`.

        With `annotations`, what was said of them as well.
        """
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return []
        rows = self._rows(
            f"""SELECT {STORED}, v.body, v.object, 0 FROM versions v
            WHERE v.key_id = (SELECT key_id FROM keys WHERE ns = ? AND key = ?)
            AND v.seq <= ? {"" if annotations else f"AND v.op <= {DELETE}"}
            ORDER BY v.seq {"DESC" if reverse else "ASC"} LIMIT ?""",
            (ns, key, seq, -1 if limit is None else limit),
        )
        return self._all_stored(rows)

    def at(self, seq: int) -> Stored | None:
        rows = self._rows(
            f"SELECT {STORED}, v.body, v.object, 0 FROM versions v WHERE v.seq = ?", (seq,)
        )
        return self._stored(rows[0]) if rows else None

    def at_many(self, seqs: Sequence[int]) -> list[Stored]:
        """The entries at these places, in the order asked for; each must exist."""
        found: dict[int, Stored] = {}
        for some in chunks(seqs):
            marks = ",".join("?" * len(some))
            rows = self._rows(
                f"SELECT {STORED}, v.body, v.object, 0 FROM versions v WHERE v.seq IN ({marks})",
                tuple(some),
            )
            found.update((entry.seq, entry) for entry in self._all_stored(rows))
        return [found[seq] for seq in seqs]

    def bodies(self, seqs: Sequence[int]) -> list[bytes | None]:
        """The values of the entries at these places, in the order asked for."""
        found: dict[int, bytes | None] = {}
        for some in chunks(seqs):
            marks = ",".join("?" * len(some))
            rows = self._rows(
                f"SELECT seq, body, object FROM versions WHERE seq IN ({marks})", tuple(some)
            )
            for number in _by_places([item for _, _, item in rows]):
                seq, body, item = rows[number]
                try:
                    found[seq] = body if item is None else self._object(item)
                except MissingError:
                    entry = self.at(seq)  # erased or moved since, perhaps
                    found[seq] = None if entry is None else entry.body
        return [found[seq] for seq in seqs]

    def scan(
        self, after: int, until: int, limit: int, *, bodies: bool = True
    ) -> list[tuple[str, str, Stored]]:
        """Entries in log order, `after` exclusive, `until` inclusive, with their key's name."""
        body = "v.body, v.object" if bodies else "NULL, NULL"
        rows = self._rows(
            f"""SELECT s.name, k.key, {STORED}, {body}, 0 FROM versions v
            LEFT JOIN keys k ON k.key_id = v.key_id LEFT JOIN namespaces s ON s.ns = k.ns
            WHERE v.seq > ? AND v.seq <= ? ORDER BY v.seq LIMIT ?""",
            (after, until, limit),
        )
        stored = self._all_stored(rows, skip=2)
        return [(*row[:2], entry) for row, entry in zip(rows, stored, strict=True)]

    def ids_like(self, prefix: str, until: int = FOREVER) -> list[tuple[int, bytes]]:
        """Up to two entries up to a place whose id starts with these hex digits (at least one)."""
        low, high = (
            int.from_bytes(bytes.fromhex(prefix[:16].ljust(16, fill)), "big", signed=True)
            for fill in "0f"
        )
        rows = self._rows(
            "SELECT seq, version_id FROM versions WHERE id8 BETWEEN ? AND ? AND seq <= ?",
            (low, high, until),
        )
        return [(seq, found) for seq, found in rows if found.hex().startswith(prefix)][:2]

    def seq_of(self, version_id: bytes) -> int | None:
        rows = self._rows(SEQ_OF, (first8(version_id), version_id))
        return rows[0][0] if rows else None

    def effects(self, version_id: bytes, seq: int) -> list[int]:
        """Places up to `seq` of the entries that may name this one as a cause, in order."""
        rows = self._rows(
            "SELECT seq FROM edges WHERE cause8 = ? AND seq <= ? ORDER BY seq",
            (first8(version_id), seq),
        )
        return [row[0] for row in rows]

    def effects_many(self, version_ids: Sequence[bytes], seq: int) -> list[int]:
        """Places up to `seq` of the entries that may name one of these as a cause, in order."""
        rows = self._rows(EFFECTS, {"ids": numbers(map(first8, version_ids)), "seq": seq})
        return sorted({row[0] for row in rows})

    def places_of(self, version_ids: Sequence[bytes]) -> dict[bytes, int]:
        """The places of those of these entries that there are."""
        wanted = set(version_ids)
        rows = self._rows(PLACES, (numbers(map(first8, wanted)),)) if wanted else []
        return {identity: seq for seq, identity in reversed(rows) if identity in wanted}

    def records_at(self, seqs: Sequence[int]) -> list[tuple[int, bytes, bytes]]:
        """What the entries at these places are: (place, id, record), not always in order."""
        return self._rows(RECORDS_AT, (numbers(seqs),)) if seqs else []

    def key_places(self, namespace: str, key: str, seq: int) -> list[int]:
        """The places of all puts and deletes of a key up to `seq`, in order."""
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return []
        rows = self._rows(
            f"""SELECT v.seq FROM versions v
            WHERE v.key_id = (SELECT key_id FROM keys WHERE ns = ? AND key = ?)
            AND v.seq <= ? AND v.op <= {DELETE} ORDER BY v.seq""",
            (ns, key, seq),
        )
        return [row[0] for row in rows]

    def puts(self, namespace: str, after: int, until: int) -> list[tuple[int, int]]:
        """Puts of a namespace, `after` exclusive, `until` inclusive: (place, key), in order."""
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return []
        # As in `entries`: the end of the log, or only this namespace.
        source = (
            "versions v CROSS JOIN keys k ON k.key_id = v.key_id"
            if after
            else "keys k CROSS JOIN versions v ON v.key_id = k.key_id"
        )
        rows = self._rows(
            f"""SELECT v.seq, v.key_id FROM {source}
            WHERE v.seq > ? AND v.seq <= ? AND k.ns = ? AND v.op = {PUT}""",
            (after, until, ns),
        )
        rows.sort()
        return rows

    def candidates(self, namespace: str, time: int, *, last: int) -> list[Candidate]:
        """Puts out of use by a time, in log order, but for the `last` entries of each key."""
        ns = self._namespace(namespace)
        if ns is None:
            self._check_open()
            return []
        rows = self._rows(CANDIDATES, {"ns": ns, "time": time, "last": last})
        return [Candidate(*row) for row in rows]

    def timeline(self, key_id: int) -> list[tuple[int, int, int, int, int, int]]:
        """A key's puts and deletes: place, operation, time, validity and end of life, in order."""
        return self._rows(
            f"""SELECT v.seq, v.op, v.tx_time, coalesce(v.valid_from, v.tx_time),
            coalesce(v.valid_to, {FOREVER}), coalesce(v.expires_at, {FOREVER}) FROM versions v
            WHERE v.key_id = ? AND v.op <= {DELETE} ORDER BY v.seq""",
            (key_id,),
        )

    def erased(self, namespace: str) -> int:
        """The place of the last entry that erased something in a namespace; 0 if none did."""
        generation, (known_at, known) = self.generation(), self._erased
        if generation == known_at and namespace in known:
            return known[namespace]
        found: int = self._rows(ERASED, (namespace,))[0][0] or 0
        if not generation & 1 and self.generation() == generation:
            if generation != known_at:
                known = {}
            self._erased = (generation, {**known, namespace: found})
        return found

    def erased_between(self, namespace: str, after: int, until: int) -> list[int]:
        """What entries after a place, up to another, erased in a namespace: the places of it."""
        rows = self._rows(ERASED_BETWEEN, (self._namespace(namespace), after, until))
        return [row[0] for row in rows]

    # Commits

    def commit_at(self, tx_time: int) -> StoredCommit | None:
        """The last commit at or before `tx_time`."""
        rows = self._rows(
            f"{COMMITS} WHERE c.tx_time <= ? ORDER BY c.tx_time DESC LIMIT 1", (tx_time,)
        )
        return StoredCommit(*rows[0]) if rows else None

    def commits(
        self, *, after: int, until: int, reverse: bool, limit: int | None
    ) -> list[StoredCommit]:
        """Commits by time, `after` exclusive, `until` inclusive."""
        rows = self._rows(
            f"{COMMITS} WHERE c.tx_time > ? AND c.tx_time <= ? "
            f"ORDER BY c.tx_time {'DESC' if reverse else 'ASC'} LIMIT ?",
            (after, until, -1 if limit is None else limit),
        )
        return [StoredCommit(*row) for row in rows]

    def commit_roots(self, start: int, stop: int) -> list[bytes]:
        """Chained roots of the commits numbered `start` to `stop`, exclusive."""
        roots: list[bytes] = []
        for block in range(start // BLOCK, (stop + BLOCK - 1) // BLOCK):
            rows = self._rows(
                """SELECT number, root FROM commits
                WHERE tx_time >= (SELECT tx_time FROM blocks WHERE block = ?)
                ORDER BY tx_time LIMIT ?""",
                (block, BLOCK),
            )
            roots += [root for number, root in rows if start <= number < stop]
        return roots


def _by_places(items: Sequence[int | None]) -> list[int]:
    """In which order to read objects: what is near each other in a tier file together."""
    order = list(range(len(items)))
    if any(item is not None and item < 0 for item in items):
        order.sort(key=lambda number: items[number] or 0)
    return order


def numbers(numbers: Iterable[int]) -> str:
    """Integers as a JSON array, for a statement that takes any number of them."""
    return orjson.dumps(list(numbers)).decode()


def read_head(con: apsw.Connection) -> Head:
    """The end of the log."""
    row = con.execute(
        "SELECT last_seq, number + 1, tx_time, root FROM commits ORDER BY tx_time DESC LIMIT 1"
    ).get
    return Head(0, 0, 0, GENESIS) if row is None else Head(*row)
