"""Long work beside others: a thread that computes for long keeps the interpreter from them.

Python takes the interpreter from a thread after 5 ms, and whoever writes asks for it a dozen times
in one commit. So work that nobody waits for pauses every millisecond, for long enough that
another thread comes to run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

PAUSE_SECONDS: Final = 0.0003
_WORK_SECONDS: Final = 0.001

T = TypeVar("T")


def gently(items: Iterable[T]) -> Iterator[T]:
    """The same items, with pauses between them."""
    begun = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - begun > _WORK_SECONDS:
            time.sleep(PAUSE_SECONDS)
            begun = time.perf_counter()
