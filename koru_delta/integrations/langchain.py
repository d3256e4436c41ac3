"""The LangChain adapter, by the name one looks for (extra `langchain`)."""

from koru_delta_langchain import KoruDeltaVectorStore

__all__ = ["KoruDeltaVectorStore"]
