"""Codes find the rows that are nearest, whatever the kind, the metric and the mask."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koru_delta.errors import CorruptionError
from koru_delta.search import codes, signs
from koru_delta.search.bounds import Int8Bounds
from koru_delta.search.codes import Codes, encode, load
from koru_delta.search.frame import CodesUnavailable
from koru_delta.search.longs import Longs, Toward
from koru_delta.search.signs import Shelved

ROWS, DIMENSIONS, K = 3000, 48, 10
METRICS = ("cosine", "dot", "l2")
Matrix = npt.NDArray[np.float32]

needs_turbovec = pytest.mark.skipif(codes.best_kind() != "turbo4", reason="turbovec is missing")
KINDS = [pytest.param("turbo4", marks=needs_turbovec), "signs"]


def some_vectors(rows: int = ROWS, dimensions: int = DIMENSIONS, seed: int = 1) -> Matrix:
    """Vectors in loose groups, of unlike lengths, away from the origin."""
    chance = np.random.default_rng(seed)
    groups = chance.standard_normal((40, dimensions)) * 1.5
    found = groups[chance.integers(0, 40, rows)] + chance.standard_normal((rows, dimensions))
    found *= np.exp(0.3 * chance.standard_normal((rows, 1)))
    return (found + 0.5).astype(np.float32)


def some_queries(count: int = 20, dimensions: int = DIMENSIONS) -> Matrix:
    """Of the same groups; none is among the vectors."""
    return some_vectors(ROWS + count, dimensions)[ROWS:]


def exact(vectors: Matrix, query: Matrix, metric: str) -> npt.NDArray[np.float64]:
    rows, one = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return -np.linalg.norm(rows - one, axis=1)
    if metric == "cosine":
        rows /= np.linalg.norm(rows, axis=1)[:, None]
    return rows @ one


def recall(
    made: Codes, vectors: Matrix, queries: Matrix, metric: str, count: int, mask: object = None
) -> float:
    hits = 0
    for query in queries:
        scores = exact(vectors, query, metric)
        if mask is not None:
            scores[~np.asarray(mask)] = -np.inf
        best = np.argsort(-scores)[:K]
        hits += len(np.intersect1d(best, made.nearest(query, count, mask)))  # type: ignore[arg-type]
    return hits / (K * len(queries))


def encoded(vectors: Matrix, metric: str, kind: str) -> Codes:
    made = encode(vectors, metric, kind=kind)
    assert made is not None
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("share", [1.0, 0.5, 0.05])
def test_the_candidates_hold_the_recall_they_are_said_to(kind, metric, share):
    vectors, queries = some_vectors(), some_queries()
    made = encoded(vectors, metric, kind)
    mask = None if share == 1.0 else np.random.default_rng(2).random(ROWS) < share

    for wanted in (0.9, 0.98):
        count = made.candidates(K, wanted)
        assert count is not None
        assert recall(made, vectors, queries, metric, count, mask) >= wanted - 0.03


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_no_row_outside_the_mask_is_found_and_about_as_many_as_asked_for(kind, metric):
    made = encoded(some_vectors(), metric, kind)
    chance = np.random.default_rng(3)
    for visible in (0, 1, 7, 300, 2500, ROWS):
        mask = np.zeros(ROWS, dtype=np.bool_)
        mask[chance.choice(ROWS, visible, replace=False)] = True
        for count in (1, 10, 500):
            for query in some_queries(3):
                found = made.nearest(query, count, mask)
                assert found.dtype == np.int64
                assert len(np.unique(found)) == len(found)
                assert min(2 * count / 3, visible) <= len(found) <= min(count, visible)
                assert mask[found].all()


@pytest.mark.parametrize("kind", KINDS)
def test_many_queries_are_answered_as_one_by_one(kind):
    made = encoded(some_vectors(), "cosine", kind)
    mask = np.arange(ROWS) % 3 == 0
    queries = some_queries()
    for count, visible in ((20, None), (20, mask), (5000, mask)):
        found = made.nearest_many(queries, count, visible)
        assert found.shape[0] == len(queries)
        for query, rows in zip(queries, found, strict=True):
            assert set(rows.tolist()) == set(made.nearest(query, count, visible).tolist())
        assert made.nearest_many(queries[:0], count, visible).shape[0] == 0


def shelved(made: Codes, metric: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> Shelved:
    """The same codes, left where they are and looked at so many rows at a time."""
    data = made.dump()
    whole = signs.PIECE
    monkeypatch.setattr(signs, "PIECE", piece)
    left = Shelved(lambda start, size: data[start : start + size], len(data), metric, DIMENSIONS,
                   made.rows)  # fmt: skip
    assert whole > made.rows
    return left


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("piece", [1, 7, 64, 1000, ROWS])
def test_codes_left_in_a_file_find_what_those_in_memory_do(metric, piece, monkeypatch):
    vectors = some_vectors(ROWS if piece > 1 else 200)
    rows = len(vectors)
    made = encoded(vectors, metric, "signs")
    queries = some_queries(11)
    chance = np.random.default_rng(4)
    masks = [None, *(chance.random(rows) < share for share in (0.0, 0.01, 0.2, 0.6, 1.0))]
    masks.append(np.arange(rows) >= rows - 3)
    counts = (1, 40, rows + 5)
    right = [made.nearest_many(queries, n, mask).tolist() for mask in masks for n in counts]

    left = shelved(made, metric, piece, monkeypatch)

    assert (left.needs, left.nbytes, left.dump()) == (made.needs, 0, made.dump())
    assert right == [left.nearest_many(queries, n, mask).tolist() for mask in masks for n in counts]
    assert left.nearest(queries[3], 40, None).tolist() == right[1][3]


def test_codes_left_in_a_file_that_goes_bad_are_asked_no_more(monkeypatch):
    made = encoded(some_vectors(), "cosine", "signs")
    left = shelved(made, "cosine", 64, monkeypatch)
    assert left.candidates(K, 0.9) == made.candidates(K, 0.9)

    def fail(_start: int, _size: int) -> bytes:
        raise CodesUnavailable("it is gone")

    left._read = fail
    with pytest.raises(CodesUnavailable):
        left.nearest(some_queries(1)[0], 10, None)
    assert left.is_bad
    assert left.candidates(K, 0.9) is None


def test_codes_are_the_same_of_vectors_that_are_read_some_at_a_time():
    class Read:
        def __init__(self, vectors: Matrix) -> None:
            self.vectors, self.shape = vectors, vectors.shape

        def __getitem__(self, some: object) -> Matrix:
            return self.vectors[some].copy()  # type: ignore[index]

    vectors = some_vectors()
    for kind in (param if isinstance(param, str) else param.values[0] for param in KINDS):
        if kind == "turbo4" and codes.best_kind() != kind:
            continue
        made = encode(Read(vectors), "l2", kind=kind)
        assert made is not None
        assert made.dump() == encoded(vectors, "l2", kind).dump()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_may_be_a_view_of_a_larger_one_and_is_left_alone(kind):
    made = encoded(some_vectors(), "l2", kind)
    larger = np.zeros(2 * ROWS, dtype=np.bool_)
    larger[::6] = True
    for mask in (larger[:ROWS], larger[::2]):
        mask.flags.writeable = False
        before = mask.copy()
        assert mask[made.nearest(some_queries(1)[0], 50, mask)].all()
        assert (mask == before).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-3, 1e6, 1e30, 1e36])
def test_no_size_of_vectors_is_too_large_or_too_small(kind, metric, size):
    vectors = (some_vectors().astype(np.float64) * size).astype(np.float32)
    queries = (some_queries(5).astype(np.float64) * size).astype(np.float32)
    made = encoded(vectors, metric, kind)
    assert recall(made, vectors, queries, metric, 100) > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_a_few_huge_vectors_do_not_hide_the_others(kind, metric):
    vectors = some_vectors()
    vectors[:3] *= np.float32(1e30)
    usual = np.arange(ROWS) >= 3
    made = encoded(vectors, metric, kind)
    assert recall(made, vectors, some_queries(), metric, 100, usual) > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_vectors_that_all_point_nearly_the_same_way_are_told_apart(kind, metric):
    vectors, queries = some_vectors() + np.float32(100), some_queries() + np.float32(100)
    made = encoded(vectors, metric, kind)
    assert recall(made, vectors, queries, metric, 100) > 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_queries_far_from_all_vectors_and_zero_ones_are_answered(kind, metric):
    made = encoded(some_vectors(), metric, kind)
    for query in (np.zeros(DIMENSIONS), *(some_queries(1)[0] * s for s in (1e-38, 1e30, 1e37))):
        assert len(made.nearest(query.astype(np.float32), 10, None)) == 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_zero_vectors_may_be_among_the_others(kind, metric):
    vectors = some_vectors()
    vectors[::2] = 0
    made = encoded(vectors, metric, kind)
    queries = some_queries()
    other = np.arange(ROWS) % 2 == 1
    assert recall(made, vectors, queries, metric, 100, other) > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_what_cannot_be_told_apart_has_no_codes(kind, metric):
    ones = np.ones((500, DIMENSIONS), dtype=np.float32)
    assert encode(ones, metric, kind=kind) is None
    assert encode(some_vectors(1), metric, kind=kind) is None
    assert encode(some_vectors(500, 2), metric, kind=kind) is None
    if metric != "cosine":
        assert encode(0 * ones, metric, kind=kind) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimensions", [8, 31, 100])
@pytest.mark.parametrize("rows", [2, 300, 1500])
def test_any_number_of_rows_and_dimensions_is_taken_or_refused(kind, metric, dimensions, rows):
    vectors = some_vectors(rows, dimensions)
    made = encode(vectors, metric, kind=kind)
    if made is None:
        return
    again = load(made.dump(), metric, dimensions, rows)
    assert (again.name, again.rows, again.nbytes) == (kind, rows, made.nbytes)
    query = some_queries(1, dimensions)[0]
    assert len(again.nearest(query, 10, None)) == min(10, rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_what_was_written_is_read_back_the_same(kind, metric):
    made = encoded(some_vectors(), metric, kind)
    data = made.dump()
    again = load(memoryview(data), metric, DIMENSIONS, ROWS)
    assert again.dump() == data
    assert again.candidates(K, 0.95) == made.candidates(K, 0.95)
    for query in some_queries():
        assert (made.nearest(query, 30, None) == again.nearest(query, 30, None)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vectors_make_the_same_codes(kind):
    vectors = some_vectors()
    assert encoded(vectors, "dot", kind).dump() == encoded(vectors.copy(), "dot", kind).dump()


@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_other_vectors_and_broken_ones_are_refused(kind):
    data = encoded(some_vectors(), "cosine", kind).dump()
    for metric, dimensions, rows in (("dot", DIMENSIONS, ROWS), ("cosine", 40, ROWS),
                                     ("cosine", DIMENSIONS, ROWS - 1)):  # fmt: skip
        with pytest.raises(CorruptionError):
            load(data, metric, dimensions, rows)
    for broken in (b"", data[:5], data[:60], data[:300], data[:-1], data + b"x", b"x" + data[1:]):
        with pytest.raises(CorruptionError):
            load(broken, "cosine", DIMENSIONS, ROWS)
    newer = data[:7] + bytes([data[7] + 1]) + data[8:]
    with pytest.raises(CodesUnavailable, match="another format"):
        load(newer, "cosine", DIMENSIONS, ROWS)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 4000), change=st.binary(min_size=1, max_size=8))
def test_a_changed_byte_never_does_more_than_change_what_is_found(kind, place, change):
    data = bytearray(_small(kind))
    place %= len(data)
    data[place : place + len(change)] = change[: len(data) - place]
    try:
        again = load(bytes(data), "dot", 16, 300)
        found = again.nearest(np.ones(16, dtype=np.float32), 10, None)
    except (CorruptionError, CodesUnavailable):
        return
    assert len(found) <= 10
    assert ((found >= 0) & (found < 300)).all()


_made: dict[str, bytes] = {}


def _small(kind: str) -> bytes:
    if kind not in _made:
        _made[kind] = encoded(some_vectors(300, 16), "dot", kind).dump()
    return _made[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_search_at_once(kind):
    made = encoded(some_vectors(), "cosine", kind)
    queries = some_queries(200)
    mask = np.arange(ROWS) % 2 == 0
    alone = [made.nearest(query, 20, mask).tolist() for query in queries]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda query: made.nearest(query, 20, mask).tolist(), queries))
    assert together == alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_a_query_that_is_no_number_is_refused(kind, metric):
    made = encoded(some_vectors(), metric, kind)
    for bad in (np.nan, np.inf):
        query = some_queries(1)[0]
        query[3] = bad
        with pytest.raises(CodesUnavailable):
            made.nearest(query, 10, None)


@needs_turbovec
def test_what_the_library_raises_comes_as_one_error(monkeypatch):
    made = encoded(some_vectors(), "cosine", "turbo4")
    data = made.dump()
    with pytest.raises(CodesUnavailable, match="could not search"):
        made.nearest(some_queries(1)[0], 10, np.ones(ROWS - 1, dtype=np.bool_))
    monkeypatch.setattr(codes, "_turbovec", lambda: None)
    assert codes.best_kind() == "signs"
    with pytest.raises(CodesUnavailable, match="not installed"):
        load(data, "cosine", DIMENSIONS, ROWS)
    with pytest.raises(CodesUnavailable, match="not installed"):
        encode(some_vectors(), "cosine", kind="turbo4")
    fallen_back = encode(some_vectors(), "cosine")
    assert fallen_back is not None
    assert fallen_back.name == "signs"


def test_more_are_asked_for_where_more_are_wanted():
    made = encoded(some_vectors(), "cosine", "signs")
    counts = [made.candidates(K, recall) for recall in (0.5, 0.8, 0.9, 0.95, 0.98)]
    assert None not in counts
    assert counts == sorted(counts)  # type: ignore[type-var]
    assert made.candidates(1, 0.9) is not None
    assert made.candidates(200, 0.9) >= 200  # type: ignore[operator]
    assert made.candidates(K, 1.0) is None


def test_importing_loads_no_library():
    script = "import sys, koru_delta, koru_delta.search.codes; print('turbovec' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


needs_int8 = pytest.mark.skipif(not Int8Bounds.available(), reason="no int8 library")


@needs_int8
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("apart", [0.0, 300.0], ids=["near the origin", "far from it"])
def test_int8_contenders_hold_the_exact_best_and_few_others(metric, size, apart):
    vectors = ((some_vectors() + np.float64(apart)) * size).astype(np.float32)
    queries = ((some_queries() + np.float64(apart)) * size).astype(np.float32)
    vectors[1000:1100] = vectors[0]  # ties
    bounds = Int8Bounds.made(vectors, metric)
    assert bounds is not None
    mask = np.random.default_rng(4).random(ROWS) < 0.5
    for query in (*queries, vectors[0], vectors[7]):
        for visible in (None, mask, mask & (np.arange(ROWS) < 5), ~mask & mask):
            for k in (1, 10, 200):
                found = bounds.contenders(query, k, visible)
                scores = exact(vectors, query, metric)
                if visible is not None:
                    scores[~visible] = -np.inf
                wanted = min(k, int(np.count_nonzero(scores > -np.inf)))
                assert len(found) >= wanted
                if wanted:
                    least = np.sort(scores)[-wanted]
                    assert np.isin(np.flatnonzero(scores >= least), found).all()
                    if k == 10 and visible is None and metric != "dot":
                        assert len(found) < ROWS / 4


@needs_int8
@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), metric=st.sampled_from(METRICS), spread=st.floats(0, 8))
def test_int8_bounds_hold_for_any_lengths(seed, metric, spread):
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((200, 12)) * np.exp(spread * chance.standard_normal((200, 1)))
    bounds = Int8Bounds.made(vectors.astype(np.float32), metric)
    if bounds is None:
        return
    query = (chance.standard_normal(12) * np.exp(spread * chance.standard_normal())).astype("f4")
    try:
        found = bounds.contenders(query, 5, None)
    except CodesUnavailable:
        return
    best = np.argsort(-exact(vectors.astype(np.float32), query, metric))[:5]
    assert np.isin(best, found).all()


def uneven(rows: int) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """Vectors of lengths of six decades, and a mask under which few of the long ones are.

    These are across one direction, so that the best of them are so for their lengths alone.
    """
    chance = np.random.default_rng(6)
    found = chance.standard_normal((rows, 64)) * 10 ** chance.uniform(-3, 3, (rows, 1))
    along = np.argsort(np.argsort(found @ chance.standard_normal(64)))
    return found.astype(np.float32), (along * 8 // rows >= 2) & (along * 8 // rows < 6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [20_000, 33_000])  # of so many, turbovec looks at signs first
def test_rows_much_longer_than_most_are_found_though_their_codes_say_little(kind, rows):
    vectors, mask = uneven(rows)
    made = encoded(vectors, "dot", kind)
    data = made.dump()
    forms = [made, load(data, "dot", 64, rows)]
    if kind == "signs":
        forms.append(Shelved(lambda at, size: data[at : at + size], len(data), "dot", 64, rows))
    queries = np.random.default_rng(7).standard_normal((40, 64)).astype(np.float32)
    best = [np.argsort(-np.where(mask, exact(vectors, q, "dot"), -np.inf))[:K] for q in queries]
    for codes_of in forms:
        plain = promised = 0
        many = codes_of.promising_many(queries, 400, mask, K, 0.98)
        for query, its, (same, times) in zip(queries, best, many, strict=True):
            some, short = codes_of.promising(query, 400, mask, K, 0.98)
            assert (some.tolist(), short) == (same.tolist(), times)
            assert mask[some].all()
            assert len(np.unique(some)) == len(some) < 500
            assert short == 1
            plain += len(np.intersect1d(its, codes_of.nearest(query, 400, mask)))
            promised += len(np.intersect1d(its, some))
        assert promised >= 0.98 * K * len(queries)
        # turbovec looks at signs first where the processor has instructions for it (AVX-512).
        assert kind == "turbo4" or rows < 33_000 or plain < 0.96 * K * len(queries)


def longs_of(lengths: object) -> Longs:
    found = np.asarray(lengths, dtype=np.float32)
    return Longs.among(found, np.zeros_like(found), found)


def test_rows_that_are_too_many_to_be_looked_at_are_no_exceptions():
    longs = longs_of(np.where(np.arange(10_000) < 3_000, 100, 1))
    rows, scores = np.arange(3_000, 3_100), np.linspace(1, 0, 100, dtype=np.float32)
    seen = Toward.of(0.1, 0.0, 1.0, 64)

    far = longs.beyond(seen, scores, K, None)
    assert far.are_many
    assert far.typical == 100
    assert far.before(rows).tolist() == rows.tolist()

    far = longs.beyond(seen, scores, K, np.arange(10_000) >= 2_990)
    assert far.before(rows).tolist() == [*range(2_990, 3_000), *rows.tolist()]
    assert longs.beyond(seen, scores[:5], K, None).rows.tolist() == []


@pytest.mark.parametrize("kind", KINDS)
def test_for_distances_rows_that_are_long_since_they_are_far_are_not_looked_at(kind):
    chance = np.random.default_rng(9)
    vectors = chance.standard_normal((40_000, 64)) * np.exp(
        0.5 * chance.standard_normal((40_000, 1))
    )
    made = encoded(vectors.astype(np.float32), "l2", kind)
    for query in chance.standard_normal((10, 64)).astype(np.float32):
        some, _ = made.promising(query, 100, None, K, 0.98)
        assert len(some) < 110


def test_long_rows_in_a_file_that_are_not_there_are_told_of():
    longs = longs_of([1, 1, 1, 1, 29, 28, 30])
    assert longs.rows.tolist() == [6, 4, 5]
    again = Longs.read(longs.dump(), 7)
    assert again.rows.tolist() == [6, 4, 5]
    assert again.lengths.tolist() == again.rests.tolist() == [30, 29, 28]
    backwards = longs._replace(lengths=longs.lengths[::-1])
    for bad in (longs.dump()[::-1], backwards.dump()):
        with pytest.raises(CorruptionError):
            Longs.read(bad, 7)
    with pytest.raises(CorruptionError):
        Longs.read(longs.dump(), 6)


@needs_turbovec
def test_a_batch_that_asks_for_many_of_many_rows_is_answered_as_one_by_one():
    vectors = some_vectors(33_000)
    made = encoded(vectors, "cosine", "turbo4")
    queries = some_queries(3)
    mask = np.arange(33_000) % 2 == 0
    for count, visible in ((1_500, None), (900, mask)):
        found = made.nearest_many(queries, count, visible)
        assert found.shape == (3, count)
        for query, rows in zip(queries, found, strict=True):
            assert rows.tolist() == made.nearest(query, count, visible).tolist()
