"""Workspaces and agents' memories, over the public verbs."""

from koru_delta.workspace.awaited import AsyncAgentMemory, AsyncWorkspace
from koru_delta.workspace.memory import AgentMemory
from koru_delta.workspace.patterns import Outcomes
from koru_delta.workspace.recollection import Context, Contradiction, Forgotten, Memory
from koru_delta.workspace.settings import Rule, Settings
from koru_delta.workspace.workspace import Workspace

__all__ = [
    "AgentMemory",
    "AsyncAgentMemory",
    "AsyncWorkspace",
    "Context",
    "Contradiction",
    "Forgotten",
    "Memory",
    "Outcomes",
    "Rule",
    "Settings",
    "Workspace",
]
