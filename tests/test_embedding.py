"""Vectors of keys, one promise at a time; how they are searched is in `search`."""

from __future__ import annotations

import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta import Database, errors
from koru_delta.embedders import as_embedder
from koru_delta.testing import FixedClock
from tests.test_database import START, keys


def test_similar_finds_by_direction_now_and_then(db: Database) -> None:
    db.embed("docs", "rain", [1.0, 0.0])
    then = db.embed("docs", "sun", [0.0, 1.0])
    db.embed("docs", "rain", [0.0, 1.0])

    assert keys(db.similar("docs", [1.0, 0.0], k=1, as_of=then)) == ["rain"]
    assert keys(db.similar_at("docs", [1.0, 0.0], then, top_k=1)) == ["rain"]
    assert [(m.key, m.score) for m in db.similar("docs", [0.0, 2.0])] == [
        ("rain", 1.0), ("sun", 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_scores_are_exact_and_ties_are_in_key_order(db: Database, metric: Any) -> None:
    rng = np.random.default_rng(7)
    points = rng.normal(size=(300, 16)).astype(np.float32)
    points[100:110] = points[50]
    db.embed_many(
        "v", [(f"k{i:03}", point, {"i": i}) for i, point in enumerate(points)], metric=metric
    )
    queries = (rng.normal(size=16).astype(np.float32), points[50])
    for query in queries:
        wide, target = points.astype(np.float64), query.astype(np.float64)
        if metric == "cosine":
            truth = wide @ target / np.linalg.norm(wide, axis=1) / np.linalg.norm(target)
        elif metric == "dot":
            truth = wide @ target
        else:
            truth = -np.linalg.norm(wide - target, axis=1)
        found = db.similar("v", query, k=25)
        assert [m.score for m in found] == pytest.approx(sorted(truth, reverse=True)[:25], abs=1e-5)
        assert [(-m.score, m.key) for m in found] == sorted((-m.score, m.key) for m in found)
        assert all(truth[m.value["i"]] == pytest.approx(m.score, abs=1e-5) for m in found)
    assert len({m.score for m in found[:11]}) == 1


def test_a_filter_applies_before_the_best_are_chosen(db: Database) -> None:
    items: list[Any] = [(f"k{i:03}", [1.0, i / 1000], {"tag": "x" if i > 296 else "y"})
                        for i in range(300)]  # fmt: skip
    db.embed_many("docs", items)
    found = db.similar("docs", [1.0, 0.0], k=3, filter={"tag": "x"})
    assert keys(found) == ["k297", "k298", "k299"]
    assert db.similar("docs", [1.0, 0.0], filter={"tag": "z"}) == []
    assert len(db.similar("docs", [1.0, 0.0], k=1000)) == 300
    assert db.similar("docs", [1.0, 0.0], k=0) == []
    assert keys(db.similar("docs", [1.0, 0.0], k=400, threshold=0.99999)) == keys(
        [m for m in db.similar("docs", [1.0, 0.0], k=400) if m.score >= 0.99999]
    )


def test_a_put_drops_vectors_and_an_embed_keeps_the_value(db: Database) -> None:
    db.embed("n", "k", [1.0, 0.0], {"v": 1})
    db.embed("n", "k", [0.0, 1.0])
    assert db.get("n", "k") == {"v": 1}
    assert db.similar("n", [0.0, 1.0])[0].score == 1.0
    db.put("n", "k", {"v": 2})
    assert db.similar("n", [0.0, 1.0]) == []
    db.embed("n", "bare", [1.0, 0.0])
    assert db.get("n", "bare") is None
    db.embed("n", "text", "words to find")
    assert db.get("n", "text") == {"text": "words to find"}


def test_models_stand_side_by_side(db: Database) -> None:
    db.embed("n", "k", [1.0, 0.0], {"v": 1}, model="small")
    small_only = db.embed("n", "l", [0.0, 1.0], {"v": 1}, model="small")
    db.embed("n", "k", [1.0, 0.0, 0.0], model="large")

    assert set(db.history("n", "k")[-1].vectors) == {"small", "large"}
    assert keys(db.similar("n", [1.0, 0.0], model="small")) == ["k", "l"]
    assert keys(db.similar("n", [1.0, 0.0, 0.0], model="large")) == ["k"]
    assert keys(db.similar("n", [1.0, 0.0], as_of=small_only)) == ["k", "l"]
    with pytest.raises(errors.ModelMismatchError):
        db.similar("n", [1.0, 0.0])
    with pytest.raises(errors.ModelMismatchError):
        db.similar("n", [1.0, 0.0], model="other")
    db.embed("n", "k", [1.0, 0.0, 0.0], {"v": 2}, model="large")
    assert set(db.history("n", "k")[-1].vectors) == {"large"}
    assert db.vectors(small_only)["small"].tolist() == [0.0, 1.0]


def test_a_vector_that_may_be_of_several_models_is_not_filed_under_any(db: Database) -> None:
    """After a reembed it would be beside those that are there, in the model they have left."""
    first = db.embed("n", "k", [1.0, 0.0], {"text": "x"})
    db.reembed("n", "new", lambda texts: [[0.0, 1.0] for _ in texts])
    before = db.stats()["root"]
    with pytest.raises(errors.ModelMismatchError, match="'default', 'new', no model was named"):
        db.embed("n", "l", [0.0, 1.0])
    with pytest.raises(errors.ModelMismatchError):
        db.embed_many("n", [("l", [0.0, 1.0])])
    with pytest.raises(errors.ModelMismatchError), db.transaction() as tx:
        tx.embed("n", "l", [0.0, 1.0])
    assert db.stats()["root"] == before
    db.embed("n", "l", [0.0, 1.0], model="new")
    assert keys(db.similar("n", [0.0, 1.0])) == ["k", "l"]
    assert keys(db.similar("n", [0.0, 1.0], as_of=first)) == ["k"]


class Lengths:
    """Embeds a text by how long it is, in two numbers."""

    model_name = "lengths"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, float(len(text))] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def test_a_text_joins_vectors_of_its_length_that_were_given_no_model() -> None:
    with koru_delta.open(embedder=Lengths()) as db:
        db.embed_many("n", [("a", [1.0, 1.0]), ("b", [1.0, 9.0])])
        assert keys(db.similar("n", "x")) == ["a", "b"]
        db.embed("n", "c", "xxx")
        assert keys(db.similar("n", "x")) == ["a", "c", "b"]
        assert keys(db.similar("n", [1.0, 9.0], k=1)) == ["b"]
        assert list(db.vectors(db.version("n", "c"))) == ["default"]


def test_a_text_does_not_join_what_its_embedder_cannot_have_made() -> None:
    with koru_delta.open(embedder=Lengths()) as db:
        db.embed("longer", "a", [1.0, 1.0, 1.0])
        for namespace in ("longer", "empty"):
            version = db.embed(namespace, "b", "xx")
            assert list(db.vectors(version)) == ["lengths"]
            assert keys(db.similar(namespace, "x")) == ["b"]


def test_a_text_begins_no_second_model_beside_a_named_one_unless_told_to() -> None:
    with koru_delta.open(embedder=Lengths()) as db:
        db.embed("named", "a", [1.0, 1.0], model="another")
        with pytest.raises(errors.ModelMismatchError, match="model='lengths' to have both"):
            db.embed("named", "b", "xx")
        with (
            pytest.raises(errors.ModelMismatchError) as caught,
            db.transaction() as tx,
        ):
            tx.embed_many("named", [("b", "xx"), ("c", [1.0, 1.0])])
        assert caught.value.begins
        assert pickle.loads(pickle.dumps(caught.value)).begins
        assert keys(db.query("named")) == ["a"]

        db.embed("named", "b", "xx", model="lengths")
        db.embed("named", "c", "xxx")
        assert keys(db.similar("named", "xxx")) == ["c", "b"]
        assert keys(db.similar("named", [1.0, 1.0], model="another")) == ["a"]


def test_a_text_is_not_embedded_by_a_model_that_was_left() -> None:
    with koru_delta.open(embedder=Lengths()) as db:
        db.embed_many("n", [(f"k{n}", "x" * n) for n in range(5)])
        db.reembed("n", "new", new)
        with pytest.raises(errors.ModelMismatchError, match="filled by 'new'"):
            db.embed("n", "late", "x")
        with pytest.raises(errors.ModelMismatchError):
            db.similar("n", "x")
        db.embed("n", "late", "x", model="lengths")  # and then both are in use
        db.embed("n", "later", "xx")
        assert keys(db.similar("n", "xx")) == ["later", "late"]


def new(texts: list[str]) -> list[list[float]]:
    """An embedder of another model."""
    return [[1.0] for _ in texts]


def test_a_text_begins_another_model_where_nothing_is_left_of_the_first(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path, embedder=Lengths()) as db:
        db.embed_many("n", [(f"k{n:04}", "x" * n) for n in range(1_200)])
        db.put_many([("n", f"k{n:04}", n) for n in range(1_199)])
    with koru_delta.open(tmp_path, embedder=as_embedder(new, name="new")) as db:
        with pytest.raises(errors.ModelMismatchError, match="'lengths'"):
            db.embed("n", "last", "x")
        db.delete("n", "k1199")
        db.embed("n", "last", "x")
        assert keys(db.similar("n", "x")) == ["last"]
        assert len(db.query("n")) == 1_200


def test_vectors_are_those_of_a_version_of_this_database(db: Database) -> None:
    first = db.embed("n", "k", [1.0, 0.0])
    second = db.embed("n", "k", [0.0, 1.0])
    for version in (second, second.id, second.id[:12]):
        assert db.vectors(version)["default"].tolist() == [0.0, 1.0]
    with koru_delta.open() as other:
        other.embed("n", "x", [3.0, 4.0])
        with pytest.raises(errors.UnknownVersionError):
            other.vectors(first)


def test_a_model_that_comes_later_is_unknown_before(db: Database) -> None:
    before = db.put("n", "k", 1)
    one = db.embed("n", "k", [1.0, 0.0], model="small")
    db.embed("n", "k", [1.0, 0.0, 0.0], model="large")
    assert db.similar("n", [1.0], as_of=before, model="small") == []
    assert keys(db.similar("n", [1.0, 0.0], as_of=one)) == ["k"]
    with pytest.raises(errors.ModelMismatchError):
        db.similar("n", [1.0, 0.0, 0.0], model="large", as_of=one)


def test_vectors_that_do_not_fit_are_refused_and_leave_nothing(db: Database) -> None:
    db.embed("n", "k", [1.0, 0.0], {"v": 1})
    before = db.stats()["root"]
    for call, error in (
        (lambda: db.embed("n", "l", [1.0]), errors.DimensionMismatchError),
        (lambda: db.embed("n", "l", [0.0, 0.0]), errors.InvalidDataError),
        (lambda: db.embed("n", "l", [1.0, 1.0], metric="dot"), errors.MetricMismatchError),
        (lambda: db.embed("n", "l", [1.0, 1.0], metric="odd"), errors.QueryError),  # type: ignore[arg-type]
        (lambda: db.embed("n", "l", [float("nan"), 1.0]), errors.InvalidDataError),
        (
            lambda: db.embed_many("n", [("l", [1.0, 1.0]), ("m", [1.0])]),
            errors.DimensionMismatchError,
        ),
        (lambda: db.embed_many("n", ["l"]), errors.InvalidDataError),  # type: ignore[list-item]
        (lambda: db.similar("n", [1.0]), errors.DimensionMismatchError),
        (lambda: db.similar("n", [0.0, 0.0]), errors.InvalidDataError),
        (lambda: db.similar("n", [1.0, 0.0], k=-1), errors.QueryError),
        (lambda: db.similar("n", [1.0, 0.0], k=True), errors.QueryError),
        (lambda: db.similar("n", [1.0, 0.0], threshold="x"), errors.QueryError),  # type: ignore[arg-type]
    ):  # fmt: skip
        with pytest.raises(error):
            call()
    assert db.stats()["root"] == before
    assert keys(db.similar("n", [1.0, 0.0])) == ["k"]
    assert db.similar("empty", [1.0, 2.0, 3.0]) == []


def test_text_without_an_embedder_says_what_to_do() -> None:
    with koru_delta.open(None) as bare:
        with pytest.raises(errors.EmbedderError, match="embedder="):
            bare.embed("n", "k", "text")
        with pytest.raises(errors.EmbedderError):
            bare.similar("n", "text")


def test_search_follows_valid_time(db: Database) -> None:
    db.embed("n", "k", [1.0, 0.0], {"v": 1}, valid_from="2025-01-01T00:00:00Z")
    db.embed("n", "k", [0.0, 1.0], {"v": 2}, valid_from="2025-06-01T00:00:00Z")
    assert db.similar("n", [1.0, 0.0])[0].value == {"v": 2}
    then = db.similar("n", [1.0, 0.0], valid_at="2025-03-01T00:00:00Z")
    assert [(m.value, m.score) for m in then] == [({"v": 1}, 1.0)]
    assert db.similar("n", [1.0, 0.0], valid_at="2024-03-01T00:00:00Z") == []


def test_a_plain_key_that_gets_a_valid_time_keeps_its_past(db: Database, clock: FixedClock) -> None:
    first = db.embed("n", "k", [1.0, 0.0], {"v": 1})
    clock.advance(seconds=10)
    db.embed("n", "k", [0.0, 1.0], {"v": 2})
    assert db.similar("n", [1.0, 0.0], valid_at=START)[0].value == {"v": 1}
    clock.advance(seconds=10)
    db.embed("n", "k", [1.0, 1.0], {"v": 3}, valid_from=START + timedelta(seconds=5))
    for second, value in ((0, 1), (4, 1), (5, 3), (15, 3)):
        found = db.similar("n", [1.0, 0.0], valid_at=START + timedelta(seconds=second))
        assert [m.value for m in found] == [{"v": value}], second
    assert db.similar("n", [1.0, 0.0], as_of=first)[0].value == {"v": 1}


def test_search_sees_ttl(db: Database, clock: FixedClock) -> None:
    db.embed("n", "k", [1.0, 0.0], ttl=1)
    assert keys(db.similar("n", [1.0, 0.0])) == ["k"]
    clock.advance(seconds=1)
    assert db.similar("n", [1.0, 0.0]) == []


def test_models_are_counted_at_any_moment(db: Database, clock: FixedClock) -> None:
    assert db.models("n") == {}
    db.put("n", "plain", {"text": "no vector"})
    db.embed("n", "a", [1.0, 0.0])
    first = db.embed("n", "b", [1.0, 0.0, 0.0], model="long")
    db.embed("n", "c", [0.0, 1.0, 0.0], model="long", ttl=60)
    db.embed("other", "a", [1.0], model="short")
    last = db.commits()[-1]
    assert db.models("n") == {"default": 1, "long": 2}
    assert db.models("n", as_of=first) == db.as_of(first).models("n") == {"default": 1, "long": 1}
    db.delete("n", "a")
    clock.advance(seconds=100)
    assert db.models("n") == {"long": 1}
    assert db.models("n", as_of=last) == {"default": 1, "long": 2}
    with pytest.raises(errors.InvalidDataError):
        db.models("")
