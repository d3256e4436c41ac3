"""What the package gives, what it loads, and what it says where LlamaIndex is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import koru_delta
import koru_delta_llamaindex
from koru_delta.testing import HashEmbedder
from koru_delta_llamaindex import KoruDeltaEmbedding

ROOT = Path(__file__).parents[2]

MISSING = """
import sys

sys.modules["llama_index"] = None
sys.modules["llama_index.core"] = None
import koru_delta, koru_delta_llamaindex

try:
    koru_delta_llamaindex.KoruDeltaVectorStore
except koru_delta.errors.MissingExtraError as error:
    print(error)
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_is_there_and_no_other() -> None:
    for name in koru_delta_llamaindex.__all__:
        assert getattr(koru_delta_llamaindex, name).__doc__
    assert koru_delta_llamaindex.__all__ == sorted(koru_delta_llamaindex.__all__)
    assert set(koru_delta_llamaindex.__all__) <= set(dir(koru_delta_llamaindex))
    with pytest.raises(AttributeError, match="KoruDeltaStore"):
        _ = koru_delta_llamaindex.KoruDeltaStore


def test_importing_it_loads_none_of_the_framework() -> None:
    told = run(
        "import sys, koru_delta_llamaindex; "
        "print([name for name in sys.modules if name.split('.')[0] == 'llama_index'])"
    )
    assert told == "[]"


def test_where_the_framework_is_missing_it_says_what_to_install() -> None:
    assert run(MISSING).endswith("pip install 'koru-delta[llamaindex]'")


async def test_an_embedder_of_ours_is_one_of_theirs() -> None:
    embedding = KoruDeltaEmbedding(HashEmbedder(8))
    texts = ["rain", "the sun shines"]
    wanted = HashEmbedder(8)(texts).tolist()

    assert embedding.model_name == "hash-words-8"
    assert embedding.get_text_embedding_batch(texts) == wanted
    assert await embedding.aget_text_embedding_batch(texts) == wanted
    assert embedding.get_query_embedding("rain") == wanted[0]
    assert await embedding.aget_query_embedding("rain") == wanted[0]
    assert embedding.get_text_embedding("rain") == await embedding.aget_text_embedding("rain")
    with pytest.raises(koru_delta.errors.EmbedderError):
        KoruDeltaEmbedding(3)  # type: ignore[arg-type]
