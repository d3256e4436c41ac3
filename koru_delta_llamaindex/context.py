"""All stores of LlamaIndex in one database."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Final

from llama_index.core import StorageContext
from llama_index.core.ingestion import IngestionCache

from koru_delta import AsOf, Database
from koru_delta_llamaindex.connection import Connection
from koru_delta_llamaindex.docstore import KoruDeltaDocumentStore
from koru_delta_llamaindex.indexstore import KoruDeltaIndexStore
from koru_delta_llamaindex.kvstore import KoruDeltaKVStore
from koru_delta_llamaindex.vectorstore import KoruDeltaVectorStore, Metric

DEFAULT_PREFIX: Final = "llamaindex"


def storage_context(
    where: Database | str | os.PathLike[str] | None = None,
    *,
    prefix: str = DEFAULT_PREFIX,
    model: str | None = None,
    metric: Metric = "cosine",
    as_of: AsOf = None,
) -> StorageContext:
    """A `StorageContext` whose document, index, vector and image stores are in one database.

    They are in the namespaces `<prefix>/vectors`, `<prefix>/images` and `<prefix>/kv/...`.
    Everything is written at once: `persist()` has nothing to do for them.

    Args:
        where: An open database, or a path to open one at; in memory by default. One opened
            here is closed by `context.vector_store.close()`.
        model, metric: As of `KoruDeltaVectorStore`.
        as_of: Show everything as it stood then, that instant included, to be read only.

    >>> context = storage_context()
    >>> context.vector_store
    <KoruDeltaVectorStore 'llamaindex/vectors' of <Database 'in memory'>>
    >>> context.vector_store.close()
    """
    connection = _connection(where, as_of)
    kvstore = KoruDeltaKVStore(namespace=f"{prefix}/kv", connection=connection.shared())
    return StorageContext.from_defaults(
        docstore=KoruDeltaDocumentStore(kvstore=kvstore),
        index_store=KoruDeltaIndexStore(kvstore=kvstore),
        vector_store=KoruDeltaVectorStore(
            namespace=f"{prefix}/vectors", model=model, metric=metric, connection=connection
        ),
        image_store=KoruDeltaVectorStore(
            namespace=f"{prefix}/images", model=model, metric=metric,
            connection=connection.shared(),
        ),
    )  # fmt: skip


def ingestion_cache(
    where: Database | str | os.PathLike[str] | None = None,
    *,
    prefix: str = DEFAULT_PREFIX,
    collection: str = "llama_cache",
    ttl: float | None = None,
    keep: timedelta | None = timedelta(0),
) -> IngestionCache:
    """A cache for ingestion pipelines, in the namespace `<prefix>/kv/<collection>`.

    LlamaIndex looks in it by the text and metadata of what goes in, not by ids: of documents
    that say the same, what came of the first comes again for the others, as of the first.
    Metadata that tells them apart (a path, say) keeps them apart.

    Args:
        where: As of `storage_context`; one opened here is closed by `cache.cache.close()`.
        ttl: Seconds after which an entry is forgotten.
        keep: For how long an entry that was forgotten or replaced stays on disk, to be read
            with `as_of`, unless somebody has said so before; None is for ever.
    """
    kvstore = KoruDeltaKVStore(
        namespace=f"{prefix}/kv", ttl=ttl, keep=keep, connection=_connection(where, None)
    )
    return IngestionCache(cache=kvstore, collection=collection)


def _connection(where: Database | str | os.PathLike[str] | None, as_of: AsOf) -> Connection:
    if isinstance(where, Database):
        return Connection(where, as_of=as_of)
    return Connection(path=where, as_of=as_of)
