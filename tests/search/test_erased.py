"""Indexes that outlive an erasure answer as if made anew from what is left of the log."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta import CausalFilter, Database, errors
from koru_delta.causal import moment
from koru_delta.search import graph, hybrid, query, texts, upkeep
from koru_delta.search.columns import Columns
from koru_delta.search.text.postings import Postings
from koru_delta.testing import FixedClock
from tests.indexing import SMALL, lower

MB = 1_000_000
EVEN_SUPERSEDED = CausalFilter(exclude_superseded=False)


def copy_of(db: Database, clock: FixedClock) -> Database:
    """Another database with the same log, that has read nothing of it."""
    lines = io.BytesIO()
    db.export_log(lines)
    other = koru_delta.open(clock=clock)
    other.import_log(io.BytesIO(lines.getvalue()))
    return other


def answers(db: Database, moments: list[dict[str, Any]]) -> list[Any]:
    """What every kind of question finds at some moments."""
    told: list[Any] = []
    for at in moments:
        hits = db.similar("v", [1.0, 0.5], k=50, exact=True, **at)
        even = db.similar("v", [1.0, 0.5], k=50, exact=True, causal=EVEN_SUPERSEDED, **at)
        told.append([(hit.key, hit.score, hit.value) for hit in hits])
        told.append([(hit.key, hit.score, hit.value) for hit in even])
        words = db.search("v", "rain or w1 w2 w3", mode="text", k=50, **at)
        told.append([(hit.key, hit.score) for hit in words])
        told.append([hit.key for hit in db.search("v", '"falls w1"', mode="text", k=50, **at)])
        told.append([hit.key for hit in db.similar("v", [0.0, 1.0], k=50, filter={"x": 1}, **at)])
        for asked in (None, {"x": 1}, {"x": {"$ne": 1}}, {"y": {"$exists": True}}, {"text": "w3"}):
            told.append([(row.key, row.value) for row in db.query("v", asked, **at)])
        told.append([r.key for r in db.query("v", {"x": 1}, causal=EVEN_SUPERSEDED, **at)])
        told.append(db.count("v", {"x": 1}, **at))
    return told


def read(db: Database) -> None:
    """Let every index read what it has not read yet."""
    db.similar("v", [1.0, 0.5], k=1, exact=True, filter={"x": 1})
    db.search("v", "rain", mode="text", k=1)
    db.query("v", {"x": 1})


VERBS = ["put", "put", "again", "value", "delete", "ttl", "valid", "hide", "supersede", "erase"]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*VERBS, "erase one", "erase one", "wait"]),
            st.sampled_from("ab"), st.integers(-9, 9), st.integers(1, 9),
        ),
        min_size=3, max_size=30,
    ),
)  # fmt: skip
@example([("put", "a", 0, 1), ("supersede", "a", 0, 1), ("erase one", "a", 0, 1)])
@example([("put", "a", 0, 1), ("erase one", "a", 0, 1), ("valid", "a", -5, 3)])
@example([("valid", "a", -5, 9), ("erase one", "a", 0, 1), ("valid", "a", -4, 2)])
@example(
    [
        ("put", "a", 0, 1), ("supersede", "a", 0, 1), ("erase one", "a", 0, 1),
        ("valid", "a", -4, 2),
    ]
)  # fmt: skip
def test_what_was_read_before_an_erasure_answers_as_what_is_read_after_it(
    steps: list[tuple[str, str, int, int]],
) -> None:
    clock = FixedClock()
    with koru_delta.open(clock=clock) as db:
        db.embed("v", "z", [0.1, 0.9], {"text": "rain falls w1", "x": 1})
        answers(db, [{}])
        for number, (verb, key, offset, span) in enumerate(steps):
            vector = [1.0 + number % 5, float(span)]
            value = {"text": f"rain falls w{number % 4}", "x": span % 3, "y": number}
            begins = moment(clock.now + offset * MB)
            there = [v for v in db.history("v", key) if v.operation == "put"]
            match verb:
                case "put":
                    db.embed("v", key, vector, value)
                case "again" if there and not there[-1].is_erased:  # the same vector and value
                    carried = db.vectors(there[-1]) or {"": vector}
                    db.embed("v", "b", next(iter(carried.values())), there[-1].value)
                case "value":
                    db.put("v", key, value)
                case "delete" if db.contains("v", key):
                    db.delete("v", key)
                case "ttl":
                    db.embed("v", key, vector, value, ttl=span)
                case "valid":
                    ends = moment(clock.now + (offset + span) * MB)
                    db.embed("v", key, vector, value, valid_from=begins, valid_to=ends)
                case "hide" if there and there[offset % len(there)].id:
                    try:
                        db.hide("v", key, version=there[offset % len(there)])
                    except errors.AnnotationError:
                        db.unhide("v", key, version=there[offset % len(there)])
                case "supersede" if there:
                    causes = [("supersedes", there[offset % len(there)])]
                    db.embed("v", "c", vector, value, causes=causes)
                case "erase" if there:
                    db.erase(("v", key))
                case "erase one" if there:
                    db.erase(there[offset % len(there)])
            if verb != "wait":  # else it is read together with what comes next
                read(db)
            clock.advance(seconds=span % 3)
        ends = [commit.seq for commit in db.commits()]
        moments = [{}, *({"as_of": end} for end in ends[:: max(1, len(ends) // 4)])]
        moments += [{"valid_at": moment(clock.now + shift * MB)} for shift in (-4, 4)]
        with copy_of(db, clock) as other:
            assert other.stats()["root"] == db.stats()["root"]
            for _ in range(2):  # often enough for columns to be read
                assert answers(db, moments) == answers(other, moments)
        db.embed("v", "a", [3.0, 3.0], {"text": "rain w2", "x": 1})  # and it goes on
        db.put("v", "d", {"text": "rain w3", "x": 1}, valid_from=moment(clock.now - 5 * MB))
        with copy_of(db, clock) as other:
            assert answers(db, moments) == answers(other, moments)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(SMALL, monkeypatch.setattr)
    monkeypatch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)
    monkeypatch.setattr(texts, "SAVE_SLOTS", 1)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_segments_codes_and_graph_go_on_without_what_was_erased(
    tmp_path: Path, metric: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(8).standard_normal((300, 16)).astype(np.float32)
    made: list[int] = []
    with koru_delta.open(tmp_path / "db") as db:
        db.embed_many(
            "v", [(f"k{n:03}", row, {"n": n}) for n, row in enumerate(rows)], metric=metric
        )
        db.build_index("v")
        feed = graph.LiveGraph.feed

        def counting(self: Any, slots: Any, *rest: Any, **more: Any) -> None:
            made.append(len(slots))
            feed(self, slots, *rest, **more)

        monkeypatch.setattr(graph.LiveGraph, "feed", counting)
        gone = [7, 8, 150, 299]
        db.erase([("v", f"k{n:03}") for n in gone])
        left = sorted({f"k{n:03}" for n in range(300)} - {f"k{n:03}" for n in gone})
        for n in (*gone, 1, 100):
            found = db.similar("v", rows[n], k=400, exact=True)
            assert sorted(hit.key for hit in found) == left
            near = db.similar("v", rows[n], k=5, recall=0.9)
            assert not {hit.key for hit in near} - set(left)
        db.build_index("v")
        if graph.available():
            assert sum(made) < 50  # it was not made anew
        for file in (tmp_path / "db").rglob("*"):
            if file.is_file():
                data = file.read_bytes()
                for n in gone:
                    unit = rows[n] / np.linalg.norm(rows[n])
                    assert rows[n][:4].tobytes() not in data
                    assert unit[:4].astype(np.float32).tobytes() not in data
        space = db.stats()["vector_spaces"][0]
    with koru_delta.open(tmp_path / "db") as db:
        monkeypatch.setattr(upkeep.Upkeep, "_encoded", lambda *_: pytest.fail("made anew"))
        monkeypatch.setattr(graph.LiveGraph, "feed", lambda *_: pytest.fail("made anew"))
        found = db.similar("v", rows[7], k=400, exact=True)
        assert sorted(hit.key for hit in found) == left
        db._vectors.upkeep.load(db._vectors.opened()[0])
        again = db.stats()["vector_spaces"][0]
        assert (again["codes"], again["segments"]) == (space["codes"], space["segments"])
        assert again["in_graph"] == space["in_graph"]
        assert db.verify().ok


@pytest.mark.usefixtures("small")
def test_a_graph_of_which_much_was_erased_is_asked_on_and_written_to_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not graph.available():
        pytest.skip("needs the extra 'fast'")
    rows = np.random.default_rng(9).standard_normal((300, 16)).astype(np.float32)
    with koru_delta.open(tmp_path / "db") as db:
        db.embed_many("v", [(f"k{n}", row, n) for n, row in enumerate(rows)])
        db.build_index("v")
        assert list((tmp_path / "db").rglob("graph.hnsw"))
        db.erase([("v", f"k{n}") for n in range(100)])
        near = db.similar("v", rows[3], k=5, recall=0.9)
        assert all(int(hit.key[1:]) >= 100 for hit in near)
        assert db.stats()["vector_spaces"][0]["in_graph"] >= 200
        db.build_index("v")
        assert not list((tmp_path / "db").rglob("graph.hnsw"))


def test_what_is_erased_while_a_question_is_answered_is_left_out_or_says_so(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = [
        db.embed("v", f"k{n}", [1.0, float(n)], {"text": "rain", "x": n % 2}) for n in range(8)
    ]
    choose, name = query._by_columns, hybrid._names
    for _ in range(3):  # until it is answered from columns
        assert [row.key for row in db.query("v", {"x": 1})] == ["k1", "k3", "k5", "k7"]

    def chosen(*asked: Any, **more: Any) -> Any:
        found = choose(*asked, **more)
        db.erase(versions[3])
        return found

    def named(*asked: Any) -> Any:
        db.erase(versions[5])
        return name(*asked)

    monkeypatch.setattr(query, "_by_columns", chosen)
    monkeypatch.setattr(hybrid, "_names", named)

    assert [row.key for row in db.query("v", {"x": 1})] == ["k1", "k5", "k7"]
    hits = db.search("v", "rain", mode="text", group_by="x", k=9)
    assert {hit.key for hit in hits} <= {"k0", "k1", "k5"}
    for hit in hits:
        if hit.key == "k5":
            with pytest.raises(errors.ErasedError):
                _ = hit.value


def test_columns_lose_every_trace_of_some_rows() -> None:
    values = [{"a": "x", "b": 1}, {"a": "secret"}, {"a": "y"}, {"a": "x"}, {"a": "later"}]
    for moving_up in (True, False):
        columns = Columns(lambda start, stop: values[start:stop])
        columns.column(("a",), 4)
        rest: list[Any] = [v for n, v in enumerate(values) if n != 1]
        left: list[Any] = rest if moving_up else [values[0], {}, *values[2:]]
        made = columns.without(
            np.array([1]), lambda start, stop, left=left: left[start:stop], moving_up=moving_up
        )
        column = made.column(("a",), len(left))
        assert column.among(frozenset(["x"])).tolist() == [v.get("a") == "x" for v in left]
        assert column.present().tolist() == ["a" in v for v in left]
        assert sorted(map(str, column.distinct)) == ["later", "x", "y"]
        assert columns.column(("a",), 4).among(frozenset(["secret"])).tolist() == [
            False, True, False, False,
        ]  # fmt: skip


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), max_size=12), st.data(),
    st.integers(0, 12),
)  # fmt: skip
def test_documents_taken_out_leave_the_words_of_the_rest(
    documents: list[list[str]], data: st.DataObject, cut: int
) -> None:
    postings = Postings()
    postings.add(documents[:cut])
    postings.add(documents[cut:])
    gone = data.draw(st.sets(st.sampled_from(range(len(documents))))) if documents else set()
    left = [document for n, document in enumerate(documents) if n not in gone]
    expected = Postings()
    expected.add(left)
    rest = postings.without(np.array(sorted(gone), dtype=np.int64))

    for made in (rest, expected):
        made.add([["g", "a"]])

    found, wanted = rest.dump(), expected.dump()
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].tolist() == array.tolist(), name


@pytest.mark.parametrize("times", [1, 2, 4])
def test_vectors_erased_one_after_another_while_they_are_read_are_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    with koru_delta.open(tmp_path / "db") as db, koru_delta.open(tmp_path / "db") as other:
        other.embed_many("v", [(f"k{n}", [1.0, float(n)]) for n in range(6)])
        engine = db._log.engine
        read_vectors, left = engine.vectors, iter(range(times))

        def vectors(objects: Any) -> Any:
            for number in left:  # after the entries that carry them were read
                other.erase(other.version("v", f"k{number}"))
                break
            return read_vectors(objects)

        monkeypatch.setattr(engine, "vectors", vectors)
        found = db.similar("v", [1.0, 0.0], k=10)

        assert [hit.key for hit in found] == [f"k{n}" for n in range(times, 6)]


@pytest.mark.parametrize("budget", [None, 0])
def test_vectors_erased_while_a_damaged_file_is_read_anew_are_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int | None
) -> None:
    lower(SMALL, monkeypatch.setattr)
    monkeypatch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)
    path = tmp_path / "db"
    with koru_delta.open(path) as other, koru_delta.open(path, vector_memory=budget) as db:
        other.embed_many("v", [(f"k{n:02}", [1.0, n / 10]) for n in range(60)])
        db.build_index()
        [file] = path.glob("index/*/vectors-*.kdx")
        with file.open("r+b") as opened:
            opened.seek(-20, 2)
            opened.write(b"\x81" * 20)
        engine = db._log.engine
        read_vectors, left = engine.vectors, iter(range(2))

        def vectors(objects: Any) -> Any:
            for number in left:
                other.erase(other.version("v", f"k{number:02}"))
                break
            return read_vectors(objects)

        monkeypatch.setattr(engine, "vectors", vectors)
        found = db.similar("v", [1.0, 0.0], k=100, exact=True)

        assert [hit.key for hit in found] == [f"k{n:02}" for n in range(2, 60)]


def test_a_vector_whose_number_goes_to_another_while_it_is_read_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with koru_delta.open(tmp_path / "db") as db, koru_delta.open(tmp_path / "db") as other:
        other.embed_many("v", [(f"k{n}", [1.0, float(n)]) for n in range(6)])
        engine = db._log.engine
        read_vectors, left = engine.vectors, iter(range(1))

        def vectors(objects: Any) -> Any:
            for _ in left:  # after the entries that carry them were read
                other.erase(other.version("v", "k5"))
                with koru_delta.open(tmp_path / "db") as third:
                    third.embed("v", "new", [-1.0, 0.0])
            return read_vectors(objects)

        monkeypatch.setattr(engine, "vectors", vectors)
        found = db.similar("v", [1.0, 0.0], k=10)

        assert [hit.key for hit in found] == [f"k{n}" for n in range(5)]
        assert [hit.key for hit in db.similar("v", [1.0, 0.0], k=10)] == [
            *(f"k{n}" for n in range(5)), "new",
        ]  # fmt: skip
