"""Questions with conditions in them: LangChain's structured queries as filters of ours."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from langchain_core.structured_query import (
    Comparator,
    Comparison,
    Operation,
    Operator,
    StructuredQuery,
    Visitor,
)

import koru_delta

if TYPE_CHECKING:
    from langchain_classic.retrievers.self_query.base import SelfQueryRetriever
    from langchain_core.language_models import BaseLanguageModel

    from koru_delta_langchain.vectorstore import KoruDeltaVectorStore

_COMPARATORS: Final = {
    Comparator.EQ: "$eq",
    Comparator.NE: "$ne",
    Comparator.GT: "$gt",
    Comparator.GTE: "$gte",
    Comparator.LT: "$lt",
    Comparator.LTE: "$lte",
    Comparator.CONTAIN: "$contains",
    Comparator.LIKE: "$like",
    Comparator.IN: "$in",
    Comparator.NIN: "$nin",
}
_NUMBERS: Final = ("integer", "float", "number")
_OPERATORS: Final = {Operator.AND: "$and", Operator.OR: "$or", Operator.NOT: "$not"}


class KoruDeltaTranslator(Visitor):
    """Makes a `filter` over the metadata of a structured query: all its operators, nested.

    An attribute is a dotted path. A date is compared as ISO 8601 text, which is how metadata
    holds one. Values stay values: nothing is built of text. A filter never mixes types, models
    do: what is asked of `numbers`, attributes that hold numbers, is read as one where it is
    the text of one.

    >>> query = StructuredQuery("rain", Comparison(Comparator.GTE, "year", 1990))
    >>> KoruDeltaTranslator().visit_structured_query(query)
    ('rain', {'filter': {'year': {'$gte': 1990}}})
    >>> KoruDeltaTranslator({"year"}).visit_comparison(Comparison(Comparator.EQ, "year", "1990"))
    {'year': {'$eq': 1990}}
    """

    allowed_comparators = tuple(_COMPARATORS)
    allowed_operators = tuple(_OPERATORS)

    def __init__(self, numbers: Collection[str] = ()) -> None:
        """Know which attributes hold numbers."""
        self._numbers = frozenset(numbers)

    def visit_operation(self, operation: Operation) -> dict[str, Any]:
        """The filter of a combination.

        Raises:
            QueryError: a "not" of several things.
        """
        self._validate_func(operation.operator)
        parts = [argument.accept(self) for argument in operation.arguments]
        if operation.operator is not Operator.NOT:
            return {_OPERATORS[operation.operator]: parts}
        if len(parts) != 1:
            raise koru_delta.errors.QueryError(f"'not' is of one thing, this is of {len(parts)}")
        return {"$not": parts[0]}

    def visit_comparison(self, comparison: Comparison) -> dict[str, Any]:
        """The filter of a comparison."""
        self._validate_func(comparison.comparator)
        value = _plain(comparison.value)
        if comparison.attribute in self._numbers:
            value = [_number(each) for each in value] if isinstance(value, list) else _number(value)
        return {comparison.attribute: {_COMPARATORS[comparison.comparator]: value}}

    def visit_structured_query(
        self, structured_query: StructuredQuery
    ) -> tuple[str, dict[str, Any]]:
        """The words to search with, and the options of the search."""
        if structured_query.filter is None:
            return structured_query.query, {}
        return structured_query.query, {"filter": structured_query.filter.accept(self)}


def self_query_retriever(
    llm: BaseLanguageModel[Any],
    store: KoruDeltaVectorStore,
    document_contents: str,
    metadata_field_info: Sequence[Any],
    **kwargs: Any,
) -> SelfQueryRetriever:
    """A `SelfQueryRetriever` over a store: it knows no vector store but LangChain's own.

    Args:
        document_contents: What the documents are, for the model.
        metadata_field_info: An `AttributeInfo` for each field of the metadata; where its type is
            "integer", "float" or "number", a model may say a number as text.
        **kwargs: Those of `SelfQueryRetriever.from_llm`.

    Raises:
        MissingExtraError: `langchain-classic`, which has that retriever, is not installed.
    """
    try:
        from langchain_classic.retrievers.self_query.base import SelfQueryRetriever
    except ModuleNotFoundError as error:
        raise koru_delta.errors.MissingExtraError(
            "a self-query retriever", "langchain-classic"
        ) from error
    told = [info if isinstance(info, dict) else dict(info) for info in metadata_field_info]
    numbers = {info["name"] for info in told if info["type"] in _NUMBERS}
    return SelfQueryRetriever.from_llm(
        llm, store, document_contents, metadata_field_info,
        structured_query_translator=KoruDeltaTranslator(numbers), **kwargs,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    """A value as metadata holds it; the grammar gives dates as `{"date": ..., "type": ...}`."""
    if isinstance(value, dict) and value.get("type") in {"date", "datetime"}:
        return value.get("date", value.get("datetime"))
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _number(value: Any) -> Any:
    """A number where the value is the text of one, and else what it is."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    if not math.isfinite(number):
        return value
    return int(number) if number.is_integer() else number
