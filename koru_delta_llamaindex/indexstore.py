"""A LlamaIndex index store in a KoruDelta database."""

from __future__ import annotations

import os
from typing import Any

from llama_index.core.storage.index_store.keyval_index_store import KVIndexStore
from llama_index.core.storage.index_store.types import DEFAULT_PERSIST_PATH

from koru_delta import Database
from koru_delta_llamaindex.kvstore import KoruDeltaKVStore, OnKeys, kvstore_of


class KoruDeltaIndexStore(OnKeys, KVIndexStore):
    """The structures of indexes, at any moment of their past.

    >>> from llama_index.core.data_structs import IndexList
    >>> store = KoruDeltaIndexStore()
    >>> store.add_index_struct(IndexList(index_id="news", nodes=["rain"]))
    >>> then = store.database.commits()[-1]
    >>> store.delete_index_struct("news")
    >>> store.index_structs(), store.as_of(then).get_index_struct("news").nodes
    ([], ['rain'])
    >>> store.close()
    """

    _kvstore: KoruDeltaKVStore

    def __init__(
        self,
        database: Database | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        namespace: str | None = None,
        kvstore: KoruDeltaKVStore | None = None,
    ) -> None:
        """Keep structures in `database`, or in one opened at `path`; in memory by default.

        Args:
            database: An open database; closing the store leaves it open.
            namespace: What its collection starts with: "index_store", as LlamaIndex has it.
            kvstore: In the place of database and path.
        """
        kvstore = kvstore_of(kvstore, database, path)
        super().__init__(kvstore, namespace=namespace)

    def persist(self, persist_path: str = DEFAULT_PERSIST_PATH, fs: Any = None) -> None:
        """As `KoruDeltaKVStore.persist`."""
        super().persist(persist_path, fs)
