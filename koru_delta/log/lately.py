"""Versions that were read lately, kept as they were once they matched their hashes.

A version never changes; but its value may be erased. So each is believed only as long as
nothing has been erased in its namespace since it was read, by whatever process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from koru_delta.causal import Version
from koru_delta.storage import Stored

MOST_BYTES: Final = 16 * 1024 * 1024
MOST_AT_ONCE: Final = 64  # of a longer list nothing is kept: somebody goes through all
_LARGEST: Final = MOST_BYTES // 64
_BESIDE: Final = 400  # bytes of a version beside its record and value


# Namespace, last erasure in it when it was read, size, id, record, value: an exact tuple of what
# refers to nothing, which the collector of garbage need not look through.
_Kept = tuple[str, int, int, str, bytes, bytes | None]


class Lately:
    """The versions that were asked for last, by their places. Safe to share by threads.

    Args:
        erased: The place of the last erasure in a namespace.
    """

    def __init__(self, erased: Callable[[str], int]) -> None:
        self._erased = erased
        self.clear()

    def clear(self) -> None:
        """Keep nothing."""
        # When the young have filled their half they become the old, and the old are let go.
        self._young: dict[int, _Kept] = {}
        self._old: dict[int, _Kept] = {}
        self._young_bytes = self._old_bytes = 0

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return self._young_bytes + self._old_bytes

    def find(self, seqs: Sequence[int]) -> list[Version | None]:
        """The versions at these places, None for what is not kept."""
        young, old = self._young, self._old
        erased: dict[str, int] = {}
        found: list[Version | None] = []
        for seq in seqs:
            kept = young.get(seq)
            if kept is None:
                kept = old.get(seq)
                if kept is not None:
                    self._add(seq, kept)
            version = None
            if kept is not None:
                namespace, then, _, identity, record, body = kept
                last = erased.get(namespace)
                if last is None:
                    last = erased[namespace] = self._erased(namespace)
                if last == then:
                    version = Version(seq, identity, record, body)
            found.append(version)
        return found

    def keep(
        self, versions: Sequence[Version], entries: Sequence[Stored], erased: Mapping[str, int]
    ) -> None:
        """Keep versions made of these entries.

        Args:
            erased: The last erasure in each of their namespaces when the entries were read.
        """
        for version, entry in zip(versions, entries, strict=True):
            size = len(entry.record) + len(entry.body or b"") + _BESIDE
            if size <= _LARGEST and not entry.erased:
                namespace = version.namespace
                self._add(
                    entry.seq,
                    (namespace, erased[namespace], size, version.id, entry.record, entry.body),
                )

    def _add(self, seq: int, kept: _Kept) -> None:
        self._young[seq] = kept
        self._young_bytes += kept[2]
        if self._young_bytes > MOST_BYTES // 2:
            self._old, self._old_bytes = self._young, self._young_bytes
            self._young, self._young_bytes = {}, 0
