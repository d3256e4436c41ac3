"""A forked child goes on with its handle, and the parent notices nothing."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import koru_delta
from koru_delta.errors import DatabaseClosedError, NotPicklableError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(check: Callable[[], None]) -> None:
    """Run `check` in a forked child; it must come to an end, and well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork: our very case
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)  # a child that hangs fails
            check()
            status = 0
        except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's frames
            traceback.print_exc()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert ended == 0, f"the child ended with {ended:#x} (0xe is: it hung)"


def test_a_forked_child_goes_on_with_its_handle(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        db.put("n", "k", {"by": "parent"})
        db.embed("v", "k", [1.0, 2.0])
        assert db.get("n", "k") == {"by": "parent"}
        assert db.similar("v", [1.0, 2.0])[0].key == "k"

        def child() -> None:
            assert db.get("n", "k") == {"by": "parent"}
            db.put("n", "k", {"by": "child"})
            db.embed("v", "c", [2.0, 1.0])
            assert db.get("n", "k") == {"by": "child"}
            assert [hit.key for hit in db.similar("v", [2.0, 1.0])] == ["c", "k"]
            assert db.verify().ok

        in_child(child)

        assert db.get("n", "k") == {"by": "child"}
        assert [hit.key for hit in db.similar("v", [2.0, 1.0])] == ["c", "k"]
        db.put("n", "k", {"by": "parent again"})
        assert db.verify().ok


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_forking_while_threads_write_read_and_search(tmp_path: Path, durability: str) -> None:
    stop = threading.Event()
    written = [0, 0]
    problems: list[BaseException] = []
    with koru_delta.open(tmp_path / "db", durability=durability) as db:  # type: ignore[arg-type]
        db.put("n", "w0", 0)
        db.put("n", "w1", 0)
        db.embed("v", "k", [1.0, 2.0])

        def guarded(work: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                try:
                    while not stop.is_set():
                        work()
                except BaseException as error:  # noqa: BLE001 - reported by the test
                    problems.append(error)

            return run

        def write(number: int) -> Callable[[], None]:
            def work() -> None:
                written[number] += 1
                db.put("n", f"w{number}", written[number])

            return work

        def read() -> None:
            db.get("n", "w0")
            db.list_keys("n")

        def search() -> None:
            db.embed("v", "k", [1.0, written[0] + 1.0])
            assert db.similar("v", [1.0, 2.0])

        work = [write(0), write(1), read, search]
        threads = [threading.Thread(target=guarded(each)) for each in work]
        for thread in threads:
            thread.start()
        for number in range(12):

            def child(number: int = number) -> None:
                before = db.stats()["seq"]
                for n in range(3):
                    db.put("n", f"child{number}", n)
                    assert db.get("n", f"child{number}") == n
                assert db.similar("v", [1.0, 2.0])
                made = [v for v in db.changes(before) if v.key == f"child{number}"]
                assert [v.value for v in made] == [0, 1, 2]
                db.close()

            in_child(child)
            assert db.get("n", f"child{number}") == 2
        stop.set()
        for thread in threads:
            thread.join()
        assert problems == []
        for number in (0, 1):
            # Once each: what waited in the parent must not be written by a child as well.
            values = [version.value for version in db.history("n", f"w{number}")]
            assert values == list(range(written[number] + 1))
        assert db.verify().ok


def test_a_child_waits_its_turn_while_the_parent_writes(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        db.put("n", "sum", 0)

        def add(times: int) -> None:
            for _ in range(times):
                while True:
                    seen = db.history("n", "sum", reverse=True, limit=1)[0]
                    try:
                        db.put("n", "sum", seen.value + 1, if_match=seen)
                        break
                    except koru_delta.errors.ConflictError:
                        time.sleep(0)

        beside = threading.Thread(target=add, args=(40,))
        beside.start()
        in_child(lambda: add(40))
        beside.join()

        assert db.get("n", "sum") == 80


def test_an_in_memory_database_stays_with_the_process_that_opened_it() -> None:
    with koru_delta.open() as db:
        db.put("n", "k", 1)
        assert db.get("n", "k") == 1

        def child() -> None:
            for verb in (
                lambda: db.get("n", "k"),
                lambda: db.put("n", "k", 2),
                lambda: db.list_keys("n"),
                db.verify,
            ):
                with pytest.raises(DatabaseClosedError, match="in-memory"):
                    verb()
            db.close()

        in_child(child)

        assert db.get("n", "k") == 1
        db.put("n", "k", 3)
        assert db.get("n", "k") == 3


def test_a_closed_handle_stays_closed_in_a_child(tmp_path: Path) -> None:
    db = koru_delta.open(tmp_path / "db")
    db.close()

    def child() -> None:
        with pytest.raises(DatabaseClosedError):
            db.get("n", "k")

    in_child(child)


def test_the_child_of_a_child(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:

        def grandchild() -> None:
            db.put("n", "k", 2)

        def child() -> None:
            db.put("n", "k", 1)
            in_child(grandchild)
            assert db.get("n", "k") == 2

        in_child(child)
        assert [version.value for version in db.history("n", "k")] == [1, 2]


@pytest.mark.parametrize("cross", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_handle_refuses_to_be_pickled_or_copied(
    tmp_path: Path, cross: Callable[[object], object]
) -> None:
    with koru_delta.open(tmp_path / "db") as db, pytest.raises(NotPicklableError, match="path"):
        cross(db)


def test_an_async_handle_goes_on_in_the_child(tmp_path: Path) -> None:
    db = asyncio.run(koru_delta.AsyncDatabase.open(tmp_path / "db"))

    async def write_and_read(value: str) -> None:
        await db.put("n", "k", value)
        assert await db.get("n", "k") == value

    try:
        asyncio.run(write_and_read("parent"))
        in_child(lambda: asyncio.run(write_and_read("child")))
        assert asyncio.run(db.get("n", "k")) == "child"
        asyncio.run(write_and_read("parent again"))
    finally:
        asyncio.run(db.close())
