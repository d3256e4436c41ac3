"""Names as they may be stored, and JSON objects whose keys keep their order."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from itertools import pairwise
from typing import Any, Final

import koru_delta

_MAX_NAMESPACE_BYTES: Final = 255
key_of: Final = koru_delta.adapters.key_of
_MAX_DEPTH: Final = 200  # what is deeper cannot be stored
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def namespace_of(prefix: str, name: object) -> str:
    """The namespace of a collection: under a prefix, by its name or the hash of that.

    Raises:
        InvalidDataError: the name is no string.
    """
    if not isinstance(name, str):
        raise koru_delta.errors.InvalidDataError(
            f"a collection is a string, not {type(name).__name__}"
        )
    room = _MAX_NAMESPACE_BYTES - len(prefix.encode()) - 1
    return f"{prefix}/{key_of(name, max_bytes=room)}"


def listed(what: str, given: object, *, of: type) -> list[Any]:
    """A list of what was given.

    Raises:
        InvalidDataError: it is none, or holds something that is not `of` that class.
    """
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise koru_delta.errors.InvalidDataError(
            f"{what} is a list of {of.__name__}, not {type(given).__name__}: put it in []"
        )
    found = list(given)
    for place, each in enumerate(found):
        if not isinstance(each, of):
            raise koru_delta.errors.InvalidDataError(
                f"{what} holds {type(each).__name__} at {place} (the first is 0), not {of.__name__}"
            )
    return found


def order_of(
    value: object, depth: int = 0, known: dict[int, list[Any] | None] | None = None
) -> list[Any] | None:
    """The order of the keys in a JSON value, as JSON; None where it is the stored one.

    Values are stored with their keys sorted, while texts and hashes that LlamaIndex makes
    of metadata go by the order it was given in.

    >>> order_of({"b": 1, "a": {"x": 1, "y": 2}})
    [['b', 'a'], None]
    >>> in_order({"a": {"x": 1, "y": 2}, "b": 1}, [["b", "a"], None])
    {'b': 1, 'a': {'x': 1, 'y': 2}}
    """
    known = {} if known is None else known
    if depth > _MAX_DEPTH or id(value) in known:  # each once, however often it is in there
        return known.get(id(value))
    known[id(value)] = None  # what is in itself is refused when it is stored
    keys: list[str] | None = None
    inner: dict[str, Any] = {}
    if isinstance(value, dict):
        names = list(value)
        if not all(isinstance(name, str) for name in names):
            return None  # refused when it is stored
        if any(first > second for first, second in pairwise(names)):
            keys = names
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        parts = {str(place): part for place, part in enumerate(value)}.items()
    else:
        return None
    for name, part in parts:
        if isinstance(part, (dict, list, tuple)):
            order = order_of(part, depth + 1, known)
            if order is not None:
                inner[name] = order
    known[id(value)] = [keys, inner or None] if keys or inner else None
    return known[id(value)]


def in_order(value: Any, order: Any) -> Any:
    """A value with its keys in the order that `order_of` told."""
    if order is None:
        return value
    keys, inner = order
    if isinstance(value, dict):
        inner = inner or {}
        return {
            name: in_order(value[name], inner.get(name))
            for name in (value if keys is None else keys)
        }
    for place, part in (inner or {}).items():
        value[int(place)] = in_order(value[int(place)], part)
    return value


def plain(value: Any, depth: int = 0, known: dict[int, Any] | None = None) -> Any:
    """The same with its enumerated strings as strings: the framework has some in its values."""
    kind = type(value)
    if kind in _SCALARS or depth > _MAX_DEPTH:
        return value
    if kind is not dict and kind is not list:
        return value.value if isinstance(value, Enum) and isinstance(value, str) else value
    known = {} if known is None else known
    if id(value) in known:  # each once, however often it is in there
        return known[id(value)]
    known[id(value)] = value  # what is in itself is refused when it is stored
    made: Any
    if kind is dict:
        made = {
            name if type(name) is str else plain(name): part
            if type(part) in _SCALARS
            else plain(part, depth + 1, known)
            for name, part in value.items()
        }
    else:
        made = [plain(part, depth + 1, known) for part in value]
    known[id(value)] = made
    return made
