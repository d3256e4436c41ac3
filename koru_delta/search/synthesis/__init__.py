"""Nearness, relations, layers, navigation and explanations, all read from the log."""

from koru_delta.search.synthesis.explanation import (
    Explanation,
    Part,
    Term,
    explain_proximity,
    rrf_part,
    scaled_part,
)
from koru_delta.search.synthesis.layers import Cluster, Descent, Layers
from koru_delta.search.synthesis.navigation import Add, Subtract, Toward, Words, slerp, walk
from koru_delta.search.synthesis.proximity import (
    DEFAULT_WEIGHTS,
    FACTORS,
    Distinctions,
    Proximity,
    causal,
    compose,
    compositional,
    geometric,
    proximity_of,
    temporal,
)
from koru_delta.search.synthesis.relations import Edge, Evidence, Node, Relation, hops, verify

__all__ = [
    "DEFAULT_WEIGHTS",
    "FACTORS",
    "Add",
    "Cluster",
    "Descent",
    "Distinctions",
    "Edge",
    "Evidence",
    "Explanation",
    "Layers",
    "Node",
    "Part",
    "Proximity",
    "Relation",
    "Subtract",
    "Term",
    "Toward",
    "Words",
    "causal",
    "compose",
    "compositional",
    "explain_proximity",
    "geometric",
    "hops",
    "proximity_of",
    "rrf_part",
    "scaled_part",
    "slerp",
    "temporal",
    "verify",
    "walk",
]
