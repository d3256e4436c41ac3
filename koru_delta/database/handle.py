"""What every verb stands on: the parts of an open database, and the moment it reads at.

A `Handle` is a way in. That of a `Database` reads at the present, or wherever `as_of` says;
that of a `View` reads at its own moment, or at an earlier one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from koru_delta.causal import FOREVER, Cut, When, moment
from koru_delta.database.arguments import valid_clock
from koru_delta.errors import DatabaseLockedError, InvalidTimestampError
from koru_delta.intents import Intents
from koru_delta.lifecycle import Tracker
from koru_delta.log import CausalLog
from koru_delta.log.moments import AsOf
from koru_delta.search.answers import Answers
from koru_delta.search.causality import Causality
from koru_delta.search.scrub import scrub
from koru_delta.search.synthesis.layers import LayersOf
from koru_delta.search.text.analysis import Analyzer
from koru_delta.search.texts import Texts
from koru_delta.search.vectors import Vectors

_logger = logging.getLogger("koru_delta")


@dataclass(frozen=True, slots=True)
class Parts:
    """What one open database is made of: the log, what writes to it, and its readings."""

    log: CausalLog
    intents: Intents
    tracker: Tracker
    vectors: Vectors
    texts: Texts
    causality: Causality
    answers: Answers
    layers: LayersOf

    @classmethod
    def of(
        cls, log: CausalLog, intents: Intents, tracker: Tracker, vector_memory: int | None = None
    ) -> Parts:
        """A log with readings that have read nothing yet."""
        return cls(
            log, intents, tracker, Vectors(log, vector_memory), Texts(log), Causality(log),
            Answers(log), LayersOf(log, Analyzer().terms),
        )  # fmt: skip

    def scrub(self) -> bool:
        """Remove every copy of what was erased; False if something is in the way, for now."""
        engine = self.log.engine
        names = engine.scrubbing()
        last = {name: engine.erased(name) for name in names}
        self.layers.forget()
        try:
            scrub(engine, names)
            return engine.clean_tiers() and engine.scrubbed(last)
        except (OSError, DatabaseLockedError) as error:
            # What was erased is erased, and says so; whoever comes next tries again.
            _logger.warning("copies of what was erased are still there, for now: %s", error)
            return False

    def close(self) -> None:
        """Close every file; versions that answers still hold are read before."""
        try:
            self.tracker.close()
            self.answers.close()
            self.texts.close()
            self.vectors.close()
        finally:
            self.log.close()


class Handle:
    """A way into an open database, which reads where it stands."""

    def __init__(self, parts: Parts, at: Cut | None = None) -> None:
        """Stand at a moment, or for None at the present, whenever that is."""
        self._at = at
        self._until = FOREVER if at is None else at.seq  # the last entry there is from here
        self._parts = parts
        self._log, self._intents = parts.log, parts.intents
        self._vectors, self._texts = parts.vectors, parts.texts
        self._causality, self._answers = parts.causality, parts.answers
        self._layers = parts.layers
        self._tracker, self._sample = parts.tracker, parts.tracker.sample

    def _cut(self, as_of: AsOf) -> Cut:
        """The moment that one call reads at.

        Raises:
            InvalidTimestampError: `as_of` is none, or lies after the moment of a view.
        """
        here = self._at
        if here is None:
            return self._log.cut(as_of)
        if as_of is None:
            return here
        cut = self._log.cut(as_of)
        if cut.seq > here.seq or cut.clock > here.clock:
            raise InvalidTimestampError(
                repr(as_of),
                f"lies after this view, which is of {moment(here.clock).isoformat()}; "
                "ask the database itself",
            )
        return cut

    def _moment(self, namespace: str, as_of: AsOf, valid_at: When | None) -> tuple[Cut, int]:
        """The cut and valid time of a search, query or list.

        Raises:
            ErasedError: a moment behind what the namespace retains.
        """
        cut = self._cut(as_of)
        at = valid_clock(valid_at, cut)
        if as_of is not None or valid_at is not None or self._at is not None:
            self._log.check_window(namespace, cut, at)
        return cut, at
