"""What was just written is found by the next search, by every way and at the ends of float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta import Database
from koru_delta.errors import CorruptionError, InvalidDataError
from koru_delta.search import readings
from tests.indexing import check_exact
from tests.search.test_plans import METRICS, WAYS, forced

DIMENSIONS = 32


def shifted(numbers: np.random.Generator, rows: int) -> np.ndarray:
    return (numbers.standard_normal((rows, DIMENSIONS)) + 10_000).astype(np.float32)


def large(numbers: np.random.Generator, rows: int) -> np.ndarray:
    return (numbers.standard_normal((rows, DIMENSIONS)) * 1e20).astype(np.float32)


def plain(numbers: np.random.Generator, rows: int) -> np.ndarray:
    return numbers.standard_normal((rows, DIMENSIONS)).astype(np.float32)


def parallel(numbers: np.random.Generator, rows: int) -> np.ndarray:
    return (1 + 1e-4 * numbers.standard_normal((rows, DIMENSIONS))).astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("make", [plain, shifted, large, parallel])
def test_a_fresh_row_is_found_by_itself(small, make, metric, way):
    numbers = np.random.default_rng(60)
    with koru_delta.open() as db:
        base = make(numbers, 400)
        items = [(f"k{n:03}", vector, {"t": 1}) for n, vector in enumerate(base)]
        db.embed_many("v", items, metric=metric)
        db.build_index()
        for turn in range(4):
            mine = make(numbers, 12)
            db.embed_many("v", [(f"m{n}", vector, {"t": 1}) for n, vector in enumerate(mine)])
            with forced(db, way):
                for options in ({}, {"filter": {"t": 1}}):
                    best = db.similar("v", mine[turn], k=1, exact=True, **options)
                    assert db.similar("v", mine[turn], k=1, **options) == best
                    assert db.similar_many("v", mine[turn][None], k=1, **options) == [best]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("metric", METRICS)
def test_an_extreme_row_hides_no_other(small, metric, way):
    numbers = np.random.default_rng(61)
    with koru_delta.open() as db:
        base = plain(numbers, 300)
        db.embed_many("v", [(f"k{n:03}", v) for n, v in enumerate(base)], metric=metric)
        db.build_index()
        extreme = np.zeros(DIMENSIONS, dtype=np.float32)
        extreme[:2] = 3e38, -3e38
        query = np.zeros(DIMENSIONS, dtype=np.float32)
        query[:2] = 2.0  # with the extreme row float32 comes to infinity minus infinity
        db.embed("v", "extreme", extreme)
        db.embed_many("v", [(f"m{n:02}", v) for n, v in enumerate(plain(numbers, 30))])
        db.embed("v", "mine", query)
        with forced(db, way):
            for k in (1, 3):
                best = db.similar("v", query, k=k, exact=True)
                assert metric == "dot" or best[0].key == "mine"
                assert db.similar("v", query, k=k) == best
                assert db.similar_many("v", query[None], k=k) == [best]


def test_equal_scores_are_in_key_order_however_few_are_asked_for(db: Database) -> None:
    query = np.array(
        [0.3573804199695587, -1.2083185911178589, -0.004454133100807667, 0.6564749479293823,
         -1.2883614301681519], dtype=np.float32,
    )  # fmt: skip
    scales = (1, 3, 5, 7, 0.3, 11, 13, 1.7, 9, 6)  # some would score a little above one
    db.embed_many("v", [(f"k{n}", query * np.float32(s)) for n, s in enumerate(scales)])

    whole = [(hit.key, hit.score) for hit in db.similar("v", query, k=10, exact=True)]
    assert whole == sorted(whole, key=lambda pair: (-pair[1], pair[0]))
    assert whole[:4] == [("k0", 1.0), ("k1", 1.0), ("k2", 1.0), ("k3", 1.0)]
    for k in range(1, 10):
        found = db.similar("v", query, k=k, exact=True)
        assert [(hit.key, hit.score) for hit in found] == whole[:k]


class Odd(Mapping[str, Any]):
    """A filter that does not tell by its `repr` what it asks for."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def __getitem__(self, key: str) -> Any:
        return self.fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __repr__(self) -> str:
        return "Odd"


class OddText(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "OddText"


def test_a_filter_is_what_it_holds_and_not_what_it_is_called(db: Database) -> None:
    db.embed_many("v", [("a", [1.0, 0.0], {"c": "red"}), ("b", [1.0, 0.1], {"c": "blue"})])
    for colour, key in (("red", "a"), ("blue", "b"), ("red", "a")):
        for given in (Odd(c=colour), {"c": OddText(colour)}, {"c": {"$in": [OddText(colour)]}}):
            assert [hit.key for hit in db.similar("v", [1.0, 0.0], filter=given)] == [key]
    changing = Odd(c="red")
    assert [hit.key for hit in db.similar("v", [1.0, 0.0], filter=changing)] == ["a"]
    changing.fields["c"] = "blue"
    assert [hit.key for hit in db.similar("v", [1.0, 0.0], filter=changing)] == ["b"]


def test_numbers_of_numpy_are_numbers(db: Database) -> None:
    vectors = np.random.default_rng(62).standard_normal((3000, 16)).astype(np.float32)
    db.embed_many("v", [(f"k{n:04}", vector) for n, vector in enumerate(vectors)])
    whole = check_exact(db, "v", "cosine", vectors[0])
    for kind in (np.int8, np.uint8, np.int16, np.uint64):
        assert db.similar("v", vectors[0], k=kind(100), exact=True) == whole[:100]
    assert len(db.similar("v", vectors[0], k=np.int16(1100), exact=True)) == 1100
    found = db.similar("v", vectors[0], k=3000, recall=np.float32(1.0), threshold=np.float64(0.5))
    assert found == [hit for hit in whole if hit.score >= 0.5]
    with pytest.raises(InvalidDataError, match="single number"):
        db.similar_many("v", np.array(1.0))
    with pytest.raises(InvalidDataError, match="masked"):
        db.similar("v", np.ma.masked_array(vectors[0], mask=vectors[0] > 0))
    for masked in (
        [np.ma.masked_array(vectors[0], mask=vectors[0] > 0)],
        np.ma.masked_array(vectors[:2], mask=vectors[:2] > 0),
    ):
        with pytest.raises(InvalidDataError, match="masked"):
            db.similar_many("v", masked)

    class Unreadable:
        def __array__(self, *_args: object, **_options: object) -> np.ndarray:
            raise ValueError("no array of this")

    with pytest.raises(InvalidDataError, match="no array of this"):
        db.similar_many("v", Unreadable())
    with pytest.raises(koru_delta.errors.QueryError, match="threshold"):
        db.similar("v", vectors[0], threshold=True)
    with pytest.raises(koru_delta.errors.DimensionMismatchError):
        db.similar("v", [1.0, 2.0], k=0)


class Tensor:
    """What is no array and no list, and says what it holds as an array, as tensors do."""

    def __init__(self, held: np.ndarray) -> None:
        self._held = held

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._held


def test_a_tensor_is_a_query_or_several(db: Database) -> None:
    vectors = np.random.default_rng(63).standard_normal((50, 8)).astype(np.float32)
    db.embed_many("v", [(f"k{n:02}", Tensor(vector)) for n, vector in enumerate(vectors)])
    right = db.similar_many("v", vectors[:3], k=5)
    assert [each[0].key for each in right] == ["k00", "k01", "k02"]
    assert db.similar("v", Tensor(vectors[2]), k=5) == right[2]
    assert db.similar_many("v", Tensor(vectors[:3]), k=5) == right
    assert db.similar_many("v", Tensor(vectors[:0]), k=5) == []
    for wrong, why in ((iter(vectors), "not"), (Tensor(vectors[0]), "one vector in a list")):
        with pytest.raises(InvalidDataError, match=why):
            db.similar_many("v", wrong)


def test_a_write_between_searches_is_taken_up_by_the_writer_and_one_of_many_is_not():
    """So the search after it has nothing to read; who only writes does not read either."""
    with koru_delta.open() as db:
        db.embed("v", "a", [1.0, 0.0])
        db.similar("v", [1.0, 0.0])
        [space] = db._vectors.opened()
        written = db.embed("v", "b", [0.0, 1.0])
        assert space.reading.seq == written.seq
        db.embed("v", "c", [1.0, 1.0])
        db.delete("v", "a")
        assert space.reading.seq == written.seq
        assert [hit.key for hit in db.similar("v", [1.0, 0.0])] == ["c", "b"]
        gone = db.delete("v", "c")
        assert space.reading.seq == gone.seq
        assert [hit.key for hit in db.similar("v", [1.0, 0.0])] == ["b"]


def test_a_writer_does_not_read_the_much_that_another_has_written(tmp_path, monkeypatch):
    monkeypatch.setattr(readings, "_FEW_ENTRIES", 20)
    with koru_delta.open(tmp_path / "db") as db, koru_delta.open(tmp_path / "db") as other:
        db.embed("v", "a", [1.0, 0.0])
        for rows in (19, 20):
            db.similar("v", [1.0, 0.0])
            [space] = db._vectors.opened()
            known = space.reading.seq
            other.embed_many("v", [(f"k{n}", [1.0, n]) for n in range(rows)])
            written = db.embed("v", "b", [0.0, 1.0])
            assert space.reading.seq == (written.seq if rows == 19 else known)
            assert len(db.similar("v", [1.0, 0.0], k=50)) == rows + 2


def test_a_writer_does_not_wait_for_another_thread_that_reads_the_log(monkeypatch):
    with koru_delta.open() as db, ThreadPoolExecutor(1) as pool:
        db.embed("v", "a", [1.0, 0.0])
        db.similar("v", [1.0, 0.0])
        [space] = db._vectors.opened()
        read, pending = type(space).vectors_of, ["c"]

        def slowly(self: Any, objects: Any) -> Any:
            if pending:
                pool.submit(db.embed, "v", pending.pop(), [1.0, 1.0]).result(timeout=60)
            return read(self, objects)

        monkeypatch.setattr(type(space), "vectors_of", slowly)
        db.embed("v", "b", [0.0, 1.0])
        assert not pending
        assert [hit.key for hit in db.similar("v", [0.0, 1.0])] == ["b", "c", "a"]


def test_a_write_while_its_thread_reads_the_log_is_found_once(monkeypatch):
    """As of a signal handler, or of what ends when memory is collected."""
    with koru_delta.open() as db:
        db.embed_many("v", [("a", [1.0, 0.0]), ("b", [1.0, 1.0])])
        db.similar("v", [1.0, 0.0])
        [space] = db._vectors.opened()
        read, pending = type(space).vectors_of, ["c"]

        def interrupted(self: Any, objects: Any) -> Any:
            if pending:
                db.embed("v", pending.pop(), [0.5, 1.0])
            return read(self, objects)

        monkeypatch.setattr(type(space), "vectors_of", interrupted)
        db.embed("v", "d", [0.0, 1.0])
        assert not pending
        assert [hit.key for hit in db.similar("v", [0.0, 1.0])] == ["d", "c", "b", "a"]
        check_exact(db, "v", "cosine", np.array([0.3, 1.0], dtype=np.float32))
        assert space.reading.seen.count == 4


@pytest.mark.parametrize("error", [CorruptionError("it does not match"), MemoryError("it is full")])
def test_a_write_is_made_though_what_it_is_taken_up_into_fails(monkeypatch, caplog, error):
    with koru_delta.open() as db:
        db.embed("v", "a", [1.0, 0.0])
        db.similar("v", [1.0, 0.0])
        [space] = db._vectors.opened()

        def fails() -> None:
            raise error

        with monkeypatch.context() as patch, caplog.at_level("INFO", logger="koru_delta"):
            patch.setattr(space, "_catch_up", fails)
            db.embed("v", "b", [0.0, 1.0])
        assert str(error) in caplog.text
        assert [hit.key for hit in db.similar("v", [0.0, 1.0])] == ["b", "a"]


def test_a_value_erased_while_it_is_searched_is_gone_from_the_next_search():
    with koru_delta.open() as db:
        first = db.embed("v", "a", [1.0, 0.0])
        db.embed("v", "b", [0.0, 1.0])
        assert [hit.key for hit in db.similar("v", [1.0, 0.0])] == ["a", "b"]
        db.erase(first)
        assert [hit.key for hit in db.similar("v", [1.0, 0.0])] == ["b"]
