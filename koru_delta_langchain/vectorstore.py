"""A LangChain vector store in a KoruDelta database.

A document is one key of the store's namespace: `{"id": ..., "text": ..., "metadata": {...}}`
and its vector. Writing it again is a new version of the key, so what it was stays
readable with `as_of`. Metadata comes back equal to what was given (keys sorted), with
nothing else in it unless it was asked for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

import koru_delta
from koru_delta import AsOf, Database, Filter, Version, When, prefixed
from koru_delta_langchain.documents import (
    Batch,
    Rows,
    document_of,
    is_blank,
    of_documents,
    of_texts,
)
from koru_delta_langchain.embedding import Embedder, VectorLike
from koru_delta_langchain.ids import keys_of
from koru_delta_langchain.retriever import SEARCH_TYPES, KoruDeltaRetriever, check_search_type
from koru_delta_langchain.searches import Metric, Mode, Searches, check_options

if TYPE_CHECKING:
    from koru_delta_langchain.records import KoruDeltaRecordManager

_OPENING: Final = ("database", "path", "namespace", "model", "metric", "mode")
_TOGETHER: Final = ("author", "message", "run")
_DELETING: Final = (*_TOGETHER, "causes")
_WRITING: Final = (*_DELETING, "ttl", "valid_from", "valid_to", "batch_size")


class KoruDeltaVectorStore(Searches, VectorStore):
    """Documents and their vectors in one namespace of a database, at any of its moments.

    A score is a similarity, higher is better: the cosine in [-1, 1], the dot product, or
    minus the Euclidean distance. Relevance is in [0, 1]: `(1 + cosine) / 2`,
    `1 / (1 + exp(-dot))`, `1 / (1 + distance)`. Equal scores come in key order.

    An id is any string; where it cannot be a key, its hash is the key. A batch is one
    commit, all of it or nothing, and the last of equal ids wins. A blank text is not
    embedded: its document is kept, and no search by meaning finds it.

    Every search takes, all of it applied before the best `k` are chosen:

    - `filter`, over the metadata, as `koru_delta.search.filters` says; `causal`, a
      `koru_delta.CausalFilter`, by where versions come from;
    - `as_of`, to search what was stored then, that instant included; `valid_at`, to search
      what was true then;
    - `score_threshold`, to keep scores `>=` it. Where relevance is asked for, by
      `similarity_search_with_relevance_scores` or a retriever of the search type
      `similarity_score_threshold`, the threshold is a relevance;
    - `half_life` (seconds or a timedelta), after which a score counts half; `group_by`, a
      dotted path into the metadata, to keep the best of each group; `exact`;
    - `include_provenance=True` and `explain=True`: `metadata["koru_delta"]` then says the
      version, its times, author, message, run and causes, and as `"explanation"` why it was
      found. No other key of the metadata is ever ours.

    A search by text also takes `mode`: "vector" (the default: what LangChain expects),
    "hybrid", by meaning and by words, or "text", by words alone, which embeds nothing;
    `weights` and `fusion`, as `Database.search`; and `syntax=True`, for `"a phrase"`,
    `prefix*`, `+must` and `-not` in the query, which is otherwise taken as it is. In these
    modes a score is the fused one or BM25; relevance is its share of the best there could
    be, or `bm25 / (1 + bm25)`.

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
        mode: Mode = "vector",
    ) -> None:
        """Keep documents in `database`, or in one opened at `path`; in memory by default.

        Args:
            embedding: LangChain's `Embeddings`, or whatever `koru_delta.embedders.as_embedder`
                takes, as `koru_delta.embedders.local()`. May be left out where the
                database has an embedder: then it is that one.
            database: An open database; closing the store leaves it open.
            model: Files the vectors; by default the name of the embedding's model (`model_name`,
                `model` or `model_id`), so that `database.similar(namespace, "text")` finds the
                same. Where all vectors of the namespace are of another model,
                `ModelMismatchError` says so; naming it here says that it is the same. Vectors
                that were given no name count as this embedding's. An embedding that names no
                model goes by the one model the namespace has, or files under "default".
            metric: What the namespace measures by, fixed by its first vector; a search of
                one that measures otherwise raises `MetricMismatchError`.
            mode: Of the searches by text that name none: "vector", "hybrid" or "text".

        Raises:
            EmbedderError: `embedding` cannot embed, or there is none.
            InvalidDataError: both `database` and `path` are given.
            QueryError: no such metric or mode; and the errors of `koru_delta.open`.
        """
        super().__init__(embedding, namespace, database, path, model, metric, mode)
        self._records: KoruDeltaRecordManager | None = None  # written in the same commits

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
        rows = partial(of_texts, texts, metadatas, ids)
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
        return await store._afilled(partial(of_texts, texts, metadatas, ids), options)

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
        rows = partial(of_documents, documents, options.pop("ids", None))
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
        rows = partial(of_documents, documents, options.pop("ids", None))
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
        check_options("add_texts", kwargs, _WRITING)
        return self._add(partial(of_texts, texts, metadatas, ids), kwargs)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """As `add_texts`."""
        check_options("aadd_texts", kwargs, _WRITING)
        return await self._aadd(partial(of_texts, texts, metadatas, ids), kwargs)

    def add_documents(self, documents: Iterable[Document], **kwargs: Any) -> list[str]:
        """As `add_texts`, of documents; `ids=`, where given, goes before their own."""
        check_options("add_documents", kwargs, ("ids", *_WRITING))
        return self._add(partial(of_documents, documents, kwargs.pop("ids", None)), kwargs)

    async def aadd_documents(self, documents: Iterable[Document], **kwargs: Any) -> list[str]:
        """As `add_documents`."""
        check_options("aadd_documents", kwargs, ("ids", *_WRITING))
        return await self._aadd(partial(of_documents, documents, kwargs.pop("ids", None)), kwargs)

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
        check_options("delete", kwargs, ("filter", *_DELETING))
        self._remove(ids, filter, **kwargs)
        return True

    async def adelete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> bool:
        """As `delete`."""
        check_options("adelete", kwargs, ("filter", *_DELETING))
        return await asyncio.to_thread(self.delete, ids, filter=filter, **kwargs)

    # Reading

    def get_by_ids(
        self, ids: Sequence[str], /, *, as_of: AsOf = None, valid_at: When | None = None
    ) -> list[Document]:
        """The documents of those ids that are there, each once, in the order asked for."""
        found = self._moment(as_of).get_many(self._namespace, keys_of(ids), valid_at=valid_at)
        return [document_of(self._namespace, key, value) for key, value in found.items()]

    async def aget_by_ids(
        self, ids: Sequence[str], /, *, as_of: AsOf = None, valid_at: When | None = None
    ) -> list[Document]:
        """As `get_by_ids`."""
        return await asyncio.to_thread(self.get_by_ids, ids, as_of=as_of, valid_at=valid_at)

    # Searching by the name of a search

    def search(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """Search in one of the ways of `KoruDeltaRetriever`, by its name."""
        if search_type not in SEARCH_TYPES:
            return super().search(query, search_type, **kwargs)
        check_search_type(search_type, kwargs)
        return self.similarity_search(query, **{**SEARCH_TYPES[search_type], **kwargs})

    async def asearch(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """As `search`."""
        if search_type not in SEARCH_TYPES:
            return await super().asearch(query, search_type, **kwargs)
        check_search_type(search_type, kwargs)
        return await self.asimilarity_search(query, **{**SEARCH_TYPES[search_type], **kwargs})

    def as_retriever(self, **kwargs: Any) -> KoruDeltaRetriever:
        """A retriever of this store: `search_type=`, `search_kwargs=`, `k=`, `tags=`.

        Options of a search, as `filter`, go into `search_kwargs`.
        """
        check_options("as_retriever", kwargs, KoruDeltaRetriever.model_fields)
        tags = kwargs.pop("tags", None) or [*self._get_retriever_tags()]
        return KoruDeltaRetriever(vectorstore=self, tags=tags, **kwargs)

    # Parts of the above

    def _add(self, rows: Rows, options: dict[str, Any]) -> list[str]:
        self._check_writable()
        batch = Batch.of(rows)
        vectors = self._embedding.embed_documents(batch.texts) if batch.texts else []
        return self._store(batch, vectors, **options)

    async def _aadd(self, rows: Rows, options: dict[str, Any]) -> list[str]:
        self._check_writable()
        batch = await asyncio.to_thread(Batch.of, rows)  # what it iterates over may block
        vectors = await self._embedding.aembed_documents(batch.texts) if batch.texts else []
        return await asyncio.to_thread(self._store, batch, vectors, **options)

    def _store(
        self, batch: Batch, given: Iterable[VectorLike] | None, *, batch_size: int = 0, **more: Any
    ) -> list[str]:
        vectors = [] if given is None else list(given)
        if len(vectors) != len(batch.texts):
            raise koru_delta.errors.EmbedderError(
                f"the embedding was given {len(batch.texts):,} texts and returned "
                f"{len(vectors):,} vectors; it must return one for each"
            )
        each = iter(vectors)
        items = [(key, next(each), value) for key, value in batch.values.items()
                 if not is_blank(value)]  # fmt: skip
        model = self._filed_under(self._database, to_write=True)
        if self._records is None and len(items) == len(batch.values):
            self._database.embed_many(
                self._namespace, items, model=model, metric=self._metric, **more
            )
            return batch.ids
        whole = {name: more.pop(name) for name in _TOGETHER if name in more}
        with self._database.transaction(**whole) as tx:
            tx.embed_many(self._namespace, items, model=model, metric=self._metric, **more)
            for key, value in batch.values.items():
                if is_blank(value):
                    tx.put(self._namespace, key, value, **more)
            if self._records is not None:
                self._records.note(tx, batch.values.values())
        return batch.ids

    def _remove(
        self, ids: Sequence[str] | None, filter: Filter | None = None, **options: Any
    ) -> list[Version]:
        """Delete documents, and their records with them; returns the tombstones of documents."""
        self._check_writable()
        if filter is not None:
            where = prefixed(filter, "metadata")
            keys = [row.key for row in self._database.query(self._namespace, where, select=())]
        elif ids is None:
            keys = self._database.list_keys(self._namespace)
        else:
            keys = keys_of(ids)
        if filter is not None and ids is not None:
            named = set(keys_of(ids))
            keys = [key for key in keys if key in named]
        if self._records is None:
            return self._database.delete_many(self._namespace, keys, **options)
        causes = options.pop("causes", ())
        with self._database.transaction(**options) as tx:
            tx.delete_many(self._namespace, keys, causes=causes)
            self._records.forget(tx, keys)
        return [version for version in tx.versions if version.namespace == self._namespace]

    def _filled(self, rows: Rows, options: dict[str, Any]) -> Self:
        try:
            self._add(rows, options)
        except BaseException:
            self.close()
            raise
        return self

    async def _afilled(self, rows: Rows, options: dict[str, Any]) -> Self:
        try:
            await self._aadd(rows, options)
        except BaseException:
            await self.aclose()
            raise
        return self


def _split(method: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What opens a store, and what writes to it."""
    ids = ("ids",) if method.endswith("documents") else ()
    check_options(method, options, (*_OPENING, *ids, *_WRITING))
    opened = {name: value for name, value in options.items() if name in _OPENING}
    return opened, {name: value for name, value in options.items() if name not in _OPENING}
