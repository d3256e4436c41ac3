"""Selecting, sorting and paging the keys of a namespace by what their values hold.

Two ways to the same answer: reading what is visible from the log and looking at each
value, or columns of the values (`records.py`), which answer in well under a millisecond
once they are read. Columns hold every version there ever was, so they are read when as much
has been looked at one by one as reading them would have cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from koru_delta.causal import Cut, Version
from koru_delta.errors import QueryError
from koru_delta.search.causality import CompiledCausal
from koru_delta.search.columns import MISSING, Column, Path, look_up
from koru_delta.search.filters import CompiledFilter, Filter, compile_filter, compiled
from koru_delta.search.records import Records
from koru_delta.storage import Stored
from koru_delta.values import Value, decode


@dataclass(frozen=True, slots=True)
class Row:
    """A key and what it holds; `value` is the selected fields when `select` was given."""

    key: str
    value: Value
    version: Version


def select_rows(
    records: Records,
    cut: Cut,
    valid_at: int,
    *,
    filter: Filter | None,
    sort: str | Sequence[str] | None,
    limit: int | None,
    offset: int,
    select: Sequence[str] | None,
    causal: CompiledCausal | None = None,
    searched: bool = False,
) -> list[Row]:
    """Rows that match, sorted, from `offset` on, at most `limit`; ties in key order.

    With `searched` what is superseded is left out, as searches do; what is erased meanwhile
    always is.
    """
    check_page(limit, offset)
    where = None if filter is None else compiled(filter)
    order = _order(sort)
    fields = None if select is None else [_path(name) for name in _names("select", select)]
    log = records.log
    stop = None if limit is None else offset + limit
    if where is None and not searched and not order:
        plain = log.engine.visible_keys(
            records.namespace, cut.seq, valid_at, cut.clock, limit=stop, hidden=False
        )[offset:]
        versions = log.loaded([entry for _, entry in plain], [key for key, _ in plain])
    else:
        paths = {path for path, _ in order} | (where.paths if where is not None else set())
        if searched or records.pays(paths):
            seqs = _by_columns(
                records, cut, valid_at, where, causal, order, stop, searched=searched
            )[offset:]
            versions = log.versions(seqs)
        else:
            kept = matching(_visible(records, cut, valid_at), where or compile_filter(None))
            for path, descending in reversed(order):
                kept.sort(key=lambda row: _rank(look_up(row[2], path)), reverse=descending)
                if descending:  # a missing field comes last either way
                    kept.sort(key=lambda row: look_up(row[2], path) is MISSING)
            page = kept[offset:stop]
            versions = log.loaded([entry for _, entry, _ in page], [key for key, _, _ in page])
    return [
        Row(
            version.key,
            version.value if fields is None else _project(version.value, fields),
            version,
        )
        for version in versions
        if not version.is_erased  # since they were chosen
    ]


def count_rows(
    records: Records,
    cut: Cut,
    valid_at: int,
    *,
    filter: Filter | None,
    causal: CompiledCausal | None = None,
    searched: bool = False,
) -> int:
    """How many rows `select_rows` would give."""
    engine = records.log.engine
    if filter is None and not searched:
        return engine.count_visible(records.namespace, cut.seq, valid_at, cut.clock)
    where = None if filter is None else compiled(filter)
    if searched or records.pays(set() if where is None else where.paths):
        reading = records.at(cut.seq)
        return records.passing(
            reading, cut, valid_at, where, causal, with_superseded=not searched
        ).count
    return len(matching(_visible(records, cut, valid_at), where or compile_filter(None)))


def _visible(records: Records, cut: Cut, valid_at: int) -> list[tuple[str, Stored]]:
    found = records.log.engine.visible_keys(
        records.namespace, cut.seq, valid_at, cut.clock, hidden=False
    )
    records.looked_at += len(found)
    return found


def _by_columns(
    records: Records,
    cut: Cut,
    valid_at: int,
    where: CompiledFilter | None,
    causal: CompiledCausal | None,
    order: Sequence[tuple[Path, bool]],
    most: int | None,
    *,
    searched: bool,
) -> list[int]:
    """The positions of the versions that match, in order; the first so many."""
    reading = records.at(cut.seq)
    passing = records.passing(reading, cut, valid_at, where, causal, with_superseded=not searched)
    slots = np.flatnonzero(passing.mask)
    slots = records.in_key_order(reading, slots, None if order else most)
    if order:
        columns = records.columns([path for path, _ in order], reading.slots)
        for path, descending in reversed(order):
            ranks = _ranks(columns[path])[columns[path].codes[slots]]
            missing = columns[path].codes[slots] == 0
            slots = slots[np.lexsort((-ranks if descending else ranks, missing))]
    found: list[int] = reading.seqs[slots[:most]].tolist()
    return found


def _ranks(column: Column) -> npt.NDArray[np.int64]:
    """For each code of a column where its value comes in order; equal ones share a rank."""
    values = [_rank(value) for value in column.distinct]
    places = {rank: place for place, rank in enumerate(sorted(set(values)), 1)}
    return np.array([0, *(places[rank] for rank in values)], dtype=np.int64)


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
