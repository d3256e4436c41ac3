"""What a namespace holds, version by version: the reading that text, `query` and `count` share.

Every put is a slot, in log order, whatever it holds; rows say when a slot is what its key
holds (`rows.py`). Columns of values and masks of what passes are kept per slot, so that
what was made for one question serves the next. All of it is a reading of the log: it
follows the log's tail, and can be dropped at any moment.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from koru_delta.causal import FOREVER, PUT, Cut
from koru_delta.log import CausalLog
from koru_delta.search.causality import CompiledCausal, Condition
from koru_delta.search.columns import Column, Columns, Path
from koru_delta.search.filters import CompiledFilter
from koru_delta.search.rows import Rows
from koru_delta.search.seen import Mask, Numbers, Seen
from koru_delta.storage import Entry
from koru_delta.values import Value, decode

_MASKS_KEPT: Final = 64
_MASKS_KEPT_BYTES: Final = 32 * 1024 * 1024
_NAMES_KEPT: Final = 2_000_000
_UNRANKED: Final = 1_000  # slots that go by the names of their keys


@dataclass(slots=True, eq=False)  # never changed; `frozen` would make each write dearer
class RecordReading:
    """The records as of position `seq` of the log."""

    seq: int
    seen: Seen
    seqs: Numbers  # of each slot the position of its version, ascending
    key: Numbers  # and the number of its key

    @property
    def slots(self) -> int:
        """How many puts were read."""
        return len(self.seqs)

    def slots_at(self, seqs: Numbers) -> Numbers:
        """The slots of versions that are known to have one."""
        return np.searchsorted(self.seqs, seqs)


@dataclass(slots=True, eq=False)
class Passing:
    """The slots that are visible and pass, and what was made of them since."""

    mask: Mask  # never changed
    count: int
    low: int  # clocks at which it holds, from this one on
    high: int  # and up to this one, exclusive
    made: dict[Hashable, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Swap:
    """Some keys (by number) to be taken as they were at another moment."""

    keys: Numbers
    cut: Cut
    valid_at: int
    causal: Condition | None = None  # for that moment


class Records:
    """Reads the puts of one namespace. Safe to share by threads."""

    def __init__(self, log: CausalLog, namespace: str) -> None:
        self.log = log
        self.namespace = namespace
        self.lock = threading.RLock()  # held to read the log
        self._columns_lock = threading.Lock()
        self._names: dict[int, str] = {}
        self.epoch = 0  # how often it has begun again
        self.looked_at = 0  # values that were looked at one by one, for want of columns
        self.erased = log.engine.erased(namespace)  # the last erasure it takes account of
        self._stored = 1  # entries there were when that was last counted
        self.forget()

    def forget(self) -> None:
        """Begin again from an empty reading of the log."""
        with self.lock:
            self.epoch += 1
            self._seqs = np.empty(64, dtype=np.int64)
            self._keys = np.empty(64, dtype=np.int64)
            self._held = 0  # slots
            self._next = 0  # slot that will probably be asked for next
            self._rows = Rows(self._slot_of, self._timeline)
            self._ranks = np.empty(0, dtype=np.int32)  # of the keys of the first slots
            self._named = 0  # keys that were sorted by their names since these were made
            with self._columns_lock:
                self._columns = Columns(self._values)
                self._masks: OrderedDict[Hashable, Passing] = OrderedDict()
            self.reading = RecordReading(0, self._rows.seen(), self._seqs[:0], self._keys[:0])

    def follow(self, old: Records) -> None:
        """Go on with the columns that another has read, without what was erased since."""
        reading = old.reading
        gone = self.missing(reading)
        if gone is None:
            return
        with old._columns_lock:
            known = old._columns.without(gone, self._values, moving_up=True)
        with self._columns_lock:
            self._columns = known
        self.looked_at, self._names = old.looked_at, old._names

    def missing(self, reading: RecordReading) -> Numbers | None:
        """The slots of another's reading that have none here: what was erased since.

        The rest have the same order here, without gaps. None if that is not so.
        """
        mine = self.at(reading.seq).seqs
        mine = mine[: int(np.searchsorted(mine, reading.seq, side="right"))]
        gone = np.flatnonzero(~np.isin(reading.seqs, mine))
        return gone if len(mine) + len(gone) == reading.slots else None

    # Reading the log

    def at(self, seq: int) -> RecordReading:
        """A reading that has come at least as far as `seq`."""
        reading = self.reading
        if reading.seq >= seq:
            return reading
        with self.lock:
            if self.reading.seq < seq:
                self._catch_up()
            return self.reading

    def _catch_up(self) -> None:
        head = self.log.head().seq
        before = self.reading
        try:
            entries = self.log.engine.records(self.namespace, before.seq)
            if entries and entries[-1].seq > head:
                entries = [entry for entry in entries if entry.seq <= head]
            self._number(
                [entry for entry in entries if entry.operation == PUT and entry.vector is not None]
            )
            self._rows.add(entries)
            self.reading = RecordReading(
                head, self._rows.seen(), self._seqs[: self._held], self._keys[: self._held]
            )
        except BaseException:
            if self.reading is before:  # interrupted: half a reading answers wrongly
                self.forget()
            raise

    def _timeline(self, key_id: int) -> Sequence[Entry]:
        return self.log.engine.records(self.namespace, 0, key_id=key_id)

    def _number(self, puts: Sequence[Entry]) -> None:
        """Give the next puts their slots, in log order."""
        held, end = self._held, self._held + len(puts)
        if end > len(self._seqs):
            size = max(end, 2 * len(self._seqs))
            self._seqs = _wider(self._seqs[:held], size)
            self._keys = _wider(self._keys[:held], size)
        self._seqs[held:end] = [entry.seq for entry in puts]
        self._keys[held:end] = [entry.key_id for entry in puts]
        self._held, self._next = end, held

    def _slot_of(self, seq: int) -> int:
        following = self._next  # they are asked for in order, but for keys laid out anew
        if following < self._held and self._seqs[following] == seq:
            self._next = following + 1
            return following
        return int(np.searchsorted(self._seqs[: self._held], seq))

    @property
    def is_stale(self) -> bool:
        """Whether something was erased since, that it may hold: then another takes its place."""
        return self.erased != self.log.engine.erased(self.namespace)

    # What is visible

    def passing(
        self,
        reading: RecordReading,
        cut: Cut,
        valid_at: int,
        where: CompiledFilter | None = None,
        causal: Condition | None = None,
        *,
        with_superseded: bool = False,
    ) -> Passing:
        """The slots that a question may find.

        Args:
            with_superseded: Also what a later version supersedes; a condition may ask for
                it too.
        """
        seen = reading.seen
        if causal is not None:
            with_superseded = with_superseded or not causal.exclude_superseded
        goes_along = valid_at >= cut.clock
        name: Hashable = (
            where, None if causal is None else causal.name, with_superseded,
            seen.changed if cut.seq >= seen.changed else cut.seq,
            None if goes_along else valid_at, reading.slots,
        )  # fmt: skip
        planned = valid_at > cut.clock and seen.timed
        if not planned:
            kept = self._masks.get(name)
            if kept is not None and kept.low <= cut.clock < kept.high:
                return kept
        rows = seen.visible(cut, valid_at, self.log.position, superseded=with_superseded)
        mask = seen.slots_of(rows, reading.slots)
        if where is not None:
            with self._columns_lock:
                mask = mask & where.mask(self._columns, reading.slots)
        if causal is not None:
            mask = causal.mask(reading.seqs, mask)
        mask.flags.writeable = False
        low, high = (
            (cut.clock, cut.clock + 1)
            if planned
            else seen.steady(cut, valid_at, superseded=with_superseded)
        )
        made = Passing(mask, int(np.count_nonzero(mask)), low, min(high, FOREVER))
        if not planned:
            self._keep(name, made)
        return made

    def swapped(
        self,
        reading: RecordReading,
        cut: Cut,
        valid_at: int,
        where: CompiledFilter | None,
        causal: CompiledCausal | None,
        swap: Swap,
    ) -> Passing:
        """As `passing`, with some keys as they were at another moment; not kept."""
        now = self.passing(reading, cut, valid_at, where, causal)
        then = self.passing(reading, swap.cut, swap.valid_at, where, swap.causal)
        mask = np.where(np.isin(reading.key, swap.keys), then.mask, now.mask)
        return Passing(mask, int(np.count_nonzero(mask)), cut.clock, cut.clock + 1)

    def _keep(self, name: Hashable, made: Passing) -> None:
        with self._columns_lock:
            self._masks.pop(name, None)
            self._masks[name] = made
            most = max(1, min(_MASKS_KEPT, _MASKS_KEPT_BYTES // max(1, len(made.mask))))
            while len(self._masks) > most:
                self._masks.popitem(last=False)

    def pays(self, paths: Iterable[Path]) -> bool:
        """Whether to answer from columns: they are there, or have become worth reading."""
        with self._columns_lock:
            if self.reading.slots and self._columns.has(paths, self.reading.slots):
                return True
        if self.looked_at < self._stored:
            return False
        self._stored = self.log.engine.stored(self.namespace)
        return self.looked_at >= self._stored

    def columns(self, paths: Sequence[Path], slots: int) -> dict[Path, Column]:
        """What some paths say in slots 0 to `slots`."""
        with self._columns_lock:
            return self._columns.prepare(paths, slots)

    def keys(self, reading: RecordReading, slots: Numbers) -> list[str]:
        """The names of the keys of some slots."""
        return self.names(reading.key[slots].tolist())

    def in_key_order(
        self, reading: RecordReading, slots: Numbers, most: int | None = None
    ) -> Numbers:
        """Some slots, given in ascending order, by their keys: the first `most` of them, or all.

        Once as many names were sorted as there are slots, the place of each key among all is
        kept, and sorting numbers is enough; newer slots are few, and go by their names.
        """
        ranks = self._ranks
        if reading.slots - len(ranks) > max(_UNRANKED, len(ranks) // 8):
            self._named += len(slots)
            if self._named > reading.slots:
                ranks = self._ranks = self._ranked(reading)
                self._named = 0
        ranked, fresh = np.split(slots, [int(np.searchsorted(slots, len(ranks)))])
        if len(ranked):
            places = ranks[ranked]
            if most is not None and len(ranked) > most:
                kept = places < np.partition(places, most)[most]  # each key is there once
                ranked, places = ranked.compress(kept), places.compress(kept)
            ranked = ranked[np.argsort(places)]
        if len(fresh):
            some = np.concatenate([ranked, fresh])
            keys = self.keys(reading, some)
            ranked = some[sorted(range(len(keys)), key=keys.__getitem__)]
        return ranked if most is None else ranked[:most]

    def _ranked(self, reading: RecordReading) -> npt.NDArray[np.int32]:
        """The place of the key of each slot among all keys in order."""
        keys, which = np.unique(reading.key, return_inverse=True)
        names = self.names(keys.tolist())
        ranks = np.empty(len(keys), dtype=np.int32)
        ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(keys))
        return ranks[which]

    def names(self, key_ids: Sequence[int]) -> list[str]:
        """The names of keys, from memory where they are known."""
        known = self._names
        missing = [key_id for key_id in dict.fromkeys(key_ids) if key_id not in known]
        if not missing:
            return [known[key_id] for key_id in key_ids]
        found = dict(zip(missing, self.log.engine.keys_of(missing), strict=True))
        if len(known) < _NAMES_KEPT:
            known.update(found)
        return [found.get(key_id) or known[key_id] for key_id in key_ids]

    def _values(self, start: int, stop: int) -> Sequence[Value]:
        """What filters look at: the values of slots `start` to `stop`."""
        bodies = self.log.engine.bodies(self._seqs[start:stop].tolist())
        return [decode(body or b"null") for body in bodies]

    def statistics(self) -> dict[str, Any]:
        """What is held in memory of this process."""
        seen = self.reading.seen
        return {
            "namespace": self.namespace,
            "rows": seen.count,
            "live": seen.live,
            "slots": self.reading.slots,
            "bytes": {"rows": self._rows.nbytes + self._seqs.nbytes},
        }


def _wider(column: Numbers, size: int) -> Numbers:
    wider = np.empty(size, dtype=np.int64)
    wider[: len(column)] = column
    return wider
