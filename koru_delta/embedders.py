"""Text to vectors: whatever embeds text, behind one small type.

A database is opened with any embedder people already have; `as_embedder` turns it
into a `TextEmbedder`, which returns checked float32 arrays or raises. `local` gives
a model that needs no network.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final, runtime_checkable

import numpy as np
import numpy.typing as npt

from koru_delta.errors import EmbedderError, KoruDeltaError, MissingExtraError

if TYPE_CHECKING:
    from wordllama import WordLlamaInference

Float32s: TypeAlias = npt.NDArray[np.float32]
VectorLike: TypeAlias = Sequence[float] | npt.NDArray[Any]

_LOCAL_MODEL: Final = "l2_supercat"
_LOCAL_DIMENSIONS: Final = (64, 128, 256)
_TEXTS_PER_BATCH: Final = 256
_TOKENS_PER_SLAB: Final = 16_384  # of 1 KB each while they are added up


@runtime_checkable
class EmbeddingsLike(Protocol):
    """The part of a LangChain `Embeddings` object that is used."""

    def embed_documents(self, texts: list[str], /) -> Iterable[VectorLike]:
        """Embed texts that are to be found."""
        ...

    def embed_query(self, text: str, /) -> VectorLike:
        """Embed a text to find others with."""
        ...


@runtime_checkable
class TextEmbeddingLike(Protocol):
    """The part of a LlamaIndex `BaseEmbedding` object that is used."""

    def get_text_embedding_batch(self, texts: list[str], /) -> Iterable[VectorLike]:
        """Embed texts that are to be found."""
        ...

    def get_query_embedding(self, query: str, /) -> VectorLike:
        """Embed a text to find others with."""
        ...


EmbedFunction: TypeAlias = Callable[
    [list[str]], Iterable[VectorLike] | Awaitable[Iterable[VectorLike]]
]


@final
class TextEmbedder:
    """An embedder whose vectors are float32, finite and as many as the texts.

    Made by `as_embedder` and `local`. Safe to share between threads when what it
    wraps is. Whatever goes wrong inside the wrapped embedder is raised as an
    `EmbedderError` with the original as its cause.

    Itself a function from texts to vectors, and it has the four methods of a LangChain
    `Embeddings`; they return arrays. Those that start with `a` run in a worker thread, so
    neither the event loop nor an async embedder on its own loop is held up.

    Attributes:
        name: What the model is called; the default `model=` of the vectors it makes.
    """

    __slots__ = ("_documents", "_query", "name")

    def __init__(
        self,
        name: str,
        documents: Callable[[list[str]], object],
        query: Callable[[str], object] | None = None,
    ) -> None:
        self.name = name
        self._documents = documents
        self._query = query

    def __repr__(self) -> str:
        return f"TextEmbedder({self.name!r})"

    def __call__(self, texts: Sequence[str]) -> Float32s:
        """As `embed_documents`."""
        return self.embed_documents(texts)

    def embed_documents(self, texts: Sequence[str]) -> Float32s:
        """Return one row per text, in order: an array of shape (texts, dimensions).

        No texts give an array of shape (0, 0), without asking the embedder.

        Raises:
            EmbedderError: the embedder failed, or what it returned is not one
                vector of finite numbers, all of one length, for each text.
        """
        if isinstance(texts, str):
            raise EmbedderError("embed_documents takes a list of texts, this is one: put it in []")
        if not texts:
            return np.empty((0, 0), dtype=np.float32)
        vectors = self._vectors(partial(self._documents, list(texts)))
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise EmbedderError(
                f"embedder {self.name!r} was given {_count(len(texts), 'text')} and returned "
                f"{_shape(vectors)}; it must take a list of texts and return one vector for each"
            )
        return self._checked(vectors)

    def embed_query(self, text: str) -> Float32s:
        """Return the vector to search with for `text`: an array of shape (dimensions,).

        Raises:
            EmbedderError: the embedder failed, or what it returned is not one
                vector of finite numbers.
        """
        if self._query is None:  # this model does not tell searching from being found
            vectors = self.embed_documents([text])
            return vectors.reshape(-1)
        vector = self._vectors(partial(self._query, text))
        if vector.ndim != 1:
            raise EmbedderError(
                f"embedder {self.name!r} was given 1 text and returned {_shape(vector)}; "
                "it must return one vector"
            )
        return self._checked(vector)

    async def aembed_documents(self, texts: Sequence[str]) -> Float32s:
        """As `embed_documents`."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> Float32s:
        """As `embed_query`."""
        return await asyncio.to_thread(self.embed_query, text)

    def _vectors(self, call: Callable[[], object]) -> npt.NDArray[Any]:
        try:
            result = call()
            if inspect.isawaitable(result):
                result = _private_loop().run(result)
            if isinstance(result, Iterator):
                result = list(result)
        except KoruDeltaError:
            raise
        except Exception as error:
            raise EmbedderError(
                f"embedder {self.name!r} failed: {type(error).__name__}: {error}"
            ) from error
        try:
            return np.asarray(result)
        except (TypeError, ValueError) as error:
            raise EmbedderError(
                f"embedder {self.name!r} returned vectors of different lengths, "
                "or something else that is no array of numbers"
            ) from error

    def _checked(self, array: npt.NDArray[Any]) -> Float32s:
        # Text and objects are refused by kind: numpy would read "1.5" as a number.
        if array.dtype.kind not in "fiu" or array.shape[-1] == 0:
            what = f"values of type {array.dtype}" if array.size else "empty vectors"
            raise EmbedderError(f"embedder {self.name!r} returned {what} in place of numbers")
        with np.errstate(over="ignore"):  # becomes infinite, and is refused below
            vectors = np.array(array, dtype=np.float32, order="C")
        if not np.isfinite(vectors).all():
            where = int(np.argwhere(~np.isfinite(np.atleast_2d(vectors)))[0][0])
            raise EmbedderError(
                f"embedder {self.name!r} returned NaN, or a number float32 cannot hold, "
                f"in the vector of text {where} (the first is 0)"
            )
        return vectors


Embedder: TypeAlias = TextEmbedder | EmbeddingsLike | TextEmbeddingLike | EmbedFunction


def as_embedder(embedder: Embedder, *, name: str | None = None) -> TextEmbedder:
    """Make a `TextEmbedder` of anything that embeds text.

    Args:
        embedder: A function that takes a list of texts and returns one vector for
            each (lists, arrays, or an iterator of them), a coroutine function of
            the same shape, a LangChain `Embeddings` or a LlamaIndex `BaseEmbedding`.
            The vector to search with comes from `embed_query` or
            `get_query_embedding` where there is one. A `TextEmbedder` is given back.
        name: What to call the model. By default its `model_name`, `model` or
            `model_id`, else the name of the function or class.

    A coroutine runs on an event loop of its own in another thread, the same one
    each time, so the clients it keeps open stay usable. The caller waits for it.

    Raises:
        EmbedderError: `embedder` is none of these.

    >>> lengths = as_embedder(lambda texts: [[len(text), 1.0] for text in texts], name="lengths")
    >>> lengths.embed_documents(["rain", "sun"]).tolist()
    [[4.0, 1.0], [3.0, 1.0]]
    """
    if isinstance(embedder, TextEmbedder):
        if name is None or name == embedder.name:
            return embedder
        return TextEmbedder(name, embedder.embed_documents, embedder.embed_query)
    given: object = embedder
    if given is local:
        raise EmbedderError("local is the function that makes an embedder; call it: local()")
    if isinstance(embedder, type):
        raise EmbedderError(f"{embedder.__name__} is a class; pass an instance of it")
    called = name or _name_of(embedder)
    if isinstance(embedder, EmbeddingsLike):
        return TextEmbedder(called, embedder.embed_documents, embedder.embed_query)
    if isinstance(embedder, TextEmbeddingLike):
        documents, query = embedder.get_text_embedding_batch, embedder.get_query_embedding
        return TextEmbedder(called, documents, query)
    if callable(embedder):
        return TextEmbedder(called, embedder)
    raise EmbedderError(
        f"{type(embedder).__name__} cannot embed text; pass a function from a list of texts to "
        "vectors, or an embeddings object of LangChain or LlamaIndex"
    )


def local(*, dimensions: int = 256) -> TextEmbedder:
    """Return the offline model of the extra `local`; its vectors have length 1.

    WordLlama, static word vectors for English that come with the package: nothing
    is downloaded. Loaded once in a process, on the first call. A text gets the same
    vector whatever texts it is embedded with. Called `wordllama-l2-supercat-256`.

    Args:
        dimensions: 64, 128 or 256. Shorter vectors are the beginnings of longer
            ones, and a little less exact.

    Raises:
        MissingExtraError: the extra is not installed.
        EmbedderError: other dimensions; or, when embedding, a text without a token.
    """
    if dimensions not in _LOCAL_DIMENSIONS:
        raise EmbedderError(f"the local model has 64, 128 or 256 dimensions, not {dimensions}")
    model = _LocalModel(dimensions)
    return TextEmbedder(f"wordllama-{_LOCAL_MODEL.replace('_', '-')}-{dimensions}", model.embed)


def model_of(embedder: object) -> str | None:
    """What an embedder says its model is called; None if it does not.

    That is the `name` of a `TextEmbedder`, else its `model_name`, `model` or `model_id`, or
    what these are of the embeddings that it keeps in a cache.
    """
    if isinstance(embedder, TextEmbedder):
        return embedder.name
    for attribute in ("model_name", "model", "model_id"):
        name = getattr(embedder, attribute, None)
        if isinstance(name, str) and name:
            return name
    cached = getattr(embedder, "underlying_embeddings", None)  # of a `CacheBackedEmbeddings`
    return None if cached is None else model_of(cached)


def _name_of(embedder: object) -> str:
    said = model_of(embedder)
    if said is not None:
        return said
    while isinstance(embedder, partial):
        embedder = embedder.func
    name = getattr(embedder, "__name__", type(embedder).__name__)
    return "embedder" if name == "<lambda>" else str(name)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shape(array: npt.NDArray[Any]) -> str:
    if array.ndim == 2:
        return f"{_count(array.shape[0], 'vector')} of {_count(array.shape[1], 'number')}"
    if array.ndim == 1:
        return f"one list of {_count(array.shape[0], 'value')}"
    return f"an array of {array.ndim} dimensions" if array.ndim else "no array"


class _LocalModel:
    """The WordLlama model, its vectors cut to `dimensions`.

    Texts are pooled here one by one: WordLlama pads a batch to its longest text,
    which takes a third of the speed and much memory from texts of a page.
    """

    def __init__(self, dimensions: int) -> None:
        model = _load_wordllama()
        self._dimensions = dimensions
        self._tokenizer = model.tokenizer
        self._words: Float32s = np.ascontiguousarray(model.embedding[:, :dimensions])

    def __reduce__(self) -> tuple[type[_LocalModel], tuple[int]]:
        return _LocalModel, (self._dimensions,)  # it is in the package: nothing to send along

    def embed(self, texts: list[str]) -> Float32s:
        """Return unit vectors of shape (len(texts), dimensions)."""
        vectors = np.empty((len(texts), self._words.shape[1]), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS_PER_BATCH):
            batch = texts[start : start + _TEXTS_PER_BATCH]
            encodings = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            for position, encoding in enumerate(encodings, start):
                if not encoding.ids:
                    raise EmbedderError(
                        f"text {position} (the first is 0) is empty, so it has no vector; "
                        "leave it out"
                    )
                vectors[position] = self._sum(np.array(encoding.ids))
        # The direction of the sum is that of the mean.
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _sum(self, tokens: npt.NDArray[np.int64]) -> Float32s:
        total = np.zeros(self._words.shape[1], dtype=np.float32)
        for start in range(0, len(tokens), _TOKENS_PER_SLAB):
            total += self._words[tokens[start : start + _TOKENS_PER_SLAB]].sum(axis=0)
        return total


@cache
def _load_wordllama() -> WordLlamaInference:
    # Importing wordllama sets up logging for the whole process; that is undone.
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        import wordllama
    except ImportError as error:
        raise MissingExtraError("the local embedding model", "local") from error
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
    # Its own folder in place of a cache: the default look-up misses the tokenizer in it.
    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(_LOCAL_MODEL, cache_dir=folder, disable_download=True)
    model.tokenizer.no_padding()
    return model


class _PrivateLoop:
    """An event loop in a thread of its own, for coroutines called from sync code."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="koru-delta-embedder", daemon=True
        )
        self._thread.start()

    def run(self, awaitable: Awaitable[object]) -> object:
        """Wait for `awaitable` and return its result."""
        if threading.current_thread() is self._thread:
            if isinstance(awaitable, Coroutine):
                awaitable.close()
            raise EmbedderError(
                "an async embedder waits for another; await its aembed_documents or aembed_query"
            )
        future = asyncio.run_coroutine_threadsafe(_await(awaitable), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # the caller was interrupted; nobody waits any more
            raise


async def _await(awaitable: Awaitable[object]) -> object:
    return await awaitable


_loop_lock = threading.Lock()


def _private_loop() -> _PrivateLoop:
    with _loop_lock:
        return _loop_of(os.getpid())


@cache
def _loop_of(_process: int) -> _PrivateLoop:
    # One per process: a fork does not inherit the thread that runs the loop.
    return _PrivateLoop()
