"""What is done from time to time, beside everything else, on one thread.

The thread sleeps nearly always and holds no database open: it ends with its handle. Time is
that of the database's clock. A job that is shared is done by one process of all that have the
database open, whichever comes first.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from koru_delta.causal import Clock
from koru_delta.errors import DatabaseClosedError, KoruDeltaError
from koru_delta.storage.pace import Pace, step_aside

SECOND: Final = 1_000_000
_LONGEST_SLEEP: Final = 60.0  # seconds: the database's clock may go otherwise than ours
_SHORTEST_SLEEP: Final = 0.005
_SHARED_POLL: Final = 300 * SECOND  # how often a process asks for a job of all processes
_log = logging.getLogger("koru_delta")

Claim = Callable[[str, int, int], bool]  # name, time, how often


@dataclass(slots=True)
class _Job:
    call: weakref.WeakMethod[Any]
    every: int
    at: int  # when it was last looked at
    claim: Claim | None

    @property
    def often(self) -> int:
        """How often it is looked at: one that is shared may be due through others' rest."""
        return self.every if self.claim is None else min(self.every, _SHARED_POLL)


class Runner:
    """Calls bound methods at their times; what they are bound to is not kept alive."""

    def __init__(self, clock: Clock, uses: Callable[[], int] | None = None) -> None:
        """`uses`, a bound method, is another number after a use of the database.

        The thread steps aside for uses.
        """
        self._clock = clock
        self._uses = None if uses is None else weakref.WeakMethod[Any](uses)
        self._jobs: dict[str, _Job] = {}
        self.begin()

    def begin(self) -> None:
        """Start with no thread, as a forked child does."""
        self.working = threading.RLock()  # held while a job is done
        self.is_stopping = False
        self._lock = threading.RLock()  # a signal may come while it is held, and stop this
        self._wake = threading.Event()
        self._asked: set[str] = set()
        self._thread: threading.Thread | None = None

    def add(
        self,
        name: str,
        every_seconds: float,
        call: Callable[[], object],
        claim: Claim | None = None,
    ) -> None:
        """Call a bound method so often, first when that time has passed.

        Args:
            claim: Asked whether to, by name, time and interval: it speaks for all processes.
                A job of long ago is then due at once.
        """
        every = int(every_seconds * SECOND)
        self._jobs[name] = _Job(weakref.WeakMethod[Any](call), every, self._clock(), claim)

    def every_seconds(self) -> dict[str, float]:
        """How often each job is done, by name."""
        return {name: job.every / SECOND for name, job in self._jobs.items()}

    def start(self) -> None:
        """See to it that the thread runs."""
        with self._lock:
            if self._thread is None and not self.is_stopping:
                # A daemon, since it sleeps; what it may be at is waited for at the end.
                thread = threading.Thread(target=self._run, name="koru-delta-jobs", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # there may be no more, or the program is ending
                    _log.info("nothing is done in the background: %s", error)
                    return
                self._thread = thread
                atexit.register(self.stop)

    def ask(self, name: str) -> None:
        """Have a job done soon, on the thread."""
        self._asked.add(name)
        self.start()
        self._wake.set()

    def stop(self) -> None:
        """End the thread, and wait for what it or anybody else is at."""
        self.is_stopping = True
        self._wake.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(self.stop)
            if thread is not threading.current_thread():
                thread.join()
        with self.working:
            pass

    def run_due(self) -> list[str]:
        """Do now, on this thread, what is due; the names of what was done.

        Raises:
            KoruDeltaError, OSError: a job failed; those after it are still due.
        """
        done = []
        with self.working:
            for name in list(self._jobs):
                if not self.is_stopping and self._is_due(name) and self._do(name):
                    done.append(name)
        return done

    def _do(self, name: str) -> bool:
        """Do a job; False if what it is bound to is gone."""
        call = self._jobs[name].call()
        if call is not None:
            call()
        return call is not None

    def _is_due(self, name: str) -> bool:
        job, now = self._jobs[name], self._clock()
        if name in self._asked:
            self._asked.discard(name)
            job.at = now
            return True
        if 0 <= now - job.at < job.often:  # a clock that was set back makes it due
            return False
        job.at = now
        return job.claim is None or job.claim(name, now, job.every)

    def _run(self) -> None:
        """Do what is due, until there is nobody to do it for."""
        pace = Pace(self._used, is_ending=lambda: self.is_stopping)
        step_aside(pace)
        while self._sleep() and self._work(pace):
            pass
        if not self.is_stopping:
            atexit.unregister(self.stop)

    def _used(self) -> int:
        uses = None if self._uses is None else self._uses()
        return 0 if uses is None else int(uses())

    def _sleep(self) -> bool:
        now = self._clock()
        due = min((job.at + job.often - now for job in self._jobs.values()), default=0)
        self._wake.wait(min(max(due / SECOND, _SHORTEST_SLEEP), _LONGEST_SLEEP))
        self._wake.clear()
        return not self.is_stopping

    def _work(self, pace: Pace) -> bool:
        for name in list(self._jobs):
            try:
                with self.working:
                    pace.begin()
                    if self.is_stopping or (self._is_due(name) and not self._do(name)):
                        return False
            except DatabaseClosedError:
                return False
            except (KoruDeltaError, OSError) as error:
                _log.warning("%s failed, and is tried again later: %s", name, error)
        return True
