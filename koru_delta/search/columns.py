"""Columnar readings of JSON values: what one path says in every row.

A column keeps each different value once and a small code per row, so a test runs
once per different value and is spread over the rows by one array look-up.
Columns only grow, and only as far as they are asked for; they are a reading of the
log and can be dropped at any time.

Catching up is for one thread at a time: the owner holds a lock around `prepare`
and `column`. A `Column` already handed out stays valid, and needs no lock, while
others catch up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Path = tuple[str, ...]  # keys from the outside in; () is the whole value
Mask = npt.NDArray[np.bool_]  # shape (rows,)

MISSING: Final[object] = object()  # nothing there; JSON's null is a value

_ROWS_PER_LOAD = 8192  # bounds how many decoded documents are in memory at once
_UNSORTED: Final = 256  # new values looked at one by one before all strings are sorted anew
_MAX_COLUMNS = 256  # the least recently used beyond these are dropped, and read again if asked


def look_up(value: object, path: Path) -> object:
    """Follow `path` through objects; `MISSING` where it does not lead anywhere.

    Arrays are not walked into, neither by position nor by element.

    >>> look_up({"a": {"b": 1}}, ("a", "b"))
    1
    """
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


def typed_key(value: object) -> Hashable:
    """A key that two JSON values share exactly when filters hold them equal.

    Integers and floats are one type, at any depth; a boolean is never a number.
    Scalars but booleans are their own key.

    >>> typed_key([1, {"a": 2.0}]) == typed_key([1.0, {"a": 2}])
    True
    >>> typed_key([1]) == typed_key([True])
    False
    """
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list):
        return (list, *map(typed_key, value))
    if isinstance(value, dict):
        return (dict, *((key, typed_key(value[key])) for key in sorted(value)))
    return value


def exact_float(value: object) -> float | None:
    """The float that equals the number `value`, or None if there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number == value else None  # Python compares int to float exactly


@dataclass(frozen=True, slots=True)
class Column:
    """What one path says in rows 0 to `len(codes)`, as it stood when it was read.

    `codes[row]` is 0 where the path is missing; other codes stand for one value each.
    """

    codes: npt.NDArray[np.int32]
    _size: int  # codes in use when this was read; the dictionary may have grown since
    _dictionary: _Dictionary

    @property
    def distinct(self) -> list[object]:
        """The different values (see `typed_key`); the value of code `c` is at `c - 1`.

        Some may be of later rows, where more rows had been read already.
        """
        return self._dictionary.values[1 : self._size]

    def present(self) -> Mask:
        """The rows that have the path at all, null included."""
        rows: Mask = self.codes != 0
        return rows

    def among(self, keys: frozenset[Hashable]) -> Mask:
        """The rows whose value has one of these `typed_key`s."""
        known = (self._dictionary.codes.get(key, 0) for key in keys)
        codes = [code for code in known if 0 < code < self._size]
        if not codes:
            return np.zeros(len(self.codes), dtype=np.bool_)
        if len(codes) == 1:
            rows: Mask = self.codes == codes[0]
            return rows
        chosen = np.zeros(self._size, dtype=np.bool_)
        chosen[codes] = True
        return self._spread(chosen)

    def where(self, holds: Callable[[object], bool]) -> Mask:
        """The rows that have a value for which `holds`; called once per different value."""
        chosen = np.zeros(self._size, dtype=np.bool_)
        chosen[1:] = [holds(value) for value in self.distinct]
        return self._spread(chosen)

    def where_number(
        self, compare: Callable[[npt.NDArray[np.float64]], Mask], holds: Callable[[object], bool]
    ) -> Mask:
        """The rows whose number passes `compare`, which must be false of NaN.

        Integers that no float equals are put to `holds` instead.
        """
        numbers, inexact = self._dictionary.numbers()
        chosen = compare(numbers[: self._size])
        for code in inexact:
            if code < self._size:
                chosen[code] = holds(self._dictionary.values[code])
        return self._spread(chosen)

    def where_string(
        self, span: Callable[[Sequence[str]], tuple[int, int]], holds: Callable[[object], bool]
    ) -> Mask:
        """The rows whose string `holds`, which is so for a span of strings that are in order.

        `span` tells its first place among sorted strings, and its end. Other values never hold.
        """
        ordered, codes, covered = self._dictionary.strings()
        chosen = np.zeros(max(self._size, covered), dtype=np.bool_)
        first, end = span(ordered)
        chosen[codes[first:end]] = True
        fresh = self._dictionary.values[covered : self._size]
        chosen[covered : covered + len(fresh)] = [holds(value) for value in fresh]
        return self._spread(chosen[: self._size])

    def _spread(self, chosen: Mask) -> Mask:
        rows: Mask = np.take(chosen, self.codes)
        return rows


class Columns:
    """The columns of rows that only grow, each read when first asked for.

    Args:
        load: Gives the decoded JSON values of rows start to stop, stop excluded;
            `MISSING` for a row that has no value. Called for rows not read yet.
    """

    def __init__(self, load: Callable[[int, int], Sequence[object]]) -> None:
        self._load = load
        self._growing: dict[Path, _Growing] = {}  # least recently used first

    def prepare(self, paths: Iterable[Path], rows: int) -> dict[Path, Column]:
        """Read `paths` in rows 0 to `rows`, loading every row not yet read once for all.

        If `load` raises, what was read before stays, and the next call goes on from there.
        """
        known = self._growing
        asked = {path: known[path] if path in known else _Growing(path) for path in paths}
        others = [item for item in known.items() if item[0] not in asked]
        room = max(0, _MAX_COLUMNS - len(asked))
        self._growing = dict(others[max(0, len(others) - room) :]) | asked
        self._catch_up([growing for growing in asked.values() if growing.rows < rows], rows)
        return {path: growing.read(rows) for path, growing in asked.items()}

    def has(self, paths: Iterable[Path], rows: int) -> bool:
        """Whether these paths were read before, in most of rows 0 to `rows`."""
        known = self._growing
        return all(path in known and known[path].rows >= rows // 2 for path in paths)

    def without(
        self,
        rows: npt.NDArray[np.int64],
        load: Callable[[int, int], Sequence[object]],
        *,
        moving_up: bool,
    ) -> Columns:
        """Columns without a trace of what some rows held: these are `MISSING` now.

        Args:
            load: As for a new one.
            moving_up: They are no rows any more, and the next ones take their places.
        """
        rest = Columns(load)
        rest._growing = {
            path: growing.without(rows, moving_up=moving_up)
            for path, growing in self._growing.items()
        }
        return rest

    def column(self, path: Path, rows: int) -> Column:
        """Read one path in rows 0 to `rows`."""
        return self.prepare((path,), rows)[path]

    def _catch_up(self, behind: list[_Growing], rows: int) -> None:
        first = min((growing.rows for growing in behind), default=rows)
        for start in range(first, rows, _ROWS_PER_LOAD):
            stop = min(start + _ROWS_PER_LOAD, rows)
            values = self._load(start, stop)
            if len(values) != stop - start:
                raise ValueError(f"rows {start} to {stop} were asked for, got {len(values)} values")
            for growing in behind:
                if growing.rows < stop:
                    growing.append(values[growing.rows - start :])


class _Dictionary:
    """The different values of a column, in order of first appearance; 0 is `MISSING`."""

    def __init__(self) -> None:
        self.values: list[object] = [MISSING]
        self.codes: dict[Hashable, int] = {MISSING: 0}
        self._numbers = (np.full(1, np.nan), list[int]())
        self._strings = (list[str](), np.zeros(0, dtype=np.int64), 1)

    def encode(self, value: object) -> int:
        """The code of `value`, a new one if it is new."""
        key = typed_key(value)
        code = self.codes.get(key)
        if code is None:
            code = len(self.values)
            self.values.append(value)
            self.codes[key] = code
        return code

    def only(self, codes: Iterable[int]) -> _Dictionary:
        """Of the values only those of some codes, of which 0 is the first; numbered anew."""
        rest = _Dictionary()
        for code in codes:
            rest.encode(self.values[code])
        return rest

    def numbers(self) -> tuple[npt.NDArray[np.float64], list[int]]:
        """Per code its number, NaN if it is none; and the codes of integers no float equals.

        Both may be longer than the column asked about: others may have caught up.
        """
        # Replaced as one pair, so a reader never sees half of it; two readers may do the
        # same work twice, which is harmless.
        numbers, inexact = self._numbers
        fresh = self.values[len(numbers) :]
        if fresh:
            floats = [exact_float(value) for value in fresh]
            odd = [
                code
                for code, (value, number) in enumerate(
                    zip(fresh, floats, strict=True), start=len(numbers)
                )
                if number is None and isinstance(value, int) and not isinstance(value, bool)
            ]
            added = np.array(floats, dtype=np.float64)  # None becomes NaN
            numbers, inexact = np.concatenate((numbers, added)), inexact + odd
            self._numbers = (numbers, inexact)
        return numbers, inexact

    def strings(self) -> tuple[list[str], npt.NDArray[np.int64], int]:
        """The strings in order, the code of each, and below which code these are all strings.

        That may be more than the column asked about has, or a few less.
        """
        known = self._strings  # replaced as one, as numbers are
        size = len(self.values)
        if size - known[2] > _UNSORTED:
            codes = [code for code in range(size) if isinstance(self.values[code], str)]
            codes.sort(key=self.values.__getitem__)  # type: ignore[arg-type]
            ordered = [str(self.values[code]) for code in codes]
            known = self._strings = (ordered, np.array(codes, dtype=np.int64), size)
        return known


class _Growing:
    """A column being filled: codes in a buffer that doubles."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._path = path
        self._buffer = np.zeros(0, dtype=np.int32)
        self._dictionary = _Dictionary()

    def append(self, values: Sequence[object]) -> None:
        encode, path = self._dictionary.encode, self._path
        codes = [encode(look_up(value, path)) for value in values]
        stop = self.rows + len(codes)
        if stop > len(self._buffer):
            # Never in place: columns handed out look at the old buffer.
            grown = np.zeros(max(stop, 2 * len(self._buffer)), dtype=np.int32)
            grown[: self.rows] = self._buffer[: self.rows]
            self._buffer = grown
        self._buffer[self.rows : stop] = codes
        self.rows = stop

    def without(self, rows: npt.NDArray[np.int64], *, moving_up: bool) -> _Growing:
        codes, rows = self._buffer[: self.rows].copy(), rows[rows < self.rows]
        if moving_up:
            codes = np.delete(codes, rows)
        else:
            codes[rows] = 0
        used = np.union1d(codes, np.zeros(1, dtype=np.int32))
        rest = _Growing(self._path)
        rest.rows, rest._buffer = len(codes), np.searchsorted(used, codes).astype(np.int32)
        rest._dictionary = self._dictionary.only(used.tolist())
        return rest

    def read(self, rows: int) -> Column:
        codes = self._buffer[:rows]
        codes.flags.writeable = False
        return Column(codes, len(self._dictionary.values), self._dictionary)
