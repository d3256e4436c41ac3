"""KoruDelta for LangChain: every kind of store, each readable as of any moment of its past."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import koru_delta

if find_spec("langchain_core") is None:
    raise koru_delta.errors.MissingExtraError("koru_delta_langchain", "langchain")

if TYPE_CHECKING:
    from koru_delta_langchain.bytestore import KoruDeltaByteStore
    from koru_delta_langchain.caches import KoruDeltaCache, KoruDeltaSemanticCache
    from koru_delta_langchain.chats import KoruDeltaChatMessageHistory
    from koru_delta_langchain.embedding import KoruDeltaEmbeddings
    from koru_delta_langchain.index import KoruDeltaDocumentIndex
    from koru_delta_langchain.langgraph import (
        KoruDeltaNodeCache,
        KoruDeltaSaver,
        KoruDeltaStore,
        Revision,
    )
    from koru_delta_langchain.records import Drift, KoruDeltaRecordManager
    from koru_delta_langchain.retriever import KoruDeltaRetriever
    from koru_delta_langchain.selfquery import KoruDeltaTranslator, self_query_retriever
    from koru_delta_langchain.vectorstore import KoruDeltaVectorStore

__all__ = [
    "Drift",
    "KoruDeltaByteStore",
    "KoruDeltaCache",
    "KoruDeltaChatMessageHistory",
    "KoruDeltaDocumentIndex",
    "KoruDeltaEmbeddings",
    "KoruDeltaNodeCache",
    "KoruDeltaRecordManager",
    "KoruDeltaRetriever",
    "KoruDeltaSaver",
    "KoruDeltaSemanticCache",
    "KoruDeltaStore",
    "KoruDeltaTranslator",
    "KoruDeltaVectorStore",
    "Revision",
    "self_query_retriever",
]

# Imported when they are first asked for: nobody waits for, or installs, what they do not use.
_HOMES = {
    "Drift": "records",
    "KoruDeltaByteStore": "bytestore",
    "KoruDeltaCache": "caches",
    "KoruDeltaChatMessageHistory": "chats",
    "KoruDeltaDocumentIndex": "index",
    "KoruDeltaEmbeddings": "embedding",
    "KoruDeltaNodeCache": "langgraph",
    "KoruDeltaRecordManager": "records",
    "KoruDeltaRetriever": "retriever",
    "KoruDeltaSaver": "langgraph",
    "KoruDeltaSemanticCache": "caches",
    "KoruDeltaStore": "langgraph",
    "KoruDeltaTranslator": "selfquery",
    "KoruDeltaVectorStore": "vectorstore",
    "Revision": "langgraph",
    "self_query_retriever": "selfquery",
}

if find_spec("langgraph") is None:  # `import *` and `help` ask for all that is in __all__
    for _name, _home in _HOMES.items():
        if _home == "langgraph":
            __all__.remove(_name)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
