"""Which keys there are and what is known of each, many at once and by number, for the lifecycle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

from koru_delta.causal import DELETE, FOREVER, PUT
from koru_delta.storage.engine import Presence
from koru_delta.storage.feeds import SqliteFeeds
from koru_delta.storage.reader import LAST_KEY, numbers
from koru_delta.storage.schema import HIDDEN, WINNER

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
        """The numbers of all keys a namespace ever had, in order."""
        rows = self._rows(
            "SELECT key_id FROM keys WHERE ns = ? ORDER BY key_id", (self._namespace(namespace),)
        )
        return [row[0] for row in rows]

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
        """Keys of a namespace that begin so, of numbers above one: number and name."""
        return self._rows(
            """SELECT key_id, key FROM keys WHERE ns = ? AND key >= ? AND key < ? AND key_id > ?
            ORDER BY key_id""",
            (self._namespace(namespace), prefix, prefix + LAST_KEY, after),
        )

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
        return self._rows(
            """SELECT DISTINCT s.name, k.key_id FROM versions v
            CROSS JOIN keys k ON k.key_id = v.key_id CROSS JOIN namespaces s ON s.ns = k.ns
            WHERE v.seq > ? AND v.seq <= ?""",
            (after, until),
        )

    def citations(self, after: int, until: int) -> list[tuple[int, int]]:
        """How many entries of these places may name a version of each key as a cause."""
        return self._rows(
            """SELECT v.key_id, count(*) FROM edges e CROSS JOIN versions v ON v.id8 = e.cause8
            WHERE e.seq > ? AND e.seq <= ? GROUP BY v.key_id""",
            (after, until),
        )
