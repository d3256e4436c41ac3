"""KoruDelta: an embedded causal database. Every question can be asked of any past moment."""

from koru_delta import embedders, errors, testing
from koru_delta.aio import AsyncDatabase, AsyncTransaction, AsyncView
from koru_delta.causal import (
    Cause,
    Commit,
    ConsistencyProof,
    InclusionProof,
    TreeHead,
    Version,
    When,
    verify_consistency,
    verify_inclusion,
)
from koru_delta.database import Database, View, open
from koru_delta.errors import KoruDeltaError
from koru_delta.log import VerifyReport
from koru_delta.log.log import AsOf
from koru_delta.search.answers import Match, Matches
from koru_delta.search.filters import Filter, prefixed
from koru_delta.search.query import Row
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
from koru_delta.transaction import KEEP, Transaction

__version__ = "0.1.0"

__all__ = [
    "KEEP",
    "Add",
    "AsOf",
    "AsyncDatabase",
    "AsyncTransaction",
    "AsyncView",
    "Cause",
    "Cluster",
    "Commit",
    "ConsistencyProof",
    "Database",
    "Descent",
    "Explanation",
    "Filter",
    "InclusionProof",
    "KoruDeltaError",
    "Layers",
    "Match",
    "Matches",
    "Relation",
    "Row",
    "Subtract",
    "Toward",
    "Transaction",
    "TreeHead",
    "VerifyReport",
    "Version",
    "View",
    "When",
    "Words",
    "__version__",
    "embedders",
    "errors",
    "open",
    "prefixed",
    "testing",
    "verify_consistency",
    "verify_inclusion",
]
