"""Sweeping once in a while, beside everything else, as long as some namespace has a policy.

The thread sleeps nearly always and holds no database open: it ends with its handle.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from koru_delta.errors import DatabaseClosedError, KoruDeltaError

SWEEP_SECONDS: Final = 60.0
_log = logging.getLogger("koru_delta")


class Sweeper:
    """Calls a bound method about once a minute, from a thread of its own, once started."""

    def __init__(self, sweep: Callable[[], object]) -> None:
        """`sweep` is a bound method; what it is bound to is not kept alive."""
        self._sweep = weakref.WeakMethod[Any](sweep)
        self.begin()

    def begin(self) -> None:
        """Start with no thread, as a forked child does."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """See to it that the thread runs."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                # A daemon, since it sleeps; what it may be at is waited for at the end.
                thread = threading.Thread(
                    target=_run, args=(self._sweep, self._stop), name="koru-delta-sweep",
                    daemon=True,
                )  # fmt: skip
                try:
                    thread.start()
                except RuntimeError as error:  # there may be no more, or the program is ending
                    _log.info("nothing is swept in the background: %s", error)
                    return
                self._thread = thread
                atexit.register(self.stop)

    def stop(self) -> None:
        """End the thread, and wait for what it is doing."""
        self._stop.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(self.stop)
            if thread is not threading.current_thread():
                thread.join()


def _run(sweep: weakref.WeakMethod[Any], stop: threading.Event) -> None:
    while not stop.wait(SWEEP_SECONDS):
        call = sweep()
        if call is None:
            return
        try:
            call()
        except DatabaseClosedError:
            return
        except (KoruDeltaError, OSError) as error:
            _log.warning("sweeping failed, and is tried again later: %s", error)
        del call
