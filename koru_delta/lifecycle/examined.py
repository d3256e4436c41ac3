"""Which old events belong together, reading each of them once and not all of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from koru_delta.causal import FOREVER, microseconds
from koru_delta.lifecycle.grouping import Consolidate, Event, Vectors, alike, at_path, text_of
from koru_delta.lifecycle.holdings import Held, Ids
from koru_delta.lifecycle.policies import literal_prefix, matching
from koru_delta.log import CausalLog
from koru_delta.storage.pace import gently
from koru_delta.values import canonical_bytes, decode

_EXAMINED: Final = 20_000  # events that are read for the first time in one round, oldest first
_AT_ONCE: Final = 200  # read together
_ROW: Final = np.dtype([("seq", "i8"), ("group", "i8")])
_NONE: Final = 0  # the group of what is not to be taken


class Examined:
    """What is known of the events of one namespace, for one wish."""

    def __init__(self, log: CausalLog, wish: Consolidate) -> None:
        self.wish = wish
        self._log = log
        self._rows: npt.NDArray[Any] = np.zeros(0, _ROW)  # by place
        # By group what was in it when it was found that no part of it is large enough.
        self._apart: dict[int, bytes] = {}

    def groups(
        self,
        held: Held,
        rows: Ids,
        vectors_of: Callable[[Sequence[Event]], Vectors],
        spared: Callable[[str], bool],
    ) -> Iterator[list[Event]]:
        """Events that belong together, in order of time.

        Args:
            held: All that is present, `rows` what of it may be taken.
            spared: Keys that may not be, all the same.
        """
        self._rows = self._rows[np.isin(self._rows["seq"], held.seqs)]
        fresh = rows[~np.isin(held.seqs[rows], self._rows["seq"])]
        self._examine(held, fresh[np.argsort(held.written[fresh], kind="stable")][:_EXAMINED])
        seqs = held.seqs[rows]
        known = self._rows[np.isin(self._rows["seq"], seqs) & (self._rows["group"] != _NONE)]
        order = np.argsort(known["group"], kind="stable")
        known = known[order]
        borders = np.flatnonzero(known["group"][1:] != known["group"][:-1]) + 1
        found: list[list[Event]] = []
        for some in np.split(known, borders):
            if len(some) >= self.wish.at_least:
                group, seqs = int(some["group"][0]), np.sort(some["seq"])
                found += self._parts(group, seqs, vectors_of, spared)
        yield from sorted(found)

    def _parts(
        self,
        group: int,
        seqs: Ids,
        vectors_of: Callable[[Sequence[Event]], Vectors],
        spared: Callable[[str], bool],
    ) -> list[list[Event]]:
        """The events of a group, or the parts of it that are alike; each of enough events."""
        inside = blake3(seqs.tobytes()).digest()
        if self._apart.get(group) == inside:
            return []
        versions = self._log.versions(seqs.tolist())
        events = sorted(
            Event(
                microseconds(version.valid_from),
                version.key,
                version.seq,
                bytes.fromhex(version.id),
            )
            for version in versions
            if not spared(version.key)
        )
        parts = [events]
        if self.wish.alike is not None and len(events) >= self.wish.at_least:
            parts = list(alike(events, vectors_of, self.wish.alike))
        found = [part for part in parts if len(part) >= self.wish.at_least]
        if not found and len(events) == len(versions):
            self._apart[group] = inside
        return found

    def _examine(self, held: Held, rows: Ids) -> None:
        """Read events, and note which group each belongs to."""
        fits, prefix = matching(self.wish.keys), literal_prefix(self.wish.keys)
        made = []
        for start in gently(range(0, len(rows), _AT_ONCE)):
            some = rows[start : start + _AT_ONCE]
            keys = [key for _, key in held.places(some)]
            group = dict.fromkeys(held.seqs[some].tolist(), _NONE)
            mine = [
                seq for seq, key in zip(group, keys, strict=True)
                if key.startswith(prefix) and fits.match(key)
            ]  # fmt: skip
            for entry in gently(self._log.engine.at_many(mine)):
                group[entry.seq] = self._group(entry.body, entry.valid_to, entry.expires_at)
            made += list(group.items())
        fresh = np.array(made, dtype=_ROW)
        every = np.concatenate([self._rows, fresh])
        self._rows = every[np.argsort(every["seq"], kind="stable")]

    def _group(self, body: bytes | None, valid_to: int, expires_at: int) -> int:
        if valid_to != FOREVER or expires_at != FOREVER:
            return _NONE
        value = decode(body or b"null")
        said = [at_path(value, name) for name in self.wish.by]
        if text_of(value, self.wish.text) is None or (self.wish.alike is None and None in said):
            return _NONE
        named = blake3(canonical_bytes(said)).digest(8)
        return int.from_bytes(named, "little", signed=True) or 1
