"""A query's terms are the terms of the texts it should find."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koru_delta.errors import InvalidDataError, MissingExtraError
from koru_delta.search.text.analysis import Analyzer, Word

any_text = st.text(st.characters(categories=None)) | st.text(
    "aÅé\u0301\u0323한가ﬁ１.'s_東に🎉ß\ud800 "
)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The Rain, in SPAIN!", ["the", "rain", "in", "spain"]),
        (
            "foo_bar well-known user@example.com",
            ["foo", "bar", "well", "known", "user", "example", "com"],
        ),
        ("Don't use Python's or it’s", ["don", "t", "use", "python", "or", "it"]),
        (
            "PEP-8 v1.2.3, 3.14. 1,000",
            ["pep", "8", "v1", "v1.2", "v1.2.3", "3", "3.14", "1", "000"],
        ),
        ("10.0.0.1.7", ["10", "10.0", "10.0.0", "10.0.0.1", "7"]),
        ("Straße ΣΊΣΥΦΟΣ", ["strasse", "σίσυφοσ"]),
        ("ＦＵＬＬ ﬁne x²", ["full", "fine", "x2"]),
        ("co\u00adop cafe\u0301", ["coop", "café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("東京都に", ["東京", "京都", "都に", "に"]),
        ("中", ["中"]),
        ("Python3で作る", ["python3", "で作", "作る", "る"]),
        ("한국어", ["한국", "국어", "어"]),
        ("I ❤️ 👩‍👧 👍🏽", ["i", "❤", "👩", "👧", "👍"]),
        ("a\ud800b \udfff", ["a", "b"]),
        ("", []),
        (" -- ... __ ' \u0301", []),
    ],
)
def test_texts_are_taken_apart_at_all_that_is_no_letter_or_digit(text, terms):
    assert Analyzer().terms(text) == terms


@given(any_text)
def test_any_string_has_terms_and_all_are_folded(text):
    for term in Analyzer().terms(text):
        assert term
        assert unicodedata.normalize("NFKC", term.casefold()) == term
        assert not any(character.isspace() for character in term)


@given(any_text)
def test_composed_and_decomposed_texts_have_the_same_terms(text):
    analyzer = Analyzer()

    assert analyzer.terms(unicodedata.normalize("NFD", text)) == analyzer.terms(
        unicodedata.normalize("NFC", text)
    )


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_texts_have_the_same_terms_beside_other_ones(text):
    analyzer = Analyzer()

    assert analyzer.terms(text + " é 𝒳𐐀") == [*analyzer.terms(text), "é", "x𐐨"]
    assert analyzer.terms(text + " é") == [*analyzer.terms(text), "é"]


@given(any_text)
def test_what_a_text_is_looked_for_by_stands_in_it(text):
    analyzer = Analyzer()
    terms = analyzer.terms(text)

    def stands(word: Word, term: str) -> bool:
        return term.startswith(word.term) if word.prefix else term == word.term

    assert all(any(stands(word, term) for term in terms) for word in analyzer.words(text))
    phrase = analyzer.phrase(text)
    assert len(phrase) <= len(terms)
    assert all(map(stands, phrase, terms))
    assert not any(word.prefix for word in phrase[:-1])


def test_a_run_of_letters_without_end_is_cut():
    assert [len(term) for term in Analyzer().terms("x" * 600)] == [255, 255, 90]
    assert [len(term) for term in Analyzer().terms("é" * 600)] == [255, 255, 90]


def test_a_letter_with_a_million_marks_is_no_trouble():
    (term,) = Analyzer().terms("a" + "\u0301\u0323" * 500_000)

    assert len(term) < 40


def test_prefixes_stay_as_they_are_written():
    plain, stemming = Analyzer(), Analyzer("english")

    assert plain.phrase("foo_ba", prefix=True) == (Word("foo"), Word("ba", True))
    assert plain.phrase("3.1", prefix=True) == (Word("3"), Word("3.1", True))
    assert plain.phrase("東", prefix=True) == plain.phrase("東") == (Word("東", True),)
    assert stemming.phrase("running runnin", prefix=True) == (Word("run"), Word("runnin", True))
    assert plain.phrase("...", prefix=True) == ()


def test_stems_meet_and_the_signature_says_so():
    stemming = Analyzer("english")

    assert stemming.terms("Generators generated generations") == ["generat", "generat", "generat"]
    assert stemming.words("generating") == [Word("generat")]
    assert stemming.signature.startswith(Analyzer().signature + ":english-")
    assert Analyzer("german").signature != stemming.signature


def test_an_unknown_stemmer_is_refused():
    with pytest.raises(InvalidDataError, match=r"no stemmer 'klingon'; choose one of .*english"):
        Analyzer("klingon")


def test_stemming_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "Stemmer", None)

    with pytest.raises(MissingExtraError, match=r"koru-delta\[text\]"):
        Analyzer("english")
