"""Chat histories: as the framework's own stores keep them, exact, at any moment."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.base.llms.types import (
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer, Memory
from llama_index.core.storage.chat_store import SimpleChatStore
from llama_index.core.storage.chat_store.base_db import MessageStatus

import koru_delta
from koru_delta_llamaindex import KoruDeltaAsyncChatStore, KoruDeltaChatStore


@pytest.fixture
def store(db: koru_delta.Database) -> KoruDeltaChatStore:
    return KoruDeltaChatStore(db)


@pytest.fixture
def queue(db: koru_delta.Database) -> KoruDeltaAsyncChatStore:
    return KoruDeltaAsyncChatStore(db)


def said(*texts: str) -> list[ChatMessage]:
    return [ChatMessage(text) for text in texts]


def texts(messages: list[ChatMessage] | None) -> list[str | None]:
    return [message.content for message in messages or ()]


MESSAGES = [
    ChatMessage("plain"),
    ChatMessage("", role=MessageRole.ASSISTANT),
    ChatMessage(role=MessageRole.TOOL, content="42", additional_kwargs={"z": [1, None], "a": True}),
    ChatMessage(
        role=MessageRole.ASSISTANT,
        blocks=[
            ThinkingBlock(content="hm"),
            TextBlock(text="look"),
            ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"b": 2, "a": 1}),
            ImageBlock(image=b"\x89PNG raw", image_mimetype="image/png"),
        ],
    ),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: str(message.role))
def test_a_message_comes_back_equal(store: KoruDeltaChatStore, message: ChatMessage) -> None:
    store.add_message("ada", message)

    (got,) = store.get_messages("ada")

    assert got == message
    assert list(got.additional_kwargs) == list(message.additional_kwargs)


KEYS = st.sampled_from(["ada", "bob", "", "\0", "ada:0"])
TEXTS = st.sampled_from(["one", "two", "three"])
STEPS = st.one_of(
    st.tuples(st.just("add_message"), KEYS, st.builds(ChatMessage, TEXTS)),
    st.tuples(st.just("set_messages"), KEYS, st.lists(st.builds(ChatMessage, TEXTS), max_size=4)),
    st.tuples(st.just("delete_messages"), KEYS),
    st.tuples(st.just("delete_message"), KEYS, st.integers(0, 3)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(STEPS, max_size=10))
def test_it_does_what_the_framework_s_own_store_does_at_every_moment(
    store: KoruDeltaChatStore, steps: list[Any]
) -> None:
    for key in store.get_keys():
        store.delete_messages(key)
    theirs = SimpleChatStore()
    moments = []
    for verb, *arguments in steps:
        given = copy.deepcopy(arguments)
        assert getattr(store, verb)(*arguments) == getattr(theirs, verb)(*given)
        moments.append((store.database.as_of(None).seq, copy.deepcopy(theirs.store)))

    for seq, expected in moments:
        past = store.as_of(seq)
        assert past.get_keys() == sorted(expected)
        assert {key: past.get_messages(key) for key in past.get_keys()} == expected


def test_the_newest_message_is_deleted_and_nothing_where_there_is_none(
    store: KoruDeltaChatStore,
) -> None:
    store.set_messages("ada", said("one", "two"))

    assert texts([store.delete_last_message("ada") or ChatMessage()]) == ["two"]
    assert texts([store.delete_last_message("ada") or ChatMessage()]) == ["one"]
    assert store.delete_last_message("ada") is None
    assert store.delete_last_message("nobody") is None
    assert store.get_keys() == ["ada"]


def test_a_history_that_goes_on_is_not_written_again(store: KoruDeltaChatStore) -> None:
    store.set_messages("ada", said("one", "two"))
    before = store.database.stats()["seq"]
    store.set_messages("ada", said("one", "two", "three"))

    assert store.database.stats()["seq"] == before + 2  # the message, and the conversation's entry
    store.set_messages("ada", said("one", "two", "three"))
    assert store.database.stats()["seq"] == before + 2


def test_threads_that_talk_at_once_lose_nothing(store: KoruDeltaChatStore) -> None:
    def work(number: int) -> None:
        for n in range(20):
            store.add_message("room", ChatMessage(f"{number} {n}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    found = texts(store.get_messages("room"))
    assert sorted(map(str, found)) == sorted(f"{m} {n}" for m in range(4) for n in range(20))
    for number in range(4):
        own = [text for text in found if str(text).startswith(f"{number} ")]
        assert own == [f"{number} {n}" for n in range(20)]


async def test_what_is_awaited_does_the_same(store: KoruDeltaChatStore) -> None:
    await store.aset_messages("ada", said("one", "two"))
    await store.async_add_message("ada", ChatMessage("three"))

    assert texts(await store.aget_messages("ada")) == ["one", "two", "three"]
    assert (await store.adelete_message("ada", 0)) == ChatMessage("one")
    assert (await store.adelete_last_message("ada")) == ChatMessage("three")
    assert await store.aget_keys() == ["ada"]
    assert texts(await store.adelete_messages("ada")) == ["two"]
    assert await store.aget_keys() == []


def test_a_chat_memory_buffer_goes_on_where_it_was(tmp_path: Path) -> None:
    for n in range(3):
        store = KoruDeltaChatStore(path=tmp_path / "db")
        memory = ChatMemoryBuffer.from_defaults(
            chat_store=store, chat_store_key="ada", token_limit=1000, tokenizer_fn=str.split
        )
        assert texts(memory.get_all()) == [f"message {m}" for m in range(n)]
        memory.put(ChatMessage(f"message {n}"))
        store.close()


@pytest.mark.parametrize("cls", [KoruDeltaChatStore, KoruDeltaAsyncChatStore])
def test_pickled_it_opens_its_directory_again_and_a_copy_shares_it(
    tmp_path: Path, cls: Any
) -> None:
    store = cls(path=tmp_path / "db", namespace="mine")
    plain = KoruDeltaChatStore(store.database, namespace="mine")
    plain.add_message("ada", ChatMessage("hello"))
    for other in (pickle.loads(pickle.dumps(store)), copy.copy(store), copy.deepcopy(store)):
        found = KoruDeltaChatStore(other.database, namespace=other.namespace)
        assert texts(found.get_messages("ada")) == ["hello"]
        other.close()
    assert texts(plain.get_messages("ada")) == ["hello"]
    store.close()


# The queue of active and archived messages


async def test_the_oldest_are_archived_or_deleted_and_given_back(
    queue: KoruDeltaAsyncChatStore,
) -> None:
    await queue.add_messages("ada", said(*"abcdef"))

    assert texts(await queue.archive_oldest_messages("ada", 2)) == ["a", "b"]
    assert texts(await queue.delete_oldest_messages("ada", 1)) == ["c"]
    assert texts(await queue.get_messages("ada")) == ["d", "e", "f"]
    assert texts(await queue.get_messages("ada", status=MessageStatus.ARCHIVED)) == ["a", "b"]
    assert texts(await queue.get_messages("ada", status=None)) == ["a", "b", "d", "e", "f"]
    assert texts(await queue.get_messages("ada", limit=1, offset=1)) == ["e"]
    assert texts(await queue.get_messages("ada", limit=0)) == []
    assert await queue.count_messages("ada") == 3
    assert await queue.count_messages("ada", MessageStatus.ARCHIVED) == 2
    assert await queue.count_messages("ada", None) == 5
    assert await queue.delete_message("ada", 0) == ChatMessage("a")
    assert await queue.delete_message("ada", 99) is None
    await queue.delete_messages("ada", MessageStatus.ACTIVE)
    assert texts(await queue.get_messages("ada", status=None)) == ["b"]
    assert await queue.archive_oldest_messages("ada", 3) == []
    assert await queue.delete_oldest_messages("nobody", 3) == []
    await queue.delete_messages("ada")
    assert await queue.get_keys() == []


async def test_each_of_its_calls_is_one_commit(queue: KoruDeltaAsyncChatStore) -> None:
    calls: list[Any] = [
        lambda: queue.add_messages("ada", said(*"abcdef")),
        lambda: queue.add_message("ada", ChatMessage("g"), MessageStatus.ARCHIVED),
        lambda: queue.archive_oldest_messages("ada", 2),
        lambda: queue.delete_oldest_messages("ada", 2),
        lambda: queue.delete_message("ada", 1),
        lambda: queue.set_messages("ada", said("x", "y")),
        lambda: queue.delete_messages("ada"),
    ]
    for number, call in enumerate(calls, 1):
        await call()
        assert len(queue.database.commits()) == number


async def test_both_stores_share_their_histories(
    store: KoruDeltaChatStore, queue: KoruDeltaAsyncChatStore
) -> None:
    store.add_message("ada", ChatMessage("one"))
    await queue.add_message("ada", ChatMessage("two"))
    then = queue.database.commits()[-1]
    await queue.archive_oldest_messages("ada", 1)

    assert texts(store.get_messages("ada")) == ["two"]
    assert texts(await queue.as_of(then).get_messages("ada")) == ["one", "two"]
    assert await queue.get_keys() == store.get_keys() == ["ada"]


async def test_a_memory_keeps_its_messages_in_it(tmp_path: Path) -> None:
    for n in range(3):
        queue = KoruDeltaAsyncChatStore(path=tmp_path / "db")
        memory = Memory.from_defaults(
            session_id="ada", chat_store=queue, token_limit=1000, tokenizer_fn=str.split
        )
        assert texts(await memory.aget_all()) == [f"message {m}" for m in range(n)]
        await memory.aput(ChatMessage(f"message {n}"))
        queue.close()
