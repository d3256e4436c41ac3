"""Canonical bytes for values and vectors, and the hashes that name them.

Equal values have equal bytes whatever order their keys were written in, so a
value stored twice has one name. What JSON cannot say exactly is refused here,
with the path to the culprit, before anything else sees it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, NewType, TypeGuard

import numpy as np
import numpy.typing as npt
import orjson
from blake3 import blake3

from koru_delta.errors import InvalidDataError, ValueTooLargeError

type_ = type

Value = Any  # JSON: None, bool, int, float, str, list[Value], dict[str, Value]
Vector = npt.NDArray[np.float32]  # shape (dimensions,)
VectorLike = Sequence[float] | npt.NDArray[Any]
DistinctionId = NewType("DistinctionId", bytes)  # 32 bytes; shown as hex

MAX_VALUE_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 200
MAX_KEY_BYTES = 1024
MAX_NAMESPACE_BYTES = 255
MAX_DIMENSIONS = 65_536
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_NO, _PLAIN, _EXPONENTS = 0, 1, 2
_EXACT = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS
_TOGETHER = 256  # most vectors checked in one array operation
_ORJSON_BUFFER = 4096  # bytes it starts with


class LeftOut:
    """An argument that was left out, where None is one; a signature shows what that means."""

    def __init__(self, means: str = "left out") -> None:
        self._means = means

    def __repr__(self) -> str:
        return f"<{self._means}>"


def canonical_bytes(value: object) -> bytes:
    """Encode `value` as UTF-8 JSON, keys sorted by code point, no spaces.

    The bytes are those of `json.dumps(value, sort_keys=True, ensure_ascii=False,
    separators=(",", ":"))`, with floats as Python's `repr` writes them: `1` and `1.0`
    differ. Integers fit 64 bits, signed; nesting is at most 200 deep.

    Raises:
        InvalidDataError: `value` holds NaN, infinity or something JSON lacks;
            the message names the path to it.
        ValueTooLargeError: more than `MAX_VALUE_BYTES` bytes.
    """
    found = _inspect(value)  # orjson would write NaN as null, and a date as a string
    if found == _NO:
        raise _refusal(value)
    try:
        # How orjson writes exponents has changed between its releases; repr has not.
        data = _dumped(value) if found == _PLAIN else _with_exponents(value)
    except (orjson.JSONEncodeError, UnicodeEncodeError) as error:
        raise _refusal(value) from error
    if len(data) > MAX_VALUE_BYTES:
        raise ValueTooLargeError(len(data), MAX_VALUE_BYTES)
    return data


def known_bytes(value: object) -> bytes:
    """As `canonical_bytes`, for records of ours: JSON types within their limits, no floats."""
    try:
        data = _dumped(value)
    except orjson.JSONEncodeError as error:
        raise _refusal(value) from error
    if len(data) > MAX_VALUE_BYTES:
        raise ValueTooLargeError(len(data), MAX_VALUE_BYTES)
    return data


def decode(data: bytes) -> Value:
    """Decode canonical bytes to a fresh plain value the caller may change."""
    return orjson.loads(data)


def distinction_id(tag: str, data: bytes) -> DistinctionId:
    """Name `data` by the BLAKE3 hash of its tag and bytes (see DESIGN, "The log").

    >>> distinction_id("json", b"1").hex()[:16]
    '7b2a4f96a383970a'
    """
    return DistinctionId(blake3(b"kd1:" + tag.encode() + b":" + data).digest())


def synthesis(first: bytes, second: bytes) -> DistinctionId:
    """Name the ordered pair of two ids; swapping them gives another name."""
    return DistinctionId(blake3(b"kd1:syn:" + first + second).digest())


def derived_id(operation: str, parents: Iterable[bytes]) -> DistinctionId:
    """Name what `operation` makes of `parents`, in order: a fold of `synthesis`."""
    made = distinction_id("op", operation.encode())
    for parent in parents:
        made = synthesis(made, parent)
    return made


def as_vector(given: VectorLike) -> Vector:
    """Turn numbers into a float32 vector of shape (dimensions,), its own copy.

    Raises:
        InvalidDataError: not one-dimensional, empty, not numbers, too long, or
            holding NaN, infinity or a number float32 cannot hold.
    """
    array = _numbers(given)
    if array.ndim != 1:
        rows = "; give one of its rows, or all to similar_many" if array.ndim == 2 else ""
        raise InvalidDataError(f"a vector has one dimension, this has shape {array.shape}{rows}")
    return _float32(array)


def as_matrix(given: Sequence[VectorLike] | npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Turn several vectors of one length into a float32 array of shape (n, dimensions)."""
    if not isinstance(given, np.ndarray):
        _check_whole(*given)
    array = _numbers(given)
    if array.ndim != 2:
        one = "; put one vector in a list" if array.ndim == 1 else ""
        raise InvalidDataError(
            f"a batch of vectors has shape (n, dimensions), this has {array.shape}{one}"
        )
    return _float32(array)


def vector_bytes(vector: npt.NDArray[np.float32]) -> bytes:
    """Encode a vector as little-endian float32, the bytes its id is made of."""
    return vector.astype("<f4", copy=False).tobytes()


def encoded_vectors(given: Sequence[VectorLike]) -> list[bytes]:
    """The bytes of each vector, checked as by `as_vector`.

    Arrays alike, such as the rows of one matrix, are checked many at a time.
    """
    found: list[bytes] = []
    for start in range(0, len(given), _TOGETHER):
        some = given[start : start + _TOGETHER]
        if _alike(some):
            data = vector_bytes(as_matrix(np.concatenate(some).reshape(len(some), -1)))
            size = len(data) // len(some)
            found += [data[at : at + size] for at in range(0, len(data), size)]
        else:
            found += [vector_bytes(as_vector(vector)) for vector in some]
    return found


def is_numpy(given: object) -> bool:
    """Whether it is an array or a scalar of numpy's, which plain Python values stand for."""
    return isinstance(given, (np.ndarray, np.generic))


def points_nowhere(vector: bytes) -> bool:
    """Whether an encoded vector is all zeros."""
    # Zeros, 0.0 and -0.0, are made of these two bytes; nearly any vector shows another at once.
    return not vector.strip(b"\0\x80") and not np.frombuffer(vector, dtype="<f4").any()


def check_key(namespace: str, key: str) -> None:
    """Refuse a namespace or key that cannot be stored.

    Raises:
        InvalidDataError: not a string, empty, longer than 255 (namespace) or 1024
            (key) bytes of UTF-8, holding NUL or a lone surrogate, or a namespace
            that starts with `$` (those are KoruDelta's own).
    """
    check_name("namespace", namespace, MAX_NAMESPACE_BYTES)
    check_name("key", key, MAX_KEY_BYTES)
    if namespace[0] == "$":
        raise InvalidDataError(
            f"namespace {namespace!r} starts with '$', which is kept for KoruDelta; "
            "choose another first character"
        )


def check_name(what: str, name: object, limit: int) -> None:
    """Refuse a name that is not text, is empty, or is longer than `limit` bytes of UTF-8.

    Raises:
        InvalidDataError: that, or it holds NUL or a lone surrogate.
    """
    if type_(name) is not str:
        hint = "; pass str() of it" if isinstance(name, (str, np.generic)) else ""
        raise InvalidDataError(f"a {what} is a string, not {type_(name).__name__}{hint}")
    if not name:
        raise InvalidDataError(f"a {what} cannot be empty")
    if "\0" in name:
        raise InvalidDataError(f"{what} {name[:40]!r} holds a NUL character")
    try:
        size = len(name) if name.isascii() else len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidDataError(f"{what} {name[:40]!r} holds a lone surrogate") from error
    if size > limit:
        raise InvalidDataError(
            f"{what} {name[:40]!r}... takes {size:,} bytes, the limit is {limit:,}; "
            "keep the long name in the value and use its hash as the key"
        )


def _inspect(value: object) -> int:
    """Whether `value` is made of exact JSON types within their limits, and of plain floats.

    Walks level by level, so that a deep or circular value cannot exhaust the stack.
    """
    level: list[Any] = [value]
    seen, found = 0, _PLAIN
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Any] = []
        for item in level:
            kind = type_(item)
            if kind is dict:
                for key, inner in item.items():
                    if type_(key) is not str:
                        return _NO
                    if type_(inner) is not str:
                        deeper.append(inner)
            elif kind is list:
                deeper.extend(item)
            elif kind is int:
                if not _INT_MIN <= item <= _INT_MAX:
                    return _NO
            elif kind is float:
                if not 1e-4 <= abs(item) < 1e15 and item != 0.0:
                    if not isfinite(item):
                        return _NO
                    found = _EXPONENTS
            elif kind is not str and kind is not bool and item is not None:
                return _NO
        if not deeper:
            return found
        seen += len(deeper)
        if seen > MAX_VALUE_BYTES // 2:
            raise ValueTooLargeError(seen * 2, MAX_VALUE_BYTES)
        level = deeper
    return _NO


def _dumped(value: object) -> bytes:
    data = orjson.dumps(value, option=_EXACT)
    # What orjson returns holds on to the buffer it was written in; a copy does not.
    return b"%b" % data if len(data) < _ORJSON_BUFFER else data


def _with_exponents(value: object) -> bytes:
    """The same bytes as orjson's, save for floats so large or small that they need an e."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    ).encode()


def _refusal(value: object) -> InvalidDataError:
    """Find what `_inspect` or the encoder refused, and say where it is."""
    stack: list[tuple[Any, str, int]] = [(value, "$", 0)]
    while stack:
        item, path, depth = stack.pop()
        if depth > MAX_DEPTH:
            return InvalidDataError(
                f"nested more than {MAX_DEPTH} levels deep; flatten it", path[:80] + "..."
            )
        problem = _scalar_problem(item)
        if problem:
            return InvalidDataError(problem, path)
        if type_(item) is dict:
            for key in item:
                if type_(key) is not str:
                    return InvalidDataError(
                        f"key {key!r} is {_named(key)}, JSON has only string keys", path
                    )
                if _surrogate(key):
                    return InvalidDataError("a key holds a lone surrogate", path)
            found = [(inner, f"{path}.{key}", depth + 1) for key, inner in item.items()]
            stack += reversed(found)  # the first of several is the one to tell of
        elif type_(item) is list:
            found = [(inner, f"{path}[{n}]", depth + 1) for n, inner in enumerate(item)]
            stack += reversed(found)
    return InvalidDataError("the value cannot be written as JSON")


def _scalar_problem(item: object) -> str | None:
    kind = type_(item)
    if kind is float and not isfinite(item):  # type: ignore[arg-type]
        return f"{item} is not a JSON number; use null, or leave it out"
    if kind is int and not _INT_MIN <= item <= _INT_MAX:  # type: ignore[operator]
        return "integer does not fit 64 bits, signed; store it as a string"
    if kind is str and _surrogate(item):  # type: ignore[arg-type]
        return "text holds a lone surrogate; decode it with errors='replace' first"
    if item is None or kind in (bool, int, float, str, list, dict):
        return None
    how = "its tolist() is one" if is_numpy(item) else "convert it (a date to an ISO string, say)"
    return f"{_named(item)} is not a JSON type; {how}"


def _surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _named(item: object) -> str:
    return type_(item).__name__


def _alike(vectors: Sequence[VectorLike]) -> TypeGuard[Sequence[npt.NDArray[Any]]]:
    """Whether all are one-dimensional arrays of one length, not 0, and one type."""
    kinds = {(v.dtype, v.shape) if type_(v) is np.ndarray else None for v in vectors}
    first = vectors[0]
    return len(kinds) == 1 and isinstance(first, np.ndarray) and first.ndim == 1 and first.size > 0


def _check_whole(*given: object) -> None:
    # Without it nobody has one, and it loads slowly; in another thread, perhaps, just now.
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    if masked is not None and any(isinstance(each, masked) for each in given):
        raise InvalidDataError("a vector has all its numbers; fill those that are masked")


def _numbers(given: object) -> npt.NDArray[Any]:
    _check_whole(given)
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InvalidDataError(
            "a vector is a flat list of numbers, a batch has vectors of one length; parts of this "
            "are longer than others"
        ) from error
    if array.dtype.kind not in "fiu":
        raise InvalidDataError(
            f"a vector holds numbers, this holds {array.dtype}; pass a list or an array of floats "
            "(of a column of vectors, its tolist()), or text with an embedder"
        )
    return array


def _float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    dimensions = array.shape[-1]
    if not 0 < dimensions <= MAX_DIMENSIONS:
        raise InvalidDataError(f"a vector has 1 to {MAX_DIMENSIONS:,} numbers, not {dimensions:,}")
    if array.dtype == np.float32:
        narrow = array.copy()
    else:
        with np.errstate(over="ignore"):
            narrow = array.astype(np.float32, order="C")
    if not np.isfinite(narrow).all():
        raise InvalidDataError(
            "a vector holds NaN, infinity, or a number beyond float32; look at what made it"
        )
    return narrow
