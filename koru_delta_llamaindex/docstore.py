"""A LlamaIndex document store in a KoruDelta database.

What one call writes is one commit, over all its collections, and old versions of a document
stay readable with `as_of`: after an upsert too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.constants import DATA_KEY, TYPE_KEY
from llama_index.core.schema import BaseNode
from llama_index.core.storage.docstore.keyval_docstore import KVDocumentStore
from llama_index.core.storage.docstore.types import DEFAULT_PERSIST_PATH, RefDocInfo

import koru_delta
from koru_delta import Database
from koru_delta_llamaindex.keys import listed
from koru_delta_llamaindex.kvstore import KoruDeltaKVStore, OnKeys, kvstore_of
from koru_delta_llamaindex.nodes import dumped, loaded

_Pair = tuple[str, dict[str, Any]]


class KoruDeltaDocumentStore(OnKeys, KVDocumentStore):
    """Documents and nodes, their hashes, and what came of which document.

    Nodes come back equal, media and classes of one's own included. Async methods wait in
    threads, never on the event loop. Pickled, a store opens its directory anew.

    >>> from llama_index.core.schema import Document
    >>> store = KoruDeltaDocumentStore()
    >>> store.add_documents([Document(id_="sky", text="rain")])
    >>> then = store.database.commits()[-1]
    >>> store.add_documents([Document(id_="sky", text="sun")])
    >>> store.get_document("sky").text, store.as_of(then).get_document("sky").text
    ('sun', 'rain')
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
        """Keep documents in `database`, or in one opened at `path`; in memory by default.

        Args:
            database: An open database; closing the store leaves it open.
            namespace: What its collections start with: "docstore", as LlamaIndex has it.
            kvstore: In the place of database and path.
        """
        kvstore = kvstore_of(kvstore, database, path)
        super().__init__(kvstore, namespace=namespace)

    def persist(self, persist_path: str = DEFAULT_PERSIST_PATH, fs: Any = None) -> None:
        """As `KoruDeltaKVStore.persist`."""
        super().persist(persist_path, fs)

    # Reading

    @property
    def docs(self) -> dict[str, BaseNode]:
        """Every document and node, by id."""
        found = self._kvstore.get_all(collection=self._node_collection)
        return {name: _node(value) for name, value in found.items()}

    def get_document(self, doc_id: str, raise_error: bool = True) -> BaseNode | None:
        """A document or node; None where there is none and `raise_error` is False.

        Raises:
            ValueError: there is none.
        """
        found = self._kvstore.get(doc_id, collection=self._node_collection)
        if found is not None:
            return _node(found)
        if raise_error:
            raise ValueError(f"doc_id {doc_id} not found.")
        return None

    async def aget_document(self, doc_id: str, raise_error: bool = True) -> BaseNode | None:
        """As `get_document`."""
        return await self._kvstore.connection.threads.read(self.get_document, doc_id, raise_error)

    async def aget_nodes(self, node_ids: list[str], raise_error: bool = True) -> list[BaseNode]:
        """As `get_nodes`, which raises where one is missing unless `raise_error` is False."""
        return await self._kvstore.connection.threads.read(self.get_nodes, node_ids, raise_error)

    def get_all_document_hashes(self) -> dict[str, str]:
        """The ids of everything kept, by hash; further ones of a hash by `"<hash>:<id>"`.

        The framework's own has one of those that are alike, so that a pipeline which deletes
        what has left its source would never see the others.
        """
        found: dict[str, str] = {}
        for name, value in self._kvstore.get_all(collection=self._metadata_collection).items():
            hashed = value.get("doc_hash")
            if hashed:
                found[f"{hashed}:{name}" if hashed in found else hashed] = name
        return found

    async def aget_all_document_hashes(self) -> dict[str, str]:
        """As `get_all_document_hashes`."""
        return await self._kvstore.connection.threads.read(self.get_all_document_hashes)

    # Writing

    def add_documents(
        self,
        docs: Sequence[BaseNode],
        allow_update: bool = True,
        batch_size: int | None = None,
        store_text: bool = True,
    ) -> None:
        """Add documents or nodes, or new versions of them, in one commit.

        Raises:
            ValueError: one is there already and `allow_update` is False.
            InvalidDataError: one is not JSON.
        """
        nodes = listed("docs", docs, of=BaseNode)
        self._kvstore.atomically(super().add_documents, nodes, allow_update, batch_size, store_text)

    async def async_add_documents(
        self,
        docs: Sequence[BaseNode],
        allow_update: bool = True,
        batch_size: int | None = None,
        store_text: bool = True,
    ) -> None:
        """As `add_documents`."""
        await self._kvstore.connection.threads.write(
            self.add_documents, docs, allow_update, batch_size, store_text
        )

    def delete_document(self, doc_id: str, raise_error: bool = True) -> None:
        """Delete a document or node, in one commit.

        Raises:
            ValueError: there is none, and `raise_error`.
        """
        self._kvstore.atomically(super().delete_document, doc_id, raise_error)

    async def adelete_document(self, doc_id: str, raise_error: bool = True) -> None:
        """As `delete_document`."""
        await self._kvstore.connection.threads.write(self.delete_document, doc_id, raise_error)

    def delete_ref_doc(self, ref_doc_id: str, raise_error: bool = True) -> None:
        """Delete a document and all its nodes, in one commit.

        Raises:
            ValueError: nothing came of such a document, and `raise_error`.
        """
        self._kvstore.atomically(self._delete_ref_doc, ref_doc_id, raise_error)

    async def adelete_ref_doc(self, ref_doc_id: str, raise_error: bool = True) -> None:
        """As `delete_ref_doc`."""
        await self._kvstore.connection.threads.write(self.delete_ref_doc, ref_doc_id, raise_error)

    # Parts of the above

    def _delete_ref_doc(self, ref_doc_id: str, raise_error: bool) -> None:
        # The framework's form writes the list of nodes anew for each of them.
        info = self.get_ref_doc_info(ref_doc_id)
        if info is None:
            if raise_error:
                raise ValueError(f"ref_doc_id {ref_doc_id} not found.")
            return
        for name in info.node_ids:
            if self._get_ref_doc_id(name) in (None, ref_doc_id):
                self._kvstore.delete(name, collection=self._node_collection)
                self._kvstore.delete(name, collection=self._metadata_collection)
            else:  # it came of another document since, whose list it is in
                self.delete_document(name, raise_error=False)
        self._kvstore.delete(ref_doc_id, collection=self._ref_doc_collection)
        self._kvstore.delete(ref_doc_id, collection=self._metadata_collection)
        self._kvstore.delete(ref_doc_id, collection=self._node_collection)

    def _get_kv_pairs_for_insert(
        self, node: BaseNode, ref_doc_info: RefDocInfo | None, store_text: bool
    ) -> tuple[_Pair | None, _Pair | None, _Pair | None]:
        # The framework's form of a node leaves media out and coerces what is no JSON.
        _, metadata, ref_doc = super()._get_kv_pairs_for_insert(node, ref_doc_info, False)
        kept = (node.node_id, {DATA_KEY: dumped(node), TYPE_KEY: node.get_type()})
        return kept if store_text else None, metadata, ref_doc


def _node(value: Mapping[str, Any]) -> BaseNode:
    data = value.get(DATA_KEY)
    if not isinstance(data, dict):
        raise koru_delta.errors.InvalidDataError(
            "this is no node of LlamaIndex; keep other values in another collection"
        )
    return loaded(data)
