"""Caches of what models answered: exactly, for as long as they should, and by meaning."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from langchain_core.caches import BaseCache
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation

import koru_delta
from koru_delta.embedders import as_embedder
from koru_delta.errors import ErasedError, QueryError, ReadOnlyError
from koru_delta.testing import FixedClock, HashEmbedder
from koru_delta_langchain import KoruDeltaCache, KoruDeltaSemanticCache

ANSWERS: list[list[Generation]] = [
    [],
    [Generation(text="plain", generation_info={"logprobs": [-0.25, 1e-300], "n": 2**70})],
    [Generation(text="a"), Generation(text="b")],
    [ChatGeneration(message=AIMessage(content="日本語 🙂 \0"))],
    [
        ChatGeneration(
            message=AIMessage(
                content=[{"type": "text", "text": "see"}, {"type": "image", "data": "AA=="}],
                tool_calls=[{"name": "search", "args": {"q": "rain", "n": 1.0}, "id": "call-1"}],
                invalid_tool_calls=[
                    {"name": "x", "args": "{", "id": "call-2", "error": "not JSON"}
                ],
                usage_metadata={
                    "input_tokens": 5, "output_tokens": 7, "total_tokens": 12,
                    "input_token_details": {"cache_read": 3},
                },
                response_metadata={"model_name": "m", "finish_reason": None, "lc": 1},
                additional_kwargs={"nested": {"lc": 1, "type": "constructor", "id": ["os"]}},
                id="run-1",
                name="ada",
            ),
            generation_info={"finish_reason": "stop"},
        )
    ],
    [ChatGeneration(message=ToolMessage(content="3", tool_call_id="call-1", artifact={"a": [1]}))],
]  # fmt: skip


class Words:
    model_name = "words"

    def __init__(self) -> None:
        self.embed = HashEmbedder()

    def __call__(self, texts: list[str]) -> Any:
        return self.embed(texts)


@pytest.fixture(params=["exact", "semantic"])
def cache(db: koru_delta.Database, request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "exact":
        yield KoruDeltaCache(database=db, ttl=60)
    else:
        yield KoruDeltaSemanticCache(Words(), database=db, ttl=60)


@pytest.mark.parametrize("answers", ANSWERS)
async def test_answers_come_back_exactly(cache: BaseCache, answers: list[Generation]) -> None:
    cache.update("prompt", "model", answers)
    for found in (cache.lookup("prompt", "model"), await cache.alookup("prompt", "model")):
        assert found == answers
        assert isinstance(found, list)  # a chat model takes nothing else
        assert [type(one) for one in found] == [type(one) for one in answers]
    assert cache.lookup("prompt", "another model") is None
    assert cache.lookup("another prompt entirely", "model") is None


def test_an_answer_lives_as_long_as_it_was_given(cache: Any, clock: FixedClock) -> None:
    cache.update("prompt", "model", [Generation(text="yes")])
    clock.advance(seconds=59)
    assert cache.lookup("prompt", "model") == [Generation(text="yes")]
    clock.advance(seconds=1, microseconds=10)
    assert cache.lookup("prompt", "model") is None


@pytest.mark.parametrize(
    "info", [{"client": object()}, {"nan": math.nan}, {"set": {1}}, {"tuple": (1,)}]
)
def test_what_would_come_back_as_something_else_is_not_kept(
    cache: Any, info: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        cache.update("prompt", "model", [Generation(text="yes", generation_info=info)])
    assert cache.lookup("prompt", "model") is None
    assert "not cached" in caplog.text


def test_a_damaged_or_forged_answer_is_none_makes_no_object_and_reads_no_environment(
    cache: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    cache.update("prompt", "model", [Generation(text="yes")])
    (key,) = cache.database.list_keys(cache.namespace)
    forged = [
        {"lc": 1, "type": "constructor", "kwargs": {"template": "{x}", "input_variables": ["x"]},
         "id": ["langchain", "prompts", "prompt", "PromptTemplate"]},
        {"lc": 1, "type": "constructor", "kwargs": {}, "id": ["os", "system"]},
    ]  # fmt: skip
    for object_ in forged:
        cache.database.put(cache.namespace, key, {"answers": json.dumps([object_])})
        caplog.clear()
        assert cache.lookup("prompt", "model") is None
        assert "passed over: this cannot be read back" in caplog.text
    cache.update("prompt", "model", [Generation(text="asked again")])
    assert cache.lookup("prompt", "model") == [Generation(text="asked again")]
    secret = {"lc": 1, "type": "secret", "id": ["SECRET_TOKEN"]}
    cache.database.put(cache.namespace, key, {"answers": json.dumps([secret])})
    assert cache.lookup("prompt", "model") == [None]
    assert os.environ["SECRET_TOKEN"] == "hush"


async def test_clear_forgets_all_and_the_past_can_be_asked(cache: Any) -> None:
    cache.update("prompt", "model", [Generation(text="yes")])
    then = cache.database.commits()[-1]
    await cache.aclear()
    assert cache.lookup("prompt", "model") is None
    past = cache.as_of(then)
    assert past.lookup("prompt", "model") == [Generation(text="yes")]
    for write in (past.clear, lambda: past.update("p", "m", [])):
        with pytest.raises(ReadOnlyError):
            write()


async def test_a_chat_model_answers_from_the_cache(cache: Any) -> None:
    model = FakeListChatModel(responses=["one", "two", "three"], cache=cache)
    assert model.invoke("rain?").content == "one"
    assert model.invoke("rain?").content == "one"
    assert (await model.ainvoke("rain?")).content == "one"
    assert model.invoke("tea with milk for everybody!").content == "two"


# Disk


@pytest.mark.parametrize("kind", [KoruDeltaCache, KoruDeltaSemanticCache])
def test_answers_that_are_no_more_give_their_disk_back(
    tmp_path: Path, clock: FixedClock, kind: Any
) -> None:
    noise = Random(0)
    with koru_delta.open(tmp_path / "db", clock=clock, embedder=Words()) as db:
        cache = kind(database=db, ttl=60)
        for n in range(60):
            cache.update(f"prompt {n}", "model", [Generation(text=noise.randbytes(20_000).hex())])
        full = size_of(tmp_path)
        db.sweep()
        assert cache.lookup("prompt 0", "model") is not None  # nothing that still answers goes
        then = db.commits()[-1]
        clock.advance(seconds=61)
        swept = db.sweep()
        db.compact()

        assert swept.versions == 60
        assert full > 2_400_000
        assert size_of(tmp_path) < full / 4
        assert db.verify().ok
        with pytest.raises(ErasedError):
            cache.as_of(then).lookup("prompt 0", "model")
        cache.update("prompt 0", "model", [Generation(text="anew")])
        assert cache.lookup("prompt 0", "model") == [Generation(text="anew")]


def test_what_somebody_said_of_retention_holds(db: koru_delta.Database) -> None:
    db.retain("langchain.cache", keep=timedelta(days=7))
    KoruDeltaCache(database=db).update("p", "m", [Generation(text="x")])
    assert db.retentions()["langchain.cache"].keep == timedelta(days=7)
    KoruDeltaCache(database=db, namespace="all", keep=None).update("p", "m", [])
    assert "all" not in db.retentions()
    KoruDeltaCache(database=db, namespace="default").update("p", "m", [])
    assert db.retentions()["default"].keep == timedelta(0)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# By meaning


def prompt(*messages: Any) -> str:
    return dumps(list(messages))


@pytest.fixture
def semantic(db: koru_delta.Database) -> KoruDeltaSemanticCache:
    return KoruDeltaSemanticCache(Words(), database=db, threshold=0.8)


YES = [Generation(text="yes")]


async def test_a_prompt_that_means_the_same_is_answered(semantic: KoruDeltaSemanticCache) -> None:
    asked = prompt(HumanMessage("will it rain in the north of the country today"))
    semantic.update(asked, "model", YES)
    near = prompt(HumanMessage("will it rain in the north of our country today"))
    far = prompt(HumanMessage("who painted the gate"))
    assert semantic.lookup(near, "model") == YES == await semantic.alookup(near, "model")
    assert semantic.lookup(far, "model") is None
    assert semantic.lookup(near, "another model") is None


@pytest.mark.parametrize(
    "before",
    [
        (SystemMessage("answer in French"),),
        (HumanMessage("of Mars I ask"), AIMessage("go on")),
        (),
    ],
)
def test_what_came_before_must_be_equal(semantic: KoruDeltaSemanticCache, before: Any) -> None:
    question = HumanMessage("will it rain today")
    semantic.update(prompt(SystemMessage("answer in English"), question), "model", YES)
    assert semantic.lookup(prompt(*before, question), "model") is None
    again = prompt(SystemMessage("answer in English"), HumanMessage("will it rain today then"))
    assert semantic.lookup(again, "model") == YES


def test_the_exact_prompt_goes_before_a_near_one(semantic: KoruDeltaSemanticCache) -> None:
    texts = ["rain a b c d e f", "rain a b c d e f g"]
    for text in texts:
        semantic.update(prompt(HumanMessage(text)), "model", [Generation(text=text)])
    for text in texts:
        found = semantic.lookup(prompt(HumanMessage(text)), "model")
        assert found == [Generation(text=text)]


def test_another_embedding_compares_what_it_embedded_itself(db: koru_delta.Database) -> None:
    one, two = (
        KoruDeltaSemanticCache(as_embedder(Words(), name=name), database=db, threshold=0.8)
        for name in ("one", "two")
    )
    one.update("Is it raining in Lyon today?", "m", [Generation(text="yes")])
    assert one.lookup("is it raining in lyon today", "m") == [Generation(text="yes")]
    assert two.lookup("is it raining in lyon today", "m") is None
    assert two.lookup("Is it raining in Lyon today?", "m") == [Generation(text="yes")]
    two.update("is it raining in lyon", "m", [Generation(text="two's")])
    assert two.lookup("Is it raining in Lyon", "m") == [Generation(text="two's")]
    assert one.lookup("is it raining in lyon today", "m") == [Generation(text="yes")]

    class Named(Embeddings):
        """LangChain's own, which say what their model is called."""

        model = "three"

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return HashEmbedder()(texts).tolist()

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    three = KoruDeltaSemanticCache(Named(), database=db, threshold=0.8)
    assert three.lookup("is it raining in lyon today", "m") is None
    three.update("is it raining in lyon now", "m", [Generation(text="three's")])
    assert three.lookup("Is it raining in Lyon now?", "m") == [Generation(text="three's")]


def test_prompts_without_words_are_only_equal(semantic: KoruDeltaSemanticCache) -> None:
    image = prompt(HumanMessage([{"type": "image", "data": "AA=="}]))
    for text in ("", "   ", image):
        semantic.update(text, "model", [Generation(text=text)])
        assert semantic.lookup(text, "model") == [Generation(text=text)]
    assert semantic.lookup(prompt(HumanMessage([{"type": "image", "data": "BB=="}])), "m") is None


def test_the_local_model_tells_a_paraphrase_from_another_question() -> None:
    with KoruDeltaSemanticCache(threshold=0.9) as cache:
        cache.update(prompt(HumanMessage("What is the capital of France?")), "model", YES)
        assert cache.lookup(prompt(HumanMessage("what is France's capital?")), "model") == YES
        assert cache.lookup(prompt(HumanMessage("Who wrote Hamlet?")), "model") is None
        with pytest.raises(QueryError, match="cosine"):
            KoruDeltaSemanticCache(threshold=2, database=cache.database)
