"""What queries ask for, and that plain questions never trip over the syntax."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koru_delta.errors import QueryError
from koru_delta.search.text.analysis import Analyzer
from koru_delta.search.text.queries import MAX_TERMS, parse_query


def said(text: str, *, syntax: bool = True) -> list[str]:
    signs = {"should": "", "must": "+", "not": "-"}
    return [
        signs[clause.occur] + clause.label + f"^{clause.weight}" * (clause.weight > 1)
        for clause in parse_query(text, syntax=syntax).clauses
    ]


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ('rain +spain -draft "by the way"', ["rain", "+spain", "-draft", '"by the way"']),
        ('+"Release Notes" -"old one" “curly quotes”',
         ['+"release notes"', '-"old one"', '"curly quotes"']),
        ("pre* +must* -not* foo_ba*?", ["pre*", "+must*", "-not*", '"foo ba"*']),
        ("-well-known +foo_bar +v3.12", ['-"well known"', '+"foo bar"', '+"v3 v3.12"']),
        ("the cat and the dog the", ["the^3", "cat", "and", "dog"]),
        ("rain +rain", ["+rain^2"]),
        ("rain -rain", ["rain", "-rain"]),
        ("東京都 +東京都 東", ["東京", "京都", '+"東京 京都"', "東*"]),
    ],
)  # fmt: skip
def test_the_syntax_is_read(text, clauses):
    assert said(text) == clauses


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("What's a well-known rule?", ["what", "a", "well", "known", "rule"]),
        ("a - b -- c --flag", ["a", "b", "c", "flag"]),
        ("C++ *args **kw a*b * +", ["c", "args", "kw", "a", "b"]),
        ("below -5 or +1 (-x)", ["below", "5", "or", "1", "x"]),
        ('5" by 6" screens', ["5", "by", "6", "screens"]),
        ('say "hello', ["say", "hello"]),
        ('"" "?"', []),
        ("http://a.b/-c?d=+e", ["http", "a", "b", "c", "d", "e"]),
        ("rock 'n' roll's", ["rock", "n", "roll"]),
        ("", []),
        (" \n\t", []),
        ("- + \" * '", []),
        ("+", []),
        ("-", []),
    ],
)
def test_what_is_no_syntax_is_text(text, clauses):
    assert said(text) == clauses


def test_taken_literally_nothing_is_syntax():
    assert said('-draft +"a b" pre*', syntax=False) == ["draft", "a", "b", "pre"]


@given(st.text() | st.text('+-*"“” ab.東\ud800'))
def test_every_text_is_a_query(text):
    parse_query(text)
    literal = parse_query(text, syntax=False)

    assert not literal.of("must")
    assert not literal.of("not")


@given(st.lists(st.from_regex(r"[a-z]{1,8}('s|-[a-z]{1,4}|\?|,)?", fullmatch=True)))
def test_a_plain_question_means_the_same_with_and_without_syntax(words):
    question = " ".join(words)

    assert parse_query(question) == parse_query(question, syntax=False)


@pytest.mark.parametrize(
    "text",
    ["a ", '"', '"" ', "“ ", "-a ", "+", "a*", "x* ", '"a" ', "*", "_*", ". ", "a", "\ud800"],
)
def test_a_million_characters_are_read(text):
    assert len(parse_query((text * 1_000_000)[:1_000_000]).clauses) <= 2


def test_too_many_distinct_terms_are_refused():
    words = [f"w{n}" for n in range(MAX_TERMS)]

    assert len(parse_query(" ".join(words * 2)).clauses) == MAX_TERMS
    for text in (" ".join([*words, "more"]), '"' + " ".join([*words, "more"]) + '"'):
        with pytest.raises(QueryError, match="more than 1,024 distinct terms"):
            parse_query(text)


def test_words_are_stemmed_and_prefixes_are_not():
    query = parse_query('running "two runners" runnin*', Analyzer("english"))

    assert [clause.label for clause in query.clauses] == ["run", '"two runner"', "runnin*"]
