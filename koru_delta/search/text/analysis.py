"""What the terms of a text are; a text and a query that agree on them find each other.

Everything that is not a letter, a digit or a mark on one parts terms, in texts and queries
alike: `foo_bar`, `well-known`, `user@example.com` and `don't` give two or three terms each, and
a phrase has them whole. A possessive `'s` is no term. A number with dots also gives
what it begins with, so that `3.12` finds `3.12.1` and not `12.3`: `v1.2.3` is `v1`, `v1.2`,
`v1.2.3` (up to four levels). A symbol such as an emoji is a term of its own.

Scripts written without spaces (Han, kana, Hangul, Thai, Lao, Khmer, Burmese) give pairs of
characters, and a run's last character alone: every character then begins exactly one term,
so that a query of one character is a prefix, and pairs in a row are a substring.

Terms are case-folded in normal form KC: composed and decomposed accents, full-width and
plain letters, ligatures and their letters are the same. Characters nobody sees (soft
hyphens, joiners, variation selectors) do not count. A longer run of letters than 255 is cut there.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import pairwise
from threading import Lock
from typing import NamedTuple, Protocol

from koru_delta.errors import InvalidDataError, MissingExtraError

_FORMAT = 1  # of the rules above; another number, other terms

_LEVELS = r"(?:(?<=\d)\.\d{1,255}){0,3}"
_POSSESSIVE = r"(?:'s\b)?"
_ASCII = re.compile(rf"([a-z0-9]{{1,255}}{_LEVELS}){_POSSESSIVE}", re.ASCII)
_DOTTED = re.compile(r"\d\.\d")

# Scripts without spaces between words, as they are in normal form KC.
_DENSE = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u0edc-\u0edf"  # Thai, Lao
    "\u1000-\u103f\u1050-\u109d\u1780-\u17d3\u17d7\u17dc\u17dd"  # Burmese, Khmer
    "\u1100-\u11ff\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb"  # Hangul
    "\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3041-\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # kana and Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"  # Han
)
_SYMBOLS = "\u2600-\u27bf\U0001f000-\U0001f3fa\U0001f400-\U0001faff"  # without skin tones
_FIRST_DENSE = re.compile(f"[{_DENSE}]")
_UNSEEN = re.compile(
    "[\u00ad\u034f\u200c-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\u20e3\ufe00-\ufe0f\ufeff"
    "\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\U000e0100-\U000e01ef]"
)
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_STACKED = 30  # marks on one letter; ordering more of them takes quadratic time
_REMEMBERED = 1_000_000  # stems


class Word(NamedTuple):
    """What a query looks for: a term, or every term that begins with it."""

    term: str
    prefix: bool = False


class _Stemming(Protocol):
    def stemWord(self, word: str) -> str: ...  # noqa: N802


class Analyzer:
    """Takes texts apart into terms; may be shared between threads.

    `signature` names the rules: where it differs, so may the terms, and postings made with
    another are to be made anew.

    >>> Analyzer().terms("The Café's user_id: v3.12")
    ['the', 'café', 'user', 'id', 'v3', 'v3.12']
    """

    def __init__(self, stemmer: str | None = None) -> None:
        """Stem as the Snowball algorithm of that name does ("english"); None keeps words whole.

        Raises:
            InvalidDataError: there is no algorithm of that name.
            MissingExtraError: stemming needs the extra `text`.
        """
        self.stemmer = stemmer
        self._stems: _Stems | None = None
        self.signature = f"{_FORMAT}:unicode-{unicodedata.unidata_version}"
        if stemmer is not None:
            self._stems = _Stems(stemmer)
            self.signature += f":{stemmer}-{self._stems.version}"

    def terms(self, text: str) -> list[str]:
        """The terms of a text in their order; any string has some or none."""
        pieces = _pieces(text)
        if not text.isascii() or _DOTTED.search(text):
            pieces = [term for piece in pieces for term in _expanded(piece)]
        return pieces if self._stems is None else list(map(self._stems.__getitem__, pieces))

    def words(self, text: str) -> list[Word]:
        """What to look for, each by itself, to find texts about the same."""
        return [word for piece in _pieces(text) for word in self._sought(piece)]

    def phrase(self, text: str, *, prefix: bool = False) -> tuple[Word, ...]:
        """What to look for in a row, to find this text as part of others; empty if nothing.

        Only the last can be a prefix: with `prefix`, or where the text ends in one
        character of a script without spaces. A prefix is not stemmed.
        """
        pieces = _pieces(text)
        if not pieces:
            return ()
        last = pieces.pop()
        before = [Word(self._stem(term)) for piece in pieces for term in _expanded(piece)]
        if not prefix:
            return (*before, *self._sought(last))
        *first, beginning = _expanded(last)
        if first and _is_dense(last):
            beginning = first.pop()
        return (*before, *(Word(self._stem(term)) for term in first), Word(beginning, True))

    def _sought(self, piece: str) -> list[Word]:
        if _is_dense(piece):
            # A run's last character alone would ask that the run end there.
            return [Word(pair) for pair in _pairs(piece)[:-1]] or [Word(piece, True)]
        return [Word(self._stem(term)) for term in _levels(piece)]

    def _stem(self, term: str) -> str:
        return term if self._stems is None else self._stems[term]


class _Stems(dict[str, str]):
    """Stems by term, found when first asked for."""

    def __init__(self, language: str) -> None:
        super().__init__()
        try:
            import Stemmer
        except ImportError as error:
            raise MissingExtraError("stemming", "text") from error
        known = Stemmer.algorithms()
        if language not in known:
            raise InvalidDataError(
                f"there is no stemmer {language!r}; choose one of {', '.join(known)}"
            )
        self.version: str = Stemmer.version()
        self._stemmer: _Stemming = Stemmer.Stemmer(language, 0)
        self._lock = Lock()  # a stemmer serves one thread at a time

    def __missing__(self, term: str) -> str:
        with self._lock:
            stem = self._stemmer.stemWord(term)
        if len(self) >= _REMEMBERED:
            self.clear()
        self[term] = stem
        return stem


def _pieces(text: str) -> list[str]:
    """Words, dotted numbers, runs without spaces and symbols, folded, in their order."""
    if text.isascii():
        return _ASCII.findall(text.lower())
    # Classes with characters beyond the basic plane are several times slower.
    patterns = _patterns(0x20000 if _ASTRAL.search(text) else 0x10000)
    text = _UNSEEN.sub("", text)
    text = patterns.stacked.sub(lambda marks: marks[0][:_STACKED], text)
    for apostrophe in "’ʼ＇":
        text = text.replace(apostrophe, "'")
    text = unicodedata.normalize("NFKC", text).casefold()
    return patterns.piece.findall(unicodedata.normalize("NFKC", text))


def _expanded(piece: str) -> list[str]:
    if piece.isascii():
        return _levels(piece) if "." in piece else [piece]
    return _pairs(piece) if _is_dense(piece) else _levels(piece)


def _pairs(piece: str) -> list[str]:
    return [first + second for first, second in pairwise(piece)] + [piece[-1]]


def _levels(piece: str) -> list[str]:
    if "." not in piece:
        return [piece]
    parts = piece.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def _is_dense(piece: str) -> bool:
    return not piece.isascii() and _FIRST_DENSE.match(piece) is not None


class _Patterns(NamedTuple):
    piece: re.Pattern[str]  # a word or number; or a run without spaces, or a symbol
    stacked: re.Pattern[str]  # more marks in a row than any writing has


@cache
def _patterns(limit: int) -> _Patterns:
    """Patterns for characters below `limit`; `re` knows no marks, so list what there is."""
    letters, marks = [], []
    for code in range(limit):
        character = chr(code)
        if 0xD800 <= code < 0xE000 or _FIRST_DENSE.match(character):
            continue
        if character.isalnum():
            letters.append(code)
        elif unicodedata.category(character)[0] == "M":
            marks.append(code)
    letter, mark = _ranges(letters), _ranges(marks)
    word = f"[{letter}][{letter}{mark}]{{0,254}}{_LEVELS}"
    return _Patterns(
        re.compile(f"({word}|[{_DENSE}]+|[{_SYMBOLS}]){_POSSESSIVE}"),
        re.compile(f"[{mark}]{{{_STACKED + 1},}}"),
    )


def _ranges(codes: list[int]) -> str:
    """Ascending codes as the inside of a character class."""
    found: list[str] = []
    start = previous = codes[0]
    for code in (*codes[1:], -1):
        if code != previous + 1:
            found.append(f"{re.escape(chr(start))}-{re.escape(chr(previous))}")
            start = code
        previous = code
    return "".join(found)
