from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from koru_delta.errors import MissingExtraError
from koru_delta.ingest.chunking import Chunk, ChunkingConfig, chunk_document
from koru_delta.ingest.chunking.config import ENCODINGS, LANGUAGES
from koru_delta.ingest.chunking.tokens import encoding_named
from tests.ingest.texts import FAMILY, MONOTONOUS, TEXTS, checked

STRATEGIES = ["recursive", "sentence", "markdown", "code", "token", "content"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True, scope="module")
def loaded() -> None:
    """Reading the tables takes longer than an example may."""
    for name in ENCODINGS:
        chunk_document("text", ChunkingConfig("token", encoding=name))


@st.composite
def settings_in_tokens(draw: st.DrawFn) -> ChunkingConfig:
    strategy = draw(st.sampled_from(STRATEGIES))
    size = draw(st.integers(4, 80))
    return ChunkingConfig(
        strategy,
        size=size,
        overlap=0 if strategy == "content" else draw(st.integers(0, size // 2)),
        unit="tokens",
        encoding=draw(st.sampled_from(ENCODINGS)),
        language=draw(st.sampled_from(LANGUAGES)) if strategy == "code" else None,
    )


def check_tokens(text: str, config: ChunkingConfig, chunks: list[Chunk]) -> None:
    encoding = encoding_named(config.encoding)

    def count(piece: str) -> int:
        return len(encoding.encode(piece, disallowed_special=()))

    for chunk in chunks:
        assert chunk.tokens == count(chunk.text) <= config.most
    for chunk, following in pairwise(chunks):
        assert count(text[following.start : chunk.end]) <= config.overlap


@given(TEXTS, settings_in_tokens())
def test_every_strategy_keeps_its_promises_in_tokens(text, config):
    check_tokens(text, config, checked(text, config))


@given(
    st.lists(st.sampled_from(["ain't", "I'LL", "x/", "/\n", ".\n\n", "a\n", " ", "  ", "\t", "'s",
                              "don't ", "½", "²", "_", "12345", "Ⅷ", "漢。", "É", "e\u0301", "...",
                              "—", "foo(bar)", "\u00a0", "HTTPServer", "😀"])).map("".join),
    st.integers(4, 12),
    st.sampled_from(ENCODINGS),
    st.integers(0, 3),
)  # fmt: skip
def test_counts_are_those_of_encoding_the_chunk_itself(text, size, encoding, overlap):
    config = ChunkingConfig(
        "recursive", size=size, unit="tokens", encoding=encoding, overlap=min(overlap, size // 2)
    )
    check_tokens(text, config, checked(text, config))


@pytest.mark.parametrize("unit", MONOTONOUS, ids=repr)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_hundreds_of_thousands_of_one_kind_are_counted_exactly(unit, encoding):
    text = unit * (200_000 // len(unit))
    config = ChunkingConfig("token", size=500, encoding=encoding)

    check_tokens(text, config, checked(text, config))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_blanks_without_end_between_words_are_no_trouble(encoding):
    text = f"one{' ' * 1_000_000}two{' ' * 700}three\n{' ' * 300}four"
    config = ChunkingConfig(size=100, unit="tokens", encoding=encoding)

    chunks = checked(text, config)

    check_tokens(text, config, chunks)
    assert [chunk.text.split() for chunk in chunks] == [["one"], ["two"], ["three", "four"]]


def test_token_fills_every_chunk_nearly_to_the_brim():
    text = " ".join(f"word{n} or other" for n in range(3000))

    chunks = checked(text, ChunkingConfig("token", size=100))

    assert all(90 <= (chunk.tokens or 0) <= 100 for chunk in chunks[:-1])
    assert {chunk.text.split()[-1][:4] for chunk in chunks} <= {"word", "or", "othe"}


def test_special_tokens_are_text_like_any_other():
    text = "<|endoftext|> " * 50

    config = ChunkingConfig("token", size=20)
    chunks = checked(text, config)

    check_tokens(text, config, chunks)
    assert all("endoftext" in chunk.text for chunk in chunks)


def test_a_family_is_kept_whole_where_it_fits():
    chunks = checked(FAMILY * 50, ChunkingConfig("token", size=60))

    assert {chunk.text.replace(FAMILY, "") for chunk in chunks} == {""}


SCRIPT = """
import socket, sys, tempfile
def refuse(*args, **kwargs):
    raise SystemExit("the network was asked")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
tempfile.tempdir = sys.argv[1]
from koru_delta import ChunkingConfig, chunk_document
for encoding in ("cl100k_base", "o200k_base"):
    config = ChunkingConfig("token", size=4, encoding=encoding)
    print([chunk.text for chunk in chunk_document("one two three four five six", config)])
assert "llama_index" not in sys.modules and "litellm" not in sys.modules
"""


def in_a_fresh_process(tmp_path: Path, script: str, **variables: str) -> str:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


CUT = "['one two three four', 'five six']\n" * 2


def test_the_tables_are_found_in_what_the_extra_installs_without_the_network(tmp_path):
    assert in_a_fresh_process(tmp_path, SCRIPT) == CUT


def test_a_damaged_table_is_passed_over_and_left_alone(tmp_path):
    damaged = tmp_path / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
    damaged.write_bytes(b"IQ== 0\n")

    assert in_a_fresh_process(tmp_path, SCRIPT, TIKTOKEN_CACHE_DIR=str(tmp_path)) == CUT
    assert damaged.read_bytes() == b"IQ== 0\n"


WITHOUT_CARRIERS = (
    """
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = (
    lambda name, *more: None if name in ("llama_index", "litellm") else find_spec(name, *more)
)
"""
    + SCRIPT
)


def test_without_a_table_an_error_says_what_to_install(tmp_path):
    said = in_a_fresh_process(tmp_path, WITHOUT_CARRIERS)

    assert "MissingExtraError: the table of cl100k_base" in said
    assert said.endswith("pip install 'koru-delta[tokens]'\n")


def test_tables_are_found_where_tiktoken_is_told_to_look(tmp_path):
    found = importlib.util.find_spec("llama_index")
    assert found is not None
    (here,) = found.submodule_search_locations or ()
    shutil.copytree(Path(here, "core/_static/tiktoken_cache"), tmp_path / "tables")

    said = in_a_fresh_process(
        tmp_path, WITHOUT_CARRIERS, TIKTOKEN_CACHE_DIR=str(tmp_path / "tables")
    )

    assert said == CUT


def test_without_tiktoken_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'koru-delta\[tokens\]'"):
        chunk_document("text", ChunkingConfig("token"))


def test_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "somewhere")
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})

    encoding_named("cl100k_base")

    assert os.environ["TIKTOKEN_CACHE_DIR"] == "somewhere"
