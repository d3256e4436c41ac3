"""`AsyncDatabase`: the same verbs, in order, and never on the loop's thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

import koru_delta
from koru_delta import (
    AsyncDatabase,
    AsyncTransaction,
    Consolidate,
    Database,
    Transaction,
    View,
    errors,
)
from koru_delta.aio import AsyncLifecycle, AsyncView
from koru_delta.lifecycle import Lifecycle
from koru_delta.testing import FixedClock, HashEmbedder


def _public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


# What only one of the two has: the async one is opened by a class method, and shows the
# database it serves, which has these properties.
ONLY_SYNC = {"directory", "embedder", "read_only"}
ONLY_ASYNC = {"open", "database"}
PARTS = {"lifecycle"}  # handles with verbs of their own
VERBS = _public(Database) - ONLY_SYNC - PARTS
DAY = 86_400


class Own:
    """A job that notes that it was done."""

    def __init__(self, done: list[str]) -> None:
        self.done = done

    def work(self) -> int:
        self.done.append("own")
        return len(self.done)


@pytest.fixture
async def adb(tmp_path: Path) -> AsyncIterator[AsyncDatabase]:
    async with await AsyncDatabase.open(
        tmp_path / "db", durability="relaxed", embedder=HashEmbedder(), clock=FixedClock()
    ) as database:
        yield database


def _parameters(verb: Any) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(verb).parameters.values()
    return [(p.name, p.kind, p.default) for p in found if p.name != "self"]


def test_both_have_the_same_verbs() -> None:
    assert _public(Database) - ONLY_SYNC == _public(AsyncDatabase) - ONLY_ASYNC
    assert _public(View) == _public(AsyncView)


@pytest.mark.parametrize("name", sorted(_public(View) - {"seq", "time"}))
def test_a_verb_of_a_view_is_that_of_the_database(name: str) -> None:
    assert getattr(View, name) is getattr(Database, name)
    assert getattr(AsyncView, name) is getattr(AsyncDatabase, name)


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_verb_has_the_same_parameters_in_both(name: str) -> None:
    sync, awaited = getattr(Database, name), getattr(AsyncDatabase, name)
    assert _parameters(sync) == _parameters(awaited)
    if name != "transaction":
        assert inspect.iscoroutinefunction(awaited) or inspect.isasyncgenfunction(awaited)


def test_the_lifecycle_has_the_same_verbs_in_both() -> None:
    assert isinstance(Database.lifecycle, property)
    assert isinstance(AsyncDatabase.lifecycle, property)
    assert _public(Lifecycle) == _public(AsyncLifecycle)


@pytest.mark.parametrize("name", sorted(_public(Lifecycle)))
def test_a_verb_of_the_lifecycle_has_the_same_parameters_in_both(name: str) -> None:
    sync, awaited = getattr(Lifecycle, name), getattr(AsyncLifecycle, name)
    assert _parameters(sync) == _parameters(awaited)
    assert inspect.iscoroutinefunction(awaited)


@pytest.mark.parametrize("name", sorted(_public(View) - {"seq", "time"}))
def test_a_view_has_the_same_parameters_in_both(name: str) -> None:
    assert _parameters(getattr(View, name)) == _parameters(getattr(AsyncView, name))


def test_a_transaction_has_the_same_verbs_in_both() -> None:
    # What `with` does is no verb of the async one.
    assert _public(Transaction) - {"begin", "commit", "end", "is_open", "now"} == (
        _public(AsyncTransaction) - {"versions"}
    )


@pytest.mark.parametrize("name", sorted(_public(AsyncTransaction) - {"versions"}))
def test_a_transaction_has_the_same_parameters_in_both(name: str) -> None:
    assert _parameters(getattr(Transaction, name)) == _parameters(getattr(AsyncTransaction, name))


def test_opening_takes_the_same_arguments_in_both() -> None:
    assert _parameters(koru_delta.open) == _parameters(AsyncDatabase.open)
    assert _parameters(koru_delta.open) == _parameters(Database.__init__)


async def test_the_verbs_answer_as_those_of_the_database(adb: AsyncDatabase) -> None:
    db = adb.database
    first = await adb.put("n", "a", {"x": 1})
    await adb.put_many([("n", "b", 2), ("n", "c", 3)])
    await adb.embed("v", "t", "some words")
    await adb.embed_many("v", [("u", "other words", {"text": "u"})])
    await adb.tag("here")
    await adb.delete("n", "c")

    assert await adb.get("n", "a") == db.get("n", "a") == {"x": 1}
    assert await adb.get("n", "none", None) is None
    assert await adb.get_many("n", ["a", "b", "c"], as_of="tag:here") == {
        "a": {"x": 1}, "b": 2, "c": 3,
    }  # fmt: skip
    assert await adb.contains("n", "c") is False
    assert await adb.list_keys("n") == ["a", "b"]
    assert await adb.history("n", "a") == [first]
    assert await adb.similar("v", "some words") == db.similar("v", "some words")
    assert [version async for version in adb.changes()] == list(db.changes())
    assert [version async for version in adb.changes(first, as_of="tag:here")] == list(
        db.changes(first, as_of="tag:here")
    )
    view = await adb.as_of("tag:here")
    assert await view.get("n", "c") == 3
    assert (await adb.verify()).ok
    with pytest.raises(errors.KeyNotFoundError):
        await adb.get("n", "c")
    with pytest.raises(errors.InvalidDataError):
        await adb.put("n", "a", {1})


async def test_the_lifecycle_does_as_that_of_the_database(tmp_path: Path) -> None:
    clock = FixedClock()
    wish = Consolidate(older_than=timedelta(days=1), at_least=2, below=1.1)
    async with await AsyncDatabase.open(tmp_path / "db", durability="relaxed", clock=clock) as adb:
        near, plain = adb.lifecycle, adb.database.lifecycle
        await adb.put_many([
            ("chat", f"k{n}", {"text": f"Ada took tea number {n}.", "session": "s"})
            for n in range(4)
        ])  # fmt: skip
        await adb.put("idle", "k", 1)
        assert await near.policy("chat", consolidate=wish) == plain.policy("chat")
        await near.policy("idle", ttl=timedelta(days=2))
        await near.pin("idle", "pinned")
        assert await near.policies() == plain.policies()
        assert await near.pins() == plain.pins() == [("idle", "pinned")]
        assert await near.unpin("idle", "pinned")
        clock.advance(seconds=3 * DAY)
        checked = await near.run_once("check")
        assert [(gone.namespace, gone.key) for gone in checked.hidden] == [("idle", "k")]
        [made] = await near.run_once("consolidate")
        assert await near.consolidations() == plain.consolidations() == [made]
        assert {v.key for v in await near.undo(made)} == {"k0", "k1", "k2", "k3"}
        assert await near.consolidations() == []
        assert await near.importance("chat") == plain.importance("chat")
        assert (await near.plan()).moves == plain.plan().moves
        assert await near.stats() == plain.stats()
        done: list[str] = []
        await near.add_job("own", 60, (own := Own(done)).work)
        clock.advance(seconds=DAY)
        assert "own" in await near.run_due()
        assert await near.run_once("own") == 2
        del own


async def test_storage_is_never_touched_on_the_thread_of_the_loop(
    adb: AsyncDatabase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loop = threading.get_ident()
    touched: list[str] = []

    def watch(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def watched(self: Any, *args: Any, **options: Any) -> Any:
            if threading.get_ident() == loop:
                touched.append(name)
            return real(self, *args, **options)

        monkeypatch.setattr(kind, name, watched)

    # Behind the door, on purpose: these are all the ways to the file.
    engine = type(adb.database._log.engine)
    for name in ("_rows", "_reading", "writing", "_connect", "head", "generation", "close"):
        watch(engine, name)

    await adb.put("n", "a", 1)
    await adb.embed("v", "t", "words")
    async with adb.transaction() as tx:
        await tx.put("n", "b", 1)
        await tx.delete("n", "a")
        assert await tx.get("n", "b") == 1
        assert not await tx.contains("n", "a")
        await tx.embed("v", "u", "more words")
    view = await adb.as_of(1)
    await view.get("n", "a")
    await view.list_keys("n")
    [version async for version in adb.changes()]
    for verb, arguments in (
        ("get", ("n", "b")), ("query", ("n",)), ("count", ("n",)), ("similar", ("v", "words")),
        ("list_keys", ("n",)), ("history", ("n", "a")), ("commits", ()), ("stats", ()),
        ("verify", ()), ("tags", ()), ("tag", ("t",)), ("tree_head", ()),
        ("list_namespaces", ()), ("backup", (tmp_path / "backup",)),
        ("export_log", (tmp_path / "log.jsonl",)), ("import_log", (tmp_path / "log.jsonl",)),
        ("drop_namespace", ("n",)), ("close", ()),
    ):  # fmt: skip
        await getattr(adb, verb)(*arguments)
    assert touched == []


async def test_writes_keep_the_order_they_were_made_in(adb: AsyncDatabase) -> None:
    await asyncio.gather(*(adb.put("n", "k", number) for number in range(200)))

    assert [version.value for version in await adb.history("n", "k")] == list(range(200))


async def test_reads_run_beside_a_write_that_waits(adb: AsyncDatabase) -> None:
    await adb.put("n", "k", 1)
    assert adb.database.directory is not None
    other = apsw.Connection(str(adb.database.directory / "log.db"))
    other.execute("BEGIN IMMEDIATE")
    try:
        waiting = asyncio.ensure_future(adb.put("n", "k", 2))
        await asyncio.sleep(0)
        assert await asyncio.gather(*(adb.get("n", "k") for _ in range(20))) == [1] * 20
        assert not waiting.done()
    finally:
        other.execute("ROLLBACK")
        other.close()
    await waiting
    assert await adb.get("n", "k") == 2


async def test_cancelling_does_not_undo_a_write_that_has_begun(adb: AsyncDatabase) -> None:
    await adb.put("n", "k", 0)
    assert adb.database.directory is not None
    other = apsw.Connection(str(adb.database.directory / "log.db"))
    other.execute("BEGIN IMMEDIATE")
    begun = asyncio.ensure_future(adb.put("n", "k", 1))
    queued = asyncio.ensure_future(adb.put("n", "k", 2))
    await asyncio.to_thread(_at_the_door, adb.database)
    begun.cancel()
    queued.cancel()
    for task in (begun, queued):
        with pytest.raises(asyncio.CancelledError):
            await task
    other.execute("ROLLBACK")
    other.close()

    await adb.put("n", "k", 3)
    assert [version.value for version in await adb.history("n", "k")] == [0, 1, 3]


def _at_the_door(db: Database) -> None:
    """Wait until a write waits for the file."""
    while not db._log.engine._write_lock.locked():
        time.sleep(0.001)


async def test_a_transaction_is_one_commit_or_none(adb: AsyncDatabase) -> None:
    async with adb.transaction(message="both") as tx:
        await tx.put("n", "a", 1)
        await tx.put("n", "b", 2)
    assert [version.value for version in tx.versions] == [1, 2]
    assert len(await adb.commits()) == 1

    async def fails() -> None:
        async with adb.transaction() as begun:
            await begun.put("n", "a", 3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert await adb.get("n", "a") == 1
    with pytest.raises(errors.TransactionError):
        await tx.put("n", "a", 3)  # it has ended


async def test_tasks_have_transactions_side_by_side_and_none_nests(adb: AsyncDatabase) -> None:
    async def one(number: int) -> None:
        async with adb.transaction() as tx:
            await tx.put("n", f"a{number}", number)
            await asyncio.sleep(0)
            await tx.put("n", f"b{number}", number)

    await asyncio.gather(*(one(number) for number in range(20)))
    assert len(await adb.commits()) == 20
    assert await adb.count("n") == 40

    async with adb.transaction() as tx:
        with pytest.raises(errors.TransactionError):
            async with adb.transaction():
                pass
        with pytest.raises(errors.TransactionError, match="search after the transaction"):
            await tx.search("n", "words")
    await one(21)


async def test_a_closed_database_says_so(adb: AsyncDatabase) -> None:
    await adb.put("n", "k", 1)
    await adb.close()
    await adb.close()
    for verb in (
        lambda: adb.get("n", "k"),
        lambda: adb.put("n", "k", 2),
        adb.stats,
        lambda: adb.as_of(1),
    ):
        with pytest.raises(errors.DatabaseClosedError):
            await verb()


def test_a_path_in_place_of_a_database_is_told_how_to_open_it() -> None:
    with pytest.raises(TypeError, match=r"not str; to open one: await AsyncDatabase\.open\(path\)"):
        AsyncDatabase("path")  # type: ignore[arg-type]


def test_one_handle_serves_loop_after_loop(tmp_path: Path) -> None:
    adb = AsyncDatabase(koru_delta.open(tmp_path / "db"))
    for number in range(3):
        asyncio.run(adb.put("n", f"k{number}", number))
    assert asyncio.run(adb.list_keys("n")) == ["k0", "k1", "k2"]
    asyncio.run(adb.close())


async def test_what_is_awaited_says_what_it_serves(adb: AsyncDatabase) -> None:
    space = await adb.workspace("agent")
    view = await adb.as_of(0)

    for awaited, served in (
        (adb, adb.database), (view, adb.database.as_of(0)), (space, space.workspace),
        (space.ai_context(), space.workspace.ai_context()),
    ):  # fmt: skip
        kind = type(served).__name__
        assert repr(awaited).startswith(f"<Async{kind} ")
        assert (
            repr(awaited).split(", ")[0]
            == repr(served).replace(kind, f"Async{kind}", 1).split(", ")[0]
        )
