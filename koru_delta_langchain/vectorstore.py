"""A LangChain vector store in a KoruDelta database.

A document is one key of the store's namespace: `{"id": ..., "text": ..., "metadata": {...}}`
and its vector. Writing it again is a new version of the key, so what it was stays
readable with `as_of`. Metadata comes back equal to what was given (keys sorted), with
nothing else in it.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self, cast
from uuid import uuid4

import numpy as np

import koru_delta
from koru_delta import AsOf, Database, Filter, Match, View, When, prefixed

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance
except ModuleNotFoundError as error:
    raise koru_delta.errors.MissingExtraError("koru_delta_langchain", "langchain") from error

Embedder = koru_delta.embedders.Embedder
VectorLike = koru_delta.embedders.VectorLike
Metric = Literal["cosine", "dot", "l2"]

_MAX_KEY_BYTES: Final = 1024
_HASHED: Final = "id-sha256:"  # starts the keys of ids that cannot be keys themselves
_OPENING: Final = ("database", "path", "namespace", "model", "metric")
_DELETING: Final = ("author", "message", "run", "causes")
_WRITING: Final = (*_DELETING, "ttl", "valid_from", "valid_to", "batch_size")
_SEARCHING: Final = ("filter", "as_of", "valid_at", "score_threshold")


class TextEmbeddings(Embeddings):
    """A `TextEmbedder` as LangChain expects its embeddings: vectors are lists."""

    def __init__(self, embedder: koru_delta.embedders.TextEmbedder) -> None:
        self.embedder = embedder

    def __repr__(self) -> str:
        return f"TextEmbeddings({self.embedder!r})"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `TextEmbedder.embed_documents`."""
        return cast("list[list[float]]", self.embedder.embed_documents(texts).tolist())

    def embed_query(self, text: str) -> list[float]:
        """As `TextEmbedder.embed_query`."""
        return cast("list[float]", self.embedder.embed_query(text).tolist())

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `embed_documents`, in a worker thread."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`, in a worker thread."""
        return await asyncio.to_thread(self.embed_query, text)


class KoruDeltaVectorStore(VectorStore):
    """Documents and their vectors in one namespace of a database, at any of its moments.

    A score is a similarity, higher is better: the cosine in [-1, 1], the dot product, or
    minus the Euclidean distance. Relevance is in [0, 1]: `(1 + cosine) / 2`,
    `1 / (1 + exp(-dot))`, `1 / (1 + distance)`. Equal scores come in key order.

    An id is any string; where it cannot be a key, its hash is the key. A batch is one
    commit, all of it or nothing, and the last of equal ids wins.

    Every search takes `filter`, over the metadata, as `koru_delta.search.filters` says,
    applied before the best `k` are chosen; `as_of`, to search what was stored then, that
    instant included; `valid_at`, to search what was true then; and `score_threshold`, to
    keep scores `>=` it. Where relevance is asked for, by
    `similarity_search_with_relevance_scores` or a retriever of the search type
    `similarity_score_threshold`, the threshold is a relevance.

    Methods that start with `a` do not block the event loop: they embed with the
    `aembed_` methods, and storage runs in threads. Cancelling one does not undo a write
    that has begun.

    All but the obvious: searches raise `QueryError` for a malformed filter or number,
    `InvalidTimestampError` or `UnknownVersionError` for a moment that is none,
    `DimensionMismatchError`, `MetricMismatchError`, and `InvalidDataError` for a zero
    vector under cosine. What the embedding raises is raised as it is.

    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> store = KoruDeltaVectorStore(DeterministicFakeEmbedding(size=8))
    >>> store.add_texts(["rain"], ids=["today"], message="forecast")
    ['today']
    >>> then = store.database.history("langchain", "today")[-1]
    >>> store.add_texts(["sun"], ids=["today"])
    ['today']
    >>> [document.page_content for document in store.similarity_search("weather", as_of=then)]
    ['rain']
    >>> store.close()
    """

    def __init__(
        self,
        embedding: Embeddings | Embedder | None = None,
        *,
        database: Database | None = None,
        path: str | os.PathLike[str] | None = None,
        namespace: str = "langchain",
        model: str | None = None,
        metric: Metric = "cosine",
    ) -> None:
        """Keep documents in `database`, or in one opened at `path`; in memory by default.

        Args:
            embedding: LangChain's `Embeddings`, or whatever `koru_delta.embedders.as_embedder`
                takes, as `koru_delta.embedders.local()`. May be left out where the
                database has an embedder: then it is that one.
            database: An open database; closing the store leaves it open.
            model: Files the vectors; by default the one model the namespace has. Where it
                has none, or several, it is the name of the embedder, so that
                `database.similar(namespace, "text")` finds the same; LangChain's
                `Embeddings` have no name, are filed under "default", and need one here
                where several share a namespace.
            metric: What the namespace measures by, fixed by its first vector; a search of
                one that measures otherwise raises `MetricMismatchError`.

        Raises:
            EmbedderError: `embedding` cannot embed, or there is none.
            InvalidDataError: both `database` and `path` are given.
            QueryError: no such metric; and the errors of `koru_delta.open`.
        """
        if database is not None and path is not None:
            raise koru_delta.errors.InvalidDataError(
                "pass an open database or a path to open, not both"
            )
        if metric not in _RELEVANCE:
            raise koru_delta.errors.QueryError(
                f"unknown metric {metric!r}; the metrics are {', '.join(_RELEVANCE)}"
            )
        self._embedding = _embedding_of(embedding, database)
        self._database = koru_delta.open(path) if database is None else database
        self._owned = database is None
        self._namespace = namespace
        self._model = model
        self._metric: Metric = metric
        self._view: View | None = None

    def __repr__(self) -> str:
        at = "" if self._view is None else f" at {self._view.seq}"
        return f"<KoruDeltaVectorStore {self._namespace!r}{at} of {self._database!r}>"

    @property
    def embeddings(self) -> Embeddings:
        """What turns texts into vectors, as LangChain expects it."""
        if isinstance(self._embedding, Embeddings):
            return self._embedding
        return TextEmbeddings(self._embedding)

    @property
    def database(self) -> Database:
        """The database the documents are in: for `history`, `diff`, `tag` and the rest."""
        return self._database

    @property
    def namespace(self) -> str:
        """The namespace of the documents."""
        return self._namespace

    def as_of(self, ref: AsOf) -> Self:
        """The store as it stood at a moment, that instant included, to be read only.

        It shares the database, which the first store closes. Writes raise `ReadOnlyError`.
        """
        past = copy.copy(self)
        past._view = self._moment(ref)
        past._owned = False
        return past

    async def aas_of(self, ref: AsOf) -> Self:
        """As `as_of`; finding the moment reads storage."""
        return await asyncio.to_thread(self.as_of, ref)

    def close(self) -> None:
        """Close the database if the store opened it. Closing twice is fine."""
        if self._owned:
            self._database.close()

    async def aclose(self) -> None:
        """As `close`."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    # Making a store of documents

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings | Embedder | None = None,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store and add texts to it; by default in memory.

        Args:
            **kwargs: Those of the constructor, and those of `add_texts`.
        """
        opened, options = _split("from_texts", kwargs)
        rows = partial(_texts, texts, metadatas, ids)
        return cls(embedding, **opened)._filled(rows, options)

    @classmethod
    async def afrom_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings | Embedder | None = None,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **kwargs: Any,
    ) -> Self:
        """As `from_texts`."""
        opened, options = _split("afrom_texts", kwargs)
        store = await asyncio.to_thread(cls, embedding, **opened)
        return await store._afilled(partial(_texts, texts, metadatas, ids), options)

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        embedding: Embeddings | Embedder | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store and add documents to it; by default in memory.

        Args:
            **kwargs: Those of the constructor, and those of `add_documents`.
        """
        opened, options = _split("from_documents", kwargs)
        rows = partial(_documents, documents, options.pop("ids", None))
        return cls(embedding, **opened)._filled(rows, options)

    @classmethod
    async def afrom_documents(
        cls,
        documents: Iterable[Document],
        embedding: Embeddings | Embedder | None = None,
        **kwargs: Any,
    ) -> Self:
        """As `from_documents`."""
        opened, options = _split("afrom_documents", kwargs)
        rows = partial(_documents, documents, options.pop("ids", None))
        store = await asyncio.to_thread(cls, embedding, **opened)
        return await store._afilled(rows, options)

    # Writing

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, or write new versions of those whose ids are there already.

        Args:
            metadatas: A JSON object for each text; none, or an empty list, is `{}` for all.
            ids: An id for each text; a missing one is made up.
            **kwargs: `causes`, `ttl`, `valid_from`, `valid_to`, `author`, `message`, `run`,
                as of `Database.embed_many`. `batch_size`, which LangChain's `index` passes,
                changes nothing: the batch is one commit.

        Returns:
            The ids, one for each text, in order.

        Raises:
            InvalidDataError: metadata is not JSON (the message names the path to what is
                not), an id or text is no string, or the lists differ in length; nothing
                of the batch is kept.
            EmbedderError: the embedding did not return one vector for each text.
            ReadOnlyError: the store shows a past moment, or the database is read-only.
        """
        _check_options("add_texts", kwargs, _WRITING)
        return self._add(partial(_texts, texts, metadatas, ids), kwargs)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """As `add_texts`."""
        _check_options("aadd_texts", kwargs, _WRITING)
        return await self._aadd(partial(_texts, texts, metadatas, ids), kwargs)

    def add_documents(self, documents: Iterable[Document], **kwargs: Any) -> list[str]:
        """As `add_texts`, of documents; `ids=`, where given, goes before their own."""
        _check_options("add_documents", kwargs, ("ids", *_WRITING))
        return self._add(partial(_documents, documents, kwargs.pop("ids", None)), kwargs)

    async def aadd_documents(self, documents: Iterable[Document], **kwargs: Any) -> list[str]:
        """As `add_documents`."""
        _check_options("aadd_documents", kwargs, ("ids", *_WRITING))
        return await self._aadd(partial(_documents, documents, kwargs.pop("ids", None)), kwargs)

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> bool:
        """Delete documents in one commit; as of a moment before, they are still there.

        Args:
            ids: Those to delete; unknown ones are no error, and `[]` deletes nothing.
            filter: Over the metadata as it is now; with `ids`, both must hold. With
                neither, every document is deleted, as LangChain has it.
            **kwargs: `author`, `message`, `run`, `causes`.

        Returns:
            True: what was asked to be gone is gone.
        """
        _check_options("delete", kwargs, _DELETING)
        self._check_writable()
        if filter is not None:
            where = prefixed(filter, "metadata")
            keys = [row.key for row in self._database.query(self._namespace, where, select=())]
        elif ids is None:
            keys = self._database.list_keys(self._namespace)
        else:
            keys = _keys(ids)
        if filter is not None and ids is not None:
            named = set(_keys(ids))
            keys = [key for key in keys if key in named]
        self._database.delete_many(self._namespace, keys, **kwargs)
        return True

    async def adelete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> bool:
        """As `delete`."""
        _check_options("adelete", kwargs, _DELETING)
        return await asyncio.to_thread(self.delete, ids, filter=filter, **kwargs)

    # Reading

    def get_by_ids(
        self, ids: Sequence[str], /, *, as_of: AsOf = None, valid_at: When | None = None
    ) -> list[Document]:
        """The documents of those ids that are there, each once, in the order asked for."""
        found = self._moment(as_of).get_many(self._namespace, _keys(ids), valid_at=valid_at)
        return [self._document(key, value) for key, value in found.items()]

    async def aget_by_ids(
        self, ids: Sequence[str], /, *, as_of: AsOf = None, valid_at: When | None = None
    ) -> list[Document]:
        """As `get_by_ids`."""
        return await asyncio.to_thread(self.get_by_ids, ids, as_of=as_of, valid_at=valid_at)

    # Searching

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` documents most like the query, best first; fewer where fewer match."""
        _check_options("similarity_search", kwargs, _SEARCHING)
        return _bare(self.similarity_search_with_score(query, k, **kwargs))

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """As `similarity_search`."""
        _check_options("asimilarity_search", kwargs, _SEARCHING)
        return _bare(await self.asimilarity_search_with_score(query, k, **kwargs))

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search`, each document with its score: higher is better."""
        _check_options("similarity_search_with_score", kwargs, _SEARCHING)
        return self._search(self._embedding.embed_query(query), k, **kwargs)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`."""
        _check_options("asimilarity_search_with_score", kwargs, _SEARCHING)
        vector = await self._embedding.aembed_query(query)
        return await asyncio.to_thread(self._search, vector, k, **kwargs)

    def similarity_search_by_vector(
        self, embedding: Sequence[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """As `similarity_search`, by a vector of the embedding's length."""
        _check_options("similarity_search_by_vector", kwargs, _SEARCHING)
        return _bare(self._search(embedding, k, **kwargs))

    async def asimilarity_search_by_vector(
        self, embedding: Sequence[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """As `similarity_search_by_vector`."""
        _check_options("asimilarity_search_by_vector", kwargs, _SEARCHING)
        return _bare(await asyncio.to_thread(self._search, embedding, k, **kwargs))

    def similarity_search_with_score_by_vector(
        self, embedding: Sequence[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`, by a vector of the embedding's length."""
        _check_options("similarity_search_with_score_by_vector", kwargs, _SEARCHING)
        return self._search(embedding, k, **kwargs)

    async def asimilarity_search_with_score_by_vector(
        self, embedding: Sequence[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score_by_vector`."""
        _check_options("asimilarity_search_with_score_by_vector", kwargs, _SEARCHING)
        return await asyncio.to_thread(self._search, embedding, k, **kwargs)

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
        candidates are the best by the metric.

        Raises:
            InvalidDataError: the vectors have no direction, being zero.
        """
        _check_options("max_marginal_relevance_search", kwargs, _SEARCHING)
        vector = self._embedding.embed_query(query)
        return self._diverse(vector, k, fetch_k, lambda_mult, **kwargs)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`."""
        _check_options("amax_marginal_relevance_search", kwargs, _SEARCHING)
        vector = await self._embedding.aembed_query(query)
        return await asyncio.to_thread(self._diverse, vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, by a vector of the embedding's length."""
        _check_options("max_marginal_relevance_search_by_vector", kwargs, _SEARCHING)
        return self._diverse(embedding, k, fetch_k, lambda_mult, **kwargs)

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search_by_vector`."""
        _check_options("amax_marginal_relevance_search_by_vector", kwargs, _SEARCHING)
        return await asyncio.to_thread(self._diverse, embedding, k, fetch_k, lambda_mult, **kwargs)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _RELEVANCE[self._metric]

    # Parts of the above

    def _moment(self, as_of: AsOf) -> View:
        if self._view is None:
            return self._database.as_of(as_of)
        if as_of is not None:
            raise koru_delta.errors.QueryError(
                "this store shows one moment already; ask the store it was made from for another"
            )
        return self._view

    def _check_writable(self) -> None:
        if self._view is not None:
            raise koru_delta.errors.ReadOnlyError(
                f"this store shows the moment {self._view.time.isoformat()}; write to the "
                "store it was made from"
            )
        if self._database.read_only:  # before a batch is embedded in vain
            raise koru_delta.errors.ReadOnlyError("the database was opened read-only")

    def _filed_under(self) -> str | None:
        """The model to search and to write; None leaves it to the database."""
        if self._model is None and isinstance(self._embedding, koru_delta.embedders.TextEmbedder):
            try:  # no model is called "", so the error lists those there are
                self._database.similar(self._namespace, [1.0], k=0, model="")
            except koru_delta.errors.ModelMismatchError as error:
                if len(error.known) == 1:  # kept to, even if others join it
                    (self._model,) = error.known
            return self._model or self._embedding.name
        return self._model

    def _add(self, rows: _Rows, options: dict[str, Any]) -> list[str]:
        self._check_writable()
        batch = _batch(rows)
        vectors = self._embedding.embed_documents(batch.texts) if batch.texts else []
        return self._store(batch, vectors, **options)

    async def _aadd(self, rows: _Rows, options: dict[str, Any]) -> list[str]:
        self._check_writable()
        batch = await asyncio.to_thread(_batch, rows)  # what it iterates over may block
        vectors = await self._embedding.aembed_documents(batch.texts) if batch.texts else []
        return await asyncio.to_thread(self._store, batch, vectors, **options)

    def _store(
        self, batch: _Batch, given: Iterable[VectorLike], *, batch_size: int = 0, **more: Any
    ) -> list[str]:
        vectors = list(given)
        if len(vectors) != len(batch.texts):
            raise koru_delta.errors.EmbedderError(
                f"the embedding was given {len(batch.texts):,} texts and returned "
                f"{len(vectors):,} vectors; it must return one for each"
            )
        pairs = zip(batch.values.items(), vectors, strict=True)
        items = [(key, vector, value) for (key, value), vector in pairs]
        self._database.embed_many(
            self._namespace, items, model=self._filed_under(), metric=self._metric, **more
        )
        return batch.ids

    def _filled(self, rows: _Rows, options: dict[str, Any]) -> Self:
        try:
            self._add(rows, options)
        except BaseException:
            self.close()
            raise
        return self

    async def _afilled(self, rows: _Rows, options: dict[str, Any]) -> Self:
        try:
            await self._aadd(rows, options)
        except BaseException:
            await self.aclose()
            raise
        return self

    def _matches(
        self,
        vector: VectorLike,
        k: int,
        *,
        filter: Filter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
        score_threshold: float | None = None,
    ) -> tuple[list[Match], str]:
        """What is found, and the model it was found by."""
        model = self._filed_under()
        where = None if filter is None else prefixed(filter, "metadata")
        found = self._moment(as_of).similar(
            self._namespace, vector, k=k, filter=where, valid_at=valid_at, model=model,
            threshold=score_threshold,
        )  # fmt: skip
        if found:
            # Where none is named, the search has made sure that there is but one.
            model = model or next(iter(found[0].version.vectors))
            metric = found[0].version.vectors[model]["metric"]
            if metric != self._metric:  # its scores would be turned into relevance wrongly
                raise koru_delta.errors.MetricMismatchError(
                    self._namespace, model, metric, self._metric
                )
        return found, model or ""

    def _search(self, vector: VectorLike, k: int, **options: Any) -> list[tuple[Document, float]]:
        found, _ = self._matches(vector, k, **options)
        return [(self._document(match.key, match.value), match.score) for match in found]

    def _diverse(
        self,
        vector: VectorLike,
        k: int,
        fetch_k: int,
        lambda_mult: float,
        **options: Any,
    ) -> list[Document]:
        if not 0 <= lambda_mult <= 1:
            raise koru_delta.errors.QueryError(
                f"lambda_mult is a number from 0 to 1, not {lambda_mult!r}"
            )
        found, model = self._matches(vector, max(k, fetch_k) if k > 0 else k, **options)
        if not found:
            return []
        stored = [self._database.vectors(match.version)[model] for match in found]
        candidates: Any = np.stack(stored).astype(np.float64)
        target = np.asarray(vector, dtype=np.float64)
        if not target.any() or not candidates.any(axis=1).all():
            raise koru_delta.errors.InvalidDataError(
                "marginal relevance compares directions, and a zero vector has none"
            )
        chosen = maximal_marginal_relevance(target, candidates, lambda_mult, k)
        return [self._document(found[place].key, found[place].value) for place in chosen]

    def _document(self, key: str, value: Any) -> Document:
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            metadata, name = value.get("metadata", {}), value.get("id", key)
            if isinstance(metadata, dict) and isinstance(name, str):
                return Document(page_content=value["text"], metadata=metadata, id=name)
        raise koru_delta.errors.InvalidDataError(
            f'{key!r} in namespace {self._namespace!r} is no document, which is {{"text": ..., '
            '"metadata": {...}}; keep other values in another namespace'
        )


def _embedding_of(
    given: Embeddings | Embedder | None, database: Database | None
) -> Embeddings | koru_delta.embedders.TextEmbedder:
    """Refuse what cannot embed; what is no `Embeddings` becomes a `TextEmbedder`."""
    if isinstance(given, TextEmbeddings):
        return given.embedder
    if isinstance(given, Embeddings):
        return given
    if given is not None:
        return koru_delta.embedders.as_embedder(given)
    if database is None or database.embedder is None:
        raise koru_delta.errors.EmbedderError(
            "a store needs an embedding: pass one, as koru_delta.embedders.local(), which needs "
            "no network, or a database opened with embedder="
        )
    return database.embedder


_Row = tuple[Any, Any, Any]  # text, metadata and id as they were given
_Rows = Callable[[], Iterable[_Row]]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Checked documents: each id as it was given; by key and once each, texts and values."""

    ids: list[str]
    texts: list[str]
    values: dict[str, dict[str, Any]]


def _batch(rows: _Rows) -> _Batch:
    ids: list[str] = []
    values: dict[str, dict[str, Any]] = {}
    for place, (text, metadata, given) in enumerate(rows()):
        name = str(uuid4()) if given is None else given
        if not isinstance(text, str) or not isinstance(metadata, dict):
            raise koru_delta.errors.InvalidDataError(
                f"document {place} (the first is 0) is {type(text).__name__} with metadata "
                f"{type(metadata).__name__}; a text is a string, its metadata a dict"
            )
        ids.append(name)
        values[_key(name)] = {"id": name, "text": text, "metadata": metadata}
    return _Batch(ids, [value["text"] for value in values.values()], values)


def _texts(
    texts: Iterable[str],
    metadatas: Iterable[dict[str, Any]] | None,
    ids: Iterable[str | None] | None,
) -> Iterable[_Row]:
    listed = _listed("texts", texts)
    size = len(listed)
    return zip(
        listed,
        _as_many("metadatas", metadatas, size) or [{} for _ in listed],
        _as_many("ids", ids, size) or [None] * size,
        strict=True,
    )


def _documents(documents: Iterable[Document], ids: Iterable[str | None] | None) -> Iterable[_Row]:
    listed = list(documents)
    names = _as_many("ids", ids, len(listed)) or [document.id for document in listed]
    return [
        (document.page_content, document.metadata, name)
        for document, name in zip(listed, names, strict=True)
    ]


def _as_many(what: str, given: Iterable[Any] | None, size: int) -> list[Any]:
    """As many as there are texts, or none at all."""
    listed = [] if given is None else _listed(what, given)
    if listed and len(listed) != size:
        raise koru_delta.errors.InvalidDataError(
            f"{len(listed):,} {what} were given for {size:,} texts"
        )
    return listed


def _listed(what: str, given: Iterable[Any]) -> list[Any]:
    if isinstance(given, str):
        raise koru_delta.errors.InvalidDataError(
            f"{what} is a list of strings, this is one: put it in []"
        )
    return list(given)


def _keys(ids: Iterable[str]) -> list[str]:
    return [_key(name) for name in _listed("ids", ids)]


def _key(name: object) -> str:
    """The key of an id: itself where it can be one, else its hash; no two ids share a key.

    A lone surrogate cannot be stored, and is refused when it is; its key finds nothing.
    """
    if not isinstance(name, str):
        raise koru_delta.errors.InvalidDataError(f"an id is a string, not {type(name).__name__}")
    data = name.encode(errors="surrogatepass")
    if (
        0 < len(data) <= _MAX_KEY_BYTES
        and b"\0" not in data
        and not name.startswith(_HASHED)
        and (name.isascii() or data == name.encode(errors="ignore"))
    ):
        return name
    return _HASHED + hashlib.sha256(data).hexdigest()


def _check_options(method: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Refuse what the method does not take, by the name it was called by.

    Raises:
        TypeError: as Python raises it.
    """
    for name in options:
        if name not in known:
            raise TypeError(
                f"{method}() got an unexpected keyword argument {name!r}; it also takes "
                f"{', '.join(known)}"
            )


def _split(method: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What opens a store, and what writes to it."""
    ids = ("ids",) if method.endswith("documents") else ()
    _check_options(method, options, (*_OPENING, *ids, *_WRITING))
    opened = {name: value for name, value in options.items() if name in _OPENING}
    return opened, {name: value for name, value in options.items() if name not in _OPENING}


def _bare(scored: Iterable[tuple[Document, float]]) -> list[Document]:
    return [document for document, _ in scored]


def _of_cosine(score: float) -> float:
    return (1 + score) / 2


def _of_dot(score: float) -> float:
    if score < 0:  # exp(-score) could overflow
        part = math.exp(score)
        return part / (1 + part)
    return 1 / (1 + math.exp(-score))


def _of_l2(score: float) -> float:
    return 1 / (1 - score)


_RELEVANCE: Final[Mapping[str, Callable[[float], float]]] = {
    "cosine": _of_cosine,
    "dot": _of_dot,
    "l2": _of_l2,
}
