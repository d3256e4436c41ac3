"""A graph finds what was fed and not dropped, nearly all of it, and makes nobody wait."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("hnswlib")

from koru_delta.search.graph import GraphUnavailable, LiveGraph, available, library, like_queries

DIMENSIONS = 24


def data(rows, seed=1):
    """Vectors around some centres, of different lengths."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((20, DIMENSIONS))
    vectors = centres[random.integers(0, 20, rows)] + random.standard_normal((rows, DIMENSIONS))
    return vectors.astype(np.float32)


def scores(metric, vectors, query):
    if metric == "l2":
        return -np.square(vectors - query).sum(axis=1)
    products = vectors @ query
    return products / np.linalg.norm(vectors, axis=1) if metric == "cosine" else products


def nearest(metric, vectors, slots, query, k=10):
    return slots[np.argsort(-scores(metric, vectors[slots], query), kind="stable")[:k]]


def recall(graph, metric, vectors, slots, queries, effort=64):
    hits = 0
    for query in queries:
        found = graph.nearest(query, 10, effort)
        assert len(set(found.tolist())) == 10
        hits += len(np.intersect1d(found, nearest(metric, vectors, slots, query)))
    return hits / len(queries) / 10


@pytest.fixture
def vectors():
    return data(3000)


@pytest.fixture
def graph(vectors):
    made = LiveGraph(DIMENSIONS, "cosine")
    made.feed(np.arange(1000), vectors[:1000])
    return made


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_graph_finds_what_scoring_everything_finds(metric, vectors):
    graph = LiveGraph(DIMENSIONS, metric)
    slots = np.random.default_rng(2).permutation(3000)

    graph.feed(slots, vectors[slots])

    assert recall(graph, metric, vectors, slots, data(100, seed=3)) >= 0.95


def test_answers_come_best_first_whatever_the_effort(graph, vectors):
    query = data(1, seed=4)[0]

    for effort in (10, 50, 300):
        found = graph.nearest(query, 10, effort)
        own = scores("cosine", vectors[found], query)
        assert found.dtype == np.int64
        assert (np.diff(own) <= 1e-6).all()


def test_many_queries_are_answered_as_one_by_one(graph):
    queries = data(40, seed=4)

    found = graph.nearest_many(queries, 7, 60)

    assert found.shape == (40, 7)
    one_by_one = [graph.nearest(query, 7, 60).tolist() for query in queries]
    assert found.tolist() == one_by_one


def test_no_more_is_found_than_there_is(vectors):
    graph = LiveGraph(DIMENSIONS, "l2")
    assert graph.nearest(vectors[0], 5, 50).tolist() == []
    assert graph.nearest_many(vectors[:2], 5, 50).shape == (2, 0)

    graph.feed(np.array([7, 3, 5]), vectors[[7, 3, 5]])

    assert sorted(graph.nearest(vectors[0], 10, 50).tolist()) == [3, 5, 7]
    assert graph.live == 3


def test_what_was_dropped_is_not_found(graph, vectors):
    gone = np.arange(0, 1000, 2)

    graph.drop(gone)

    assert graph.live == 500
    assert graph.holds(np.array([0, 1, 2, 3, 1000, 10**12, -1])).tolist() == [
        False, True, False, True, False, False, False,
    ]  # fmt: skip
    for query in data(50, seed=5):
        assert (graph.nearest(query, 20, 40) % 2 == 1).all()
    assert recall(graph, "cosine", vectors, np.arange(1, 1000, 2), data(50, seed=6)) >= 0.95


def test_everything_can_be_dropped_and_something_else_fed(graph, vectors):
    graph.drop(np.arange(1000))
    assert graph.live == 0
    assert graph.nearest(vectors[0], 5, 50).tolist() == []

    graph.feed(np.arange(1000, 1030), vectors[1000:1030])

    found = graph.nearest(vectors[1000], 5, 50)
    assert found is None or set(found.tolist()) <= set(range(1000, 1030))
    assert graph.live == 30


def test_what_is_fed_twice_is_there_once(graph, vectors):
    graph.feed(np.array([5, 6, 6, 1000, 1000]), vectors[[5, 6, 6, 1000, 1000]])

    assert graph.live == 1001
    assert (np.sort(graph.nearest(vectors[0], 1001, 1001)) == np.arange(1001)).all()


def test_dropping_what_is_not_there_does_nothing(graph):
    graph.drop(np.array([5, 5, 2000, 10**9, -3]))
    graph.drop(np.array([5]))

    assert graph.live == 999


def test_what_was_dropped_and_fed_again_is_found_again(graph, vectors):
    some = np.arange(300)
    graph.drop(some)
    graph.feed(np.arange(1000, 1100), vectors[1000:1100])  # take the places of some of them

    graph.feed(some, vectors[some])

    assert graph.live == 1100
    assert graph.holds(np.arange(1100)).all()
    graph.drop(some)
    graph.drop(np.arange(1000, 1100))
    assert (np.sort(graph.nearest(vectors[0], 700, 700)) == np.arange(300, 1000)).all()


def test_a_graph_stays_good_when_everything_in_it_has_been_replaced_twice(graph, vectors):
    random = np.random.default_rng(7)
    alive = np.arange(1000)
    for start in range(1000, 3000, 100):
        gone = random.choice(alive, 100, replace=False)
        fresh = np.arange(start, start + 100)
        graph.drop(gone)
        graph.feed(fresh, vectors[fresh])
        alive = np.union1d(np.setdiff1d(alive, gone), fresh)

    assert graph.live == 1000
    assert np.flatnonzero(graph.holds(np.arange(3000))).tolist() == alive.tolist()
    assert recall(graph, "cosine", vectors, alive, data(100, seed=8)) >= 0.95
    assert graph.worn
    assert graph.fed == 1000 + 2 * 2000
    assert graph.nbytes < 2 * 1000 * (DIMENSIONS * 4 + 400)


def test_random_feeds_and_drops_leave_what_a_set_would_hold(tmp_path, vectors):
    random = np.random.default_rng(11)
    graph, held = LiveGraph(DIMENSIONS, "dot", places=1), set()
    for step in range(60):
        some = random.integers(0, 400, random.integers(1, 60))
        if random.random() < 0.55:
            graph.feed(some, vectors[some], chunk=7)
            held |= set(some.tolist())
        else:
            graph.drop(some)
            held -= set(some.tolist())
        if step % 15 == 14:
            graph.save(tmp_path / "graph")
            graph = LiveGraph.load(tmp_path / "graph", DIMENSIONS, "dot")
        assert set(np.flatnonzero(graph.holds(np.arange(500))).tolist()) == held
        assert graph.live == len(held)
        found = graph.nearest(vectors[step], 400, 400)
        assert found is None or set(found.tolist()) == held


def test_a_saved_graph_is_read_back_as_it_was(tmp_path, graph, vectors):
    graph.drop(np.arange(100))
    graph.feed(np.arange(1000, 1040), vectors[1000:1040])
    graph.save(tmp_path / "graph")

    again = LiveGraph.load(tmp_path / "graph", DIMENSIONS, "cosine", replaced=graph.replaced)

    assert again.replaced == 40
    every = np.arange(1100)
    assert again.holds(every).tolist() == graph.holds(every).tolist()
    assert again.live == graph.live == 940
    for query in data(20, seed=9):
        assert again.nearest(query, 10, 40).tolist() == graph.nearest(query, 10, 40).tolist()
    before = again.nbytes
    again.feed(np.arange(1040, 1100), vectors[1040:1100])  # there is room: places of the dropped
    assert again.nbytes == before
    again.feed(np.arange(2000), vectors[:2000])
    assert recall(again, "cosine", vectors, np.arange(2000), data(50, seed=10)) >= 0.95


def test_a_file_of_something_else_is_refused(tmp_path, graph):
    path = tmp_path / "graph"
    graph.save(path)
    whole = path.read_bytes()

    with pytest.raises(GraphUnavailable):
        LiveGraph.load(path, DIMENSIONS + 1, "cosine")
    for part in (b"", whole[:50], whole[:1000], whole[:-3], whole + b"more", b"\xff" * 4000):
        path.write_bytes(part)
        with pytest.raises(GraphUnavailable):
            LiveGraph.load(path, DIMENSIONS, "cosine")
    with pytest.raises(GraphUnavailable):
        LiveGraph.load(tmp_path / "missing", DIMENSIONS, "cosine")


def test_a_graph_that_cannot_be_written_whole_is_an_error(tmp_path, graph, monkeypatch):
    with pytest.raises(OSError, match="graph"):
        graph.save(tmp_path / "no folder" / "graph")
    assert graph.nearest(data(1)[0], 3, 20) is not None


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_extreme_vectors_do_no_harm(metric, vectors):
    extreme = vectors[:1200].copy()
    extreme[1000:1050] *= np.float32(1e30)
    extreme[1050:1100] *= np.float32(1e-30)
    extreme[1100:] = 0
    graph = LiveGraph(DIMENSIONS, metric)

    graph.feed(np.arange(1200), extreme)

    for factor in (1, 1e30, 1e-30, 0):
        found = graph.nearest(vectors[5] * np.float32(factor), 10, 30)
        assert found is None or graph.holds(found).all()
    assert graph.live == 1200
    if metric == "cosine":
        assert 1003 in graph.nearest(vectors[1003], 10, 100).tolist()


class Slow:
    """A library that stays in a call until it may go on, or fails in it."""

    def __init__(self, inner, name, error=None):
        self.inner, self.name, self.error = inner, name, error
        self.entered, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name):
        if name != self.name:
            return getattr(self.inner, name)

        def call(*args, **options):
            if self.error is not None:
                raise self.error
            self.entered.set()
            assert self.go_on.wait(60)
            return getattr(self.inner, name)(*args, **options)

        return call


@pytest.mark.parametrize("name", ["add_items", "mark_deleted"])
def test_a_search_does_not_wait_for_a_writer(graph, vectors, name):
    slow = graph._index = Slow(graph._index, name)
    write = graph.feed if name == "add_items" else lambda slots, _: graph.drop(slots - 1000)
    writer = threading.Thread(target=write, args=(np.arange(1000, 1005), vectors[1000:1005]))
    writer.start()
    assert slow.entered.wait(60)

    assert graph.nearest(vectors[0], 5, 50) is None
    assert graph.nearest_many(vectors[:3], 5, 50) is None
    assert graph.holds(np.array([500, 1002])).tolist() == [True, False]

    slow.go_on.set()
    writer.join()
    assert len(graph.nearest(vectors[0], 5, 50)) == 5


def test_a_writer_waits_for_searches_and_comes_before_new_ones(graph, vectors):
    slow = graph._index = Slow(graph._index, "knn_query")
    reader = threading.Thread(target=graph.nearest, args=(vectors[0], 5, 50))
    reader.start()
    assert slow.entered.wait(60)
    writer = threading.Thread(target=graph.drop, args=(np.arange(10),))
    writer.start()
    while not graph._writing:
        time.sleep(0.001)

    assert graph.nearest(vectors[0], 5, 50) is None
    assert graph.live == 1000

    slow.go_on.set()
    reader.join()
    writer.join()
    assert graph.live == 990


@pytest.mark.parametrize("name", ["add_items", "mark_deleted", "knn_query", "resize_index"])
@pytest.mark.parametrize("error", [RuntimeError("cand error"), MemoryError(), ValueError("odd")])
def test_a_graph_whose_library_fails_is_given_up(graph, vectors, name, error):
    graph._index = Slow(graph._index, name, error)
    use = {
        "mark_deleted": lambda: graph.drop(np.arange(5)),
        "knn_query": lambda: graph.nearest(vectors[0], 5, 50),
    }.get(name, lambda: graph.feed(np.arange(1000, 1200), vectors[1000:1200]))

    with pytest.raises(GraphUnavailable):
        use()

    assert graph.broken
    for use in (
        lambda: graph.nearest(vectors[0], 5, 50),
        lambda: graph.nearest_many(vectors[:2], 5, 50),
        lambda: graph.feed(np.arange(3), vectors[:3]),
    ):
        with pytest.raises(GraphUnavailable):
            use()


def test_an_interrupted_feed_gives_the_graph_up(graph, vectors):
    graph._index = Slow(graph._index, "add_items", KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        graph.feed(np.arange(1000, 1010), vectors[1000:1010])

    with pytest.raises(GraphUnavailable):
        graph.nearest(vectors[0], 5, 50)


def test_a_graph_that_leads_to_too_few_says_so(graph, vectors):
    too_few = RuntimeError("Cannot return the results in a contiguous 2D array. Probably ...")
    graph._index = Slow(graph._index, "knn_query", too_few)

    assert graph.nearest(vectors[0], 5, 50) is None
    assert graph.nearest_many(vectors[:3], 5, 50) is None
    assert not graph.broken


def test_searches_beside_feeds_and_drops_find_only_what_may_be_found(vectors):
    graph = LiveGraph(DIMENSIONS, "cosine")
    graph.feed(np.arange(500), vectors[:500])  # these stay
    wrong: list[object] = []
    answers = [0] * 4
    stop = threading.Event()

    def search(thread):
        random = np.random.default_rng(thread)
        while not stop.is_set():
            effort = int(random.integers(5, 200))
            dropped = done[0]
            found = graph.nearest(vectors[random.integers(0, 3000)], 5, effort)
            fed = begun[0]
            if found is None:
                continue
            answers[thread] += 1
            # What was dropped before the search began, or fed after it ended.
            early = (found >= 500) & (found < dropped)
            if len(found) != 5 or early.any() or (found >= fed).any():
                wrong.append((found, dropped, fed))

    done, begun = [500], [500]  # slots below are dropped; slots from here on were never fed
    threads = [threading.Thread(target=search, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + 2
    start = 500
    while time.monotonic() < ends and start + 50 <= 3000:
        begun[0] = start + 50
        graph.feed(np.arange(start, start + 50), vectors[start : start + 50], chunk=20)
        if start >= 700:
            graph.drop(np.arange(start - 200, start - 150))
            done[0] = start - 150
        start += 50
    stop.set()
    for thread in threads:
        thread.join()

    assert not wrong
    assert not graph.broken
    assert sum(answers) > 0


def test_threads_that_want_different_efforts_each_get_their_own(graph, vectors):
    queries = data(30, seed=12)
    alone = {effort: [graph.nearest(q, 5, effort).tolist() for q in queries] for effort in (5, 400)}
    wrong: list[int] = []

    def search(effort):
        for _ in range(20):
            if [graph.nearest(q, 5, effort).tolist() for q in queries] != alone[effort]:
                wrong.append(effort)

    threads = [threading.Thread(target=search, args=(effort,)) for effort in (5, 400, 5, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


def test_calibrated_efforts_keep_their_promise_for_other_queries(vectors):
    graph = LiveGraph(DIMENSIONS, "cosine")
    slots = np.arange(2750)
    graph.feed(slots, vectors[:2750])
    queries = like_queries(vectors[2750:], np.random.default_rng(13))
    truth = np.array([nearest("cosine", vectors, slots, query) for query in queries])

    efforts = graph.calibrate(queries, truth)

    assert list(efforts) == sorted(efforts)
    assert list(efforts.values()) == sorted(efforts.values())
    assert 0.95 in efforts
    others = data(300, seed=14)
    for target, effort in efforts.items():
        chance = 2 * np.sqrt(target * (1 - target) / (10 * len(others)))  # two standard errors
        assert recall(graph, "cosine", vectors, slots, others, effort) >= target - chance


def test_the_library_is_not_loaded_before_it_is_needed():
    code = "import sys, koru_delta; sys.exit('hnswlib' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert available()
    assert library().startswith("hnswlib ")
