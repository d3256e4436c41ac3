"""The store: no public suite tests one, so this does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

import koru_delta
from koru_delta.errors import EmbedderError, InvalidDataError, QueryError, ReadOnlyError
from koru_delta.testing import FixedClock, HashEmbedder
from koru_delta_langchain.langgraph import KoruDeltaStore

START = datetime(2026, 1, 1, tzinfo=UTC)
ODD_LABELS = [
    "/",
    "a/b",
    "a%2Fb",
    "%",
    "#",
    "=",
    " ",
    "é",
    "線",
    "🌧️",
    "$",
    "x" * 500,
    "x" * 499 + "y",
]


def words(texts: Sequence[str]) -> list[list[float]]:
    rows: list[list[float]] = HashEmbedder()(texts).tolist()
    return rows


@pytest.fixture
def store(clock: FixedClock) -> Iterator[KoruDeltaStore]:
    with koru_delta.open(clock=clock) as database:
        yield KoruDeltaStore(database=database, index={"dims": 64, "embed": words})


def keys(found: Sequence[Item]) -> list[str]:
    return [item.key for item in found]


# Keeping and finding


def test_an_item_comes_back_as_it_was_with_the_times_of_the_database(
    store: KoruDeltaStore, clock: FixedClock
) -> None:
    value = {"text": "rain", "n": 1, "f": 1.0, "none": None, "deep": {"list": [1, "a", {}]}}
    store.put(("a", "b"), "k", value)
    clock.advance(seconds=5)
    changed = {**value, "n": 2}
    first = store.get(("a", "b"), "k")
    store.put(("a", "b"), "k", changed)

    assert first == Item(
        value=value, key="k", namespace=("a", "b"), created_at=START, updated_at=START
    )
    assert store.get(("a", "b"), "k") == Item(
        value=changed, key="k", namespace=("a", "b"), created_at=START,
        updated_at=START + timedelta(seconds=5),
    )  # fmt: skip
    assert store.get(("a",), "k") is None
    assert store.get(("a", "b"), "other") is None
    store.delete(("a", "b"), "k")
    store.delete(("a", "b"), "k")
    assert store.get(("a", "b"), "k") is None
    store.put(("a", "b"), "k", value)
    again = store.get(("a", "b"), "k")
    assert again is not None
    assert again.created_at == again.updated_at >= START + timedelta(seconds=5)


def test_any_labels_and_keys_are_told_apart(store: KoruDeltaStore) -> None:
    places = [*((label,) for label in ODD_LABELS), *permutations(ODD_LABELS[:6], 2)]
    for number, namespace in enumerate(places):
        for key in ("", "k", "/", "=k", "y" * 2000):
            store.put(namespace, key, {"at": [number, key]}, index=False)

    assert store.list_namespaces(limit=1000) == sorted(places)
    for number, namespace in enumerate(places):
        found = store.get(namespace, "=k")
        assert found is not None
        assert (found.namespace, found.key, found.value) == (
            namespace, "=k", {"at": [number, "=k"]},
        )  # fmt: skip
        below = [p for p in places if p[: len(namespace)] == namespace]
        assert len(store.search(namespace, limit=1000)) == 5 * len(below)


def test_what_is_no_json_is_refused_whole(store: KoruDeltaStore) -> None:
    good = PutOp(("a",), "good", {"x": 1})
    for bad in ({"x": {1, 2}}, {"x": float("nan")}, {1: "x"}, {"x": datetime.now(UTC)}):
        with pytest.raises(InvalidDataError):
            store.batch([good, PutOp(("a",), "bad", bad)])  # type: ignore[dict-item]

    assert store.search(()) == []
    with pytest.raises(InvalidNamespaceError):
        store.batch([good, PutOp(("a.b",), "bad", {})])
    with pytest.raises(InvalidNamespaceError):
        store.put((), "k", {})
    assert store.search(()) == []


def test_a_prefix_is_by_labels_and_pages_are_in_key_order(store: KoruDeltaStore) -> None:
    for namespace in [("a",), ("a", "b"), ("ab",), ("a", "c"), ("b",)]:
        for key in "321":
            store.put(namespace, key, {"n": int(key)}, index=False)

    whole = store.search(("a",), limit=100)
    assert [(item.namespace, item.key) for item in whole] == [
        (namespace, key) for namespace in [("a",), ("a", "b"), ("a", "c")] for key in "123"
    ]
    assert all(type(item) is SearchItem and item.score is None for item in whole)
    for size in (1, 2, 4):
        pages = [store.search(("a",), limit=size, offset=n) for n in range(0, 9, size)]
        assert [item for page in pages for item in page] == whole
        filtered = [
            store.search(("a",), filter={"n": {"$gte": 2}}, limit=size, offset=n)
            for n in range(0, 6, size)
        ]
        assert [item for page in filtered for item in page] == [
            item for item in whole if item.value["n"] >= 2
        ]
    assert store.search(("a",), limit=0) == []
    with pytest.raises(QueryError):
        store.search((), offset=-1)


# Filters

SCALARS = st.one_of(
    st.integers(-3, 12), st.sampled_from([-0.5, 2.0, 9.5]), st.sampled_from(["", "9", "10", "b"]),
    st.booleans(), st.none(),
)  # fmt: skip
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda a, b: a > b, "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b, "$lte": lambda a, b: a <= b,
}  # fmt: skip
MISSING = object()


def kind(value: Any) -> Any:
    return float if type(value) in (int, float) else type(value)


def equal(a: Any, b: Any) -> bool:
    if kind(a) is not kind(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def passes(value: Any, wanted: Any) -> bool:
    """What a filter says of one field, told naively."""
    if isinstance(wanted, dict) and any(name.startswith("$") for name in wanted):
        return all(holds(value, name, operand) for name, operand in wanted.items())
    if isinstance(wanted, dict) and wanted:
        inside = value if isinstance(value, dict) else {}
        return all(passes(inside.get(name, MISSING), each) for name, each in wanted.items())
    return equal(value, wanted)


def holds(value: Any, name: str, operand: Any) -> bool:
    if name in ("$eq", "$ne"):
        return equal(value, operand) is (name == "$eq")
    return (
        kind(value) is kind(operand) and kind(value) in (float, str)
        and OPERATORS[name](value, operand)
    )  # fmt: skip


ORDERED = st.one_of(st.integers(-3, 12), st.sampled_from([2.0, 9.5, "9", "10", "b"]))
CONDITIONS = st.recursive(
    st.one_of(
        SCALARS,
        st.lists(SCALARS, max_size=2),
        st.dictionaries(st.sampled_from(["$eq", "$ne"]), SCALARS, min_size=1),
        st.dictionaries(st.sampled_from([*OPERATORS]), ORDERED, min_size=1),
    ),
    lambda inner: st.dictionaries(st.sampled_from("ab"), inner, min_size=1),
    max_leaves=3,
)
VALUES = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
        max_leaves=3,
    ),
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(VALUES, min_size=1, max_size=8),
    st.lists(st.dictionaries(st.sampled_from("abcd"), CONDITIONS, max_size=2), max_size=8),
)
def test_filters_are_those_of_a_naive_evaluator(
    values: list[dict[str, Any]], filters: list[dict[str, Any]]
) -> None:
    with KoruDeltaStore() as store:
        store.batch([PutOp(("n",), f"{n}", value) for n, value in enumerate(values)])
        for wanted in filters:
            expected = [
                f"{n}" for n, value in enumerate(values)
                if all(passes(value.get(name, MISSING), each) for name, each in wanted.items())
            ]  # fmt: skip
            assert keys(store.search((), filter=wanted, limit=100)) == expected


def test_filters_answer_as_langgraphs_own_store_where_types_agree() -> None:
    own = InMemoryStore()
    with KoruDeltaStore() as store:
        for each in (own, store):
            for n in range(20):
                each.put(
                    ("n",), f"{n:02}", {"n": n, "half": n / 2, "deep": {"odd": bool(n % 2), "n": n}}
                )
        for wanted in (
            {"n": 5}, {"n": 5.0}, {"n": {"$eq": 5}}, {"n": {"$ne": 5}}, {"n": {"$gt": 9}},
            {"n": {"$gte": 9, "$lt": 11}}, {"half": {"$lte": 4.5}}, {"deep": {"odd": True}},
            {"deep": {"n": {"$gt": 9}, "odd": False}}, {"n": 5, "half": 2.5}, {"no": 1},
            {"no": {"$ne": 1}},
        ):  # fmt: skip
            assert keys(store.search((), filter=wanted, limit=50)) == keys(
                own.search((), filter=wanted, limit=50)
            ), wanted


def test_numbers_compare_as_numbers_and_never_with_strings(store: KoruDeltaStore) -> None:
    for key, n in {"a": 9, "b": 10, "c": "10", "d": True, "e": 100.5}.items():
        store.put(("n",), key, {"n": n}, index=False)

    assert keys(store.search((), filter={"n": {"$gt": 9}})) == ["b", "e"]
    assert keys(store.search((), filter={"n": {"$gt": "1"}})) == ["c"]
    assert keys(store.search((), filter={"n": 10})) == ["b"]
    assert keys(store.search((), filter={"n": 1})) == []
    both = {"$and": [{"n": {"$gt": 2}}, {"$or": [{"n": {"$lt": 10}}, {"n": {"$eq": 100.5}}]}]}
    assert keys(store.search((), filter=both)) == ["a", "e"]
    assert keys(store.search((), filter={"$not": {"n": {"$in": [9, 10]}}})) == ["c", "d", "e"]
    with pytest.raises(QueryError, match="unknown operator"):
        store.search((), filter={"n": {"$near": 1}})


# Namespaces


def test_namespaces_are_listed_by_wildcards_depth_and_page(store: KoruDeltaStore) -> None:
    own = InMemoryStore()
    places = [
        ("a", "b", "c"), ("a", "b", "d"), ("a", "x", "c"), ("b", "b"), ("b",), ("a", "b"),
        ("c", "a", "b", "c"),
    ]  # fmt: skip
    for each in (own, store):
        for place in places:
            each.put(place, "k", {"x": 1})
            each.put(place, "l", {"x": 1})
    store.put(("gone",), "k", {"x": 1})
    store.delete(("gone",), "k")

    for how in (
        {}, {"prefix": ("a",)}, {"prefix": ("a", "*", "c")}, {"prefix": ("*", "b")},
        {"suffix": ("c",)}, {"suffix": ("b", "*")}, {"suffix": ("*",)}, {"max_depth": 1},
        {"max_depth": 2}, {"prefix": ("a",), "max_depth": 2}, {"prefix": ("a",), "suffix": ("c",)},
        {"limit": 2}, {"limit": 2, "offset": 3}, {"max_depth": 1, "offset": 1},
        {"prefix": ("a", "b", "c", "d")}, {"suffix": ("a", "b", "c")},
    ):  # fmt: skip
        assert store.list_namespaces(**how) == own.list_namespaces(**how), how  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="prefix or suffix"):
        store.batch([ListNamespacesOp((MatchCondition("middle", ("a",)),))])  # type: ignore[arg-type]


# Time to live


def test_an_item_is_gone_to_the_microsecond(store: KoruDeltaStore, clock: FixedClock) -> None:
    store.put(("a",), "k", {"text": "rain"}, ttl=1.5)
    store.put(("a",), "stays", {"text": "rain"})

    clock.advance(seconds=90, microseconds=-1)
    assert keys(store.search((), refresh_ttl=False)) == ["k", "stays"]
    assert keys(store.search((), query="rain", refresh_ttl=False)) == ["k", "stays"]
    assert store.get(("a",), "k", refresh_ttl=False) is not None
    clock.advance(microseconds=1)
    assert store.get(("a",), "k") is None
    assert keys(store.search(())) == ["stays"]
    assert keys(store.search((), query="rain", limit=1)) == ["stays"]
    store.delete(("a",), "stays")
    assert store.list_namespaces() == []


@pytest.mark.parametrize("read", ["get", "search", "query"])
def test_reading_makes_an_item_live_as_long_again(
    store: KoruDeltaStore, clock: FixedClock, read: str
) -> None:
    store.put(("a",), "k", {"text": "rain"}, ttl=1)
    for _ in range(3):
        clock.advance(seconds=59)
        if read == "get":
            assert store.get(("a",), "k") is not None
        else:
            query = "rain" if read == "query" else None
            assert keys(store.search(("a",), query=query)) == ["k"]
    item = store.get(("a",), "k", refresh_ttl=False)
    assert item == Item(
        value={"text": "rain"}, key="k", namespace=("a",), created_at=START, updated_at=START
    )
    assert keys(store.search((), query="rain", refresh_ttl=False)) == ["k"]
    clock.advance(seconds=60)
    assert store.get(("a",), "k") is None
    assert len(store.history(("a",), "k")) == 1


def test_the_stores_own_times_to_live_hold_where_a_call_names_none(clock: FixedClock) -> None:
    with koru_delta.open(clock=clock) as database:
        store = KoruDeltaStore(database=database, ttl={"default_ttl": 1, "refresh_on_read": False})
        store.put(("a",), "default", {})
        store.put(("a",), "longer", {}, ttl=2)
        store.put(("a",), "ever", {}, ttl=None)
        clock.advance(seconds=59)
        assert store.get(("a",), "default") is not None
        assert store.get(("a",), "longer", refresh_ttl=True) is not None
        clock.advance(seconds=1)
        assert keys(store.search(())) == ["ever", "longer"]
        clock.advance(seconds=119)
        assert keys(store.search(())) == ["ever"]
        with pytest.raises(InvalidDataError, match="ttl"):
            store.put(("a",), "k", {}, ttl=0)


# Searching by meaning


def test_fields_and_lists_are_embedded_each_and_an_item_found_once() -> None:
    index: Any = {"dims": 64, "embed": words, "fields": ["title", "parts[*].text"]}
    with KoruDeltaStore(index=index) as store:
        store.put(
            ("d",), "many",
            {"title": "weather", "parts": [{"text": "heavy rain"}, {"text": "bright sun"}]},
        )  # fmt: skip
        store.put(("d",), "one", {"title": "rain and sun", "body": "figs"})
        store.put(("d",), "own", {"body": "plums", "title": "rain"}, index=["body"])
        store.put(("d",), "none", {"title": "rain"}, index=False)

        def scored(query: str, **how: Any) -> list[tuple[str, float | None]]:
            found = store.search(("d",), query=query, **how)
            return [(i.key, None if i.score is None else round(i.score, 6)) for i in found]

        assert scored("bright sun")[0] == ("many", 1.0)
        assert scored("heavy rain")[0] == ("many", 1.0)
        assert scored("plums")[0] == ("own", 1.0)
        assert [key for key, _ in scored("rain")] == ["many", "one", "own", "none"]
        assert scored("rain")[-1] == ("none", None)
        whole = scored("sun")
        for size in (1, 3):
            pages = [scored("sun", limit=size, offset=n) for n in range(0, 4, size)]
            assert [hit for page in pages for hit in page] == whole


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), max_size=3),
        min_size=1, max_size=12,
    ),
    st.lists(st.integers(-3, 3), min_size=3, max_size=3),
    st.integers(0, 4), st.integers(1, 6), st.booleans(),
)  # fmt: skip
def test_search_is_the_best_of_each_items_vectors_after_the_filter(
    rows: list[list[list[int]]], query: list[int], offset: int, limit: int, filtered: bool
) -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        return [[float(n) for n in text.split()] for text in texts]

    def cosine(a: list[int], b: list[int]) -> float:
        return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))

    with KoruDeltaStore(index={"dims": 3, "embed": embed, "fields": ["t[*]"]}) as store:
        for number, vectors in enumerate(rows):
            texts = [" ".join(map(str, vector)) for vector in vectors]
            store.put(("n",), f"{number:02}", {"t": texts, "odd": number % 2 == 1})
        wanted = {"odd": True} if filtered else None
        found = store.search(
            ("n",), query=" ".join(map(str, query)), filter=wanted, limit=limit, offset=offset
        )
        here = [n for n in range(len(rows)) if n % 2 == 1 or not filtered]
        best = {
            n: max(cosine(query, vector) for vector in rows[n] if any(vector))
            for n in here if any(map(any, rows[n])) and any(query)
        }  # fmt: skip
        order = sorted(best, key=lambda n: (-round(best[n], 5), n))
        rest = [n for n in here if n not in best]

    assert len(found) == max(0, min(limit, len(here) - offset))
    scores = [best.get(n) for n in (order + rest)[offset : offset + limit]]
    for item, score in zip(found, scores, strict=True):
        assert (item.score is None) == (score is None)
        if score is not None:
            assert item.score == pytest.approx(score, abs=1e-5)
            assert item.score == pytest.approx(best[int(item.key)], abs=1e-5)


def test_filters_come_before_the_best_are_taken(store: KoruDeltaStore) -> None:
    for n in range(50):
        store.put(("n",), f"{n:02}", {"text": "rain" if n < 49 else "sun", "rare": n == 49})

    found = store.search((), query="rain", filter={"rare": True}, limit=1)

    assert keys(found) == ["49"]


def test_a_changed_item_is_found_by_what_it_is_now(store: KoruDeltaStore) -> None:
    index: Any = {"dims": 64, "embed": words, "fields": ["t[*]"]}
    with KoruDeltaStore(database=store.database, namespace="own", index=index) as own:
        own.put(("a",), "k", {"t": ["rain", "sun", "snow"]})
        own.put(("a",), "k", {"t": ["wind"]})
        unindexed = KoruDeltaStore(database=store.database, namespace="own")
        assert own.search((), query="snow")[0].score == pytest.approx(0, abs=1e-6)
        assert own.search((), query="wind")[0].score == pytest.approx(1)
        unindexed.put(("a",), "k", {"t": ["hail"]})
        assert own.search((), query="wind")[0].score is None
        own.delete(("a",), "k")
        assert own.search((), query="wind") == []
        assert store.database.list_keys("own.vectors") == []


def test_without_an_index_a_query_finds_what_none_would() -> None:
    with KoruDeltaStore() as store:
        store.put(("a",), "k", {"text": "rain"})
        assert [(i.key, i.score) for i in store.search((), query="sun")] == [("k", None)]


def test_the_databases_own_embedder_will_do() -> None:
    with koru_delta.open(embedder=HashEmbedder()) as database:
        store = KoruDeltaStore(database=database, index={"fields": ["text"]})
        store.put(("a",), "k", {"text": "rain"})
        assert store.search((), query="rain")[0].score == pytest.approx(1)
    with pytest.raises(EmbedderError, match="embedder"):
        KoruDeltaStore(index={"dims": 3})


def test_an_embedding_that_fails_writes_nothing() -> None:
    def fails(texts: Sequence[str]) -> list[list[float]]:
        raise ConnectionError("no network")

    with KoruDeltaStore(index={"dims": 3, "embed": fails}) as store:
        with pytest.raises(ConnectionError):
            store.put(("a",), "k", {"text": "rain"})
        assert store.search(()) == []


# Batches


def test_a_batch_reads_what_stood_before_it_and_writes_the_last(store: KoruDeltaStore) -> None:
    store.put(("a",), "k", {"n": 0})
    commits = len(store.database.commits())

    results = store.batch([
        PutOp(("a",), "k", {"n": 1}),
        GetOp(("a",), "k"),
        PutOp(("a",), "k", {"n": 2}),
        PutOp(("b",), "new", {"n": 3}),
        SearchOp(("a",), limit=5),
        GetOp(("b",), "new"),
        PutOp(("b",), "new", None),
        PutOp(("c",), "new", {"n": 4}),
        ListNamespacesOp(),
    ])  # fmt: skip

    assert [r.value if isinstance(r, Item) else r for r in results[:4]] == [
        None,
        {"n": 0},
        None,
        None,
    ]
    assert keys(results[4]) == ["k"]  # type: ignore[arg-type]
    assert results[5:] == [None, None, None, [("a",)]]
    assert {item.key: item.value for item in store.search(())} == {"k": {"n": 2}, "new": {"n": 4}}
    assert len(store.database.commits()) == commits + 1
    with pytest.raises(TypeError, match="unknown operation"):
        store.batch(["get"])  # type: ignore[list-item]
    assert store.batch([]) == []


# Time


def test_history_tells_what_an_item_was_and_a_past_moment_shows_it(
    store: KoruDeltaStore, clock: FixedClock
) -> None:
    moments = []
    for text in ("rain", "sun", None, "snow"):
        if text is None:
            store.delete(("a",), "k")
        else:
            store.put(("a",), "k", {"text": text}, ttl=60)
        moments.append(clock.now)
        clock.advance(seconds=1)
        store.get(("a",), "k")
        clock.advance(seconds=1)

    told = store.history(("a",), "k")
    assert [revision.value and revision.value["text"] for revision in told] == [
        "rain", "sun", None, "snow",
    ]  # fmt: skip
    assert [r.at for r in told] == [START + timedelta(seconds=2 * n) for n in range(4)]
    assert store.history(("a",), "k", reverse=True, limit=2) == told[:1:-1]
    assert store.history(("a",), "k", as_of=told[1].version) == told[:2]
    assert store.history(("a",), "never") == []

    for revision in told:
        past = store.as_of(revision.version)
        item = past.get(("a",), "k")
        assert (item and item.value) == revision.value
        found = past.search((), query="sun")
        assert [i.value for i in found] == ([] if revision.value is None else [revision.value])
        if revision.value is not None:
            like = 0.5**0.5 if revision.value["text"] == "sun" else 0  # of the words text, sun
            assert found[0].score == pytest.approx(like, abs=1e-6)
        assert past.list_namespaces() == ([] if revision.value is None else [("a",)])
        with pytest.raises(ReadOnlyError):
            past.put(("a",), "k", {})
    seq = store.database.as_of(None).seq
    store.as_of(told[0].version).get(("a",), "k")
    assert store.database.as_of(None).seq == seq


# Loops, threads, processes


async def test_the_async_methods_answer_alike_off_the_loop(
    store: KoruDeltaStore, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_thread = threading.get_ident()
    seen: set[int] = set()
    log = type(store.database._log)
    engine = type(store.database._log.engine)
    for owner, name in ((log, "commit"), (log, "cut"), (engine, "visible_keys")):
        original = getattr(owner, name)

        def watched(self: Any, *given: Any, original: Any = original, **named: Any) -> Any:
            seen.add(threading.get_ident())
            return original(self, *given, **named)

        monkeypatch.setattr(owner, name, watched)
    embedded: list[str] = []

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        assert threading.get_ident() == loop_thread
        embedded.extend(texts)
        return words(texts)

    asynchronous = KoruDeltaStore(
        database=store.database, namespace="a", index={"dims": 64, "embed": embed, "fields": ["t"]}
    )
    await asynchronous.aput(("a",), "k", {"t": "rain"}, ttl=60)
    await asynchronous.aput(("a",), "l", {"t": "sun"})
    item = await asynchronous.aget(("a",), "k")
    assert item is not None
    assert item.value == {"t": "rain"}
    assert keys(await asynchronous.asearch((), query="sun", filter={"t": {"$ne": "x"}})) == [
        "l",
        "k",
    ]
    assert await asynchronous.alist_namespaces() == [("a",)]
    assert len(await asynchronous.ahistory(("a",), "k")) == 1
    past = await asynchronous.aas_of((await asynchronous.ahistory(("a",), "k"))[0].version)
    assert keys(await past.asearch(())) == ["k"]
    await asynchronous.adelete(("a",), "k")

    assert await asynchronous.aget(("a",), "k") is None
    assert embedded == ["rain", "sun", "sun"]
    assert seen
    assert loop_thread not in seen


async def test_a_hundred_searches_leave_the_loop_free(store: KoruDeltaStore) -> None:
    await store.abatch([PutOp(("n",), f"{n}", {"text": f"rain {n}"}) for n in range(300)])
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.001)

    beating = asyncio.create_task(heart())
    found = await asyncio.gather(*(store.asearch((), query=f"rain {n}") for n in range(100)))
    beating.cancel()
    with suppress(asyncio.CancelledError):
        await beating

    assert [len(each) for each in found] == [10] * 100
    assert beats > 2  # on the loop itself, they would leave it no beat between them


def test_threads_that_write_one_item_leave_it_and_its_vectors_in_step() -> None:
    index: Any = {"dims": 64, "embed": words, "fields": ["t[*]"]}
    with KoruDeltaStore(index=index) as store, ThreadPoolExecutor(4) as pool:

        def work(number: int) -> None:
            for turn in range(10):
                texts = [f"word{number} {turn} {n}" for n in range(number)]
                store.put(("a",), "k", {"t": texts})
                if number == 2 and turn % 3 == 0:
                    store.delete(("a",), "k")

        list(pool.map(work, range(4)))
        item = store.get(("a",), "k")
        rows = store.database.query("langgraph.store.vectors")

    assert len(rows) == (0 if item is None else len(item.value["t"]))
    assert all(row.value["value"] == item.value for row in rows if item is not None)


def test_items_outlive_the_process_and_others_see_them(tmp_path: Path) -> None:
    program = f"""
from koru_delta.testing import HashEmbedder
from koru_delta_langchain.langgraph import KoruDeltaStore
embed = lambda texts: HashEmbedder()(texts).tolist()
with KoruDeltaStore(path={str(tmp_path)!r}, index={{"dims": 64, "embed": embed}}) as store:
    store.put(("a", "b"), "k", {{"text": "rain"}})
"""
    index: Any = {"dims": 64, "embed": words}
    with KoruDeltaStore(path=tmp_path, index=index) as store:
        assert store.search((), query="rain") == []
        subprocess.run([sys.executable, "-c", program], check=True)
        found = store.search((), query="rain")
        assert [(i.namespace, i.key, i.value) for i in found] == [
            (("a", "b"), "k", {"text": "rain"})
        ]
    with koru_delta.open(tmp_path, read_only=True) as database:
        reading = KoruDeltaStore(database=database, index=index)
        assert keys(reading.search((), query="rain")) == ["k"]
        with pytest.raises(ReadOnlyError):
            reading.put(("a",), "k", {})
