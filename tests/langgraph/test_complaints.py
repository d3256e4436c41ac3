"""What users report of other checkpointers and stores of LangGraph, asked of ours."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.graph import END, START, StateGraph

from koru_delta_langchain.langgraph import KoruDeltaSaver


@pytest.fixture
def saver() -> Iterator[KoruDeltaSaver]:
    with KoruDeltaSaver() as opened:
        yield opened


def config_of(thread: str, ns: str = "", identity: str | None = None) -> RunnableConfig:
    named = {"thread_id": thread, "checkpoint_ns": ns}
    return {"configurable": named | ({} if identity is None else {"checkpoint_id": identity})}


def checkpoint_of(identity: str, **values: Any) -> Checkpoint:
    versions: dict[str, str | int | float] = dict.fromkeys(values, identity)
    return {
        **empty_checkpoint(), "id": identity, "ts": "2026-01-01T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": versions,
    }  # fmt: skip


def values_of(saver: KoruDeltaSaver, thread: str = "t", identity: str | None = None) -> Any:
    found = saver.get_tuple(config_of(thread, identity=identity))
    assert found is not None
    return found.checkpoint["channel_values"]


# How much is stored


class Counting(TypedDict):
    log: Annotated[list[str], operator.add]
    turn: int
    note: str


def counting(saver: KoruDeltaSaver, turns: int) -> Any:
    builder = StateGraph(Counting)
    builder.add_node("say", lambda s: {"log": ["x"], "turn": s["turn"] + 1, "note": f"{s['turn']}"})
    builder.add_edge(START, "say")
    builder.add_conditional_edges("say", lambda s: "say" if s["turn"] < turns else END)
    return builder.compile(checkpointer=saver)


def test_a_step_is_one_entry_for_its_state_one_for_each_large_channel_and_one_for_each_task(
    saver: KoruDeltaSaver,
) -> None:
    graph = counting(saver, 20)
    ended = graph.invoke({"log": [], "turn": 0, "note": ""}, config_of("t"))

    assert ended == {"log": ["x"] * 20, "turn": 20, "note": "19"}
    history = list(graph.get_state_history(config_of("t")))
    assert [state.values.get("turn") for state in history] == [*range(20, -1, -1), None]
    kinds = [key[0] for key in saver.database.list_keys(saver.namespace)]
    assert kinds.count("c") == 22
    assert kinds.count("w") == 21  # of the input, and of each turn
    assert kinds.count("b") == 22  # `__start__`, and `log` as the input and each turn left it


def test_a_value_changed_in_place_does_not_vanish(saver: KoruDeltaSaver) -> None:
    notes = ["a"]
    first = checkpoint_of("1", notes=notes, name="n" * 100)
    saver.put(config_of("t"), first, {}, first["channel_versions"])
    notes.extend("b" * 50)
    second = {**checkpoint_of("2", notes=notes, name="n" * 100)}
    second["channel_versions"] = first["channel_versions"]
    saver.put(config_of("t", identity="1"), second, {}, {})  # type: ignore[arg-type]

    assert values_of(saver, identity="2") == {"notes": ["a"], "name": "n" * 100}


def test_small_values_are_those_of_their_own_checkpoint(saver: KoruDeltaSaver) -> None:
    values: dict[str, Any] = {
        "none": None, "no": False, "int": -(2**63), "float": 0.1, "nan": float("inf"),
        "text": "é\0🌧️", "long": "x" * 101, "bytes": b"\0", "list": [],
    }  # fmt: skip
    checkpoint = checkpoint_of("1", **values)
    saver.put(config_of("t"), checkpoint, {}, checkpoint["channel_versions"])
    changed = checkpoint_of("2", **{**values, "int": 3, "text": "x" * 101, "long": ""})
    changed["channel_versions"] = {**checkpoint["channel_versions"], "int": 2, "text": 2, "long": 2}
    saver.put(config_of("t", identity="1"), changed, {}, {"int": 2, "text": 2, "long": 2})

    assert values_of(saver, identity="1") == values
    assert values_of(saver) == {**values, "int": 3, "text": "x" * 101, "long": ""}
