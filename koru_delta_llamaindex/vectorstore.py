"""A LlamaIndex vector store in a KoruDelta database.

A node is one key of the store's namespace, and its embedding that key's vector. Writing it
again is a new version of the key, so what it was stays readable with `as_of`. Nodes come
back equal to what was given, metadata of any JSON and the order of its keys included.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self, cast

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

import koru_delta
from koru_delta import AsOf, CausalFilter, Database, Version, View, When
from koru_delta_llamaindex.connection import Connection
from koru_delta_llamaindex.filters import Condition, both, filter_of
from koru_delta_llamaindex.keys import key_of, listed
from koru_delta_llamaindex.nodes import node_of, value_of
from koru_delta_llamaindex.search import RELEVANCE, Search
from koru_delta_llamaindex.store import Store

Metric = Literal["cosine", "dot", "l2"]

DEFAULT_NAMESPACE: Final = "llamaindex/vectors"
_DELETING: Final = ("author", "message", "run", "causes")
_WRITING: Final = (*_DELETING, "ttl", "valid_from", "valid_to")
_QUERYING: Final = (
    "as_of", "valid_at", "causal", "filter", "exact", "recall", "syntax", "include_embeddings",
    "fusion", "alpha", "mmr_threshold", "mmr_prefetch_k", "mmr_prefetch_factor",
)  # fmt: skip


class KoruDeltaVectorStore(Store, BasePydanticVectorStore):
    """Nodes and their embeddings in one namespace of a database, at any of its moments.

    A similarity is in [0, 1], higher is better: `(1 + cosine) / 2`, `1 / (1 + exp(-dot))` or
    `1 / (1 + distance)` by vectors, `score / (1 + score)` of BM25 by words, and fused, the
    share of what the first of both would get. Equal ones come in key order.

    An id is any string; where it cannot be a key, its hash is the key. A batch is one
    commit, all of it or nothing, and the last of equal ids wins. Filters are applied before
    the best are chosen.

    Embeddings are kept as float32. Methods that start with `a` wait in threads, never on the
    event loop; cancelling one does not undo a write that has begun. Pickled, a store opens
    its directory anew; a copy shares its database.

    All but the obvious: queries raise `QueryError` for a malformed filter or number or a mode
    that there is not, `InvalidTimestampError` or `UnknownVersionError` for a moment that is
    none, `DimensionMismatchError`, `MetricMismatchError`, and `InvalidDataError` for a zero
    vector under cosine.

    >>> from llama_index.core.schema import TextNode
    >>> from llama_index.core.vector_stores.types import VectorStoreQuery
    >>> store = KoruDeltaVectorStore()
    >>> store.add([TextNode(id_="sky", text="rain", embedding=[1.0, 0.0])], message="forecast")
    ['sky']
    >>> then = store.database.history(store.namespace, "sky")[-1]
    >>> store.add([TextNode(id_="sky", text="sun", embedding=[1.0, 0.0])])
    ['sky']
    >>> asked = VectorStoreQuery(query_embedding=[1.0, 0.0])
    >>> [node.text for node in store.as_of(then).query(asked).nodes]
    ['rain']
    >>> store.close()
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    flat_metadata: bool = False
    namespace: str = DEFAULT_NAMESPACE
    model: str | None = None
    metric: str = "cosine"
    include_embeddings: bool = False

    _connection: Connection = PrivateAttr()
    _valid_at: When | None = PrivateAttr()
    _causal: CausalFilter | None = PrivateAttr()

    def __init__(
        self,
        database: Database | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        model: str | None = None,
        metric: Metric = "cosine",
        include_embeddings: bool = False,
        as_of: AsOf = None,
        valid_at: When | None = None,
        causal: CausalFilter | None = None,
        connection: Connection | None = None,
    ) -> None:
        """Keep nodes in `database`, or in one opened at `path`; in memory by default.

        Args:
            database: An open database; closing the store leaves it open.
            model: Files the vectors; by default the one model the namespace has, else
                "default".
            metric: What the namespace measures by, fixed by its first vector; a query of
                one that measures otherwise raises `MetricMismatchError`.
            include_embeddings: Give nodes back with their embeddings, unless a query or
                `get_nodes` says otherwise.
            as_of: Show the store as it stood then, that instant included, to be read only.
            valid_at: Show what was true then, unless a query says otherwise.
            causal: Show what comes from there, unless a query says otherwise.
            connection: In the place of database, path and as_of.

        Raises:
            InvalidDataError: both `database` and `path` are given.
            QueryError: no such metric; and the errors of `koru_delta.open`.
        """
        if metric not in tuple(RELEVANCE):
            raise koru_delta.errors.QueryError(
                f"unknown metric {metric!r}; the metrics are {', '.join(RELEVANCE)}"
            )
        fields: dict[str, Any] = {
            "namespace": namespace, "model": model, "metric": metric,
            "include_embeddings": include_embeddings,
        }  # fmt: skip
        super().__init__(stores_text=True, **fields)
        self._valid_at = valid_at
        self._causal = causal
        self._connection = connection or Connection(database, path, as_of=as_of)

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls the class."""
        return "KoruDeltaVectorStore"

    @property
    def client(self) -> Database:
        """The database, as LlamaIndex asks for it."""
        return self._connection.database

    # Writing

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Add nodes, or write new versions of those whose ids are there already.

        Args:
            **add_kwargs: `causes`, `ttl`, `valid_from`, `valid_to`, `author`, `message`,
                `run`, as of `Database.embed_many`.

        Returns:
            The ids, one for each node, in order.

        Raises:
            InvalidDataError: a node has no embedding, or metadata that is not JSON (the
                message names the path to what is not); nothing of the batch is kept.
            DimensionMismatchError, MetricMismatchError: of its embedding.
            ReadOnlyError: the store shows a past moment, or the database is read-only.
        """
        koru_delta.adapters.check_options("add", add_kwargs, _WRITING)
        self._connection.check_writable()
        items: dict[str, tuple[str, list[float], dict[str, Any]]] = {}
        ids = []
        for node in listed("nodes", nodes, of=BaseNode):
            name = node.node_id
            if node.embedding is None:
                raise koru_delta.errors.InvalidDataError(
                    f"node {name!r} has no embedding; embed it first, as an index or a pipeline "
                    "with an embed_model does"
                )
            key = key_of(name)
            items[key] = (key, node.embedding, value_of(node))
            ids.append(name)
        self.database.embed_many(
            self.namespace, items.values(), model=self.model, metric=self._metric, **add_kwargs
        )
        return ids

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As `add`."""
        return await self._connection.threads.write(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document, in one commit; before it, they are still there.

        A node without a source is its own document, as for an ingestion pipeline, which keeps
        documents whole where it has nothing to cut them with. None deletes nothing.

        Args:
            **delete_kwargs: `author`, `message`, `run`, `causes`.
        """
        koru_delta.adapters.check_options("delete", delete_kwargs, _DELETING)
        self._connection.check_writable()
        # None is no source's name: nodes without one have no such field.
        alone = {("id",): ref_doc_id, ("ref_doc_id",): {"$exists": False}}
        self._delete_where({"$or": [{("ref_doc_id",): ref_doc_id}, alone]}, delete_kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """As `delete`."""
        await self._connection.threads.write(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete nodes by id, by filters, or those for which both hold, in one commit.

        Unknown ids are no error, and `[]` deletes nothing. With neither, every node is
        deleted, as LlamaIndex's own store has it.
        """
        koru_delta.adapters.check_options("delete_nodes", delete_kwargs, _DELETING)
        self._connection.check_writable()
        where = filter_of(filters)
        if node_ids is None:
            self._delete_where(where, delete_kwargs)
        elif where is None:
            self.database.delete_many(self.namespace, _keys(node_ids), **delete_kwargs)
        else:
            found = self._by_id(self.database.as_of(None), _keys(node_ids), where)
            self.database.delete_many(self.namespace, found, **delete_kwargs)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """As `delete_nodes`."""
        await self._connection.threads.write(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def clear(self) -> None:
        """Delete every node, in one commit; before it, they are still there."""
        self._connection.check_writable()
        self.database.drop_namespace(self.namespace)

    async def aclear(self) -> None:
        """As `clear`."""
        await self._connection.threads.write(self.clear)

    # Reading

    def get_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        *,
        include_embeddings: bool | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> list[BaseNode]:
        """Nodes by id, by filters, or those for which both hold; with neither, all of them.

        Those asked for by id come in the order of the ids, and unknown ones are left out;
        `[]` gives none. Others come in key order.
        """
        view = self._connection.at(as_of)
        valid_at = self._valid_at if valid_at is None else valid_at
        with_vectors = self.include_embeddings if include_embeddings is None else include_embeddings
        where = filter_of(filters)
        if node_ids is not None and self._causal is None:
            found = self._by_id(view, _keys(node_ids), where, valid_at)
            if not with_vectors:
                return [node_of(value) for value in found.values()]
            versions = {key: view.version(self.namespace, key, valid_at=valid_at) for key in found}
            return [node_of(value, self._embedding(versions[key])) for key, value in found.items()]
        if node_ids is not None:
            where = both(where, {("id",): {"$in": list(node_ids)}})
        rows = view.query(self.namespace, where, causal=self._causal, valid_at=valid_at)
        if node_ids is not None:
            order = {key: place for place, key in enumerate(_keys(node_ids))}
            rows.sort(key=lambda row: order[row.key])
        return [
            node_of(row.value, self._embedding(row.version) if with_vectors else None)
            for row in rows
        ]

    async def aget_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        *,
        include_embeddings: bool | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> list[BaseNode]:
        """As `get_nodes`."""
        return await self._connection.threads.read(
            self.get_nodes, node_ids, filters, include_embeddings=include_embeddings, as_of=as_of,
            valid_at=valid_at,
        )  # fmt: skip

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find the nodes that answer a query best.

        Modes:
            DEFAULT: by the embedding. MMR: likewise, chosen for difference too, with
            `mmr_threshold` in [0, 1] (1 is by relevance alone, 0 by difference alone; .5).
            TEXT_SEARCH and SPARSE: by the words of `query_str` (BM25).
            HYBRID: both, their scores scaled to [0, 1] and added; `alpha` is the weight of
            the embedding, 1 - `alpha` that of the words (.5).
            SEMANTIC_HYBRID: the best of HYBRID, put in order by the embedding.

        `similarity_top_k` is how many; `sparse_top_k` in SPARSE and `hybrid_top_k` in the
        hybrid ones go before it. `doc_ids` and `node_ids` choose among the nodes; an empty
        list chooses nothing and restricts nothing. `output_fields` with "embedding" in it
        gives the embeddings back.

        Args:
            **kwargs: `as_of`, `valid_at`, `causal`, `exact`, `recall` as of
                `Database.similar`; `filter`, in KoruDelta's language, over the metadata (it
                has booleans); `include_embeddings`; `syntax`, which gives words their
                operators (`"a phrase"`, `+must`, `-not`); `fusion="rrf"`, which adds
                reciprocal ranks in the place of scores; `alpha` and `mmr_threshold`, before
                those of the query; `mmr_prefetch_k` or `mmr_prefetch_factor`, how many to
                choose from, or how many times as many (at least 50 are).
        """
        koru_delta.adapters.check_options("query", kwargs, _QUERYING)
        scored = Search(
            self._connection.at(kwargs.get("as_of")), self.namespace, self.model, self.metric,
            query, kwargs, self._valid_at, self._causal,
        ).run()  # fmt: skip
        with_vectors = kwargs.get("include_embeddings")
        if with_vectors is None:
            with_vectors = self.include_embeddings or "embedding" in listed(
                "output_fields", query.output_fields or (), of=str
            )
        nodes = [
            node_of(match.value, self._embedding(match.version) if with_vectors else None)
            for match, _ in scored
        ]
        return VectorStoreQueryResult(
            nodes=nodes,
            similarities=[score for _, score in scored],
            ids=[node.node_id for node in nodes],
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """As `query`."""
        return await self._connection.threads.read(self.query, query, **kwargs)

    # Files

    @classmethod
    def from_persist_path(cls, persist_path: str, **kwargs: Any) -> Self:
        """The store in the database at a path.

        Args:
            **kwargs: Those of the constructor.

        Raises:
            NotADatabaseError: there is no database.
        """
        if not Path(persist_path).is_dir():
            raise koru_delta.errors.NotADatabaseError(f"no database at {persist_path}")
        return cls(path=persist_path, **kwargs)

    # Parts of the above

    def _made_with(self) -> dict[str, Any]:
        return {
            "namespace": self.namespace, "model": self.model, "metric": self.metric,
            "include_embeddings": self.include_embeddings, "valid_at": self._valid_at,
            "causal": self._causal,
        }  # fmt: skip

    @property
    def _metric(self) -> Metric:
        return cast("Metric", self.metric)

    def _by_id(
        self, view: View, keys: list[str], where: Condition | None, valid_at: When | None = None
    ) -> dict[str, Any]:
        """The values of some keys that pass, in the order of the keys."""
        found = view.get_many(self.namespace, dict.fromkeys(keys), valid_at=valid_at)
        if where is None:
            return found
        passes = koru_delta.prefixed(where).matches
        return {key: value for key, value in found.items() if passes(value)}

    def _delete_where(self, where: Condition | None, options: Mapping[str, Any]) -> None:
        if where is None:
            keys: Iterable[str] = self.database.list_keys(self.namespace)
        else:
            keys = [row.key for row in self.database.query(self.namespace, where, select=())]
        self.database.delete_many(self.namespace, keys, **options)

    def _embedding(self, version: Version) -> list[float] | None:
        vectors = self.database.vectors(version)
        if self.model is not None:
            vector = vectors.get(self.model)
        else:
            vector = next(iter(vectors.values()), None)
        return None if vector is None else [float(number) for number in vector]


def _keys(ids: Sequence[str]) -> list[str]:
    return [key_of(name) for name in listed("node_ids", ids, of=str)]
