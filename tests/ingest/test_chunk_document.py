from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

import koru_delta
from koru_delta.errors import InvalidDataError
from koru_delta.ingest.chunking import Chunk, ChunkingConfig, chunk_document, chunk_text
from koru_delta.ingest.chunking.config import LANGUAGES, Strategy
from tests.ingest.texts import FAMILY, MONOTONOUS, TEXTS, checked

PLAIN = ["recursive", "sentence", "markdown", "content"]


@st.composite
def settings_in_characters(draw: st.DrawFn) -> ChunkingConfig:
    strategy = draw(st.sampled_from([*PLAIN, "code"]))
    size = draw(st.integers(1, 200))
    return ChunkingConfig(
        strategy,
        size=size,
        overlap=0 if strategy == "content" else draw(st.integers(0, size // 2)),
        min_size=draw(st.none() | st.integers(0, size)),
        language=draw(st.sampled_from(LANGUAGES)) if strategy == "code" else None,
    )


@given(TEXTS, settings_in_characters())
def test_every_strategy_keeps_its_promises_in_characters(text, config):
    checked(text, config)


@given(TEXTS, st.sampled_from(PLAIN))
def test_the_usual_sizes_keep_the_same_promises(text, strategy):
    checked(text, ChunkingConfig(strategy))


@given(TEXTS, settings_in_characters())
def test_the_same_text_and_settings_give_the_same_chunks(text, config):
    assert chunk_document(text, config) == chunk_document(text, config)


@pytest.mark.parametrize("text", ["", " ", "\n\n\r\n\t", "\u3000\n"])
@pytest.mark.parametrize("strategy", PLAIN)
def test_blank_text_has_no_chunks(text, strategy):
    assert chunk_document(text, ChunkingConfig(strategy)) == []


def test_without_settings_paragraphs_are_packed_up_to_1200_characters():
    text = "\n\n".join(f"Paragraph {n}: " + "more of the same. " * 20 for n in range(30))

    chunks = chunk_document(text)

    assert chunks == chunk_document(text, ChunkingConfig("recursive", size=1200))
    assert [chunk.text.partition(":")[0] for chunk in chunks] == [
        f"Paragraph {n}" for n in range(0, 30, 3)
    ]


@pytest.mark.parametrize("unit", MONOTONOUS, ids=repr)
@pytest.mark.parametrize("strategy", PLAIN)
def test_a_million_characters_of_one_kind_keep_the_promises(unit, strategy):
    checked(unit * (1_000_000 // len(unit)), ChunkingConfig(strategy, size=1000))


@pytest.mark.parametrize("unit", MONOTONOUS, ids=repr)
@pytest.mark.parametrize("strategy", ["recursive", "sentence", "markdown"])
def test_four_times_the_text_takes_about_four_times_the_steps(unit, strategy):
    config = ChunkingConfig(strategy, size=120, overlap=40)
    length = 6000 // len(unit)

    few = calls(lambda: chunk_document(unit * length, config))
    many = calls(lambda: chunk_document(unit * (4 * length), config))

    assert many <= 4.5 * few + 400


def calls(work: Callable[[], object]) -> int:
    """How many calls, of Python and of C, `work` makes."""
    count = 0

    def counting(*_: object) -> None:
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(counting)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@given(
    st.lists(
        st.sampled_from(
            [FAMILY, "👍🏽", "🇫🇷", "1️⃣", "e\u0301", "o\u0308\u0323", "각", "\u1100\u1161\u11a8",
             "क्षि", "நி", "กำ", "a", "漢", " ", "\r\n", "🏴\U000e0067\U000e0062\U000e007f"]
        ),
        max_size=120,
    ).map("".join),
    st.sampled_from(["recursive", "sentence", "markdown"]),
    st.integers(0, 10),
)  # fmt: skip
def test_what_a_reader_sees_as_one_character_is_never_cut(text, strategy, overlap):
    borders = {0, len(text)} | {match.end() for match in regex.finditer(r"\X", text)}

    chunks = checked(text, ChunkingConfig(strategy, size=40, overlap=overlap))

    assert {at for chunk in chunks for at in (chunk.start, chunk.end)} <= borders


def test_a_paragraph_that_is_too_long_is_cut_at_lines_then_sentences_then_words():
    lines = "\n".join(["A line of some thirty letters."] * 8)
    sentences = "A sentence, Dr. No. " * 12
    words = "lorem ipsum " * 20
    config = ChunkingConfig(size=100)

    assert {chunk.text for chunk in checked(lines, config)} == {
        "\n".join(["A line of some thirty letters."] * times) for times in (3, 2)
    }
    assert {chunk.text[-4:] for chunk in checked(sentences, config)} == {" No."}
    assert {chunk.text.split()[-1] for chunk in checked(words, config)} <= {"lorem", "ipsum"}


def test_overlap_repeats_whole_sentences_of_the_chunk_before():
    text = " ".join(f"Sentence number {n} is here." for n in range(40))

    chunks = checked(text, ChunkingConfig("sentence", size=200, overlap=80))

    for chunk, following in pairwise(chunks):
        again = text[following.start : chunk.end]
        assert again.startswith("Sentence number")
        assert 20 < len(again) <= 80


def test_without_room_for_a_sentence_overlap_repeats_whole_words():
    text = "lorem ipsum dolor " * 60

    chunks = checked(text, ChunkingConfig(size=100, overlap=20))

    again = [text[after.start : chunk.end] for chunk, after in pairwise(chunks)]
    assert all(0 < len(words) <= 20 for words in again)
    assert {word for words in again for word in words.split()} == {"lorem", "ipsum", "dolor"}


@given(TEXTS, st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_content_cuts_as_ingest_does(text, sizes):
    size, least = sizes

    chunks = chunk_document(text, ChunkingConfig("content", size=size, min_size=least))

    assert chunks == chunk_text(text, max_chars=size, min_chars=least)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strategy": "semantic"}, "no strategy 'semantic'; choose one of recursive, sentence"),
        ({"strategy": None}, "no strategy None"),
        ({"unit": "bytes"}, "choose one of characters, tokens"),
        ({"encoding": "gpt2"}, "choose one of cl100k_base, o200k_base"),
        ({"strategy": "code"}, "choose one of c, cpp"),
        ({"strategy": "code", "language": "cobol"}, "no language 'cobol'"),
        ({"language": "python"}, "leave it out, or choose strategy='code'"),
        ({"strategy": "token", "unit": "characters"}, "leave unit out"),
        ({"size": 0}, "size=0 cannot be; choose a whole number of at least 1"),
        ({"size": -5}, "at least 1"),
        ({"size": 3, "unit": "tokens"}, "at least 4"),
        ({"size": 3, "strategy": "token"}, "at least 4"),
        ({"size": 1.5}, "whole number"),
        ({"size": True}, "whole number"),
        ({"size": "100"}, "whole number"),
        ({"size": 100, "overlap": 51}, "from 0 to 50 .half of size."),
        ({"overlap": -1}, "overlap=-1"),
        ({"size": 100, "min_size": 101}, "from 0 to 100"),
        ({"strategy": "content", "overlap": 10}, "choose overlap=0"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_with_what_to_do(settings, says):
    with pytest.raises(InvalidDataError, match=says):
        ChunkingConfig(**settings)


@pytest.mark.parametrize("text", [b"bytes", None, 3, ["a"]])
def test_what_is_not_text_is_refused(text):
    with pytest.raises(InvalidDataError, match="must be str"):
        chunk_document(text)


def test_the_names_are_public():
    assert koru_delta.chunk_document is koru_delta.ingest.chunk_document is chunk_document
    assert koru_delta.ChunkingConfig is koru_delta.ingest.ChunkingConfig is ChunkingConfig
    assert koru_delta.Chunk is koru_delta.ingest.Chunk is Chunk


def test_every_strategy_is_told_of_in_the_table():
    table = ChunkingConfig.__doc__ or ""

    assert all(f"| `{strategy}` |" in table for strategy in get_args(Strategy))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("markdown", 'ChunkingConfig("markdown")'),
        (300, 'not int; write ChunkingConfig("recursive")'),
        ("code", 'ChunkingConfig("code", language="python")'),
    ],
)  # fmt: skip
def test_a_strategy_by_itself_is_refused_with_what_to_write(given, shown):
    with pytest.raises(InvalidDataError) as refused:
        chunk_document("text", given)

    assert shown in str(refused.value)
