"""Jobs are done at their times, by one process, on one thread that ends with its handle."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

import koru_delta
from koru_delta import errors
from koru_delta.database import erasing
from koru_delta.lifecycle import Runner, facade, jobs
from koru_delta.storage.pace import ASIDE, WORK_SECONDS, Pace, gently
from koru_delta.testing import FixedClock

MINUTE = 60


class Work:
    """Jobs that note that they were done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fail = False

    def often(self) -> None:
        self.done.append("often")

    def seldom(self) -> None:
        if self.fail:
            raise errors.StorageError("the disk is full")
        self.done.append("seldom")


def until(is_so: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if is_so():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not come to that")


def test_each_job_is_done_when_its_time_has_passed(clock: FixedClock) -> None:
    work, runner = Work(), Runner(clock)
    runner.add("often", 10, work.often)
    runner.add("seldom", 60, work.seldom)

    done = []
    for _ in range(13):
        done.append(runner.run_due())
        clock.advance(seconds=5)

    assert done == [
        [], [], ["often"], [], ["often"], [], ["often"], [], ["often"], [], ["often"], [],
        ["often", "seldom"],
    ]  # fmt: skip


def test_a_clock_that_is_set_back_makes_a_job_due(clock: FixedClock) -> None:
    work, runner = Work(), Runner(clock)
    runner.add("often", 10, work.often)
    clock.advance(seconds=-3_600)

    assert runner.run_due() == ["often"]
    assert runner.run_due() == []


def test_a_job_whose_owner_is_gone_is_done_no_more(clock: FixedClock) -> None:
    work, runner = Work(), Runner(clock)
    runner.add("often", 10, work.often)
    del work
    clock.advance(seconds=60)

    assert runner.run_due() == []


def test_a_job_that_fails_is_tried_again_at_its_next_time(
    clock: FixedClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jobs, "_LONGEST_SLEEP", 0.005)
    work, runner = Work(), Runner(clock)
    runner.add("seldom", 60, work.seldom)
    work.fail = True
    clock.advance(seconds=60)
    with pytest.raises(errors.StorageError):
        runner.run_due()
    with caplog.at_level(logging.WARNING, "koru_delta"):
        clock.advance(seconds=60)
        runner.start()
        until(lambda: "seldom failed" in caplog.text)
        work.fail = False
        clock.advance(seconds=60)
        until(lambda: work.done == ["seldom"])
    runner.stop()


def test_stopping_waits_for_the_job_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    began, finish, ended = threading.Event(), threading.Event(), []

    class Slow:
        def work(self) -> None:
            began.set()
            finish.wait(30)
            ended.append("job")

    slow, runner = Slow(), Runner(FixedClock())
    runner.add("slow", 3_600, slow.work)
    runner.ask("slow")
    assert began.wait(30)
    stopping = threading.Thread(target=lambda: (runner.stop(), ended.append("stop")))
    stopping.start()
    until(lambda: runner.is_stopping)
    finish.set()
    stopping.join(30)

    assert ended == ["job", "stop"]
    runner.start()
    assert runner._thread is None


class Used:
    """A database that is used all the time."""

    def __init__(self) -> None:
        self.count = 0

    def uses(self) -> int:
        self.count += 1
        return self.count


class Long:
    """A job that is at work for long."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def work(self) -> None:
        for number in gently(range(3)):
            until_then = time.thread_time() + 2 * WORK_SECONDS
            while time.thread_time() < until_then:
                pass
            self.done.append(number)


def test_the_thread_steps_aside_for_uses_and_whoever_does_a_job_by_hand_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(jobs, "Pace", partial(Pace, sleep=slept.append))
    used, job = Used(), Long()
    runner = Runner(clock := FixedClock(), used.uses)
    runner.add("long", 60, job.work)
    clock.advance(seconds=60)
    assert runner.run_due() == ["long"]
    assert (job.done, slept, used.count) == ([0, 1, 2], [], 0)

    runner.ask("long")
    until(lambda: len(job.done) == 6)
    runner.stop()

    assert len(slept) == 3
    assert min(slept) >= min(2 * WORK_SECONDS * ASIDE, 0.1)


def test_of_all_processes_one_does_a_job(tmp_path: Path) -> None:
    clock = FixedClock()
    with (
        koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as one,
        koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as other,
    ):
        done = []
        for _ in range(4):
            clock.advance(seconds=5 * MINUTE)
            done.append(("check" in one.lifecycle.run_due(), "check" in other.lifecycle.run_due()))
        assert done == [(True, False)] * 4
    with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as later:
        assert later.lifecycle.run_due() == []
        assert later.lifecycle.stats()["jobs"]["check"]["last"] == "2026-01-01T00:20:00+00:00"


def test_a_job_of_once_a_day_is_done_although_no_process_lives_so_long(tmp_path: Path) -> None:
    clock, work = FixedClock(), Work()
    done = []
    for _ in range(80):
        with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as db:
            db.lifecycle.add_job("genome", facade.GENOME_SECONDS, work.often)
            clock.advance(seconds=3_600)
            done.append("genome" in db.lifecycle.run_due())

    assert [hour for hour, was_done in enumerate(done) if was_done] == [0, 24, 48, 72]


def test_a_job_that_nobody_knows_is_refused(db: koru_delta.Database) -> None:
    with pytest.raises(errors.QueryError, match="there is no job 'tidy'; it is one of check"):
        db.lifecycle.run_once("tidy")


def test_the_thread_starts_with_the_first_wish_and_ends_with_the_handle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_SHARED_POLL", 10_000)
    monkeypatch.setattr(facade, "CHECK_SECONDS", 0.01)
    clock = FixedClock()
    with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as db:
        db.put("chat", "key", 1)
        assert db._runner._thread is None
        db.lifecycle.policy("chat", ttl=timedelta(seconds=1))
        monkeypatch.setattr(jobs, "_LONGEST_SLEEP", 0.005)
        clock.advance(seconds=2)
        db._runner.ask("check")
        until(lambda: not db.query("chat"))
        thread = db._runner._thread
        assert thread is not None
    assert not thread.is_alive()
    with koru_delta.open(tmp_path / "db", clock=clock, durability="relaxed") as db:
        assert db._runner._thread is not None


def test_few_uses_are_written_within_a_minute_and_many_at_once(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "few", durability="relaxed") as db:
        db.put("docs", "key", 1)
        assert db._runner._thread is None
        db.get("docs", "key")
        assert db._runner._thread is not None
        assert db._runner.every_seconds()["usage"] == 60
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.put("docs", "key", 1)
        for _ in range(2_100):
            db.used(("docs", "key"))
        until((tmp_path / "db" / "tiers" / "usage.db").exists)
        file = db._tracker.file
        assert file is not None
        until(lambda: bool(file.namespaces()))


def test_sweeps_and_checks_share_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "SWEEP_SECONDS", 0.01)
    with koru_delta.open(tmp_path / "db", durability="relaxed") as db:
        db.put("n", "k", 1)
        db.put("n", "k", 2)
        db.retain("n", versions=1)
        db.lifecycle.policy("n", hot_bytes=10)
        until(lambda: db.history("n", "k")[0].is_erased)
        named = [t for t in threading.enumerate() if t.name == "koru-delta-jobs" and t.is_alive()]
        assert [db._runner._thread] == named


def test_a_clock_of_ones_own_starts_at_a_time_and_moves_by_lengths_of_time() -> None:
    clock = FixedClock(datetime(2026, 3, 2, 9, tzinfo=UTC))
    began = clock()
    clock.advance(timedelta(days=1), seconds=1)

    assert clock() - began == 86_401_000_000
    assert repr(clock) == "<FixedClock at 2026-03-03T09:00:01+00:00>"
    assert FixedClock(began)() == began
