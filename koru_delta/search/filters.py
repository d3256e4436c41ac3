"""The one filter language, for keys, vectors, text, views and adapters.

A filter is a JSON-like object: `{"author.name": "Ada", "year": {"$gte": 1840, "$lt": 1850}}`.
It means the same over one value (`matches`) and over many rows at once (`mask`).

- A field is a dotted path through objects, or a tuple of keys when a key has a dot in
  it; `""` is the whole value. Arrays are not walked into: `$contains` and `$elem` look
  inside them, `$eq`, `$ne`, `$in` and `$nin` compare them whole.
- A bare value is `$eq`. Several operators of a field, and several fields, must all hold;
  `$and`, `$or` and `$not` combine whole filters, and `$not` also the operators of a field.
- A missing field matches only `$ne`, `$nin`, `$exists: false`, and what `$not`, the plain
  complement, makes of the rest. `null` is a value.
- Integers and floats are one type and compare exactly; a boolean is never a number;
  strings compare by code point; nothing else has an order, and types never mix.
- `$elem` holds if some element does: operators speak of the element itself, fields of
  what is in it, as in `{"tags": {"$elem": {"$prefix": "a"}}}`.

Whatever is not well formed raises `QueryError`; it is never "no match".
"""

from __future__ import annotations

import math
import operator
import os
import re
import reprlib
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from koru_delta.errors import QueryError
from koru_delta.search.columns import (
    MISSING,
    Column,
    Columns,
    Mask,
    Path,
    exact_float,
    look_up,
    typed_key,
)
from koru_delta.values import is_numpy

Filter: TypeAlias = "Mapping[Any, object] | CompiledFilter"
"""Keys are dotted paths, tuples of keys, or `$and`, `$or`, `$not`; values are JSON."""

MAX_FILTER_DEPTH = 64
MAX_FILTER_PARTS = 10_000  # objects and lists; the scalars in a list do not count
MAX_VALUE_DEPTH = 200  # as deep as a stored value may be
MAX_PATTERN_CHARACTERS = 1000
_REGEX_MEMORY_BYTES = 1 << 20  # bounds the size of the compiled program, and of its cache
_RECENT = 256  # compiled filters kept, of up to so many characters each
_RECENT_CHARACTERS = 65_536
_PLAIN_TYPES = frozenset((str, int, float, bool, type(None)))
_recent: OrderedDict[str, CompiledFilter] = OrderedDict()
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()
    _recent.clear()


os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True, slots=True, eq=False)
class CompiledFilter:
    """A filter that was checked once and can be asked often; immutable, equal only to itself.

    `paths` are all the paths it reads, those in `$elem` excepted.
    """

    root: _Node
    paths: frozenset[Path]

    def matches(self, value: object) -> bool:
        """Whether one JSON value passes."""
        return self.root.matches(value)

    def mask(self, columns: Columns, rows: int) -> Mask:
        """Which of rows 0 to `rows` pass; catches `columns` up first, which needs its lock."""
        return self.over(columns.prepare(self.paths, rows), rows)

    def over(self, readings: Mapping[Path, Column], rows: int) -> Mask:
        """Which of rows 0 to `rows` pass, given a column of each of `paths`; needs no lock."""
        return self.root.mask(readings, rows)


def compile_filter(filter: Filter | None, *, under: Path = ()) -> CompiledFilter:
    """Check a filter and make it ready to use; None and `{}` pass everything.

    Args:
        under: Where the fields are in the value; every path is prefixed with it.

    Raises:
        QueryError: The filter is not well formed; the message names the place.

    >>> ripe = compile_filter({"fruit.kind": "pear", "grams": {"$between": [150, 200]}})
    >>> ripe.matches({"fruit": {"kind": "pear"}, "grams": 180.5})
    True
    """
    _check_size(filter)
    root = _Every(()) if filter is None else _filter(filter, under, depth=1)
    return CompiledFilter(root, frozenset(root.paths()))


def compiled(filter: Filter, *, under: Path = ()) -> CompiledFilter:
    """As `compile_filter`; the same object for a filter that was compiled not long ago.

    What was made of a filter (masks, for one) can then be found again by it.
    """
    if isinstance(filter, CompiledFilter):
        return compile_filter(filter, under=under) if under else filter
    try:
        if not _is_plain(filter):  # whose `repr` need not tell what it holds
            return compile_filter(filter, under=under)
        text = repr((filter, under))  # tells types apart that JSON or equality would not
    except RecursionError:
        return compile_filter(filter, under=under)
    if len(text) > _RECENT_CHARACTERS:
        return compile_filter(filter, under=under)
    with _lock:
        known = _recent.get(text)
        if known is not None:
            _recent.move_to_end(text)
            return known
    fresh = compile_filter(filter, under=under)
    with _lock:
        _recent[text] = fresh
        while len(_recent) > _RECENT:
            _recent.popitem(last=False)
    return fresh


def _is_plain(part: object) -> bool:
    """Whether it is made of objects of JSON's own types, and tuples."""
    kind = type(part)
    if kind is dict:
        return all(_is_plain(key) and _is_plain(each) for key, each in part.items())  # type: ignore[attr-defined]
    if kind is list or kind is tuple:
        return all(map(_is_plain, part))  # type: ignore[call-overload]
    return kind in _PLAIN_TYPES


def prefixed(filter: Filter, *keys: str) -> CompiledFilter:
    """A filter, checked, whose fields are looked for under `keys`; fit wherever a filter is.

    This is how an adapter asks its callers' filters of the part of a value that is theirs.

    Raises:
        QueryError: The filter is not well formed; the message names the place.

    >>> prefixed({"kind": "pear"}, "metadata").matches({"metadata": {"kind": "pear"}})
    True
    """
    return compiled(filter, under=keys)


@dataclass(frozen=True, slots=True)
class _Every:
    """All of the parts; nothing to ask is true."""

    parts: tuple[_Node, ...]

    def matches(self, value: object) -> bool:
        return all(part.matches(value) for part in self.parts)

    def mask(self, readings: Mapping[Path, Column], rows: int) -> Mask:
        result = np.ones(rows, dtype=np.bool_)
        for part in self.parts:
            result &= part.mask(readings, rows)
        return result

    def paths(self) -> set[Path]:
        return {path for part in self.parts for path in part.paths()}


@dataclass(frozen=True, slots=True)
class _Not:
    """The plain complement, rows without the field included."""

    part: _Node

    def matches(self, value: object) -> bool:
        return not self.part.matches(value)

    def mask(self, readings: Mapping[Path, Column], rows: int) -> Mask:
        return ~self.part.mask(readings, rows)

    def paths(self) -> set[Path]:
        return self.part.paths()


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A pure test of the value at one path, false where there is none, in both its forms."""

    path: Path
    holds: Callable[[object], bool]
    holds_in: Callable[[Column], Mask]

    def matches(self, value: object) -> bool:
        found = look_up(value, self.path)
        return found is not MISSING and self.holds(found)

    def mask(self, readings: Mapping[Path, Column], rows: int) -> Mask:
        return self.holds_in(readings[self.path])

    def paths(self) -> set[Path]:
        return {self.path}


_Node = _Every | _Not | _Leaf


def _any(parts: tuple[_Node, ...]) -> _Node:
    """Some of the parts; an empty choice is false."""
    return _Not(_Every(tuple(_Not(part) for part in parts)))


def _filter(filter: object, under: Path, depth: int, *, of_element: bool = False) -> _Node:
    """Compile a whole filter; in `$elem`, operators may stand where fields do."""
    _check_depth(depth)
    if isinstance(filter, CompiledFilter):
        if under or of_element:
            raise QueryError(
                "a filter that is compiled cannot be moved; prefix what it was made of"
            )
        return filter.root
    if not isinstance(filter, Mapping):
        raise QueryError(f'a filter is an object such as {{"field": value}}, not {_show(filter)}')
    parts: list[_Node] = []
    for name, operand in filter.items():
        if name in {"$and", "$or"}:
            if not isinstance(operand, list | tuple):
                raise QueryError(f"{name} needs a list of filters, got {_show(operand)}")
            choices = tuple(
                _filter(part, under, depth + 1, of_element=of_element) for part in operand
            )
            parts.append(_Every(choices) if name == "$and" else _any(choices))
        elif name == "$not":
            parts.append(_Not(_filter(operand, under, depth + 1, of_element=of_element)))
        elif isinstance(name, str) and name.startswith("$"):
            if not of_element and name in _OPERATORS:
                raise QueryError(
                    f"operator {name} stands where a field should; write "
                    f'{{"field": {{"{name}": ...}}}}, with "" as the field for the value itself'
                )
            parts.append(_operator(name, under, operand, depth))
        else:
            parts.append(_field(under + _path(name), operand, depth))
    return parts[0] if len(parts) == 1 else _Every(tuple(parts))


def _field(path: Path, condition: object, depth: int) -> _Node:
    """Compile what is asked of one field: operators, or a bare value."""
    if isinstance(condition, Mapping) and any(_is_operator(name) for name in condition):
        return _operators(path, condition, depth)
    if isinstance(condition, Mapping) and condition:
        meant = [f"${name}" for name in condition]
        if all(name in _OPERATORS for name in meant):
            raise QueryError(
                f"{_name(path)} is compared with an object of {_show(next(iter(condition)))}; "
                f"for the operator write {meant[0]}, for such an object "
                '{"$eq": {...}}'
            )
    return _equal("$eq", path, condition, depth)


def _operators(path: Path, operators: Mapping[object, object], depth: int) -> _Node:
    plain = [name for name in operators if not _is_operator(name)]
    if plain:
        raise QueryError(
            f"{_name(path)} mixes operators with the plain key {_show(plain[0])}; ask for a "
            'nested field by its dotted path, or for a whole object by {"$eq": {...}}'
        )
    parts = [_operator(str(name), path, operand, depth) for name, operand in operators.items()]
    return parts[0] if len(parts) == 1 else _Every(tuple(parts))


def _operator(name: str, path: Path, operand: object, depth: int) -> _Node:
    build = _OPERATORS.get(name)
    if build is None:
        if name in _COMBINING:
            raise QueryError(
                f"{name} at {_name(path)} combines whole filters; put it outside: "
                f'{{"{name}": [{{"field": ...}}, ...]}}'
            )
        raise QueryError(f"unknown operator {_show(name)} at {_name(path)}; {_known()}")
    return build(name, path, operand, depth)


def _not(name: str, path: Path, operand: object, depth: int) -> _Node:
    _check_depth(depth + 1)
    if not isinstance(operand, Mapping) or not operand:
        raise _wrong(name, path, 'operators, as in {"$not": {"$gt": 3}} (or use $ne)', operand)
    return _Not(_operators(path, operand, depth + 1))


def _equal(name: str, path: Path, operand: object, depth: int) -> _Node:
    leaf = _among(path, [_literal(name, path, operand)])
    return _Not(leaf) if name == "$ne" else leaf


def _in(name: str, path: Path, operand: object, depth: int) -> _Node:
    if not isinstance(operand, list | tuple):
        raise _wrong(name, path, "a list of values", operand)
    leaf = _among(path, (_literal(name, path, value) for value in operand))
    return _Not(leaf) if name == "$nin" else leaf


def _ordered(name: str, path: Path, operand: object, depth: int) -> _Node:
    compare, limit, exact = _COMPARISONS[name], _limit(name, path, operand), exact_float(operand)

    def holds(value: object) -> bool:
        if isinstance(limit, str):
            return isinstance(value, str) and bool(compare(value, limit))
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and bool(compare(value, limit))

    if isinstance(limit, str):
        span = partial(_SPANS[name], limit)
        return _Leaf(path, holds, lambda column: column.where_string(span, holds))
    if exact is None:  # an integer between two floats
        return _satisfies(path, holds)
    return _Leaf(
        path,
        holds,
        lambda column: column.where_number(lambda numbers: compare(numbers, exact), holds),
    )


def _between(name: str, path: Path, operand: object, depth: int) -> _Node:
    if not isinstance(operand, list | tuple) or len(operand) != 2:
        raise _wrong(name, path, "a list of two, [lowest, highest], both included", operand)
    lowest, highest = (_limit(name, path, end) for end in operand)
    if isinstance(lowest, str) != isinstance(highest, str):
        raise _wrong(name, path, "two numbers or two strings", operand)
    return _Every((_ordered("$gte", path, lowest, depth), _ordered("$lte", path, highest, depth)))


def _contains(name: str, path: Path, operand: object, depth: int) -> _Node:
    key = _literal(name, path, operand)

    def contains(value: object) -> bool:
        if isinstance(value, list):
            return any(typed_key(element) == key for element in value)
        return isinstance(value, str) and isinstance(operand, str) and operand in value

    return _satisfies(path, contains)


def _exists(name: str, path: Path, operand: object, depth: int) -> _Node:
    if not isinstance(operand, bool):
        raise _wrong(name, path, "true or false", operand)
    leaf = _Leaf(path, lambda value: True, lambda column: column.present())
    return leaf if operand else _Not(leaf)


def _prefix(name: str, path: Path, operand: object, depth: int) -> _Node:
    if not isinstance(operand, str):
        raise _wrong(name, path, "a string", operand)

    def holds(value: object) -> bool:
        return isinstance(value, str) and value.startswith(operand)

    def span(ordered: Sequence[str]) -> tuple[int, int]:
        first = bisect_left(ordered, operand)
        return first, bisect_left(
            ordered, True, lo=first, key=lambda text: not text.startswith(operand)
        )

    return _Leaf(path, holds, lambda column: column.where_string(span, holds))


def _like(name: str, path: Path, operand: object, depth: int) -> _Node:
    return _text_leaf(path, _like_predicate(_pattern(name, path, operand), path))


def _regex(name: str, path: Path, operand: object, depth: int) -> _Node:
    import re2  # type: ignore[import-untyped, unused-ignore]  # only those who use it pay for it

    pattern = _pattern(name, path, operand)
    options = re2.Options()
    options.log_errors = False  # the reason goes into the QueryError, not to stderr
    options.never_capture = True
    options.max_mem = _REGEX_MEMORY_BYTES
    try:
        search = re2.compile(pattern.encode(), options).search
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0]
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(error)
        raise QueryError(
            f"$regex at {_name(path)} is not a usable pattern: {reason}; "
            "see the RE2 syntax (no look-around, no back-references)"
        ) from error
    return _text_leaf(path, lambda text: search(text.encode()) is not None)


def _elem(name: str, path: Path, operand: object, depth: int) -> _Node:
    if not isinstance(operand, Mapping):
        wanted = 'an object of operators or fields, as in {"$elem": {"$prefix": "a"}}'
        raise _wrong(name, path, f"{wanted} (or use $contains)", operand)
    element = _filter(operand, (), depth + 1, of_element=True)

    def some(value: object) -> bool:
        return isinstance(value, list) and any(element.matches(part) for part in value)

    return _satisfies(path, some)


_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_SPANS: Mapping[str, Callable[[str, Sequence[str]], tuple[int, int]]] = {
    "$gt": lambda limit, ordered: (bisect_right(ordered, limit), len(ordered)),
    "$gte": lambda limit, ordered: (bisect_left(ordered, limit), len(ordered)),
    "$lt": lambda limit, ordered: (0, bisect_left(ordered, limit)),
    "$lte": lambda limit, ordered: (0, bisect_right(ordered, limit)),
}
_short = reprlib.Repr()
_short.maxstring = 80
_show = _short.repr  # a picture for a message, however large or deep the value is
_COMBINING = ("$and", "$or")
_OPERATORS: Mapping[str, Callable[[str, Path, object, int], _Node]] = {
    "$eq": _equal,
    "$ne": _equal,
    **dict.fromkeys(_COMPARISONS, _ordered),
    "$in": _in,
    "$nin": _in,
    "$between": _between,
    "$contains": _contains,
    "$exists": _exists,
    "$prefix": _prefix,
    "$like": _like,
    "$regex": _regex,
    "$elem": _elem,
    "$not": _not,
}


def _like_predicate(pattern: str, path: Path) -> Callable[[str], bool]:
    """SQL's LIKE: `%` any run, `_` one character, a backslash takes the next one literally.

    The first and the last piece are fixed in place; each piece between is taken where it
    first occurs, which never has to be reconsidered, so there is no backtracking.
    """
    pieces, lengths = [""], [0]
    characters = iter(pattern)
    for character in characters:
        if character == "%":
            pieces.append("")
            lengths.append(0)
            continue
        literal = next(characters, "") if character == "\\" else character
        if not literal:
            raise QueryError(
                f"$like at {_name(path)} ends in a lone backslash; write \\\\ for a backslash"
            )
        pieces[-1] += "." if character == "_" else re.escape(literal)
        lengths[-1] += 1
    first, *rest = (re.compile(piece, re.DOTALL) for piece in pieces)
    if not rest:
        return lambda text: first.fullmatch(text) is not None
    *between, last = rest

    def like(text: str) -> bool:
        found = first.match(text)
        for piece in between:
            found = found and piece.search(text, found.end())
        start = len(text) - lengths[-1]
        return found is not None and found.end() <= start and last.match(text, start) is not None

    return like


def _among(path: Path, keys: Iterable[Hashable]) -> _Leaf:
    chosen = frozenset(keys)
    return _Leaf(
        path, lambda value: typed_key(value) in chosen, lambda column: column.among(chosen)
    )


def _satisfies(path: Path, holds: Callable[[object], bool]) -> _Leaf:
    return _Leaf(path, holds, lambda column: column.where(holds))


def _text_leaf(path: Path, holds: Callable[[str], bool]) -> _Leaf:
    return _satisfies(path, lambda value: isinstance(value, str) and holds(value))


def _path(name: object) -> Path:
    """The keys of a field: `"a.b"` and `("a", "b")` are the same, `""` is the whole value."""
    if isinstance(name, str):
        return tuple(name.split(".")) if name else ()
    if isinstance(name, tuple) and all(isinstance(key, str) for key in name):
        return name
    raise QueryError(f"a field is a dotted path or a tuple of keys, not {_show(name)}")


def _limit(name: str, path: Path, operand: object) -> float | str:
    if isinstance(operand, bool) or not isinstance(operand, int | float | str):
        raise _wrong(name, path, "numbers or strings; nothing else has an order", operand)
    _literal(name, path, operand)
    return operand


def _pattern(name: str, path: Path, operand: object) -> str:
    if not isinstance(operand, str):
        raise _wrong(name, path, "a pattern, which is a string", operand)
    if len(operand) > MAX_PATTERN_CHARACTERS:
        raise QueryError(
            f"{name} at {_name(path)} has a pattern of {len(operand):,} characters; "
            f"the limit is {MAX_PATTERN_CHARACTERS:,}"
        )
    return operand


def _literal(name: str, path: Path, operand: object) -> Hashable:
    """Check that an operand is a JSON value and give its `typed_key`."""

    def plain(value: object, depth: int) -> object:
        if depth > MAX_VALUE_DEPTH:
            raise QueryError(f"{name} at {_name(path)} has a value nested over {MAX_VALUE_DEPTH}")
        if isinstance(value, float) and not math.isfinite(value):
            raise _wrong(name, path, "finite numbers", value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            return [plain(part, depth + 1) for part in value]
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: plain(part, depth + 1) for key, part in value.items()}
        raise _wrong(name, path, "JSON values (null, booleans, numbers, strings, ...)", value)

    return typed_key(plain(operand, 1))


def _is_operator(name: object) -> bool:
    return isinstance(name, str) and name.startswith("$")


def _check_size(filter: object) -> None:
    """Refuse a filter of very many parts, each counted as often as it is reached."""
    count, waiting = 0, [filter]
    while waiting:
        part = waiting.pop()
        inner: Iterable[object] = ()
        if isinstance(part, Mapping):
            inner = part.values()
        elif isinstance(part, list | tuple):
            inner = part
        else:
            continue
        count += 1
        if count > MAX_FILTER_PARTS:
            raise QueryError(
                f"a filter has at most {MAX_FILTER_PARTS:,} parts; ask for less at once"
            )
        waiting += [item for item in inner if isinstance(item, Mapping | list | tuple)]


def _check_depth(depth: int) -> None:
    if depth > MAX_FILTER_DEPTH:
        raise QueryError(f"the filter is nested over {MAX_FILTER_DEPTH} deep; flatten it")


def _wrong(name: str, path: Path, wanted: str, got: object) -> QueryError:
    plain = "; pass its tolist()" if is_numpy(got) and not isinstance(got, float) else ""
    return QueryError(f"{name} at {_name(path)} needs {wanted}; got {_show(got)}{plain}")


def _known() -> str:
    return f"the operators are {' '.join((*_OPERATORS, *_COMBINING))}"


def _name(path: Path) -> str:
    return _show(".".join(path)) if path else "the value itself"
