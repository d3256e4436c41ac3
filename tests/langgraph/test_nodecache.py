"""The cache of nodes, beside LangGraph's own and in a graph."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.graph import StateGraph
from langgraph.types import CachePolicy

import koru_delta
from koru_delta.testing import FixedClock
from koru_delta_langchain.langgraph import KoruDeltaNodeCache

NAMESPACES: list[tuple[str, ...]] = [
    (), ("",), ("", ""), ("a",), ("a", "b"), ("a,b",), ("a/b",), ("a", "b", ""), ("x" * 2000,),
]  # fmt: skip


@pytest.fixture
def cache(clock: FixedClock) -> Iterator[KoruDeltaNodeCache[Any]]:
    with koru_delta.open(clock=clock) as database:
        yield KoruDeltaNodeCache(database=database)


def test_entries_are_those_of_langgraphs_own_cache(cache: KoruDeltaNodeCache[Any]) -> None:
    own: InMemoryCache[Any] = InMemoryCache()
    pairs = {
        (namespace, key): ((namespace, key, b"\xff", {1}), None)
        for namespace in NAMESPACES
        for key in ("", "k", "/", "k" * 2000)
    }
    for each in (own, cache):
        each.set(pairs)
        each.set({(("a",), "k"): ("replaced", None)})

    def same() -> bool:
        asked = [*pairs, (("b",), "k")]
        return cache.get(asked) == own.get(asked)

    assert same()
    assert len(cache.get([*pairs])) == len(pairs)
    for each in (own, cache):
        each.clear([("a",), ("",), ("never",)])
    assert same()
    assert len(cache.get([*pairs])) == len(pairs) - 8
    for each in (own, cache):
        each.clear()
    assert cache.get([*pairs]) == {}
    assert cache.get([]) == {}


def test_an_entry_ends_to_the_microsecond(
    cache: KoruDeltaNodeCache[Any], clock: FixedClock
) -> None:
    short, long, ever = ((("n",), key) for key in "abc")
    cache.set({ever: (0, None)})
    clock.advance(seconds=1)
    cache.set({short: (1, 10), long: (2, 20), ever: (3, None)})

    clock.advance(seconds=10, microseconds=-1)
    assert cache.get([short, long, ever]) == {short: 1, long: 2, ever: 3}
    clock.advance(microseconds=1)
    assert cache.get([short, long, ever]) == {long: 2, ever: 3}
    cache.set({ever: (4, 0)})
    assert cache.get([short, long, ever]) == {long: 2}


def test_what_has_ended_or_was_replaced_is_erased_by_the_next_sweep(tmp_path: Path) -> None:
    clock = FixedClock()
    with koru_delta.open(tmp_path, clock=clock) as database:
        cache = KoruDeltaNodeCache[Any](database=database)
        for word in ("plums", "figs"):
            cache.set({(("n",), "a"): (word * 3000, None), (("n",), "b"): ("pears" * 3000, 1)})
            clock.advance(seconds=2)
        swept = database.sweep()
        assert swept.versions == 3
        assert cache.get([(("n",), "a"), (("n",), "b")]) == {(("n",), "a"): "figs" * 3000}
        assert database.verify().ok
    kept = KoruDeltaNodeCache[Any](path=tmp_path, keep=None)
    kept.set({(("n",), "c"): (1, None)})
    assert kept.database.retentions()["langgraph.cache"].keep == timedelta(0)
    kept.close()


async def test_the_async_methods_answer_alike_off_the_loop(
    cache: KoruDeltaNodeCache[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    log = type(cache.database._log)
    for name in ("commit", "cut"):
        original = getattr(log, name)

        def watched(self: Any, *given: Any, original: Any = original, **named: Any) -> Any:
            seen.add(threading.get_ident())
            return original(self, *given, **named)

        monkeypatch.setattr(log, name, watched)

    await cache.aset({(("n",), "a"): ("kept", 60)})
    assert await cache.aget([(("n",), "a")]) == {(("n",), "a"): "kept"}
    await cache.aclear([("n",)])
    assert await cache.aget([(("n",), "a")]) == {}
    assert seen
    assert threading.get_ident() not in seen


class State(TypedDict):
    done: Annotated[list[str], operator.add]


def test_a_node_that_has_run_is_not_run_again_in_a_later_process(tmp_path: Path) -> None:
    runs: list[list[str]] = []

    def work(state: State) -> State:
        runs.append(state["done"])
        return {"done": ["worked"]}

    def invoke(*given: str) -> Any:
        with KoruDeltaNodeCache[Any](path=tmp_path) as cache:
            builder = StateGraph(State)
            builder.add_node("work", work, cache_policy=CachePolicy())
            builder.set_entry_point("work")
            return builder.compile(cache=cache).invoke({"done": list(given)})

    assert invoke("a") == invoke("a") == {"done": ["a", "worked"]}
    assert invoke("b") == {"done": ["b", "worked"]}
    assert runs == [["a"], ["b"]]
