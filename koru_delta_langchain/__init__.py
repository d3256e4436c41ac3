"""KoruDelta for LangChain: a vector store that answers from any moment of its past."""

from koru_delta_langchain.vectorstore import KoruDeltaVectorStore

__all__ = ["KoruDeltaVectorStore"]
