"""Long work beside others: a thread that computes for long keeps the interpreter from them.

Python takes the interpreter from a thread after 5 ms, and whoever writes asks for it a dozen times
in one commit. So work that nobody waits for pauses every millisecond, for long enough that
another thread comes to run.

A search is over in less than that, and wants the interpreter more often still. The thread of the
jobs has a `Pace`: while somebody uses the database it rests for as many times what it worked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

PAUSE_SECONDS: Final = 0.0003
WORK_SECONDS: Final = 0.001
ASIDE: Final = 9.0  # times the work that a pause is long while the database is used
_LONGEST_SECONDS: Final = 0.1
_LATELY_SECONDS: Final = 0.1  # after a use: the next one is to be expected

T = TypeVar("T")


class Pace:
    """When one thread pauses, and for how long."""

    def __init__(
        self,
        uses: Callable[[], int] | None = None,
        *,
        is_ending: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
        worked: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`uses` is another number after the database was used; None is nobody to step aside for.

        `is_ending` tells whether somebody waits for the thread to end.
        `clock`, `worked` (of the thread, waiting apart) and `sleep` count seconds.
        """
        self._uses = uses
        self.is_ending = is_ending
        self.clock = clock
        self._worked = worked
        self._sleep = sleep
        self._known = 0 if uses is None else uses()
        self._aside_until = clock()
        self.begin()

    def begin(self) -> None:
        """Work begins only now."""
        self._before = self._worked()
        self.due = self.clock() + WORK_SECONDS  # the next pause

    def pause(self) -> None:
        """Let others go on."""
        pause = PAUSE_SECONDS
        if self._uses is not None:
            now, known = self.clock(), self._uses()
            if known != self._known:
                self._known, self._aside_until = known, now + _LATELY_SECONDS
            if now < self._aside_until:
                pause = max(pause, min(ASIDE * (self._worked() - self._before), _LONGEST_SECONDS))
        self._sleep(pause)
        self.begin()


class _Thread(threading.local):
    pace: Pace | None = None


_thread = _Thread()


def step_aside(pace: Pace | None) -> None:
    """Have all that this thread does from now on rest so; None has it not rest between."""
    _thread.pace = pace


def is_ending() -> bool:
    """Whether somebody waits for this thread to end: what can be done another time is left."""
    return _thread.pace is not None and _thread.pace.is_ending()


def rest() -> None:
    """Pause if this is a thread that steps aside and has worked for a while; others go on."""
    pace = _thread.pace
    if pace is not None and pace.clock() >= pace.due:
        pace.pause()


def gently(items: Iterable[T]) -> Iterator[T]:
    """The same items, with pauses between them, on any thread."""
    pace = _thread.pace or Pace()
    clock = pace.clock
    for item in items:
        yield item
        if clock() >= pace.due:
            pace.pause()
