"""KoruDelta: an embedded causal database. Every question can be asked of any past moment."""

from importlib import import_module
from typing import TYPE_CHECKING

from koru_delta import adapters, embedders, errors, testing
from koru_delta.aio import AsyncDatabase, AsyncTransaction, AsyncView
from koru_delta.causal import (
    Cause,
    Commit,
    ConsistencyProof,
    Erasure,
    InclusionProof,
    TreeHead,
    Version,
    When,
    verify_consistency,
    verify_inclusion,
)
from koru_delta.database import Database, Erased, View, open
from koru_delta.errors import ErasedError, KoruDeltaError
from koru_delta.intents import KEEP
from koru_delta.lifecycle import Consolidate, Consolidation
from koru_delta.log import VerifyReport
from koru_delta.log.moments import AsOf
from koru_delta.log.retention import Retention, Swept
from koru_delta.search.answers import Match, Matches
from koru_delta.search.causality import CausalFilter
from koru_delta.search.difference import Change, RetrievalDiff
from koru_delta.search.filters import Filter, prefixed
from koru_delta.search.query import Row
from koru_delta.search.searcher import HybridSearcher
from koru_delta.search.synthesis import (
    Add,
    Cluster,
    Descent,
    Explanation,
    Layers,
    Relation,
    Subtract,
    Toward,
    Words,
)
from koru_delta.transaction import Transaction

if TYPE_CHECKING:
    from koru_delta.ingest.chunking import Chunk, ChunkingConfig, chunk_document
    from koru_delta.ingest.lineage import Lineage
    from koru_delta.ingest.quarantine import Quarantine
    from koru_delta.ingest.run import Run
    from koru_delta.workspace import (
        AgentMemory,
        AsyncAgentMemory,
        AsyncWorkspace,
        Context,
        Contradiction,
        Forgotten,
        Memory,
        Outcomes,
        Workspace,
    )

__version__ = "0.1.0"

__all__ = [
    "KEEP",
    "Add",
    "AgentMemory",
    "AsOf",
    "AsyncAgentMemory",
    "AsyncDatabase",
    "AsyncTransaction",
    "AsyncView",
    "AsyncWorkspace",
    "CausalFilter",
    "Cause",
    "Change",
    "Chunk",
    "ChunkingConfig",
    "Cluster",
    "Commit",
    "ConsistencyProof",
    "Consolidate",
    "Consolidation",
    "Context",
    "Contradiction",
    "Database",
    "Descent",
    "Erased",
    "ErasedError",
    "Erasure",
    "Explanation",
    "Filter",
    "Forgotten",
    "HybridSearcher",
    "InclusionProof",
    "KoruDeltaError",
    "Layers",
    "Lineage",
    "Match",
    "Matches",
    "Memory",
    "Outcomes",
    "Quarantine",
    "Relation",
    "Retention",
    "RetrievalDiff",
    "Row",
    "Run",
    "Subtract",
    "Swept",
    "Toward",
    "Transaction",
    "TreeHead",
    "VerifyReport",
    "Version",
    "View",
    "When",
    "Words",
    "Workspace",
    "__version__",
    "adapters",
    "chunk_document",
    "embedders",
    "errors",
    "open",
    "prefixed",
    "testing",
    "verify_consistency",
    "verify_inclusion",
]

# Imported when they are first asked for, to keep `import koru_delta` light.
_LATER = {
    "AgentMemory": "koru_delta.workspace",
    "AsyncAgentMemory": "koru_delta.workspace",
    "AsyncWorkspace": "koru_delta.workspace",
    "Chunk": "koru_delta.ingest.chunking",
    "ChunkingConfig": "koru_delta.ingest.chunking",
    "Context": "koru_delta.workspace",
    "Contradiction": "koru_delta.workspace",
    "Forgotten": "koru_delta.workspace",
    "Lineage": "koru_delta.ingest.lineage",
    "Memory": "koru_delta.workspace",
    "Outcomes": "koru_delta.workspace",
    "Quarantine": "koru_delta.ingest.quarantine",
    "Run": "koru_delta.ingest.run",
    "Workspace": "koru_delta.workspace",
    "chunk_document": "koru_delta.ingest.chunking",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
