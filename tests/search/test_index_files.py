"""Whatever happens to the files under `index/`, no exact answer changes and nothing is raised."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta.errors import StorageError
from koru_delta.search import cache, codes, files, graph, upkeep
from koru_delta.search.plan import Costs
from tests.indexing import SMALL, check_approximate, check_exact, lower
from tests.search.test_plans import WAYS, Metric, forced, hits, rows_of
from tests.test_fork import in_child

FLIPS = int(os.environ.get("KORU_FLIPS", "150"))
DIMENSIONS = 16
QUERIES = rows_of(np.random.default_rng(20), 3, DIMENSIONS)
MORE = np.random.default_rng(21)
NUDGE = upkeep.Upkeep.nudge


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Some dozen rows have every kind of file, made when they are asked for."""
    lower(SMALL, monkeypatch.setattr)
    monkeypatch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)
    return monkeypatch


def fill(path: Path, seed: int, metric: Metric = "cosine") -> Path:
    """Two segments at least, a tail, repeated vectors, deletions, a graph and costs."""
    vectors = rows_of(np.random.default_rng(seed), 220, DIMENSIONS)
    vectors[50:60] = vectors[0]
    items = [(f"k{n:03}", vector, {"n": n % 3}) for n, vector in enumerate(vectors)]
    with koru_delta.open(path, durability="relaxed") as db:
        db.embed_many("v", items[:120], metric=metric)
        db.build_index()
        db.delete_many("v", [f"k{n:03}" for n in range(0, 100, 7)])
        db.embed_many("v", items[120:200])
        db.build_index()
        db.embed_many("v", items[200:])
        (path / "index" / "costs.json").write_text(json.dumps(dataclasses.asdict(Costs(scan=0.07))))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        lower(SMALL, patch.setattr)
        patch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)
        yield fill(tmp_path_factory.mktemp("made") / "db", 1)


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        lower(SMALL, patch.setattr)
        patch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)
        yield fill(tmp_path_factory.mktemp("another") / "db", 2)


Answers = list[koru_delta.Matches]


@pytest.fixture(scope="module")
def answers(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What is right: read from the log alone."""
    path = tmp_path_factory.mktemp("bare") / "db"
    shutil.copytree(made, path)
    shutil.rmtree(path / "index")
    with koru_delta.open(path, read_only=True) as db:
        check_exact(db, "v", "cosine", QUERIES[0])
        return [db.similar("v", query, k=300, exact=True).load() for query in QUERIES]


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "db")
    return tmp_path / "db"


def check(db: koru_delta.Database, answers: Answers, ways: list[str] = WAYS) -> None:
    """Exact answers are the right ones; approximate ones keep their contract."""
    for query, right in zip(QUERIES, answers, strict=True):
        assert hits(db.similar("v", query, k=300, exact=True)) == hits(right)
        for way in ways:
            with forced(db, way):
                check_approximate(db.similar("v", query, k=6), right, 6, way)
    for way in ways:
        with forced(db, way):
            for found, right in zip(db.similar_many("v", QUERIES, k=3), answers, strict=True):
                check_approximate(found, right, 3, way)


def names(path: Path) -> list[str]:
    """Every kind of file there is, without the numbers in the names."""
    found = {file.name.split("-")[0] for file in (path / "index").rglob("*") if file.is_file()}
    return sorted(found)


def some(path: Path, name: str) -> list[Path]:
    found = sorted(file for file in (path / "index").rglob(f"{name}*") if file.is_file())
    assert found, name
    return found


def in_use(db: koru_delta.Database) -> dict[str, Any]:
    (space,) = db.stats()["vector_spaces"]
    return {
        "mapped": space["bytes"]["mapped"] > 0, "segments": space["segments"] > 0,
        "graph": space["in_graph"] > 0,
    }  # fmt: skip


def cut(file: Path, size: int) -> None:
    with file.open("r+b") as stream:
        stream.truncate(size)


def flip(file: Path, place: int, mask: int) -> None:
    """Change one byte in its place, as a disk or another program would."""
    with file.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte[0] ^ mask]))


def scribble(file: Path) -> None:
    data = random.Random(3).randbytes(file.stat().st_size)
    with file.open("r+b") as stream:
        stream.write(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "deleted": lambda file: file.unlink(),
    "emptied": lambda file: cut(file, 0),
    "cut in half": lambda file: cut(file, file.stat().st_size // 2),
    "one byte short": lambda file: cut(file, max(0, file.stat().st_size - 1)),
    "longer": lambda file: cut(file, file.stat().st_size + 4096),
    "random bytes": scribble,
    "first byte": lambda file: flip(file, 0, 255) if file.stat().st_size else None,
    "last byte": lambda file: flip(file, file.stat().st_size - 1, 1)
    if file.stat().st_size else None,
    "a folder": lambda file: (file.unlink(), file.mkdir())[0],
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file))[0],
    "unreadable link": lambda file: (file.unlink(), file.symlink_to("nowhere"))[0],
}  # fmt: skip
KINDS = ["costs.json", "lock", "state", "text", "vectors",
         *(["graph.hnsw", "graph.kdx"] if graph.available() else [])]  # fmt: skip


def test_there_are_files_of_every_kind_and_the_next_handle_takes_them(copy, answers):
    assert names(copy) == sorted(KINDS)
    assert len(some(copy, "vectors")) >= 2
    for read_only in (False, True):
        with koru_delta.open(copy, durability="relaxed", read_only=read_only) as db:
            db.similar("v", QUERIES[0])
            assert in_use(db)["mapped"]
            db.build_index()
            assert in_use(db)["graph"] == graph.available()
            check(db, answers)


def build(db: koru_delta.Database, damage: str) -> None:
    """Build the index; a folder in the place of a file is told of, and let be."""
    with contextlib.suppress(StorageError) if damage == "a folder" else contextlib.nullcontext():
        db.build_index()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_was_damaged_before_opening_changes_no_answer(copy, answers, kind, damage):
    for file in some(copy, kind):
        DAMAGES[damage](file)
        with koru_delta.open(copy, read_only=True) as db:
            check(db, answers, ["codes"])
            build(db, damage)
            check(db, answers)
    with koru_delta.open(copy, durability="relaxed") as db:
        check(db, answers, ["codes"])
        build(db, damage)
        check(db, answers)
        build(db, damage)
    with koru_delta.open(copy, durability="relaxed") as db:
        check(db, answers, ["codes", "scan"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_damaged_while_it_is_open_changes_no_answer(copy, answers, kind, damage):
    def child() -> None:  # which reading behind the end of a mapped file would end
        with koru_delta.open(copy, durability="relaxed") as db:
            db.similar("v", QUERIES[0])
            build(db, damage)
            for file in some(copy, kind):
                DAMAGES[damage](file)
                check(db, answers)
            build(db, damage)
            check(db, answers)
            db.embed("v", "after", QUERIES[0])
            assert db.similar("v", QUERIES[0], k=1)[0].key == "after"
            build(db, damage)
            check_exact(db, "v", "cosine", QUERIES[1])
        with koru_delta.open(copy, read_only=True) as db:
            check_exact(db, "v", "cosine", QUERIES[1])

    in_child(child)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lock"])
def test_a_flipped_bit_anywhere_changes_no_answer(copy, answers, kind):
    chance = random.Random(kind)
    file = some(copy, kind)[0]
    size = file.stat().st_size
    # The head, the description and the digests lie at the beginning.
    places = {*range(0, min(size, 56), 3), *(chance.randrange(size) for _ in range(FLIPS // 10))}
    places |= {chance.randrange(min(size, 4096)) for _ in range(FLIPS // 10)}
    for place in sorted(places):
        mask = 1 << chance.randrange(8)
        flip(file, place, mask)
        with koru_delta.open(copy, read_only=True) as db:
            if kind.startswith("graph"):
                db.build_index()
            for query, right in zip(QUERIES[:2], answers, strict=False):
                assert hits(db.similar("v", query, k=300, exact=True)) == hits(right), place
                check_approximate(db.similar("v", query, k=6), right, 6, place)
                if kind.startswith("graph"):
                    with forced(db, "graph"):
                        check_approximate(db.similar("v", query, k=6), right, 6, place)
        flip(file, place, mask)
    with koru_delta.open(copy, read_only=True) as db:
        db.similar("v", QUERIES[0])
        assert in_use(db)["mapped"]  # it was put right again


def test_a_bit_that_flips_while_the_file_is_mapped_is_noticed(copy, answers):
    chance = random.Random(4)

    def child() -> None:
        for file in some(copy, "vectors"):
            with koru_delta.open(copy, read_only=True) as db:
                check(db, answers, ["scan", "codes"])
                assert in_use(db)["mapped"]
                before = db.stats()["vector_spaces"][0]["bytes"]["mapped"]
                size = file.stat().st_size
                for _ in range(6):
                    flip(file, chance.randrange(size - 2000, size), 1 << chance.randrange(8))
                    check(db, answers, ["gather", "scan", "codes"])
                assert db.stats()["vector_spaces"][0]["bytes"]["mapped"] <= before

    in_child(child)


@pytest.mark.parametrize("kind", [*KINDS, "everything"])
def test_files_of_another_database_are_not_taken(copy, another, answers, kind):
    for file in some(copy, "" if kind == "everything" else kind):
        place = file.relative_to(copy)
        if not (another / place).exists():  # its numbers differ
            place = some(another, file.name.split("-")[0])[0].relative_to(another)
        shutil.copy(another / place, file)
    if kind == "everything":
        shutil.rmtree(copy / "index")
        shutil.copytree(another / "index", copy / "index")
    for read_only in (True, False):
        with koru_delta.open(copy, durability="relaxed", read_only=read_only) as db:
            check(db, answers, ["codes"])
            db.build_index()
            check(db, answers)


def test_files_of_a_log_that_went_another_way_from_there_are_not_taken(copy, tmp_path):
    shutil.copytree(copy, tmp_path / "other")
    for path, key in ((copy, "one"), (tmp_path / "other", "another")):
        with koru_delta.open(path, durability="relaxed") as db:
            vectors = rows_of(np.random.default_rng(len(key)), 70, DIMENSIONS)
            db.embed_many("v", [(f"{key}{n}", vector) for n, vector in enumerate(vectors)])
            db.build_index()
    shutil.rmtree(copy / "index")
    shutil.copytree(tmp_path / "other" / "index", copy / "index")
    with koru_delta.open(copy, durability="relaxed") as db:
        check_exact(db, "v", "cosine", QUERIES[0])
        assert not in_use(db)["mapped"]
        db.build_index()
        check_exact(db, "v", "cosine", QUERIES[1])


def test_files_of_a_longer_log_are_not_taken(copy, tmp_path):
    shutil.copytree(copy, tmp_path / "longer")
    with koru_delta.open(tmp_path / "longer", durability="relaxed") as db:
        db.embed_many("v", [(f"n{n}", query) for n, query in enumerate(QUERIES)])
        db.build_index()
    shutil.rmtree(copy / "index")
    shutil.copytree(tmp_path / "longer" / "index", copy / "index")
    with koru_delta.open(copy, read_only=True) as db:
        check_exact(db, "v", "cosine", QUERIES[0])


@pytest.mark.parametrize("newer", ["format", "magic", "both"])
def test_files_of_a_newer_format_are_left_alone_and_made_anew(tmp_path, small, newer):
    with pytest.MonkeyPatch.context() as patch:
        if newer != "magic":
            patch.setattr(files, "FORMAT", files.FORMAT + 1)
        if newer != "format":
            patch.setattr(cache, "_MAGIC", b"KDINDEX2")
        path = fill(tmp_path / "db", 1)
    for read_only in (True, False, False):
        with koru_delta.open(path, durability="relaxed", read_only=read_only) as db:
            right = check_exact(db, "v", "cosine", QUERIES[0])
            db.build_index()
            for way in WAYS:
                with forced(db, way):
                    check_approximate(db.similar("v", QUERIES[0], k=6), right, 6)
    with koru_delta.open(path, read_only=True) as db:
        check_exact(db, "v", "cosine", QUERIES[0])
        assert in_use(db)["mapped"]


def test_codes_of_another_kind_are_taken_or_made_anew(tmp_path, small):
    for kind in ("signs", codes.best_kind(), "signs"):
        small.setattr(codes, "best_kind", lambda kind=kind: kind)
        with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
            vectors = rows_of(np.random.default_rng(1), 150, DIMENSIONS)
            if not db.count("v"):
                db.embed_many("v", [(f"k{n:03}", v) for n, v in enumerate(vectors)])
            db.similar("v", QUERIES[0])
            db.build_index()
            assert db.stats()["vector_spaces"][0]["codes"] == [kind]
            right = check_exact(db, "v", "cosine", QUERIES[0])
            with forced(db, "codes"):
                check_approximate(db.similar("v", QUERIES[0], k=6), right, 6)


def test_damage_that_is_found_while_codes_are_made_anew_is_no_error(copy, small, answers):
    small.setattr(codes, "best_kind", lambda: "signs")
    encode = codes.encode

    def child() -> None:
        with koru_delta.open(copy, durability="relaxed") as db:

            def while_it_is_damaged(vectors: Any, metric: str) -> Any:
                for file in some(copy, "vectors") * (len(vectors) == 100):  # not for the tail
                    flip(file, 4096 + 100, 255)  # among the vectors, which come first
                db.similar("v", QUERIES[0], exact=True)  # reads it from the log again
                return encode(vectors, metric, kind="signs")

            codes.encode = while_it_is_damaged
            check(db, answers, [])
            db.build_index()
            check(db, answers)
            assert db.stats()["vector_spaces"][0]["codes"] == ["signs"]
            with forced(db, "codes"):
                assert db.similar("v", QUERIES[0], k=6).plan == "codes"

    in_child(child)


def test_damage_that_is_found_while_filters_are_given_codes_is_no_error(copy, answers, caplog):
    with koru_delta.open(copy, durability="relaxed") as db:
        db.similar("v", QUERIES[0])
        db.build_index()
        with forced(db, "codes"):
            for n in (0, 1, 0, 1, 0, 1):
                db.similar("v", QUERIES[0], k=6, filter={"n": n})
            [space] = db._vectors.opened()
            assert len(space.to_code) == 2
            for file in some(copy, "vectors"):
                flip(file, 4096 + 100, 255)  # among the vectors, which come first
            db.build_index()
            assert sum(kept.coded is not None for kept in space._masks.values()) == 2
            check(db, answers)
            for n in (0, 1):
                right = db.similar("v", QUERIES[0], k=300, filter={"n": n}, exact=True)
                check_approximate(db.similar("v", QUERIES[0], k=6, filter={"n": n}), right, 6)
        sealed = db.stats()["vector_spaces"][0]["in_tail"]
        db.embed_many("v", [(f"x{n}", row) for n, row in enumerate(rows_of(MORE, 50, DIMENSIONS))])
        db.build_index()
        assert db.stats()["vector_spaces"][0]["in_tail"] <= sealed
    assert "until the database is opened again" not in caplog.text


def test_what_was_made_of_a_file_that_has_gone_bad_since_is_not_put_in_its_place(copy, answers):
    with koru_delta.open(copy, durability="relaxed") as db:
        db.similar("v", QUERIES[0])
        (space,) = db._vectors.opened()
        before = space.reading.truth.segments
        for file in some(copy, "vectors"):
            flip(file, 4096 + 100, 255)
        check(db, answers, [])
        assert not space.publish(before[:1], dataclasses.replace(before[0], uncoded=False))
        check(db, answers)


def test_a_read_only_handle_takes_the_files_and_writes_none(copy, answers):
    before = {
        file: (file.stat().st_mtime_ns, file.stat().st_ino, file.read_bytes())
        for file in (copy / "index").rglob("*") if file.is_file()
    }  # fmt: skip
    with koru_delta.open(copy, read_only=True) as db:
        check(db, answers)
        db.build_index()
        check(db, answers)
        assert in_use(db)["mapped"]
    after = {
        file: (file.stat().st_mtime_ns, file.stat().st_ino, file.read_bytes())
        for file in (copy / "index").rglob("*") if file.is_file()
    }  # fmt: skip
    assert after == before


def test_a_read_only_handle_makes_no_folder_for_files(tmp_path):
    with koru_delta.open(tmp_path / "db") as db:
        vectors = rows_of(np.random.default_rng(1), 39, DIMENSIONS)
        db.embed_many("v", [(f"k{n}", vector) for n, vector in enumerate(vectors)])
    assert not list(tmp_path.rglob("*.kdx"))
    with koru_delta.open(tmp_path / "db", read_only=True) as db:
        db.similar("v", QUERIES[0])
        db.build_index()
        check_exact(db, "v", "cosine", QUERIES[0])
    assert not list(tmp_path.rglob("*.kdx"))


def with_no_folder(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Put a file in the place of the folder, and listen to what is said of it."""
    shutil.rmtree(copy / "index")
    (copy / "index").write_text("no folder")
    caplog.set_level(logging.WARNING, "koru_delta")


def test_a_folder_that_cannot_be_written_costs_files_and_no_answer(copy, answers, caplog):
    with_no_folder(copy, caplog)
    with koru_delta.open(copy, durability="relaxed") as db:
        check(db, answers)
        with pytest.raises(StorageError, match="made and in use here, but cannot be kept in files"):
            db.build_index()
        check(db, answers)
        with pytest.raises(StorageError, match=r"cannot be kept in .*costs\.json"):
            db.tune()
        check(db, answers)
    assert (copy / "index").read_text() == "no folder"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(set(told)) > 0


@pytest.mark.parametrize("when", ["asked", "closed", "later"])
def test_files_are_written_once_they_can_be(copy, answers, caplog, monkeypatch, when):
    with_no_folder(copy, caplog)
    with koru_delta.open(copy, durability="relaxed") as db:
        check(db, answers)
        with pytest.raises(StorageError):
            db.build_index()
        (copy / "index").unlink()
        if when == "asked":
            db.build_index()
            assert some(copy, "vectors")
            assert some(copy, "state")
        elif when == "later":
            [space] = db._vectors.opened()
            db._vectors.upkeep.work(space)
            assert not (copy / "index").exists()  # too early
            monkeypatch.setattr(
                upkeep, "monotonic", lambda: time.monotonic() + upkeep.RETRY_SECONDS
            )
            NUDGE(db._vectors.upkeep, space)  # as whatever it reads of the log does
            while not list((copy / "index").glob("*/state*")):
                time.sleep(0.01)
            assert some(copy, "vectors")
    assert some(copy, "vectors")
    assert [record.getMessage() for record in caplog.records if "for now" in record.getMessage()]
    with koru_delta.open(copy, durability="relaxed") as db:
        check(db, answers)
        assert in_use(db)["mapped"]


def test_what_killed_processes_left_behind_is_removed(copy):
    (folder,) = {file.parent for file in some(copy, "state")}
    (folder / ".tmp-12345-vectors-0-100.kdx").write_bytes(b"half a file")
    (folder / "state-00000000000000000001.kdx").write_bytes(b"long ago")
    (folder / "vectors-7-9.kdx").write_bytes(b"long ago")
    with koru_delta.open(copy, durability="relaxed") as db:
        db.embed_many("v", [(f"n{n}", QUERIES[n % 3] * (n + 1)) for n in range(60)])
        db.build_index()
        assert not list(folder.glob(".tmp-*"))
        assert len(list(folder.glob("state-*"))) == 1
        assert not (folder / "vectors-7-9.kdx").exists()


def test_one_process_takes_what_another_made_while_both_are_open(copy, answers):
    def child() -> None:
        with koru_delta.open(copy, durability="relaxed") as db:
            check(db, answers, ["codes"])
            assert in_use(db)["mapped"]
            more = rows_of(np.random.default_rng(5), 300, DIMENSIONS)
            db.embed_many("v", [(f"n{n:03}", vector) for n, vector in enumerate(more)])
            db.build_index()

    with koru_delta.open(copy, durability="relaxed") as db:
        check(db, answers)
        in_child(child)
        check_exact(db, "v", "cosine", QUERIES[0])  # its files are replaced; it has them still
        assert db.count("v") == 505 - len(range(0, 100, 7)) + 15
        db.build_index()
        right = check_exact(db, "v", "cosine", QUERIES[0])
        for way in WAYS:
            with forced(db, way):
                check_approximate(db.similar("v", QUERIES[0], k=6), right, 6)
    with koru_delta.open(copy, durability="relaxed") as db:
        check_exact(db, "v", "cosine", QUERIES[0])
        assert in_use(db)["mapped"]


@pytest.mark.skipif(not graph.available(), reason="hnswlib is not installed")
def test_a_graph_that_is_newer_than_the_rest_is_taken_by_the_next_handle(copy, monkeypatch):
    with koru_delta.open(copy, durability="relaxed") as db:
        db.similar("v", QUERIES[0])
        state = {file.name for file in some(copy, "state")}
        db.embed_many("v", [(f"n{n}", query) for n, query in enumerate(QUERIES)])
        monkeypatch.setattr(upkeep.Upkeep, "_save", lambda *_: None)  # as if killed before it
        db.build_index()
    assert {file.name for file in some(copy, "state")} == state

    def feed(*_: Any, **__: Any) -> None:
        raise AssertionError("it was made anew")

    monkeypatch.setattr(graph.LiveGraph, "__init__", feed)
    with koru_delta.open(copy, durability="relaxed") as db:
        db._vectors.open(db._vectors.known("v", db._log.now())[0])  # nothing has read the log yet
        for space in db._vectors.opened():
            db._vectors.upkeep.work(space)
        assert in_use(db)["graph"]
        check_exact(db, "v", "cosine", QUERIES[0])


@pytest.mark.parametrize("rows", [0, 1, 700, 3000])
@pytest.mark.parametrize("at_once", [1, 99, 2048, 3000])
def test_rows_written_in_parts_make_the_file_that_they_make_together(tmp_path, rows, at_once):
    vectors = np.random.default_rng(1).standard_normal((rows, 97)).astype(np.float32)
    parts = cache.Parts(
        vectors.shape, lambda: (vectors[n : n + at_once] for n in range(0, rows, at_once))
    )

    names = [
        cache.write(tmp_path / str(number), {"of": "rows"}, {"a": given, "b": b"more"})
        for number, given in enumerate((vectors, parts))
    ]

    assert names[0] == names[1]
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    assert np.array_equal(cache.CacheFile(tmp_path / "1").array("a"), vectors)
