"""The filter language: what each operator means, what it refuses, one value or many rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koru_delta.errors import QueryError
from koru_delta.search.columns import MISSING, Columns
from koru_delta.search.filters import Filter, compile_filter, prefixed

DOCUMENT: dict[str, Any] = {
    "title": "On the 50% rule",
    "year": 1843,
    "rating": 4.5,
    "draft": False,
    "editor": None,
    "author": {"name": "Ada", "born": 1815},
    "tags": ["maths", "engines", 7],
    "notes": [{"by": "Ada", "stars": 5}, {"by": "Luigi", "stars": 2}],
    "a.b": {"c": 1},
    "": "nameless",
}


def passes(filter: Filter | None, value: object = DOCUMENT, under: tuple[str, ...] = ()) -> bool:
    """The answer of `matches`, after checking that `mask` says the same."""
    compiled = compile_filter(filter, under=under)
    answer = compiled.matches(value)
    mask = compiled.mask(Columns(lambda start, stop: [value, MISSING][start:stop]), 2)
    assert mask.tolist() == [answer, compiled.matches(MISSING)]
    return answer


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (None, True),
        ({}, True),
        # a bare value is $eq, typed
        ({"year": 1843}, True),
        ({"year": 1843.0}, True),
        ({"year": "1843"}, False),
        ({"draft": False}, True),
        ({"draft": 0}, False),
        ({"draft": {"$in": [0, 0.0]}}, False),
        ({"editor": None}, True),
        ({"absent": None}, False),
        ({"author": {"born": 1815.0, "name": "Ada"}}, True),
        ({"author": {"name": "Ada"}}, False),
        ({"author": {"$eq": {"name": "Ada", "born": 1815}}}, True),
        ({"tags": ["maths", "engines", 7.0]}, True),
        ({"tags": ("maths", "engines", 7)}, True),
        ({"tags": ["engines", "maths", 7]}, False),
        ({"tags": "maths"}, False),
        ({"tags": {}}, False),
        # paths
        ({"author.name": "Ada"}, True),
        ({"author.name.first": "Ada"}, False),
        ({("author", "name"): "Ada"}, True),
        ({"a.b.c": 1}, False),
        ({("a.b", "c"): 1}, True),
        ({("",): "nameless"}, True),
        ({"tags.0": "maths"}, False),
        ({"notes.by": "Ada"}, False),
        ({"": DOCUMENT}, True),
        ({(): DOCUMENT}, True),
        # complements
        ({"year": {"$ne": 1843}}, False),
        ({"year": {"$ne": "1843"}}, True),
        ({"absent": {"$ne": 1}}, True),
        ({"absent": {"$ne": None}}, True),
        ({"tags": {"$ne": "maths"}}, True),
        ({"year": {"$nin": [1, 1843.0]}}, False),
        ({"year": {"$nin": []}}, True),
        ({"absent": {"$nin": [None]}}, True),
        # membership
        ({"year": {"$in": [1842, 1843.0]}}, True),
        ({"year": {"$in": []}}, False),
        ({"absent": {"$in": [None]}}, False),
        ({"tags": {"$in": ["maths"]}}, False),
        ({"tags": {"$in": [["maths", "engines", 7]]}}, True),
        # order
        ({"year": {"$gt": 1842.5}}, True),
        ({"year": {"$gt": 1843}}, False),
        ({"year": {"$gte": 1843}}, True),
        ({"year": {"$lt": 1843}}, False),
        ({"year": {"$lte": 1843.0}}, True),
        ({"rating": {"$gt": 4, "$lt": 5}}, True),
        ({"year": {"$gt": ""}}, False),
        ({"title": {"$gt": "On"}}, True),
        ({"title": {"$gt": 0}}, False),
        ({"draft": {"$gte": 0}}, False),
        ({"editor": {"$lte": 0}}, False),
        ({"tags": {"$gte": "a"}}, False),
        ({"absent": {"$lt": 1}}, False),
        ({"year": {"$between": [1843, 1843]}}, True),
        ({"year": {"$between": [1844, 1842]}}, False),
        ({"title": {"$between": ["N", "P"]}}, True),
        ({"title": {"$between": [0, 9]}}, False),
        # looking inside
        ({"title": {"$contains": "50%"}}, True),
        ({"title": {"$contains": "50 "}}, False),
        ({"tags": {"$contains": "engines"}}, True),
        ({"tags": {"$contains": "engine"}}, False),
        ({"tags": {"$contains": 7.0}}, True),
        ({"tags": {"$contains": True}}, False),
        ({"notes": {"$contains": {"stars": 2.0, "by": "Luigi"}}}, True),
        ({"year": {"$contains": 1843}}, False),
        ({"author": {"$contains": "name"}}, False),
        ({"tags": {"$elem": {"$prefix": "eng"}}}, True),
        ({"tags": {"$elem": {"$gt": 5, "$lt": 7}}}, False),
        ({"tags": {"$elem": {"$not": {"$prefix": ""}}}}, True),
        ({"tags": {"$elem": {"$or": [{"$eq": 8}, {"$eq": 7}]}}}, True),
        ({"tags": {"$elem": {}}}, True),
        ({"notes": {"$elem": {"by": "Luigi", "stars": {"$lt": 3}}}}, True),
        ({"notes": {"$elem": {"by": "Ada", "stars": {"$lt": 3}}}}, False),
        ({"notes": {"$elem": {"$or": [{"by": "Bo"}, {"stars": 5}]}}}, True),
        ({"notes": {"$elem": {"colour": {"$exists": False}}}}, True),
        ({"title": {"$elem": {"$eq": "O"}}}, False),
        # presence
        ({"editor": {"$exists": True}}, True),
        ({"editor": {"$exists": False}}, False),
        ({"absent": {"$exists": True}}, False),
        ({"absent": {"$exists": False}}, True),
        # text
        ({"title": {"$prefix": "On"}}, True),
        ({"title": {"$prefix": "on"}}, False),
        ({"year": {"$prefix": "1"}}, False),
        ({"title": {"$regex": r"\d+%"}}, True),
        ({"title": {"$regex": r"^\d"}}, False),
        ({"title": {"$regex": "(?i)^ON"}}, True),
        ({"year": {"$regex": "."}}, False),
        # combining
        ({"year": 1843, "draft": True}, False),
        ({"$and": [{"year": 1843}, {"draft": False}]}, True),
        ({"$and": []}, True),
        ({"$or": [{"year": 1}, {"draft": False}]}, True),
        ({"$or": []}, False),
        ({"$or": [{"year": 1}], "draft": False}, False),
        ({"$not": {"year": 1843}}, False),
        ({"$not": {"absent": {"$gt": 3}}}, True),
        ({"$not": {}}, False),
        ({"absent": {"$not": {"$gt": 3}}}, True),
        ({"year": {"$not": {"$gt": 3}}}, False),
        ({"year": {"$not": {"$gt": 1900, "$lt": 2000}}}, True),
        ({"year": {"$not": {"$not": {"$eq": 1843}}}}, True),
        ({"absent": {"$not": {"$exists": True}}}, True),
    ],
)
def test_each_operator_means_what_the_language_says(filter: Filter | None, expected: bool) -> None:
    assert passes(filter) is expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("", "", True),
        ("", "a", False),
        ("%", "", True),
        ("%%", "any\nthing", True),
        ("a%", "abc", True),
        ("%c", "abc", True),
        ("%b%", "abc", True),
        ("a%a", "a", False),
        ("ab%ba", "aba", False),
        ("%ab%b", "xabb", True),
        ("%ab%ab", "xab", False),
        ("a_c", "a\nc", True),
        ("a_c", "aéc", True),
        ("_", "", False),
        ("%_%_%", "a", False),
        ("A%", "abc", False),
        (r"50\%", "50%", True),
        (r"50\%", "50x", False),
        (r"a\_b", "a_b", True),
        (r"a\_b", "axb", False),
        (r"a\\%", "a\\b", True),
        (r"\a", "a", True),
        ("a.c", "abc", False),
        ("(%)*[", "(x)*[", True),
    ],
)
def test_like_is_the_like_of_sql(pattern: str, text: str, expected: bool) -> None:
    assert passes({"": {"$like": pattern}}, text) is expected


@pytest.mark.parametrize("value", [3, "three", None, True, [1, "x"]])
def test_a_scalar_or_array_is_found_at_the_empty_path(value: object) -> None:
    assert passes({"": {"$eq": value}}, value)
    assert passes({"": {"$exists": True}}, value)
    assert not passes({"any": {"$exists": True}}, value)


def test_a_missing_value_matches_only_complements() -> None:
    assert not passes({"": {"$exists": True}}, MISSING)
    assert passes({"": {"$ne": 1}}, MISSING)


def test_under_prefixes_every_path() -> None:
    value = {"text": "rain", "metadata": {"year": 1843, "a": {"b": 1}}}
    filter = {"year": 1843, "$or": [{"a.b": 1}, {"$not": {"c": 1}}], "c": {"$exists": False}}

    compiled = compile_filter(filter, under=("metadata",))

    assert passes(filter, value, under=("metadata",))
    assert not passes(filter, value)
    assert compiled.paths == {("metadata", "year"), ("metadata", "a", "b"), ("metadata", "c")}
    assert passes({"": value["metadata"]}, value, under=("metadata",))


def test_a_prefixed_filter_is_a_filter_and_combines_with_others() -> None:
    ours = prefixed({"$or": [{"n": 1}, {("a.b",): {"$not": {"$gt": 2}}}]}, "metadata", "own")
    value = {"kind": "x", "metadata": {"own": {"a.b": 2}}}

    assert passes(ours, value)
    assert passes({"$and": [{"kind": "x"}, ours]}, value)
    assert not passes({"$not": ours}, value)
    assert not passes(ours, {"n": 1, "metadata": {"own": {"a.b": 3}}})
    assert compile_filter({"$and": [{"kind": "x"}, ours]}).paths == {
        ("kind",), ("metadata", "own", "n"), ("metadata", "own", "a.b"),
    }  # fmt: skip
    for moved in (lambda: prefixed(ours, "more"), lambda: passes({"tags": {"$elem": ours}})):
        with pytest.raises(QueryError):
            moved()


def test_large_integers_compare_exactly() -> None:
    big = 2**53
    assert passes({"": {"$lt": big + 1}}, float(big))
    assert not passes({"": {"$eq": big + 1}}, float(big))
    assert passes({"": {"$gt": float(big)}}, big + 1)
    assert passes({"": {"$gt": big}}, big + 1)
    assert not passes({"": {"$gte": big + 1}}, big)
    assert passes({"": {"$lt": 10**400}}, 2**63 - 1)


def test_an_object_is_compared_with_one_that_has_fields_named_as_operators() -> None:
    for condition in ({"$eq": {"in": 3}}, {"in": 3, "unit": "m"}, {}):
        wanted = condition.get("$eq", condition)
        assert passes({"a": condition}, {"a": wanted})
        assert not passes({"a": condition}, {"a": {"in": 4}})


def test_changing_a_filter_after_it_was_compiled_changes_nothing() -> None:
    wanted: list[object] = [["a"]]
    compiled = compile_filter({"": {"$in": wanted}})

    wanted.append(1)
    wanted[0] = "b"

    assert compiled.matches(["a"])
    assert not compiled.matches(1)


DEEP_VALUE: list[Any] = []
for _ in range(900):
    DEEP_VALUE = [DEEP_VALUE]


@pytest.mark.parametrize(
    ("filter", "words"),
    [
        ({"a": {"$foo": 1}}, ["$foo", "'a'", "$between", "$or"]),
        ({"$foo": 1}, ["unknown operator", "$foo", "$elem", "$or"]),
        ({"$gt": 3}, ["$gt", '{"field": {"$gt": ...}}']),
        ({"a": {"$and": [{"$gt": 3}]}}, ["$and", "'a'", "outside"]),
        ({"a.b": {"$gt": 3, "unit": "m"}}, ["'a.b'", "'unit'", "dotted path"]),
        ({"a.b": {"gt": 3}}, ["'a.b'", "'gt'", "write $gt", '{"$eq": {...}}']),
        ({"a": {"gte": 3, "lt": 5}}, ["'a'", "write $gte"]),
        ({"a": {"in": ["x"]}}, ["'a'", "write $in"]),
        ({3: 1}, ["field", "3"]),
        ({("a", 1): 1}, ["field", "('a', 1)"]),
        ([], ["filter", "[]"]),
        ("year > 3", ["filter", "year > 3"]),
        ({"$and": {"a": 1}}, ["$and", "list"]),
        ({"$or": [3]}, ["filter", "3"]),
        ({"$not": 3}, ["filter", "3"]),
        ({"a": {"$not": 3}}, ["$not", "'a'", "$ne"]),
        ({"a": {"$not": {}}}, ["$not", "'a'"]),
        ({"a": {"$not": {"b": 1}}}, ["'a'", "'b'"]),
        ({"a": {"$in": "abc"}}, ["$in", "'a'", "list"]),
        ({"a": {"$nin": {"b": 1}}}, ["$nin", "list"]),
        ({"a": {"$gt": None}}, ["$gt", "'a'", "numbers or strings", "None"]),
        ({"a": {"$lte": True}}, ["$lte", "True"]),
        ({"a": {"$lt": [1]}}, ["$lt", "[1]"]),
        ({"a": {"$gte": {}}}, ["$gte", "{}"]),
        ({"a": {"$gt": float("nan")}}, ["$gt", "finite", "nan"]),
        ({"a": float("inf")}, ["$eq", "finite", "inf"]),
        ({"a": {"$in": [[float("nan")]]}}, ["$in", "finite"]),
        ({"a": {"$between": [1]}}, ["$between", "'a'", "lowest"]),
        ({"a": {"$between": [1, "b"]}}, ["$between", "two numbers or two strings"]),
        ({"a": {"$between": [None, None]}}, ["$between", "numbers or strings"]),
        ({"a": {"$exists": 1}}, ["$exists", "true or false"]),
        ({"a": {"$prefix": 1}}, ["$prefix", "string"]),
        ({"a": {"$like": None}}, ["$like", "string"]),
        ({"a": {"$like": "a\\"}}, ["$like", "'a'", "backslash"]),
        ({"a": {"$regex": 1}}, ["$regex", "string"]),
        ({"a": {"$regex": "(a"}}, ["$regex", "'a'", "missing )"]),
        ({"a": {"$regex": r"(a)\1"}}, ["$regex", "back-references"]),
        ({"a": {"$regex": r"\p{L}{1000}"}}, ["$regex", "too large"]),
        ({"a": {"$regex": "\ud800"}}, ["$regex", "surrogates"]),
        ({"a": {"$regex": "a" * 1001}}, ["$regex", "1,001", "1,000"]),
        ({"a": {"$elem": "x"}}, ["$elem", "'a'", "$contains"]),
        ({"a": {"$elem": {"$foo": 1}}}, ["$foo", "the value itself"]),
        ({"a": {"$eq": b"x"}}, ["$eq", "JSON"]),
        ({"a": {"$eq": {1: 2}}}, ["$eq", "JSON"]),
        ({"a": {"$contains": object()}}, ["$contains", "JSON"]),
        ({"a": DEEP_VALUE}, ["$eq", "nested over 200"]),
        ({"a": {"$gt": DEEP_VALUE}}, ["$gt", "'a'"]),
    ],
)
def test_an_ill_formed_filter_is_refused_with_the_place_and_the_way_out(
    filter: Any, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(QueryError) as caught:
        compile_filter(filter)

    assert [word for word in words if word not in str(caught.value)] == []
    assert len(str(caught.value)) < 400
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("wrap", ["$not", "$and", "field $not", "$elem"])
def test_nesting_is_limited_but_generously(wrap: str) -> None:
    def nested(levels: int, innermost: object) -> Any:
        filter: Any = {"a": innermost}
        for _ in range(levels - 1):
            if wrap == "$and":
                filter = {"$and": [filter]}
            elif wrap == "$not":
                filter = {"$not": filter}
            elif wrap == "$elem":
                filter = {"a": {"$elem": filter}}
            else:
                filter = {"a": {"$not": filter["a"]}}
        return filter

    operand: object = 1
    for _ in range(199):
        operand = {"k": operand}
    fine = compile_filter(nested(64, {"$eq": operand}))
    assert fine.matches({}) is (wrap in {"$not", "field $not"})
    with pytest.raises(QueryError, match="nested over 64"):
        compile_filter(nested(65, {"$eq": 1}))
    with pytest.raises(QueryError, match="nested over 64"):
        compile_filter(nested(300, {"$eq": 1}))


def test_a_regex_that_makes_others_explode_just_answers() -> None:
    assert not passes({"": {"$regex": "(a+)+$"}}, "a" * 50_000 + "b")
    assert not passes({"": {"$like": "%a" * 400 + "%b"}}, "a" * 50_000)


def test_long_lists_are_fine() -> None:
    assert passes({"year": {"$in": [*range(100_000)]}})
    assert passes({"$or": [{"year": year} for year in range(2000)]})


# A second opinion on the language, written to be read and not to be fast. It shares no code
# with the implementation.

NOTHING = object()


def kind(value: Any) -> str:
    """The type filters see."""
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def same(left: Any, right: Any) -> bool:
    if kind(left) != kind(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def reach(value: Any, field: str | tuple[str, ...]) -> Any:
    keys = field if isinstance(field, tuple) else tuple(field.split(".")) if field else ()
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return NOTHING
        value = value[key]
    return value


def like(text: str, pattern: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(like(text[start:], pattern[1:]) for start in range(len(text) + 1))
    literal = pattern[0] == "\\"
    wanted, rest = (pattern[1], pattern[2:]) if literal else (pattern[0], pattern[1:])
    fits = text != "" and (text[0] == wanted or (wanted == "_" and not literal))
    return fits and like(text[1:], rest)


def judge(name: str, value: Any, operand: Any) -> bool:
    """What an operator says of a value, which may be `NOTHING`."""
    there = value is not NOTHING
    comparable = there and kind(value) == kind(operand) and kind(value) in {"number", "str"}
    text = isinstance(value, str)
    match name:
        case "$eq":
            return there and same(value, operand)
        case "$ne":
            return not (there and same(value, operand))
        case "$in":
            return there and any(same(value, choice) for choice in operand)
        case "$nin":
            return not (there and any(same(value, choice) for choice in operand))
        case "$gt":
            return comparable and value > operand
        case "$gte":
            return comparable and value >= operand
        case "$lt":
            return comparable and value < operand
        case "$lte":
            return comparable and value <= operand
        case "$between":
            return judge("$gte", value, operand[0]) and judge("$lte", value, operand[1])
        case "$contains":
            if isinstance(value, list):
                return any(same(element, operand) for element in value)
            return text and isinstance(operand, str) and operand in value
        case "$exists":
            return there is operand
        case "$prefix":
            return text and value[: len(operand)] == operand
        case "$like":
            return text and like(value, operand)
        case "$regex":
            return text and re.search(operand, value) is not None
        case "$elem":
            return isinstance(value, list) and any(agrees(operand, element) for element in value)
        case "$not":
            return not all(judge(inner, value, operand[inner]) for inner in operand)
    raise AssertionError(name)


def agrees(filter: Mapping[Any, Any], value: Any) -> bool:
    """Whether a value passes a filter, or an element what `$elem` asks of it."""
    for name, asked in filter.items():
        if name == "$and":
            good = all(agrees(part, value) for part in asked)
        elif name == "$or":
            good = any(agrees(part, value) for part in asked)
        elif name == "$not":
            good = not agrees(asked, value)
        elif isinstance(name, str) and name.startswith("$"):
            good = judge(name, value, asked)
        elif isinstance(asked, dict) and any(key.startswith("$") for key in asked):
            found = reach(value, name)
            good = all(judge(inner, found, asked[inner]) for inner in asked)
        else:
            good = judge("$eq", reach(value, name), asked)
        if not good:
            return False
    return True


numbers = st.sampled_from([0, 1, 1.0, 2, -0.0, 1.5, 2**53, 2**53 + 1, 2.0**53, -(2**63)])
texts = st.sampled_from(["", "a", "ab", "ba", "b%", "a_b", "1", "é", "\\"])
scalars = st.one_of(numbers, texts, st.none(), st.booleans())
keys = st.sampled_from(["a", "b", "c", "a.b", ""])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
records = st.dictionaries(keys, values, max_size=4) | values | st.just(MISSING)
fields = st.one_of(
    st.sampled_from(["a", "b", "c", "a.b", "a.c", "b.a", "a.b.c", ""]),
    st.lists(keys, max_size=2).map(tuple),
)
limits = numbers | texts
operators: list[tuple[str, st.SearchStrategy[Any]]] = [
    *((name, values) for name in ("$eq", "$ne", "$contains")),
    *((name, st.lists(values, max_size=3)) for name in ("$in", "$nin")),
    *((name, limits) for name in ("$gt", "$gte", "$lt", "$lte")),
    ("$between", st.tuples(numbers, numbers).map(list) | st.lists(texts, min_size=2, max_size=2)),
    ("$exists", st.booleans()),
    ("$prefix", texts),
    (
        "$like",
        st.lists(st.sampled_from(["%", "_", "a", "b", r"\%", r"\\"]), max_size=4).map("".join),
    ),
    ("$regex", st.sampled_from(["", "a", "^a", "b$", "a|1", "^[^a]*$", "(?:ab)+", "^.$", "%"])),
]


def operator_objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects of one or two operators; `inner` makes filters for `$elem`."""
    plain = st.one_of([st.tuples(st.just(name), operand) for name, operand in operators])
    pairs = plain | st.tuples(st.just("$elem"), inner | element_filters)
    objects = st.lists(pairs, min_size=1, max_size=2).map(dict)
    return objects | objects.map(lambda negated: {"$not": negated})


element_filters: st.SearchStrategy[Any] = st.deferred(
    lambda: (
        operator_objects(filters)
        | st.lists(element_filters, max_size=2).map(lambda parts: {"$or": parts})
    )
)
filters: st.SearchStrategy[Any] = st.recursive(
    st.dictionaries(fields, values | operator_objects(st.just({"a": 1})), max_size=2),
    lambda inner: st.one_of(
        st.dictionaries(fields, operator_objects(inner), min_size=1, max_size=2),
        st.lists(inner, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda negated: {"$not": negated}),
    ),
    max_leaves=4,
)


@settings(max_examples=2500, deadline=None)
@given(filters, st.lists(records, min_size=1, max_size=8), st.data())
def test_matches_and_mask_agree_with_a_second_opinion(
    filter: Any, rows: list[Any], data: st.DataObject
) -> None:
    compiled = compile_filter(filter)
    expected = [agrees(filter, NOTHING if row is MISSING else row) for row in rows]
    columns = Columns(lambda start, stop: rows[start:stop])
    earlier = data.draw(st.integers(0, len(rows)))

    assert [compiled.matches(row) for row in rows] == expected
    assert compiled.mask(columns, earlier).tolist() == expected[:earlier]
    assert compiled.mask(columns, len(rows)).tolist() == expected
    assert compiled.mask(columns, earlier).tolist() == expected[:earlier]


def test_a_filter_that_multiplies_itself_is_refused() -> None:
    part: dict[str, Any] = {"a": 1}
    for _ in range(40):
        part = {"$and": [part, part]}
    ring: list[Any] = []
    ring.append(ring)
    for filter in (part, {"$or": ring}, {"$or": [{"a": n} for n in range(10_000)]}):
        with pytest.raises(QueryError):
            compile_filter(filter)
    assert compile_filter({"a": {"$in": list(range(100_000))}}).matches({"a": 99_999})


@pytest.mark.parametrize(
    "filter",
    [
        {"year": np.int64(1843)}, {"year": {"$lt": np.int32(1900)}},
        {"year": {"$in": np.array([1843])}}, {"year": {"$in": [np.int64(1843)]}},
    ],
)  # fmt: skip
def test_a_refused_number_of_numpys_is_told_what_is_taken_in_its_place(filter: Filter) -> None:
    with pytest.raises(QueryError, match=r"; pass its tolist\(\)$"):
        compile_filter(filter)
    assert passes({"year": {"$in": np.array([1843]).tolist()}})
