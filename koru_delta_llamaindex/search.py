"""What a query of LlamaIndex asks of a database, mode by mode, and what its scores mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

import koru_delta
from koru_delta import CausalFilter, Match, Matches, View, When
from koru_delta_llamaindex.filters import both, filter_of
from koru_delta_llamaindex.keys import listed
from koru_delta_llamaindex.nodes import node_of

Scored = list[tuple[Match, float]]  # with a similarity in [0, 1]

RELEVANCE: Final = koru_delta.adapters.RELEVANCE
_BEST_RANKS: Final = 61  # one over what reciprocal ranks give to the first of both
_MOST: Final = 2**53  # more is no number of nodes
_WIDER: Final = 3  # times as many as are wanted are looked at before they are ordered again
_Mode = VectorStoreQueryMode
_MODES: Final = (
    _Mode.DEFAULT, _Mode.SPARSE, _Mode.TEXT_SEARCH, _Mode.HYBRID, _Mode.SEMANTIC_HYBRID, _Mode.MMR,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Search:
    """One query over a namespace as it stands at a moment.

    `given` are the keywords of `KoruDeltaVectorStore.query`, which go before the fields of the
    query; `valid_at` and `causal` hold where none are given.
    """

    view: View
    namespace: str
    model: str | None
    metric: str
    query: VectorStoreQuery
    given: Mapping[str, Any]
    valid_at: When | None
    causal: CausalFilter | None

    def run(self) -> Scored:
        """The hits, best first, as `KoruDeltaVectorStore.query` tells of them.

        Raises:
            QueryError: there is no such mode here, or a number is out of its range.
        """
        if not isinstance(self.query, VectorStoreQuery):
            raise koru_delta.errors.QueryError(
                f"a query is a VectorStoreQuery, not {type(self.query).__name__}"
            )
        query, mode, options = self.query, self._mode(), self._options()
        if mode is _Mode.DEFAULT:
            return self._by_vector(query.similarity_top_k, options)
        if mode is _Mode.MMR:
            return self._diverse(options)
        if mode is _Mode.TEXT_SEARCH:
            return self._by_words(query.similarity_top_k, options)
        if mode is _Mode.SPARSE:
            return self._by_words(_first(query.sparse_top_k, query.similarity_top_k), options)
        k = _whole(_first(query.hybrid_top_k, query.similarity_top_k))
        if mode is _Mode.HYBRID:
            return self._fused(k, options)
        ids = [node_of(match.value).node_id for match, _ in self._fused(_WIDER * k, options)]
        best = both(options.get("filter"), {("id",): {"$in": ids}})
        return self._by_vector(k, {**options, "filter": best})

    # The ways of searching

    def _by_vector(self, k: int, options: Mapping[str, Any]) -> Scored:
        return self._relevant(self.view.similar(self.namespace, self._vector(), k=k, **options))

    def _diverse(self, options: Mapping[str, Any]) -> Scored:
        k, wider = _whole(self.query.similarity_top_k), self.given.get("mmr_prefetch_k")
        factor = self.given.get("mmr_prefetch_factor")
        for name, number in (("mmr_prefetch_k", wider), ("mmr_prefetch_factor", factor)):
            finite = isinstance(number, (int, float)) and abs(number) < _MOST
            if number is not None and not finite:
                raise koru_delta.errors.QueryError(f"{name} is a number, not {number!r}")
        if factor is not None:
            if wider is not None:
                raise koru_delta.errors.QueryError(
                    "pass mmr_prefetch_k or mmr_prefetch_factor, not both"
                )
            wider = math.ceil(k * factor)
        # A search chooses among three times what it is asked for, and one after the other: the
        # first of more are the first of fewer.
        among = k if wider is None or k == 0 else max(k, math.ceil(wider / _WIDER))
        found = self.view.search(
            self.namespace, "", mode="vector", vector=self._vector(), k=among,
            mmr=_first(self.given.get("mmr_threshold"), self.query.mmr_threshold, 0.5), **options,
        )  # fmt: skip
        del found[k:]
        return self._relevant(found)

    def _by_words(self, k: int, options: Mapping[str, Any]) -> Scored:
        found = self.view.search(
            self.namespace, self._words(), mode="text", k=k,
            syntax=self.given.get("syntax", False), **options,
        )  # fmt: skip
        return [(match, koru_delta.adapters.of_bm25(match.score)) for match in found]

    def _fused(self, k: int, options: Mapping[str, Any]) -> Scored:
        alpha = _first(self.given.get("alpha"), self.query.alpha, 0.5)
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
            raise koru_delta.errors.QueryError(
                f"alpha is the weight of the embedding, from 0 (words only) to 1, not {alpha!r}"
            )
        if alpha == 0:
            return self._by_words(k, options)
        if alpha == 1:
            return self._by_vector(k, options)
        fusion = self.given.get("fusion", "score")
        found = self.view.search(
            self.namespace, self._words(), mode="hybrid", vector=self._vector(), k=k,
            weights={"vector": alpha, "text": 1 - alpha}, fusion=fusion,
            syntax=self.given.get("syntax", False), **options,
        )  # fmt: skip
        best = _BEST_RANKS if fusion == "rrf" else 1
        return [(match, min(1.0, best * match.score)) for match in found]

    # Parts of the above

    def _relevant(self, found: Matches) -> Scored:
        """Hits by vector with the relevance of their scores."""
        if found:
            vectors = found[0].version.vectors
            # Where none is named, the search has made sure that there is but one.
            model = self.model or next(iter(vectors))
            metric = vectors[model]["metric"]
            if metric != self.metric:  # its scores would be turned into relevance wrongly
                raise koru_delta.errors.MetricMismatchError(
                    self.namespace, model, str(metric), self.metric
                )
        relevance = RELEVANCE[self.metric]
        return [(match, relevance(match.score)) for match in found]

    def _options(self) -> dict[str, Any]:
        """What every way of searching is asked with."""
        query, given = self.query, self.given
        where = filter_of(query.filters)
        if given.get("filter") is not None:
            where = both(where, koru_delta.prefixed(given["filter"], "metadata"))
        if query.doc_ids:
            where = both(
                where, {("ref_doc_id",): {"$in": listed("doc_ids", query.doc_ids, of=str)}}
            )
        if query.node_ids:
            where = both(where, {("id",): {"$in": listed("node_ids", query.node_ids, of=str)}})
        asked = {
            "filter": where, "valid_at": _first(given.get("valid_at"), self.valid_at),
            "causal": _first(given.get("causal"), self.causal),
            "exact": given.get("exact"), "recall": given.get("recall"),
        }  # fmt: skip
        kept = {name: value for name, value in asked.items() if value is not None}
        return {"model": self.model, **kept}

    def _mode(self) -> VectorStoreQueryMode:
        given: object = self.query.mode
        for mode in _MODES:
            if given == mode:
                return mode
        name = given.value if isinstance(given, VectorStoreQueryMode) else given
        raise koru_delta.errors.QueryError(
            f"there is no query mode {name!r} here; it is one of "
            f"{', '.join(mode.value for mode in _MODES)}"
        )

    def _vector(self) -> list[float]:
        if self.query.query_embedding is None:
            raise koru_delta.errors.QueryError(
                f"a query of mode {self._mode().value!r} needs a query_embedding; the question was "
                "empty, or nothing embedded it"
            )
        return self.query.query_embedding

    def _words(self) -> str:
        if self.query.query_str is None:
            raise koru_delta.errors.QueryError(
                f"a query of mode {self._mode().value!r} needs a query_str"
            )
        return self.query.query_str


def _whole(k: Any) -> int:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise koru_delta.errors.QueryError(f"top_k is a whole number, not {k!r}")
    return int(k)


def _first(*given: Any) -> Any:
    """The first that is not None."""
    return next((each for each in given if each is not None), None)
