"""Choosing memories for a recall: by what they are, and by how relevant they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from math import log1p
from typing import Any, Final

import numpy as np

from koru_delta.causal import When
from koru_delta.errors import QueryError
from koru_delta.log.moments import AsOf
from koru_delta.search.answers import Match
from koru_delta.search.causality import CausalFilter
from koru_delta.search.filters import Filter
from koru_delta.search.text.analysis import Analyzer
from koru_delta.values import Vector
from koru_delta.workspace.recollection import TYPES
from koru_delta.workspace.workspace import Workspace

_MOST_TERMS: Final = 512  # that are searched: more take long, and tell little


class Relevance:
    """How relevant hits of a search are to its question: by cosine, and by words they share.

    A word weighs as much as BM25 has it: one that every memory has next to nothing, one that
    none has the most. So what shares only "the" with a question is not relevant to it.

    `question` is what to search by words: of a long one its beginning and its end.
    """

    def __init__(
        self,
        workspace: Workspace,
        namespace: str,
        question: str,
        vector: Vector | None,
        as_of: AsOf,
        valid_at: When | None,
    ) -> None:
        self._workspace, self._vector = workspace, vector
        db, whole = workspace.inside.db, workspace.inside.whole(namespace)
        words = workspace.inside.recorded.words(whole, as_of)
        self._analyzer = _analyzer(None if words is None else words.stemmer)
        self.question = _shortened(question, self._analyzer)
        terms = dict.fromkeys(self._analyzer.terms(self.question))
        # With a causal filter it counts what can be searched, and need not ask the log.
        count = db.count(whole, causal=CausalFilter(), as_of=as_of, valid_at=valid_at)
        self._weights: dict[str, float] = {}
        for term in terms:
            having = db.count(whole, text=term, as_of=as_of, valid_at=valid_at)
            self._weights[term] = log1p(max(0, count - having + 0.5) / (having + 0.5))
        self._total = sum(self._weights.values())

    def of(self, match: Match) -> float:
        """In [0, 1]; 0 is no match at all."""
        value: Any = match.value
        shared = set(self._analyzer.terms(" ".join([value["text"], *value.get("tags", ())])))
        words = sum(weight for term, weight in self._weights.items() if term in shared)
        share = words / self._total if self._total else 0.0
        return min(1.0, max(share, self._cosine(match)))

    def _cosine(self, match: Match) -> float:
        if self._vector is None:
            return 0.0
        known = match.scores.get("vector")
        if known is not None:
            return known
        model = self._workspace.settings.embedder
        held = self._workspace.inside.db.vectors(match.version).get(model or "")
        if held is None or len(held) != len(self._vector):
            return 0.0
        lengths = float(np.linalg.norm(held) * np.linalg.norm(self._vector))
        return float(np.dot(held, self._vector)) / lengths if lengths else 0.0


def _shortened(question: str, analyzer: Analyzer) -> str:
    while len(set(analyzer.terms(question))) > _MOST_TERMS:
        part = len(question) // 4
        question = f"{question[:part]} {question[-part:]}"
    return question


@cache
def _analyzer(stemmer: str | None) -> Analyzer:
    return Analyzer(stemmer)


def chosen_by(
    types: str | Iterable[str] | None, tags: str | Iterable[str] | None, session: str | None
) -> Filter | None:
    """What chooses memories, as a filter.

    Raises:
        QueryError: an argument that makes no sense.
    """
    clauses: list[Filter] = []
    if types is not None:
        wanted = _listed("types", types)
        for each in wanted:
            if each not in TYPES:
                raise QueryError(f"there is no type {each!r}; it is one of {', '.join(TYPES)}")
        clauses.append({"type": {"$in": wanted}})
    if tags is not None:
        clauses += [{"tags": {"$contains": tag}} for tag in _listed("tags", tags)]
    if session is not None:
        if not isinstance(session, str):
            raise QueryError(f"session is a string, not {session!r}")
        clauses.append({"session": session})
    return {"$and": clauses} if clauses else None


def _listed(what: str, given: object) -> list[str]:
    found = [given] if isinstance(given, str) else given
    if not isinstance(found, Iterable) or isinstance(found, (bytes, Mapping)):
        raise QueryError(f"{what} is a string or a list of them, not {given!r}")
    found = list(found)
    if not all(isinstance(each, str) for each in found):
        raise QueryError(f"{what} is a string or a list of them, not {given!r}")
    return found


def checked_share(what: str, given: object) -> float:
    """A share in [0, 1].

    Raises:
        QueryError: it is none.
    """
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= 1:
        raise QueryError(f"{what} is a number in [0, 1], not {given!r}")
    return float(given)


def checked_count(what: str, given: object) -> int:
    """A number of memories or tokens.

    Raises:
        QueryError: it is none.
    """
    if not isinstance(given, (int, np.integer)) or isinstance(given, bool) or given < 0:
        raise QueryError(f"{what} is a whole number from 0 on, not {given!r}")
    return int(given)
