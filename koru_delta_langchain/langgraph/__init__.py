"""KoruDelta for LangGraph: checkpoints, a store for agents, a cache of nodes; with a past."""

from koru_delta_langchain.langgraph.checkpoint import KoruDeltaSaver
from koru_delta_langchain.langgraph.nodecache import KoruDeltaNodeCache
from koru_delta_langchain.langgraph.store import KoruDeltaStore, Revision

__all__ = ["KoruDeltaNodeCache", "KoruDeltaSaver", "KoruDeltaStore", "Revision"]
