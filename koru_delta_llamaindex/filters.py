"""LlamaIndex's metadata filters as KoruDelta's, over the values of nodes.

Types never mix: a string is no number, a boolean is no number. A key is a key of the
metadata; where the metadata has none of that name, a dotted key leads into it, and
`ref_doc_id`, `doc_id` and `document_id` are the document the node came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

import koru_delta

Condition: TypeAlias = dict[Any, Any]

_DEEPEST: Final = 60
_SOURCES: Final = ("ref_doc_id", "doc_id", "document_id")


def filter_of(filters: MetadataFilters | None, depth: int = 0) -> Condition | None:
    """The filter that says the same; None where nothing is asked.

    Raises:
        QueryError: it is none or too deep, or an operator and its value do not go together.
    """
    if filters is None:
        return None
    if not isinstance(filters, MetadataFilters) or not isinstance(filters.filters, list):
        raise koru_delta.errors.QueryError(
            f"filters are MetadataFilters, with a list of them, not {type(filters).__name__}"
        )
    if not filters.filters:
        return None
    if depth > _DEEPEST:
        raise koru_delta.errors.QueryError(f"filters are nested at most {_DEEPEST} deep")
    parts = []
    for each in filters.filters:
        if isinstance(each, MetadataFilters):
            part = filter_of(each, depth + 1)
            parts.append({} if part is None else part)
        else:
            parts.append(_leaf(each))
    condition = FilterCondition.AND if filters.condition is None else filters.condition
    if condition == FilterCondition.AND:
        return {"$and": parts}
    if condition == FilterCondition.OR:
        return {"$or": parts}
    if condition == FilterCondition.NOT:
        return {"$not": {"$or": parts}}
    raise koru_delta.errors.QueryError(f"filters are joined by and, or and not, not {condition!r}")


def both(first: Any, second: Any) -> Condition:
    """What passes both; the first may be None, which asks nothing."""
    condition: Condition = second if first is None else {"$and": [first, second]}
    return condition


def _leaf(given: MetadataFilter) -> Condition:
    """One comparison, at the first of the places its key may mean that is there."""
    if not isinstance(given, MetadataFilter) or not isinstance(given.key, str):
        raise koru_delta.errors.QueryError(
            f"a filter is a MetadataFilter whose key is a string, not {type(given).__name__}"
        )
    places: list[tuple[str, ...]] = [("metadata", given.key)]
    if "." in given.key:
        places.append(("metadata", *given.key.split(".")))
    if given.key in _SOURCES:
        places.append(("ref_doc_id",))
    if given.operator not in [*_OPERATORS]:
        raise koru_delta.errors.QueryError(
            f"there is no operator {given.operator!r}; it is one of "
            f"{', '.join(operator.value for operator in _OPERATORS)}"
        )
    build = _OPERATORS[given.operator]
    condition = build(given, places[-1])
    for place in reversed(places[:-1]):
        there = {place: {"$exists": True}}
        condition = {
            "$or": [
                {"$and": [there, build(given, place)]},
                {"$and": [{"$not": there}, condition]},
            ]
        }
    return condition


def _plain(name: str) -> Callable[[MetadataFilter, tuple[str, ...]], Condition]:
    return lambda given, place: {place: {name: given.value}}


def _listed(name: str) -> Callable[[MetadataFilter, tuple[str, ...]], Condition]:
    return lambda given, place: {place: {name: _list(given)}}


def _any(given: MetadataFilter, place: tuple[str, ...]) -> Condition:
    return {"$or": [{place: {"$contains": value}} for value in _list(given)]}


def _all(given: MetadataFilter, place: tuple[str, ...]) -> Condition:
    there = {place: {"$exists": True, "$ne": None}}
    return {"$and": [there, *({place: {"$contains": value}} for value in _list(given))]}


def _text(given: MetadataFilter, place: tuple[str, ...]) -> Condition:
    return {place: {"$prefix": "", "$contains": _string(given)}}  # the first: it is a string


def _text_insensitive(given: MetadataFilter, place: tuple[str, ...]) -> Condition:
    return {place: {"$regex": "(?i)" + re.escape(_string(given))}}


def _empty(_given: MetadataFilter, place: tuple[str, ...]) -> Condition:
    return {"$or": [{place: {"$exists": False}}, {place: {"$in": [None, "", []]}}]}


_Build: TypeAlias = Callable[[MetadataFilter, tuple[str, ...]], Condition]
_OPERATORS: Final[Mapping[FilterOperator, _Build]] = {
    FilterOperator.EQ: _plain("$eq"),
    FilterOperator.NE: _plain("$ne"),
    FilterOperator.GT: _plain("$gt"),
    FilterOperator.GTE: _plain("$gte"),
    FilterOperator.LT: _plain("$lt"),
    FilterOperator.LTE: _plain("$lte"),
    FilterOperator.IN: _listed("$in"),
    FilterOperator.NIN: _listed("$nin"),
    FilterOperator.ANY: _any,
    FilterOperator.ALL: _all,
    FilterOperator.CONTAINS: _plain("$contains"),
    FilterOperator.TEXT_MATCH: _text,
    FilterOperator.TEXT_MATCH_INSENSITIVE: _text_insensitive,
    FilterOperator.IS_EMPTY: _empty,
}


def _list(given: MetadataFilter) -> Sequence[Any]:
    if not isinstance(given.value, list):
        raise koru_delta.errors.QueryError(
            f"{given.operator.value!r} at {given.key!r} needs a list of values, not {given.value!r}"
        )
    return given.value


def _string(given: MetadataFilter) -> str:
    if not isinstance(given.value, str):
        raise koru_delta.errors.QueryError(
            f"{given.operator.value!r} at {given.key!r} needs a text, not {given.value!r}"
        )
    return given.value
