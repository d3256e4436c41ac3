"""Tell how far long work is: to a function, or by a bar on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from koru_delta.errors import InvalidDataError

Tell = Callable[[int, int | None], None]
Progress = Callable[[int, Any], None] | bool | None

LONG: Final = 1000  # steps from which a bar is shown unasked


@contextmanager
def shown(progress: Progress, what: str, total: int | None = None) -> Iterator[Tell]:
    """Where to tell how many steps are done, and how many there are (None: nobody knows).

    Args:
        progress: Called with both; True shows a bar, False nothing, None a bar on a
            terminal once there are more than `LONG` steps.

    Raises:
        InvalidDataError: it is none of these.
    """
    if callable(progress):
        yield progress
        return
    if progress not in (True, False, None):
        raise InvalidDataError(f"progress is a function, True, False or None, not {progress!r}")
    if progress is None and (sys.stderr is None or not sys.stderr.isatty()):
        progress = False
    if progress is False or (progress is None and total is not None and total <= LONG):
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    task = bar.add_task(what, total=total)

    def tell(done: int, total: int | None) -> None:
        bar.update(task, completed=done, total=total)
        if progress or done > LONG:
            bar.start()  # once; again it does nothing

    tell(0, total)
    try:
        yield tell
    finally:
        bar.stop()
