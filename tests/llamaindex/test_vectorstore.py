"""The vector store: nodes come back equal, every mode, the past, copies, other processes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

import koru_delta
from koru_delta.testing import FixedClock
from koru_delta_llamaindex import KoruDeltaVectorStore

ROOT = Path(__file__).parents[2]
Mode = VectorStoreQueryMode
MODES = (
    Mode.DEFAULT, Mode.SPARSE, Mode.TEXT_SEARCH, Mode.HYBRID, Mode.SEMANTIC_HYBRID, Mode.MMR,
)  # fmt: skip


@pytest.fixture
def store(db: koru_delta.Database) -> KoruDeltaVectorStore:
    return KoruDeltaVectorStore(db)


def node(name: str, text: str = "", *vector: float, **fields: Any) -> TextNode:
    return TextNode(id_=name, text=text, embedding=list(vector) or [1.0, 0.0], **fields)


def asking(*vector: float, k: int = 10, **fields: Any) -> VectorStoreQuery:
    fields.setdefault("query_embedding", list(vector) or [1.0, 0.0])
    return VectorStoreQuery(similarity_top_k=k, **fields)


def source(name: str) -> dict[NodeRelationship, Any]:
    return {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=name)}


class Poem(TextNode):
    """A node of somebody's own."""

    verses: int = 0

    @classmethod
    def class_name(cls) -> str:
        return "Poem"


RELATED = RelatedNodeInfo(
    node_id="doc", node_type=ObjectType.DOCUMENT, metadata={"z": [1], "a": None}, hash="h"
)
NODES: list[BaseNode] = [
    TextNode(text="plain"),
    TextNode(text=""),
    TextNode(
        text="all of it",
        metadata={"b": 1, "a": {"z": [1, 2.5, True, None, {"y": 1, "x": 2}], "": "empty"}},
        excluded_embed_metadata_keys=["b"],
        excluded_llm_metadata_keys=["a"],
        relationships={
            NodeRelationship.SOURCE: RELATED,
            NodeRelationship.NEXT: RelatedNodeInfo(node_id="next"),
            NodeRelationship.CHILD: [RELATED, RelatedNodeInfo(node_id="other")],
        },
        metadata_template="{key}={value}",
        metadata_separator=";",
        text_template="{content}|{metadata_str}",
        mimetype="text/markdown",
        start_char_idx=3,
        end_char_idx=12,
    ),
    TextNode(text="zero is kept", start_char_idx=0, end_char_idx=0),
    ImageNode(text="an image", image="aGVsbG8=", image_path="cat.png", text_embedding=[0.5, 1.0]),
    IndexNode(text="an index", index_id="other", obj=TextNode(id_="in", text="inner")),
    IndexNode(text="an index of nothing", index_id="other"),
    Document(text="a document", metadata={"page": 1}),
    ImageDocument(text="an image document", image="aGVsbG8=", image_mimetype="image/png"),
    Node(text_resource=MediaResource(text="some"), metadata={"k": 1}),
    Node(text_resource=MediaResource(text="")),
    Node(text_resource=MediaResource(path=Path("/a/b.txt"), mimetype="text/plain")),
    Node(
        image_resource=MediaResource(data=b"\x00\xffraw", mimetype="image/png"),
        audio_resource=MediaResource(url="https://example.org/a.mp3"),  # type: ignore[arg-type]
    ),
    Poem(text="a poem", verses=4),
]


@pytest.mark.parametrize("given", NODES, ids=lambda each: f"{type(each).__name__}: {each.hash[:6]}")
def test_a_node_comes_back_equal(store: KoruDeltaVectorStore, given: BaseNode) -> None:
    stored = given.model_copy(update={"embedding": [0.5, 0.25]})
    assert store.add([stored]) == [given.node_id]

    (got,) = store.get_nodes([given.node_id])
    (found,) = store.query(asking(1.0, 0.0)).nodes or ()
    (whole,) = store.get_nodes(include_embeddings=True)
    (asked,) = store.query(asking(output_fields=["embedding"])).nodes or ()

    assert (type(got), got) == (type(given), given)
    assert found == given
    assert whole == asked == stored
    assert got.hash == given.hash
    for mode in MetadataMode:  # the order of the metadata, for one
        assert got.get_content(mode) == given.get_content(mode)


class Plain(TextNode):
    """Somebody's node without a name of its own."""


class Counted(TextNode):
    """Likewise, with a field."""

    count: int = 0


def test_a_class_without_a_name_comes_back_as_the_one_it_is_called_if_nothing_is_lost(
    store: KoruDeltaVectorStore,
) -> None:
    store.add([Plain(id_="a", text="rain", embedding=[1.0])])

    (got,) = store.get_nodes()
    assert (type(got), got.get_content()) == (TextNode, "rain")
    with pytest.raises(koru_delta.errors.InvalidDataError, match="Counted"):
        store.add([Counted(text="rain", embedding=[1.0])])


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=4)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(metadata=st.dictionaries(st.text(max_size=5), JSON, max_size=4), name=st.text(max_size=9))
def test_any_metadata_and_any_id_survive_in_their_order_and_with_their_types(
    store: KoruDeltaVectorStore, metadata: dict[str, Any], name: str
) -> None:
    given = TextNode(id_=name, text="x", metadata=metadata)
    store.clear()
    store.add([given.model_copy(update={"embedding": [1.0]})])

    (got,) = store.get_nodes([name])

    assert repr(got.metadata) == repr(metadata)  # equality would take 1 for True
    assert got == given
    assert store.query(asking(1.0, node_ids=[name])).ids == [name]
    store.delete_nodes([name])
    assert store.get_nodes() == []


@pytest.mark.parametrize("name", ["x" * 5000, "\0", "", "id-sha256:abc", "日本/🙂", "a b"])
def test_an_id_is_any_string(store: KoruDeltaVectorStore, name: str) -> None:
    store.add([node(name), node("other")])

    assert [each.node_id for each in store.get_nodes([name])] == [name]
    assert store.query(asking(node_ids=[name])).ids == [name]


@pytest.mark.parametrize(
    "metadata",
    [{"at": datetime(2026, 1, 1, tzinfo=UTC)}, {"n": float("nan")}, {"n": 2**70}, {"s": {1, 2}}],
)
def test_what_is_no_json_is_refused_and_nothing_of_the_batch_is_kept(
    store: KoruDeltaVectorStore, metadata: dict[str, Any]
) -> None:
    with pytest.raises(koru_delta.errors.InvalidDataError, match="metadata"):
        store.add([node("good"), node("bad", metadata=metadata)])

    assert store.get_nodes() == []


def test_a_node_without_an_embedding_is_refused_by_name(store: KoruDeltaVectorStore) -> None:
    with pytest.raises(koru_delta.errors.InvalidDataError, match="'bare' has no embedding"):
        store.add([node("good"), TextNode(id_="bare", text="x")])

    assert store.get_nodes() == []


def test_a_batch_is_one_commit_and_the_last_of_equal_ids_wins(
    store: KoruDeltaVectorStore,
) -> None:
    assert store.add([node("a", "one"), node("b"), node("a", "two")]) == ["a", "b", "a"]

    assert len(store.database.commits()) == 1
    assert [each.get_content() for each in store.get_nodes(["a"])] == ["two"]
    assert len(store.database.history(store.namespace, "a")) == 1


def test_nothing_of_ours_is_in_the_metadata(store: KoruDeltaVectorStore) -> None:
    store.add([node("a", "text", metadata={"k": 1}, relationships=source("doc"))])

    (found,) = store.query(asking()).nodes or ()

    assert found.metadata == {"k": 1}


def test_writes_carry_their_author_message_and_causes(store: KoruDeltaVectorStore) -> None:
    why = store.database.put("notes", "why", "because")
    store.add([node("a")], author="ada", message="first", run="r1", causes=[why])

    version = store.database.version(store.namespace, "a")

    assert (version.author, version.message, version.run) == ("ada", "first", "r1")
    assert [cause.id for cause in version.causes] == [why.id]


def test_an_unknown_option_is_an_error_where_it_is_given(store: KoruDeltaVectorStore) -> None:
    with pytest.raises(TypeError, match="as_off"):
        store.query(asking(), as_off="yesterday")
    with pytest.raises(TypeError, match="bulk"):
        store.add([node("a")], bulk=True)


# Getting and deleting


def test_by_id_come_those_there_are_in_the_order_asked_for(store: KoruDeltaVectorStore) -> None:
    store.add([node("a"), node("b"), node("c")])

    assert [each.node_id for each in store.get_nodes(["c", "no", "a"])] == ["c", "a"]
    assert store.get_nodes([]) == []
    assert [each.node_id for each in store.get_nodes()] == ["a", "b", "c"]


def test_an_empty_list_of_ids_restricts_no_query_and_selects_nothing_else(
    store: KoruDeltaVectorStore,
) -> None:
    store.add([node("a", relationships=source("doc")), node("b")])

    assert store.query(asking(node_ids=[], doc_ids=[])).ids == ["a", "b"]
    assert store.get_nodes(node_ids=[]) == []
    store.delete_nodes(node_ids=[])
    assert len(store.get_nodes()) == 2


def test_queries_are_restricted_to_ids_and_documents_before_the_best_are_chosen(
    store: KoruDeltaVectorStore,
) -> None:
    near = [node(f"near-{n}", "", 1.0, n / 100) for n in range(30)]
    store.add([*near, node("far", "", -1.0, 0.1, relationships=source("doc"))])

    assert store.query(asking(k=1, node_ids=["far", "absent"])).ids == ["far"]
    assert store.query(asking(k=1, doc_ids=["doc"])).ids == ["far"]
    assert store.query(asking(k=1, doc_ids=["doc"], node_ids=["near-1"])).ids == []


def test_a_document_is_deleted_with_its_nodes_and_no_other_s(store: KoruDeltaVectorStore) -> None:
    store.add(
        [
            node(name, relationships=source(doc))
            for name, doc in [("a", "d"), ("b", "d"), ("c", "e")]
        ]
    )
    store.add([node("orphan")])

    store.delete("d")
    assert [each.node_id for each in store.get_nodes()] == ["c", "orphan"]
    store.delete("d")
    store.delete("None")
    store.delete(None)  # type: ignore[arg-type] - a node's ref_doc_id may be
    assert [each.node_id for each in store.get_nodes()] == ["c", "orphan"]


def test_nodes_are_deleted_by_id_and_by_filter_as_the_framework_s_store_does(
    store: KoruDeltaVectorStore,
) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="n", value=1)])
    for node_ids, which in [
        (["a", "no"], None), (None, filters), (["a", "b"], filters), ([], filters), (None, None),
    ]:  # fmt: skip
        theirs = SimpleVectorStore()
        store.clear()
        for each in (store, theirs):
            each.add([node(name, metadata={"n": n}) for name, n in [("a", 1), ("b", 2), ("c", 1)]])
            each.delete_nodes(node_ids, which)
        assert [each.node_id for each in store.get_nodes()] == list(theirs.data.embedding_dict)


def test_clear_leaves_other_namespaces_and_the_past_alone(store: KoruDeltaVectorStore) -> None:
    other = KoruDeltaVectorStore(store.database, namespace="other")
    for each in (store, other):
        each.add([node("a")])
    then = store.database.commits()[-1]

    store.clear()

    assert store.get_nodes() == []
    assert len(other.get_nodes()) == 1
    assert len(store.as_of(then).get_nodes()) == 1


# Modes


@pytest.fixture
def library(store: KoruDeltaVectorStore) -> KoruDeltaVectorStore:
    store.add(
        [
            node("rain", "rain falls on the hills", 1.0, 0.0),
            node("sun", "the sun shines", 0.0, 1.0),
            node("both", "rain and sun together", 0.7, 0.7),
            node("none", "nothing of the kind", -1.0, 0.0),
        ]
    )
    return store


def test_the_default_mode_orders_by_cosine(library: KoruDeltaVectorStore) -> None:
    found = library.query(asking(1.0, 0.0))
    theirs = SimpleVectorStore()
    theirs.add(library.get_nodes(include_embeddings=True))

    assert found.ids == theirs.query(asking(1.0, 0.0)).ids == ["rain", "both", "sun", "none"]
    assert found.similarities == pytest.approx([1.0, 0.853553, 0.5, 0.0], abs=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_similarity_is_relevance_in_0_1_and_falls(db: koru_delta.Database, metric: Any) -> None:
    store = KoruDeltaVectorStore(db, metric=metric)
    store.add([node(str(n), "", 30.0 * n - 200, 1.0) for n in range(14)])

    found = store.query(asking(5.0, 1.0, k=14)).similarities or []

    assert len(found) == 14
    assert found == sorted(found, reverse=True)
    assert all(0 <= each <= 1 for each in found)


@pytest.mark.parametrize("mode", [Mode.TEXT_SEARCH, Mode.SPARSE])
def test_words_find_by_words_alone(library: KoruDeltaVectorStore, mode: Mode) -> None:
    found = library.query(asking(query_embedding=None, query_str="sun", mode=mode))

    assert set(found.ids or ()) == {"sun", "both"}
    assert all(0 < each < 1 for each in found.similarities or ())


def test_words_have_operators_only_where_they_are_asked_for(
    library: KoruDeltaVectorStore,
) -> None:
    asked = asking(query_str="rain -sun", mode=Mode.TEXT_SEARCH)

    assert set(library.query(asked).ids or ()) == {"rain", "both", "sun"}
    assert library.query(asked, syntax=True).ids == ["rain"]


def test_alpha_weighs_the_embedding_against_the_words(library: KoruDeltaVectorStore) -> None:
    def found(alpha: float | None) -> list[str]:
        asked = asking(-1.0, 0.0, k=2, query_str="rain", mode=Mode.HYBRID, alpha=alpha)
        return library.query(asked).ids or []

    words = library.query(asking(query_str="rain", k=2, mode=Mode.TEXT_SEARCH)).ids
    assert found(0) == words
    assert found(1) == library.query(asking(-1.0, 0.0, k=2)).ids == ["none", "sun"]
    assert found(0.9)[0] == "none"
    assert found(0.1)[0] == (words or [])[0]
    assert found(None) == found(0.5)
    ranked = asking(-1.0, 0.0, k=2, query_str="rain", mode=Mode.HYBRID, alpha=0.9)
    by_ranks = library.query(ranked, fusion="rrf")
    assert (by_ranks.ids or [])[0] == "both"  # is in both rankings
    assert all(0 <= each <= 1 for each in by_ranks.similarities or ())


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), True, "half"])
def test_an_alpha_outside_0_1_is_refused(library: KoruDeltaVectorStore, alpha: Any) -> None:
    with pytest.raises(koru_delta.errors.QueryError, match="alpha"):
        library.query(asking(query_str="rain", mode=Mode.HYBRID, alpha=alpha))


def test_hybrid_scores_are_the_share_of_the_best_there_could_be(
    library: KoruDeltaVectorStore,
) -> None:
    found = library.query(asking(0.0, 1.0, query_str="shines", mode=Mode.HYBRID))
    ranked = library.query(asking(0.0, 1.0, query_str="shines", mode=Mode.HYBRID), fusion="rrf")

    assert (found.ids or [])[0] == (ranked.ids or [])[0] == "sun"
    assert (found.similarities or [])[0] == pytest.approx(1.0)
    assert (ranked.similarities or [])[0] == pytest.approx(1.0)
    assert all(0 <= each <= 1 for each in found.similarities or ())


def test_semantic_hybrid_orders_what_hybrid_finds_by_the_embedding(
    library: KoruDeltaVectorStore,
) -> None:
    asked = asking(0.0, 1.0, k=2, query_str="rain", mode=Mode.SEMANTIC_HYBRID)
    found = library.query(asked)

    assert found.ids == ["sun", "both"]
    assert found.similarities == pytest.approx([1.0, 0.853553], abs=1e-6)


def test_more_can_be_asked_of_one_way_of_searching_than_of_another(
    library: KoruDeltaVectorStore,
) -> None:
    sparse = asking(query_str="the rain sun", k=1, sparse_top_k=2, mode=Mode.SPARSE)
    hybrid = asking(query_str="rain", k=1, hybrid_top_k=3, mode=Mode.HYBRID)

    assert len(library.query(sparse).ids or ()) == 2
    assert len(library.query(hybrid).ids or ()) == 3


def test_mmr_prefers_what_is_different_the_more_the_lower_its_threshold(
    store: KoruDeltaVectorStore,
) -> None:
    store.add([node("a", "", 1.0, 0.02), node("a-too", "", 1.0, 0.03), node("b", "", 0.7, 0.7)])

    def found(threshold: float | None, **kwargs: Any) -> list[str]:
        asked = asking(1.0, 0.0, k=2, mode=Mode.MMR, mmr_threshold=threshold)
        return store.query(asked, **kwargs).ids or []

    assert found(1.0) == ["a", "a-too"]
    assert found(0.1) == ["a", "b"]
    assert found(1.0, mmr_threshold=0.1) == ["a", "b"]
    assert found(0.1, mmr_prefetch_factor=4) == found(0.1, mmr_prefetch_k=8) == ["a", "b"]
    filters = MetadataFilters(filters=[MetadataFilter(key="x", value=1)])
    store.add([node("c", "", -1.0, 0.0, metadata={"x": 1})])
    assert store.query(asking(mode=Mode.MMR, filters=filters)).ids == ["c"]
    with pytest.raises(koru_delta.errors.QueryError, match="not both"):
        found(0.1, mmr_prefetch_k=8, mmr_prefetch_factor=4)
    with pytest.raises(koru_delta.errors.QueryError, match="mmr"):
        found(1.5)


@pytest.mark.parametrize("mode", [Mode.SVM, Mode.LINEAR_REGRESSION, Mode.LOGISTIC_REGRESSION])
def test_a_mode_there_is_not_is_refused_by_name(library: KoruDeltaVectorStore, mode: Mode) -> None:
    with pytest.raises(koru_delta.errors.QueryError, match=mode.value):
        library.query(asking(mode=mode))


@pytest.mark.parametrize(
    "mode",
    [Mode.DEFAULT, Mode.SPARSE, Mode.TEXT_SEARCH, Mode.HYBRID, Mode.SEMANTIC_HYBRID, Mode.MMR],
)
def test_top_0_finds_nothing_and_top_k_never_more(
    library: KoruDeltaVectorStore, mode: Mode
) -> None:
    for k in (0, 1, 3):
        found = library.query(asking(k=k, query_str="rain sun", mode=mode))
        assert len(found.nodes or ()) == len(found.similarities or ()) == len(found.ids or ()) == k


def test_a_query_without_what_its_mode_goes_by_is_refused(library: KoruDeltaVectorStore) -> None:
    with pytest.raises(koru_delta.errors.QueryError, match="query_embedding"):
        library.query(VectorStoreQuery(query_str="rain"))
    with pytest.raises(koru_delta.errors.QueryError, match="query_str"):
        library.query(asking(mode=Mode.SPARSE))


def test_errors_of_vectors_say_what_is_wrong(library: KoruDeltaVectorStore) -> None:
    with pytest.raises(koru_delta.errors.DimensionMismatchError):
        library.query(asking(1.0, 0.0, 0.0))
    with pytest.raises(koru_delta.errors.DimensionMismatchError):
        library.add([node("x", "", 1.0, 2.0, 3.0)])
    other = KoruDeltaVectorStore(library.database, metric="l2")
    with pytest.raises(koru_delta.errors.MetricMismatchError):
        other.query(asking(1.0, 0.0))


# The past


@pytest.mark.parametrize(
    "mode",
    [Mode.DEFAULT, Mode.SPARSE, Mode.TEXT_SEARCH, Mode.HYBRID, Mode.SEMANTIC_HYBRID, Mode.MMR],
)
def test_every_mode_answers_as_of_any_moment(
    store: KoruDeltaVectorStore, clock: FixedClock, mode: Mode
) -> None:
    moments = []
    for n in range(5):
        clock.advance(seconds=1)
        store.add([node("a", f"rain number {n}", 1.0, n / 10), node(f"only-{n}", "rain", 0.5, 1.0)])
        if n:
            store.delete_nodes([f"only-{n - 1}"])
        moments.append(store.database.commits()[-1])
    asked = asking(1.0, 0.0, query_str="rain", mode=mode)

    for n, moment in enumerate(moments):
        past = store.as_of(moment)
        for found in (past.query(asked), store.query(asked, as_of=moment)):
            texts = {each.node_id: each.get_content() for each in found.nodes or ()}
            assert texts == {"a": f"rain number {n}", f"only-{n}": "rain"}
        assert {each.node_id for each in past.get_nodes()} == {"a", f"only-{n}"}
        assert [each.get_content() for each in store.get_nodes(["a"], as_of=moment)] == [
            f"rain number {n}"
        ]


def test_a_store_of_a_moment_is_read_only_and_knows_no_other(store: KoruDeltaVectorStore) -> None:
    store.add([node("a")])
    past = store.as_of(store.database.commits()[-1])
    also = KoruDeltaVectorStore(store.database, as_of=store.database.commits()[-1])

    for each in (past, also):
        for write in (
            lambda each=each: each.add([node("b")]), lambda each=each: each.delete("a"),
            lambda each=each: each.delete_nodes(["a"]), lambda each=each: each.clear(),
        ):  # fmt: skip
            with pytest.raises(koru_delta.errors.ReadOnlyError):
                write()
        with pytest.raises(koru_delta.errors.QueryError, match="one moment already"):
            each.query(asking(), as_of=store.database.commits()[-1])
        each.close()
    assert len(store.get_nodes()) == 1


def test_valid_time_and_causes_choose_by_the_store_or_by_the_query(
    store: KoruDeltaVectorStore, clock: FixedClock
) -> None:
    start, middle = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
    store.add([node("was")], valid_from=start, valid_to=middle)
    store.add([node("is")], run="nightly")
    nightly = koru_delta.CausalFilter(run="nightly")
    kept = KoruDeltaVectorStore(store.database, valid_at=start)
    mine = KoruDeltaVectorStore(store.database, causal=nightly)
    store.add([node("is-too")])

    assert store.query(asking()).ids == ["is", "is-too"]
    assert store.query(asking(), valid_at=start).ids == kept.query(asking()).ids == ["was"]
    assert [each.node_id for each in kept.get_nodes()] == ["was"]
    assert store.query(asking(), causal=nightly).ids == mine.query(asking()).ids == ["is"]
    assert [each.node_id for each in mine.get_nodes(["is-too", "is"])] == ["is"]


def test_what_has_lived_its_time_is_gone(store: KoruDeltaVectorStore, clock: FixedClock) -> None:
    store.add([node("a")], ttl=10)
    clock.advance(seconds=11)

    assert store.query(asking()).ids == []
    assert store.get_nodes() == []


# Opening, copying, other threads and processes


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    with KoruDeltaVectorStore(path=tmp_path / "db") as store:
        store.add([node("a", "rain", metadata={"b": 1, "a": 2}), node("gone")])
        store.delete_nodes(["gone"])
        store.persist(str(tmp_path / "db"))  # is there already
        before = store.get_nodes(include_embeddings=True)

    with KoruDeltaVectorStore.from_persist_path(str(tmp_path / "db")) as store:
        assert store.get_nodes(include_embeddings=True) == before
        assert [each.get_content() for each in store.query(asking()).nodes or ()] == ["rain"]
    with pytest.raises(koru_delta.errors.NotADatabaseError):
        KoruDeltaVectorStore.from_persist_path(str(tmp_path / "none"))


def test_a_store_in_memory_persists_to_a_directory(tmp_path: Path) -> None:
    with KoruDeltaVectorStore() as store:
        store.add([node("a", "rain")])
        store.persist(str(tmp_path / "kept"))
        with pytest.raises(koru_delta.errors.NotADatabaseError):
            store.persist(str(tmp_path / "kept"))
        with pytest.raises(koru_delta.errors.InvalidDataError, match="fs"):
            store.persist(str(tmp_path / "more"), fs=object())
    with KoruDeltaVectorStore.from_persist_path(str(tmp_path / "kept")) as store:
        assert [each.get_content() for each in store.get_nodes()] == ["rain"]


SECOND = """
import sys
from koru_delta_llamaindex import KoruDeltaVectorStore
from llama_index.core.schema import TextNode

with KoruDeltaVectorStore(path=sys.argv[1]) as store:
    (found,) = store.get_nodes()
    print(found.get_content())
    store.add([TextNode(id_="b", text="from the other", embedding=[1.0, 0.0])])
"""


def test_another_process_reads_and_writes_the_same_store(tmp_path: Path) -> None:
    with KoruDeltaVectorStore(path=tmp_path / "db") as store:
        store.add([node("a", "from the one")])
        done = subprocess.run(
            [sys.executable, "-c", SECOND, str(tmp_path / "db")],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == "from the one\n"
        found = store.query(asking())

    assert [each.get_content() for each in found.nodes or ()] == ["from the one", "from the other"]


def test_a_pickled_store_opens_its_directory_again(tmp_path: Path) -> None:
    with KoruDeltaVectorStore(path=tmp_path / "db", namespace="mine", metric="dot") as store:
        store.add([node("a", "old")])
        past = store.as_of(store.database.commits()[-1])
        store.add([node("a", "new")])
        again, before = pickle.loads(pickle.dumps(store)), pickle.loads(pickle.dumps(past))
        with again, before:
            assert again.get_nodes() == store.get_nodes()
            assert (again.namespace, again.metric) == ("mine", "dot")
            assert [each.get_content() for each in before.get_nodes()] == ["old"]
            with pytest.raises(koru_delta.errors.ReadOnlyError):
                before.clear()


def test_a_store_in_memory_refuses_to_be_pickled(store: KoruDeltaVectorStore) -> None:
    with pytest.raises(koru_delta.errors.NotPicklableError):
        pickle.dumps(store)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda store: store.model_copy()])
def test_a_copy_shares_the_database_and_closing_it_closes_nothing(copied: Any) -> None:
    with KoruDeltaVectorStore() as store:
        other = copied(store)
        other.add([node("a")])
        other.close()
        assert [each.node_id for each in store.get_nodes()] == ["a"]


def test_a_database_and_a_path_are_one_too_many(db: koru_delta.Database, tmp_path: Path) -> None:
    with pytest.raises(koru_delta.errors.InvalidDataError, match="not both"):
        KoruDeltaVectorStore(db, path=tmp_path)
    with pytest.raises(koru_delta.errors.QueryError, match="metric"):
        KoruDeltaVectorStore(db, metric="manhattan")  # type: ignore[arg-type]


@pytest.fixture
def threads() -> Iterator[list[threading.Thread]]:
    started: list[threading.Thread] = []
    yield started
    for each in started:
        each.join()


def test_many_threads_write_and_read_without_losing_anything(
    store: KoruDeltaVectorStore, threads: list[threading.Thread]
) -> None:
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n in range(20):
                store.add([node(f"{number}-{n}", "rain", 1.0, n / 20)])
                found = store.query(asking(node_ids=[f"{number}-{n}"]))
                assert found.ids == [f"{number}-{n}"]
        except BaseException as error:  # noqa: BLE001 - told of below
            problems.append(error)

    for number in range(6):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
    for each in threads:
        each.join()

    assert problems == []
    assert len(store.get_nodes()) == 120
