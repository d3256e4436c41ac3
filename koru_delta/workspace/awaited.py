"""Workspaces and agents' memories for event loops: the same verbs, awaited."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from koru_delta.log.moments import AsOf
from koru_delta.search.answers import Matches
from koru_delta.workspace.memory import AgentMemory
from koru_delta.workspace.workspace import Workspace

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Protocol):
    """Where calls run, off the loop."""

    async def read(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that may run beside others."""
        ...

    async def write(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call after all that were made before it."""
        ...


def _on_workspace(
    verb: Callable[Concatenate[Workspace, P], T],
    then: Callable[[T], T] | None = None,
    *,
    writes: bool = False,
) -> Callable[Concatenate[AsyncWorkspace, P], Coroutine[Any, Any, T]]:
    """A verb of a workspace, awaited; `then` included. Those that write keep their order."""

    @wraps(verb)
    async def awaited(self: AsyncWorkspace, /, *args: P.args, **kwargs: P.kwargs) -> T:
        def call() -> T:
            found = verb(self._workspace, *args, **kwargs)
            return found if then is None else then(found)

        threads = self._threads
        return await (threads.write(call) if writes else threads.read(call))

    return awaited


def _on_memory(
    verb: Callable[Concatenate[AgentMemory, P], T], *, writes: bool = False
) -> Callable[Concatenate[AsyncAgentMemory, P], Coroutine[Any, Any, T]]:
    """A verb of a memory, awaited. Those that write keep their order."""

    @wraps(verb)
    async def awaited(self: AsyncAgentMemory, /, *args: P.args, **kwargs: P.kwargs) -> T:
        threads = self._threads
        run = threads.write if writes else threads.read
        return await run(verb, self._memory, *args, **kwargs)

    return awaited


class AsyncWorkspace:
    """`Workspace` for event loops: same names, same arguments, awaited."""

    def __init__(self, workspace: Workspace, threads: Threads) -> None:
        """Made by `AsyncDatabase.workspace`."""
        self._workspace, self._threads = workspace, threads

    def __repr__(self) -> str:
        return f"<Async{repr(self._workspace)[1:]}"

    @property
    def name(self) -> str:
        """What it is called."""
        return self._workspace.name

    @property
    def workspace(self) -> Workspace:
        """The same workspace, for synchronous code."""
        return self._workspace

    def ai_context(self) -> AsyncAgentMemory:
        """The memory of an agent, kept in this workspace."""
        return AsyncAgentMemory(self._workspace.ai_context(), self._threads)

    async def export(self, *, history: bool = False, as_of: AsOf = None) -> list[dict[str, Any]]:
        """As `Workspace.export`, all of it in a list."""
        return await self._threads.read(
            lambda: list(self._workspace.export(history=history, as_of=as_of))
        )

    configure = _on_workspace(Workspace.configure, writes=True)
    pattern = _on_workspace(Workspace.pattern, writes=True)
    store = _on_workspace(Workspace.store, writes=True)
    store_many = _on_workspace(Workspace.store_many, writes=True)
    add = _on_workspace(Workspace.add, writes=True)
    delete = _on_workspace(Workspace.delete, writes=True)
    expire = _on_workspace(Workspace.expire, writes=True)
    touch = _on_workspace(Workspace.touch, writes=True)
    outcome = _on_workspace(Workspace.outcome, writes=True)
    get = _on_workspace(Workspace.get)
    version = _on_workspace(Workspace.version)
    get_version = _on_workspace(Workspace.get_version)
    history = _on_workspace(Workspace.history)
    ancestors = _on_workspace(Workspace.ancestors)
    search = _on_workspace(Workspace.search, Matches.load)
    query = _on_workspace(Workspace.query)
    count = _on_workspace(Workspace.count)
    list_keys = _on_workspace(Workspace.list_keys)
    list_namespaces = _on_workspace(Workspace.list_namespaces)
    outcomes = _on_workspace(Workspace.outcomes)
    stats = _on_workspace(Workspace.stats)
    reembed = _on_workspace(Workspace.reembed)
    drop = _on_workspace(Workspace.drop, writes=True)


class AsyncAgentMemory:
    """`AgentMemory` for event loops: same names, same arguments, awaited.

    An `explanation` asked for later is made where it is asked; `recall(explain=True)` makes
    all of them off the loop.
    """

    def __init__(self, memory: AgentMemory, threads: Threads) -> None:
        """Made by `AsyncWorkspace.ai_context`."""
        self._memory, self._threads = memory, threads

    def __repr__(self) -> str:
        return f"<Async{repr(self._memory)[1:]}"

    @property
    def memory(self) -> AgentMemory:
        """The same memory, for synchronous code."""
        return self._memory

    remember_episode = _on_memory(AgentMemory.remember_episode, writes=True)
    remember_episodes = _on_memory(AgentMemory.remember_episodes, writes=True)
    remember_fact = _on_memory(AgentMemory.remember_fact, writes=True)
    remember_procedure = _on_memory(AgentMemory.remember_procedure, writes=True)
    record_outcome = _on_memory(AgentMemory.record_outcome, writes=True)
    recall = _on_memory(AgentMemory.recall)
    context = _on_memory(AgentMemory.context)
    get = _on_memory(AgentMemory.get)
    memories = _on_memory(AgentMemory.memories)
    history = _on_memory(AgentMemory.history)
    why = _on_memory(AgentMemory.why)
    what_did_i_believe = _on_memory(AgentMemory.what_did_i_believe)
    timeline = _on_memory(AgentMemory.timeline)
    contradictions = _on_memory(AgentMemory.contradictions)
    forget = _on_memory(AgentMemory.forget, writes=True)
    erase = _on_memory(AgentMemory.erase, writes=True)
    restore = _on_memory(AgentMemory.restore, writes=True)
    forgotten = _on_memory(AgentMemory.forgotten)
    consolidate = _on_memory(AgentMemory.consolidate, writes=True)
    used = _on_memory(AgentMemory.used, writes=True)
