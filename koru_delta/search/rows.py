"""Which vectors are visible when: rows in two times, read from the log.

A row says that a slot (a vector) is what a key holds, from one log position to another
and over one interval of valid time. Most keys never have explicit valid times: theirs
are *plain* rows with no valid interval of their own, and what they held at an earlier
valid time is what they held at an earlier position. A key that gets an explicit valid
time is laid out anew as rectangles: an entry takes its interval away from the rows it
overlaps, and what is left of them goes on as new rows of the same slot.

One thread at a time adds rows. `seen()` hands out an immutable view, good for every cut
up to the position read so far: what is added later changes no answer about it, because
only `died` is ever written in place, and only with positions that lie after those cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from koru_delta.causal import FOREVER, PUT, Cut
from koru_delta.storage import Entry

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
_ALWAYS = -(2**63)
_NO_SLOT = -1
_END = -1  # of a chain
_PLAIN = ("born", "died", "slot", "key")
_TIMED = ("valid_from", "valid_to", "expires", "seq", "plain")
_LONG_CHAIN = 64  # rows that share one vector, followed one by one


@dataclass(slots=True, eq=False)  # never changed; `frozen` would make each write dearer
class Seen:
    """The rows as they stood at one position: columns of int64, one number a row.

    `born` inclusive and `died` exclusive are log positions; `valid_from` inclusive,
    `valid_to` exclusive and `expires` exclusive are microseconds. A version's own position
    is `seq`. Columns of times are there only once some row has a valid time or an end of life.
    """

    count: int
    live: int  # rows that nothing has ended
    changed: int  # the last position at which a row was born or died
    aligned: bool  # row i has slot i
    timed: bool
    rectangles: bool  # whether some rows are not plain
    born: Numbers
    died: Numbers
    slot: Numbers
    key: Numbers
    times: Mapping[str, Numbers]
    first: Numbers | None  # of each slot, its newest row; None where aligned
    next: Numbers | None  # of each row, the one before it with the same slot

    @property
    def seq(self) -> Numbers:
        """The position of the version each row belongs to."""
        return self.times["seq"] if self.timed else self.born

    def is_now(self, cut: Cut, valid_at: int) -> bool:
        """Whether exactly the rows that nothing has ended are visible."""
        return not self.timed and cut.seq >= self.changed and valid_at >= cut.clock

    def visible(self, cut: Cut, valid_at: int, position: Callable[[int], int]) -> Mask:
        """Which rows are what their key holds at a cut and valid time."""
        born, died = self.born, self.died
        if not self.timed and valid_at >= cut.clock:
            mask: Mask = died > min(cut.seq, self.changed)
            if len(born) and born[-1] > cut.seq:  # in order, as long as nothing is timed
                mask[int(np.searchsorted(born, cut.seq, side="right")) :] = False
            return mask
        plain_seq = cut.seq if valid_at >= cut.clock else min(cut.seq, position(valid_at))
        if not self.timed:
            return (born <= plain_seq) & (plain_seq < died)
        seq: int | Numbers = (
            cut.seq
            if plain_seq == cut.seq
            else np.where(self.times["plain"] != 0, plain_seq, cut.seq)
        )
        mask = (born <= seq) & (seq < died) & (cut.clock < self.times["expires"])
        if self.rectangles:
            mask &= (self.times["valid_from"] <= valid_at) & (valid_at < self.times["valid_to"])
        return mask

    def steady(self, cut: Cut, valid_at: int) -> tuple[int, int]:
        """From when to when, exclusive, a clock may go on and the same rows are visible.

        With `valid_at` before the clock it stands still, else it goes along.
        """
        if not self.timed:
            return _ALWAYS, FOREVER
        names = ("valid_from", "valid_to", "expires") if valid_at >= cut.clock else ("expires",)
        times = np.concatenate([self.times[name] for name in names])
        past = times <= cut.clock
        low = int(times[past].max(initial=_ALWAYS))
        return low, int(times[~past].min(initial=FOREVER))

    def beginning(self, clock: int) -> int:
        """When a row that is not true yet at a clock will be."""
        if not self.timed:
            return FOREVER
        begins = self.times["valid_from"]
        return int(begins[begins > clock].min(initial=FOREVER))

    def alive(self, rows: Numbers | slice | None = None) -> Mask:
        """Of some rows, or of all, those that nothing had ended at this view's position."""
        died = self.died if rows is None else self.died[rows]
        found: Mask = died > self.changed  # later ends may stand there already
        return found

    def rows_of(self, slots: Numbers, visible: Mask | None) -> Numbers:
        """The visible rows of some distinct slots; with None those that nothing has ended."""
        if self.first is None or self.next is None:
            kept = self.alive(slots) if visible is None else visible[slots]
            return slots[kept]
        rows = self.first[slots]
        found: list[Numbers] = []
        for _ in range(_LONG_CHAIN):
            rows = rows[rows != _END]
            if not len(rows):
                return np.concatenate(found) if found else rows
            known = rows[rows < self.count]  # newer ones are not part of this view
            found.append(known[self.alive(known) if visible is None else visible[known]])
            rows = self.next[rows]
        flagged = np.zeros(len(self.first), dtype=np.bool_)
        flagged[slots] = True
        every = np.flatnonzero(self.alive() if visible is None else visible)
        return every[flagged[self.slot[every]]]

    def slots_of(self, visible: Mask, slots: int) -> Mask:
        """Which of the first `slots` slots have a visible row."""
        if self.aligned:
            return visible
        mask = np.zeros(slots, dtype=np.bool_)
        mask[self.slot[visible]] = True
        return mask


class Rows:
    """Rows being read from the log, in columns grown by doubling."""

    def __init__(
        self, slot_of: Callable[[int], int], timeline: Callable[[int], Sequence[Entry]]
    ) -> None:
        """Read slots of vector objects by `slot_of`, all entries of a key by `timeline`."""
        self._slot_of = slot_of
        self._timeline = timeline
        self._count = 0
        self._live = 0
        self._changed = 0
        self._slots = 0
        self._aligned = True
        self._columns = {name: np.empty(64, dtype=np.int64) for name in _PLAIN}
        self._timed = False
        self._first: Numbers | None = None
        self._next: Numbers | None = None
        self._open: dict[int, int] | None = {}  # plain keys: the row that nothing has ended
        self._rectangles: dict[int, list[int]] = {}  # keys with valid times: likewise, several

    def add(self, entries: Sequence[Entry]) -> None:
        """Take up puts and deletes in log order."""
        entries = [entry for entry in entries if entry.target is None]
        start = 0
        if not self._rectangles:
            start = self._add_plain(entries)
        for entry in entries[start:]:
            if entry.key_id in self._rectangles:
                self._add_rectangle(entry)
            elif entry.valid_from is None and entry.valid_to is None:
                self._add_plain((entry,))
            else:
                self._lay_out_anew(entry)
        if entries:
            self._changed = entries[-1].seq

    def seen(self) -> Seen:
        """What has been read so far."""
        count, columns = self._count, self._columns
        times = {name: columns[name][:count] for name in _TIMED} if self._timed else {}
        return Seen(
            count, self._live, self._changed, self._aligned, self._timed, bool(self._rectangles),
            columns["born"][:count], columns["died"][:count], columns["slot"][:count],
            columns["key"][:count], times, None if self._first is None else self._first,
            self._next,
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        chains = [chain for chain in (self._first, self._next) if chain is not None]
        return sum(column.nbytes for column in (*self._columns.values(), *chains))

    # To a file and back

    def dump(self) -> dict[str, Numbers]:
        """Everything as arrays, by name."""
        count = self._count
        arrays = {name: column[:count] for name, column in self._columns.items()}
        arrays["rectangles"] = np.array(sorted(self._rectangles), dtype=np.int64)
        arrays["facts"] = np.array([self._live, self._changed, self._slots], dtype=np.int64)
        return arrays

    def restore(self, arrays: Mapping[str, Numbers]) -> None:
        """Go on from what `dump` gave; the arrays become this object's own."""
        self._columns = {name: arrays[name] for name in (*_PLAIN, *_TIMED) if name in arrays}
        self._count = len(arrays["born"])
        self._timed = "expires" in arrays
        self._live, self._changed, self._slots = (int(fact) for fact in arrays["facts"])
        slot = arrays["slot"]
        self._aligned = bool((slot == np.arange(self._count)).all())
        if not self._aligned:
            self._chain_all()
        self._open = None  # made when something is added
        self._rectangles = {int(key): [] for key in arrays["rectangles"]}
        if self._rectangles:
            self._find_open()

    def _find_open(self) -> dict[int, int]:
        """For each key the rows that nothing has ended."""
        born, died, key = (self._columns[name][: self._count] for name in ("born", "died", "key"))
        rows = np.flatnonzero((died == FOREVER) & (born != FOREVER))
        found = dict(zip(key[rows].tolist(), rows.tolist(), strict=True))
        if self._rectangles:
            for row in rows.tolist():
                if int(key[row]) in self._rectangles:
                    self._rectangles[int(key[row])].append(row)
            for number in self._rectangles:
                found.pop(number, None)
        self._open = found
        return found

    # Rows

    def _reserve(self, more: int) -> None:
        wanted, room = self._count + more, len(self._columns["born"])
        if wanted <= room:
            return
        size = max(wanted, 2 * room)
        self._columns = {n: _wider(column, size) for n, column in self._columns.items()}
        if self._next is not None and self._first is not None:
            # Both, so that a view handed out finds no row in one that the other lacks.
            self._next, self._first = _wider(self._next, size), self._first.copy()

    def _add_plain(self, entries: Sequence[Entry]) -> int:
        """Take up entries without valid times, up to the first that has one; how many."""
        opened = self._find_open() if self._open is None else self._open
        row = self._count
        ended: list[int] = []
        ended_at: list[int] = []
        born: list[int] = []
        slots: list[int] = []
        keys: list[int] = []
        expiring: list[tuple[int, int]] = []
        taken = 0
        for entry in entries:
            seq, key, operation, _, valid_from, valid_to, expires, vector, _ = entry
            if valid_from is not None or valid_to is not None:
                break
            taken += 1
            before = opened.pop(key, None)
            if before is not None:
                ended.append(before)
                ended_at.append(seq)
            if operation == PUT and vector is not None:
                opened[key] = row + len(born)
                if expires is not None:
                    expiring.append((row + len(born), expires))
                born.append(seq)
                slots.append(self._slot_of(vector))
                keys.append(key)
        if expiring and not self._timed:
            self._begin_times()
        if born:
            self._reserve(len(born))
            end = row + len(born)
            columns = self._columns
            one = len(born) == 1  # a number is put in its place much faster than a list
            where: int | slice = row if one else slice(row, end)
            columns["born"][where] = born[0] if one else born
            columns["died"][where] = FOREVER
            columns["slot"][where] = slots[0] if one else slots
            columns["key"][where] = keys[0] if one else keys
            if self._timed:
                columns["valid_from"][row:end] = _ALWAYS
                columns["valid_to"][row:end] = FOREVER
                columns["expires"][row:end] = FOREVER
                columns["seq"][row:end] = born
                columns["plain"][row:end] = 1
                for at, expires in expiring:
                    columns["expires"][at] = expires
            self._count = end
            self._live += len(born)
            self._placed(row, end)
        if ended:
            self._columns["died"][ended] = ended_at
            self._live -= len(ended)
        return taken

    def _placed(self, start: int, end: int) -> None:
        """Note which slots the new rows have."""
        slots = self._columns["slot"][start:end]
        if self._aligned and end - start == 1 and slots[0] == start:
            self._slots = end
            return
        self._slots = max(self._slots, int(slots.max()) + 1)
        if self._aligned:
            if bool((slots == np.arange(start, end)).all()):
                return
            self._aligned = False
            self._chain_all()
            return
        assert self._first is not None
        assert self._next is not None
        if len(self._first) < self._slots:
            held = len(self._first)
            self._first = _wider(self._first, 2 * self._slots)
            self._first[held:] = _END
        for row, slot in zip(range(start, end), slots.tolist(), strict=True):
            self._next[row] = self._first[slot]
            self._first[slot] = row

    def _chain_all(self) -> None:
        count = self._count
        slots = self._columns["slot"][:count]
        self._first = np.full(2 * self._slots, _END, dtype=np.int64)
        self._next = np.full(len(self._columns["born"]), _END, dtype=np.int64)
        order = np.argsort(slots, kind="stable")
        ordered = slots[order]
        same = ordered[1:] == ordered[:-1]
        self._next[order[1:][same]] = order[:-1][same]
        last = np.flatnonzero(np.append(~same, True)) if count else np.empty(0, dtype=np.int64)
        self._first[ordered[last]] = order[last]

    # Valid times

    def _begin_times(self) -> None:
        """Give every row the columns of times, with what they mean for a plain one."""
        self._timed = True
        size, born = len(self._columns["born"]), self._columns["born"]
        self._columns |= {
            "valid_from": np.full(size, _ALWAYS, dtype=np.int64),
            "valid_to": np.full(size, FOREVER, dtype=np.int64),
            "expires": np.full(size, FOREVER, dtype=np.int64),
            "seq": born.copy(),
            "plain": np.ones(size, dtype=np.int64),
        }

    def _append(self, entry: Entry, slot: int, interval: tuple[int, int]) -> int:
        self._reserve(1)
        row, columns = self._count, self._columns
        columns["born"][row] = columns["seq"][row] = entry.seq
        columns["died"][row] = FOREVER
        columns["valid_from"][row], columns["valid_to"][row] = interval
        columns["expires"][row] = FOREVER if entry.expires_at is None else entry.expires_at
        columns["slot"][row] = slot
        columns["key"][row] = entry.key_id
        columns["plain"][row] = 0
        self._count += 1
        self._live += 1
        self._placed(row, row + 1)
        return row

    def _lay_out_anew(self, entry: Entry) -> None:
        """Turn a plain key into rectangles, from its first entry to this one."""
        if not self._timed:
            self._begin_times()
        if self._open is None:
            self._find_open()
        assert self._open is not None
        self._open.pop(entry.key_id, None)
        self._rectangles[entry.key_id] = []
        earlier = self._columns["key"][: self._count] == entry.key_id
        self._live -= int((earlier & (self._columns["died"][: self._count] == FOREVER)).sum())
        born = self._columns["born"].copy()  # views handed out keep the old one
        born[: self._count][earlier] = FOREVER  # never visible again
        self._columns["born"] = born
        for past in self._timeline(entry.key_id):
            if past.seq <= entry.seq:
                self._add_rectangle(past)

    def _add_rectangle(self, entry: Entry) -> None:
        starts = entry.tx_time if entry.valid_from is None else entry.valid_from
        ends = FOREVER if entry.valid_to is None else entry.valid_to
        left = []
        for row in self._rectangles[entry.key_id]:
            columns = self._columns
            row_from, row_to = int(columns["valid_from"][row]), int(columns["valid_to"][row])
            if row_to <= starts or ends <= row_from:
                left.append(row)
                continue
            columns["died"][row] = entry.seq
            self._live -= 1
            for interval in ((row_from, starts), (ends, row_to)):
                if interval[0] < interval[1]:
                    left.append(self._left_over(row, entry.seq, interval))
        if entry.operation == PUT and entry.vector is not None:
            left.append(self._append(entry, self._slot_of(entry.vector), (starts, ends)))
        self._rectangles[entry.key_id] = left

    def _left_over(self, row: int, born: int, interval: tuple[int, int]) -> int:
        """What an overlapped row keeps of its valid time, from position `born` on."""
        old = {name: int(column[row]) for name, column in self._columns.items()}
        expires = None if old["expires"] == FOREVER else old["expires"]
        entry = Entry(born, old["key"], PUT, 0, None, None, expires, None)
        fresh = self._append(entry, old["slot"], interval)
        self._columns["seq"][fresh] = old["seq"]
        return fresh


def _wider(column: Numbers, size: int) -> Numbers:
    wider = np.empty(size, dtype=column.dtype)
    wider[: len(column)] = column
    return wider
