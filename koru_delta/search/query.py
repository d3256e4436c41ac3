"""Selecting, sorting and paging the keys of a namespace by what their values hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from koru_delta.causal import Cut, Version
from koru_delta.errors import QueryError
from koru_delta.log import CausalLog
from koru_delta.search.columns import MISSING, Path, look_up
from koru_delta.search.filters import CompiledFilter, Filter, compile_filter
from koru_delta.storage import Stored
from koru_delta.values import Value, decode


@dataclass(frozen=True, slots=True)
class Row:
    """A key and what it holds; `value` is the selected fields when `select` was given."""

    key: str
    value: Value
    version: Version


def select_rows(
    log: CausalLog,
    namespace: str,
    cut: Cut,
    valid_at: int,
    *,
    filter: Filter | None,
    sort: str | Sequence[str] | None,
    limit: int | None,
    offset: int,
    select: Sequence[str] | None,
) -> list[Row]:
    """Rows that match, sorted, from `offset` on, at most `limit`; ties in key order."""
    check_page(limit, offset)
    where = compile_filter(filter)
    order = _order(sort)
    fields = None if select is None else [_path(name) for name in _names("select", select)]
    simple = filter is None and not order
    want = offset + limit if simple and limit is not None else None
    found = log.engine.visible_keys(
        namespace, cut.seq, valid_at, cut.clock, limit=want, hidden=False
    )
    kept = matching(found, where)
    for path, descending in reversed(order):
        kept.sort(key=lambda row: _rank(look_up(row[2], path)), reverse=descending)
        if descending:  # a missing field comes last either way
            kept.sort(key=lambda row: look_up(row[2], path) is MISSING)
    page = kept[offset : None if limit is None else offset + limit]
    versions = log.loaded([entry for _, entry, _ in page], [key for key, _, _ in page])
    return [
        Row(key, value if fields is None else _project(value, fields), version)
        for (key, _, value), version in zip(page, versions, strict=True)
    ]


def matching(
    found: Sequence[tuple[str, Stored]], where: CompiledFilter
) -> list[tuple[str, Stored, Value]]:
    """Keep what matches, with its decoded value."""
    decoded = ((key, entry, decode(entry.body or b"null")) for key, entry in found)
    return [row for row in decoded if where.matches(row[2])]


def check_page(limit: int | None, offset: int = 0) -> None:
    """Refuse a page that is not one.

    Raises:
        QueryError: a negative or non-integer limit or offset.
    """
    for name, number in (("limit", limit), ("offset", offset)):
        if number is None and name == "limit":
            continue
        if type(number) is not int or not 0 <= number < 2**63:
            raise QueryError(f"{name} is a whole number from 0 to 2**63 - 1, not {number!r}")


def _order(sort: str | Sequence[str] | None) -> list[tuple[Path, bool]]:
    if sort is None:
        return []
    names = [sort] if isinstance(sort, str) else _names("sort", sort)
    return [(_path(name.removeprefix("-")), name.startswith("-")) for name in names]


def _names(what: str, names: object) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise QueryError(f"{what} is a list of dotted paths, not {names!r}")
    for name in names:
        if not isinstance(name, str):
            raise QueryError(f"{what} holds dotted paths, not {name!r}")
    return list(names)


def _path(name: str) -> Path:
    return tuple(name.split(".")) if name else ()


def _rank(value: object) -> tuple[int, Any]:
    """Order of types: null, booleans, numbers, strings, then all else as equal; missing last."""
    if value is MISSING:
        return (9, 0)
    if value is None:
        return (0, 0)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, (int, float)):
        return (2, value)
    if isinstance(value, str):
        return (3, value)
    return (4, 0)


def _project(value: Value, fields: Sequence[Path]) -> dict[str, Value]:
    found = {".".join(path): look_up(value, path) for path in fields}
    return {name: field for name, field in found.items() if field is not MISSING}
