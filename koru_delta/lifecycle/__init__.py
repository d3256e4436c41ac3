"""What is near, what is far, what is forgotten: deciding by use, moving, and the jobs."""

from koru_delta.lifecycle.consolidate import (
    Consolidation,
    Consolidator,
    Summarizer,
    Surroundings,
)
from koru_delta.lifecycle.facade import (
    CHECK_SECONDS,
    CONSOLIDATE_SECONDS,
    GENOME_SECONDS,
    Checked,
    Lifecycle,
)
from koru_delta.lifecycle.grouping import Consolidate
from koru_delta.lifecycle.holdings import Held
from koru_delta.lifecycle.importance import Importance, Report
from koru_delta.lifecycle.jobs import Runner
from koru_delta.lifecycle.mover import AllHot, Mover, MoveResult
from koru_delta.lifecycle.plan import Budget, Load, Move, Plan, Settings, Stock, Tier
from koru_delta.lifecycle.policies import Policy
from koru_delta.lifecycle.sidefile import UsageFile
from koru_delta.lifecycle.tiers import Kept, Tiers
from koru_delta.lifecycle.tracker import Feedback, Tracker, Usable
from koru_delta.lifecycle.undoing import left_derived

__all__ = [
    "CHECK_SECONDS",
    "CONSOLIDATE_SECONDS",
    "GENOME_SECONDS",
    "AllHot",
    "Budget",
    "Checked",
    "Consolidate",
    "Consolidation",
    "Consolidator",
    "Feedback",
    "Held",
    "Importance",
    "Kept",
    "Lifecycle",
    "Load",
    "Move",
    "MoveResult",
    "Mover",
    "Plan",
    "Policy",
    "Report",
    "Runner",
    "Settings",
    "Stock",
    "Summarizer",
    "Surroundings",
    "Tier",
    "Tiers",
    "Tracker",
    "Usable",
    "UsageFile",
    "left_derived",
]
