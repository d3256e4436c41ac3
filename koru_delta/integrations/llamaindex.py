"""The LlamaIndex adapter, by the name one looks for (extra `llamaindex`)."""

from koru_delta_llamaindex import KoruDeltaVectorStore, storage_context

__all__ = ["KoruDeltaVectorStore", "storage_context"]
