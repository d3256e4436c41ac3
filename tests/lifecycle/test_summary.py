"""A summary is sentences of the texts: those that say most of what all say, none of it twice."""

from __future__ import annotations

import re

import pytest

from koru_delta.lifecycle.summary import extract

TEXTS = [
    "The pump failed at night. Nobody was there.",
    "The pump was repaired. The pump failed at night.",
    "Rain fell. Ok.",
    "Ok.",
    "Ok.",
    "Ok.",
    "Ok.",
    "The pump failed again, at noon. Who repaired the pump?",
]


def told(texts: list[str], most: int) -> list[str]:
    return extract(
        texts, most, sentences=lambda text: re.split(r"(?<=[.?]) ", text),
        terms=lambda text: re.findall(r"[a-z]+", text.lower()),
    ).split("\n")  # fmt: skip


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1, ["The pump was repaired."]),
        (2, ["The pump failed at night.", "The pump was repaired."]),
        (9, [
            "The pump failed at night.", "Nobody was there.", "The pump was repaired.",
            "Rain fell.", "Ok.", "The pump failed again, at noon.", "Who repaired the pump?",
        ]),
    ],
)  # fmt: skip
def test_the_sentences_that_say_most_come_in_their_order(most: int, expected: list[str]) -> None:
    assert told(TEXTS, most) == expected


def test_what_has_no_words_is_left_out_unless_there_is_nothing_else() -> None:
    assert told(["...", "Rain fell.", "42?"], 5) == ["Rain fell."]
    assert told(["...", "42?", "..."], 5) == ["...", "42?"]
    assert told(["...", "42?"], 1) == ["..."]


def test_a_sentence_is_one_line_that_somebody_may_read() -> None:
    assert told(["Rain\n\tfell  here."], 1) == ["Rain fell here."]
    [line] = told(["rain " * 200], 1)
    assert line == "rain " * 78 + "rain…"
    [line] = told(["r" * 1_000], 1)
    assert line == "r" * 399 + "…"
