"""Work that nobody waits for steps aside, for longer while somebody uses the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from koru_delta.storage import pace
from koru_delta.storage.pace import (
    ASIDE,
    PAUSE_SECONDS,
    WORK_SECONDS,
    Pace,
    gently,
    rest,
    step_aside,
)


class Thread:
    """A thread whose time passes when it is told so, and the uses beside it."""

    def __init__(self) -> None:
        self.now = self.computed = 0.0
        self.uses = 0
        self.slept: list[float] = []
        self.pace = Pace(
            lambda: self.uses, clock=lambda: self.now, worked=lambda: self.computed,
            sleep=self.sleep,
        )  # fmt: skip

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def work(self, seconds: float, *, waited: float = 0.0) -> None:
        """Work, having waited for others meanwhile, and rest if it is time to."""
        self.computed += seconds
        self.now += seconds + waited
        if self.now >= self.pace.due:
            self.pace.pause()


def test_a_pause_is_short_while_nobody_uses_the_database() -> None:
    thread = Thread()
    thread.uses = 7
    thread.pace = Pace(
        lambda: thread.uses, clock=lambda: thread.now, worked=lambda: thread.computed,
        sleep=thread.sleep,
    )  # fmt: skip
    for _ in range(3):
        thread.work(0.004)

    assert thread.slept == [PAUSE_SECONDS] * 3


def test_a_pause_is_as_long_as_the_work_asks_for_once_the_database_was_used() -> None:
    thread = Thread()
    thread.work(0.004)
    thread.uses += 1
    thread.work(0.004)
    thread.work(0.002)  # the next use is to be expected
    thread.work(0.002, waited=0.5)  # nobody came for long
    thread.uses += 1
    thread.work(0.002)

    assert thread.slept == pytest.approx(
        [PAUSE_SECONDS, ASIDE * 0.004, ASIDE * 0.002, PAUSE_SECONDS, ASIDE * 0.002]
    )


def test_waiting_for_others_is_no_work_that_they_are_to_be_spared() -> None:
    thread = Thread()
    thread.uses += 1
    thread.work(0.001, waited=0.02)
    thread.work(0.0, waited=0.01)

    assert thread.slept == pytest.approx([ASIDE * 0.001, PAUSE_SECONDS])


def test_there_is_no_pause_within_a_millisecond_and_none_is_very_long() -> None:
    thread = Thread()
    thread.uses += 1
    for _ in range(3):
        thread.work(WORK_SECONDS / 4)
    assert thread.slept == []
    thread.work(60.0)

    assert thread.slept == [0.1]


def test_time_before_the_work_began_is_none_of_it() -> None:
    thread = Thread()
    thread.now += 300.0
    thread.pace.begin()
    thread.work(WORK_SECONDS / 2)

    assert thread.slept == []


@pytest.fixture
def thread() -> Iterator[Thread]:
    """This thread, stepping aside."""
    found = Thread()
    step_aside(found.pace)
    try:
        yield found
    finally:
        step_aside(None)


def test_loops_within_loops_and_single_rests_share_the_pace_of_their_thread(
    thread: Thread,
) -> None:
    thread.uses += 1
    done = []
    for row in gently(range(2)):
        for column in gently("ab"):
            thread.computed += 0.0006
            thread.now += 0.0006
            done.append((row, column))
    thread.now += 0.0006
    rest()

    assert done == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert thread.slept == pytest.approx([ASIDE * 0.0012] * 2)


def test_whoever_calls_does_not_rest_between_and_pauses_shortly_in_long_loops(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread.uses += 1
    paused: list[float] = []
    found: list[int] = []
    monkeypatch.setattr(pace, "WORK_SECONDS", -1.0)  # it is always time to

    class Recorded(Pace):
        def __init__(self) -> None:
            super().__init__(sleep=paused.append)

    monkeypatch.setattr(pace, "Pace", Recorded)

    def call() -> None:
        rest()
        found.extend(gently(range(3)))

    caller = threading.Thread(target=call)
    caller.start()
    caller.join()

    assert found == [0, 1, 2]
    assert paused == [PAUSE_SECONDS] * 3
    assert thread.slept == []
