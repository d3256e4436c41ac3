"""Who wrote each version of a namespace, in which run, and of which key: columns by position.

A reading of the log, caught up from its tail when it is asked. What authors and runs are
called is kept once, a small code per version stands for it; the records are read only
once somebody asks for one or the other. Safe to share by threads.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from koru_delta.log import CausalLog
from koru_delta.log.records import identified_record
from koru_delta.search.seen import Mask, Numbers

Codes = npt.NDArray[np.int32]
_AT_ONCE: Final = 8192  # records in memory at once
_SPARSE: Final = 16  # positions per version of the namespace, from which they are searched for
_NONE: Final = 0  # the code of no author, no run


class Provenance:
    """The puts of one namespace, in log order."""

    def __init__(self, log: CausalLog, namespace: str) -> None:
        self._log = log
        self._namespace = namespace
        self._lock = threading.Lock()  # held to catch up; what is kept out of it never changes
        self._forget()

    def _forget(self) -> None:
        self._read = 0  # up to this position
        self._count = 0
        self._seqs: Numbers = np.empty(0, dtype=np.int64)
        self._keys: Codes = np.empty(0, dtype=np.int32)
        self._key_codes: dict[int, int] = {}
        self._places: Codes | None = np.empty(0, dtype=np.int32)  # by position, from the first
        self._written = {"author": _Names(), "run": _Names()}
        self._counts: tuple[int, int, Numbers] = (-1, 0, np.empty(0, dtype=np.int64))

    def by(self, name: Literal["author", "run"], names: Collection[str], seqs: Numbers) -> Mask:
        """Which of these puts were written by one of these authors, or in one of these runs."""
        if not len(seqs):
            return np.empty(0, dtype=np.bool_)
        with self._lock:
            self._catch_up(int(seqs.max()))
            self._read_records()
            written = self._written[name]
            chosen = np.zeros(len(written.codes_of), dtype=np.bool_)
            known = [written.codes_of[each] for each in names if each in written.codes_of]
            chosen[known] = True
            codes, places = written.codes, self._places_of(seqs)
        found: Mask = chosen[codes[places]]
        return found

    def versions_of_key(self, seqs: Numbers, until: int) -> Numbers:
        """For each of these puts, how many puts its key has had up to a position."""
        if not len(seqs):
            return np.empty(0, dtype=np.int64)
        with self._lock:
            self._catch_up(max(until, int(seqs.max())))
            stop = int(np.searchsorted(self._seqs[: self._count], until, side="right"))
            counted_at, keys, counts = self._counts
            if counted_at != stop or keys != len(self._key_codes):
                counts = np.bincount(self._keys[:stop], minlength=len(self._key_codes))
                self._counts = (stop, len(self._key_codes), counts)
            codes, places = self._keys, self._places_of(seqs)
        found: Numbers = counts[codes[places]]
        return found

    def _catch_up(self, until: int) -> None:
        """Read what was put up to a position; the lock is held, here and below."""
        if until <= self._read:
            return
        head = self._log.head().seq
        fresh = self._log.engine.puts(self._namespace, self._read, head)
        try:
            if fresh:
                self._add(fresh)
            self._read = head
        except BaseException:
            self._forget()  # interrupted; half a reading answers wrongly
            raise

    def _add(self, fresh: Sequence[tuple[int, int]]) -> None:
        """Take up puts, each by its position and key."""
        codes = self._key_codes
        keys = [codes.setdefault(key, len(codes)) for _, key in fresh]
        held, count = self._count, self._count + len(fresh)
        self._seqs = _grown(self._seqs, held, count)
        self._seqs[held:count] = [seq for seq, _ in fresh]
        self._keys = _grown(self._keys, held, count)
        self._keys[held:count] = keys
        self._count = count
        self._place(held)

    def _place(self, held: int) -> None:
        """Note at which positions the puts from number `held` on stand, if that is worth it."""
        first, last = int(self._seqs[0]), int(self._seqs[self._count - 1])
        span = last - first + 1
        if span > _SPARSE * self._count + _AT_ONCE:
            self._places = None
            return
        if self._places is None:
            held, self._places = 0, np.empty(0, dtype=np.int32)
        done = 0 if not held else int(self._seqs[held - 1]) - first + 1
        self._places = _grown(self._places, done, span)
        # Positions in between belong to other namespaces, and are never asked for.
        self._places[self._seqs[held : self._count] - first] = np.arange(held, self._count)

    def _places_of(self, seqs: Numbers) -> npt.NDArray[np.integer[Any]]:
        """Where these puts stand in the columns."""
        if self._places is None:
            return np.searchsorted(self._seqs[: self._count], seqs)
        places: Codes = self._places[seqs - self._seqs[0]]
        return places

    def _read_records(self) -> None:
        """Read who wrote what was put."""
        done = self._written["run"].count
        while done < self._count:
            stop = min(done + _AT_ONCE, self._count)
            seqs: list[int] = self._seqs[done:stop].tolist()
            records = {
                seq: identified_record(seq, identity, stored)
                for seq, identity, stored in self._log.engine.records_at(seqs)
            }
            for name in ("author", "run"):  # `run` last: what it has, both have
                self._written[name].write(done, [records[seq].get(name) for seq in seqs])
            done = stop


class _Names:
    """One text per put, as a code; 0 where there is none."""

    def __init__(self) -> None:
        self.count = 0
        self.codes: Codes = np.empty(0, dtype=np.int32)
        self.codes_of: dict[str | None, int] = {None: _NONE}

    def write(self, start: int, names: Sequence[str | None]) -> None:
        """Add the names of the puts from number `start` on; those beyond it are replaced."""
        codes = self.codes_of
        fresh = [codes.setdefault(name, len(codes)) for name in names]
        stop = start + len(fresh)
        self.codes = _grown(self.codes, start, stop)
        self.codes[start:stop] = fresh
        self.count = stop


def _grown(array: npt.NDArray[Any], held: int, count: int) -> npt.NDArray[Any]:
    """Room for `count` numbers, of which the first `held` are kept.

    An array is never changed where others may look at it: what is added lies beyond.
    """
    if count <= len(array):
        return array
    wider = np.empty(max(count, held + held // 2), dtype=array.dtype)
    wider[:held] = array[:held]
    return wider
