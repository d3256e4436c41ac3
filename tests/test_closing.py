"""Closing waits for what is at work, and comes to an end whoever closes, and however often."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import koru_delta
from koru_delta import AsyncDatabase, Database, errors
from koru_delta.search import cache
from tests.test_fork import in_child

LONG = 30  # seconds until a thread that hangs fails its test


class Job:
    """A job that begins, waits until it may go on, and then needs the database."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.began, self.may_finish = threading.Event(), threading.Event()
        self.then: Callable[[], object] = lambda: None
        self.did: list[str] = []

    def work(self) -> None:
        self.began.set()
        assert self.may_finish.wait(LONG)
        self.did.append(f"read {self.db.get('n', 'k')}")
        self.then()

    def let_finish_soon(self) -> None:
        """Let it finish once somebody has begun to close."""
        threading.Thread(target=self._let_finish).start()

    def _let_finish(self) -> None:
        while not self.db._runner.is_stopping:
            threading.Event().wait(0.005)
        self.may_finish.set()


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with koru_delta.open(tmp_path / "db", durability="relaxed") as opened:
        opened.put("n", "k", 1)
        yield opened


@pytest.fixture
def job(db: Database) -> Job:
    made = Job(db)
    db.lifecycle.add_job("slow", 3_600, made.work)
    return made


def begun(call: Callable[[], object]) -> threading.Thread:
    """A thread at work; a database closed under it is no failure."""

    def run() -> None:
        with contextlib.suppress(errors.DatabaseClosedError):
            call()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def ended(*threads: threading.Thread) -> bool:
    for thread in threads:
        thread.join(LONG)
    return not any(thread.is_alive() for thread in threads)


def test_closing_waits_for_a_job_of_any_thread(db: Database, job: Job) -> None:
    at_work = begun(lambda: db.lifecycle.run_once("slow"))
    assert job.began.wait(LONG)
    job.let_finish_soon()
    db.close()

    assert job.did == ["read 1"]
    assert ended(at_work)
    db.close()
    with pytest.raises(errors.DatabaseClosedError):
        db.lifecycle.run_once("slow")


def test_closing_waits_for_a_check_that_was_called_by_itself(
    db: Database, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.lifecycle, "_hide_idle", lambda: job.work() or [])
    done: list[object] = []
    at_work = begun(lambda: done.append(db.lifecycle.check()))
    assert job.began.wait(LONG)
    job.let_finish_soon()
    db.close()

    assert ended(at_work)
    assert job.did == ["read 1"]
    assert len(done) == 1


def test_two_threads_may_close_while_a_job_runs(db: Database, job: Job) -> None:
    at_work = begun(lambda: db.lifecycle.run_once("slow"))
    assert job.began.wait(LONG)
    closing = [begun(db.close), begun(db.close)]
    job.let_finish_soon()

    assert ended(at_work, *closing)
    assert job.did == ["read 1"]


@pytest.mark.parametrize("waits", [False, True])
def test_a_job_may_close_its_own_database(db: Database, job: Job, *, waits: bool) -> None:
    """Also while another thread waits for the job in order to close."""
    job.then = db.close
    at_work = begun(lambda: db.lifecycle.run_once("slow"))
    assert job.began.wait(LONG)
    if waits:
        job.let_finish_soon()
        assert ended(begun(db.close))
    job.may_finish.set()

    assert ended(at_work)
    with pytest.raises(errors.DatabaseClosedError):
        db.get("n", "k")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal here")
def test_a_signal_amid_closing_may_close(db: Database, job: Job) -> None:
    at_work = begun(lambda: db.lifecycle.run_once("slow"))
    assert job.began.wait(LONG)
    closed: list[int] = []

    def close(number: int, _frame: object) -> None:
        job.may_finish.set()
        db.close()
        closed.append(number)

    def interrupt() -> None:
        while not db._runner.is_stopping:
            threading.Event().wait(0.005)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, close)
    try:
        interrupting = begun(interrupt)
        db.close()
        assert ended(at_work, interrupting)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert closed == [signal.SIGUSR1]
    assert job.did == ["read 1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell")
def test_what_is_closed_holds_no_file_even_while_its_handle_lives(tmp_path: Path) -> None:
    def held() -> set[str]:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8").split()
        opened = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.exists()]
        return {path for path in mapped + opened if path.startswith(str(tmp_path))}

    rows = np.random.default_rng(1).standard_normal((12_000, 16))
    for _ in range(2):
        db = koru_delta.open(tmp_path / "db")
        db.embed_many("v", [(f"k{n}", row, {"n": n % 3}) for n, row in enumerate(rows)])
        db.build_index()
        found = db.similar("v", rows[0], filter={"n": 0})
        assert held()
        db.close()
        assert held() == set()
        assert found[0].key == "k0"


def test_a_child_forked_while_another_thread_closes_can_close(db: Database, job: Job) -> None:
    at_work = begun(lambda: db.lifecycle.run_once("slow"))
    assert job.began.wait(LONG)
    closing = begun(db.close)
    while not db._runner.is_stopping:
        threading.Event().wait(0.005)

    def child() -> None:
        assert db.get("n", "k") == 1
        db.lifecycle.run_once("check")
        db.close()
        with pytest.raises(errors.DatabaseClosedError):
            db.get("n", "k")

    in_child(child)
    job.may_finish.set()
    assert ended(at_work, closing)
    assert job.did == ["read 1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_amid_writing_of_caches_keeps_nobody_from_it(tmp_path: Path) -> None:
    read, write = os.pipe()
    with cache.writing(tmp_path) as mine:
        assert mine
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)  # lives on until the parent is through
            os._exit(0)
    try:
        with cache.writing(tmp_path) as mine:
            assert mine
    finally:
        os.close(write)
        os.waitpid(child, 0)
        os.close(read)


async def test_closing_awaited_stops_jobs_and_waits_for_what_was_begun(tmp_path: Path) -> None:
    adb = await AsyncDatabase.open(tmp_path / "db", durability="relaxed")
    await adb.put("n", "k", 1)
    job = Job(adb.database)
    await adb.lifecycle.add_job("slow", 3_600, job.work)
    running = asyncio.ensure_future(adb.lifecycle.run_once("slow"))
    await asyncio.to_thread(job.began.wait, LONG)
    writes = [asyncio.ensure_future(adb.put("n", f"k{n}", n)) for n in range(20)]
    await asyncio.sleep(0)  # so that they are on their way
    job.let_finish_soon()
    await asyncio.gather(adb.close(), adb.close())

    assert job.did == ["read 1"]
    await running
    assert [(await write).value for write in writes] == list(range(20))
    with pytest.raises(errors.DatabaseClosedError):
        await adb.lifecycle.stats()
    await adb.close()


def test_two_loops_may_close_one_handle(tmp_path: Path) -> None:
    adb = AsyncDatabase(koru_delta.open(tmp_path / "db", durability="relaxed"))
    asyncio.run(adb.put("n", "k", 1))
    assert ended(*(begun(lambda: asyncio.run(adb.close())) for _ in range(2)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_an_awaited_handle_is_closed_in_parent_and_child(tmp_path: Path) -> None:
    adb = AsyncDatabase(koru_delta.open(tmp_path / "db", durability="relaxed"))
    asyncio.run(adb.put("n", "k", 1))

    def child() -> None:
        assert asyncio.run(adb.lifecycle.run_once("check")).moved == 0
        asyncio.run(adb.close())

    in_child(child)
    assert asyncio.run(adb.get("n", "k")) == 1
    asyncio.run(adb.close())


def test_a_read_only_database_does_no_job(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.put("n", "k", 1)
        db.lifecycle.policy("n", hot_bytes=1)
    with koru_delta.open(tmp_path / "db", read_only=True) as db:
        for job in (db.lifecycle.check, db.lifecycle.consolidate):
            with pytest.raises(errors.ReadOnlyError):
                job()
        assert db.lifecycle.plan().moves
