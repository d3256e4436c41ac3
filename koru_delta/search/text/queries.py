"""What a text query asks for: words, "phrases", prefix*, +must, -not.

The syntax never gets in the way of a plain question. A `+` or `-` counts only at the
start of a token and before a letter or a quote (`-draft`, `+"release notes"`), so
`well-known`, `--flag`, `-5`, `+1` and a lone dash are just text; a quote counts only where a token
starts and another closes it, a star only at the end of a word. Whatever else stands there
parts words. There are no brackets and no AND, OR, NOT. Where even `-draft` must not
exclude, ask with `syntax=False`: then all of it is words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from koru_delta.errors import QueryError
from koru_delta.search.text.analysis import Analyzer, Word

Occur = Literal["should", "must", "not"]

MAX_TERMS = 1024  # distinct ones in a query

_START = re.compile(r"\S")
_END = re.compile(r"\s|\Z")
_STAR = re.compile(r"([^\W_](?:[^\s*]*\w)?)\*[.,;:!?)\]]*")
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»"}


class Clause(NamedTuple):
    """Words in a row: one for a word or a prefix, several for a phrase; only the last is a prefix.

    In scores it counts like one term: as often as the row occurs in a document.
    """

    words: tuple[Word, ...]
    occur: Occur = "should"
    weight: int = 1  # how often the query says it

    @property
    def label(self) -> str:
        """The clause as one would write it: `rain`, `rai*` or `"rain or shine"`."""
        text = " ".join(word.term for word in self.words)
        text = f'"{text}"' if len(self.words) > 1 else text
        return f"{text}*" if self.words[-1].prefix else text


@dataclass(frozen=True, slots=True)
class TextQuery:
    """Distinct clauses in the order they were first said.

    A document answers if it has every `must` and no `not`, and, where nothing must be,
    at least one `should`. So a query of exclusions alone finds nothing.
    """

    clauses: tuple[Clause, ...]

    def of(self, occur: Occur) -> tuple[Clause, ...]:
        """The clauses that occur so."""
        return tuple(clause for clause in self.clauses if clause.occur == occur)

    @property
    def scored(self) -> tuple[Clause, ...]:
        """The clauses that earn a score."""
        return tuple(clause for clause in self.clauses if clause.occur != "not")


def parse_query(text: str, analyzer: Analyzer | None = None, *, syntax: bool = True) -> TextQuery:
    """Read a query; no text is malformed, and one without any letter or digit finds nothing.

    A word that the analyzer takes apart is looked for in parts (`foo_bar`: either word);
    with an operator, as a phrase (`+foo_bar`: both, in a row).

    Args:
        analyzer: The one whose terms the postings hold.
        syntax: False takes the text literally, as a question and nothing else.

    Raises:
        QueryError: no string, or more than `MAX_TERMS` distinct terms.

    >>> query = parse_query('is rain +"in Spain" -draft plain*?')
    >>> [(clause.label, clause.occur) for clause in query.clauses]
    [('is', 'should'), ('rain', 'should'), ('"in spain"', 'must'), ('draft', 'not'), \
('plain*', 'should')]
    """
    if not isinstance(text, str):
        raise QueryError(f"a text query is a string, not {type(text).__name__}")
    analyzer = Analyzer() if analyzer is None else analyzer
    clauses: dict[tuple[tuple[Word, ...], bool], Clause] = {}
    terms = 0
    for words, occur in _parts(text, analyzer) if syntax else _plain(text, analyzer):
        if not words:
            continue
        place = (words, occur == "not")
        known = clauses.get(place)
        if known is None:
            terms += len(words)
            if terms > MAX_TERMS:
                raise QueryError(
                    f"the query has more than {MAX_TERMS:,} distinct terms; ask with the words "
                    "that matter, or search by vector for texts like this one"
                )
            clauses[place] = Clause(words, occur)
        else:
            occur = "must" if occur == "must" else known.occur
            clauses[place] = Clause(words, occur, known.weight + 1)
    return TextQuery(tuple(clauses.values()))


def is_bounded(text: str) -> bool:
    """Whether a query says that something must be there, or must not."""
    return any(part.occur != "should" for part in _operated(text))


def meaning(text: str) -> str:
    """A query as one would say it: without operators, and without what it excludes.

    >>> meaning('is rain +"in Spain" -draft well-known plain*?')
    'is rain in Spain well-known plain'
    """
    kept: list[str] = []
    end = 0
    for part in _operated(text):
        kept.append(text[end : part.start])
        if part.occur != "not":
            kept.append(part.text)
        end = part.stop
    kept.append(text[end:])
    return " ".join("".join(kept).split())


_Part = tuple[tuple[Word, ...], Occur]


def _plain(text: str, analyzer: Analyzer) -> Iterator[_Part]:
    for word in analyzer.words(text):
        yield (word,), "should"


class _Operated(NamedTuple):
    """A part of a query that an operator, quotes or a star are about."""

    start: int
    stop: int
    occur: Occur
    text: str  # what they are about
    prefix: bool


def _parts(text: str, analyzer: Analyzer) -> Iterator[_Part]:
    plain_from = 0  # what stands from here on is analysed together
    for part in _operated(text):
        yield from _plain(text[plain_from : part.start], analyzer)
        yield analyzer.phrase(part.text, prefix=part.prefix), part.occur
        plain_from = part.stop
    yield from _plain(text[plain_from:], analyzer)


def _operated(text: str) -> Iterator[_Operated]:
    position, size = 0, len(text)
    last = {closing: text.rfind(closing) for closing in _QUOTES.values()}
    while match := _START.search(text, position):
        start = match.start()
        operated = text[start] in "+-" and start + 1 < size
        begin = start + operated
        occur: Occur = "should"
        if operated:
            occur = "must" if text[start] == "+" else "not"
        closing = _QUOTES.get(text[begin])
        if closing is not None and begin < last[closing]:
            end = text.index(closing, begin + 1)
            yield _Operated(start, end + 1, occur, text[begin + 1 : end], prefix=False)
            position = end + 1
            continue
        position = _token_end(text, begin)
        operated = operated and text[begin].isalpha()
        star = _STAR.fullmatch(text, begin, position)
        if star is not None:
            occur = occur if operated else "should"
            yield _Operated(start, position, occur, star[1], prefix=True)
        elif operated:
            yield _Operated(start, position, occur, text[begin:position], prefix=False)


def _token_end(text: str, start: int) -> int:
    end = _END.search(text, start)
    assert end is not None  # the end of the text is one
    return end.start()
