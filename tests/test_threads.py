"""Threads that write at once: every write is there, and an interrupted one blocks nobody."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import koru_delta
from koru_delta import Database, errors
from koru_delta.storage import SqliteEngine


def _together(works: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own, and raise what any of them raised."""
    problems: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    if problems:
        raise problems[0]


def test_eight_threads_that_put_at_once_lose_nothing_and_share_commits(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:

        def puts(thread: int) -> Callable[[], None]:
            def work() -> None:
                for number in range(60):
                    version = db.put("n", f"t{thread}", number)
                    assert version.value == number
                    assert db.get("n", f"t{thread}") == number

            return work

        _together([puts(thread) for thread in range(8)])

        assert db.stats()["commits"] == 480
        assert db.stats()["transactions"] <= 0.85 * 480  # far fewer where cores are free
        for thread in range(8):
            found = db.history("n", f"t{thread}")
            assert [version.value for version in found] == list(range(60))
        assert db.verify().ok


def test_threads_write_read_and_search_one_handle(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        done = threading.Event()

        def embeds(thread: int) -> Callable[[], None]:
            def work() -> None:
                for number in range(1, 60):
                    db.embed("v", f"t{thread}", [1.0, float(number)], {"n": number})
                    hits = db.similar("v", [1.0, float(number)], k=10, filter={"n": number})
                    assert f"t{thread}" in [hit.key for hit in hits]
                    if number % 10 == 0:
                        db.delete("v", f"t{thread}")

            return work

        def reads() -> None:
            seen = 0
            while not done.is_set():
                head = db.commits(reverse=True, limit=1)
                if head:
                    assert head[0].seq >= seen
                    seen = head[0].seq
                    at_once = db.as_of(seen)
                    keys = at_once.list_keys("v")
                    assert [row.key for row in at_once.query("v")] == keys
                    assert sorted(h.key for h in at_once.similar("v", [1.0, 1.0])) == keys

        def writes() -> None:
            try:
                _together([embeds(thread) for thread in range(3)])
            finally:
                done.set()

        _together([writes, reads, reads])
        assert db.verify().ok


def test_compare_and_set_counts_every_thread(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.put("n", "sum", 0)

        def add() -> None:
            for _ in range(25):
                while True:
                    last = db.history("n", "sum", reverse=True, limit=1)[0]
                    try:
                        db.put("n", "sum", last.value + 1, if_match=last)
                        break
                    except errors.ConflictError:
                        continue

        _together([add] * 6)
        assert db.get("n", "sum") == 150


def test_a_bad_write_fails_alone_among_those_it_waits_with(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        db.embed("v", "k", [1.0, 2.0])

        def good(thread: int) -> Callable[[], None]:
            return lambda: [db.put("n", f"t{thread}", n) for n in range(40)]  # type: ignore[return-value]

        def bad(verb: Callable[[], Any], error: type[Exception]) -> Callable[[], None]:
            def work() -> None:
                for _ in range(40):
                    with pytest.raises(error):
                        verb()

            return work

        _together(
            [
                *(good(thread) for thread in range(3)),
                bad(lambda: db.put("n", "x", 1, if_match="00" * 32), errors.UnknownVersionError),
                bad(lambda: db.delete("n", "none"), errors.KeyNotFoundError),
                bad(lambda: db.embed("v", "k", [1.0]), errors.DimensionMismatchError),
                bad(lambda: db.put("n", "x", 1, message="\ud800"), errors.InvalidDataError),
                bad(
                    lambda: db.put_many(
                        [("n", "x", 1), ("n", "y", 1)], valid_to="1999-01-01T00:00Z"
                    ),
                    errors.InvalidTimestampError,
                ),
            ]
        )
        assert db.list_keys("n") == ["t0", "t1", "t2"]
        assert db.stats()["versions"] == 121
        assert db.verify().ok


class _Interrupted(BaseException):
    """As Ctrl-C is, for threads."""


@pytest.mark.parametrize("order", [[0], [1], [2], [1, 2], [2, 1], [0, 1, 2]])
def test_an_interrupted_write_blocks_nobody(tmp_path: Path, order: list[int]) -> None:
    """Some of those who wait for a commit are interrupted, the one to lead next as well."""
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.put("n", "k", 0)
        door = apsw.Connection(str(tmp_path / "db" / "log.db"))
        door.execute("BEGIN IMMEDIATE")
        results: dict[int, str] = {}

        def put(number: int) -> None:
            try:
                db.put("n", f"k{number}", number)
                results[number] = "written"
            except _Interrupted:
                results[number] = "interrupted"

        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=put, args=(number,)))
            threads[-1].start()
            _until(lambda number=number: _waits(db, number))
        for number in order:
            _interrupt(threads[number])
        door.execute("ROLLBACK")
        door.close()

        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a thread hangs"
        assert set(results) == set(range(5))
        for number in range(5):
            if results[number] == "written":
                assert db.get("n", f"k{number}") == number
        assert all(results[number] == "written" for number in range(5) if number not in order)
        db.put("n", "k", 1)
        assert db.get("n", "k") == 1
        assert db.verify().ok


def _waits(db: Database, number: int) -> bool:
    """Whether the first thread stands at the file's door and the others queue behind it."""
    log = db._log  # behind the door: no verb tells
    return log.engine._write_lock.locked() and len(log._waiting) == number


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if holds():
            return
        time.sleep(0.001)
    raise AssertionError("it never came to that")


def _interrupt(thread: threading.Thread) -> None:
    assert thread.ident is not None
    raised = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(_Interrupted)
    )
    assert raised == 1


def test_what_is_written_while_all_is_verified_is_not_taken_for_lost(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.put("n", "k", 1)
    plain = SqliteEngine.problems

    def beside_a_writer(engine: SqliteEngine) -> Iterator[str]:
        db.put("n", "k", 2)
        yield from plain(engine)

    monkeypatch.setattr(SqliteEngine, "problems", beside_a_writer)

    assert db.verify().problems == ()
