"""What this process wrote last, kept in memory for the readings that follow the log.

A search right after a write reads its few entries here instead of asking SQLite. It is
believed only while the generation is the one it was written at, that is while nobody else
has written since; and it holds what was committed, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from koru_delta.causal import DELETE, PUT
from koru_delta.storage.engine import Entry

MOST_ENTRIES: Final = 256
_MOST_BYTES: Final = 2 * 1024 * 1024  # of vectors


class Written(NamedTuple):
    """An entry as it was written, with its vectors: (space, object, float32 bytes or None).

    Or a mark, with the namespace, key and vectors of its target.
    """

    namespace: str
    key: str
    entry: Entry
    vectors: Sequence[tuple[int, int, bytes | None]]


class Recent:
    """All that was written after position `start`, as long as the generation is `at`.

    One writer adds at a time. Readers need no lock: what is added lies beyond the position
    that they have read the end of the log at.
    """

    __slots__ = ("_bytes", "_names", "_vectors", "_written", "at", "start")

    def __init__(self, at: int, start: int) -> None:
        self.at = at
        self.start = start
        self._written: list[Written] = []
        self._names: dict[int, str] = {}
        self._vectors: dict[int, bytes] = {}
        self._bytes = 0

    def followed(
        self, before: int, after: int, end: int, written: Sequence[Written] | None
    ) -> Recent:
        """With what was written between two generations; `end` is the end of the log then.

        None stands for more than is kept.
        """
        if written is None:
            return Recent(after, end)
        known = self
        if self.at != before:  # somebody else wrote in between
            if not written:
                return Recent(after, end)
            known = Recent(after, written[0].entry.seq - 1)
        elif len(self._written) + len(written) > MOST_ENTRIES:
            kept = self._written[-MOST_ENTRIES // 4 :]
            # Of the first, the entry may be gone and its marks not.
            start = kept[0].entry.seq if kept else end
            if written and not kept:
                start = written[0].entry.seq - 1
            known = Recent(after, start)
            known._add(kept)
        known._add(written)
        known.at = after
        return known if known._bytes <= _MOST_BYTES else Recent(after, end)

    def _add(self, written: Sequence[Written]) -> None:
        for one in written:
            self._names[one.entry.key_id] = one.key
            for _, item, data in one.vectors:
                if data is not None:
                    self._vectors[item] = data
                    self._bytes += len(data)
        self._written += written

    def entries(self, namespace: str, space: int | None, after: int) -> list[Entry]:
        """As the engine's `entries` of a space, for positions from `start` on.

        Without one as its `records` of a namespace.
        """
        found: list[Entry] = []
        for one in reversed(self._written):
            if one.entry.seq <= after:
                break
            entry = one.entry
            if one.namespace != namespace:
                continue
            if entry.operation > DELETE and entry.target is None:
                continue  # an annotation; what it does to its target comes after it
            if space is not None:
                vector = next((v for of, v, _ in one.vectors if of == space), None)
            elif entry.target is None:
                vector = entry.seq if entry.operation == PUT else None
            else:
                vector = entry.target
            found.append(entry._replace(vector=vector))
        found.reverse()
        return found

    def names(self, key_ids: Sequence[int]) -> list[str] | None:
        """The names of these keys, if all were written lately."""
        known = self._names
        if all(key_id in known for key_id in key_ids):
            return [known[key_id] for key_id in key_ids]
        return None

    def vectors(self, items: Sequence[int]) -> list[bytes] | None:
        """The bytes of these vector objects, if all were written lately."""
        known = self._vectors
        if all(item in known for item in items):
            return [known[item] for item in items]
        return None
