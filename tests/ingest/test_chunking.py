from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koru_delta.errors import InvalidDataError
from koru_delta.ingest.chunking import Chunk, chunk_text

LINES = st.sampled_from(
    [
        "",
        " ",
        "\t",
        "    ",
        "# Heading",
        "## Another",
        "Title",
        "=====",
        "-----",
        "def f(x):",
        "@decorator",
        "class A:",
        "    return x",
        "A plain sentence. And one more!",
        "漢字かな交じり文。次の文！",
        "👩‍👩‍👧‍👦👍🏽🇫🇷",
        "e\u0301" * 5,
        "word " * 40,
        "x" * 300,
        " " * 300 + "far right",
        "\u3000全角の空白",
        "\ud800",
        "\x0c",
        "\x85 next line",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=400),
    st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\n\n", "\r", ""])), max_size=40).map(
        lambda pairs: "".join(line + end for line, end in pairs)
    ),
)
SIZES = st.integers(1, 200).flatmap(lambda most: st.tuples(st.just(most), st.integers(0, most)))


def check_promises(text: str, chunks: list[Chunk], max_chars: int) -> None:
    covered = 0
    for index, chunk in enumerate(chunks):
        assert chunk.index == index
        assert text[chunk.start : chunk.end] == chunk.text
        assert 1 <= len(chunk.text) <= max_chars
        assert text[covered : chunk.start].isspace() or covered == chunk.start
        assert chunk.first_line == text.count("\n", 0, chunk.start) + 1
        assert chunk.last_line == text.count("\n", 0, chunk.end) + 1
        assert not chunk.text[-1].isspace()
        assert chunk.text.partition("\n")[0].strip()
        covered = chunk.end
    assert not text[covered:].strip()


@given(TEXTS, SIZES)
def test_every_character_that_shows_is_in_exactly_one_chunk(text, sizes):
    max_chars, min_chars = sizes

    chunks = chunk_text(text, max_chars=max_chars, min_chars=min_chars)

    check_promises(text, chunks, max_chars)


@given(TEXTS)
def test_the_default_sizes_keep_the_same_promises(text):
    check_promises(text, chunk_text(text), 1200)


@given(TEXTS, SIZES)
def test_a_chunk_is_short_only_where_the_text_ends(text, sizes):
    max_chars, min_chars = sizes

    chunks = chunk_text(text, max_chars=max_chars, min_chars=min_chars)

    # A cut inside a line drops the white space it falls on, half a chunk at most.
    for chunk, following in pairwise(chunks):
        assert following.start - chunk.start >= min_chars


@pytest.mark.parametrize("text", ["", " ", "\n\n\r\n\t", "\u3000\n"])
def test_blank_text_has_no_chunks(text):
    assert chunk_text(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "x" * 50_000,
        "word " * 20_000,
        "漢字" * 20_000,
        "漢字。" * 20_000,
        "👩‍👩‍👧‍👦" * 5_000,
        " " * 50_000 + "x",
        "\n" * 50_000 + "x" + "\n" * 50_000,
        "a\r\n" * 20_000,
        "a\r" * 20_000,
        "@x\n" * 20_000,
        "# x\n" * 20_000,
        "x\n\n" * 20_000,
        "=\n" * 20_000,
    ],
    ids=lambda text: repr(text[:6]),
)
def test_long_monotonous_texts_keep_the_promises(text):
    check_promises(text, chunk_text(text), 1200)


def test_sections_are_cut_before_their_headings():
    section = "words and more words " * 15
    text = f"# One\n\n{section}\n\n## Two\n\n{section}\n\nThree\n=====\n\n{section}\n"

    chunks = chunk_text(text, min_chars=100)

    starts = [chunk.text.partition("\n")[0] for chunk in chunks]
    assert starts == ["# One", "## Two", "Three"]


def test_a_heading_is_never_the_last_thing_in_a_chunk():
    rng = random.Random(5)
    text = "\n\n".join(
        f"Part {n}\n-------\n\n" + "\n\n".join("talk " * rng.randint(3, 60) for _ in range(6))
        for n in range(200)
    )

    for chunk in chunk_text(text):
        assert not chunk.text.endswith("-------")


def test_a_function_is_cut_before_its_decorators_and_comments():
    body = "    value = compute(value)\n" * 12
    text = (
        f"def one():\n{body}@cache\n@traced\ndef two():\n{body}# Three.\nasync def three():\n{body}"
    )

    chunks = chunk_text(text)

    starts = [chunk.text.partition("\n")[0] for chunk in chunks]
    assert starts == ["def one():", "@cache", "# Three."]


def test_indentation_stays_with_the_first_line_of_a_chunk():
    text = "class A:\n" + "\n".join(
        f"    def method_{n}(self):\n        return {n} * {n}\n" for n in range(100)
    )

    chunks = chunk_text(text)

    assert len(chunks) > 3
    assert all(chunk.text.startswith("    def") for chunk in chunks[1:])


def test_a_long_line_is_cut_between_sentences_and_words():
    text = "Here is a sentence of some length. " * 200

    assert all(chunk.text.endswith(".") for chunk in chunk_text(text))
    assert all(
        chunk.text.split()[0] in ("lorem", "ipsum") and chunk.text.split()[-1] in ("lorem", "ipsum")
        for chunk in chunk_text("lorem ipsum " * 1000)
    )


def test_an_emoji_made_of_several_characters_is_kept_whole():
    family = "👩‍👩‍👧‍👦"

    chunks = chunk_text(family * 1000)

    assert all(len(chunk.text) % len(family) == 0 for chunk in chunks)


def long_text(seed: int, paragraphs: int) -> list[str]:
    rng = random.Random(seed)
    words = [f"w{n}" for n in range(2000)]
    return [" ".join(rng.choices(words, k=rng.randint(8, 120))) for _ in range(paragraphs)]


def changed(before: str, after: str) -> int:
    old = Counter(chunk.text for chunk in chunk_text(before))
    new = Counter(chunk.text for chunk in chunk_text(after))
    return (new - old).total()


@pytest.mark.parametrize("seed", range(10))
def test_a_paragraph_put_in_the_middle_changes_only_a_few_chunks(seed):
    paragraphs = long_text(seed, 400)
    edited = [*paragraphs[:200], *long_text(99 + seed, 1), *paragraphs[200:]]
    before, after = "\n\n".join(paragraphs), "\n\n".join(edited)

    assert len(chunk_text(before)) > 150
    assert 1 <= changed(before, after) <= 5


@pytest.mark.parametrize("joint", ["\n", " ", ""], ids=["lines", "one line", "no space at all"])
def test_an_edit_without_natural_boundaries_is_forgotten_a_few_chunks_on(joint):
    paragraphs = long_text(3, 600)
    if not joint:
        paragraphs = [paragraph.replace(" ", "") for paragraph in paragraphs]
    before = joint.join(paragraphs)
    after = joint.join([*paragraphs[:100], "an addition of some words", *paragraphs[100:]])

    assert len(chunk_text(before)) > 90
    assert changed(before, after) <= 12


def test_the_same_text_is_cut_the_same_in_every_process():
    text = "\n\n".join(long_text(7, 30))

    assert [chunk.start for chunk in chunk_text(text)] == GOLDEN_STARTS


GOLDEN_STARTS = [
    0,
    723,
    1380,
    1967,
    2374,
    3259,
    3745,
    4598,
    5518,
    5889,
    6784,
    7400,
    8003,
    8743,
    9632,
    10250,
]


@pytest.mark.parametrize(("max_chars", "min_chars"), [(0, 0), (10, 11), (10, -1), (-5, -9)])
def test_sizes_that_contradict_each_other_are_refused(max_chars, min_chars):
    with pytest.raises(InvalidDataError, match="max_chars"):
        chunk_text("text", max_chars=max_chars, min_chars=min_chars)
