"""Structured queries as filters: every comparator and operator, nested, with values untouched."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_classic.chains.query_constructor.schema import AttributeInfo
from langchain_core.language_models import FakeListLLM
from langchain_core.structured_query import (
    Comparator,
    Comparison,
    Operation,
    Operator,
    StructuredQuery,
)

import koru_delta
from koru_delta.errors import QueryError
from koru_delta_langchain import KoruDeltaTranslator, KoruDeltaVectorStore, self_query_retriever

FILMS: list[dict[str, Any]] = [
    {"id": "a", "year": 1990, "name": "Rain", "tags": ["wet", "sad"], "on": "1990-05-01"},
    {"id": "b", "year": 2000, "name": "Rainbow", "tags": ["wet"], "on": "2000-05-01"},
    {"id": "c", "year": 2010.5, "name": "$gt", "tags": [], "on": "2010-05-01"},
]


@pytest.fixture
def store(db: koru_delta.Database) -> KoruDeltaVectorStore:
    store = KoruDeltaVectorStore(database=db)
    store.add_texts([f"film {f['name']}" for f in FILMS], FILMS, ids=[f["id"] for f in FILMS])
    return store


def compare(comparator: Comparator, attribute: str, value: Any) -> Comparison:
    return Comparison(comparator=comparator, attribute=attribute, value=value)


CASES: list[tuple[Any, set[str]]] = [
    (compare(Comparator.EQ, "year", 2000), {"b"}),
    (compare(Comparator.EQ, "year", "2000"), set()),
    (compare(Comparator.NE, "year", 2000), {"a", "c"}),
    (compare(Comparator.GT, "year", 2000), {"c"}),
    (compare(Comparator.GTE, "year", 2000.0), {"b", "c"}),
    (compare(Comparator.LT, "year", 2000), {"a"}),
    (compare(Comparator.LTE, "year", 2000), {"a", "b"}),
    (compare(Comparator.CONTAIN, "tags", "wet"), {"a", "b"}),
    (compare(Comparator.CONTAIN, "name", "bow"), {"b"}),
    (compare(Comparator.LIKE, "name", "Rain%"), {"a", "b"}),
    (compare(Comparator.IN, "name", ["Rain", "$gt"]), {"a", "c"}),
    (compare(Comparator.NIN, "name", ["Rain", "$gt"]), {"b"}),
    (compare(Comparator.EQ, "name", "$gt"), {"c"}),
    (compare(Comparator.GT, "on", {"date": "1999-01-01", "type": "date"}), {"b", "c"}),
    (
        Operation(
            operator=Operator.AND,
            arguments=[
                compare(Comparator.GT, "year", 1980),
                Operation(
                    operator=Operator.OR,
                    arguments=[
                        compare(Comparator.EQ, "name", "Rain"),
                        Operation(
                            operator=Operator.NOT,
                            arguments=[compare(Comparator.CONTAIN, "tags", "wet")],
                        ),
                    ],
                ),
            ],
        ),
        {"a", "c"},
    ),
]


@pytest.mark.parametrize(("condition", "expected"), CASES)
def test_each_condition_finds_what_it_says(
    store: KoruDeltaVectorStore, condition: Any, expected: set[str]
) -> None:
    query = StructuredQuery(query="film", filter=condition)
    text, options = KoruDeltaTranslator().visit_structured_query(query)
    assert text == "film"
    assert {found.id for found in store.similarity_search(text, **options)} == expected


def test_every_comparator_and_operator_is_translated() -> None:
    assert set(KoruDeltaTranslator.allowed_comparators) == set(Comparator)
    assert set(KoruDeltaTranslator.allowed_operators) == set(Operator)
    assert KoruDeltaTranslator().visit_structured_query(StructuredQuery("x", None)) == ("x", {})
    two = [compare(Comparator.EQ, "a", 1)] * 2
    with pytest.raises(QueryError, match="one thing"):
        Operation(operator=Operator.NOT, arguments=two).accept(KoruDeltaTranslator())


async def test_a_self_query_retriever_asks_the_store(store: KoruDeltaVectorStore) -> None:
    answer = (
        '```json\n{"query": "film", "filter": "and(gte(\\"year\\", 2000), '
        'contain(\\"tags\\", \\"wet\\"))", "limit": 1}\n```'
    )
    retriever = self_query_retriever(
        FakeListLLM(responses=[answer]),
        store,
        "films",
        [
            AttributeInfo(name="year", description="when it came out", type="integer"),
            AttributeInfo(name="tags", description="what it is like", type="list[string]"),
        ],
        enable_limit=True,
        search_type="hybrid",
    )
    assert [found.id for found in retriever.invoke("wet films of this century")] == ["b"]
    assert [found.id for found in await retriever.ainvoke("the same")] == ["b"]
