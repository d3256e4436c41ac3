"""Every verb that reads, and a `View`, which has these alone.

A verb is written once, in `keys`, `history`, `search` or `synthesis`; `Database` and `View`
differ in where they stand when a call leaves `as_of` out (see `Handle`).
"""

from __future__ import annotations

from datetime import datetime

from koru_delta.causal import Cut, moment
from koru_delta.database.handle import Handle
from koru_delta.database.synthesis import SynthesisVerbs


class ReadVerbs(SynthesisVerbs):
    """What can be asked: of keys, of history, in search and in synthesis."""


class View(ReadVerbs):
    """A database as it stood at one moment: the verbs that read, where `as_of` is that moment.

    They answer as `Database` does when it is asked `as_of` that moment. What was written later
    is unknown here; an `as_of` of their own may name an earlier moment, and a later one raises
    `InvalidTimestampError`.
    """

    def __init__(self, database: Handle, cut: Cut) -> None:
        super().__init__(database._parts, cut)
        self._cut_at = cut  # `_at`, never None here
        self._database = database  # stays open as long as this is held

    @property
    def seq(self) -> int:
        """The last position of the log this view sees."""
        return self._cut_at.seq

    @property
    def time(self) -> datetime:
        """The moment of the view (UTC)."""
        return moment(self._cut_at.clock)

    def __repr__(self) -> str:
        return f"<View of {self._database!r} at {self.seq}, {self.time.isoformat()}>"
