"""Real graphs over the saver and the store: interrupts, resuming, time travel, killed runs."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore
from langgraph.types import Command, interrupt

import koru_delta
from koru_delta_langchain.langgraph import KoruDeltaSaver, KoruDeltaStore


class State(TypedDict):
    log: Annotated[list[str], operator.add]
    answer: str


def draft(state: State) -> dict[str, Any]:
    return {"log": ["drafted"]}


def ask(state: State) -> dict[str, Any]:
    return {"answer": interrupt("send it?"), "log": ["asked"]}


def send(state: State, *, store: BaseStore) -> dict[str, Any]:
    store.put(("answers",), "last", {"answer": state["answer"]})
    return {"log": [f"sent: {state['answer']}"]}


Graph = CompiledStateGraph[State, Any, Any, Any]
CONFIG: RunnableConfig = {"configurable": {"thread_id": "mail"}}


def built(database: koru_delta.Database) -> Graph:
    builder = StateGraph(State)
    for node in (draft, ask, send):
        builder.add_node(node)
    builder.add_edge(START, "draft")
    builder.add_edge("draft", "ask")
    builder.add_edge("ask", "send")
    builder.add_edge("send", END)
    return builder.compile(
        checkpointer=KoruDeltaSaver(database=database, erase=False),
        store=KoruDeltaStore(database=database),
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[koru_delta.Database]:
    with koru_delta.open(tmp_path / "db") as opened:
        yield opened


def test_a_graph_stops_resumes_in_another_opening_and_goes_back(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path) as database:
        stopped = built(database).invoke({"log": ["begun"], "answer": ""}, CONFIG)
        assert stopped["__interrupt__"][0].value == "send it?"
        assert built(database).get_state(CONFIG).next == ("ask",)
    with koru_delta.open(tmp_path) as database:
        graph = built(database)
        ended = graph.invoke(Command(resume="yes"), CONFIG)
        assert ended == {"log": ["begun", "drafted", "asked", "sent: yes"], "answer": "yes"}

        history = list(graph.get_state_history(CONFIG))
        assert [state.next for state in history] == [
            (), ("send",), ("ask",), ("draft",), ("__start__",),
        ]  # fmt: skip
        assert [len(state.values.get("log", [])) for state in history] == [4, 3, 2, 1, 0]
        fork = graph.update_state(history[2].config, {"log": ["thought again"]})
        again = graph.invoke(Command(resume="no"), fork)
        assert again["log"] == ["begun", "drafted", "thought again", "asked", "sent: no"]
        edited = graph.update_state(history[1].config, {"answer": "maybe"})
        assert graph.invoke(None, edited)["log"][-1] == "sent: maybe"
        told = KoruDeltaStore(database=database).history(("answers",), "last")
        assert [revision.value for revision in told] == [
            {"answer": "yes"}, {"answer": "no"}, {"answer": "maybe"},
        ]  # fmt: skip
        # The first ending is still there, under its own id.
        assert graph.get_state(history[0].config).values == ended


async def test_the_same_asynchronously(database: koru_delta.Database) -> None:
    graph = built(database)
    stopped = await graph.ainvoke({"log": ["begun"], "answer": ""}, CONFIG)
    assert stopped["__interrupt__"][0].value == "send it?"
    ended = await graph.ainvoke(Command(resume="yes"), CONFIG)
    assert ended["log"] == ["begun", "drafted", "asked", "sent: yes"]
    history = [state async for state in graph.aget_state_history(CONFIG)]
    assert [state.next for state in history] == [
        (), ("send",), ("ask",), ("draft",), ("__start__",),
    ]  # fmt: skip
    edited = await graph.aupdate_state(history[1].config, {"answer": "maybe"})
    assert (await graph.ainvoke(None, edited))["log"][-1] == "sent: maybe"
    # What was written asynchronously is read synchronously by the same objects.
    assert graph.get_state(history[0].config).values == ended


def test_a_moment_of_the_database_shows_threads_and_memories_together(
    database: koru_delta.Database,
) -> None:
    graph = built(database)
    graph.invoke({"log": ["begun"], "answer": ""}, CONFIG)
    graph.invoke(Command(resume="yes"), CONFIG)
    then = database.as_of(None).seq
    graph.invoke({"log": ["again"], "answer": ""}, CONFIG)
    graph.invoke(Command(resume="no"), CONFIG)
    assert isinstance(graph.checkpointer, KoruDeltaSaver)
    assert isinstance(graph.store, KoruDeltaStore)
    graph.checkpointer.prune(["mail"])

    past = graph.checkpointer.as_of(then).get(CONFIG)
    memory = graph.store.as_of(then).get(("answers",), "last")

    assert past is not None
    assert past["channel_values"]["answer"] == "yes"
    assert memory is not None
    assert memory.value == {"answer": "yes"}
    assert graph.get_state(CONFIG).values["answer"] == "no"
    assert len(list(graph.get_state_history(CONFIG))) == 1
    assert database.verify().ok


PROGRAM = """
import operator, os, signal, sys
from typing import Annotated, TypedDict
from langgraph.graph import END, START, StateGraph
from koru_delta_langchain.langgraph import KoruDeltaSaver

class State(TypedDict):
    steps: Annotated[list[int], operator.add]

def step(state):
    n = len(state["steps"])
    if n == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"steps": [n]}

builder = StateGraph(State)
builder.add_node("step", step)
builder.add_edge(START, "step")
builder.add_conditional_edges("step", lambda state: END if len(state["steps"]) >= 8 else "step")
with KoruDeltaSaver(path=sys.argv[1]) as saver:
    graph = builder.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    given = None if graph.get_state(config).values else {"steps": []}
    print(graph.invoke(given, config, durability="sync")["steps"])
"""


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    def run(dies_at: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "db"), str(dies_at)],
            capture_output=True, text=True, env={**os.environ}, check=False,
        )  # fmt: skip

    for dies_at in (3, 6):
        assert run(dies_at).returncode == -signal.SIGKILL
        with KoruDeltaSaver(path=tmp_path / "db") as saver:
            kept = saver.get({"configurable": {"thread_id": "t"}})
            assert kept is not None
            assert kept["channel_values"]["steps"] == list(range(dies_at))
            assert saver.database.verify().ok
    ended = run(-1)
    assert ended.stdout.strip() == str(list(range(8))), ended.stderr
