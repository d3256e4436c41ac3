"""Which vectors are visible when: rows in two times, read from the log.

A row says that a slot (a vector) is what a key holds, from one log position to another
and over one interval of valid time. Most keys never have explicit valid times: theirs
are *plain* rows with no valid interval of their own, and what they held at an earlier
valid time is what they held at an earlier position. A key that gets an explicit valid
time is laid out anew as rectangles: an entry takes its interval away from the rows it
overlaps, and what is left of them goes on as new rows of the same slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from koru_delta.causal import FOREVER, PUT, Cut
from koru_delta.storage import Entry

Mask = npt.NDArray[np.bool_]
_ALWAYS = -(2**63)
_NO_SLOT = -1
_COLUMNS = ("born", "died", "valid_from", "valid_to", "expires", "slot", "key", "seq")


class Rows:
    """Rows as columns of int64, grown by doubling; `count` of them are in use.

    `born` inclusive and `died` exclusive are log positions; `valid_from` inclusive,
    `valid_to` exclusive and `expires` exclusive are microseconds.
    """

    def __init__(self, slot_of: Callable[[int], int], timeline: Callable[[int], list[Entry]]):
        """Read slots of vector objects by `slot_of`, all entries of a key by `timeline`."""
        self.count = 0
        self.timed = False  # whether any row has a valid time or an end of life
        self._slot_of = slot_of
        self._timeline = timeline
        self._columns = {name: np.empty(64, dtype=np.int64) for name in _COLUMNS}
        self._plain = np.empty(64, dtype=np.bool_)
        self._open: dict[int, list[int]] = {}  # rows of a key that nothing has ended
        self._timed_keys: set[int] = set()

    def __getitem__(self, name: str) -> npt.NDArray[np.int64]:
        return self._columns[name][: self.count]

    def add(self, entries: Iterable[Entry]) -> None:
        """Take up puts and deletes in log order."""
        for entry in entries:
            if entry.key_id in self._timed_keys:
                self._add_rectangle(entry)
            elif entry.valid_from is None and entry.valid_to is None:
                self._add_plain(entry)
            else:
                self._lay_out_anew(entry)

    def visible(self, cut: Cut, valid_at: int, position: Callable[[int], int]) -> Mask | None:
        """Which rows are what their key holds at a cut and valid time; None is all of them."""
        born, died = self["born"], self["died"]
        if not self.timed and valid_at >= cut.clock:
            return (born <= cut.seq) & (cut.seq < died)
        plain = self._plain[: self.count]
        plain_seq = cut.seq if valid_at >= cut.clock else min(cut.seq, position(valid_at))
        seq: int | npt.NDArray[np.int64] = (
            cut.seq if plain_seq == cut.seq else np.where(plain, plain_seq, cut.seq)
        )
        mask: Mask = (born <= seq) & (seq < died) & (cut.clock < self["expires"])
        if self._timed_keys:
            mask &= (self["valid_from"] <= valid_at) & (valid_at < self["valid_to"])
        return mask

    def _append(self, entry: Entry, slot: int, interval: tuple[int, int], *, plain: bool) -> int:
        row = self.count
        if row == len(self._plain):
            self._columns = {n: np.concatenate([c, c]) for n, c in self._columns.items()}
            self._plain = np.concatenate([self._plain, self._plain])
        columns = self._columns
        columns["born"][row] = entry.seq
        columns["died"][row] = FOREVER
        columns["valid_from"][row], columns["valid_to"][row] = interval
        columns["expires"][row] = FOREVER if entry.expires_at is None else entry.expires_at
        columns["slot"][row] = slot
        columns["key"][row] = entry.key_id
        columns["seq"][row] = entry.seq
        self._plain[row] = plain
        self.timed |= entry.expires_at is not None
        self.count += 1
        return row

    def _slot(self, entry: Entry) -> int:
        if entry.operation != PUT or entry.vector is None:
            return _NO_SLOT
        return self._slot_of(entry.vector)

    def _add_plain(self, entry: Entry) -> None:
        for row in self._open.pop(entry.key_id, ()):
            self._columns["died"][row] = entry.seq
        slot = self._slot(entry)
        if slot != _NO_SLOT:
            self._open[entry.key_id] = [self._append(entry, slot, (_ALWAYS, FOREVER), plain=True)]

    def _lay_out_anew(self, entry: Entry) -> None:
        """Turn a plain key into rectangles, from its first entry to this one."""
        self.timed = True
        self._timed_keys.add(entry.key_id)
        self._open.pop(entry.key_id, None)
        earlier = self["key"] == entry.key_id
        self["born"][earlier] = FOREVER  # never visible again
        for past in self._timeline(entry.key_id):
            if past.seq <= entry.seq:
                self._add_rectangle(past)

    def _add_rectangle(self, entry: Entry) -> None:
        starts = entry.tx_time if entry.valid_from is None else entry.valid_from
        ends = FOREVER if entry.valid_to is None else entry.valid_to
        columns, left = self._columns, []
        for row in self._open.pop(entry.key_id, ()):
            row_from, row_to = int(columns["valid_from"][row]), int(columns["valid_to"][row])
            if row_to <= starts or ends <= row_from:
                left.append(row)
                continue
            columns["died"][row] = entry.seq
            for interval in ((row_from, starts), (ends, row_to)):
                if interval[0] < interval[1]:
                    left.append(self._left_over(row, entry.seq, interval))
                    columns = self._columns
        slot = self._slot(entry)
        if slot != _NO_SLOT:
            left.append(self._append(entry, slot, (starts, ends), plain=False))
        if left:
            self._open[entry.key_id] = left

    def _left_over(self, row: int, born: int, interval: tuple[int, int]) -> int:
        """What an overlapped row keeps of its valid time, from position `born` on."""
        old = {name: int(column[row]) for name, column in self._columns.items()}
        expires = None if old["expires"] == FOREVER else old["expires"]
        entry = Entry(born, old["key"], PUT, 0, None, None, expires, None)
        fresh = self._append(entry, old["slot"], interval, plain=False)
        self._columns["seq"][fresh] = old["seq"]
        return fresh
