"""Columns: read once, only as far as asked, and what was handed out stays true."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

import pytest

from koru_delta.search import columns as columns_module
from koru_delta.search.columns import MISSING, Columns, exact_float, look_up, typed_key
from koru_delta.search.filters import compile_filter


class Rows:
    """Rows to load from, which remember what was asked."""

    def __init__(self, values: Sequence[object]) -> None:
        self.values = list(values)
        self.loads: list[tuple[int, int]] = []

    def load(self, start: int, stop: int) -> Sequence[object]:
        self.loads.append((start, stop))
        return self.values[start:stop]


def test_values_filters_hold_equal_share_a_code_and_no_others_do() -> None:
    values = [1, 1.0, True, "1", None, MISSING, [1], [1.0], [True], {"a": 1, "b": 2}]
    values += [{"b": 2, "a": 1.0}, False, 0, -0.0, [], {}, ["a", "b"], ["b", "a"], ""]
    column = Columns(Rows(values).load).column((), len(values))

    assert column.codes.tolist() == [
        *(1, 1, 2, 3, 4, 0, 5, 5, 6, 7),
        *(7, 8, 9, 9, 10, 11, 12, 13, 14),
    ]
    assert len(column.distinct) == 14
    assert column.distinct[3] is None


def test_rows_are_loaded_once_and_only_as_far_as_asked() -> None:
    rows = Rows([{"a": number, "b": {"c": -number}} for number in range(10)])
    columns = Columns(rows.load)

    columns.column(("a",), 4)
    columns.column(("a",), 3)
    columns.column(("a",), 7)
    read = columns.prepare([("a",), ("b", "c"), ("gone",)], 10)

    assert rows.loads == [(0, 4), (4, 7), (0, 10)]
    assert [read[("a",)].distinct[code - 1] for code in read[("a",)].codes] == [*range(10)]
    assert read[("b", "c")].distinct == [-number for number in range(10)]
    assert read[("gone",)].codes.tolist() == [0] * 10
    assert columns.prepare([("a",), ("gone",)], 10).keys() == {("a",), ("gone",)}
    assert len(rows.loads) == 3


def test_many_rows_are_loaded_a_bounded_number_at_a_time() -> None:
    rows = Rows([*range(20_000)])
    column = Columns(rows.load).column((), 20_000)

    assert max(stop - start for start, stop in rows.loads) <= 8192
    assert column.distinct == rows.values


def test_a_column_handed_out_stays_as_it_was_while_others_grow() -> None:
    rows = Rows([*range(50)])
    columns = Columns(rows.load)
    old = columns.column((), 10)
    rows.values[10:] = [*range(5), 2**53 + 1, *range(100, 134)]
    new = columns.column((), 50)

    keys = frozenset([3, 120])
    assert old.among(keys).tolist() == [row == 3 for row in range(10)]
    assert old.where(lambda value: value in keys).tolist() == [row == 3 for row in range(10)]
    assert old.distinct == [*range(10)]
    assert new.among(keys).tolist() == [value in {3, 120} for value in rows.values]
    assert new.among(frozenset([7, 8])).tolist() == [value in {7, 8} for value in rows.values]
    over = compile_filter({"": {"$gt": 4}})
    assert over.over({(): new}, 50).tolist() == [int(str(v)) > 4 for v in rows.values]
    assert over.over({(): old}, 10).tolist() == [row > 4 for row in range(10)]
    with pytest.raises(ValueError, match="read-only"):
        new.codes[0] = 9


def test_a_failed_load_leaves_columns_that_go_on_where_they_stopped() -> None:
    rows = Rows([*range(20_000)])
    fail = True

    def load(start: int, stop: int) -> Sequence[object]:
        if fail and start > 0:
            raise OSError("no such luck")
        return rows.load(start, stop)

    columns = Columns(load)
    with pytest.raises(OSError, match="luck"):
        columns.column((), 20_000)
    assert columns.column((), 8000).distinct == rows.values[:8192]
    fail = False
    assert columns.column((), 20_000).distinct == rows.values
    assert rows.loads == [(0, 8192), (8192, 16384), (16384, 20_000)]


def test_a_load_that_returns_too_few_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="rows 0 to 3 were asked for, got 2 values"):
        Columns(lambda start, stop: [1, 2]).column((), 3)


def test_columns_nobody_uses_make_room_and_come_back_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(columns_module, "_MAX_COLUMNS", 2)
    rows = Rows([{"a": 1, "b": 2, "c": 3}])
    columns = Columns(rows.load)

    for name in ("a", "b", "a", "c", "a"):  # c pushes out b, the one not used of late
        columns.column((name,), 1)
    assert len(rows.loads) == 3
    assert columns.column(("b",), 1).distinct == [2]
    assert len(rows.loads) == 4
    wide = columns.prepare([("a",), ("b",), ("c",)], 1)
    assert [wide[(name,)].distinct for name in "abc"] == [[1], [2], [3]]


def test_numbers_no_float_equals_are_compared_exactly() -> None:
    values = [2**53, 2**53 + 1, 2**53 + 2, float(2**53), "x", True, None, 1.5, MISSING]
    columns = Columns(Rows(values).load)

    for limit in (2**53, 2**53 + 1, float(2**53), 1):
        for name in ("$gt", "$gte", "$lt", "$lte", "$eq"):
            compiled = compile_filter({"": {name: limit}})
            expected = [compiled.matches(value) for value in values]
            assert compiled.mask(columns, len(values)).tolist() == expected


def test_readers_need_no_lock_while_another_thread_catches_up() -> None:
    rows = Rows([{"n": row % 997, "s": f"s{row % 997}"} for row in range(60_000)])
    columns = Columns(rows.load)
    compiled = compile_filter({"n": {"$gte": 500}, "s": {"$in": ["s600", "s700", "s3"]}})
    expected = [row["n"] in {600, 700} for row in rows.values if isinstance(row, dict)]
    readings = columns.prepare(compiled.paths, 100)
    answers: list[bool] = []

    def read() -> None:
        answers.extend(compiled.over(readings, 100).tolist() == expected[:100] for _ in range(300))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for count in range(100, 60_001, 5990):
            columns.prepare(compiled.paths, count)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert answers == [True] * 900
    assert compiled.mask(columns, 60_000).tolist() == expected


def test_paths_lead_through_objects_only() -> None:
    assert look_up({"a": [{"b": 1}]}, ("a", "b")) is MISSING
    assert look_up({"a": [1]}, ("a", "0")) is MISSING
    assert look_up({"a": None}, ("a",)) is None
    assert look_up(7, ()) == 7
    assert look_up(MISSING, ()) is MISSING


def test_typed_keys_tell_arrays_objects_and_booleans_apart() -> None:
    values: list[object] = [[], {}, [[]], [{}], True, [True], 1, [1], "a", ["a"], {"a": 1}, None]
    assert len({typed_key(value) for value in values}) == len(values)


def test_exact_float_is_the_equal_float_or_nothing() -> None:
    assert exact_float(3) == 3.0
    assert exact_float(2**53 + 1) is None
    assert exact_float(10**400) is None
    assert exact_float(True) is None
    assert exact_float("3") is None


def test_strings_in_a_range_are_those_one_by_one_however_many_there_are() -> None:
    words = [f"{a}{b}\ud800{n % 7}"[: 2 + n % 3] for n, (a, b) in enumerate(pairs())]
    values = [word for n, word in enumerate(words) for word in (word, n, [word], None)]
    rows = Rows(values)
    columns = Columns(rows.load)
    filters = [
        compile_filter({"": {operator: limit}})
        for operator in ("$gt", "$gte", "$lt", "$lte", "$prefix")
        for limit in ("", "a", "é", "é\U0001f511", words[500], words[1], "\uffff")
    ]
    early = columns.column((), 900)
    for read in (900, 1_000, 2_500, len(values)):
        for filter in filters:
            mask = filter.mask(columns, read)
            assert mask.tolist() == [filter.matches(value) for value in values[:read]]
    for filter in filters:  # what was handed out knows nothing of later values
        assert filter.over({(): early}, 900).tolist() == [
            filter.matches(value) for value in values[:900]
        ]


def pairs() -> list[tuple[str, str]]:
    """Characters from all over Unicode, in no order."""
    some = [chr(n) for n in (*range(97, 117), *range(0xE0, 0xF4), 0x1F511, 0x1F512)]
    found = [(a, b) for a in some for b in some[::2]]
    return found[::2] + found[1::2]
