"""However a search goes about it, its answer keeps the same promises."""

from __future__ import annotations

import io
import logging
import os
import pickle
import random
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import koru_delta
from koru_delta.errors import (
    DimensionMismatchError,
    InvalidDataError,
    KoruDeltaError,
    ModelMismatchError,
    QueryError,
)
from koru_delta.log import CausalLog
from koru_delta.search import codes, graph, nearest, upkeep
from koru_delta.search.budget import page_bytes
from koru_delta.testing import FixedClock, HashEmbedder
from tests.indexing import SMALL, check_approximate, check_exact, lower
from tests.model import SCORES, Intent, Model, Moment
from tests.test_fork import in_child

Metric = Literal["cosine", "dot", "l2"]
METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2")
KINDS = ["signs", *(["turbo4"] if codes.best_kind() == "turbo4" else [])]
WAYS = ["gather", "scan", "codes", *(["graph"] if graph.available() else [])]
EVERY_WAY = [*WAYS, "packed"]  # which is for a mask that comes again; else it is a scan
BUDGETS = (None, 0, *(page_bytes(0) + more for more in (30_000, 60_000, 100_000)))
EXAMPLES = int(os.environ.get("KORU_EXAMPLES", "12"))
needs_graph = pytest.mark.skipif(not graph.available(), reason="hnswlib is not installed")


@contextmanager
def forced(db: koru_delta.Database, way: str) -> Iterator[None]:
    """Every search goes this way if it can, whatever it costs."""

    def chosen(it: Any, _costs: Any) -> str:
        able = {
            "codes": it.codes is not None and it.coded > 0,
            "graph": it.effort is not None,
            "packed": it.packable,
        }
        return way if able.get(way, True) else "scan"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "choose", chosen)
        choose_again(db)
        yield
    choose_again(db)


def choose_again(db: koru_delta.Database) -> None:
    for space in db._vectors.opened():
        space.choose_again()


def rows_of(numbers: np.random.Generator, rows: int, dimensions: int) -> np.ndarray:
    """Vectors around some centres, of different lengths."""
    centres = numbers.standard_normal((5, dimensions))
    vectors = centres[numbers.integers(0, 5, rows)] + numbers.standard_normal((rows, dimensions))
    return vectors.astype(np.float32)


def hits(found: Sequence[koru_delta.Match]) -> list[tuple[str, float, str]]:
    return [(match.key, match.score, match.version.id) for match in found]


# Random histories

STEPS = ("fresh", "fresh", "same", "toggle", "overwrite", "delete", "put", "other", "build",
         "build", "search", "reopen", "back")  # fmt: skip
TIMED = ("ttl", "valid", "time")
FILTER = ({"n": {"$gte": 2}}, lambda value: isinstance(value, dict) and value.get("n", 0) >= 2)


class History:
    """A database and the naive model, told the same."""

    def __init__(self, folder: Path, metric: Metric, dimensions: int) -> None:
        self.path = folder / "db"
        self.metric: Metric = metric
        self.dimensions = dimensions
        self.clock = FixedClock()
        self.model = Model()
        self.count = 0
        self.known = rows_of(np.random.default_rng(9), 3, dimensions)
        self.db = self._open(None)

    def _open(self, budget: int | None) -> koru_delta.Database:
        return koru_delta.open(
            self.path, durability="relaxed", clock=self.clock, vector_memory=budget
        )

    def embed(
        self, items: Sequence[tuple[str, np.ndarray, Any]], model: str = "m", **times: Any
    ) -> None:
        options = dict(times)
        if "ttl" in times:
            options["ttl"] = times["ttl"] / 1_000_000
        for name in ("valid_from", "valid_to"):
            if name in times:
                options[name] = koru_delta.causal.moment(times[name])  # type: ignore[attr-defined]
        self.db.embed_many("v", items, model=model, metric=self.metric, **options)
        self.model.commit(
            self.clock.now,
            [
                Intent("put", "v", key, value, {model: tuple(map(float, vector))}, **times)
                for key, vector, value in items
            ],
        )

    def present(self) -> list[str]:
        now = self.model.now(self.clock.now)
        return list(self.model.present("v", now, now.clock))

    def step(self, step: str, seed: int) -> None:
        chance, numbers = random.Random(seed), np.random.default_rng(seed)
        fresh = rows_of(numbers, 60, self.dimensions)
        keys = self.present()
        some = chance.sample(keys, min(len(keys), chance.randint(1, 12)))
        if step in ("fresh", "same"):
            keys = [f"k{self.count + n:04}" for n in range(chance.randint(4, 60))]
            self.count += len(keys)
            vectors = fresh if step == "fresh" else [chance.choice(self.known)] * 60
            self.embed([(k, v, {"n": chance.randrange(4)}) for k, v in zip(keys, vectors)])  # noqa: B905
        elif step == "toggle":
            for turn in range(chance.randint(2, 7)):
                self.embed([(some[0] if some else "t", self.known[turn % 2], {"n": turn})])
        elif step in ("overwrite", "other", "ttl") and some:
            model = "other" if step == "other" else "m"
            times = {"ttl": chance.randint(1, 6) * 1_000_000} if step == "ttl" else {}
            items = [(k, v, {"n": chance.randrange(4)}) for k, v in zip(some, fresh)]  # noqa: B905
            self.embed(items, model, **times)
        elif step == "valid" and some:
            starts = self.clock.now + chance.randint(-8, 8) * 1_000_000
            ends = {"valid_to": starts + 5_000_000} if chance.random() < 0.5 else {}
            self.embed([(some[0], fresh[0], {"n": 3})], valid_from=starts, **ends)
        elif step in ("delete", "put"):
            for key in some:
                if step == "delete":
                    self.db.delete("v", key)
                else:
                    self.db.put("v", key, {"n": 1})
                self.model.commit(self.clock.now, [Intent(step, "v", key, {"n": 1})])
        elif step == "back":  # what was deleted comes again, with the vector it had
            gone = [e for e in self.model.entries if e.key not in keys and "m" in e.vectors]
            for entry in gone[-8:]:
                vector = np.array(entry.vectors["m"], dtype=np.float32)
                self.embed([(entry.key, vector, {"n": 2})])
        elif step == "build":
            self.db.build_index()
        elif step == "search":
            self.db.similar("v", fresh[0], model="m")
        elif step == "reopen":
            self.db.close()
            self.db = self._open(chance.choice(BUDGETS))
        elif step == "time":
            self.clock.advance(seconds=chance.randint(1, 4))

    def check(self, seed: int) -> None:
        """Every way, at some moments, under a filter or none, against the list."""
        chance, numbers = random.Random(seed), np.random.default_rng(seed)
        commits = self.model.commits
        moments: list[tuple[Moment, Any]] = [(self.model.now(self.clock.now), None)]
        for commit in chance.sample(commits, min(len(commits), 2)):
            moments.append((commit, commit.seq))
        query = rows_of(numbers, 1, self.dimensions)[0]
        queries = np.stack([query, self.known[0], self.known[1] * 50])
        for cut, ref in moments:
            for where in (None, FILTER):
                valid_at = cut.clock
                times: dict[str, Any] = {}
                if chance.random() < 0.25:
                    valid_at -= chance.randint(0, 9) * 1_000_000
                    times["valid_at"] = koru_delta.causal.moment(valid_at)  # type: ignore[attr-defined]
                asked = {"as_of": ref, "filter": where and where[0], "model": "m", **times}
                self._check(query, queries, cut, valid_at, where, asked, chance)

    def _check(
        self, query: np.ndarray, queries: np.ndarray, cut: Moment, valid_at: int, where: Any,
        asked: dict[str, Any], chance: random.Random,
    ) -> None:  # fmt: skip
        truth = self.model.similar(
            "v", "m", tuple(map(float, query)), cut, valid_at, SCORES[self.metric],
            *([where[1]] if where else []),
        )  # fmt: skip
        whole = self.db.similar("v", query, k=len(truth) + 5, exact=True, **asked)
        assert {match.key for match in whole} == truth.keys()
        for match in whole:
            score, entry = truth[match.key]
            assert match.score == pytest.approx(score, rel=1e-9, abs=1e-9)
            assert match.version.seq == entry.seq
        pairs = [(match.key, match.score) for match in whole]
        assert pairs == sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
        assert (whole.considered, whole.approximate) == (len(truth), False)
        wholes = self.db.similar_many("v", queries, k=len(truth) + 5, exact=True, **asked)
        assert hits(wholes[0]) == hits(whole)
        if where is None:
            self._check_against_a_fresh_one(query, whole, asked)
        for way in EVERY_WAY:
            with forced(self.db, way):
                k = chance.choice([1, 3, 10])
                found = self.db.similar("v", query, k=k, exact=True, **asked)
                assert hits(found) == hits(whole)[:k]
                note = (way, cut, asked)
                recall = chance.choice([0.8, 0.95, 0.99])
                found = self.db.similar("v", query, k=k, recall=recall, **asked)
                check_approximate(found, whole, k, note)
                assert found.plan in {way, "scan", "none"} - ({"none"} if truth else set())
                for exact in (True, False):
                    many = self.db.similar_many("v", queries, k=k, exact=exact, **asked)
                    for one, of_it in zip(many, wholes, strict=True):
                        check_approximate(one, of_it, k, note)

    def _check_against_a_fresh_one(
        self, query: np.ndarray, whole: koru_delta.Matches, asked: dict[str, Any]
    ) -> None:
        log = io.BytesIO()
        self.db.export_log(log, as_of=asked["as_of"])
        log.seek(0)
        with koru_delta.open(clock=self.clock) as fresh:
            fresh.import_log(log)
            found = fresh.similar("v", query, k=len(whole) + 5, exact=True, **asked)
            assert hits(found) == hits(whole)


@given(
    metric=st.sampled_from(METRICS),
    dimensions=st.integers(8, 24),
    kind=st.sampled_from(KINDS),
    timed=st.sampled_from([False, False, True]),
    steps=st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 2**16)), min_size=4, max_size=14
    ),
)
@settings(
    max_examples=EXAMPLES, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
def test_whatever_has_happened_every_way_to_search_keeps_its_promise(
    metric: Metric, dimensions: int, kind: str, timed: bool, steps: list[tuple[int, int]]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="koru-plans-"))
    with pytest.MonkeyPatch.context() as patch:
        lower(SMALL, patch.setattr)
        patch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)
        patch.setattr(codes, "best_kind", lambda: kind)
        history = History(folder, metric, dimensions)
        try:
            history.step("fresh", 50)
            names = STEPS + TIMED * timed
            for number, seed in steps:
                history.step(names[number % len(names)], seed)
            history.step("build", 0)
            history.step("toggle", steps[0][1])  # and something beside what was built
            history.check(steps[0][1])
        finally:
            history.db.close()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_each_way_answers_now_and_finds_most_of_the_best(small, metric, kind, way):
    small.setattr(codes, "best_kind", lambda: kind)
    numbers = np.random.default_rng(4)
    vectors = rows_of(numbers, 300, 16)
    found_of_best = 0
    with koru_delta.open() as db:
        items = [(f"k{n:03}", vector, {"n": n % 3}) for n, vector in enumerate(vectors)]
        db.embed_many("v", items[:250], metric=metric)
        db.build_index()
        db.embed_many("v", items[250:])
        then = db.delete("v", "k007")
        db.delete("v", "k008")
        with forced(db, way):
            for query in rows_of(numbers, 20, 16):
                whole = check_exact(db, "v", metric, query)
                found = db.similar("v", query, recall=0.95)
                assert (found.plan, found.approximate) == (way, way in ("codes", "graph"))
                check_approximate(found, whole, 10)
                best = {match.key for match in whole[:10]}
                found_of_best += len(best & {match.key for match in found})
                if way != "graph":  # it only knows what is there now
                    past = db.similar("v", query, as_of=then, filter={"n": 2})
                    assert past.plan == way
                    assert past.considered == 100
    assert found_of_best >= 0.9 * 200


@needs_graph
@pytest.mark.parametrize("metric", METRICS)
def test_a_graph_that_is_behind_still_gives_what_is_alive_now(small, metric):
    numbers = np.random.default_rng(41)
    vectors = rows_of(numbers, 300, 16)
    with koru_delta.open() as db:
        db.embed_many("v", [(f"k{n:03}", v) for n, v in enumerate(vectors)], metric=metric)
        db.build_index()
        with forced(db, "graph"):
            for query in rows_of(numbers, 4, 16):
                near = [match.key for match in db.similar("v", query, k=40)]
                db.delete_many("v", near[:5])  # fewer than are asked for beside, then more
                check_approximate(db.similar("v", query), check_exact(db, "v", metric, query), 10)
                db.delete_many("v", near[5:30])
                db.embed_many("v", [(near[n], query * (1 + n / 100)) for n in (3, 4)])
                whole = check_exact(db, "v", metric, query)
                for found in (db.similar("v", query), *db.similar_many("v", query[None])):
                    assert found.plan == "graph"
                    check_approximate(found, whole, 10)
                    assert {near[3], near[4]} <= {match.key for match in whole[:10]} & {
                        match.key for match in found
                    }


def test_some_of_many_segments_may_have_codes_that_do_not_hold_the_recall(small):
    encode = codes.encode
    made = []

    def poorly(vectors, metric):
        found = encode(vectors, metric, kind="signs")
        made.append(found)
        if len(made) == 2:
            found.needs = (1, 1, 1, 0, 0)  # never .98
        return found

    small.setattr(codes, "encode", poorly)
    numbers = np.random.default_rng(5)
    vectors = numbers.standard_normal((200, 12), dtype=np.float32)
    with koru_delta.open() as db:
        for start in (0, 100):
            items = [(f"k{n:03}", vectors[n], None) for n in range(start, start + 100)]
            db.embed_many("v", items)
            db.build_index()
        assert [segment["segments"] for segment in db.stats()["vector_spaces"]] == [2]
        with forced(db, "codes"):
            for query in numbers.standard_normal((30, 12), dtype=np.float32):
                best = {m.key for m in db.similar("v", query, exact=True) if m.key >= "k100"}
                found = db.similar("v", query)
                assert found.plan == "codes"
                assert best <= {match.key for match in found}
                (found,) = db.similar_many("v", [query])
                assert best <= {match.key for match in found}


def test_a_long_query_ranks_vectors_that_hardly_differ_as_they_are():
    for seed in range(40):
        numbers = np.random.default_rng(seed)
        query = numbers.standard_normal(32)
        unit = query / np.linalg.norm(query)
        vectors = unit + numbers.standard_normal((40, 32)) * 1e-7
        vectors = (vectors * numbers.uniform(0.5, 3, (40, 1))).astype(np.float32)
        query = (query * 1000 + numbers.standard_normal(32) * 300).astype(np.float32)
        with koru_delta.open() as db:
            db.embed_many("v", [(f"k{n:02}", vector) for n, vector in enumerate(vectors)])
            whole = db.similar("v", query, k=40)
            assert hits(db.similar("v", query, k=3)) == hits(whole)[:3]
            assert hits(db.similar_many("v", [query], k=3)[0]) == hits(whole)[:3]


@pytest.mark.parametrize("vectors", [1, 5, 20])
def test_many_keys_may_share_few_vectors(small, vectors):
    few = np.random.default_rng(6).standard_normal((vectors, 8), dtype=np.float32)
    with koru_delta.open() as db:
        db.embed_many("v", [(f"k{n:03}", few[n % vectors]) for n in range(200)])
        db.build_index()
        for query in few[:3]:
            whole = check_exact(db, "v", "cosine", query)
            for way in EVERY_WAY:
                with forced(db, way):
                    check_approximate(db.similar("v", query, k=5), whole, 5)


@pytest.mark.parametrize("way", WAYS)
def test_numbers_at_the_ends_of_float32_keep_the_promise_of_every_way(small, way):
    numbers = np.random.default_rng(7)
    for metric in METRICS:
        for scale in (1e-30, 1e18, 1e37):
            vectors = rows_of(numbers, 120, 16)
            vectors[::10] *= np.float32(scale)
            with koru_delta.open() as db:
                db.embed_many("v", [(f"k{n:03}", v) for n, v in enumerate(vectors)], metric=metric)
                db.build_index()
                for query in (vectors[0], vectors[1], vectors[2] * np.float32(1e-30)):
                    whole = db.similar("v", query, k=120, exact=True)
                    with forced(db, way):
                        check_approximate(db.similar("v", query, k=7), whole, 7, (metric, scale))
                        (found,) = db.similar_many("v", query[None], k=7)
                        check_approximate(found, whole, 7, (metric, scale))


# Bad input


@pytest.fixture
def built(small) -> Iterator[koru_delta.Database]:
    numbers = np.random.default_rng(8)
    with koru_delta.open(embedder=HashEmbedder(16)) as db:
        db.embed_many("v", [(f"k{n:03}", v) for n, v in enumerate(rows_of(numbers, 90, 16))])
        db.embed_many("l2", [(f"k{n}", v) for n, v in enumerate(np.eye(16))], metric="l2")
        db.embed("two", "a", [1.0, 2.0], model="one")
        db.embed("two", "b", [1.0, 2.0, 3.0], model="other")
        db.build_index()
        yield db


QUERY = [1.0] * 16
NOT_A_NUMBER = [float("nan"), *QUERY[1:]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("error", "options"),
    [
        *[(QueryError, {"k": k}) for k in (-1, True, 2.0, "3", None)],
        *[(QueryError, {"recall": r}) for r in (0, 0.0, 1.01, -1, True, "0.9", None, float("nan"))],
        *[(QueryError, {"threshold": t}) for t in ("1", float("nan"))],
        (QueryError, {"filter": {"n": {"$nothing": 1}}}),
        *[
            (InvalidDataError, {"query": query})
            for query in ([0.0] * 16, NOT_A_NUMBER, [float("inf")] * 16, [], [QUERY], [1e39] * 16)
        ],
        (InvalidDataError, {"query": np.full(16, np.nan, dtype=np.float32)}),
        (InvalidDataError, {"query": np.full(16, np.inf, dtype=np.float32)}),
        (DimensionMismatchError, {"query": [1.0] * 15}),
        (DimensionMismatchError, {"query": np.ones(17, dtype=np.float32)}),
        (ModelMismatchError, {"model": "unknown"}),
        (ModelMismatchError, {"namespace": "two", "query": [1.0, 2.0]}),
    ],
    ids=repr,
)
def test_a_bad_search_is_refused_whatever_way_it_would_go(built, way, error, options):
    options = {"namespace": "v", "query": QUERY, **options}
    namespace, query = options.pop("namespace"), options.pop("query")
    with forced(built, way):
        with pytest.raises(error):
            built.similar(namespace, query, **options)
        with pytest.raises(error):
            built.similar_many(namespace, [query], **options)


def test_more_than_there_are_none_and_zero_are_no_errors(built):
    for way in WAYS:
        with forced(built, way):
            assert len(built.similar("v", QUERY, k=10**9)) == 90
            assert built.similar("v", QUERY, k=0) == []
            assert built.similar("nothing", QUERY) == []
            assert built.similar_many("nothing", [QUERY, QUERY]) == [[], []]
            assert built.similar_many("v", [QUERY], k=0) == [[]]
            assert len(built.similar("l2", [0.0] * 16)) == 10
            assert built.similar("v", QUERY, filter={"n": 1}).considered == 0
            assert len(built.similar("v", QUERY, recall=1)) == 10


@pytest.mark.parametrize(
    ("error", "queries"),
    [
        (InvalidDataError, "one text"), (InvalidDataError, b"bytes"),
        (InvalidDataError, np.ones(16)), (InvalidDataError, QUERY),
        (InvalidDataError, ["text", QUERY]), (InvalidDataError, [QUERY, "text"]),
        (InvalidDataError, [QUERY, NOT_A_NUMBER]), (InvalidDataError, [QUERY, [0.0] * 16]),
        (InvalidDataError, [QUERY, QUERY[1:]]), (InvalidDataError, np.ones((2, 2, 16))),
        (DimensionMismatchError, np.ones((2, 15))), (InvalidDataError, [[]]),
    ],
    ids=repr,
)  # fmt: skip
def test_bad_queries_together_are_refused(built, error, queries):
    with pytest.raises(error):
        built.similar_many("v", queries)


def test_no_queries_have_no_answers(built):
    assert built.similar_many("v", []) == []
    assert built.similar_many("v", np.empty((0, 16), dtype=np.float32)) == []


def test_a_zero_vector_is_not_stored_where_it_points_nowhere(built):
    with pytest.raises(InvalidDataError):
        built.embed("v", "zero", [0.0] * 16)
    built.embed("l2", "zero", [0.0] * 16)
    assert built.similar("l2", [0.0] * 16, k=1)[0].key == "zero"


# A library that fails in the middle


class Failing:
    """Stands for a class of a library; from some moment on one of its methods raises."""

    def __init__(self, real: Any, method: str, error: type[Exception]) -> None:
        self.real, self.method, self.error, self.on = real, method, error, False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return Made(self, self.real(*args, **kwargs))

    def from_bytes(self, data: bytes) -> Any:
        self.fail("from_bytes")
        return Made(self, self.real.from_bytes(data))

    def fail(self, method: str) -> None:
        if self.on and method == self.method:
            raise self.error(f"{method} failed")


class Made:
    def __init__(self, owner: Failing, real: Any) -> None:
        self._owner, self._real = owner, real

    def __len__(self) -> int:
        return len(self._real)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not callable(found):
            return found

        def called(*args: Any, **kwargs: Any) -> Any:
            self._owner.fail(name)
            return found(*args, **kwargs)

        return called


def told_once(caplog: pytest.LogCaptureFixture) -> None:
    """What failed while a database was open has one line in the log, and a few follow from it."""
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len({line.split(" for ")[0] for line in said}) <= 2, said
    caplog.clear()


@pytest.mark.parametrize(
    "method",
    ["hnswlib.init_index", "hnswlib.add_items", "hnswlib.knn_query", "hnswlib.mark_deleted",
     "hnswlib.unmark_deleted", "hnswlib.resize_index", "hnswlib.save_index",
     "hnswlib.index_file_size", "hnswlib.load_index", "hnswlib.get_ids_list", "hnswlib.set_ef",
     "turbovec.calibrate", "turbovec.add", "turbovec.search", "turbovec.prepare",
     "turbovec.to_bytes", "turbovec.from_bytes"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("after", "error"),
    [("before a build", MemoryError), ("after a build", RuntimeError),
     ("after opening again", RuntimeError)],
)  # fmt: skip
def test_a_library_that_fails_changes_no_exact_answer_and_raises_nothing(
    tmp_path, small, caplog, method, error, after
):
    library, method = method.split(".")
    real = pytest.importorskip(library)
    name = "Index" if library == "hnswlib" else "TurboQuantIndex"
    failing = Failing(getattr(real, name), method, error)
    small.setattr(real, name, failing)
    vectors = rows_of(np.random.default_rng(9), 200, 16)
    items = [(f"k{n:03}", vector) for n, vector in enumerate(vectors)]

    def used(db: koru_delta.Database) -> None:
        for query in (vectors[5], vectors[100] * 3):
            whole = check_exact(db, "v", "l2", query)
            for way in EVERY_WAY:
                with forced(db, way):
                    check_approximate(db.similar("v", query, k=4), whole, 4, way)
                    for found in db.similar_many("v", [query, query], k=4):
                        check_approximate(found, whole, 4, way)

    caplog.set_level(logging.WARNING, "koru_delta")
    failing.on = after == "before a build"
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.embed_many("v", items[:120], metric="l2")
        db.build_index()
        used(db)
        failing.on = after != "after opening again"
        db.embed_many("v", items[120:])
        db.delete_many("v", [f"k{n:03}" for n in range(0, 60, 2)])
        db.build_index()
        used(db)
        db.embed_many("v", items[:40])
        db.build_index()
        used(db)
    told_once(caplog)
    failing.on = True
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.similar("v", vectors[0])
        db.build_index()
        used(db)
    told_once(caplog)
    failing.on = False
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.build_index()
        used(db)
        if "graph" in WAYS:
            with forced(db, "graph"):
                assert db.similar("v", vectors[0], k=3).plan == "graph"


# What an answer holds


@pytest.fixture
def whole(tmp_path, small) -> Iterator[koru_delta.Database]:
    with koru_delta.open(tmp_path / "db") as db:
        vectors = rows_of(np.random.default_rng(10), 60, 8)
        db.embed_many("v", [(f"k{n:02}", vector, {"n": n}) for n, vector in enumerate(vectors)])
        db.build_index()
        yield db


def test_what_a_match_holds_is_as_of_the_search_whatever_was_written_since(whole):
    found = whole.similar("v", [1.0] * 8, k=5)
    ids = {row.key: row.version.id for row in whole.query("v")}
    values = {row.key: row.value for row in whole.query("v")}
    for match in found:
        whole.put("v", match.key, "later")
    whole.drop_namespace("v")
    assert [match.value for match in found] == [values[match.key] for match in found]
    assert [match.version.id for match in found] == [ids[match.key] for match in found]
    assert found[0].value is found[0].value
    assert whole.similar("v", [1.0] * 8) == []


def test_a_match_that_is_held_keeps_its_value_when_the_database_is_closed(whole):
    values = {row.key: row.value for row in whole.query("v")}
    found = whole.similar("v", [1.0] * 8, k=5)
    one = whole.similar("v", [1.0] * 8, k=3)[2]  # without the answer it was in
    many = whole.similar_many("v", np.eye(8), k=2)
    whole.close()
    assert [match.value for match in found] == [values[match.key] for match in found]
    assert one.value == values[one.key]
    assert [m.version.value for m in many[7]] == [values[m.key] for m in many[7]]


def test_a_match_can_be_pickled_and_goes_on_alone(whole):
    found = whole.similar("v", [1.0] * 8, k=5)
    again = pickle.loads(pickle.dumps(list(found)))
    one = pickle.loads(pickle.dumps(found[1]))
    whole.close()
    assert again == list(found)
    assert (one.key, one.score, one.value) == (found[1].key, found[1].score, found[1].value)
    assert one == found[1]
    assert pickle.loads(pickle.dumps(one)) == one


def test_an_answer_can_be_pickled_with_how_it_was_found(whole):
    found = whole.similar("v", [1.0] * 8, k=5)
    again = pickle.loads(pickle.dumps(found))
    assert again == found
    assert (again.plan, again.considered, again.approximate) == (
        found.plan, found.considered, found.approximate
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_reads_what_its_parent_found_and_searches_every_way(whole):
    found = whole.similar("v", [1.0] * 8, k=5)
    for way in WAYS:
        with forced(whole, way):
            whole.similar("v", [1.0] * 8)

    def child() -> None:
        assert [match.value for match in found] == [{"n": int(m.key[1:])} for m in found]
        exact = check_exact(whole, "v", "cosine", np.ones(8, dtype=np.float32))
        whole.build_index()
        for way in WAYS:
            with forced(whole, way):
                again = whole.similar("v", [1.0] * 8, k=4)
                assert again.plan == way
                check_approximate(again, exact, 4)
                check_approximate(whole.similar_many("v", np.ones((300, 8)), k=4)[9], exact, 4)
        whole.embed("v", "child", [1.0] * 8, "of the child")
        assert whole.similar("v", [1.0] * 8, k=1)[0].value == "of the child"

    in_child(child)
    assert whole.similar("v", [1.0] * 8, k=1)[0].value == "of the child"
    assert [match.value for match in found] == [{"n": int(m.key[1:])} for m in found]


def test_matches_are_a_list_that_compares_and_shows_what_it_holds(whole):
    found = whole.similar("v", [1.0] * 8, k=5, exact=True)
    again = whole.similar("v", [1.0] * 8, k=5, exact=True)
    assert found == again
    assert found == list(again)
    assert isinstance(found, list)
    assert found[1:3] == again[1:3] != found[:2]
    assert {*found} == {*again}
    assert found[0] != found[1]
    assert found[0] != "k00"
    assert found.load() is found
    assert repr(found[0]) == (
        f"Match(key={found[0].key!r}, score={found[0].score!r}, value={found[0].value!r})"
    )
    match found[0]:
        case koru_delta.Match(key, score, _, value):
            assert (key, score, value) == (found[0].key, found[0].score, found[0].value)
    whole.put("v", found[0].key, {"n": "another"})
    with_other_version = whole.similar("v", [1.0] * 8, k=5)
    assert found != with_other_version


async def test_an_async_search_reads_what_it_found_off_the_loop(tmp_path, monkeypatch):
    threads = []
    read = CausalLog.versions

    def watched(self, seqs):
        threads.append(threading.get_ident())
        return read(self, seqs)

    monkeypatch.setattr(CausalLog, "versions", watched)
    async with await koru_delta.AsyncDatabase.open(tmp_path / "db") as db:
        await db.embed_many("v", [("a", [1.0, 0.0], "one"), ("b", [0.0, 1.0], "two")])
        found = await db.similar("v", [1.0, 0.0])
        many = await db.similar_many("v", [[1.0, 0.0], [0.0, 1.0]])
        assert threads
        assert threading.get_ident() not in threads
        threads.clear()
        assert [match.value for match in found] == ["one", "two"]
        assert [[match.value for match in one] for one in many] == [["one", "two"], ["two", "one"]]
        assert threads == []


def test_a_value_that_cannot_be_read_is_an_error_when_it_is_asked_for(whole):
    found = whole.similar("v", [1.0] * 8, k=2)
    with pytest.MonkeyPatch.context() as patch:

        def fail(*_: Any) -> Any:
            raise KoruDeltaError("it cannot be read")

        patch.setattr(type(whole._log), "versions", fail)
        assert [match.key for match in found] == [match.key for match in found]
        with pytest.raises(KoruDeltaError):
            _ = found[0].value
    assert found[0].value == {"n": int(found[0].key[1:])}
