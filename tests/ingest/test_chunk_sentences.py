from __future__ import annotations

import pytest

from koru_delta.ingest.chunking import ChunkingConfig
from tests.ingest.texts import checked


def sentences(text: str) -> list[str]:
    """One sentence a chunk: none of the pairs that could be together would fit."""
    return [chunk.text for chunk in checked(text, ChunkingConfig("sentence", size=60))]


FILL = "Here are some words that fill what is left of this chunk."  # 57 characters


@pytest.mark.parametrize(
    "sentence",
    [
        "He met Dr. Smith, Mrs. Jones and Prof. Li in St. Louis.",
        "Take fruit, e.g. pears, i.e. what grows, cf. Fig. 3 above.",
        "It is 3.14 or 2.71828 at v1.2.3 of example.com today.",
        "The U.S. Army and the U.K. Government met at noon today.",
        "J. R. R. Tolkien and C. S. Lewis were friends in Oxford.",
        "She waited... and waited… until nobody came any more.",
        "“Why?” he asked, and “How!” she said to all of the rest.",
        "No. 5 of vol. 2, pp. 10 to 12, is approx. the right one.",
        "Er kam z.B. mit Hrn. Meier bzw. Fr. Müller und Bd. drei.",
        "It cost $4.50 etc. and more, Acme Inc. said in a letter.",
        "1. The first of the items is this and there is no other.",
    ],
)
def test_a_dot_that_ends_no_sentence_is_not_cut_at(sentence):
    assert sentences(f"{sentence} {FILL}") == [sentence, FILL]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("This is a plain sentence of no great length at all.", FILL),
        ("Is this a question of some length, or is it perhaps not?", FILL),
        ("He said so, and then he said: “I will not go there.”", FILL),
        ("(There are brackets around this sentence, all of it.)", FILL),
        (
            "They came to see us from far away at about 5 p.m.",
            "The end came when no one of us expected it, too.",
        ),
        ("What a surprise it was to see them, of all people?!", FILL),
        (
            "We waited for them here until the morning...",
            "Then nobody came, and we left as we were told to.",
        ),
        (
            "all of this text is in small letters, as in a chat.",
            "and it has sentences nevertheless, as you can see.",
        ),
        (
            "彼は東京に行って、それから大阪に行ったと言った、本当に長い文章である。",
            "「そうですか、それは知りませんでした、教えてくれてありがとう。」",
        ),
        (
            "यह एक लंबा वाक्य है जिसमें बहुत सारे शब्द हैं।",
            "यह दूसरा वाक्य है और यह भी लंबा है बहुत।",
        ),
        (
            "هل هذه جملة طويلة تحتوي على كلمات كثيرة جدا؟",
            "نعم هذه جملة طويلة تحتوي على كلمات كثيرة.",
        ),
        (
            "There is no dot after this line that is a heading",
            "\n\nThe text below it is a sentence of its own, though.",
        ),
    ],
)
def test_sentences_are_kept_whole(first, second):
    joint = "" if first[-1] in "。" or second[0] == "\n" else " "

    assert sentences(first + joint + second) == [first, second.strip()]


def test_as_many_whole_sentences_as_fit_are_put_together():
    text = " ".join(f"Sentence {n}." for n in range(10, 40))

    chunks = checked(text, ChunkingConfig("sentence", size=50))

    assert {chunk.text.count(".") for chunk in chunks} == {3}


def test_a_short_sentence_is_cut_off_rather_than_a_long_one_in_two():
    text = f"Yes. {'A long one goes on and on ' * 3}to its end."

    chunks = checked(text, ChunkingConfig("sentence", size=92))

    assert [chunk.text[:6] for chunk in chunks] == ["Yes.", "A long"]


def test_a_sentence_that_is_too_long_is_cut_between_words():
    chunks = checked("lorem ipsum " * 100, ChunkingConfig("sentence", size=100))

    assert {word for chunk in chunks for word in chunk.text.split()} == {"lorem", "ipsum"}
