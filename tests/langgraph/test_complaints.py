"""What users report of other checkpointers and stores of LangGraph, asked of ours."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import GetOp, SearchOp
from langgraph.types import CachePolicy, Command, interrupt

import koru_delta
from koru_delta.errors import EmbedderError, InvalidDataError, QueryError
from koru_delta.testing import FixedClock
from koru_delta_langchain.langgraph import KoruDeltaNodeCache, KoruDeltaSaver, KoruDeltaStore


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


def test_a_task_may_write_more_than_one_value_holds(saver: KoruDeltaSaver) -> None:
    checkpoint = checkpoint_of("1")
    stored = saver.put(config_of("t"), checkpoint, {}, {})
    large = [bytes([number]) * 15_000_000 for number in range(4)]
    writes: list[tuple[str, Any]] = [("small", 1), *(("large", one) for one in large), ("end", 2)]
    saver.put_writes(stored, writes, "task")
    saver.put_writes(stored, [("other", 0)] * 7, "task")
    saver.put_writes(stored, [("__interrupt__", 1), ("third", 1)], "task")
    saver.put_writes(stored, [("nothing", None), ("empty", b"")], "zz")

    found = saver.get_tuple(stored)
    assert found is not None
    expected = [("task", *write) for write in [("__interrupt__", 1), *writes, ("other", 0)]]
    expected += [("zz", "nothing", None), ("zz", "empty", b"")]
    assert found.pending_writes == expected
    saver.delete_thread("t")
    assert saver.database.list_keys(saver.namespace) == []


def test_a_large_value_that_a_task_writes_is_stored_once_with_its_channels(
    tmp_path: Path,
) -> None:
    class Drawing(TypedDict):
        picture: bytes
        turn: int

    builder = StateGraph(Drawing)
    builder.add_node(
        "draw", lambda s: {"picture": Random(s["turn"]).randbytes(50_000), "turn": s["turn"] + 1}
    )
    builder.add_edge(START, "draw")
    builder.add_conditional_edges("draw", lambda s: "draw" if s["turn"] < 20 else END)
    with KoruDeltaSaver(path=tmp_path) as saver:
        graph = builder.compile(checkpointer=saver)
        ended = graph.invoke({"picture": b"", "turn": 0}, config_of("t"))
        history = list(saver.list(config_of("t")))
    assert ended["picture"] == Random(19).randbytes(50_000)
    assert [
        value for found in history for _, channel, value in found.pending_writes or ()
        if channel == "picture"
    ] == [Random(turn).randbytes(50_000) for turn in range(19, -1, -1)] + [b""]  # fmt: skip
    assert sum(file.stat().st_size for file in tmp_path.glob("log.db*")) < 1.3 * 20 * 50_000


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
    assert list(values_of(saver)) == list(values)


def test_what_a_checkpoint_leaves_out_is_what_was_stored_with_its_version(
    saver: KoruDeltaSaver,
) -> None:
    """As a `DeltaChannel` does between its snapshots."""
    first = checkpoint_of("1", log=["snapshot"], gone=["x"])
    stored = saver.put(config_of("t"), first, {}, first["channel_versions"])
    second = checkpoint_of("2")
    second["channel_versions"] = {"log": "1", "gone": "2", "other": "2"}
    saver.put(stored, second, {}, {"gone": "2"})

    assert values_of(saver) == {"log": ["snapshot"]}


# Deleting and pruning


class Asking(TypedDict):
    log: Annotated[list[str], operator.add]


def asking(saver: KoruDeltaSaver) -> Any:
    """A graph that calls a subgraph, which calls another, which asks."""
    inner = StateGraph(Asking)
    inner.add_node("ask", lambda _: {"log": [interrupt("?")]})
    inner.add_edge(START, "ask")
    middle = StateGraph(Asking)
    middle.add_node("inner", inner.compile())
    middle.add_edge(START, "inner")
    outer = StateGraph(Asking)
    outer.add_node("note", lambda _: {"log": ["noted"]})
    outer.add_node("middle", middle.compile())
    outer.add_edge(START, "note")
    outer.add_edge("note", "middle")
    return outer.compile(checkpointer=saver)


def namespaces_of(saver: KoruDeltaSaver, thread: str = "t") -> set[str]:
    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    return {found.config["configurable"]["checkpoint_ns"] for found in saver.list(config)}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_pruning_a_thread_keeps_nothing_of_subgraphs_that_have_ended(
    saver: KoruDeltaSaver, durability: Any
) -> None:
    graph = asking(saver)
    for turn in range(3):
        graph.invoke({"log": []}, config_of("t"), durability=durability)
        graph.invoke(Command(resume=f"{turn}"), config_of("t"), durability=durability)
    graph.invoke({"log": []}, config_of("t"), durability=durability)
    expected = graph.get_state(config_of("t"), subgraphs=True)
    assert len(namespaces_of(saver)) == 1 + 4 * 2

    saver.prune(["t"])

    assert len(namespaces_of(saver)) == 3  # those that wait for an answer
    assert len(list(saver.list({"configurable": {"thread_id": "t"}}))) == 3
    found = graph.get_state(config_of("t"), subgraphs=True)
    assert found.values == expected.values
    assert found.interrupts == expected.interrupts
    assert found.tasks[0].state.values == expected.tasks[0].state.values
    ended = graph.invoke(Command(resume="last"), config_of("t"))
    assert ended["log"][-1] == "last"
    saver.prune(["t"])
    assert namespaces_of(saver) == {""}
    assert graph.get_state(config_of("t")).values == ended


def test_a_subgraph_with_a_memory_of_its_own_keeps_it_when_pruned(saver: KoruDeltaSaver) -> None:
    inner = StateGraph(Asking)
    inner.add_node("count", lambda state: {"log": [f"{len(state['log'])}"]})
    inner.add_edge(START, "count")
    remembering = inner.compile(checkpointer=True)
    outer = StateGraph(Asking)
    outer.add_node("call", lambda _: {"log": remembering.invoke({"log": []})["log"][-1:]})
    outer.add_edge(START, "call")
    graph = outer.compile(checkpointer=saver)

    for _ in range(3):
        graph.invoke({"log": []}, config_of("t"))
        saver.prune(["t"])

    assert graph.get_state(config_of("t")).values == {"log": ["0", "1", "2"]}
    assert len(list(saver.list({"configurable": {"thread_id": "t"}}))) == 2


def test_writes_that_come_late_are_pruned_and_a_runs_own_are_not(saver: KoruDeltaSaver) -> None:
    for identity in ("1", "2"):
        checkpoint = checkpoint_of(identity, log=["x"])
        saver.put(config_of("t"), checkpoint, {}, checkpoint["channel_versions"])
    saver.prune(["t"])
    saver.put_writes(config_of("t", identity="1"), [("log", ["late"])], "task")
    saver.put_writes(config_of("t", identity="3"), [("log", ["early"])], "task")
    saver.prune(["t"])

    kept = [key for key in saver.database.list_keys(saver.namespace) if key.startswith("w")]
    assert len(kept) == 1
    third = checkpoint_of("3", log=["x"])
    third["channel_versions"] = {"log": "2"}
    saver.put(config_of("t", identity="2"), third, {}, {})
    found = saver.get_tuple(config_of("t"))
    assert found is not None
    assert found.pending_writes == [("task", "log", ["early"])]
    assert found.checkpoint["channel_values"] == {"log": ["x"]}


@pytest.mark.parametrize("erase", [True, False])
def test_a_checkpoint_that_comes_after_its_thread_was_deleted_is_not_half_there(
    erase: bool,
) -> None:
    with KoruDeltaSaver(erase=erase) as saver:
        first = checkpoint_of("1", log=["much"], step=1)
        stored = saver.put(config_of("t"), first, {}, first["channel_versions"])
        then = saver.database.as_of(None).seq
        saver.delete_thread("t")
        late = checkpoint_of("2", log=["much"], step=2)
        late["channel_versions"] = {"log": "1", "step": "2"}
        saver.put(stored, late, {}, {"step": "2"})

        assert saver.get_tuple(config_of("t")) is None
        assert saver.get_tuple(config_of("t", identity="2")) is None
        assert list(saver.list(config_of("t"))) == []
        if not erase:
            [found] = saver.as_of(then).list(config_of("t"))
            assert found.checkpoint["channel_values"] == {"log": ["much"], "step": 1}
        again = checkpoint_of("3", log=["new"], step=3)
        saver.put(config_of("t"), again, {}, again["channel_versions"])
        assert values_of(saver) == {"log": ["new"], "step": 3}
        saver.delete_thread("t")
        assert saver.database.list_keys(saver.namespace) == []


# The store


@pytest.fixture
def store(clock: FixedClock) -> Iterator[KoruDeltaStore]:
    with koru_delta.open(None, clock=clock) as database:
        yield KoruDeltaStore(database=database)


def letters(texts: Sequence[str]) -> list[list[float]]:
    return [[float(text.count(letter)) for letter in "abc"] for text in texts]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.put("users", "k", {}), r"\('users',\)"),
        (lambda s: s.get("users", "k"), "tuple of labels"),
        (lambda s: s.search("users"), "tuple of labels"),
        (lambda s: s.delete("users", "k"), "tuple of labels"),
        (lambda s: s.put(("a",), "k", ["no object"]), "not list"),
        (lambda s: s.put(("a",), "k", "text"), "not str"),
        (lambda s: s.put(("a",), "k", {}, ttl=-1), "minutes"),
        (lambda s: s.put(("a",), "k", {}, ttl=0), "minutes"),
        (lambda s: s.put(("a",), "k", {}, ttl=float("inf")), "minutes"),
        (lambda s: s.put(("a",), "k", {"a": {"b": b""}}), r"\$.value.a.b"),
        (lambda s: s.search(("a",), offset=-1), "offset"),
        (lambda s: s.list_namespaces(offset=-1), "offset"),
        (lambda s: s.list_namespaces(limit=-1), "limit"),
        (lambda s: s.list_namespaces(max_depth=-1), "depth"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_word_on_what_does(
    store: KoruDeltaStore, call: Callable[[Any], Any], message: str
) -> None:
    store.put(("a",), "there", {"kept": True})

    with pytest.raises((InvalidDataError, QueryError), match=message):
        call(store)

    assert [item.value for item in store.search(())] == [{"kept": True}]
    with pytest.raises(InvalidDataError, match="tuple of labels"):
        await store.aput("users", "k", {})  # type: ignore[arg-type]


def test_fields_to_embed_are_a_list_and_a_name_of_a_model_must_be_known() -> None:
    def index(**how: Any) -> Any:
        return {"dims": 3, "embed": letters, **how}

    with pytest.raises(InvalidDataError, match=r"\['text'\]"):
        KoruDeltaStore(index=index(fields="text"))
    with pytest.raises(EmbedderError, match="no-such-provider"):
        KoruDeltaStore(index=index(embed="no-such-provider:model"))
    with KoruDeltaStore(index=index(fields=["text"])) as store:
        with pytest.raises(InvalidDataError, match=r"\['text'\]"):
            store.put(("a",), "k", {"text": "a"}, index="text")  # type: ignore[arg-type]
        assert store.search(("a",)) == []


def test_an_item_that_is_read_all_the_time_is_not_written_all_the_time(
    store: KoruDeltaStore, clock: FixedClock
) -> None:
    store.put(("a",), "k", {"n": 1}, ttl=100)
    for _ in range(300):
        clock.advance(seconds=6)
        assert store.get(("a",), "k") is not None
    writes = store.database.history(store.namespace, store.database.list_keys(store.namespace)[0])

    assert len(writes) == 1 + 300 // 11
    clock.advance(seconds=99 * 60)
    assert store.get(("a",), "k", refresh_ttl=False) is not None
    clock.advance(seconds=60)
    assert store.get(("a",), "k") is None


def test_what_a_store_keeps_no_longer_gives_its_disk_back(
    tmp_path: Path, clock: FixedClock
) -> None:
    index: Any = {"dims": 3, "embed": letters, "fields": ["text"]}
    with koru_delta.open(tmp_path, clock=clock) as database:
        store = KoruDeltaStore(database=database, index=index, keep=timedelta(days=1))
        store.put(("a",), "expires", {"text": "a secret"}, ttl=1)
        store.put(("a",), "changes", {"text": "b before"})
        store.put(("a",), "changes", {"text": "c after"})
        clock.advance(seconds=2 * 86400)
        database.sweep()

        assert [item.value for item in store.search(("a",))] == [{"text": "c after"}]
        [first, second] = database.history(store.namespace, "a/=changes")
        assert (first.is_erased, second.is_erased) == (True, False)
        [gone] = database.history(store.namespace, "a/=expires")
        assert gone.is_erased
        assert [hit.key for hit in store.search(("a",), query="c", limit=1)] == ["changes"]
    assert all(b"secret" not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_namespaces_are_read_from_where_they_begin(store: KoruDeltaStore) -> None:
    for user in ("ada", "ada2", "bob", "ad", "*"):
        for kind in ("facts", "plans"):
            store.put(("users", user, kind), "k", {})
    store.put(("teams", "ada", "facts"), "k", {})

    def listed(**how: Any) -> list[tuple[str, ...]]:
        return store.list_namespaces(**how)

    assert listed(prefix=("users", "ada")) == [
        ("users", "ada", "facts"), ("users", "ada", "plans"),
    ]  # fmt: skip
    assert listed(prefix=("users", "ad*")) == []
    assert listed(prefix=("*", "ada", "facts")) == [
        ("teams", "ada", "facts"), ("users", "ada", "facts"),
    ]  # fmt: skip
    assert listed(prefix=("users", "*"), suffix=("plans",), max_depth=2) == [
        ("users", user) for user in ("*", "ad", "ada", "ada2", "bob")
    ]  # fmt: skip
    assert listed(prefix=("nobody",)) == []


def test_items_without_a_vector_fill_pages_after_those_that_have_one() -> None:
    index: Any = {"dims": 3, "embed": letters, "fields": ["text"]}
    with KoruDeltaStore(index=index) as store:
        for number in range(30):
            found = None if number % 10 == 5 else False
            store.put(("a",), f"{number:02}", {"text": "abc"[number % 3]}, index=found)
        every = [item.key for item in store.search(("a",), query="c", limit=50)]
        assert every[:3] == ["05", "15", "25"]
        assert every[3:] == [f"{n:02}" for n in range(30) if n % 10 != 5]
        for offset in range(0, 32, 4):
            page = store.search(("a",), query="c", limit=4, offset=offset)
            assert [item.key for item in page] == every[offset : offset + 4]


# One import changed


def test_code_for_other_savers_and_stores_runs_as_it_is(tmp_path: Path) -> None:
    with KoruDeltaSaver.from_conn_string(str(tmp_path / "c")) as saver:
        saver.setup()
        assert counting(saver, 2).invoke({"log": [], "turn": 0, "note": ""}, config_of("t"))
    index: Any = {"dims": 3, "embed": letters}
    with KoruDeltaStore.from_conn_string(
        str(tmp_path / "s"), index=index, ttl={"default_ttl": 60}
    ) as store:
        store.setup()
        store.put(("a",), "k", {"text": "abc"})
    with KoruDeltaStore.from_conn_string(str(tmp_path / "s"), index=index) as store:
        [item] = store.search(("a",), query="abc")
        assert item.score == pytest.approx(1)
    with KoruDeltaStore.from_conn_string(":memory:") as store:
        assert store.search(()) == []


async def test_an_async_database_is_refused_by_name() -> None:
    async with await koru_delta.AsyncDatabase.open(None) as database:
        for kind in (KoruDeltaSaver, KoruDeltaStore, KoruDeltaNodeCache):
            with pytest.raises(InvalidDataError, match="AsyncDatabase"):
                kind(database=database)  # type: ignore[operator]


# What was never a fault here, and is not to become one


def test_two_openings_and_many_threads_write_at_once_and_none_is_locked_out(
    tmp_path: Path,
) -> None:
    """LangGraph #8136, #6985: "database is locked"."""
    with KoruDeltaSaver(path=tmp_path) as one, KoruDeltaSaver(path=tmp_path) as other:

        def talk(number: int) -> dict[str, Any]:
            graph = counting((one, other)[number % 2], 4)
            found: dict[str, Any] = graph.invoke(
                {"log": [], "turn": 0, "note": ""}, config_of(f"{number}")
            )
            return found

        with ThreadPoolExecutor(8) as pool:
            ended = list(pool.map(talk, range(16)))
        assert ended == [{"log": ["x"] * 4, "turn": 4, "note": "3"}] * 16
        assert [values_of(one, f"{n}")["turn"] for n in range(16)] == [4] * 16


async def test_sync_calls_on_the_loop_do_not_wait_for_it(saver: KoruDeltaSaver) -> None:
    """LangGraph #7857."""
    checkpoint = checkpoint_of("1", log=["x"])
    stored = saver.put(config_of("t"), checkpoint, {}, checkpoint["channel_versions"])
    saver.put_writes(stored, [("log", ["y"])], "task")
    found = await saver.aget_tuple(config_of("t"))
    assert found is not None
    assert found.pending_writes == [("task", "log", ["y"])]
    graph = counting(saver, 2)
    events = [
        event["event"]
        async for event in graph.astream_events(
            {"log": [], "turn": 0, "note": ""}, config_of("events"), version="v2"
        )
    ]
    assert events[-1] == "on_chain_end"  # langgraph #789


def test_one_object_serves_one_loop_after_another(saver: KoruDeltaSaver) -> None:
    """LangGraph #6693; and a call that is cancelled (#5503) stops no other."""
    store = KoruDeltaStore(database=saver.database)

    async def once(number: int) -> Any:
        await asyncio.wait_for(store.aput(("a",), f"{number}", {"n": number}), 60)
        cancelled = asyncio.create_task(store.aget(("a",), "0"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await counting(saver, 1).ainvoke({"log": [], "turn": 0, "note": ""}, config_of(f"{number}"))
        return [item.value["n"] for item in await store.asearch(("a",))]

    assert [asyncio.run(once(number)) for number in range(3)] == [[0], [0, 1], [0, 1, 2]]


@pytest.mark.parametrize("text", ["what's the \0 weather", "\\u0000", "\ufffe", "%_\\", "'; --"])
def test_any_text_comes_back_in_state_metadata_and_items(saver: KoruDeltaSaver, text: str) -> None:
    """LangGraph #1878, #8477."""
    graph = counting(saver, 1)
    config: RunnableConfig = {**config_of(text), "metadata": {"asked": text}}
    graph.invoke({"log": [text], "turn": 0, "note": text}, config)
    first = [*graph.get_state_history(config)][-2]
    assert (first.values["log"], first.values["note"]) == ([text], text)
    asked = text.replace("\0", "")  # LangGraph itself leaves it out of metadata
    assert first.metadata["asked"] == asked
    assert len(list(saver.list(config_of(text), filter={"asked": asked, "step": 0}))) == 1
    assert list(saver.list(config_of(text), filter={"asked": "other"})) == []
    store = KoruDeltaStore(database=saver.database)
    store.put((asked,), text, {text: text, "n": {"text": text}})
    assert [item.key for item in store.search((asked,), filter={"n.text": text})] == [text]


def test_a_prefix_is_whole_labels_and_a_sign_in_it_is_itself(store: KoruDeltaStore) -> None:
    """CVE-2026-71433, langgraph #8300."""
    for tenant in ("acme", "acme-corp", "ac", "acme_", "a_me", "%", "acm"):
        store.put(("tenants", tenant), "secret", {"of": tenant})
    for tenant in ("acme", "a_me", "%", "acme_"):
        assert [item.value["of"] for item in store.search(("tenants", tenant))] == [tenant]
        assert store.list_namespaces(prefix=("tenants", tenant)) == [("tenants", tenant)]
    assert store.search(("tenant",)) == []
    assert store.search(("tenants", "acm%")) == []


def test_filters_take_lists_and_objects_and_pass_over_what_they_do_not_fit(
    store: KoruDeltaStore,
) -> None:
    """LangGraph #7880, #7795, #8759, #8829, #7684."""
    store.put(("d",), "a", {"n": 10, "tags": ["x", "y"], "user": {"level": "top"}})
    store.put(("d",), "b", {"n": "10"})
    store.put(("d",), "c", {"n": 9.5, "tags": []})
    store.put(("d",), "d", {"title": "no n"})
    for filter, expected in (
        ({"n": {"$gt": 9}}, ["a", "c"]),
        ({"n": {"$gte": 10}}, ["a"]),
        ({"n": {"$lt": "2"}}, ["b"]),
        ({"n": {"$ne": 10}}, ["b", "c", "d"]),
        ({"tags": {"$eq": ["x", "y"]}}, ["a"]),
        ({"tags": {"$ne": []}}, ["a", "b", "d"]),
        ({"tags": []}, ["c"]),
        ({"user": {"$eq": {"level": "top"}}}, ["a"]),
        ({"user.level": "top"}, ["a"]),
        ({"$and": [{"n": {"$gt": 2}}, {"$or": [{"tags": []}, {"user.level": "top"}]}]}, ["a", "c"]),
    ):
        found = store.search(("d",), filter=filter)
        assert [item.key for item in found] == expected, filter


def test_each_read_of_a_batch_says_itself_whether_it_lets_live(
    store: KoruDeltaStore, clock: FixedClock
) -> None:
    """LangGraph #8806."""
    store.put(("a",), "lives", {}, ttl=10)
    store.put(("a",), "ends", {}, ttl=10)
    clock.advance(seconds=300)
    store.batch(
        [
            GetOp(("a",), "lives", refresh_ttl=True), GetOp(("a",), "ends", refresh_ttl=False),
            SearchOp(("a",), refresh_ttl=False),
        ]
    )  # fmt: skip
    clock.advance(seconds=301)

    assert [item.key for item in store.search((), refresh_ttl=False)] == ["lives"]


def test_reading_what_is_not_there_leaves_nothing(saver: KoruDeltaSaver) -> None:
    """LangGraph #8754."""
    store = KoruDeltaStore(database=saver.database)
    assert saver.get_tuple(config_of("nobody")) is None
    assert list(saver.list(config_of("nobody"))) == []
    saver.delete_thread("nobody")
    saver.prune(["nobody"])
    saver.delete_for_runs(["nobody"])
    saver.copy_thread("nobody", "anybody")
    assert store.get(("a",), "b") is None
    store.delete(("a",), "b")
    assert saver.database.as_of(None).seq == 0


def test_answers_to_parallel_questions_outlive_pruning_between_them(
    saver: KoruDeltaSaver,
) -> None:
    """Redis's #160, langgraphjs #1996."""
    ran: list[str] = []

    def work(name: str) -> Any:
        def node(_: Asking) -> dict[str, Any]:
            answer = interrupt(name)
            ran.append(name)
            return {"log": [f"{name}: {answer}"]}

        return node

    builder = StateGraph(Asking)
    for name in ("left", "right"):
        builder.add_node(name, work(name))
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=saver)
    asked = graph.invoke({"log": []}, config_of("t"))["__interrupt__"]
    by_name = {each.value: each.id for each in asked}
    for name in ("left", "right"):
        saver.prune(["t"])
        ended = graph.invoke(Command(resume={by_name[name]: "yes"}), config_of("t"))

    assert ended["log"] == ["left: yes", "right: yes"]
    assert ran == ["left", "right"]


def test_a_name_with_a_comma_or_a_slash_is_cached_as_any(saver: KoruDeltaSaver) -> None:
    """LangGraph #8660."""
    ran: list[str] = []
    cache: KoruDeltaNodeCache[Any] = KoruDeltaNodeCache(database=saver.database)
    builder = StateGraph(Asking)
    for name in ("foo,bar", "foo/bar", "foo"):
        builder.add_node(
            name, lambda _, name=name: ran.append(name) or {"log": [name]},
            cache_policy=CachePolicy(ttl=60),
        )  # fmt: skip
        builder.add_edge(START, name)
    graph = builder.compile(cache=cache)
    first = graph.invoke({"log": []})
    assert graph.invoke({"log": []}) == first
    assert sorted(ran) == sorted(first["log"]) == ["foo", "foo,bar", "foo/bar"]
