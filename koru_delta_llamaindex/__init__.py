"""KoruDelta for LlamaIndex: stores that answer from any moment of their past, in one directory."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koru_delta_llamaindex.chatstore import KoruDeltaAsyncChatStore, KoruDeltaChatStore
    from koru_delta_llamaindex.context import ingestion_cache, storage_context
    from koru_delta_llamaindex.docstore import KoruDeltaDocumentStore
    from koru_delta_llamaindex.embedding import KoruDeltaEmbedding
    from koru_delta_llamaindex.indexstore import KoruDeltaIndexStore
    from koru_delta_llamaindex.kvstore import KoruDeltaKVStore
    from koru_delta_llamaindex.memory import KoruDeltaMemoryBlock
    from koru_delta_llamaindex.vectorstore import KoruDeltaVectorStore

__all__ = [
    "KoruDeltaAsyncChatStore",
    "KoruDeltaChatStore",
    "KoruDeltaDocumentStore",
    "KoruDeltaEmbedding",
    "KoruDeltaIndexStore",
    "KoruDeltaKVStore",
    "KoruDeltaMemoryBlock",
    "KoruDeltaVectorStore",
    "ingestion_cache",
    "storage_context",
]

# Each is imported when it is first asked for, with the parts of LlamaIndex it needs.
_HOMES = {
    "KoruDeltaAsyncChatStore": "chatstore",
    "KoruDeltaChatStore": "chatstore",
    "KoruDeltaDocumentStore": "docstore",
    "KoruDeltaEmbedding": "embedding",
    "KoruDeltaIndexStore": "indexstore",
    "KoruDeltaKVStore": "kvstore",
    "KoruDeltaMemoryBlock": "memory",
    "KoruDeltaVectorStore": "vectorstore",
    "ingestion_cache": "context",
    "storage_context": "context",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("llama_index"):
            raise
        import koru_delta

        raise koru_delta.errors.MissingExtraError("koru_delta_llamaindex", "llamaindex") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
