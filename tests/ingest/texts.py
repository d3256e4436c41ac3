"""Texts that are hard to cut, and what every chunking must keep."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from koru_delta.ingest.chunking import Chunk, ChunkingConfig, chunk_document

FAMILY = "👩‍👩‍👧‍👦"
LINES = st.sampled_from(
    [
        "",
        " ",
        "\t",
        "    ",
        "# Heading",
        "## Another ##",
        "Title",
        "=====",
        "-----",
        "---",
        "```python",
        "```",
        "~~~",
        "- an item",
        "  - inner",
        "1. first",
        "> quoted",
        "| a | b |",
        "|---|---|",
        "<!-- note -->",
        "def f(x):",
        "@decorator",
        "class A:",
        "    return x",
        "/** doc */",
        "function g(a) { return a; }",
        "}",
        "A plain sentence. And one more! Dr. No said: “Why?” He left…",
        "Ça va très bien, señor Müller; naïve façade.",
        "漢字かな交じり文。次の文！「引用。」終わり",
        "한국어 문장입니다. 다음 문장.",
        "مرحبا بالعالم؟ نعم۔ שלום עולם.",
        "यह एक वाक्य है। क्षत्रिय",
        FAMILY + "👍🏽🇫🇷🇩🇪🇯🇵1️⃣",
        "e\u0301" * 5 + "o\u0308\u0323",
        "word " * 40,
        "x" * 300,
        "1234567890" * 12,
        "=" * 70,
        " " * 300 + "far right",
        "\u3000全角の空白",
        "\ud800",
        "\ud83d\ude00",  # an emoji in two halves
        "\x0c",
        "\x85 next line",
        "<|endoftext|>",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="a.\n \u0301\u200d👩🇫漢。\ud83d\ude00\r\t#", max_size=200),
    st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\n\n", "\r", " ", ""])), max_size=30)
    .map(lambda pairs: "".join(line + end for line, end in pairs)),
)  # fmt: skip

MONOTONOUS = [
    "x",
    "word ",
    "漢字",
    "漢字。",
    FAMILY,
    "🇫🇷",
    "\u0301",
    "\ud800",
    "\ud83d\ude00",
    " ",
    "\n",
    "a\r\n",
    "a\r",
    "\t",
    ".",
    "!\"'",
    ". ",
    "@x\n",
    "# x\n",
    "#",
    "x\n\n",
    "=\n",
    "x\n=\n",
    "```\n",
    "`",
    "> ",
    ">",
    "- ",
    "- x\n",
    " - x\n",
    "|a",
    "|-|\n",
    "<",
    "<!--",
    "<p>\n",
    "---\n",
    "---\nx\n",
    "\n   ",
    "(",
    "{",
    "'",
    "if x {\n",
    "class A:\n ",
    "// c\n",
    "/*",
    "*/\n",
    "0",
]


def check(text: str, config: ChunkingConfig, chunks: list[Chunk]) -> None:
    """The promises of every strategy that need no other library."""
    covered = lines = counted = 0
    for index, chunk in enumerate(chunks):
        assert chunk.index == index
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text.strip()
        assert not chunk.text[-1].isspace()
        assert chunk.text.partition("\n")[0].strip()
        lines += text.count("\n", counted, chunk.start)
        counted = chunk.start
        assert chunk.first_line == lines + 1
        assert chunk.last_line == lines + 1 + chunk.text.count("\n")
        assert not text[covered : chunk.start].strip()
        assert chunk.end > covered
        covered = chunk.end
    assert not text[covered:].strip()
    for chunk, following in pairwise(chunks):
        assert chunk.start < following.start
        assert following.start >= chunk.end or config.overlap > 0
    for chunk, later in zip(chunks, chunks[2:], strict=False):
        assert later.start >= chunk.end
    if config.measure == "characters":
        assert all(len(chunk.text) <= config.most for chunk in chunks)
        for chunk, following in pairwise(chunks):
            assert chunk.end - following.start <= config.overlap


def checked(text: str, config: ChunkingConfig) -> list[Chunk]:
    chunks = chunk_document(text, config)
    check(text, config, chunks)
    return chunks
