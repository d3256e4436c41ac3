from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from koru_delta.ingest.chunking import ChunkingConfig
from tests.ingest.texts import checked

EACH = ChunkingConfig("markdown", min_size=0)
LINES = [
    "# A", "## B two ##", "### C #", "#nope", "####### seven", "#", "Title", "more text.", "=====",
    "---", "-----", "", "", "", "- item", "* other", "  inner", "    deep", "1. one", "2) two",
    "```", "```python", "~~~", "~~~~", "> quote", "> # quoted", "  # indented", "    # code",
    "\t# tab", "- # in an item", "| a | b |", "|---|---|", "| 1 | 2 |", "***", "* * *", "<div>",
    "</div>", "<!-- note", "-->", "<pre>", "</pre>", "<b>x</b>", "   ```", "10. ten", "- ```",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES), max_size=9).map("\n".join))
def test_sections_begin_where_a_markdown_parser_sees_headings(text):
    if text.startswith("---"):
        text = f"\n{text}"
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    lines = [
        token.map[0] + 1
        for token in tokens
        if token.type == "heading_open" and token.level == 0 and token.map is not None
    ]

    chunks = checked(text, EACH)

    starts = [chunk.first_line for chunk in chunks]
    before = [line for line in lines if line <= len(text.split("\n"))]
    assert [line for line in starts if line in before] == before
    assert len(starts) == len(before) + (not before or starts[:1] != before[:1]) * bool(starts)


GUIDE = """\
A preamble.

# Guide

Be brief.

## Setup ##

Run it.

### Linux

With apt.

Usage
-----

Call it.

Reference
=========

All of it.
"""


def test_every_section_is_a_chunk_with_its_headings():
    chunks = checked(GUIDE, EACH)

    assert [(chunk.headings, chunk.text) for chunk in chunks] == [
        ((), "A preamble."),
        (("Guide",), "# Guide\n\nBe brief."),
        (("Guide", "Setup"), "## Setup ##\n\nRun it."),
        (("Guide", "Setup", "Linux"), "### Linux\n\nWith apt."),
        (("Guide", "Usage"), "Usage\n-----\n\nCall it."),
        (("Reference",), "Reference\n=========\n\nAll of it."),
    ]
    assert {(chunk.name, chunk.kind) for chunk in chunks} == {(None, None)}


def test_small_sections_are_put_together_under_what_they_share():
    text = "# Book\n\nIn.\n\n## One\n\n### A\n\na\n\n### B\n\nb\n\n## Two\n\n" + "Long. " * 30

    chunks = checked(text, ChunkingConfig("markdown", size=220, min_size=40))

    assert [(chunk.headings, chunk.text.count("#")) for chunk in chunks] == [
        (("Book",), 9),
        (("Book", "Two"), 2),
    ]


def test_a_long_section_is_cut_between_blocks_and_keeps_its_headings():
    blocks = [f"Paragraph {n} has some words, about sixty letters of them." for n in range(9)]
    text = "# Top\n\n## Long\n\n" + "\n\n".join(blocks)

    chunks = checked(text, ChunkingConfig("markdown", size=200, min_size=0))

    assert [chunk.headings for chunk in chunks] == [("Top",)] + [("Top", "Long")] * 3
    assert all(chunk.text.endswith("them.") for chunk in chunks[1:])


@pytest.mark.parametrize(
    "block",
    [
        "```python\n# not a heading\n\nx = 1\n\n# nor this\n\n" + "y = 2\n" * 20 + "```",
        "~~~\n```\n# no heading\n\n" + "text\n" * 25 + "~~~",
        "| name | value |\n|---|---|\n" + "| a | b |\n" * 14 + "| c | d |",
        "- one\n- two\n\n  more of two\n\n" + "- again\n" * 16 + "- last",
        "1. one\n\n   ```\n   # code\n\n   more\n   ```\n\n" + "2. again\n" * 12 + "3. last",
        "> quoted\n> # in it\n" + "> more\n" * 18 + "> end",
        "<!--\n# hidden\n\n" + "note\n" * 25 + "-->",
        "<pre>\n# shown\n\n" + "as is\n" * 20 + "</pre>",
    ],
    ids=["fence", "tildes", "table", "list", "items", "quotation", "comment", "pre"],
)
def test_a_block_that_fits_is_kept_together(block):
    text = f"# Title\n\nSome words before it that take room.\n\n{block}\n\nSome words after it."

    chunks = checked(text, ChunkingConfig("markdown", size=len(block), min_size=0))

    assert block in [chunk.text for chunk in chunks]
    assert {chunk.headings for chunk in chunks} == {("Title",)}


def test_a_list_that_is_too_long_is_cut_between_items():
    text = "".join(f"- item {n}\n  goes on here\n" for n in range(100))

    chunks = checked(text, ChunkingConfig("markdown", size=200))

    assert all(chunk.text.startswith("- item") for chunk in chunks)


@pytest.mark.parametrize("mark", ["---", "+++"])
def test_front_matter_is_not_read_as_headings(mark):
    text = f"{mark}\ntitle: x\n# a comment\n\ntags: [a]\n{mark}\n# Real\n\ntext\n"

    chunks = checked(text, EACH)

    assert [(chunk.headings, chunk.first_line) for chunk in chunks] == [((), 1), (("Real",), 7)]


def test_lines_may_end_as_on_windows():
    chunks = checked(GUIDE.replace("\n", "\r\n"), EACH)

    assert [chunk.headings for chunk in chunks] == [c.headings for c in checked(GUIDE, EACH)]
