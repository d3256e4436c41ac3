"""How long a stretch of a text is."""

from __future__ import annotations

from typing import Protocol


class Ruler(Protocol):
    """Measures stretches of one text in one unit; positions are in characters."""

    def limit(self, start: int, allowance: int) -> int:
        """About where a stretch from `start` has `allowance` units; after `start`."""
        ...

    def back(self, end: int, allowance: int) -> int:
        """About where a stretch of `allowance` units begins that stops at `end`."""
        ...

    def size(self, start: int, end: int) -> int:
        """How long `text[start:end]` is, exactly."""
        ...


class Characters:
    """Counts code points."""

    def limit(self, start: int, allowance: int) -> int:
        """See `Ruler`; exact."""
        return start + allowance

    def back(self, end: int, allowance: int) -> int:
        """See `Ruler`; exact."""
        return max(0, end - allowance)

    def size(self, start: int, end: int) -> int:
        """See `Ruler`."""
        return end - start
