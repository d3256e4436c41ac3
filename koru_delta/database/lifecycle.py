"""What is near and what is far: the lifecycle, and what it is told of uses."""

from __future__ import annotations

from collections.abc import Iterable

from koru_delta.database.opened import Opened
from koru_delta.lifecycle import Feedback, Lifecycle, Usable


class LifecycleVerbs(Opened):
    """Budgets, pins, idle keys; and feedback."""

    _lifecycle: Lifecycle

    @property
    def lifecycle(self) -> Lifecycle:
        """What is near, what is far, what is hidden for being idle, and why."""
        return self._lifecycle

    def used(self, what: Usable | Iterable[Usable], *, kind: Feedback = "used") -> int:
        """Say that hits or versions helped; it makes their keys more important.

        It is kept beside the log, not in it, and changes no answer.

        Args:
            what: A match, a version or its id, or `(namespace, key)`; one, or a list of them.
            kind: "used", or "recall" for what was only handed to somebody.

        Returns:
            How many were named.

        Raises:
            InvalidDataError: one of them is nothing that could be used.
            UnknownVersionError: there is no such version.
        """
        return self._tracker.feedback(self._log, what, kind)
