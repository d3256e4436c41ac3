"""Golden bytes and ids: these must never change, on any platform."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import sys
import uuid
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koru_delta.errors import InvalidDataError, ValueTooLargeError
from koru_delta.values import (
    MAX_DEPTH,
    as_matrix,
    as_vector,
    canonical_bytes,
    check_key,
    decode,
    derived_id,
    distinction_id,
    encoded_vectors,
    points_nowhere,
    synthesis,
    vector_bytes,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, b"null"),
        (True, b"true"),
        (1, b"1"),
        (1.0, b"1.0"),
        (-0.0, b"-0.0"),
        (1e300, b"1e+300"),
        (1e15, b"1000000000000000.0"),
        (1e16, b"1e+16"),
        (5e-324, b"5e-324"),
        (0.00001, b"1e-05"),
        (0.0001, b"0.0001"),
        (-(2**63), b"-9223372036854775808"),
        ({"b": 1, "a": [1, 2.5, "x"]}, b'{"a":[1,2.5,"x"],"b":1}'),
        ({"é": "☃", "e": "\U0001f600"}, '{"e":"😀","é":"☃"}'.encode()),
        ({"": {}}, b'{"":{}}'),
    ],
)
def test_canonical_bytes_are_these(value: Any, encoded: bytes) -> None:
    assert canonical_bytes(value) == encoded
    assert decode(encoded) == value


def test_golden_ids() -> None:
    assert (
        distinction_id("json", b"null").hex()
        == "601ac992cbbc629d0a8ea9af8daa5025e23232d6b59e4aec1045492e53056e40"
    )
    a, b = distinction_id("text", b"a"), distinction_id("text", b"b")
    assert (
        synthesis(a, b).hex() == "af43cfe7d0d506b04ba5fb74dd448adb1758f8d2f010d0f0407551ffb6bb0de3"
    )
    assert synthesis(a, b) != synthesis(b, a)
    assert (
        derived_id("merge", [a, b]).hex()
        == "3eb5e6f260cd13c7ff7fb292127bc45593a548f8e495a0ca653bf9966efe957a"
    )
    assert (
        distinction_id("vec", vector_bytes(as_vector([1, -2.5]))).hex()
        == "d6d94a4cce3e4436c7befc3586309017394bf5882dae973e0c9a39a0cef8341f"
    )


@given(JSON)
def test_what_is_stored_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    encoded = canonical_bytes(value)
    assert decode(encoded) == value
    assert canonical_bytes(decode(encoded)) == encoded


@given(JSON)
def test_canonical_bytes_are_what_the_standard_library_writes(value: Any) -> None:
    plain = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert canonical_bytes(value) == plain.encode()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_written_as_repr_does(number: float) -> None:
    assert canonical_bytes(number) == repr(number).encode()


def test_key_order_does_not_matter_and_number_type_does() -> None:
    assert canonical_bytes({"a": 1, "b": 2}) == canonical_bytes({"b": 2, "a": 1})
    assert canonical_bytes(1) != canonical_bytes(1.0)


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (math.nan, "$"),
        ({"a": [1, math.inf]}, "$.a[1]"),
        ({"when": datetime.date(2026, 1, 1)}, "$.when"),
        ({"when": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)}, "$.when"),
        ({"id": uuid.UUID(int=1)}, "$.id"),
        ([{1, 2}], "$[0]"),
        ((1, 2), "$"),
        (b"bytes", "$"),
        ({"n": decimal.Decimal("1.5")}, "$.n"),
        ({"n": np.float64(1.5)}, "$.n"),
        ({"n": np.int64(1)}, "$.n"),
        ({"s": Text("x")}, "$.s"),
        (2**63, "$"),
        ([0, -(2**63) - 1], "$[1]"),
        ({"s": "\ud800"}, "$.s"),
        ({"outer": {1: "x"}}, "$.outer"),
        ({"outer": {"\ud800": 1}}, "$.outer"),
        (object(), "$"),
    ],
)
def test_what_json_cannot_say_is_refused_with_the_path_to_it(value: Any, path: str) -> None:
    with pytest.raises(InvalidDataError) as caught:
        canonical_bytes(value)
    assert caught.value.path == path
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", [np.int64(1), np.float32(0.5), np.bool_(1), np.arange(3)])
def test_a_refused_number_of_numpys_is_told_what_is_taken_in_its_place(value: Any) -> None:
    with pytest.raises(InvalidDataError, match=r"is not a JSON type; its tolist\(\) is one"):
        canonical_bytes({"n": value})
    assert decode(canonical_bytes({"n": value.tolist()})) == {"n": value.tolist()}


def test_nesting_has_a_limit_and_never_exhausts_the_stack() -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return value

    assert decode(canonical_bytes(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    for levels in (MAX_DEPTH + 1, 10_000):
        with pytest.raises(InvalidDataError, match="levels deep"):
            canonical_bytes(nested(levels))


def test_a_circular_value_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(InvalidDataError):
        canonical_bytes(ring)


def test_a_value_that_doubles_at_each_level_is_refused_before_memory_runs_out() -> None:
    value: Any = [1]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(ValueTooLargeError):
        canonical_bytes(value)


@pytest.mark.parametrize(
    "given_vector",
    [
        [], [[1.0]], [math.nan], [math.inf], [1e300], ["1.0"], [True], "text", [None],
        [1.0] * 65_537, 3.0, [[1.0], [1.0, 2.0]],
    ],
)  # fmt: skip
def test_what_is_no_vector_is_refused(given_vector: Any) -> None:
    with pytest.raises(InvalidDataError):
        as_vector(given_vector)


def test_a_shape_that_is_no_vectors_is_told_what_would_be_one() -> None:
    with pytest.raises(InvalidDataError, match=r"shape \(1, 4\); give one of its rows, or all to"):
        as_vector(np.ones((1, 4)))
    with pytest.raises(InvalidDataError, match=r"has \(4,\); put one vector in a list"):
        as_matrix([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(InvalidDataError, match="vectors of one length; parts of this are longer"):
        as_matrix([np.ones(4), np.ones(3)])


def test_a_vector_is_a_copy() -> None:
    mine = np.ones(3, dtype=np.float32)
    taken = as_vector(mine)
    mine[0] = 7
    assert taken[0] == 1


def rows_given() -> list[list[Any]]:
    numbers = np.random.default_rng(1).standard_normal((600, 5))
    narrow = numbers.astype(np.float32)
    mixed = [narrow[0], numbers[1], numbers[2].tolist(), [1, 2, 3], narrow[3][::2]]
    return [
        [], list(narrow), list(numbers), numbers.tolist(), list(narrow.T), list(narrow[:, ::2]),
        list(narrow.astype(">f4")), list((numbers * 100).astype(np.int16)), mixed * 60,
        [np.array([1e-42, -0.0], dtype=np.float32)] * 3,
    ]  # fmt: skip


@pytest.mark.parametrize("vectors", rows_given())
def test_vectors_encoded_together_have_the_bytes_of_each_alone(vectors: list[Any]) -> None:
    assert encoded_vectors(vectors) == [vector_bytes(as_vector(each)) for each in vectors]


@pytest.mark.parametrize(
    "bad",
    [
        np.array([1.0, math.nan], dtype=np.float32), np.array([1.0, 1e300]), np.zeros((1, 2)),
        np.zeros(0), np.array(["1.0", "2.0"]), np.array([True, False]), np.float32(1), [None],
    ],
)  # fmt: skip
@pytest.mark.parametrize("good", [0, 1, 300])
def test_one_bad_vector_among_many_is_refused(bad: Any, good: int) -> None:
    with pytest.raises(InvalidDataError):
        encoded_vectors([np.ones(2, dtype=np.float32)] * good + [bad])
    with pytest.raises(InvalidDataError):
        encoded_vectors([bad] * (good + 1))


def test_only_zeros_point_nowhere() -> None:
    def nowhere(*numbers: float) -> bool:
        return points_nowhere(vector_bytes(as_vector(numbers)))

    assert nowhere(0.0, -0.0, 0.0)
    assert not nowhere(0.0, 1.0)
    # A denormal made of the bytes that -0.0 is made of.
    assert not points_nowhere(b"\x80\0\0\0" * 2)


@pytest.mark.parametrize(
    ("namespace", "key"),
    [
        ("", "k"), ("n", ""), ("n", "x" * 1025), ("n", "é" * 513), ("n" * 256, "k"),
        ("n", "a\0b"), ("n\0", "k"), ("n", "\ud800"), ("n", 5), (None, "k"), ("$tags", "k"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_stored_is_refused(namespace: Any, key: Any) -> None:
    with pytest.raises(InvalidDataError):
        check_key(namespace, key)


def test_the_longest_names_are_accepted() -> None:
    check_key("n" * 255, "é" * 512)


def test_a_vector_is_read_while_another_thread_loads_numpy_ma(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "numpy.ma", ModuleType("numpy.ma"))

    assert as_vector([1.0, 2.0]).tolist() == [1.0, 2.0]
