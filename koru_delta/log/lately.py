"""Versions that were read lately, kept as they were once they matched their hashes.

A version never changes; but its value may be erased. So each is believed only as long as
nothing has been erased in its namespace since it was read, by whatever process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from koru_delta.causal import Version
from koru_delta.storage import Stored

MOST_BYTES: Final = 16 * 1024 * 1024
MOST_AT_ONCE: Final = 64  # of a longer list nothing is kept: somebody goes through all
_LARGEST: Final = MOST_BYTES // 64
_BESIDE: Final = 600  # bytes of a version beside its value: its record, decoded


class _Kept(NamedTuple):
    version: Version
    namespace: str
    erased: int  # the last erasure in it when it was read
    size_bytes: int


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
            if kept is not None:
                last = erased.get(kept.namespace)
                if last is None:
                    last = erased[kept.namespace] = self._erased(kept.namespace)
                if last != kept.erased:
                    kept = None
            found.append(None if kept is None else kept.version)
        return found

    def keep(
        self, versions: Sequence[Version], entries: Sequence[Stored], erased: Mapping[str, int]
    ) -> None:
        """Keep versions made of these entries.

        Args:
            erased: The last erasure in each of their namespaces when the entries were read.
        """
        for version, entry in zip(versions, entries, strict=True):
            size = len(entry.body or b"") + _BESIDE
            if size <= _LARGEST:
                namespace = version.namespace
                self._add(entry.seq, _Kept(version, namespace, erased[namespace], size))

    def _add(self, seq: int, kept: _Kept) -> None:
        self._young[seq] = kept
        self._young_bytes += kept.size_bytes
        if self._young_bytes > MOST_BYTES // 2:
            self._old, self._old_bytes = self._young, self._young_bytes
            self._young, self._young_bytes = {}, 0
