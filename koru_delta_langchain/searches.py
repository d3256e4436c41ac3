"""The searches of a vector store: by meaning, by words, by both, at any moment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores.utils import maximal_marginal_relevance

import koru_delta
from koru_delta import AsOf, CausalFilter, Database, Filter, Match, Matches, View, When, prefixed
from koru_delta_langchain.documents import annotate, document_of
from koru_delta_langchain.embedding import Embedder, KoruDeltaEmbeddings, VectorLike, embedding_of
from koru_delta_langchain.home import Home

Metric: TypeAlias = Literal["cosine", "dot", "l2"]
Mode: TypeAlias = Literal["vector", "hybrid", "text"]

MODES: Final = ("vector", "hybrid", "text")
BY_VECTOR: Final = (
    "filter", "as_of", "valid_at", "score_threshold", "causal", "half_life", "group_by", "exact",
    "include_provenance", "explain",
)  # fmt: skip
check_options: Final = koru_delta.adapters.check_options
SEARCHING: Final = (*BY_VECTOR, "mode", "weights", "fusion", "syntax")
_RELEVANCE: Final = koru_delta.adapters.RELEVANCE
_UNNAMED: Final = "default"  # the model of vectors that were given none
_DAMPING: Final = 60  # of reciprocal ranks, as `Database.search` tells of them


class Searches(Home):
    """All that a vector store can be asked, over the documents of a namespace."""

    def __init__(
        self,
        embedding: Embeddings | Embedder | None,
        namespace: str,
        database: Database | None,
        path: str | os.PathLike[str] | None,
        model: str | None,
        metric: Metric,
        mode: Mode,
    ) -> None:
        """Check the arguments, which are told of in `KoruDeltaVectorStore`, then open."""
        if metric not in tuple(_RELEVANCE):
            raise koru_delta.errors.QueryError(
                f"unknown metric {metric!r}; the metrics are {', '.join(_RELEVANCE)}"
            )
        _checked_mode(mode)
        self._embedding = embedding_of(embedding, database)
        super().__init__(namespace, database, path)
        self._model = model
        self._called = koru_delta.embedders.model_of(self._embedding)
        self._metric: Metric = metric
        self._mode: Mode = mode

    @property
    def embeddings(self) -> Embeddings:
        """What turns texts into vectors, as LangChain expects it."""
        if isinstance(self._embedding, Embeddings):
            return self._embedding
        return KoruDeltaEmbeddings(self._embedding)

    # By text

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` documents that answer the query best, best first; fewer where fewer match."""
        check_options("similarity_search", kwargs, SEARCHING)
        return _bare(self._ask(query, self._vector_of(query, kwargs), k, **kwargs))

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """As `similarity_search`."""
        check_options("asimilarity_search", kwargs, SEARCHING)
        return _bare(await self._aask(query, k, kwargs))

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search`, each document with its score: higher is better."""
        check_options("similarity_search_with_score", kwargs, SEARCHING)
        return self._ask(query, self._vector_of(query, kwargs), k, **kwargs)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`."""
        check_options("asimilarity_search_with_score", kwargs, SEARCHING)
        return await self._aask(query, k, kwargs)

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """`k` documents like the query and unlike each other, in the order they were chosen.

        Args:
            fetch_k: How many of the best to choose from; never fewer than `k`.
            lambda_mult: From 0, as different as can be, to 1, as alike to the query.

        Both likenesses are cosines of the stored vectors, whatever the metric; the
        candidates are the best by the metric. In the modes "hybrid" and "text" the likeness
        to the query is the score of the mode, and `fetch_k` is 50 or 3 k, whichever is more.

        Raises:
            InvalidDataError: the vectors have no direction, being zero.
        """
        check_options("max_marginal_relevance_search", kwargs, SEARCHING)
        vector = self._vector_of(query, kwargs)
        return self._diverse(query, vector, k, fetch_k, lambda_mult, **kwargs)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`."""
        check_options("amax_marginal_relevance_search", kwargs, SEARCHING)
        vector = await self._avector_of(query, kwargs)
        return await asyncio.to_thread(
            self._diverse, query, vector, k, fetch_k, lambda_mult, **kwargs
        )

    # By vector: as the above in the mode "vector"

    def similarity_search_by_vector(
        self, embedding: Sequence[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """As `similarity_search`, by a vector of the embedding's length."""
        check_options("similarity_search_by_vector", kwargs, BY_VECTOR)
        return _bare(self._ask("", embedding, k, mode="vector", **kwargs))

    async def asimilarity_search_by_vector(
        self, embedding: Sequence[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """As `similarity_search_by_vector`."""
        check_options("asimilarity_search_by_vector", kwargs, BY_VECTOR)
        return _bare(await asyncio.to_thread(self._ask, "", embedding, k, mode="vector", **kwargs))

    def similarity_search_with_score_by_vector(
        self, embedding: Sequence[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`, by a vector of the embedding's length."""
        check_options("similarity_search_with_score_by_vector", kwargs, BY_VECTOR)
        return self._ask("", embedding, k, mode="vector", **kwargs)

    async def asimilarity_search_with_score_by_vector(
        self, embedding: Sequence[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score_by_vector`."""
        check_options("asimilarity_search_with_score_by_vector", kwargs, BY_VECTOR)
        return await asyncio.to_thread(self._ask, "", embedding, k, mode="vector", **kwargs)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, by a vector of the embedding's length."""
        check_options("max_marginal_relevance_search_by_vector", kwargs, BY_VECTOR)
        return self._diverse("", embedding, k, fetch_k, lambda_mult, mode="vector", **kwargs)

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search_by_vector`."""
        check_options("amax_marginal_relevance_search_by_vector", kwargs, BY_VECTOR)
        return await asyncio.to_thread(
            self._diverse, "", embedding, k, fetch_k, lambda_mult, mode="vector", **kwargs
        )

    # Relevance

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _RELEVANCE[self._metric]

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        check_options("similarity_search_with_relevance_scores", kwargs, SEARCHING)
        return self._relevant(query, self._vector_of(query, kwargs), k, **kwargs)

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        check_options("asimilarity_search_with_relevance_scores", kwargs, SEARCHING)
        vector = await self._avector_of(query, kwargs)
        return await asyncio.to_thread(self._relevant, query, vector, k, **kwargs)

    def _relevant(
        self, text: str, vector: VectorLike | None, k: int, **options: Any
    ) -> list[tuple[Document, float]]:
        documents, found = self._answer(text, vector, k, **options)
        relevance = self._relevance(found, options)
        return [
            (document, relevance(match.score))
            for document, match in zip(documents, found, strict=True)
        ]

    def _relevance(self, found: Matches, options: Mapping[str, Any]) -> Callable[[float], float]:
        """What makes a relevance in [0, 1] of the scores of an answer, whatever they are."""
        by_words, by_vector = "bm25" in found.plan, found.plan != "bm25"
        if not by_words:
            return _RELEVANCE[self._metric]
        if not by_vector:
            return koru_delta.adapters.of_bm25
        weights = options.get("weights") or {}
        most = sum(weights.get(leg, 1.0) for leg in ("vector", "text"))
        if options.get("fusion", "score") == "rrf":
            most /= _DAMPING + 1
        return lambda score: min(1.0, max(0.0, score / most))

    # Parts of the above

    def _filed_under(
        self, reader: Database | View, *, valid_at: When | None = None, to_write: bool = False
    ) -> str | None:
        """The model to search and to write; None leaves it to the database.

        Raises:
            ModelMismatchError: others fill the namespace; what this embedding makes means
                something else.
        """
        if self._model is not None or self._called is None:
            return self._model
        filled = reader.models(self._namespace, valid_at=valid_at)
        if list(filled) == [_UNNAMED]:
            return _UNNAMED
        if filled and self._called not in filled:
            raise koru_delta.errors.ModelMismatchError(
                self._namespace, self._called, tuple(filled), to_write
            )
        return self._called

    def _vector_of(self, query: str, options: Mapping[str, Any]) -> VectorLike | None:
        """The vector to search with; words alone need none."""
        if options.get("mode", self._mode) == "text":
            return None
        _check_text(query)
        return self._embedding.embed_query(query)

    async def _avector_of(self, query: str, options: Mapping[str, Any]) -> VectorLike | None:
        if options.get("mode", self._mode) == "text":
            return None
        _check_text(query)
        return await self._embedding.aembed_query(query)

    async def _aask(
        self, query: str, k: int, options: Mapping[str, Any]
    ) -> list[tuple[Document, float]]:
        vector = await self._avector_of(query, options)
        return await asyncio.to_thread(self._ask, query, vector, k, **options)

    def _ask(
        self, text: str, vector: VectorLike | None, k: int, **options: Any
    ) -> list[tuple[Document, float]]:
        documents, found = self._answer(text, vector, k, **options)
        return [(document, match.score) for document, match in zip(documents, found, strict=True)]

    def _answer(
        self,
        text: str,
        vector: VectorLike | None,
        k: int,
        *,
        include_provenance: bool = False,
        explain: bool = False,
        **options: Any,
    ) -> tuple[list[Document], Matches]:
        found = self._find(text, vector, k, **options)
        return [self._shown(match, include_provenance, explain) for match in found], found

    def _shown(self, match: Match, include_provenance: bool, explain: bool) -> Document:
        document = document_of(self._namespace, match.key, match.value)
        if include_provenance or explain:
            annotate(document, match, provenance=include_provenance, explain=explain)
        return document

    def _find(
        self,
        text: str,
        vector: VectorLike | None,
        k: int,
        *,
        mode: Mode | None = None,
        filter: Filter | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        score_threshold: float | None = None,
        half_life: float | timedelta | None = None,
        group_by: str | None = None,
        exact: bool = False,
        mmr: float | None = None,
        **fused: Any,
    ) -> Matches:
        mode = self._mode if mode is None else _checked_mode(mode)
        where = None if filter is None else prefixed(filter, "metadata")
        reader = self._reader(as_of)
        model = None if mode == "text" else self._filed_under(reader, valid_at=valid_at)
        if mode != "text" and vector is None:
            raise koru_delta.errors.QueryError(
                f"a search by {mode} needs a vector; the embedding returned none, or None was given"
            )
        if group_by is not None and not isinstance(group_by, str):
            raise koru_delta.errors.QueryError(f"group_by is a dotted path, not {group_by!r}")
        plain = half_life is None and group_by is None and not fused
        if mode == "vector" and vector is not None and plain:
            found = reader.similar(
                self._namespace, vector, k=k, filter=where, causal=causal, valid_at=valid_at,
                model=model, threshold=score_threshold, exact=exact,
            )  # fmt: skip
        else:
            found = reader.search(
                self._namespace, text, mode=mode, k=k, filter=where, causal=causal,
                valid_at=valid_at, model=model, vector=vector, mmr=mmr, half_life=half_life,
                group_by=None if group_by is None else f"metadata.{group_by}",
                threshold=score_threshold, exact=exact, **{"syntax": False, **fused},
            )  # fmt: skip
        if found and mode != "text":
            # Where no model is named, the search has made sure that there is but one.
            vectors = found[0].version.vectors
            measured = vectors.get(model or next(iter(vectors), ""), {"metric": self._metric})
            if measured["metric"] != self._metric:  # relevance would be made of it wrongly
                raise koru_delta.errors.MetricMismatchError(
                    self._namespace, model or next(iter(vectors)), measured["metric"], self._metric
                )
        return found

    def _diverse(
        self,
        text: str,
        vector: VectorLike | None,
        k: int,
        fetch_k: int,
        lambda_mult: float,
        *,
        include_provenance: bool = False,
        explain: bool = False,
        **options: Any,
    ) -> list[Document]:
        if not isinstance(lambda_mult, (int, float)) or not 0 <= lambda_mult <= 1:
            raise koru_delta.errors.QueryError(
                f"lambda_mult is a number from 0 to 1, not {lambda_mult!r}"
            )
        for name, count in (("k", k), ("fetch_k", fetch_k)):
            if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
                raise koru_delta.errors.QueryError(f"{name} is a whole number, not {count!r}")
        chosen: list[Match]
        if vector is None or options.get("mode", self._mode) != "vector":
            chosen = self._find(text, vector, k, mmr=lambda_mult, **options)
        else:
            found = self._find(text, vector, max(k, fetch_k) if k > 0 else k, **options)
            chosen = [found[place] for place in self._spread(vector, found, lambda_mult, k)]
        return [self._shown(match, include_provenance, explain) for match in chosen]

    def _spread(self, vector: VectorLike, found: Matches, lambda_mult: float, k: int) -> list[int]:
        if not found:
            return []
        every = [self._database.vectors(match.version) for match in found]
        named = self._model or self._called
        model = named if named in every[0] else next(iter(every[0]))
        stored = [vectors[model] for vectors in every]
        candidates: Any = np.stack(stored).astype(np.float64)
        target = np.asarray(vector, dtype=np.float64)
        if not target.any() or not candidates.any(axis=1).all():
            raise koru_delta.errors.InvalidDataError(
                "marginal relevance compares directions, and a zero vector has none"
            )
        return maximal_marginal_relevance(target, candidates, lambda_mult, k)


def _check_text(query: object) -> None:
    if not isinstance(query, str):
        raise koru_delta.errors.QueryError(
            f"a query is text, not {type(query).__name__}; of a vector ask by_vector"
        )


def _checked_mode(mode: Mode) -> Mode:
    if mode not in MODES:
        raise koru_delta.errors.QueryError(
            f"unknown mode {mode!r}; the modes are {', '.join(MODES)}"
        )
    return mode


def _bare(scored: Iterable[tuple[Document, float]]) -> list[Document]:
    return [document for document, _ in scored]
