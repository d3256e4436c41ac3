"""What a database may rely on when text is turned into vectors."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from koru_delta import embedders
from koru_delta.embedders import TextEmbedder, as_embedder
from koru_delta.errors import EmbedderError, MissingExtraError

TEXTS = ["rain falls on the hills", "the sun is out", "snow"]


def lengths(texts: list[str]) -> list[list[float]]:
    """Embed a text as its length and a one."""
    return [[float(len(text)), 1.0] for text in texts]


async def lengths_later(texts: list[str]) -> list[list[float]]:
    await asyncio.sleep(0)
    return lengths(texts)


class Lengths:
    """A callable object, async, that knows its model's name."""

    model = "lengths-v2"

    async def __call__(self, texts: list[str]) -> list[list[float]]:
        return await lengths_later(texts)


class LlamaIndexLengths:
    """Has the two methods of a LlamaIndex embedding that are used, and is callable as one is."""

    model_name = "llama-lengths"

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False
    ) -> list[list[float]]:
        return lengths(texts)

    def get_query_embedding(self, query: str) -> list[float]:
        return [-float(len(query)), 1.0]

    def __call__(self, nodes: list[object]) -> list[object]:
        raise AssertionError("this is for nodes, not for texts")


def returning(result: object) -> TextEmbedder:
    return as_embedder(lambda texts: result, name="odd")  # type: ignore[arg-type,return-value]


# --- what is accepted ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "embedder",
    [
        lengths,
        partial(lengths),
        lengths_later,
        partial(lengths_later),
        Lengths(),
        lambda texts: np.array(lengths(texts)),
        lambda texts: [np.array(vector, dtype=np.float16) for vector in lengths(texts)],
        lambda texts: iter(lengths(texts)),
        lambda texts: [[len(text), 1] for text in texts],
        as_embedder(lengths),
        LlamaIndexLengths(),
    ],
)
def test_every_kind_of_embedder_gives_one_float32_row_per_text(
    embedder: embedders.Embedder,
) -> None:
    vectors = as_embedder(embedder).embed_documents(TEXTS)

    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[23.0, 1.0], [14.0, 1.0], [4.0, 1.0]]


@pytest.mark.parametrize("embedder", [lengths, lengths_later, Lengths()])
def test_a_function_embeds_a_query_as_it_embeds_a_document(embedder: embedders.Embedder) -> None:
    assert as_embedder(embedder).embed_query("snow").tolist() == [4.0, 1.0]


def test_langchain_embeddings_give_their_own_vectors() -> None:
    theirs = DeterministicFakeEmbedding(size=6)
    ours = as_embedder(theirs)

    expected = np.array(theirs.embed_documents(TEXTS), dtype=np.float32)
    assert np.array_equal(ours.embed_documents(TEXTS), expected)
    assert np.array_equal(
        ours.embed_query("snow"), np.array(theirs.embed_query("snow"), dtype=np.float32)
    )


def test_llamaindex_queries_are_embedded_as_queries() -> None:
    assert as_embedder(LlamaIndexLengths()).embed_query("snow").tolist() == [-4.0, 1.0]


def test_no_texts_give_no_vectors_and_do_not_bother_the_embedder() -> None:
    def never(texts: list[str]) -> list[list[float]]:
        raise AssertionError("called")

    assert as_embedder(never).embed_documents([]).shape == (0, 0)


def test_vectors_do_not_change_when_the_embedder_uses_its_array_again() -> None:
    array = np.ones((1, 2), dtype=np.float32)
    vectors = returning(array).embed_documents(["a"])

    array[:] = 5.0

    assert vectors.tolist() == [[1.0, 1.0]]


async def test_an_embedder_is_a_function_and_can_be_awaited() -> None:
    for embedder in (
        as_embedder(lengths), as_embedder(lengths_later), as_embedder(LlamaIndexLengths()),
    ):  # fmt: skip
        documents = embedder.embed_documents(TEXTS).tolist()
        assert embedder(TEXTS).tolist() == documents
        assert (await embedder.aembed_documents(TEXTS)).tolist() == documents
        query = await embedder.aembed_query("snow")
        assert query.tolist() == embedder.embed_query("snow").tolist()
        assert query.dtype == np.float32


async def test_an_awaited_embedder_runs_off_the_loops_thread() -> None:
    threads: list[int] = []

    def noting(texts: list[str]) -> list[list[float]]:
        threads.append(threading.get_ident())
        return lengths(texts)

    await as_embedder(noting).aembed_documents(TEXTS)
    await as_embedder(noting).aembed_query("snow")
    assert len(threads) == 2
    assert threading.get_ident() not in threads


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("embedder", "name"),
    [
        (lengths, "lengths"),
        (partial(lengths), "lengths"),
        (lambda texts: [[1.0] for _ in texts], "embedder"),
        (Lengths(), "lengths-v2"),
        (LlamaIndexLengths(), "llama-lengths"),
        (DeterministicFakeEmbedding(size=2), "DeterministicFakeEmbedding"),
    ],
)
def test_an_embedder_is_named_after_its_model_or_else_itself(
    embedder: embedders.Embedder, name: str
) -> None:
    assert as_embedder(embedder).name == name


def test_a_given_name_wins_and_an_embedder_is_wrapped_once() -> None:
    ours = as_embedder(lengths, name="mine")

    assert ours.name == "mine"
    assert as_embedder(ours) is ours
    assert as_embedder(ours, name="yours").name == "yours"
    assert as_embedder(ours, name="yours").embed_query("snow").tolist() == [4.0, 1.0]


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        ([[1.0, 2.0]], "given 2 texts and returned 1 vector of 2 numbers"),
        ([[1.0], [2.0], [3.0]], "given 2 texts and returned 3 vectors of 1 number;"),
        ([1.0, 2.0], "returned one list of 2 values; it must take a list of texts"),
        ([[[1.0], [1.0]]], "returned an array of 3 dimensions"),
        (None, "returned no array"),
        (7.0, "returned no array"),
        ([[1.0, 2.0], [1.0]], "different lengths"),
        ([[1.0, 2.0], [1.0, float("nan")]], "NaN, or .* in the vector of text 1 "),
        ([[float("inf"), 2.0], [1.0, 1.0]], "in the vector of text 0 "),
        ([[1.0, 1e39], [1.0, 1.0]], "a number float32 cannot hold"),
        ([["1.0", "2.0"], ["1.0", "2.0"]], "in place of numbers"),
        ([[True, False], [True, True]], "values of type bool in place of numbers"),
        ([[None, 1.0], [1.0, 1.0]], "values of type object"),
        ([[1j, 1.0], [1.0, 1.0]], "complex"),
        ([[], []], "empty vectors"),
    ],
)
def test_anything_but_one_finite_vector_per_text_is_refused(result: object, complaint: str) -> None:
    with pytest.raises(EmbedderError, match=complaint):
        returning(result).embed_documents(["a", "b"])


def test_a_function_of_one_text_is_told_to_take_a_list() -> None:
    def embed_one(text: str) -> list[float]:
        return [float(len(text)), 1.0]

    of_one = as_embedder(embed_one)  # type: ignore[arg-type]

    with pytest.raises(EmbedderError, match="must take a list of texts"):
        of_one.embed_query("snow")


def test_a_query_vector_is_checked_too() -> None:
    class Broken(LlamaIndexLengths):
        def get_query_embedding(self, query: str) -> list[float]:
            return [float("nan")]

    class Nested(LlamaIndexLengths):
        def get_query_embedding(self, query: str) -> list[float]:
            return [[1.0, 2.0]]  # type: ignore[list-item]

    with pytest.raises(EmbedderError, match="NaN"):
        as_embedder(Broken()).embed_query("snow")
    with pytest.raises(EmbedderError, match="it must return one vector"):
        as_embedder(Nested()).embed_query("snow")


def test_one_text_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(EmbedderError, match="put it in"):
        as_embedder(lengths).embed_documents("snow")


@pytest.mark.parametrize("embedder", [7, "gpt", None, object(), LlamaIndexLengths])
def test_what_cannot_embed_is_refused_at_once(embedder: object) -> None:
    with pytest.raises(EmbedderError, match=r"cannot embed text|pass an instance"):
        as_embedder(embedder)  # type: ignore[arg-type]


def test_the_maker_of_the_local_model_is_told_from_the_model() -> None:
    with pytest.raises(EmbedderError, match=r"call it: local\(\)"):
        as_embedder(embedders.local)  # type: ignore[arg-type]


async def _fails_later(texts: list[str]) -> list[list[float]]:
    raise ConnectionError("no route")


def _fails(texts: list[str]) -> list[list[float]]:
    raise ConnectionError("no route")


def _fails_midway(texts: list[str]) -> Iterator[list[float]]:
    yield [1.0]
    raise ConnectionError("no route")


@pytest.mark.parametrize("embedder", [_fails, _fails_later, _fails_midway])
def test_a_failing_embedder_is_named_with_the_error_it_raised_as_cause(
    embedder: embedders.Embedder,
) -> None:
    with pytest.raises(EmbedderError, match="failed: ConnectionError: no route") as caught:
        as_embedder(embedder, name="far-away").embed_documents(["a"])

    assert "far-away" in str(caught.value)
    assert isinstance(caught.value.__cause__, ConnectionError)


# --- coroutines ---------------------------------------------------------------------------------


async def test_an_async_embedder_works_inside_a_running_loop_without_entering_it() -> None:
    seen: list[asyncio.AbstractEventLoop] = []

    async def noting(texts: list[str]) -> list[list[float]]:
        seen.append(asyncio.get_running_loop())
        return lengths(texts)

    assert as_embedder(noting).embed_query("snow").tolist() == [4.0, 1.0]
    assert seen != [asyncio.get_running_loop()]


def test_an_async_embedder_meets_the_same_loop_each_time_from_any_thread() -> None:
    seen: list[asyncio.AbstractEventLoop] = []

    async def noting(texts: list[str]) -> list[list[float]]:
        seen.append(asyncio.get_running_loop())
        return lengths(texts)

    embedder = as_embedder(noting)
    threads = [threading.Thread(target=embedder.embed_query, args=("snow",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 8
    assert len(set(map(id, seen))) == 1


def test_async_embedders_run_side_by_side() -> None:
    both = threading.Barrier(2)
    met: list[int] = []

    async def meeting(texts: list[str]) -> list[list[float]]:
        met.append(await asyncio.to_thread(both.wait, 60))
        return lengths(texts)

    embedder = as_embedder(meeting)
    threads = [threading.Thread(target=embedder.embed_query, args=("snow",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(met) == [0, 1]


def test_an_async_embedder_that_waits_for_another_is_refused_and_does_not_hang() -> None:
    inner = as_embedder(lengths_later)

    async def outer(texts: list[str]) -> list[list[float]]:
        return inner.embed_documents(texts).tolist()  # type: ignore[no-any-return]

    with pytest.raises(EmbedderError, match="waits for another"):
        as_embedder(outer).embed_query("snow")
    gc.collect()  # a coroutine nobody awaited would be warned of here, and fail the test


def test_an_async_embedder_may_await_another() -> None:
    inner = as_embedder(lengths_later)

    async def outer(texts: list[str]) -> npt.NDArray[np.float32]:
        return await inner.aembed_documents(texts)

    assert as_embedder(outer).embed_query("snow").tolist() == [4.0, 1.0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_an_async_embedder_works_after_a_fork() -> None:
    script = """
import asyncio, os, sys
from koru_delta.embedders import as_embedder

async def ones(texts):
    await asyncio.sleep(0)
    return [[1.0] for text in texts]

embedder = as_embedder(ones)
embedder.embed_query("before")
child = os.fork()
if child == 0:
    os._exit(0 if embedder.embed_query("after").tolist() == [1.0] else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


# --- the local model ----------------------------------------------------------------------------


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_the_local_model_puts_texts_on_one_subject_nearer_than_others() -> None:
    model = embedders.local()

    database, storage, weather = model.embed_documents(
        ["how a database stores rows on disk", "writing records to storage", "a rainy day in May"]
    )

    assert model.name == "wordllama-l2-supercat-256"
    assert cosine(database, storage) > cosine(database, weather) + 0.2


def test_a_text_gets_the_same_local_vector_whatever_it_is_embedded_with() -> None:
    model = embedders.local()
    long = "a page of many words " * 2_000

    together = model.embed_documents([*TEXTS, long, *(["filler"] * 600)])

    for text, vector in zip([*TEXTS, long], together, strict=False):
        assert np.array_equal(model.embed_documents([text])[0], vector)
        assert np.array_equal(model.embed_query(text), vector)


def test_local_vectors_are_those_of_wordllama() -> None:
    from pathlib import Path

    import wordllama

    theirs = wordllama.WordLlama.load(
        cache_dir=Path(wordllama.__file__).parent, disable_download=True
    ).embed(TEXTS, norm=True)

    assert np.allclose(embedders.local().embed_documents(TEXTS), theirs, atol=1e-6)


@pytest.mark.parametrize("dimensions", [64, 128, 256])
def test_local_vectors_have_the_length_asked_for_and_norm_one(dimensions: int) -> None:
    model = embedders.local(dimensions=dimensions)

    vectors = model.embed_documents(TEXTS)

    assert vectors.shape == (3, dimensions)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert model.name.endswith(f"-{dimensions}")


def test_the_local_model_says_which_lengths_and_texts_it_cannot_do() -> None:
    with pytest.raises(EmbedderError, match="64, 128 or 256 dimensions, not 512"):
        embedders.local(dimensions=512)
    with pytest.raises(EmbedderError, match=r"text 1 \(the first is 0\) is empty"):
        embedders.local().embed_documents(["a", ""])
    with pytest.raises(EmbedderError, match="failed"):
        embedders.local().embed_documents(["\ud800"])


def test_the_local_model_leaves_the_logging_of_the_process_alone() -> None:
    script = """
import logging
from koru_delta import embedders

embedders.local()
print(logging.getLogger().handlers, logging.getLogger().level == logging.WARNING)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[] True\n", "")
    assert logging.getLogger("wordllama").level == logging.NOTSET


def test_without_the_extra_the_local_model_says_how_to_install_it() -> None:
    # A real import that really fails: None in sys.modules is how Python says "not here".
    script = """
import sys
sys.modules["wordllama"] = None
from koru_delta import embedders
from koru_delta.errors import MissingExtraError

try:
    embedders.local()
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == (
        "the local embedding model needs an extra: pip install 'koru-delta[local]'\n"
    )
    assert issubclass(MissingExtraError, ImportError)


def test_importing_embedders_loads_no_framework() -> None:
    script = """
import sys
import koru_delta.embedders

heavy = {"wordllama", "langchain_core", "llama_index", "pydantic", "requests", "tokenizers"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
