"""Searching: by vectors, by words, by both; why a hit was found, and how answers changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from math import isfinite
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from koru_delta.causal import Cut, Version, When, check_kept, microseconds, moment
from koru_delta.database.arguments import (
    check_mode,
    check_namespace,
    check_search,
    group_path,
    half_life_microseconds,
    valid_clock,
)
from koru_delta.database.handle import Handle
from koru_delta.errors import (
    InvalidDataError,
    InvalidTimestampError,
    ModelMismatchError,
    QueryError,
    UnknownVersionError,
)
from koru_delta.intents import DEFAULT_MODEL
from koru_delta.log.moments import AsOf
from koru_delta.search.answers import Match, Matches
from koru_delta.search.causality import CausalFilter, valid_time
from koru_delta.search.difference import RetrievalDiff, compare
from koru_delta.search.explained import explained, of_similar
from koru_delta.search.filters import Filter, compiled
from koru_delta.search.fusion import Fusion, Mode, checked_weights
from koru_delta.search.hybrid import Asked, Cursor, Question, digest_of, window_of
from koru_delta.search.nearest import VectorSpace
from koru_delta.search.scoring import Target
from koru_delta.search.synthesis.explanation import Explanation
from koru_delta.search.text.queries import excludes, is_bounded, meaning
from koru_delta.values import Vector, VectorLike, as_matrix, as_vector


class SearchVerbs(Handle):
    """What answers a question best at a moment."""

    def similar(
        self,
        namespace: str,
        query: VectorLike | str,
        *,
        k: int = 10,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
        explain: bool = False,
    ) -> Matches:
        """Find the keys whose vectors are most like the query.

        Args:
            query: Shape (dimensions,), or text for the database's embedder.
            k: At most this many; 0 finds nothing.
            filter: Applied before the best `k` are chosen.
            causal: Likewise; chooses by where a version comes from (see `CausalFilter`).
            model: May be left out where the namespace has one model at that moment, and of a
                text, which is the open embedder's: naming another says that it is the same.
            threshold: Keep hits with `score >= threshold`.
            exact: Compare every row: the answer a database built anew would give.
            recall: In (0, 1]; the share of the true best `k` to find on average. Above
                .99 every search is exact.
            explain: Explain every hit at once; else `hit.explanation` does when asked.

        Returns:
            Best first; equal scores in key order, so a search can be repeated exactly.
            `score` is the cosine in [-1, 1], the dot product, or minus the Euclidean
            distance, as the namespace's metric says; scores are exact in every plan. There
            are `min(k, rows that pass)` hits, always. The answer says how it was found:
            `plan`, `approximate`, `considered`.

        Raises:
            DimensionMismatchError, ModelMismatchError, QueryError, EmbedderError.
        """
        check_namespace(namespace)
        k = check_search(k, threshold, recall)
        where = None if filter is None else compiled(filter)
        only = None
        if causal is not None:
            valid_at = valid_time(causal, valid_at)
        cut, at = self._moment(namespace, as_of, valid_at)
        if causal is not None:
            only = self._causality.compile(causal, namespace, cut)
        target = self._target(query)
        space = self._space(namespace, model, cut, at, text=isinstance(query, str))
        if space is None:
            return Matches()
        found = space.search(
            target, k, cut, at, where=where, causal=only, threshold=threshold,
            recall=1.0 if exact else recall,
        )  # fmt: skip
        matches = self._answers.of(found, of_similar(self._log, space, cut, found.hits))
        self._tracker.found(namespace, matches)
        return matches.load(explain=True) if explain else matches

    def similar_many(
        self,
        namespace: str,
        queries: Sequence[VectorLike | str] | npt.NDArray[Any],
        *,
        k: int = 10,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
        threshold: float | None = None,
        exact: bool = False,
        recall: float = 0.95,
        explain: bool = False,
    ) -> list[Matches]:
        """What `similar` finds for each of several queries, at one moment, on all cores.

        Args:
            queries: Shape (n, dimensions), or texts for the database's embedder.
        """
        check_namespace(namespace)
        k = check_search(k, threshold, recall)
        if isinstance(queries, (str, bytes)):
            raise InvalidDataError("queries is a list of them; for one query there is similar()")
        if not isinstance(queries, Sequence) and not hasattr(queries, "__array__"):
            raise InvalidDataError(f"queries is a list or an array, not {type(queries).__name__}")
        given: Any = queries
        if not isinstance(given, (Sequence, np.ndarray)):
            try:  # such as a tensor
                queries = np.asarray(given)
            except ValueError as error:
                raise InvalidDataError(f"queries cannot be read as an array: {error}") from error
        if isinstance(queries, np.ndarray) and not queries.ndim:
            raise InvalidDataError("queries is a list of vectors, this is a single number")
        where = None if filter is None else compiled(filter)
        cut, at = self._moment(namespace, as_of, valid_time(causal, valid_at))
        only = self._causality.compile(causal, namespace, cut)
        if not len(queries):
            return []
        texts = isinstance(queries[0], str)
        targets = self._query_matrix(queries)
        space = self._space(namespace, model, cut, at, text=texts)
        if space is None:
            return [Matches() for _ in queries]
        found = space.search_many(
            targets, k, cut, at, where=where, causal=only, threshold=threshold,
            recall=1.0 if exact else recall,
        )  # fmt: skip
        every = [
            self._answers.of(one, of_similar(self._log, space, cut, one.hits)) for one in found
        ]
        for matches in every:
            self._tracker.found(namespace, matches)
        return [matches.load(explain=True) for matches in every] if explain else every

    def search(
        self,
        namespace: str,
        text: str,
        *,
        mode: Mode = "hybrid",
        k: int = 10,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        model: str | None = None,
        vector: VectorLike | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: Fusion = "score",
        mmr: float | None = None,
        half_life: float | timedelta | None = None,
        group_by: str | None = None,
        threshold: float | None = None,
        cursor: str | None = None,
        syntax: bool = True,
        exact: bool = False,
        recall: float = 0.95,
        explain: bool = False,
    ) -> Matches:
        """Find the keys that answer a text best: by words, by meaning, or both fused.

        Filters, the moment and what has been superseded are applied before the best are
        taken: there are `min(k, matches)` hits, always.

        Args:
            text: A question, or words: `"a phrase"`, `prefix*`, `+must`, `-not`. What must be
                in a text, or must not, holds for every hit of "text" and "hybrid"; a vector
                is made of the words alone. Blank text, or one that only excludes, finds
                nothing without `vector`.
            mode: "text" ranks by BM25 over the texts that are visible at that moment, "vector"
                as `similar` does, "hybrid" fuses both. Where a namespace has no vectors, or a
                text none of the words, hybrid is what the other leg finds.
            vector: Shape (dimensions,); in the place of what the database's embedder makes
                of the text.
            weights: Of the legs "vector" and "text", 1 each by default; 0 leaves a leg out.
            fusion: Of each leg's best 30 or 3 k. "score" adds their weighted scores, scaled to
                [0, 1]: it found more in every set measured. "rrf" adds weight / (60 + rank).
                What lies deeper is fused by itself, and comes after.
            mmr: In [0, 1]: choose by maximal marginal relevance among those best; 1 is by
                relevance alone, 0 by difference alone. Cosines count as they are, other scores
                scaled to [0, 1]. Not for pages.
            half_life: Seconds (or a timedelta) after which a score counts half, from when
                the version began to be true; scores below 0 stay. The best 50 or 3 k are put
                in order anew, then what lies deeper.
            group_by: A dotted path into the value; only the best hit of those that say the
                same there is kept. What lacks the path is a group of its own.
            threshold: Keep hits with `score >= threshold`, whatever the mode's score is.
            cursor: `cursor` of the page before, of this database or a copy of it, in any
                process. All else but `k` must be as it was; the moment is that of the first
                page. Pages after the first compare every row.
            syntax: False takes the text as it is, with no operators.
            exact, recall, explain, model, filter, causal, as_of, valid_at: As for `similar`.

        Returns:
            Best first; equal scores in key order. `score` is the fused one in "hybrid", BM25
            in "text", that of `similar` in "vector".

        Raises:
            QueryError, DimensionMismatchError, ModelMismatchError, EmbedderError.
        """
        question = self._question(
            namespace, text, mode=mode, k=k, filter=filter, causal=causal, as_of=as_of,
            valid_at=valid_at, model=model, vector=vector, weights=weights, fusion=fusion,
            mmr=mmr, half_life=half_life, group_by=group_by, threshold=threshold, cursor=cursor,
            syntax=syntax, recall=1.0 if exact else recall,
        )  # fmt: skip
        ranked = question.ranked(self._log)
        matches = self._answers.ranked(ranked, partial(explained, question, ranked, self._log))
        self._tracker.found(namespace, matches)
        return matches.load(explain=True) if explain else matches

    def similar_at(
        self, namespace: str, query: VectorLike | str, timestamp: AsOf, top_k: int = 10
    ) -> Matches:
        """Search as of a moment: `similar(namespace, query, as_of=timestamp, k=top_k)`."""
        return self.similar(namespace, query, as_of=timestamp, k=top_k)

    def embed_search(self, namespace: str, query: str, top_k: int = 10) -> Matches:
        """Search by the embedding of a text: `similar(namespace, query, k=top_k)`."""
        return self.similar(namespace, query, k=top_k)

    def explain(self, hit: Match) -> Explanation:
        """Why a hit of a search was found and stands where it stands: `hit.explanation`.

        Raises:
            QueryError: the hit does not come from a search of this process.
        """
        found = hit.explanation
        if found is None:
            raise QueryError("this match came without its search; search again, and explain that")
        return found

    def retrieval_diff(
        self,
        namespace: str,
        query: VectorLike | str,
        t1: AsOf,
        t2: AsOf = None,
        *,
        axis: Literal["as_of", "valid_at"] = "as_of",
        k: int = 10,
        mode: Mode | None = None,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        model: str | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: Fusion = "score",
        syntax: bool = True,
    ) -> RetrievalDiff:
        """How the answer to a question changed from `t1` to `t2` (now, by default), and why.

        Each hit that entered, left, moved, or has another version has its causes, each with
        the version that did it. They are tried: the question is asked again as of `t2`, with
        those keys as they were at `t1`; `verified` says whether that undoes the change.

        Args:
            query: Text, or a vector for a search by vector alone.
            axis: "as_of" compares what was known at two moments, "valid_at" what was true at
                two times, by what is known now.
            mode: "hybrid" for text, "vector" for a vector.

        Raises:
            QueryError: `t1` is None or later than `t2`, or those of `search`.
        """
        if axis not in ("as_of", "valid_at"):
            raise QueryError(f"axis is 'as_of' or 'valid_at', not {axis!r}")
        if t1 is None:
            raise QueryError(
                "t1 is the earlier moment, and None means now; give a time with a time zone, a "
                "Version or its id"
            )
        text = query if isinstance(query, str) else ""
        vector = None if isinstance(query, str) else as_vector(query)
        chosen: Mode = mode or ("hybrid" if vector is None else "vector")
        now = self._cut(None)
        if axis == "as_of":
            cuts = [self._cut(t1), now if t2 is None else self._cut(t2)]
            times = [cut.clock for cut in cuts]
        else:
            cuts = [now, now]
            times = [self._time_of(t) for t in (t1, now if t2 is None else t2)]
        if times[0] > times[1] or cuts[0].seq > cuts[1].seq:
            raise QueryError("t1 is later than t2; give the earlier moment first")
        asked = [
            self._question(
                namespace, text, mode=chosen, k=k, filter=filter, causal=causal, as_of=cut,
                valid_at=moment(time) if axis == "valid_at" else None, model=model, vector=vector,
                weights=weights, fusion=fusion, syntax=syntax, recall=1.0,
            )
            for cut, time in zip(cuts, times, strict=True)
        ]  # fmt: skip
        index = self._texts.index(namespace, cuts[1])
        return compare(self._log, self._texts.records(namespace), index, self._answers, *asked)

    def vectors(self, version: Version | str) -> dict[str, Vector]:
        """The vectors a version carries, per model: float32, as they were stored.

        Raises:
            ErasedError: they were erased, if it carried any.
        """
        if isinstance(version, Version):  # it was checked when it was read; is it of this log?
            seq = self._log.engine.seq_of(bytes.fromhex(version.id))
            if seq is None or seq > self._until:
                raise UnknownVersionError(f"version {version.id}")
        else:
            seq = self._log.version(version, until=self._until).seq
        rows = self._log.engine.vectors_at(seq)
        if not rows:
            found = self._log.versions([seq])[0]
            if found.vectors:
                check_kept(found)
        return {model: np.frombuffer(data, dtype="<f4").copy() for model, _, _, _, data in rows}

    def models(
        self, namespace: str, *, as_of: AsOf = None, valid_at: When | None = None
    ) -> dict[str, int]:
        """How many keys have a vector of each model, oldest model first; none has zero.

        Vectors that were given no model are under "default".
        """
        check_namespace(namespace)
        cut, at = self._moment(namespace, as_of, valid_at)
        known = map(self._vectors.open, self._vectors.known(namespace, cut))
        counts = {space.space.model: space.count(cut, at) for space in known}
        return {model: count for model, count in counts.items() if count}

    def _time_of(self, given: AsOf) -> int:
        """A valid time: a time itself, or the clock of whatever else names a moment."""
        if isinstance(given, (datetime, str)):
            try:
                return microseconds(given)
            except InvalidTimestampError:
                if not isinstance(given, str):
                    raise
        return self._log.cut(given).clock

    def _question(
        self,
        namespace: str,
        text: str,
        *,
        mode: Mode,
        k: int,
        filter: Filter | None,
        causal: CausalFilter | None,
        as_of: AsOf,
        valid_at: When | None,
        model: str | None,
        vector: VectorLike | None,
        weights: Mapping[str, float] | None,
        fusion: Fusion,
        syntax: bool,
        recall: float,
        mmr: float | None = None,
        half_life: float | timedelta | None = None,
        group_by: str | None = None,
        threshold: float | None = None,
        cursor: str | None = None,
    ) -> Question:
        """A search, checked, with its moment resolved and the readings it goes to."""
        check_namespace(namespace)
        k = check_search(k, threshold, recall)
        legs = check_mode(mode, fusion, mmr, text)
        if mmr is not None and cursor is not None:
            raise QueryError("mmr chooses among one page; leave cursor out, and ask for more (k)")
        chosen = checked_weights(weights, legs)
        where = None if filter is None else compiled(filter)
        valid_at = valid_time(causal, valid_at)
        digest = digest_of(
            {
                "namespace": namespace, "text": text, "mode": mode, "filter": filter,
                "causal": None if causal is None else causal.facts(), "model": model,
                "weights": chosen, "fusion": fusion, "group": group_by,
                "threshold": threshold, "half_life": half_life, "syntax": syntax,
                "vector": None if vector is None else as_vector(vector).tobytes(),
            }
        )  # fmt: skip
        page = None if cursor is None else Cursor.read(cursor, self._log.root_of)
        if page is None:
            cut, at = self._moment(namespace, as_of, valid_at)
        else:
            if page.asked != digest:
                raise QueryError("this cursor is of another question; ask as for the first page")
            cut, at = page.cut, page.valid_at
            if (as_of is not None or self._at is not None) and self._cut(as_of) != cut:
                raise QueryError(
                    "this cursor is of another moment than as_of; leave as_of out: every page is "
                    "of the first one's moment"
                )
            if valid_at is not None and valid_clock(valid_at, cut) != at:
                raise QueryError("this cursor is of another valid_at; leave valid_at out")
            self._log.check_window(namespace, cut, at)
        target: Target | None = None
        space: VectorSpace | None = None
        said, bounded = text, False
        if mode == "hybrid" and syntax:
            said, bounded = meaning(text), is_bounded(text)
            if not said and not excludes(text):
                said = text  # empty quotes, say
        if chosen.get("vector") and (vector is not None or said.strip()):
            meant = said if vector is None else vector
            if vector is not None or self._intents.embedder is not None:
                space = self._space(namespace, model, cut, at, text=vector is None)
            elif self._vectors.known(namespace, cut):
                self._target(meant)  # raises, and says what to do
            if space is not None:
                target = self._target(meant)
        if mmr is not None and space is None:  # to tell what is alike
            space = self._space(namespace, model, cut, at, text=vector is None and mode != "text")
        return Question(
            Asked(
                namespace, text, k, cut, at, where,
                self._causality.compile(causal, namespace, cut),
                {name: weight for name, weight in chosen.items() if weight}, fusion,
                None if mmr is None else float(mmr), threshold,
                None if group_by is None else group_path(group_by),
                half_life_microseconds(half_life),
                syntax, bounded, recall, page, digest, page.window if page else window_of(k),
            ),
            self._texts.index(namespace, cut) if chosen.get("text") or bounded else None,
            space,
            target,
        )  # fmt: skip

    def _space(
        self, namespace: str, model: str | None, cut: Cut, valid_at: int, *, text: bool
    ) -> VectorSpace | None:
        """The vectors a search means: those of the embedder's model, for text."""
        embedder = self._intents.embedder
        if text and model is None and embedder is not None:
            known = self._vectors.known(namespace, cut)
            alive = []
            for space in map(self._vectors.open, known):
                if space.count(cut, valid_at):
                    if space.space.model == embedder.name:
                        return space
                    alive.append(space.space.model)
            if any(model != DEFAULT_MODEL for model in alive):
                # This embedder's vectors mean something else, however long they are.
                raise ModelMismatchError(namespace, embedder.name, tuple(alive))
        return self._vectors.space(namespace, model, cut, valid_at)

    def _target(self, query: VectorLike | str) -> Target:
        """A query, checked and made ready."""
        if type(query) is np.ndarray and query.dtype == np.float32 and query.ndim == 1:
            target = Target.of(query)
            if len(query) and isfinite(target.square):
                return target
        return Target.of(self._query_vector(query))

    def _query_vector(self, query: VectorLike | str) -> Vector:
        if not isinstance(query, str):
            return as_vector(query)
        if self._intents.embedder is None:
            return self._intents.embed_texts([query])[0]  # raises, and says what to do
        return as_vector(self._intents.embedder.embed_query(query))

    def _query_matrix(self, queries: Any) -> npt.NDArray[np.float32]:
        texts = [isinstance(query, str) for query in queries]
        if not any(texts):
            return as_matrix(queries)
        if not all(texts):
            raise InvalidDataError("queries are all texts or all vectors, not some of each")
        return as_matrix([self._query_vector(query) for query in queries])
