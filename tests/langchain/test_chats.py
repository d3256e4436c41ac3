"""`KoruDeltaChatMessageHistory`: what was said, in order, at any moment."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

import koru_delta
from koru_delta.errors import InvalidDataError, ReadOnlyError
from koru_delta.testing import FixedClock
from koru_delta_langchain import KoruDeltaChatMessageHistory

SAID: list[BaseMessage] = [
    SystemMessage("be brief"),
    HumanMessage("rain?", id="m-1", additional_kwargs={"lc": 1}),
    AIMessage(
        "",
        tool_calls=[{"name": "sky", "args": {"day": 1}, "id": "c"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    ),
    ToolMessage("clouds", tool_call_id="c", artifact={"raw": [0.1]}),
    ChatMessage("hm", role="critic"),
    HumanMessage([{"type": "text", "text": "日本語"}, {"type": "image_url", "image_url": "x"}]),
]


@pytest.fixture
def history(db: koru_delta.Database) -> KoruDeltaChatMessageHistory:
    return KoruDeltaChatMessageHistory("ada", database=db)


async def test_messages_come_back_exactly_and_in_order(
    history: KoruDeltaChatMessageHistory,
) -> None:
    history.add_messages(SAID[:3])
    await history.aadd_messages(SAID[3:])
    history.add_user_message("more")
    history.add_ai_message("no")
    expected = [*SAID, HumanMessage("more"), AIMessage("no")]
    assert history.messages == expected == await history.aget_messages()
    assert [type(m) for m in history.messages] == [type(m) for m in expected]
    assert len(history.database.commits()) == 4
    history.add_messages([])
    assert len(history.database.commits()) == 4


async def test_a_conversation_is_read_as_of_any_moment(
    history: KoruDeltaChatMessageHistory,
) -> None:
    for text in ("one", "two", "three"):
        history.add_user_message(text)
    commits = history.database.commits()
    await history.aclear()
    history.add_user_message("anew")

    for count, commit in enumerate(commits, 1):
        said = [message.content for message in history.get_messages(as_of=commit)]
        assert said == ["one", "two", "three"][:count]
    past = history.as_of(commits[1])
    assert [message.content for message in past.messages] == ["one", "two"]
    assert past.messages == await past.aget_messages()
    assert [message.content for message in history.messages] == ["anew"]
    for write in (past.clear, lambda: past.add_user_message("x")):
        with pytest.raises(ReadOnlyError):
            write()


def test_sessions_do_not_mix_whatever_they_are_called(db: koru_delta.Database) -> None:
    names = ["", "a", "a/b", "a" * 3000, "\0", "$and", '{"$ne": 1}', "日本語"]
    sessions = [KoruDeltaChatMessageHistory(name, database=db) for name in names]
    for number, session in enumerate(sessions):
        session.add_user_message(str(number))
    sessions[1].clear()
    for number, session in enumerate(sessions):
        assert [m.content for m in session.messages] == ([] if number == 1 else [str(number)])


def test_what_would_come_back_as_something_else_is_refused_whole(
    history: KoruDeltaChatMessageHistory,
) -> None:
    odd = HumanMessage("x", additional_kwargs={"client": object()})
    with pytest.raises(InvalidDataError, match="does not come back equal"):
        history.add_messages([HumanMessage("fine"), odd])
    assert history.messages == []


def test_messages_expire_and_are_there_after_reopening(tmp_path: Path, clock: FixedClock) -> None:
    with koru_delta.open(tmp_path, clock=clock) as db:
        KoruDeltaChatMessageHistory("s", database=db, ttl=10).add_user_message("soon gone")
        KoruDeltaChatMessageHistory("s", database=db).add_user_message("stays")
    with koru_delta.open(tmp_path, clock=clock) as db:
        history = KoruDeltaChatMessageHistory("s", database=db)
        assert [m.content for m in history.messages] == ["soon gone", "stays"]
        clock.advance(seconds=11)
        assert [m.content for m in history.messages] == ["stays"]


async def test_messages_added_at_once_all_arrive_each_batch_together(
    history: KoruDeltaChatMessageHistory,
) -> None:
    batches = [[HumanMessage(f"{n} asks"), AIMessage(f"{n} answers")] for n in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(history.add_messages, batches[:20]))
    await asyncio.gather(*(history.aadd_messages(batch) for batch in batches[20:]))
    said = [message.content for message in history.messages]
    pairs = list(zip(said[::2], said[1::2], strict=True))
    assert sorted(pairs) == sorted((f"{n} asks", f"{n} answers") for n in range(40))


def test_what_was_said_is_searched_by_words_over_all_sessions(db: koru_delta.Database) -> None:
    for name, text in (("a", "the pump is loud"), ("b", "tea is hot")):
        KoruDeltaChatMessageHistory(name, database=db).add_user_message(text)
    db.configure_text("langchain.chats", fields=["text"])
    [found] = db.search("langchain.chats", "pump", mode="text")
    assert found.value["session"] == "a"
