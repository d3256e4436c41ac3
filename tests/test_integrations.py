"""`koru_delta.integrations`: names at hand, nothing loaded before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import koru_delta
import koru_delta_langchain
import koru_delta_llamaindex
from koru_delta import HybridSearcher, integrations
from koru_delta.errors import EmbedderError, QueryError


@pytest.mark.parametrize("name", integrations.__all__)
def test_a_name_is_the_one_that_the_package_has(name: str) -> None:
    assert getattr(integrations, name) is getattr(koru_delta, name)
    assert name in dir(integrations)


def test_the_names_are_sorted_and_another_is_no_attribute() -> None:
    assert integrations.__all__ == sorted(integrations.__all__)
    with pytest.raises(AttributeError, match="Nothing"):
        integrations.Nothing  # noqa: B018


def test_the_langchain_store_is_the_adapters() -> None:
    from koru_delta.integrations import langchain

    assert langchain.KoruDeltaVectorStore is koru_delta_langchain.KoruDeltaVectorStore


def test_the_llamaindex_store_is_the_adapters() -> None:
    from koru_delta.integrations import llamaindex

    for name in llamaindex.__all__:
        assert getattr(llamaindex, name) is getattr(koru_delta_llamaindex, name)
    with llamaindex.storage_context().vector_store as store:
        assert type(store) is llamaindex.KoruDeltaVectorStore


@pytest.mark.parametrize(
    ("name", "needs", "extra"),
    [("langchain", "langchain_core", "langchain"), ("llamaindex", "llama_index", "llamaindex")],
)
def test_where_a_framework_is_missing_its_adapter_says_what_to_install(
    name: str, needs: str, extra: str
) -> None:
    code = (
        f"import sys; sys.modules[{needs!r}] = None\n"
        "import koru_delta\n"
        f"try: import koru_delta.integrations.{name}\n"
        "except koru_delta.errors.MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(f"pip install 'koru-delta[{extra}]'")


def test_looking_loads_no_adapter_and_no_chunker() -> None:
    code = (
        "import koru_delta.integrations as i, sys; i.CausalFilter; i.HybridSearcher; dir(i);"
        "print(*[m for m in ('koru_delta_langchain', 'langchain_core', 'koru_delta_llamaindex', "
        "'llama_index', 'koru_delta.ingest') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_searcher_complains_of_a_setting_when_it_is_made() -> None:
    with koru_delta.open() as db:
        db.put("n", "a", "rain")
        with pytest.raises(QueryError, match="no setting 'wieghts'; did you mean 'weights'"):
            HybridSearcher(db, "n", wieghts={"text": 2})
        with pytest.raises(QueryError, match="no setting 'as_off'"):
            HybridSearcher(db.as_of(1), "n", as_off=1)
        searcher = HybridSearcher(db, "n", mode="text")
        with pytest.raises(QueryError, match="no setting 'namespace'"):
            searcher.search("rain", namespace="m")
        assert [hit.key for hit in searcher.search("rain", k=1)] == ["a"]
        assert repr(searcher) == "HybridSearcher(<Database 'in memory'>, 'n', mode='text')"


def test_text_asked_of_vectors_without_an_embedder_is_told_of_the_mode_that_needs_none() -> None:
    with koru_delta.open() as db:
        db.embed("n", "a", [1.0, 0.0], "rain")

        with pytest.raises(EmbedderError, match='mode="text"'):
            db.search("n", "rain")
