"""Which keys there are and what is known of each, many at once and by number, for the lifecycle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import orjson

from koru_delta.causal import DELETE, FOREVER, PUT
from koru_delta.storage.engine import Presence
from koru_delta.storage.feeds import SqliteFeeds
from koru_delta.storage.pace import rest
from koru_delta.storage.reader import LAST_KEY, numbers
from koru_delta.storage.schema import HIDDEN, WINNER

_AT_ONCE: Final = 1_000  # keys or entries read together
_CHANGES: Final = f"""(SELECT coalesce(min(min(
        CASE WHEN d.valid_from > :clock THEN d.valid_from ELSE {FOREVER} END,
        CASE WHEN d.valid_to > :clock THEN d.valid_to ELSE {FOREVER} END,
        CASE WHEN d.expires_at > :clock THEN d.expires_at ELSE {FOREVER} END)), {FOREVER})
    FROM versions d WHERE d.key_id = k.key_id AND d.seq > :since AND d.seq <= :seq
        AND d.op <= {DELETE})"""
_PRESENT: Final = f"""SELECT k.key_id, v.seq, v.tx_time,
    coalesce((SELECT n.tx_time FROM versions n WHERE n.key_id = k.key_id AND n.seq <= :seq
        ORDER BY n.seq DESC LIMIT 1), 0), {HIDDEN}, {_CHANGES}
    FROM {{}} LEFT JOIN versions v ON v.seq = {WINNER} AND v.op = {PUT} AND v.erased IS NULL
        AND (v.expires_at IS NULL OR v.expires_at > :clock)"""


class SqlitePresence(SqliteFeeds):
    """What is asked of keys by their numbers."""

    def presence(
        self, seq: int, clock: int, key_ids: Sequence[int], *, since: int = 0
    ) -> list[Presence]:
        """What is known at a cut of these keys; `changes` only as entries after `since` tell."""
        source = "json_each(:keys) j CROSS JOIN keys k ON k.key_id = j.value"
        names = {
            "seq": seq, "at": clock, "clock": clock, "since": since, "keys": numbers(key_ids)
        }  # fmt: skip
        return [Presence(*row) for row in self._rows(_PRESENT.format(source), names)]

    def key_ids(self, namespace: str) -> list[int]:
        """The numbers of all keys a namespace ever had, in order of their names."""
        return [number for rows in self._keys(namespace, "", 0) for number, _ in rows]

    def count_keys(self, namespace: str, most: int) -> int:
        """How many keys a namespace ever had, or `most`."""
        count: int = self._rows(
            "SELECT count(*) FROM (SELECT 1 FROM keys WHERE ns = ? LIMIT ?)",
            (self._namespace(namespace), most),
        )[0][0]
        return count

    def key_ids_of(self, namespace: str, keys: Sequence[str]) -> dict[str, int]:
        """The numbers of those of these keys that there ever were."""
        rows = self._rows(
            """SELECT k.key, k.key_id FROM json_each(?) j
            CROSS JOIN keys k ON k.ns = ? AND k.key = j.value""",
            (orjson.dumps(keys).decode(), self._namespace(namespace)),
        )
        return dict(rows)

    def keys_like(self, namespace: str, prefix: str, after: int) -> list[tuple[int, str]]:
        """Keys of a namespace that begin so, of numbers above one: number and name, by name."""
        return [row for rows in self._keys(namespace, prefix, after) for row in rows]

    def _keys(self, namespace: str, prefix: str, after: int) -> Iterator[list[tuple[int, str]]]:
        """The same, of those there are when it begins, some at a time: they may be very many."""
        ns, least = self._namespace(namespace), prefix
        last = self._rows("SELECT max(key_id) FROM keys")[0][0]
        while True:
            rows = self._rows(
                """SELECT key_id, key FROM keys WHERE ns = ? AND key >= ? AND key < ?
                AND key_id > ? AND key_id <= ? ORDER BY key LIMIT ?""",
                (ns, least, prefix + LAST_KEY, after, last, _AT_ONCE),
            )
            yield rows
            if len(rows) < _AT_ONCE:
                return
            least = rows[-1][1] + "\1"  # no name holds a zero, so this is the next there may be
            rest()

    def places_of_keys(self, key_ids: Sequence[int]) -> list[int]:
        """The places of all puts and deletes of these keys."""
        rows = self._rows(
            f"""SELECT v.seq FROM json_each(?) j CROSS JOIN versions v ON v.key_id = j.value
            WHERE v.op <= {DELETE}""",
            (numbers(key_ids),),
        )
        return [row[0] for row in rows]

    def changed_keys(self, after: int, until: int) -> list[tuple[str, int]]:
        """Namespace and number of each key that entries of these places are of."""
        found: dict[tuple[str, int], None] = {}
        for start in range(after, until, _AT_ONCE):
            rows = self._rows(
                """SELECT DISTINCT s.name, k.key_id FROM versions v
                CROSS JOIN keys k ON k.key_id = v.key_id CROSS JOIN namespaces s ON s.ns = k.ns
                WHERE v.seq > ? AND v.seq <= ?""",
                (start, min(start + _AT_ONCE, until)),
            )
            found.update(dict.fromkeys(rows))
            rest()
        return list(found)

    def citations(self, after: int, until: int) -> list[tuple[int, int]]:
        """How many entries of these places may name a version of each key as a cause."""
        return self._rows(
            """SELECT v.key_id, count(*) FROM edges e CROSS JOIN versions v ON v.id8 = e.cause8
            WHERE e.seq > ? AND e.seq <= ? GROUP BY v.key_id""",
            (after, until),
        )
