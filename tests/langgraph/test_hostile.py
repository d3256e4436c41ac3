"""What people should not do, and do: every error says so, and no checkpoint is ever in part."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import PutOp

import koru_delta
from koru_delta.errors import (
    EmbedderError,
    ErasedError,
    InvalidDataError,
    KoruDeltaError,
    QueryError,
)
from koru_delta.testing import HashEmbedder
from koru_delta_langchain import KoruDeltaNodeCache, KoruDeltaSaver, KoruDeltaStore

ODD_NAMES = [
    "", " ", "a/b", "a\n", "é", "e\u0301", "x" * 5_000, "%2F", "#", "=", "..", "\u202e", "😀", "c/",
]  # fmt: skip
EMBEDDER = HashEmbedder(8)


class Made(Embeddings):
    """Returns what it is told to."""

    def __init__(self, vectors: Callable[[list[str]], Any]) -> None:
        self.vectors = vectors

    def embed_documents(self, texts: list[str]) -> Any:
        return self.vectors(texts)

    def embed_query(self, text: str) -> Any:
        return self.vectors([text])[0]


def thread(name: str, ns: str = "", **more: Any) -> Any:
    return {"configurable": {"thread_id": name, "checkpoint_ns": ns, **more}}


def step(saver: KoruDeltaSaver, config: Any, **new: Any) -> Any:
    """Put a checkpoint after the one of a config, with some channels changed."""
    found = saver.get_tuple(config)
    checkpoint: Any = empty_checkpoint()
    if found is not None:
        config = found.config
        checkpoint["channel_values"] = found.checkpoint["channel_values"]
        checkpoint["channel_versions"] = found.checkpoint["channel_versions"]
    return saver.put(config, changed(saver, checkpoint, new), {}, versions(checkpoint, new))


def changed(saver: KoruDeltaSaver, checkpoint: Any, new: dict[str, Any]) -> Any:
    for channel, value in new.items():
        before = checkpoint["channel_versions"].get(channel)
        checkpoint["channel_values"][channel] = value
        checkpoint["channel_versions"][channel] = saver.get_next_version(before, None)
    return checkpoint


def versions(checkpoint: Any, channels: Any) -> Any:
    return {channel: checkpoint["channel_versions"][channel] for channel in channels}


def whole(found: CheckpointTuple) -> bool:
    checkpoint = found.checkpoint
    return checkpoint["channel_values"].keys() == checkpoint["channel_versions"].keys()


class Meanwhile(JsonPlusSerializer):
    """Lets somebody else do something, once, while a record is read."""

    what: Callable[[], Any] | None = None

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        what, self.what = self.what, None
        if what is not None:
            somebody = threading.Thread(target=what)
            somebody.start()
            somebody.join()
        return super().loads_typed(data)


@pytest.fixture
def meanwhile() -> Meanwhile:
    return Meanwhile()


@pytest.fixture
def saver(db: koru_delta.Database, meanwhile: Meanwhile) -> KoruDeltaSaver:
    return KoruDeltaSaver(database=db, serde=meanwhile)


@pytest.fixture
def other(db: koru_delta.Database) -> KoruDeltaSaver:
    return KoruDeltaSaver(database=db)


@pytest.fixture
def store() -> Iterator[KoruDeltaStore]:
    index: Any = {"dims": 8, "embed": lambda texts: EMBEDDER(texts).tolist(), "fields": ["ts[*]"]}
    with KoruDeltaStore(index=index) as made:
        yield made


# Checkpoints while others delete


@pytest.mark.parametrize("how", ["prune", "delete_for_runs", "delete_thread"])
def test_a_checkpoint_is_whole_though_what_it_goes_on_from_was_deleted_meanwhile(
    saver: KoruDeltaSaver, how: str
) -> None:
    start = changed(saver, empty_checkpoint(), {"a": [1], "b": 2})
    before = saver.put(thread("1"), start, {"run_id": "r"}, versions(start, "ab"))  # type: ignore[typeddict-unknown-key]
    found = saver.get_tuple(before)
    assert found is not None
    step(saver, thread("1"), a=[0])
    if how == "prune":
        saver.prune(["1"])
    elif how == "delete_for_runs":
        saver.delete_for_runs(["r"])
    else:
        saver.delete_thread("1")
    after = changed(saver, found.checkpoint, {"b": 3}) | {"id": empty_checkpoint()["id"]}
    put = saver.put(before, after, {}, versions(after, ["b"]))

    again = saver.get_tuple(put)
    if how == "delete_thread":  # it would bring back what was deleted
        assert again is None
        assert saver.database.list_keys(saver.namespace) == []
        return
    assert again is not None
    assert again.checkpoint["channel_values"] == {"a": [1], "b": 3}
    assert again.parent_config is None
    assert len([*saver.list(thread("1"))]) == 2


@pytest.mark.parametrize("how", ["prune", "delete_for_runs"])
def test_what_is_put_while_others_delete_keeps_its_values(
    saver: KoruDeltaSaver, other: KoruDeltaSaver, meanwhile: Meanwhile, how: str
) -> None:
    start = changed(other, empty_checkpoint(), {"a": [1], "b": [2]})
    first = other.put(thread("1"), start, {"run_id": "r"}, versions(start, "ab"))  # type: ignore[typeddict-unknown-key]
    step(other, thread("1"), a=[3])
    found = other.get_tuple(first)
    assert found is not None
    fork = changed(other, found.checkpoint, {"b": [4]}) | {"id": empty_checkpoint()["id"]}

    # It shares `a` with the first, which nobody else had when the deletion began.
    meanwhile.what = lambda: other.put(first, fork, {}, versions(fork, "b"))
    if how == "prune":
        saver.prune(["1"])
    else:
        saver.delete_for_runs(["r"])

    values = [each.checkpoint["channel_values"] for each in saver.list(thread("1"))]
    assert values == [{"a": [1], "b": [4]}, {"a": [3], "b": [2]}][: 1 if how == "prune" else 2]


def test_what_is_deleted_while_it_is_read_is_left_out(
    saver: KoruDeltaSaver, other: KoruDeltaSaver, meanwhile: Meanwhile
) -> None:
    for name in "12":
        for n in range(3):
            step(saver, thread(name), a=[n])
    meanwhile.what = lambda: other.delete_thread("1")
    assert saver.get_tuple(thread("1")) is None

    listing = saver.list(None)
    next(listing)
    other.delete_thread("2")
    assert [*listing] == []

    put = step(saver, thread("1"), a=[1])
    then = saver.database.as_of(None)
    other.delete_thread("1")
    with pytest.raises(ErasedError):  # but the past says that it was erased
        saver.as_of(then.seq).get_tuple(put)


def test_what_was_erased_behind_its_back_is_an_error_and_no_loop(saver: KoruDeltaSaver) -> None:
    step(saver, thread("1"), a=[1])
    db = saver.database
    (key,) = db.list_keys("langgraph.checkpoints", prefix="b/")
    db.erase(db.version("langgraph.checkpoints", key))

    with pytest.raises(ErasedError):
        saver.get_tuple(thread("1"))
    with pytest.raises(ErasedError):
        [*saver.list(thread("1"))]
    saver.delete_thread("1")
    assert saver.get_tuple(thread("1")) is None


def test_threads_that_put_prune_copy_and_delete_see_no_checkpoint_in_part() -> None:
    wrong: list[object] = []

    def work(saver: KoruDeltaSaver, number: int) -> None:
        try:
            for turn in range(25):
                name = str(turn % 2)
                step(saver, thread(name), **{"abc"[turn % 3]: [turn]})
                if turn % 4 == number:
                    saver.prune([name])
                elif turn % 7 == number:
                    saver.copy_thread(name, str(1 - turn % 2))
                elif turn % 11 == number:
                    saver.delete_thread(name)
                wrong.extend(found for found in saver.list(None) if not whole(found))
        except BaseException as error:  # noqa: BLE001 - the test reports it
            wrong.append(error)

    with KoruDeltaSaver() as saver:
        threads = [threading.Thread(target=work, args=(saver, number)) for number in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert wrong == []
        assert saver.database.verify().ok


# Arguments of the saver


@pytest.mark.parametrize(
    "config",
    [None, 5, "abc", [], {}, {"a": 1}, {"configurable": None}, {"configurable": {}},
     {"configurable": {"thread_id": None}}, {"configurable": {"checkpoint_ns": ""}},
     {"configurable": {"thread_id": "1", "checkpoint_ns": 5}}],
    ids=repr,
)  # fmt: skip
def test_a_config_that_names_no_thread_is_refused(saver: KoruDeltaSaver, config: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: saver.get_tuple(config),
        lambda: saver.put(config, empty_checkpoint(), {}, {}),
        lambda: saver.put_writes(config, [("a", 1)], "task"),
        lambda: saver.get_delta_channel_history(config=config, channels=["a"]),
    ]
    if config:
        calls.append(lambda: [*saver.list(config)])
    for call in calls:
        with pytest.raises(InvalidDataError):
            call()
    assert saver.database.stats()["seq"] == 0


def test_arguments_of_the_saver_are_checked(saver: KoruDeltaSaver) -> None:
    config, odd = thread("1", checkpoint_id="x"), [None, 5, "abc", object()]

    def no_id(it: Any) -> Any:
        return empty_checkpoint() | {"id": it if it != "abc" else 1}

    calls: list[Callable[[Any], Any]] = [
        lambda it: saver.put(config, it, {}, {}),
        lambda it: saver.put(config, empty_checkpoint(), it, {}),
        lambda it: saver.put(config, empty_checkpoint(), {}, it),
        lambda it: saver.put(config, no_id(it), {}, {}),
        lambda it: saver.put_writes(config, it, "task"),
        lambda it: saver.put_writes(config, [it], "task"),
        lambda it: saver.put_writes(config, [(it if it != "abc" else 1, 1)], "task"),
        lambda it: saver.put_writes(config, [("a", 1)], it if it != "abc" else 1),
        saver.delete_for_runs,
        saver.prune,
        lambda it: saver.prune(["1"], strategy=it),
        lambda it: [*saver.list(config, filter=it or 7)],
        lambda it: [*saver.list(config, before=it or 7)],
        lambda it: [*saver.list(config, limit=it if it not in (5, None) else 1.5)],
        lambda it: saver.get_delta_channel_history(config=config, channels=it or 7),
    ]  # fmt: skip
    for call in calls:
        for it in odd:
            with pytest.raises((InvalidDataError, QueryError)):
                call(it)
    assert saver.database.stats()["seq"] == 0


def test_any_name_of_a_thread_namespace_channel_and_task_is_its_own(saver: KoruDeltaSaver) -> None:
    for name in ODD_NAMES:
        checkpoint: Any = empty_checkpoint()
        checkpoint["channel_values"], checkpoint["channel_versions"] = {name: name}, {name: name}
        put = saver.put(thread(name, name), checkpoint, {"name": name}, {name: name})  # type: ignore[typeddict-unknown-key]
        saver.put_writes(put, [(name, name)], name, name)
    for name in ODD_NAMES:
        found = saver.get_tuple(thread(name, name))
        assert found is not None
        assert found.checkpoint["channel_values"] == {name: name}
        assert found.pending_writes == [(name, name, name)]
        saver.copy_thread(name, f"{name}+")
    for name in ODD_NAMES:
        saver.delete_thread(name)
        assert saver.get_tuple(thread(name, name)) is None
        assert saver.get_tuple(thread(f"{name}+", name)) is not None


# The store


def test_values_filters_and_numbers_of_the_store_are_checked(store: KoruDeltaStore) -> None:
    put: Any = store.put
    for value in (5, "abc", [("a", 1)], [1], object(), True):
        with pytest.raises(InvalidDataError, match="JSON object"):
            put(("n",), "k", value)
    for key in (None, 5, ["a"], {"a": 1}):
        with pytest.raises(InvalidDataError, match="is a string"):
            store.batch([PutOp(("n",), key, {"a": 1})])  # type: ignore[arg-type]
    for ttl in ("5", {}, [], 0, -1, float("nan"), float("inf")):
        with pytest.raises(InvalidDataError, match="ttl"):
            put(("n",), "k", {"a": 1}, ttl=ttl)
    for index in (5, "ts", [5], [["a"]], {"a": 1}, object()):
        with pytest.raises(InvalidDataError):
            put(("n",), "k", {"a": 1}, index=index if index != {"a": 1} else [index])
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}
    around: dict[str, Any] = {}
    around["a"] = around
    for where in (5, "a", [1], deep, around, {"$and": 5}, {"$and": [5]}, {"a": {"$where": 1}},
                  {"$not": deep}):  # fmt: skip
        with pytest.raises(QueryError):
            store.search(("n",), filter=where)  # type: ignore[arg-type]
    for number in (-1, 1.5, "3", None, True, []):
        with pytest.raises(QueryError, match="whole number"):
            store.search(("n",), limit=number)  # type: ignore[arg-type]
        with pytest.raises(QueryError, match="whole number"):
            store.list_namespaces(offset=number)  # type: ignore[arg-type]
    with pytest.raises(InvalidDataError, match="query"):
        store.search(("n",), query=5)  # type: ignore[arg-type]
    for config in (5, "abc", [("dims", 8)]):
        with pytest.raises(InvalidDataError, match="dict"):
            KoruDeltaStore(index=config)  # type: ignore[arg-type]
        with pytest.raises(InvalidDataError, match="dict"):
            KoruDeltaStore(ttl=config)  # type: ignore[arg-type]
    with pytest.raises(EmbedderError, match="function"):
        KoruDeltaStore(index={"dims": 8, "embed": 5})  # type: ignore[typeddict-item]
    assert store.database.stats()["seq"] == 0


def test_items_of_any_name_and_value_come_back(store: KoruDeltaStore) -> None:
    values: list[dict[str, Any]] = [
        {"$a": 1}, {"a.b": {"$c": [None]}}, {"path": 1, "namespace": 2, "key": 3, "ttl": 4,
        "created": 5, "refreshed": 6}, {"": 2**63 - 1}, {"x": -0.0},
    ]  # fmt: skip
    labels = [name for name in ODD_NAMES if name and "." not in name]
    for label in labels:
        for number, value in enumerate(values):
            store.put((label, "n"), f"{label}{number}", value)
    for label in labels:
        for number, value in enumerate(values):
            item = store.get((label, "n"), f"{label}{number}")
            assert item is not None
            assert item.value == value
        assert len(store.search((label,), limit=99)) == len(values)
    assert {*store.list_namespaces()} == {(label, "n") for label in labels}


@pytest.mark.parametrize(
    "vectors",
    [
        lambda texts: [[1.0, 2.0]] * (len(texts) - 1),
        lambda texts: [[1.0, 2.0]] * (len(texts) + 1),
        lambda _: None,
        lambda texts: [[] for _ in texts],
        lambda texts: [["a"] for _ in texts],
        lambda texts: [[float("nan")] for _ in texts],
        lambda texts: [[1.0] * (n + 1) for n in range(len(texts))],
    ],
)
async def test_an_embedding_that_returns_nonsense_puts_nothing(
    vectors: Callable[[list[str]], Any],
) -> None:
    with KoruDeltaStore(index={"dims": 2, "embed": Made(vectors)}) as store:
        ops = [PutOp(("n",), str(n), {"a": str(n)}) for n in range(2)]
        with pytest.raises(KoruDeltaError):
            store.batch(ops)
        with pytest.raises(KoruDeltaError):
            await store.abatch(ops)
        assert store.search(("n",)) == []


# The cache of nodes, and values of others


def test_arguments_of_the_node_cache_are_checked(db: koru_delta.Database) -> None:
    cache: KoruDeltaNodeCache[Any] = KoruDeltaNodeCache(database=db)
    call: Any
    for odd in (None, 5, "abc", ["a"], [("a",)], [(5, "k")], [(("n",), 5)], object()):
        for call in (cache.get, lambda it: cache.set({it[0]: (1, None)}) if it else cache.set(it)):
            with pytest.raises((InvalidDataError, TypeError)):
                call(odd)
    for ttl in ("5", [], {}, object()):
        with pytest.raises(InvalidDataError, match="ttl"):
            cache.set({(("n",), "k"): (1, ttl)})  # type: ignore[dict-item]
    for value in (5, "ab", (1,), None):
        with pytest.raises(InvalidDataError, match="pairs"):
            cache.set({(("n",), "k"): value})  # type: ignore[dict-item]
    for name in ODD_NAMES:
        cache.set({((name, name), name): (name, None)})
    assert cache.get([((name, name), name) for name in ODD_NAMES]) == {
        ((name, name), name): name for name in ODD_NAMES
    }
    cache.clear([("a/b", "a/b")])
    assert len(cache.get([((name, name), name) for name in ODD_NAMES])) == len(ODD_NAMES) - 1


def test_values_of_another_store_are_refused_by_name(db: koru_delta.Database) -> None:
    db.put_many([("n", "a/=k", 5), ("n", "a/=b", {"x": 1})])
    items = KoruDeltaStore(database=db, namespace="n")
    for reading in (
        lambda: items.get(("a",), "k"),
        lambda: items.search(()),
        lambda: items.history(("a",), "b"),
    ):
        with pytest.raises(InvalidDataError, match="keep other values in another namespace"):
            reading()
    cache: KoruDeltaNodeCache[Any] = KoruDeltaNodeCache(database=db)
    cache.set({(("n",), "k"): (1, None)})
    (key,) = db.list_keys("langgraph.cache")
    for value in (5, "ab", ["msgpack"], {"text": "a", "id": "b"}):
        db.put("langgraph.cache", key, value)
        with pytest.raises(InvalidDataError, match="keep other values in another namespace"):
            cache.get([(("n",), "k")])
