"""A budget of memory: what is near and what is in files changes no answer, only its cost."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import koru_delta
from koru_delta.errors import InvalidDataError
from koru_delta.search import cache, codes, graph, nearest, upkeep
from koru_delta.search.budget import Need, allot, code_bytes, graph_bytes, page_bytes
from koru_delta.testing import FixedClock
from tests.indexing import SMALL, lower
from tests.search.test_plans import forced, rows_of

DIMENSIONS = 32
ROWS = 420
PAGES = page_bytes(0)
QUERIES = rows_of(np.random.default_rng(21), 4, DIMENSIONS)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some dozen rows have every kind of file, made when they are asked for."""
    lower(SMALL, monkeypatch.setattr)
    monkeypatch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two segments, of which the older is mostly past, and a tail."""
    with pytest.MonkeyPatch.context() as patch:
        lower(SMALL, patch.setattr)
        patch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)
        path = tmp_path_factory.mktemp("made") / "db"
        vectors = rows_of(np.random.default_rng(22), ROWS, DIMENSIONS)
        items = [(f"k{n:03}", vector, {"n": n % 3}) for n, vector in enumerate(vectors)]
        with koru_delta.open(path, durability="relaxed") as db:
            db.embed_many("v", items[:300])
            db.build_index()
            db.delete_many("v", [f"k{n:03}" for n in range(0, 300, 2)])
            db.embed_many("v", items[300:400])
            db.build_index()
            db.embed_many("v", items[400:])
        yield path


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "db")
    return tmp_path / "db"


def tiers(db: koru_delta.Database) -> dict[str, int]:
    [space] = db.stats(spaces=True)["vector_spaces"]
    found: dict[str, int] = space["tiers"]
    return found


def exact(db: koru_delta.Database) -> list[koru_delta.Matches]:
    """Now, under a filter, and as of a moment before the deletions."""
    return [
        db.similar("v", query, k=50, exact=True, filter=where, as_of=moment).load()
        for query in QUERIES
        for where in (None, {"n": 1})
        for moment in (None, 300)
    ]


BUDGETS = [None, *(PAGES + each for each in (1_000_000, 150_000, 110_000, 102_000, 80_000)), 0]


def test_every_budget_gives_the_same_exact_answers(copy: Path) -> None:
    answers, places = [], []
    for budget in BUDGETS:
        with koru_delta.open(copy, vector_memory=budget) as db:
            db.build_index()
            answers.append(exact(db))
            places.append(tiers(db))
    assert all(each == answers[0] for each in answers)
    assert places[0] == places[1] == {"hot": ROWS, "warm": 0, "cold": 0}
    assert places[-1]["hot"] == places[-1]["warm"] == 0
    assert any(place["warm"] for place in places)


@pytest.mark.parametrize("budget", BUDGETS)
def test_what_an_approximate_search_finds_has_its_exact_score(
    copy: Path, budget: int | None
) -> None:
    with koru_delta.open(copy, vector_memory=budget) as db:
        db.build_index()
        for query in QUERIES:
            right = {m.key: m.score for m in db.similar("v", query, k=ROWS, exact=True)}
            found = db.similar("v", query, k=10)
            scores = [match.score for match in found]
            assert len(found) == 10
            assert {match.key: match.score for match in found}.items() <= right.items()
            assert scores == sorted(scores, reverse=True)


def test_a_budget_is_kept_by_later_opens_and_given_up_by_others(copy: Path) -> None:
    with koru_delta.open(copy, vector_memory=0) as db:
        db.build_index()
        right = exact(db)
    assert list(copy.glob("index/*/signs-*.kdx"))
    with koru_delta.open(copy, vector_memory=0, read_only=True) as db:
        db.build_index()
        assert tiers(db)["cold"] == ROWS
        assert exact(db) == right
    with koru_delta.open(copy) as db:
        db.build_index()
        assert tiers(db)["hot"] == ROWS
        assert exact(db) == right


@pytest.mark.parametrize("harm", ["cut", "flip", "delete", "of others"])
def test_codes_in_files_are_never_believed_blindly(copy: Path, harm: str) -> None:
    with koru_delta.open(copy, vector_memory=0) as db:
        db.build_index()
        right = exact(db)
        files = sorted(copy.glob("index/*/signs-*.kdx"))
        before = [file.read_bytes() for file in files]
        for file in files:
            data = bytearray(file.read_bytes())
            if harm == "cut":
                file.write_bytes(data[: len(data) // 2])
            elif harm == "flip":
                data[-40] ^= 1
                file.write_bytes(data)
            elif harm == "delete":
                file.unlink()
            else:
                file.write_bytes(sorted(copy.glob("index/*/vectors-*.kdx"))[0].read_bytes())
        assert exact(db) == right
        for query in QUERIES:
            best = db.similar("v", query, k=10, exact=True)
            known = {m.key: m.score for m in db.similar("v", query, k=ROWS, exact=True)}
            assert db.similar("v", query, k=10, recall=0.99) == best
            with forced(db, "codes"):
                for _ in files:  # each finds out about one of them
                    found = db.similar("v", query, k=10, recall=0.9)
                    assert {m.key: m.score for m in found}.items() <= known.items()
        if harm != "delete":  # what is open can still be read
            db.build_index()
            assert [file.read_bytes() for file in files] == before
            assert tiers(db)["cold"] == ROWS
    with koru_delta.open(copy, vector_memory=0) as db:
        db.build_index()
        assert exact(db) == right


def test_vectors_in_files_are_read_from_the_log_when_their_file_goes_bad(copy: Path) -> None:
    with koru_delta.open(copy, vector_memory=0) as db:
        db.build_index()
        right = exact(db)
    for file in copy.glob("index/*/vectors-*.kdx"):
        data = bytearray(file.read_bytes())
        data[5000] ^= 1
        file.write_bytes(data)
    with koru_delta.open(copy, vector_memory=0) as db:
        assert exact(db) == right


@pytest.mark.parametrize("budget", [PAGES + 150_000, 0])
@pytest.mark.parametrize("harm", ["cut", "flip", "delete", "of zeros"])
def test_files_that_go_bad_while_open_change_no_answer(copy: Path, budget: int, harm: str) -> None:
    with koru_delta.open(copy, vector_memory=budget) as db:
        db.build_index()
        right = exact(db)
        for file in sorted(copy.glob("index/*/*")):
            size = file.stat().st_size
            if harm == "cut":
                os.truncate(file, size // 2)
            elif harm == "delete":
                file.unlink()
            else:
                with file.open("r+b") as opened:
                    opened.seek(size // 2)
                    opened.write(bytes(100) if harm == "of zeros" else b"\x81")
        for _ in range(2):
            assert exact(db) == right
            for query in QUERIES:
                known = {m.key: m.score for m in db.similar("v", query, k=ROWS, exact=True)}
                for way in ("codes", "graph", "scan", "gather"):
                    with forced(db, way):
                        found = db.similar("v", query, k=10, recall=0.9)
                        many = db.similar_many("v", QUERIES, k=10, recall=0.9)
                    for each in (found, many[-1]):
                        assert len(each) == 10
                    assert {m.key: m.score for m in found}.items() <= known.items()
            db.build_index()
    with koru_delta.open(copy, vector_memory=budget) as db:
        assert exact(db) == right
        db.build_index()
        assert exact(db) == right


def test_what_is_sealed_under_a_budget_goes_to_a_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never all in memory, and who opens the database next finds it there."""
    publish, held = nearest.VectorSpace.publish, []

    def published(space: Any, old: Any, new: Any) -> bool:
        held.append(new.held is not None)
        return publish(space, old, new)

    monkeypatch.setattr(nearest.VectorSpace, "publish", published)
    vectors = rows_of(np.random.default_rng(35), 300, DIMENSIONS)
    names = []
    with koru_delta.open(tmp_path / "db", vector_memory=0, durability="relaxed") as db:
        for start in range(0, 300, 60):  # merged with what was there before
            db.embed_many("v", [(f"k{n}", vectors[n]) for n in range(start, start + 60)])
            db.build_index()
            names.append(sorted(file.name for file in tmp_path.glob("db/index/*/vectors-*.kdx")))
        right = exact(db)
    assert len({tuple(each) for each in names}) == 5
    assert held
    assert not any(held)
    assert names[-1] == sorted(file.name for file in tmp_path.glob("db/index/*/vectors-*.kdx"))
    with koru_delta.open(tmp_path / "db", vector_memory=0) as db:
        db.build_index()
        assert tiers(db) == {"hot": 0, "warm": 0, "cold": 300}
        assert [db.similar("v", v, k=1)[0].score for v in vectors] == [1.0] * 300
    with koru_delta.open(tmp_path / "db") as db:
        assert exact(db) == right


def test_what_stays_in_memory_while_another_writes_files_goes_to_one_later(tmp_path: Path) -> None:
    vectors = rows_of(np.random.default_rng(36), 100, DIMENSIONS)
    with koru_delta.open(tmp_path / "db", vector_memory=0, durability="relaxed") as db:
        db.embed_many("v", [(f"k{n}", vector) for n, vector in enumerate(vectors)])
        with cache.writing(tmp_path / "db" / "index" / "1") as mine:
            assert mine
            db.build_index()
            assert tiers(db)["hot"] == 100
        [space], upkeep = db._vectors.opened(), db._vectors.upkeep
        assert upkeep._wants(space)  # so it is looked at again with the next write
        upkeep.work(space)
        assert tiers(db)["cold"] == 100
        assert not upkeep._wants(space)


def test_an_erasure_removes_codes_in_files_too(copy: Path) -> None:
    with koru_delta.open(copy, vector_memory=0) as db:
        db.build_index()
        assert list(copy.glob("index/*/signs-*.kdx"))
        db.erase(db.version("v", "k001"))
        assert not list(copy.glob("index/*/signs-*.kdx"))
        assert "k001" not in {m.key for m in db.similar("v", QUERIES[0], k=ROWS)}


def test_a_database_in_memory_takes_what_it_needs() -> None:
    with koru_delta.open(None, vector_memory=0) as db:
        db.embed_many("v", [(str(n), row) for n, row in enumerate(rows_of(
            np.random.default_rng(1), 100, DIMENSIONS))])  # fmt: skip
        db.build_index()
        assert tiers(db) == {"hot": 100, "warm": 0, "cold": 0}


def told(db: koru_delta.Database) -> dict[str, int]:
    memory: dict[str, int] = db.stats(spaces=True)["vector_memory"]
    return memory


def test_what_is_held_is_told_and_the_least_that_can_be(copy: Path) -> None:
    """The less is given the less is held; at last nothing but the least."""
    held, memory = [], {}
    for budget in BUDGETS:
        with koru_delta.open(copy, vector_memory=budget) as db:
            db.build_index()
            memory = told(db)
            assert memory["budget_bytes"] == budget
            assert memory["least_bytes"] <= memory["held_bytes"]
            held.append(memory["held_bytes"])
    assert held == sorted(held, reverse=True)
    assert held[-1] == memory["least_bytes"]


def test_a_budget_below_the_least_is_told_once(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with koru_delta.open(copy) as db:
        least = told(db)["least_bytes"]
    for budget, times in ((least // 2, 1), (least + 200_000, 0), (0, 0)):
        caplog.clear()
        with koru_delta.open(copy, vector_memory=budget) as db:
            db.build_index()
            db.build_index()
            right = [r for r in caplog.records if r.levelname == "WARNING"]
            assert [f"vector_memory is {budget} bytes" in r.message for r in right] == [
                True
            ] * times


def test_vectors_in_memory_alone_are_all_of_the_least() -> None:
    with koru_delta.open(None, vector_memory=0) as db:
        db.embed_many("v", [(str(n), row) for n, row in enumerate(rows_of(
            np.random.default_rng(1), 100, DIMENSIONS))])  # fmt: skip
        db.build_index()
        assert told(db)["least_bytes"] == told(db)["held_bytes"] > PAGES + 100 * DIMENSIONS * 4


def lived(path: Path, budget: int | None) -> list[list[koru_delta.Matches]]:
    """What is found amid writes: new keys and vectors, old vectors again, things ended."""
    fresh = rows_of(np.random.default_rng(31), 120, DIMENSIONS)
    found = []
    clock = FixedClock(2**51)  # so that what is written is equal, too
    with koru_delta.open(path, vector_memory=budget, clock=clock) as db:
        db.build_index()
        old = db.vectors(db.version("v", "k001"))["default"]
        for number, vector in enumerate(fresh):
            db.embed("v", f"k{number + 300:03}" if number % 3 else f"n{number}", vector)
            assert db.similar("v", vector, k=1)[0].score == 1.0
            if number % 40 == 0:
                db.build_index()
                found.append(exact(db))
        db.embed("v", "again", old)
        db.delete("v", "k003")
        db.hide("v", "k005")
        db.build_index()
        db.unhide("v", "k005")
        db.hide("v", "k399")
        db.erase(db.version("v", "k007"))
        found.append(exact(db))
        db.build_index()
        found.append(exact(db))
    with koru_delta.open(path, vector_memory=budget) as db:
        found.append(exact(db))
    return found


@pytest.mark.parametrize("budget", [PAGES + 150_000, PAGES + 80_000, 0])
def test_writes_under_a_budget_are_found_as_without_one(copy: Path, budget: int) -> None:
    shutil.copytree(copy, copy.with_name("other"))
    assert lived(copy.with_name("other"), budget) == lived(copy, None)


def test_handles_with_unlike_budgets_share_one_directory(copy: Path) -> None:
    """Each makes files, and removes those that it does not need itself."""
    fresh = rows_of(np.random.default_rng(33), 240, DIMENSIONS)
    budgets = (None, 0, PAGES + 150_000)
    with contextlib.ExitStack() as stack:
        handles = [
            stack.enter_context(koru_delta.open(copy, vector_memory=budget, durability="relaxed"))
            for budget in budgets
        ]
        for turn in range(12):
            one = handles[turn % 3]
            one.embed_many("v", [
                (f"t{turn % 5}-{n}", fresh[20 * turn + n], {"n": n % 3}) for n in range(20)
            ])  # fmt: skip
            one.delete("v", f"t{turn % 5}-0")
            one.build_index()
            if turn == 7:
                one.erase(one.version("v", "k001"))
            right, *others = [exact(db) for db in handles]
            assert all(each == right for each in others)
            for db in handles:
                wholes = db.similar_many("v", QUERIES, k=ROWS * 2, exact=True)
                many = db.similar_many("v", QUERIES)
                for query, whole, one in zip(QUERIES, wholes, many, strict=True):
                    known = {match.key: match.score for match in whole}
                    for found in (db.similar("v", query), one):
                        assert len(found) == 10
                        assert {m.key: m.score for m in found}.items() <= known.items()


@pytest.mark.parametrize("way", ["codes", "scan", "graph"])
def test_threads_search_while_tiers_change_and_things_are_written(copy: Path, way: str) -> None:
    fresh = rows_of(np.random.default_rng(34), 300, DIMENSIONS)
    with koru_delta.open(copy, vector_memory=0, durability="relaxed") as db:
        db.build_index()
        then = db.stats()["seq"]
        right = [m.load() for m in db.similar_many("v", QUERIES, k=50, exact=True)]
        stop, wrong = threading.Event(), list[object]()

        def search() -> None:
            try:
                while not stop.is_set():
                    again = db.similar_many("v", QUERIES, k=50, exact=True, as_of=then)
                    assert again == right
                    for many in (db.similar_many("v", QUERIES, k=10, as_of=then),
                                 db.similar_many("v", QUERIES, k=10)):  # fmt: skip
                        assert [len(each) for each in many] == [10] * len(QUERIES)
            except BaseException as error:  # noqa: BLE001 - reported by the test
                wrong.append(error)

        threads = [threading.Thread(target=search) for _ in range(3)]
        with forced(db, way):
            for thread in threads:
                thread.start()
            for turn in range(10):
                db.embed_many("v", [(f"t{n}", fresh[30 * turn + n]) for n in range(30)])
                db._vectors.upkeep._memory._budget = (0, PAGES + 150_000)[turn % 2]
                db.build_index()
            stop.set()
            for thread in threads:
                thread.join()
        assert wrong == []


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "64 MiB", float("nan"), float("inf"), b"1"])
def test_a_budget_is_a_number_of_bytes(wrong: object) -> None:
    with pytest.raises(InvalidDataError, match="vector_memory is a number of bytes"):
        koru_delta.open(None, vector_memory=wrong)  # type: ignore[arg-type]


needs = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(1, 5000), st.integers(1, 1000), st.floats(0, 1)
    ),
    max_size=12,
)  # fmt: skip


@given(needs, st.integers(0, 20_000_000), st.integers(0, 2_000_000))
def test_what_is_shared_out_fits_and_nothing_is_nearer_than_its_turn(
    drawn: list[tuple[int, int, int, float]], budget: int, fixed: int
) -> None:
    ends: dict[int, int] = {}
    segments = []
    for space, rows, dimensions, share in drawn:
        start = ends.get(space, 0)
        ends[space] = start + rows
        segments.append(Need(space, start, start + rows, dimensions, share))
    live = {space: stop // 2 for space, stop in ends.items()}
    places = allot(budget, fixed, segments, live)
    taken = 0
    for need in segments:
        rows, tier = need.stop - need.start, places[need.space].tiers[need.start]
        taken += rows * code_bytes(need.dimensions) * (tier != "cold")
        taken += rows * need.dimensions * 4 * (tier == "hot")
    for space, place in places.items():
        widths = [need.dimensions for need in segments if need.space == space]
        taken += live[space] * graph_bytes(widths[-1]) * place.graph
        assert not (place.graph and "cold" in place.tiers.values())
    assert taken <= max(0, budget - fixed)
    if budget - fixed >= sum(
        (need.stop - need.start) * (code_bytes(need.dimensions) + 4 * need.dimensions)
        for need in segments
    ) + sum(live[need.space] * graph_bytes(need.dimensions) for need in segments):
        assert {tier for place in places.values() for tier in place.tiers.values()} <= {"hot"}


def test_only_what_is_installed_is_kept_near(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the libraries, codes are signs, and the tiers are the same."""
    monkeypatch.setattr(codes, "_turbovec", lambda: None)
    monkeypatch.setattr(graph, "available", lambda: False)
    with koru_delta.open(copy, vector_memory=0) as db:
        db.build_index()
        assert tiers(db)["cold"] == ROWS
        right = exact(db)
    with koru_delta.open(copy, vector_memory=PAGES + 1_000_000) as db:
        db.build_index()
        assert exact(db) == right
