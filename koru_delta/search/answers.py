"""What a search gives back: keys and scores at once, versions and values when asked for.

An answer names versions by their places in the log, and a version never changes; so
reading them later gives the same as reading them now. The first one asked for reads all
of its answer in one step.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from koru_delta.causal import Version
from koru_delta.errors import DatabaseClosedError, KoruDeltaError
from koru_delta.log import CausalLog
from koru_delta.search.hybrid import Cursor, Ranked
from koru_delta.search.nearest import Found
from koru_delta.values import Value

if TYPE_CHECKING:
    from koru_delta.search.synthesis.explanation import Explanation


class _Load:
    """The versions of one answer, read together."""

    __slots__ = ("__weakref__", "explanations", "log", "scores", "seqs", "versions", "why")

    def __init__(
        self,
        log: CausalLog,
        seqs: Sequence[int],
        why: Callable[[], list[Explanation]] | None,
        scores: Sequence[Mapping[str, float]] | None,
    ) -> None:
        self.log = log
        self.seqs = seqs
        self.why = why
        self.scores = scores
        self.versions: list[Version] | None = None
        self.explanations: list[Explanation] | None = None

    def get(self, place: int) -> Version:
        versions = self.versions
        if versions is None:
            versions = self.versions = self.log.versions(self.seqs)
        return versions[place]

    def explain(self, place: int) -> Explanation | None:
        if self.explanations is None:
            if self.why is None:
                return None
            self.explanations = self.why()
        return self.explanations[place]


class Match:
    """A hit of a search: the key, how well it matches (higher is better), what it held.

    `version` and `value` are read when first asked for, and checked against their hashes
    then; they are as of the search, whatever was written since.
    """

    __match_args__ = ("key", "score", "version", "value")
    __slots__ = ("_load", "_place", "_value", "key", "score")

    def __init__(self, key: str, score: float, load: _Load, place: int) -> None:
        """Made by searches."""
        self.key = key
        self.score = score
        self._load = load
        self._place = place

    @property
    def version(self) -> Version:
        """The version that was found.

        Raises:
            CorruptionError: its stored bytes do not match their hash.
        """
        return self._load.get(self._place)

    @property
    def value(self) -> Value:
        """What the key held; the same object at each access."""
        try:
            return self._value
        except AttributeError:
            self._value: Value = self.version.value
            return self._value

    @property
    def scores(self) -> Mapping[str, float]:
        """What the legs of a `search` that ranked it gave it: a cosine, say, and a BM25 score."""
        scores = self._load.scores
        return {} if scores is None else dict(scores[self._place])

    @property
    def explanation(self) -> Explanation | None:
        """Why it was found and stands where it stands: made when first asked for.

        None for a match that did not come from a search of this process.

        Raises:
            DatabaseClosedError: the database was closed before anybody asked; search with
                `explain=True` to have it made at once.
        """
        return self._load.explain(self._place)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Match):
            return NotImplemented
        return (self.key, self.score, self.version) == (other.key, other.score, other.version)

    def __hash__(self) -> int:
        return hash((self.key, self.score))

    def __repr__(self) -> str:
        return f"Match(key={self.key!r}, score={self.score!r}, value={self.value!r})"

    def __reduce__(self) -> Any:
        return _again, (self.key, self.score, self.version)


class Matches(list[Match]):
    """The hits of one search, best first, and how they were found.

    `plan` is the way: "gather", "packed", "scan" and "bounds" compare every row that may be found,
    "graph" and "codes" look at a part and compare what is promising, "none" had nothing
    to look at; "bm25" scored every text that has one of the words, "graph+bm25" is both.
    `approximate` says whether a better hit may be missing (every score and
    the order are exact all the same). `considered` is how many rows passed every filter.
    `cursor` leads a `search` on to the next page; None where there is none.
    """

    __slots__ = ("approximate", "considered", "cursor", "plan")

    def __init__(
        self,
        hits: Iterable[Match] = (),
        *,
        plan: str = "none",
        approximate: bool = False,
        considered: int = 0,
        cursor: str | None = None,
    ) -> None:
        super().__init__(hits)
        self.cursor = cursor
        self.plan = plan
        self.approximate = approximate
        self.considered = considered

    def load(self, *, explain: bool = False) -> Matches:
        """Read every hit's version now, in one step; returns the answer itself.

        Args:
            explain: Make the explanations too.
        """
        if self:
            _ = self[0].version
            if explain:
                _ = self[0].explanation
        return self


class Answers:
    """Makes matches of what was found; `close` reads what is still to be read."""

    def __init__(self, log: CausalLog) -> None:
        self._log = log
        self._open: set[weakref.ref[_Load]] = set()
        self._closing = False

    def of(self, found: Found, why: Callable[[], list[Explanation]] | None = None) -> Matches:
        """The matches of one answer; `why` explains them."""
        hits, way, approximate, considered = found
        matches: list[Match] = []
        if hits:
            load = self._load([hit[2] for hit in hits], why)
            matches = [Match(key, -least, load, n) for n, (least, key, _) in enumerate(hits)]
        return Matches(matches, plan=way, approximate=approximate, considered=considered)

    def ranked(self, found: Ranked, why: Callable[[], list[Explanation]]) -> Matches:
        """The matches of one search over several legs; `why` explains them."""
        matches: list[Match] = []
        if found.candidates:
            load = self._load(
                [each.seq for each in found.candidates], why,
                [each.scores for each in found.candidates],
            )  # fmt: skip
            matches = [
                Match(each.key, each.score, load, n) for n, each in enumerate(found.candidates)
            ]
        return Matches(
            matches, plan=found.plan, approximate=found.approximate, considered=found.considered,
            cursor=None if found.cursor is None else self._written(found.cursor),
        )  # fmt: skip

    def _written(self, cursor: Cursor) -> str:
        return cursor.written(self._log.root_of(cursor.cut))

    def _load(
        self,
        seqs: Sequence[int],
        why: Callable[[], list[Explanation]] | None,
        scores: Sequence[Mapping[str, float]] | None = None,
    ) -> _Load:
        load = _Load(self._log, seqs, why, scores)
        if self._closing:
            load.get(0)  # there may be no later
        self._open.add(weakref.ref(load, self._open.discard))
        return load

    def close(self) -> None:
        """Read the versions of answers that somebody still holds, before the log is closed."""
        self._closing = True
        for reference in self._open.copy():  # in one step: others may add to it
            load = reference()
            if load is not None and load.versions is None:
                try:
                    load.get(0)
                except KoruDeltaError:
                    continue  # whoever asks for it hears that the database is closed


def _again(key: str, score: float, version: Version) -> Match:
    load = _Load(_NO_LOG, (), None, None)
    load.versions = [version]
    return Match(key, score, load, 0)


class _NoLog:
    """Stands for the log in a match that was sent elsewhere with its version."""

    def versions(self, _seqs: Sequence[int]) -> list[Version]:
        raise DatabaseClosedError("this match came without its log")


_NO_LOG: Any = _NoLog()
