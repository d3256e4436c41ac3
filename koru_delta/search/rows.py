"""Which vectors are visible when: rows in two times, read from the log.

A row says that a slot (a vector) is what a key holds, from one log position to another
and over one interval of valid time. Most keys never have explicit valid times: theirs
are *plain* rows with no valid interval of their own, and what they held at an earlier
valid time is what they held at an earlier position. A key that gets an explicit valid
time is laid out anew as rectangles: an entry takes its interval away from the rows it
overlaps, and what is left of them goes on as new rows of the same slot.

So does a key with a version that is hidden or superseded: its rows end there. What has no
row for that reason is kept as a *piece*, from which later entries take away as from rows;
it is a new row of the same version once it is unhidden. What is superseded and not hidden
has a ghost in the place of its row (`ghosts.py`).

One thread at a time adds rows. `seen()` hands out an immutable view, good for every cut
up to the position read so far: what is added later changes no answer about it, because
only `died` is ever written in place, and only with positions that lie after those cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from koru_delta.causal import DELETE, FOREVER, HIDE, PUT, SUPERSEDE, UNHIDE
from koru_delta.search.ghosts import Ghosts
from koru_delta.search.lookup import ITEM_BYTES, Lookup
from koru_delta.search.seen import ALWAYS, END, PLAIN_ROW, Numbers, Seen
from koru_delta.storage import Entry

_NO_GHOST = -1
_NEVER = 0  # died: it was never there
_RECTANGLE, _RECTANGLE_AHEAD = 0, -1  # the last begins after it was written
_PLAIN = ("born", "died", "slot", "key")
_TIMED = ("valid_from", "valid_to", "expires", "seq", "plain")


@dataclass(slots=True)
class _Piece:
    """What a key holds over an interval of valid time, and search does not show."""

    row: int  # of the same version; it has ended
    interval: tuple[int, int]
    hidden: bool
    superseded: bool
    ghost: int = _NO_GHOST


class Rows:
    """Rows being read from the log, in columns grown by half."""

    def __init__(
        self, slot_of: Callable[[int], int], timeline: Callable[[int], Sequence[Entry]]
    ) -> None:
        """Read slots of vector objects by `slot_of`, all entries of a key by `timeline`."""
        self._slot_of = slot_of
        self._timeline = timeline
        self._count = 0
        self._live = 0
        self._clocked = 0  # of those, how many come or go by the clock
        self._changed = 0
        self._slots = 0
        self._aligned = True
        self._columns = {name: np.empty(64, dtype=np.int64) for name in _PLAIN}
        self._timed = False
        self._first: Numbers | None = None
        self._next: Numbers | None = None
        self._open: Lookup | None = None  # plain keys: the row that nothing has ended
        self._rectangles: dict[int, list[int]] = {}  # keys with valid times: likewise, several
        self._pieces: dict[int, list[_Piece]] = {}  # of some of these, what has no row
        self._ghosts = Ghosts()

    def add(self, entries: Sequence[Entry]) -> None:
        """Take up puts, deletes and marks in log order."""
        if not self._count:  # then they need not be laid out anew when it comes to them
            odd = _odd_keys(entries)
            if odd:
                self._lay_out_anew(odd, 0)
        waiting = iter(entries)
        while (entry := self._add_plain(waiting)) is not None:
            if entry.key_id not in self._rectangles:
                # The entry that makes a mark has been taken up, if it is one of these.
                until = entry.seq - (entry.target is None)
                self._lay_out_anew(_odd_keys(entries) - self._rectangles.keys(), until)
            if entry.target is None:
                self._add_rectangle(entry)
            else:
                self._add_mark(entry)
        if entries:
            self._changed = entries[-1].seq

    def seen(self) -> Seen:
        """What has been read so far."""
        count, columns = self._count, self._columns
        times = {name: columns[name][:count] for name in _TIMED} if self._timed else {}
        return Seen(
            count, self._live, self._changed, self._aligned, self._timed, bool(self._rectangles),
            self._clocked > 0, columns["born"][:count], columns["died"][:count],
            columns["slot"][:count], columns["key"][:count], times,
            None if self._first is None else self._first, self._next, self._ghosts.seen(),
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes of the columns, and of what finds rows in them."""
        chains = [chain for chain in (self._first, self._next) if chain is not None]
        columns = (*self._columns.values(), *chains)
        opened = 0 if self._open is None else self._open.nbytes + self._open.fresh * ITEM_BYTES
        return sum(column.nbytes for column in columns) + self._ghosts.nbytes + opened

    def thin(self) -> None:
        """Let go of what is quickly made again once something is added."""
        self._open = None

    # To a file and back

    def dump(self) -> dict[str, Numbers]:
        """Everything as arrays, by name."""
        count = self._count
        arrays = {name: column[:count] for name, column in self._columns.items()}
        arrays["rectangles"] = np.array(sorted(self._rectangles), dtype=np.int64)
        arrays["facts"] = np.array(
            [self._live, self._changed, self._slots, self._clocked], dtype=np.int64
        )
        arrays["ghosts"] = self._ghosts.dump()
        arrays["pieces"] = np.array(
            [
                (key, piece.row, *piece.interval, piece.hidden, piece.superseded, piece.ghost)
                for key, pieces in self._pieces.items()
                for piece in pieces
            ],
            dtype=np.int64,
        ).reshape(-1)
        return arrays

    def restore(self, arrays: Mapping[str, Numbers]) -> None:
        """Go on from what `dump` gave; the arrays become this object's own."""
        self._columns = {name: arrays[name] for name in (*_PLAIN, *_TIMED) if name in arrays}
        self._count = len(arrays["born"])
        self._timed = "expires" in arrays
        self._live, self._changed, self._slots, self._clocked = (
            int(fact) for fact in arrays["facts"]
        )
        slot = arrays["slot"]
        self._aligned = bool((slot == np.arange(self._count)).all())
        if not self._aligned:
            self._chain_all()
        self._ghosts.restore(arrays["ghosts"])
        self._pieces = {}
        for key, row, starts, ends, hidden, superseded, ghost in (
            arrays["pieces"].reshape(-1, 7).tolist()
        ):
            piece = _Piece(row, (starts, ends), bool(hidden), bool(superseded), ghost)
            self._pieces.setdefault(key, []).append(piece)
        self._open = None  # made when something is added
        self._rectangles = {int(key): [] for key in arrays["rectangles"]}
        if self._rectangles:
            rows = self._open_rows(rectangles=True)
            for key, row in zip(self._columns["key"][rows].tolist(), rows.tolist(), strict=True):
                self._rectangles[key].append(row)

    def erase(self, versions: Numbers) -> tuple[Numbers, Numbers]:
        """Let what these versions (by position) held never have been there.

        No view of these rows may have been handed out. Returns the rows it was, and the slots
        that nothing stands for any more, ascending.
        """
        columns, count = self._columns, self._count
        seqs = columns["seq" if self._timed else "born"][:count]
        died, slot = columns["died"][:count], columns["slot"][:count]
        mine = np.isin(seqs, versions)
        rows = np.flatnonzero(mine)
        held = died > columns["born"][:count]  # else it is gone already
        live = rows[died[rows] == FOREVER]
        self._live -= len(live)
        if self._timed:
            self._clocked -= sum(map(self._is_clocked, live.tolist()))
        used = np.zeros(self._slots, dtype=np.bool_)
        used[slot[held & ~mine]] = True
        lost = np.unique(slot[rows])
        died[rows] = _NEVER
        self._open = None
        for key in set(columns["key"][rows].tolist()) & self._rectangles.keys():
            self._rectangles[key] = [row for row in self._rectangles[key] if not mine[row]]
            left = [piece for piece in self._pieces.pop(key, ()) if not mine[piece.row]]
            if left:
                self._pieces[key] = left
        self._ghosts.erase(mine)
        return rows, lost[~used[lost]]

    def _find_open(self) -> Lookup:
        """For each plain key the row that nothing has ended."""
        if self._open is None:
            rows = self._open_rows(rectangles=False)
            self._open = Lookup(self._columns["key"][rows], rows)
        return self._open

    def _open_rows(self, *, rectangles: bool) -> Numbers:
        """The rows that nothing has ended, of plain keys or of the others."""
        rows = np.flatnonzero(self._columns["died"][: self._count] == FOREVER)
        if not self._rectangles:
            return rows[:0] if rectangles else rows
        others = np.fromiter(self._rectangles, dtype=np.int64, count=len(self._rectangles))
        return rows[np.isin(self._columns["key"][rows], others, invert=not rectangles)]

    # Rows

    def _reserve(self, more: int) -> None:
        wanted, room = self._count + more, len(self._columns["born"])
        if wanted <= room:
            return
        size = max(wanted, room + room // 2)
        self._columns = {n: _wider(column, size) for n, column in self._columns.items()}
        if self._next is not None and self._first is not None:
            # Both, so that a view handed out finds no row in one that the other lacks.
            self._next, self._first = _wider(self._next, size), self._first.copy()

    def _add_plain(self, entries: Iterator[Entry]) -> Entry | None:
        """Take up entries of plain keys, up to the first that is none, which is returned."""
        opened = self._find_open()
        row = self._count
        ended: list[int] = []
        ended_at: list[int] = []
        born: list[int] = []
        slots: list[int] = []
        keys: list[int] = []
        expiring: list[tuple[int, int]] = []
        other: Entry | None = None
        rectangles = self._rectangles
        for entry in entries:
            seq, key, operation, _, valid_from, valid_to, expires, vector, target = entry
            if target is not None and vector is None:
                continue  # nothing here to be marked
            if (
                valid_from is not None
                or valid_to is not None
                or target is not None
                or key in rectangles
            ):
                other = entry
                break
            before = opened.pop(key)
            if before is not None:
                ended.append(before)
                ended_at.append(seq)
            if operation == PUT and vector is not None:
                opened.put(key, row + len(born))
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
                columns["valid_from"][row:end] = ALWAYS
                columns["valid_to"][row:end] = FOREVER
                columns["expires"][row:end] = FOREVER
                columns["seq"][row:end] = born
                columns["plain"][row:end] = PLAIN_ROW
                for at, expires in expiring:
                    columns["expires"][at] = expires
                self._clocked += len(expiring)
            self._count = end
            self._live += len(born)
            self._placed(row, end)
        if ended:
            if self._clocked:
                self._clocked -= int((self._columns["expires"][ended] != FOREVER).sum())
            self._columns["died"][ended] = ended_at
            self._live -= len(ended)
        return other

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
            self._first[held:] = END
        for row, slot in zip(range(start, end), slots.tolist(), strict=True):
            self._next[row] = self._first[slot]
            self._first[slot] = row

    def _chain_all(self) -> None:
        count = self._count
        slots = self._columns["slot"][:count]
        self._first = np.full(2 * self._slots, END, dtype=np.int64)
        self._next = np.full(len(self._columns["born"]), END, dtype=np.int64)
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
            "valid_from": np.full(size, ALWAYS, dtype=np.int64),
            "valid_to": np.full(size, FOREVER, dtype=np.int64),
            "expires": np.full(size, FOREVER, dtype=np.int64),
            "seq": born.copy(),
            "plain": np.full(size, PLAIN_ROW, dtype=np.int64),
        }

    def _append(
        self,
        version: tuple[int, int, int],
        born: int,
        interval: tuple[int, int],
        expires: int,
        *,
        ahead: bool,
    ) -> int:
        """Begin a rectangle of a version (its seq, key and slot); `ahead` if it is not true yet."""
        self._reserve(1)
        row, columns = self._count, self._columns
        columns["seq"][row], columns["key"][row], columns["slot"][row] = version
        columns["born"][row] = born
        columns["died"][row] = FOREVER
        columns["valid_from"][row], columns["valid_to"][row] = interval
        columns["expires"][row] = expires
        columns["plain"][row] = _RECTANGLE_AHEAD if ahead else _RECTANGLE
        self._count += 1
        self._live += 1
        self._clocked += self._is_clocked(row)
        self._placed(row, row + 1)
        return row

    def _is_clocked(self, row: int) -> bool:
        """Whether a row comes or goes by the clock."""
        columns = self._columns
        return bool(
            columns["valid_to"][row] != FOREVER
            or columns["expires"][row] != FOREVER
            or columns["plain"][row] == _RECTANGLE_AHEAD
        )

    def _end(self, row: int, died: int) -> None:
        """End a row that nothing has ended."""
        self._columns["died"][row] = died
        self._live -= 1
        self._clocked -= self._is_clocked(row)

    def _version_of(self, row: int) -> tuple[int, int, int]:
        columns = self._columns
        return int(columns["seq"][row]), int(columns["key"][row]), int(columns["slot"][row])

    def _lay_out_anew(self, keys: set[int], until: int) -> None:
        """Turn plain keys into rectangles, from their first entries to that at `until`."""
        if not self._timed:
            self._begin_times()
        opened = self._find_open()
        for key in keys:
            opened.pop(key)
            self._rectangles[key] = []
        wanted = np.fromiter(keys, dtype=np.int64, count=len(keys))
        columns, count = self._columns, self._count
        theirs = np.isin(columns["key"][:count], wanted)
        mine = np.flatnonzero(theirs & (columns["died"][:count] != _NEVER))
        if not len(mine):
            return
        rows: dict[int, list[int]] = {}
        for key, row in zip(self._columns["key"][mine].tolist(), mine.tolist(), strict=True):
            rows.setdefault(key, []).append(row)
        stay: list[tuple[int, int]] = []  # and when their versions were written
        gone: list[int] = []
        again: list[Entry] = []
        for key, known in rows.items():
            past = [e for e in self._timeline(key) if e.seq <= until and e.operation <= DELETE]
            if len(past) == 1 and len(known) == 1:  # put once: its row can stay where it is
                stay.append((known[0], past[0].tx_time))
                self._rectangles[key] = known
            else:
                gone += known
                again += past
        if stay:
            # Views handed out keep the old column, and for them the other changes nothing.
            columns = self._columns
            columns["plain"] = columns["plain"].copy()
            for row, tx_time in stay:
                columns["valid_from"][row] = tx_time
                columns["plain"][row] = _RECTANGLE
        if gone:
            self._forget(gone)
        for entry in again:
            self._add_rectangle(entry)

    def _forget(self, rows: list[int]) -> None:
        """Let plain rows never have been; views handed out keep the old columns."""
        columns = self._columns
        columns["born"], columns["died"] = columns["born"].copy(), columns["died"].copy()
        live = columns["died"][rows] == FOREVER
        self._live -= int(live.sum())
        self._clocked -= int((live & (columns["expires"][rows] != FOREVER)).sum())
        columns["born"][rows] = FOREVER  # never visible
        columns["died"][rows] = _NEVER

    def _add_rectangle(self, entry: Entry) -> None:
        starts = entry.tx_time if entry.valid_from is None else entry.valid_from
        ends = FOREVER if entry.valid_to is None else entry.valid_to
        key, columns = entry.key_id, self._columns
        left = []
        for row in self._rectangles[key]:
            columns = self._columns
            interval = int(columns["valid_from"][row]), int(columns["valid_to"][row])
            if interval[1] <= starts or ends <= interval[0]:
                left.append(row)
                continue
            self._end(row, entry.seq)
            for rest in _without(interval, starts, ends):
                expires = int(columns["expires"][row])
                ahead = rest[0] > entry.tx_time
                left.append(
                    self._append(self._version_of(row), entry.seq, rest, expires, ahead=ahead)
                )
        if key in self._pieces:
            self._take_from_pieces(key, entry.seq, starts, ends)
        if entry.operation == PUT and entry.vector is not None:
            version = entry.seq, key, self._slot_of(entry.vector)
            expires = FOREVER if entry.expires_at is None else entry.expires_at
            ahead = starts > entry.tx_time
            left.append(self._append(version, entry.seq, (starts, ends), expires, ahead=ahead))
        self._rectangles[key] = left

    # Marks

    def _take_from_pieces(self, key: int, seq: int, starts: int, ends: int) -> None:
        """Take an interval away from what a key holds and search does not show."""
        left = []
        for piece in self._pieces.pop(key):
            if piece.interval[1] <= starts or ends <= piece.interval[0]:
                left.append(piece)
                continue
            if piece.ghost != _NO_GHOST:
                self._ghosts.end(piece.ghost, seq)
            for rest in _without(piece.interval, starts, ends):
                part = replace(piece, interval=rest, ghost=_NO_GHOST)
                self._haunt(part, seq)
                left.append(part)
        if left:
            self._pieces[key] = left

    def _add_mark(self, mark: Entry) -> None:
        """Hide, unhide or supersede what a key still holds of a version."""
        seq, key, kind = mark.seq, mark.key_id, mark.operation
        pieces = self._pieces.pop(key, [])
        rows = self._rectangles[key]
        if kind != UNHIDE:
            for row in self._of(mark, rows):
                self._end(row, seq)
                columns = self._columns
                interval = int(columns["valid_from"][row]), int(columns["valid_to"][row])
                pieces.append(_Piece(row, interval, hidden=False, superseded=False))
                rows.remove(row)
        left = []
        for piece in pieces:
            if self._columns["seq"][piece.row] == mark.target:
                piece.superseded |= kind == SUPERSEDE
                if kind in (HIDE, UNHIDE):
                    piece.hidden = kind == HIDE
                if not piece.hidden and not piece.superseded:
                    expires = int(self._columns["expires"][piece.row])
                    ahead = piece.interval[0] > mark.tx_time
                    rows.append(
                        self._append(
                            self._version_of(piece.row), seq, piece.interval, expires, ahead=ahead
                        )
                    )
                    continue
                self._haunt(piece, seq)
            left.append(piece)
        if left:
            self._pieces[key] = left

    def _of(self, mark: Entry, rows: list[int]) -> list[int]:
        return [row for row in rows if self._columns["seq"][row] == mark.target]

    def _haunt(self, piece: _Piece, seq: int) -> None:
        """Let a piece have a ghost from a position on if it is to have one, else none."""
        wanted = piece.superseded and not piece.hidden
        if wanted and piece.ghost == _NO_GHOST:
            expires = int(self._columns["expires"][piece.row])
            piece.ghost = self._ghosts.add(piece.row, seq, piece.interval, expires)
        elif not wanted and piece.ghost != _NO_GHOST:
            self._ghosts.end(piece.ghost, seq)
            piece.ghost = _NO_GHOST


def _odd_keys(entries: Sequence[Entry]) -> set[int]:
    """The keys of entries that cannot be those of a plain key."""
    return {
        key
        for _, key, _, _, valid_from, valid_to, _, vector, target in entries
        if valid_from is not None
        or valid_to is not None
        or (target is not None and vector is not None)
    }


def _without(interval: tuple[int, int], starts: int, ends: int) -> list[tuple[int, int]]:
    """What is left of an interval of valid time without another one that overlaps it."""
    parts = ((interval[0], starts), (ends, interval[1]))
    return [part for part in parts if part[0] < part[1]]


def _wider(column: Numbers, size: int) -> Numbers:
    wider = np.empty(size, dtype=column.dtype)
    wider[: len(column)] = column
    return wider
