"""The uses of keys by their numbers, kept up to date with the side file."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from koru_delta.lifecycle.holdings import Ids
from koru_delta.lifecycle.sidefile import UsageFile
from koru_delta.lifecycle.usage import LATELY, Floats, Place, Usage
from koru_delta.log import CausalLog
from koru_delta.storage.pace import gently, rest

_AT_ONCE: Final = 500  # keys read together
_FORGOTTEN: Final = 7 * LATELY  # since a use nothing follows it any more
_MOST_UNKNOWN: Final = 1_000
_NAMED_AT_ONCE: Final = 500


class Uses:
    """What is known of uses. Safe to share by threads."""

    def __init__(self, file: UsageFile | None, log: CausalLog) -> None:
        """Without a file nothing was ever used."""
        self._file = file
        self._log = log
        self.begin()
        log.engine.after_fork.append(self.begin)

    def begin(self) -> None:
        """Start with nothing known, as a forked child does."""
        self._lock = threading.Lock()
        self._change = 0
        self._ids: Ids = np.zeros(0, np.int64)
        self._usage = Usage.of([])
        # Used before they were ever written, perhaps.
        self._unknown: tuple[list[Place], Usage] = [], Usage.of([])

    def of(self, ids: Ids) -> tuple[Usage, Ids]:
        """The uses there are by now, and of each of these keys its row in them; -1 is none."""
        with self._lock:
            self._refresh()
            usage, known = self._usage, self._ids
        if not len(known):
            return usage, np.full(len(ids), -1, dtype=np.int64)
        rows = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return usage, np.where(known[rows] == ids, rows, -1)

    def awaited(self, ids: Ids, usage: Usage, rows: Ids, now: int) -> Floats:
        """How probable it is that each key comes after one that was used just now."""
        if self._file is None or not (rows >= 0).any():
            return np.zeros(len(ids))
        found = self._file.followers(now - _FORGOTTEN, now)
        places: set[Place] = set()
        for name, key, after, _ in gently(found):
            places.update(((name, key), (name, after)))
        numbers = numbers_of(self._log, places)
        known = [
            (numbers[name, key], numbers[name, after], times)
            for name, key, after, times in gently(found)
            if (name, key) in numbers and (name, after) in numbers
        ]
        if not known:
            return np.zeros(len(ids))
        first, after, times = np.array(known).T
        rest()
        return awaited(
            ids, rows, usage, first.astype(np.int64), after.astype(np.int64), times, now
        )  # fmt: skip

    def _refresh(self) -> None:
        if self._file is None:
            return
        places, usage = self._unknown
        places, parts, change = list(places), [usage], self._change
        while True:
            before = change
            change, some, usage = self._file.changed(before, _AT_ONCE)
            if change < before:  # another file than it was
                self._change, self._ids, self._usage = 0, np.zeros(0, np.int64), Usage.of([])
                places, parts = [], []
            places += some
            parts.append(usage)
            rest()
            if len(some) < _AT_ONCE:
                break
        self._put(places, parts)
        self._change = change

    def _put(self, places: Sequence[Place], parts: Sequence[Usage]) -> None:
        """Put what is known of these keys now in place of what was; the last counts."""
        if not places:
            return
        numbers = numbers_of(self._log, places)
        usage = Usage.together(parts)
        known: dict[int, int] = {}
        unknown: dict[Place, int] = {}
        for row, place in enumerate(gently(places)):
            if place in numbers:
                known[numbers[place]] = row
            else:
                unknown[place] = row
        kept = dict(list(unknown.items())[-_MOST_UNKNOWN:])
        self._unknown = list(kept), usage.rows(np.fromiter(kept.values(), np.int64, len(kept)))
        rest()
        ids, rows = (np.fromiter(each, np.int64, len(known)) for each in (known, known.values()))
        order = np.argsort(ids)
        ids, rows = ids[order], rows[order]
        self._add(ids[~np.isin(ids, self._ids)])
        rest()
        self._usage.put(np.searchsorted(self._ids, ids), usage.rows(rows))
        rest()

    def _add(self, ids: Ids) -> None:
        """Make room for those that are new; who has the columns by now keeps them as they are."""
        every = np.concatenate([self._ids, ids])
        order = np.argsort(every, kind="stable")
        self._ids = every[order]
        self._usage = self._usage.and_room(len(ids)).rows(order)


def numbers_of(log: CausalLog, places: Iterable[Place]) -> dict[Place, int]:
    """The numbers of those of these keys that there ever were."""
    found: dict[Place, int] = {}
    by_name: dict[str, list[str]] = {}
    for name, key in gently(places):
        by_name.setdefault(name, []).append(key)
    for name, keys in by_name.items():
        for start in gently(range(0, len(keys), _NAMED_AT_ONCE)):
            some = log.engine.key_ids_of(name, keys[start : start + _NAMED_AT_ONCE])
            found.update(((name, key), number) for key, number in some.items())
    return found


def awaited(
    ids: Ids, rows: Ids, usage: Usage, first: Ids, after: Ids, times: Floats, now: int
) -> Floats:
    """How probable it is that each key comes after one that was used just now.

    Args:
        ids: In order.
        rows: Of each key its row in `usage`; -1 is none.
        first, after, times: One after the other was used so often.
    """
    places = [np.minimum(np.searchsorted(ids, each), len(ids) - 1) for each in (first, after)]
    there = (ids[places[0]] == first) & (ids[places[1]] == after) & (rows[places[0]] >= 0)
    source, target, times = places[0][there], places[1][there], times[there]
    lately = 0.5 ** np.minimum(np.maximum(now - usage.last[rows[source]], 0) / LATELY, 1000.0)
    totals = np.bincount(source, weights=times, minlength=len(ids))
    missed = np.log1p(-np.where(lately < 0.01, 0.0, lately * times / (totals[source] + 1.0)))
    return 1.0 - np.exp(np.bincount(target, weights=missed, minlength=len(ids)))
