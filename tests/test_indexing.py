"""What makes indexes in the background: it may be killed, closed, fail, or be missing parts."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta.search import codes, graph, graphs, upkeep
from tests.indexing import SMALL, check_approximate, check_exact, lower
from tests.worker import ROOT

DIMENSIONS = 16
VECTORS = np.random.default_rng(30).standard_normal((400, DIMENSIONS), dtype=np.float32)
ITEMS = [(f"k{n:03}", vector, {"n": n}) for n, vector in enumerate(VECTORS)]
needs_graph = pytest.mark.skipif(not graph.available(), reason="hnswlib is not installed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_killed_while_it_makes_indexes_leaves_nothing_wrong() -> None:
    # In a process of its own: the builders are forks, and should inherit nothing from here.
    found = subprocess.run(
        [sys.executable, "-m", "tests.indexing", "--kills", "8"],
        cwd=ROOT, capture_output=True, text=True, timeout=250,
    )  # fmt: skip

    assert found.returncode == 0, found.stdout + found.stderr
    assert "8 kills" in found.stdout
    assert " 0 problems" in found.stdout


@pytest.mark.timeout(900)  # a twelfth of all tests, and more where others work beside it
def test_without_the_libraries_everything_works() -> None:
    """The tests of search and of the database, where neither library can be imported."""
    code = """
        import sys
        sys.modules["hnswlib"] = sys.modules["turbovec"] = None
        import pytest
        sys.exit(pytest.main(sys.argv[1:]))
    """
    # Damage is the same whatever is in the files, and takes its time.
    files = "tests/search/test_index_files.py::test_a_"
    slow = [f"--deselect={files}file_that_{was}_damaged" for was in ("was", "is")]
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), "-q", "-p", "no:cacheprovider", "-x",
         "tests/search", "tests/test_database.py", "tests/test_embedding.py",
         "tests/test_care.py", "--ignore=tests/search/test_filters.py",
         f"--deselect={files}flipped_bit", *slow],
        cwd=ROOT, capture_output=True, text=True, timeout=870,
        env={**os.environ, "KORU_EXAMPLES": "3"},
    )  # fmt: skip

    assert found.returncode == 0, found.stdout[-5000:] + found.stderr[-2000:]


# The thread


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Some dozen rows are worth a thread; none is left behind."""
    lower(SMALL, monkeypatch.setattr)
    yield monkeypatch
    assert not working()


def working() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "koru-delta-upkeep" and t.is_alive()]


def until_idle() -> None:
    for thread in working():
        thread.join(60)
        assert not thread.is_alive()


def test_a_thread_makes_what_search_lacks_and_ends(small):
    with koru_delta.open() as db:
        db.embed_many("v", ITEMS[:200])
        assert not working()  # writing alone asks for nothing
        whole = db.similar("v", VECTORS[0], k=300, exact=True)
        until_idle()
        (space,) = db.stats()["vector_spaces"]
        assert space["segments"] > 0
        assert space["codes"] == [codes.best_kind()]
        assert (space["in_graph"] == 200) == graph.available()
        check_approximate(db.similar("v", VECTORS[0]), whole, 10)
        assert not working()  # there is nothing more to make
        db.embed_many("v", ITEMS[200:])
        db.similar("v", VECTORS[0])
        until_idle()
        (space,) = db.stats()["vector_spaces"]
        assert space["in_tail"] < SMALL["SEAL_ROWS"]
        assert (space["in_graph"] > 390) == graph.available()
        check_exact(db, "v", "cosine", VECTORS[3])


@needs_graph
def test_the_last_few_rows_come_into_the_graph_when_nobody_writes(small):
    small.setattr(graphs, "FEED_ROWS", 1000)
    small.setattr(upkeep, "QUIET_SECONDS", 0.0)
    with koru_delta.open() as db:
        db.embed_many("v", ITEMS[:200])
        db.build_index()
        db.embed_many("v", ITEMS[200:203])
        db.delete("v", "k000")
        assert db.similar("v", VECTORS[201], k=1)[0].key == "k201"
        until_idle()
        (space,) = db.stats()["vector_spaces"]
        assert space["in_graph"] == 202
        assert db.similar("v", VECTORS[201], k=1)[0].key == "k201"
        assert not working()


@needs_graph
def test_whoever_has_all_of_it_made_hears_how_far_it_is(small):
    small.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)  # nobody else makes it
    told: list[tuple[int, int]] = []
    with koru_delta.open() as db:
        for name, rows in (("a", 120), ("b", 90)):
            db.embed_many(name, ITEMS[:rows])
        db.build_index(progress=lambda *so_far: told.append(so_far))
        assert {total for _, total in told} == {210}
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert told[-1] == (210, 210)
        assert len(told) > 5
        told.clear()
        db.build_index("a", progress=lambda *so_far: told.append(so_far))
        assert told[-1] == (120, 120)


@needs_graph
def test_spaces_that_are_behind_by_little_are_all_fed(small):
    small.setattr(graphs, "FEED_ROWS", 1000)
    small.setattr(upkeep, "QUIET_SECONDS", 0.01)
    with koru_delta.open() as db:
        for name in "abc":
            db.embed_many(name, ITEMS[:100])
        db.build_index()
        for name in "abc":
            db.embed_many(name, ITEMS[100:103])
            db.similar(name, VECTORS[0])
        until_idle()
        assert [space["in_graph"] for space in db.stats()["vector_spaces"]] == [103] * 3


@needs_graph
def test_one_that_is_written_slowly_keeps_no_other_waiting(small):
    small.setattr(graphs, "FEED_ROWS", 1000)
    with koru_delta.open() as db:
        for name in "ab":
            db.embed_many(name, ITEMS[:100])
        db.build_index("a")
        made = threading.Event()
        work = upkeep.Upkeep.work

        def working_on(self: Any, space: Any, **how: Any) -> None:
            work(self, space, **how)
            made.set()

        small.setattr(upkeep.Upkeep, "work", working_on)
        db.similar("b", VECTORS[0])
        for n in range(100, 400):
            db.embed("a", f"k{n:03}", VECTORS[n])
            db.similar("a", VECTORS[0])
            if made.wait(0.02):
                break
        spaces = {space["namespace"]: space for space in db.stats()["vector_spaces"]}
        assert spaces["b"]["in_graph"] == 100
        until_idle()


def test_searches_go_on_while_indexes_are_made(small):
    begun, go_on = threading.Event(), threading.Event()
    encode = codes.encode

    def slow(vectors: Any, metric: str) -> Any:
        begun.set()
        assert go_on.wait(60)
        return encode(vectors, metric)

    small.setattr(codes, "encode", slow)
    with koru_delta.open() as db:
        db.embed_many("v", ITEMS[:100])
        db.similar("v", VECTORS[0])
        assert begun.wait(60)
        for n in range(100, 130):
            db.embed("v", *ITEMS[n])
            assert db.similar("v", VECTORS[n], k=1)[0].key == f"k{n:03}"
        db.delete("v", "k005")
        check_exact(db, "v", "cosine", VECTORS[5])
        go_on.set()
        until_idle()
        check_exact(db, "v", "cosine", VECTORS[5])
        assert db.stats()["vector_spaces"][0]["segments"] > 0


@pytest.mark.parametrize("step", ["codes", pytest.param("graph", marks=needs_graph)])
def test_closing_in_the_middle_of_a_build_leaves_a_directory_that_is_usable(tmp_path, small, step):
    begun, closing = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        if threading.current_thread() in working() and not begun.is_set():
            begun.set()
            assert closing.wait(60)

    owner, name = (codes, "encode") if step == "codes" else (graph.LiveGraph, "feed")
    real = getattr(owner, name)
    fed = []

    def slow(*args: Any, **kwargs: Any) -> Any:
        wait()
        fed.append(1)
        return real(*args, **kwargs)

    small.setattr(owner, name, slow)
    db = koru_delta.open(tmp_path / "db", durability="relaxed")
    db.embed_many("v", ITEMS)
    db.similar("v", VECTORS[0])
    assert begun.wait(60)
    threads = working()
    set_stop = db._vectors.upkeep._stop.set
    small.setattr(db._vectors.upkeep._stop, "set", lambda: (set_stop(), closing.set()))
    db.close()
    assert not any(thread.is_alive() for thread in threads)
    if step == "graph":
        assert len(fed) == 1  # the rest of some twenty pieces was left
    with koru_delta.open(tmp_path / "db", durability="relaxed") as again:
        check_exact(again, "v", "cosine", VECTORS[0])
        again.build_index()
        check_exact(again, "v", "cosine", VECTORS[1])
        assert not list(tmp_path.rglob(".tmp-*"))
    closing.set()


def test_what_fails_in_the_thread_is_told_once_and_searches_go_on(small, caplog):
    def fail(*_: Any) -> Any:
        raise codes.CodesUnavailable("no luck")

    small.setattr(codes, "encode", fail)
    caplog.set_level(logging.WARNING, "koru_delta")
    with koru_delta.open() as db:
        for start in range(0, 400, 100):
            db.embed_many("v", ITEMS[start : start + 100])
            db.similar("v", VECTORS[0])
            until_idle()
        check_exact(db, "v", "cosine", VECTORS[0])
    (line,) = [record.getMessage() for record in caplog.records]
    assert "'v'" in line
    assert "no luck" in line


PROGRAM = """
    import sys, time, threading
    import numpy as np
    import koru_delta
    from koru_delta.search import codes, graph, upkeep
    from tests.indexing import SMALL, lower

    lower(SMALL)
    begun = threading.Event()
    def slow(real):
        def called(*args, **kwargs):
            begun.set()
            time.sleep(0.1)
            return real(*args, **kwargs)
        return called
    codes.encode = slow(codes.encode)
    graph.LiveGraph.feed = slow(graph.LiveGraph.feed)
    db = koru_delta.open(sys.argv[1])
    vectors = np.random.default_rng(1).standard_normal((3000, 16), dtype=np.float32)
    db.embed_many("v", [(f"k{n}", vector) for n, vector in enumerate(vectors)])
    db.similar("v", vectors[0])
    assert begun.wait(60)
"""


@pytest.mark.parametrize(
    ("ending", "status"),
    [("", 0), ("sys.exit(3)", 3), ("raise SystemExit(4)", 4), ("1 / 0", 1),
     ("del db; import gc; gc.collect()", 0)],
)  # fmt: skip
def test_a_program_that_ends_without_closing_is_not_kept_alive(tmp_path, ending, status):
    """A build would take it twenty seconds more: 190 pieces for the graph alone."""
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM) + ending, str(tmp_path / "db")],
        cwd=ROOT, capture_output=True, text=True, timeout=15,
    )  # fmt: skip

    assert found.returncode == status, found.stderr
    assert ("ZeroDivisionError" in found.stderr) == (ending == "1 / 0")
    assert found.stderr.count("Traceback") == (ending == "1 / 0")
    with koru_delta.open(tmp_path / "db") as db:
        assert db.similar("v", VECTORS[0], k=10**6).considered == 3000
        assert db.verify().ok


def test_a_handle_that_is_forgotten_leaves_no_thread_behind(small):
    db = koru_delta.open()
    db.embed_many("v", ITEMS)
    db.similar("v", VECTORS[0])
    until_idle()
    db.close()
    db.close()
    assert not working()


def test_many_handles_of_one_directory_make_and_take_indexes_at_once(tmp_path, small):
    with koru_delta.open(tmp_path / "db", durability="relaxed") as first:
        first.embed_many("v", ITEMS[:300])
        handles = [koru_delta.open(tmp_path / "db", durability="relaxed") for _ in range(3)]
        for n, db in enumerate([first, *handles]):
            db.embed("v", *ITEMS[300 + n])
            for each in handles:
                found = each.similar("v", VECTORS[300 + n], k=1)
                assert found[0].key == f"k{300 + n}"
        for db in handles:
            db.build_index()
            check_exact(db, "v", "cosine", VECTORS[0])
            db.close()
        check_exact(first, "v", "cosine", VECTORS[1])
    with koru_delta.open(tmp_path / "db", read_only=True) as db:
        check_exact(db, "v", "cosine", VECTORS[1])
        assert db.stats()["vector_spaces"][0]["bytes"]["mapped"] > 0


def test_a_folder_that_another_process_is_writing_to_is_left_to_it(tmp_path, small):
    import fcntl

    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.embed_many("v", ITEMS[:300])
        db.build_index()
        (folder,) = {file.parent for file in tmp_path.rglob("state-*.kdx")}
        before = sorted(file.name for file in folder.iterdir())
        with (folder / "lock").open("rb+") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            db.embed_many("v", ITEMS[300:])
            db.build_index()
            check_exact(db, "v", "cosine", VECTORS[0])
            assert sorted(file.name for file in folder.iterdir()) == before
        db.build_index()
        assert sorted(file.name for file in folder.iterdir()) != before
