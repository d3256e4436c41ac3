"""Checkpoints: what no published suite asks of a saver."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    empty_checkpoint,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

import koru_delta
from koru_delta.errors import ErasedError, InvalidDataError, QueryError, ReadOnlyError
from koru_delta_langchain.langgraph import KoruDeltaSaver

ODD_NAMES = [
    "", "/", "a/b", "a%2Fb", "%", "#", "=", "a\0b", " ", "é", "線", "🌧️", "$", "..", "x" * 3000,
    "x" * 2999 + "y",
]  # fmt: skip


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


def put(
    saver: BaseCheckpointSaver[Any],
    config: RunnableConfig,
    identity: str,
    metadata: CheckpointMetadata | None = None,
    **values: Any,
) -> RunnableConfig:
    checkpoint = checkpoint_of(identity, **values)
    return saver.put(config, checkpoint, metadata or {}, checkpoint["channel_versions"])


def chain(saver: BaseCheckpointSaver[Any], thread: str, steps: int, ns: str = "") -> list[str]:
    config = config_of(thread, ns)
    names = [f"{step:04}" for step in range(steps)]
    for step, name in enumerate(names):
        config = put(saver, config, name, {"step": step}, step=step)
        saver.put_writes(config, [("step", step + 1)], f"task-{step}")
    return names


def plain(found: CheckpointTuple | None) -> Any:
    """A tuple with nothing in it that two savers may tell differently."""
    return None if found is None else (*found[:3], found.parent_config, found.pending_writes)


def ids(saver: BaseCheckpointSaver[Any], config: RunnableConfig | None, **how: Any) -> list[str]:
    return [found.checkpoint["id"] for found in saver.list(config, **how)]


@pytest.mark.parametrize("kind", ["thread", "namespace", "checkpoint", "channel", "task"])
def test_any_string_is_a_name_and_no_two_are_confused(saver: KoruDeltaSaver, kind: str) -> None:
    names = [name for name in ODD_NAMES if name or kind in ("thread", "namespace", "channel")]
    for number, name in enumerate(names):
        config = config_of(name if kind == "thread" else "t", name if kind == "namespace" else "")
        identity = name if kind == "checkpoint" else "1"
        stored = put(saver, config, identity, **({name: number} if kind == "channel" else {}))
        task = name if kind == "task" else "task"
        saver.put_writes(stored, [("written", number)], task)

    if kind == "channel":
        saver.put(
            config_of("t"), checkpoint_of("2", **{n: n for n in names}), {},
            dict.fromkeys(names, "2"),
        )  # fmt: skip
        found = saver.get_tuple(config_of("t"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {name: name for name in names}
        return
    if kind == "task":
        found = saver.get_tuple(config_of("t"))
        assert found is not None
        assert sorted(found.pending_writes or ()) == sorted(
            (name, "written", number) for number, name in enumerate(names)
        )
        return
    for number, name in enumerate(names):
        config = config_of(
            name if kind == "thread" else "t",
            name if kind == "namespace" else "",
            name if kind == "checkpoint" else None,
        )
        found = saver.get_tuple(config)
        assert found is not None
        assert found.pending_writes == [("task", "written", number)]
        assert found.config["configurable"] == {
            **config["configurable"], "checkpoint_id": name if kind == "checkpoint" else "1",
        }  # fmt: skip
        assert len(ids(saver, config)) == 1


def test_what_cannot_be_stored_is_refused_whole(saver: KoruDeltaSaver) -> None:
    with pytest.raises(InvalidDataError):
        put(saver, config_of("\ud800"), "1", a=1)

    assert saver.database.list_keys(saver.namespace) == []


def test_the_latest_is_the_greatest_id_whatever_the_order_of_writing(
    saver: KoruDeltaSaver,
) -> None:
    names = ["b", "ba", "a", "", "é", "z" * 150, "z" * 151, "z" * 99, "10", "9"]
    for name in names:
        if name:
            put(saver, config_of("t"), name)

    kept = sorted((name for name in names if name), reverse=True)
    latest = saver.get_tuple(config_of("t"))
    assert latest is not None
    assert latest.checkpoint["id"] == kept[0]
    assert ids(saver, config_of("t"))[2:] == kept[2:]
    assert set(ids(saver, config_of("t"))) == set(kept)


def test_lists_are_those_of_the_reference_for_every_way_to_ask() -> None:
    random = Random(7)
    reference = InMemorySaver()
    with KoruDeltaSaver() as saver:
        for number in range(150):
            config = config_of(f"t{random.randrange(2)}", random.choice(["", "a", "a|b"]))
            name = f"{random.randrange(1000):04}-{number}"
            metadata: CheckpointMetadata = {
                "source": random.choice(["loop", "input"]), "step": random.randrange(3),
            }  # fmt: skip
            for each in (saver, reference):
                put(each, config, name, metadata, number=number)
        every = ids(saver, None)
        for _ in range(200):
            thread, ns = random.choice(["t0", "t1", "t2"]), random.choice(["", "a", "a|b", "b"])
            base = random.choice([config_of(thread, ns), {"configurable": {"thread_id": thread}}])
            if random.random() < 0.2:
                base["configurable"]["checkpoint_id"] = random.choice(every)
            before = config_of(thread, ns, random.choice(every))
            how: dict[str, Any] = {
                "filter": random.choice([None, {}, {"source": "loop"}, {"step": 1, "no": None}]),
                "before": random.choice([None, before]),
            }
            expected = [plain(found) for found in reference.list(base, **how)]
            expected.sort(key=lambda found: found[1]["id"], reverse=True)
            found = [plain(each) for each in saver.list(base, **how)]
            assert found == expected
            for limit in (0, 1, 5):
                assert [plain(t) for t in saver.list(base, limit=limit, **how)] == found[:limit]


def test_a_long_thread_is_listed_whole_and_page_by_page(saver: KoruDeltaSaver) -> None:
    names = chain(saver, "t", 150)
    newest = names[::-1]

    assert ids(saver, config_of("t")) == newest
    assert ids(saver, config_of("t"), before=config_of("t", "", "0100")) == newest[50:]
    assert ids(saver, config_of("t"), before=config_of("t", "", "0100"), limit=70) == newest[50:120]
    assert ids(saver, config_of("t"), filter={"step": 3}) == ["0003"]


def test_writes_of_a_task_stay_and_its_special_ones_are_replaced(saver: KoruDeltaSaver) -> None:
    stored = put(saver, config_of("t"), "1")

    saver.put_writes(stored, [("a", 1), ("b", 2)], "task", "path")
    saver.put_writes(stored, [("a", "again"), ("b", "again"), ("c", 3)], "task", "path")
    saver.put_writes(stored, [("__interrupt__", "first")], "task", "path")
    saver.put_writes(stored, [("__interrupt__", "second"), ("__error__", "oh")], "task", "path")
    saver.put_writes(stored, [("early", 0)], "zz")

    found = saver.get_tuple(stored)
    assert found is not None
    assert found.pending_writes == [
        ("zz", "early", 0),
        ("task", "__interrupt__", "second"),
        ("task", "__error__", "oh"),
        ("task", "a", 1),
        ("task", "b", 2),
        ("task", "c", 3),
    ]


def test_the_first_to_write_for_a_task_wins_across_openings_and_threads(tmp_path: Path) -> None:
    with KoruDeltaSaver(path=tmp_path) as saver:
        stored = put(saver, config_of("t"), "1")
        saver.put_writes(stored, [("a", 1), ("b", 2)], "task")
    with KoruDeltaSaver(path=tmp_path) as saver, ThreadPoolExecutor(4) as pool:
        saver.put_writes(stored, [("a", 1), ("b", 2), ("c", 3)], "task")
        found = saver.get_tuple(stored)
        assert found is not None
        assert found.pending_writes == [("task", "a", 1), ("task", "b", 2), ("task", "c", 3)]

        def race(number: int) -> None:
            for turn in range(20):
                saver.put_writes(stored, [("a", number), ("b", number)], f"task-{turn:02}")

        list(pool.map(race, range(4)))
        keys = saver.database.list_keys(saver.namespace, prefix="w/")
        histories = [saver.database.history(saver.namespace, key) for key in keys]

    assert len(keys) == 2 + 20
    assert all(len(history) == 1 for history in histories)


def test_a_channel_that_is_emptied_under_its_old_version_is_empty(saver: KoruDeltaSaver) -> None:
    checkpoint = checkpoint_of("1", a="full")
    saver.put(config_of("t"), checkpoint, {}, {"a": 1})
    emptied = {**checkpoint_of("2"), "channel_versions": {"a": 1}}
    saver.put(config_of("t"), emptied, {}, {"a": 1})  # type: ignore[arg-type]

    found = saver.get_tuple(config_of("t"))

    assert found is not None
    assert found.checkpoint["channel_values"] == {}


def test_versions_of_channels_rise_and_never_repeat(saver: KoruDeltaSaver) -> None:
    versions = [saver.get_next_version(None, None)]
    for _ in range(50):
        versions.append(saver.get_next_version(versions[-1], None))
    forks = {saver.get_next_version(versions[3], None) for _ in range(100)}

    assert versions == sorted(versions)
    assert len({*versions, *forks}) == 51 + 100
    assert saver.get_next_version(41, None).startswith(f"{42:032}.")
    assert saver.get_next_version(41.5, None).startswith(f"{42:032}.")


@pytest.mark.parametrize(
    "value",
    [b"", bytes(range(256)) * 40, "é" * 5000, "\0\1\2" * 3000, None, [1, 2.5, {"a": {1, 2}}]],
    ids=["no bytes", "all bytes", "accents", "controls", "null", "sets"],
)
def test_values_come_back_as_they_were(tmp_path: Path, value: Any) -> None:
    with KoruDeltaSaver(path=tmp_path) as saver:
        put(saver, config_of("t"), "1", {"odd": [value]}, value=value)  # type: ignore[typeddict-unknown-key]
    with KoruDeltaSaver(path=tmp_path) as saver:
        found = saver.get_tuple(config_of("t"))

    assert found is not None
    assert found.checkpoint["channel_values"] == {"value": value}
    assert found.metadata == {"odd": [value]}


def test_a_serializer_of_the_users_own_sees_everything_that_is_kept(tmp_path: Path) -> None:
    class Turned:
        def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
            return "turned", bytes(byte ^ 255 for byte in plaintext)

        def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
            assert ciphername == "turned"
            return bytes(byte ^ 255 for byte in ciphertext)

    serde = EncryptedSerializer(Turned())
    with KoruDeltaSaver(path=tmp_path, serde=serde) as saver:
        stored = put(saver, config_of("t"), "1", {"source": "input"}, secret="plums")
        saver.put_writes(stored, [("secret", "plums")], "task")
        for key in saver.database.list_keys(saver.namespace):
            value = saver.database.get(saver.namespace, key)
            kept = (
                [value.get("checkpoint"), value.get("metadata")]
                + [write["value"] for write in value.get("writes", [])]
                if isinstance(value, dict)
                else [value]
            )
            assert all(blob[0] == "msgpack+turned" for blob in kept if blob)
            assert "plums" not in str(value)
        found = saver.get_tuple(config_of("t"))

    assert found is not None
    assert found.checkpoint["channel_values"] == {"secret": "plums"}
    assert found.pending_writes == [("task", "secret", "plums")]


def test_nothing_is_pickled_unless_the_user_asks_for_it(saver: KoruDeltaSaver) -> None:
    with pytest.raises(TypeError):
        put(saver, config_of("t"), "1", lock=threading.Lock())
    assert isinstance(saver.serde, JsonPlusSerializer)
    assert not saver.serde.pickle_fallback


def test_unchanged_channels_take_no_room_again(tmp_path: Path) -> None:
    """200 steps over a channel of 200 kB that does not change: under 4 MB on disk."""
    large = Random(1).randbytes(200_000)
    with KoruDeltaSaver(path=tmp_path) as saver:
        config = config_of("t")
        version = saver.get_next_version(None, None)
        for step in range(200):
            checkpoint = checkpoint_of(f"{step:06}", large=large, step=step)
            checkpoint["channel_versions"]["large"] = version
            new = {"step": checkpoint["channel_versions"]["step"]}
            config = saver.put(
                config, checkpoint, {"step": step}, new if step else {**new, "large": version}
            )
            saver.put_writes(config, [("step", step + 1)], f"task-{step}")
        while_open = size_of(tmp_path)
        first = saver.get_tuple(config_of("t", "", f"{0:06}"))
    assert first is not None
    assert first.checkpoint["channel_values"] == {"large": large, "step": 0}
    assert size_of(tmp_path) < 4_000_000
    assert while_open < 8_000_000  # SQLite's log beside it, up to 4 MB


def test_equal_large_values_are_stored_once_whatever_holds_them(tmp_path: Path) -> None:
    large = Random(2).randbytes(500_000)
    with KoruDeltaSaver(path=tmp_path) as saver:
        for thread in range(20):
            put(saver, config_of(f"t{thread}"), "1", large=large, **{f"c{thread}": large})
        saver.copy_thread("t0", "copy")

    assert size_of(tmp_path) < 2_000_000


def size_of(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


# Deleting, pruning, copying


def test_a_copy_is_equal_and_its_own(saver: KoruDeltaSaver) -> None:
    chain(saver, "a/b", 4)
    chain(saver, "a/b", 3, "sub")
    chain(saver, "other", 2)

    saver.copy_thread("a/b", "c")

    def told(thread: str) -> list[Any]:
        found = saver.list({"configurable": {"thread_id": thread}})
        return [repr(plain(each)).replace(repr(thread), "...") for each in found]

    assert told("c") == told("a/b")
    saver.delete_thread("a/b")
    assert told("a/b") == []
    assert len(told("c")) == 7
    assert len(told("other")) == 2


def test_deleting_a_thread_leaves_no_key_of_it_and_all_of_others(saver: KoruDeltaSaver) -> None:
    chain(saver, "a", 3)
    before = saver.database.list_keys(saver.namespace)
    chain(saver, "ab", 2)
    chain(saver, "ab", 2, "a")
    saver.put_writes(config_of("ab", "", "not stored"), [("a", 1)], "task")

    saver.delete_thread("ab")
    saver.delete_thread("never there")

    assert saver.database.list_keys(saver.namespace) == before


def test_pruning_keeps_what_is_needed_to_go_on(saver: KoruDeltaSaver) -> None:
    shared = saver.get_next_version(None, None)
    config = config_of("t")
    for step in range(5):
        checkpoint = checkpoint_of(f"{step}", step=[step], shared=["all have this"])
        checkpoint["channel_versions"]["shared"] = shared
        new = {"step": f"{step}"}
        config = saver.put(
            config, checkpoint, {"step": step}, new if step else {**new, "shared": shared}
        )
        saver.put_writes(config, [("step", step + 1)], "task")
    expected = saver.get_tuple(config_of("t"))
    assert expected is not None

    saver.prune(["t", "t", "not there"])

    found = saver.get_tuple(config_of("t"))
    assert found == expected._replace(parent_config=None)
    assert ids(saver, config_of("t")) == ["4"]
    assert len(saver.database.list_keys(saver.namespace)) == 4  # itself, two values, a write


@pytest.mark.parametrize("seed", [["seed"], "seed"], ids=["apart", "small"])
def test_pruning_keeps_what_delta_channels_are_rebuilt_from(
    saver: KoruDeltaSaver, seed: Any
) -> None:
    config = config_of("t")
    for step in range(6):
        checkpoint = {
            **checkpoint_of(f"{step}", **({"log": seed} if step == 2 else {})),
            "channel_versions": {"log": f"{step}"},
        }
        counted = {} if step == 2 else {"log": (1, 1)}
        metadata: CheckpointMetadata = {"step": step, "counters_since_delta_snapshot": counted}
        config = saver.put(config, checkpoint, metadata, {"log": f"{step}"})  # type: ignore[arg-type]
        saver.put_writes(config, [("log", f"write {step}")], "task")
    how: dict[str, Any] = {"config": config_of("t"), "channels": ["log", "none"]}
    expected = BaseCheckpointSaver.get_delta_channel_history(saver, **how)

    assert saver.get_delta_channel_history(**how) == expected
    assert expected["log"]["seed"] == seed
    assert [value for _, _, value in expected["log"]["writes"]] == [
        "write 2", "write 3", "write 4",
    ]  # fmt: skip
    saver.prune(["t"])
    assert ids(saver, config_of("t")) == ["5", "4", "3", "2"]
    assert saver.get_delta_channel_history(**how) == expected


def test_pruning_by_a_strategy_that_is_none_is_refused(saver: KoruDeltaSaver) -> None:
    with pytest.raises(QueryError, match="keep_latest, delete"):
        saver.prune([], strategy="keep_last")


def test_deleting_runs_takes_their_checkpoints_and_leaves_shared_values(
    saver: KoruDeltaSaver,
) -> None:
    for step, run in enumerate(["one", "two", "one", "three"]):
        checkpoint = checkpoint_of(f"{step}", shared=["kept"], own=[run])
        checkpoint["channel_versions"]["shared"] = "1"
        saver.put(config_of("t"), checkpoint, {"run_id": run}, checkpoint["channel_versions"])

    saver.delete_for_runs(["one", "three", "never"])

    assert ids(saver, config_of("t")) == ["1"]
    found = saver.get_tuple(config_of("t"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"shared": ["kept"], "own": ["two"]}
    assert len(saver.database.list_keys(saver.namespace)) == 3
    saver.delete_for_runs([])
    assert ids(saver, config_of("t")) == ["1"]


def test_every_call_is_one_commit(saver: KoruDeltaSaver) -> None:
    def commits() -> int:
        return len(saver.database.commits())

    config = put(saver, config_of("t"), "1", a=1, b=2, c=3)
    assert commits() == 1
    saver.put_writes(config, [("a", 1), ("b", 2)], "task")
    assert commits() == 2
    saver.copy_thread("t", "u")
    assert commits() == 3
    saver.delete_thread("t")
    assert commits() == 4
    saver.prune(["u"], strategy="delete")
    assert commits() == 5


# Time


def test_a_past_moment_shows_threads_as_they_were() -> None:
    saver = KoruDeltaSaver(erase=False)
    chain(saver, "t", 3)
    then = saver.database.as_of(None).seq
    expected = [plain(found) for found in saver.list(None)]
    chain(saver, "u", 2)
    saver.prune(["t"])
    saver.delete_thread("t")

    past = saver.as_of(then)

    assert [plain(found) for found in past.list(None)] == expected
    assert plain(past.get_tuple(config_of("t"))) == expected[0]
    assert past.get_delta_channel_history(config=config_of("t"), channels=["step"]) == {
        "step": {"writes": [("task-1", "step", 2)], "seed": 1}
    }
    for write in (
        lambda: put(past, config_of("t"), "9"),
        lambda: past.put_writes(config_of("t", "", "9"), [], "task"),
        lambda: past.delete_thread("t"),
        lambda: past.delete_for_runs(["run"]),
        lambda: past.copy_thread("t", "v"),
        lambda: past.prune(["t"]),
    ):
        with pytest.raises(ReadOnlyError):
            write()
    assert saver.get_tuple(config_of("t")) is None
    saver.close()


def test_what_is_deleted_or_pruned_is_erased_from_the_past_and_the_disk(tmp_path: Path) -> None:
    secret = b"the plums in the icebox"
    with KoruDeltaSaver(path=tmp_path) as saver:
        config = config_of("t")
        for step in range(20):
            noise = Random(step).randbytes(50_000)
            config = put(saver, config, f"{step:02}", {}, step=step, said=secret, noise=noise)
            saver.put_writes(config, [("said", secret)], "task")
        put(saver, config_of("other"), "1", kept="pears")
        full, then = size_of(tmp_path), saver.database.as_of(None).seq

        saver.prune(["t"])

        latest = saver.get_tuple(config_of("t"))
        assert latest is not None
        assert latest.checkpoint["channel_values"]["step"] == 19
        past = saver.as_of(then)
        assert plain(past.get_tuple(config_of("t"))) == plain(latest)
        assert ids(past, config_of("t")) == ["19"]
        with pytest.raises(ErasedError) as raised:
            past.get_tuple(config_of("t", "", "05"))
        assert raised.value.reason == "deleted or pruned"
        assert ids(past, config_of("t", "", "05")) == []
        assert size_of(tmp_path) < full / 2
        saver.delete_thread("t")
        assert saver.get(config_of("other"))["channel_values"] == {"kept": "pears"}  # type: ignore[index]
        assert saver.database.verify().ok
    assert not any(secret in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


# Loops, threads, processes


async def test_storage_never_runs_on_the_loops_thread(
    saver: KoruDeltaSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_thread = threading.get_ident()
    seen: set[int] = set()
    log = type(saver.database._log)
    engine = type(saver.database._log.engine)
    for owner, name in ((log, "commit"), (log, "cut"), (engine, "visible_keys")):
        original = getattr(owner, name)

        def watched(self: Any, *given: Any, original: Any = original, **named: Any) -> Any:
            seen.add(threading.get_ident())
            return original(self, *given, **named)

        monkeypatch.setattr(owner, name, watched)

    checkpoint = checkpoint_of("1", a=1)
    stored = await saver.aput(config_of("t"), checkpoint, {}, checkpoint["channel_versions"])
    await saver.aput_writes(stored, [("a", 2)], "task")
    assert await saver.aget_tuple(stored) is not None
    assert [found.checkpoint["id"] async for found in saver.alist(config_of("t"))] == ["1"]
    assert await saver.aget_delta_channel_history(config=stored, channels=["a"])
    past = await saver.aas_of(2)
    assert await past.aget(config_of("t")) is not None
    await saver.acopy_thread("t", "u")
    await saver.aprune(["u"])
    await saver.adelete_for_runs(["run"])
    await saver.adelete_thread("t")

    assert seen
    assert loop_thread not in seen


async def test_many_at_once_leave_the_loop_free(tmp_path: Path) -> None:
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.001)

    async with KoruDeltaSaver(path=tmp_path) as saver:
        beating = asyncio.create_task(heart())
        checkpoint = checkpoint_of("1", a="b" * 1000)
        await asyncio.gather(*(
            saver.aput(config_of(f"t{n}"), checkpoint, {}, checkpoint["channel_versions"])
            for n in range(100)
        ))  # fmt: skip
        found = await asyncio.gather(*(saver.aget(config_of(f"t{n}")) for n in range(100)))
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating

    assert found == [checkpoint] * 100
    assert beats > 2  # on the loop itself, they would leave it no beat between them


def test_two_threads_on_one_thread_id_lose_nothing(tmp_path: Path) -> None:
    with KoruDeltaSaver(path=tmp_path) as saver, ThreadPoolExecutor(2) as pool:

        def work(who: str) -> None:
            config = config_of("t")
            for step in range(40):
                config = put(saver, config, f"{step:04}-{who}", {"step": step}, mine=[who, step])
                saver.put_writes(config, [("mine", who)], who)

        list(pool.map(work, "ab"))
        found = list(saver.list(config_of("t")))

    assert [each.checkpoint["id"] for each in found] == [
        f"{step:04}-{who}" for step in reversed(range(40)) for who in "ba"
    ]
    for each in found:
        step, who = each.checkpoint["id"].split("-")
        assert each.checkpoint["channel_values"] == {"mine": [who, int(step)]}
        assert each.pending_writes == [(who, "mine", who)]


def test_another_process_sees_what_was_stored(tmp_path: Path) -> None:
    program = f"""
from langgraph.checkpoint.base import empty_checkpoint
from koru_delta_langchain.langgraph import KoruDeltaSaver
with KoruDeltaSaver(path={str(tmp_path)!r}) as saver:
    config = {{"configurable": {{"thread_id": "t", "checkpoint_ns": ""}}}}
    checkpoint = empty_checkpoint() | {{"id": "1", "channel_values": {{"a": "plums"}}}}
    checkpoint["channel_versions"] = {{"a": "1"}}
    saver.put_writes(saver.put(config, checkpoint, {{}}, {{"a": "1"}}), [("a", 1)], "task")
"""
    with KoruDeltaSaver(path=tmp_path) as saver:
        assert saver.get_tuple(config_of("t")) is None
        subprocess.run([sys.executable, "-c", program], check=True)
        found = saver.get_tuple(config_of("t"))

    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": "plums"}
    assert found.pending_writes == [("task", "a", 1)]


def test_savers_share_a_database_with_others_and_leave_it_open() -> None:
    with koru_delta.open() as database:
        with KoruDeltaSaver(database=database) as one:
            put(one, config_of("t"), "1", a="one")
        two = KoruDeltaSaver(database=database, namespace="other")
        put(two, config_of("t"), "1", a="two")

        values = [each.get(config_of("t")) for each in (one, two)]

        assert [v and v["channel_values"] for v in values] == [{"a": "one"}, {"a": "two"}]
        assert database.list_namespaces() == ["langgraph.checkpoints", "other"]
    gc.collect()
