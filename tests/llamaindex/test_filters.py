"""Every operator and nesting of LlamaIndex's filters, against a plain reading of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)

import koru_delta
from koru_delta_llamaindex import KoruDeltaVectorStore

LISTS = (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)
TEXTS = (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE)
ORDERED = (FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE)
MISSING = object()


def same(one: Any, other: Any) -> bool:
    """Equal and of one type, where integers and floats are one and booleans are another."""
    if isinstance(one, bool) or isinstance(other, bool):
        return type(one) is type(other) and one == other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    numbers = isinstance(one, (int, float)), isinstance(other, (int, float))
    return numbers[0] == numbers[1] and one == other


def holds_in(value: Any, wanted: Any) -> bool:
    if isinstance(value, list):
        return any(same(part, wanted) for part in value)
    return isinstance(value, str) and isinstance(wanted, str) and wanted in value


def comparable(one: Any, other: Any) -> bool:
    kinds = [
        "text" if isinstance(each, str) else "number" if type(each) in (int, float) else each
        for each in (one, other)
    ]
    return kinds[0] == kinds[1] and kinds[0] in ("text", "number")


def passes(metadata: dict[str, Any], asked: MetadataFilter | MetadataFilters) -> bool:
    if isinstance(asked, MetadataFilters):
        if not asked.filters:
            return True
        found = [passes(metadata, each) for each in asked.filters]
        if asked.condition == FilterCondition.OR:
            return any(found)
        if asked.condition == FilterCondition.NOT:
            return not any(found)
        return all(found)
    value, wanted = metadata.get(asked.key, MISSING), asked.value
    match asked.operator:
        case FilterOperator.EQ:
            return value is not MISSING and same(value, wanted)
        case FilterOperator.NE:
            return value is MISSING or not same(value, wanted)
        case FilterOperator.GT:
            return comparable(value, wanted) and value > wanted
        case FilterOperator.GTE:
            return comparable(value, wanted) and value >= wanted
        case FilterOperator.LT:
            return comparable(value, wanted) and value < wanted
        case FilterOperator.LTE:
            return comparable(value, wanted) and value <= wanted
        case FilterOperator.IN:
            return value is not MISSING and any(same(value, each) for each in wanted)
        case FilterOperator.NIN:
            return value is MISSING or not any(same(value, each) for each in wanted)
        case FilterOperator.ANY:
            return any(holds_in(value, each) for each in wanted)
        case FilterOperator.ALL:
            there = value is not MISSING and value is not None
            return there and all(holds_in(value, each) for each in wanted)
        case FilterOperator.CONTAINS:
            return holds_in(value, wanted)
        case FilterOperator.TEXT_MATCH:
            return isinstance(value, str) and wanted in value
        case FilterOperator.TEXT_MATCH_INSENSITIVE:
            return isinstance(value, str) and wanted.lower() in value.lower()
        case FilterOperator.IS_EMPTY:
            return value is MISSING or value is None or value in ("", [])
    raise AssertionError(asked.operator)


KEYS = st.sampled_from(["a", "b", "$a", "with space", "_id"])
WORDS = st.text("abAB.*(\\ $", max_size=3)
SCALARS = st.one_of(st.integers(-3, 3), st.sampled_from([-1.5, 0.0, 1.0, 2.5]), WORDS)
VALUES = st.one_of(
    SCALARS, st.booleans(), st.none(), st.lists(SCALARS, max_size=3), st.just({"inner": 1})
)
METADATA = st.dictionaries(KEYS, VALUES, max_size=4)


@st.composite
def leaves(draw: st.DrawFn) -> MetadataFilter:
    operator = draw(st.sampled_from(list(FilterOperator)))
    value: Any
    if operator in LISTS:
        kind = draw(st.sampled_from([st.integers(-3, 3), st.sampled_from([1.0, 2.5]), WORDS]))
        value = draw(st.lists(kind, max_size=3))
    elif operator in TEXTS:
        value = draw(WORDS)
    elif operator in ORDERED:
        value = draw(SCALARS)
    else:
        value = draw(st.one_of(SCALARS, st.none()))
    return MetadataFilter(key=draw(KEYS), operator=operator, value=value)


FILTERS = st.recursive(
    leaves(),
    lambda inner: st.builds(
        MetadataFilters,
        filters=st.lists(inner, max_size=3),
        condition=st.sampled_from([*FilterCondition, None]),
    ),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(documents=st.lists(METADATA, min_size=1, max_size=6), asked=FILTERS)
def test_every_filter_finds_what_a_plain_reading_of_it_finds(
    db: koru_delta.Database, documents: list[dict[str, Any]], asked: MetadataFilter
) -> None:
    store = KoruDeltaVectorStore(db)
    store.clear()
    nodes = [
        TextNode(id_=str(place), text="x", metadata=metadata, embedding=[1.0, float(place)])
        for place, metadata in enumerate(documents)
    ]
    store.add(nodes)
    filters = asked if isinstance(asked, MetadataFilters) else MetadataFilters(filters=[asked])
    wanted = [node.node_id for node in nodes if passes(node.metadata, filters)]

    got = [node.node_id for node in store.get_nodes(filters=filters)]
    by_id = store.get_nodes(node_ids=[node.node_id for node in nodes], filters=filters)
    asking = VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=9, filters=filters)
    found = store.query(asking)
    store.delete_nodes(filters=filters)
    left = {node.node_id for node in store.get_nodes()}

    assert got == wanted
    assert [node.node_id for node in by_id] == wanted
    assert sorted(found.ids or ()) == wanted
    assert left == {node.node_id for node in nodes} - set(wanted)


SAFE = st.fixed_dictionaries({"n": st.integers(0, 4), "t": WORDS}, optional={"x": WORDS})
COMPARABLE = st.one_of(
    st.builds(
        MetadataFilter,
        key=st.just("n"),
        operator=st.sampled_from([*ORDERED, FilterOperator.EQ, FilterOperator.NE]),
        value=st.integers(0, 4),
    ),
    st.builds(
        MetadataFilter,
        key=st.just("n"),
        operator=st.sampled_from([FilterOperator.IN, FilterOperator.NIN]),
        value=st.lists(st.integers(0, 4), max_size=3),
    ),
    st.builds(
        MetadataFilter,
        key=st.sampled_from(["t", "x"]),
        operator=st.sampled_from(
            [*TEXTS, *ORDERED, FilterOperator.EQ, FilterOperator.NE, FilterOperator.CONTAINS]
        ),
        value=WORDS,
    ),
    st.builds(
        MetadataFilter,
        key=st.sampled_from(["t", "x"]),
        operator=st.sampled_from([FilterOperator.ANY, FilterOperator.ALL]),
        value=st.lists(WORDS, max_size=2),
    ),
    st.builds(
        MetadataFilter,
        key=st.sampled_from(["t", "x"]),
        operator=st.just(FilterOperator.IS_EMPTY),
        value=st.none(),
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    documents=st.lists(SAFE, min_size=1, max_size=6),
    filters=st.builds(
        MetadataFilters,
        filters=st.lists(COMPARABLE, min_size=1, max_size=3),
        condition=st.sampled_from(list(FilterCondition)),
    ),
)
def test_where_the_framework_s_own_store_compares_ours_finds_the_same(
    db: koru_delta.Database, documents: list[dict[str, Any]], filters: MetadataFilters
) -> None:
    ours, theirs = KoruDeltaVectorStore(db), SimpleVectorStore()
    ours.clear()
    nodes = [
        TextNode(id_=str(place), text="x", metadata=metadata, embedding=[1.0, float(place)])
        for place, metadata in enumerate(documents)
    ]
    ours.add(nodes)
    theirs.add(nodes)
    asked = VectorStoreQuery(query_embedding=[1.0, 0.5], similarity_top_k=9, filters=filters)

    found, expected = ours.query(asked), theirs.query(asked)

    assert sorted(found.ids or ()) == sorted(expected.ids or ())
    both = zip(sorted(found.similarities or ()), sorted(expected.similarities or ()), strict=True)
    for relevance, cosine in both:
        assert relevance == pytest.approx((1 + cosine) / 2, abs=1e-6)


def one(db: koru_delta.Database, metadata: dict[str, Any], asked: MetadataFilter) -> bool:
    store = KoruDeltaVectorStore(db)
    store.clear()
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")}
    store.add([TextNode(metadata=metadata, embedding=[1.0], relationships=source)])
    return bool(store.get_nodes(filters=MetadataFilters(filters=[asked])))


@pytest.mark.parametrize("key", ["ref_doc_id", "doc_id", "document_id"])
def test_the_source_of_a_node_is_found_under_the_names_the_framework_has_for_it(
    db: koru_delta.Database, key: str
) -> None:
    assert one(db, {}, MetadataFilter(key=key, value="book"))
    assert not one(db, {}, MetadataFilter(key=key, value="film"))
    assert not one(db, {}, MetadataFilter(key=key, value="book", operator=FilterOperator.NE))


def test_metadata_of_such_a_name_goes_before_the_source(db: koru_delta.Database) -> None:
    assert one(db, {"doc_id": "mine"}, MetadataFilter(key="doc_id", value="mine"))
    assert not one(db, {"doc_id": "mine"}, MetadataFilter(key="doc_id", value="book"))


def test_a_dotted_key_is_a_key_first_and_a_way_into_the_metadata_else(
    db: koru_delta.Database,
) -> None:
    asked = MetadataFilter(key="author.name", value="Ada")
    assert one(db, {"author.name": "Ada"}, asked)
    assert one(db, {"author": {"name": "Ada"}}, asked)
    assert not one(db, {"author.name": "Bob", "author": {"name": "Ada"}}, asked)
    missing = MetadataFilter(key="author.name", value=None, operator=FilterOperator.IS_EMPTY)
    assert one(db, {"author": {}}, missing)
    assert not one(db, {"author": {"name": "Ada"}}, missing)


@pytest.mark.parametrize(
    ("operator", "value"),
    [
        (FilterOperator.IN, "text"),
        (FilterOperator.ANY, 3),
        (FilterOperator.TEXT_MATCH, 3),
        (FilterOperator.TEXT_MATCH_INSENSITIVE, None),
        (FilterOperator.GT, None),
        (FilterOperator.LTE, ["a"]),
    ],
)
def test_an_operator_and_a_value_that_do_not_go_together_are_refused(
    db: koru_delta.Database, operator: FilterOperator, value: Any
) -> None:
    with pytest.raises(koru_delta.errors.QueryError, match="a"):
        one(db, {"a": 1}, MetadataFilter(key="a", operator=operator, value=value))


def test_a_filter_of_the_database_s_own_language_has_booleans(db: koru_delta.Database) -> None:
    store = KoruDeltaVectorStore(db)
    store.add(
        [
            TextNode(id_=name, metadata={"draft": draft}, embedding=[1.0])
            for name, draft in (("yes", True), ("no", False), ("one", 1))
        ]
    )
    asked = VectorStoreQuery(query_embedding=[1.0], similarity_top_k=9)

    assert store.query(asked, filter={"draft": True}).ids == ["yes"]
    assert store.query(asked, filter={"draft": {"$ne": True}}).ids == ["no", "one"]
