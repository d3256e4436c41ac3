"""Caches of what language models answered: by the same prompt, or by one that means it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

import numpy as np
from langchain_core.caches import BaseCache
from langchain_core.embeddings import Embeddings
from langchain_core.load.serializable import Serializable
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

import koru_delta
from koru_delta import Database
from koru_delta_langchain.codec import Codec
from koru_delta_langchain.embedding import Embedder, VectorLike, embedding_of
from koru_delta_langchain.home import Home
from koru_delta_langchain.ids import foreign, listed, text

_log: Final = logging.getLogger(__name__)


class KoruDeltaCache(Home, BaseCache):
    """What a model answered to a prompt, given again exactly: tool calls, usage and all.

    For `langchain_core.globals.set_llm_cache` or a model's `cache=`. An answer that would
    not come back equal is not kept, and one that cannot be read back is none; both are logged
    as warnings. What a model with structured output parsed comes back as the JSON of it, which
    LangChain makes the object of again. A look-up never makes anything of another class than
    messages and generations, and reads no environment.

    >>> from langchain_core.outputs import Generation
    >>> with KoruDeltaCache() as cache:
    ...     cache.update("rain?", "model", [Generation(text="yes")])
    ...     [answer.text for answer in cache.lookup("rain?", "model")]
    ['yes']
    """

    def __init__(
        self,
        *,
        database: Database | None = None,
        path: str | os.PathLike[str] | None = None,
        namespace: str = "langchain.cache",
        ttl: float | timedelta | None = None,
        keep: timedelta | None = timedelta(0),
        allowed_objects: Iterable[type[Serializable]] = (),
    ) -> None:
        """Keep answers in `database`, or in one opened at `path`; in memory by default.

        Args:
            ttl: Seconds (or a timedelta) after which an answer is none, exactly; None is never.
            keep: For how long an answer that has expired or was replaced stays on disk, to be
                read with `as_of`: said to `Database.retain` with the first answer, unless
                somebody has said so before. None is for ever.
            allowed_objects: Classes that answers may hold, besides LangChain's own messages
                and generations.

        Raises:
            InvalidDataError: both `database` and `path`; and the errors of `koru_delta.open`.
        """
        super().__init__(namespace, database, path)
        self._ttl = ttl
        self._codec = Codec(allowed_objects)
        self._keep_past: timedelta | None = keep

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """The answers kept for the same prompt to the same model; None if there are none."""
        key = _key(prompt, llm_string)
        return self._answers(key, self._reader().get(self._namespace, key, None))

    async def alookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """As `lookup`."""
        return await asyncio.to_thread(self.lookup, prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep answers, in the place of those there were."""
        self._check_writable()
        key, value = _key(prompt, llm_string), self._value(prompt, return_val)
        if value is not None:
            self._retain()
            self._database.put(self._namespace, key, value, ttl=self._ttl)

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """As `update`."""
        await asyncio.to_thread(self.update, prompt, llm_string, return_val)

    def clear(self, **_options: Any) -> None:
        """Forget every answer."""
        self._check_writable()
        self._database.drop_namespace(self._namespace)

    async def aclear(self, **_options: Any) -> None:
        """As `clear`."""
        await asyncio.to_thread(self.clear)

    def _retain(self) -> None:
        keep, self._keep_past = self._keep_past, None  # once is enough
        koru_delta.adapters.retain_by_default(self._database, self._namespace, keep)

    def _value(self, prompt: str, answers: Sequence[Generation]) -> dict[str, Any] | None:
        given = listed("return_val", answers, of=Generation)
        # For people to read and search; the key is the hash of the prompt as it is.
        shown = prompt.encode(errors="backslashreplace").decode()
        try:
            plain = [_without_objects(answer) for answer in given]
            return {"prompt": shown, "answers": self._codec.encode(plain)}
        except (koru_delta.errors.InvalidDataError, PydanticSerializationError) as error:
            _log.warning("an answer is not cached: %s", error)
            return None

    def _answers(self, key: str, value: object) -> list[Generation] | None:
        match value:
            case None:
                return None
            case {"answers": str(encoded)}:
                try:
                    found: list[Generation] = self._codec.decode(encoded)
                except koru_delta.errors.InvalidDataError as error:
                    _log.warning("a cached answer is passed over: %s", error)
                    return None
                return found
        raise foreign(self._namespace, key, "answer of a model")


class KoruDeltaSemanticCache(KoruDeltaCache):
    """A cache that also answers a prompt that means the same as one it knows.

    Only what the last message says is compared by meaning. All the rest, which is the
    model, its settings, and the messages before, must be equal: a system prompt or an
    earlier turn that differs is another question. Meaning is no proof ("2019" and "2020" are
    near), so keep the threshold high, and use it where a near answer will do. Answers kept
    with another embedding, by its name, are found by equal prompts alone.
    """

    def __init__(
        self,
        embedding: Embeddings | Embedder | None = None,
        *,
        threshold: float = 0.95,
        database: Database | None = None,
        path: str | os.PathLike[str] | None = None,
        namespace: str = "langchain.semantic-cache",
        ttl: float | timedelta | None = None,
        keep: timedelta | None = timedelta(0),
        allowed_objects: Iterable[type[Serializable]] = (),
    ) -> None:
        """As `KoruDeltaCache`.

        Args:
            embedding: By default the database's embedder, or else `koru_delta.embedders.local()`.
            threshold: The cosine from which on two prompts mean the same, in [-1, 1].

        Raises:
            EmbedderError: `embedding` cannot embed.
            MissingExtraError: the local model is not installed.
            QueryError: the threshold is no cosine.
        """
        if not isinstance(threshold, (int, float)) or not -1 <= threshold <= 1:
            raise koru_delta.errors.QueryError(
                f"the threshold is a cosine, from -1 to 1, not {threshold!r}"
            )
        if embedding is None and (database is None or database.embedder is None):
            embedding = koru_delta.embedders.local()
        self._embedding = embedding_of(embedding, database)
        # Files the vectors: another embedder's mean something else, and are not compared.
        self._model = koru_delta.embedders.as_embedder(self._embedding).name
        self._threshold = threshold
        super().__init__(
            database=database, path=path, namespace=namespace, ttl=ttl, keep=keep,
            allowed_objects=allowed_objects,
        )  # fmt: skip

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """The answers kept for this prompt, or else for the nearest that means the same."""
        found = super().lookup(prompt, llm_string)
        words, rest = _last_words(prompt)
        if found is not None or not words.strip():
            return found
        return self._near(_direction(self._embedding.embed_query(words)), rest, llm_string)

    async def alookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """As `lookup`."""
        found = await asyncio.to_thread(super().lookup, prompt, llm_string)
        words, rest = _last_words(prompt)
        if found is not None or not words.strip():
            return found
        vector = _direction(await self._embedding.aembed_query(words))
        return await asyncio.to_thread(self._near, vector, rest, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep answers, in the place of those to the same prompt."""
        self._check_writable()
        words, _ = _last_words(prompt)
        vector = _direction(self._embedding.embed_query(words)) if words.strip() else None
        self._keep(prompt, llm_string, return_val, vector)

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """As `update`."""
        self._check_writable()
        words, _ = _last_words(prompt)
        vector = _direction(await self._embedding.aembed_query(words)) if words.strip() else None
        await asyncio.to_thread(self._keep, prompt, llm_string, return_val, vector)

    def _near(
        self, vector: VectorLike | None, rest: str, llm_string: str
    ) -> list[Generation] | None:
        if vector is None:
            return None
        try:
            found = self._reader().similar(
                self._namespace, vector, k=1, filter={"rest": _hash(rest, llm_string)},
                threshold=self._threshold, model=self._model,
            )  # fmt: skip
        except koru_delta.errors.ModelMismatchError:
            return None  # all there is was embedded by others, and means something else to them
        return self._answers(found[0].key, found[0].value) if found else None

    def _keep(
        self,
        prompt: str,
        llm_string: str,
        answers: Sequence[Generation],
        vector: VectorLike | None,
    ) -> None:
        key, value = _key(prompt, llm_string), self._value(prompt, answers)
        if value is None:
            return
        self._retain()
        if vector is None:
            self._database.put(self._namespace, key, value, ttl=self._ttl)
            return
        value["rest"] = _hash(_last_words(prompt)[1], llm_string)
        self._database.embed(self._namespace, key, vector, value, ttl=self._ttl, model=self._model)


def _without_objects(answer: Generation) -> Generation:
    """The answer with JSON in the place of what was parsed of it, as LangChain writes it."""
    if not isinstance(answer, ChatGeneration) or not isinstance(answer.message, AIMessage):
        return answer
    extra = answer.message.additional_kwargs
    parsed = extra.get("parsed")
    if not isinstance(parsed, BaseModel):
        return answer
    plain = {**extra, "parsed": parsed.model_dump(mode="json")}
    message = answer.message.model_copy(update={"additional_kwargs": plain})
    return answer.model_copy(update={"message": message})


def _direction(vector: VectorLike | None) -> VectorLike | None:
    """A vector; None where it is zero, which is like nothing.

    Raises:
        EmbedderError: there is none.
    """
    if vector is None:
        raise koru_delta.errors.EmbedderError("the embedding returned no vector for a prompt")
    return vector if np.asarray(vector).any() else None


def _key(prompt: str, llm_string: str) -> str:
    return _hash(prompt, llm_string)


def _hash(*parts: str) -> str:
    data = json.dumps([text("a prompt, and what names a model,", part) for part in parts]).encode()
    return hashlib.sha256(data).hexdigest()


def _last_words(prompt: str) -> tuple[str, str]:
    """What the last message of a prompt says, and all the rest of it.

    A chat model's prompt is its messages as LangChain serializes them, which are alike
    whatever they say; another prompt is its own last words.
    """
    try:
        messages = json.loads(text("a prompt", prompt))
    except (ValueError, RecursionError):  # "[[[[..." is what somebody may well ask about
        return prompt, ""
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        last = messages[-1].get("kwargs")
        if isinstance(last, dict) and isinstance(last.get("content"), str):
            words = last["content"]
            last["content"] = ""
            return words, json.dumps(messages, sort_keys=True)
    return prompt, ""
