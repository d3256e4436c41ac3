"""`koru_delta.integrations`: names at hand, nothing loaded before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import koru_delta
import koru_delta_langchain
from koru_delta import integrations


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


def test_looking_loads_no_adapter_and_no_chunker() -> None:
    code = (
        "import koru_delta.integrations as i, sys; i.CausalFilter; i.HybridSearcher; dir(i);"
        "print(*[m for m in ('koru_delta_langchain', 'langchain_core', 'koru_delta.ingest') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
