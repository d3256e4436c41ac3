"""Where a text may be cut: paragraphs, lines, sentences, words, and what a reader sees as one.

Nothing here looks further than the window it is given, so cutting a whole text takes time in
proportion to its length, whatever it holds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

# Closing quotes and brackets belong to the sentence they end.
_CLOSING: Final = "\"'\u201d\u2019\u00bb)\\]}\u300d\u300f\uff09\u3011\u300b\u3009\uff3d"
_MARK: Final = r"[.!?\u2026\u203c\u2047-\u2049]"
# Full stops that need no space: CJK, Arabic, Devanagari, Armenian, Ethiopic, Khmer, Burmese.
_STOP: Final = r"\u3002\uff01\uff1f\uff61\u0964\u0965\u061f\u06d4\u0589\u1362\u17d4\u104b\uff0e"
# Begins with one class of characters, which is found quickly. A run is tried once, where it begins.
_ENDING: Final = re.compile(
    rf"[.!?\u2026\u203c\u2047-\u2049\n{_STOP}](?:"
    rf"(?<=\n)(?=[^\S\n]*\n)"
    rf"|(?<={_MARK})(?<!{_MARK}{_MARK})(?P<more>{_MARK}*+)(?P<closing>[{_CLOSING}*_]*+)(?=\s|\Z)"
    rf"|(?<=[{_STOP}])(?!(?<=\uff0e)\d)[\u3002\uff01\uff1f!?]*+[{_CLOSING}]*+)"
)
_NEXT: Final = re.compile(r"\s*[\"'\u201c\u2018\u00ab(\[{\u300c*_]*")
_BEFORE: Final = 16  # characters that are looked at for an abbreviation


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Never the end of a sentence.
_ABBREVIATIONS: Final = _words(
    "mr mrs ms mx dr prof rev hon gen col capt lt sgt cmdr gov sen rep pres messrs mme mlle st "
    "ste mt ft vs v cf e.g eg i.e ie viz fig figs eq eqs sec secs ch chap nos nr vol vols pp p "
    "ed eds tr trans approx resp ca c al incl excl max min avg dept univ assn bros "
    "jan feb mar apr jun jul aug sep sept oct nov dec tue tues thu thur thurs fri "
    "z.b d.h u.a bzw ggf hr fr str abs bspw inkl sog vgl sr.a sra ud uds "
    "b.v n.v s.a r.i.p ave blvd rd hwy op cit ibid a.k.a aka w.r.t wrt ph.d phd b.a m.a m.sc b.sc"
)
# May end a sentence, and do when the next word begins one; before a number `no` never does.
_PERHAPS: Final = _words(
    "etc inc ltd co corp llc plc jr sr esq u.s u.k u.n e.u u.s.a u.s.s.r d.c a.m p.m a.d b.c "
    "b.c.e c.e usw"
)
_BEGINNERS: Final = _words(
    "the a an this that these those it its he she they we you i in on at to for from by with as "
    "if when while after before since because although though however but and or so yet then "
    "there here what who why how where which our their his her my your no not some many most all "
    "each every both one two another such also thus hence meanwhile moreover"
)
_VOWEL: Final = re.compile(r"[aeiouy]")
_WORD: Final = re.compile(r"\w+")

_RUN: Final = 64  # characters that are looked at for the beginning of a cluster


def sentence_ends(text: str, start: int, stop: int) -> Iterator[int]:
    r"""Where sentences of `text[start:stop]` end, in order: after the mark and closing quotes.

    A blank line ends one too. Not an end: the dot of an abbreviation (`e.g.`, `Dr.`, `U.S. Army`),
    of an initial (`J. Smith`), of a number (`3.14`, `1. First`); a mark inside a quotation that
    goes on (`"Why?" he asked`); an ellipsis in mid-sentence.

    >>> text = 'Dr. No paid 3.14 dollars. "Why?" he asked. No answer...'
    >>> [text[:end].split()[-1] for end in sentence_ends(text, 0, len(text))]
    ['dollars.', 'asked.', 'answer...']
    """
    for match in _ENDING.finditer(text, start, stop):
        if match["more"] is None or _ends(text, match):
            yield match.end()


def _ends(text: str, match: re.Match[str]) -> bool:
    following = _NEXT.match(text, match.end(), match.end() + 200)
    after = following.end() if following is not None else match.end()
    if after >= len(text):
        return True
    goes_on = text[after].islower()
    position = match.start()
    mark, more = text[position], match["more"]
    if goes_on and (match["closing"] or mark == "\u2026" or (mark == "." and more == "..")):
        return False
    if mark != "." or more:
        return True
    before = text[max(0, position - _BEFORE) : position]
    pieces = before.split()
    if not pieces or before[-1].isspace():
        return True
    word = pieces[-1].lstrip("\"'([{\u201c\u2018\u00ab*_")
    lowered = word.lower()
    if lowered in _ABBREVIATIONS and (len(word) > 1 or word == lowered):
        return False
    if lowered == "no" and text[after].isdigit():
        return False
    if word.isdigit() and not before[: -len(pieces[-1])].rpartition("\n")[2].strip():
        # A number alone at the beginning of its line counts items. (Further back than is
        # looked at here, no line began.)
        return len(before) == _BEFORE and "\n" not in before
    if lowered in _PERHAPS or (len(word) == 1 and word.isupper()):
        next_word = _WORD.match(text, after)
        return next_word is not None and (
            next_word[0][0].isupper() and next_word[0].lower() in _BEGINNERS
        )
    # `Bd. drei`: what cannot be spoken is an abbreviation.
    return not (goes_on and word.isascii() and word.isalpha() and _VOWEL.search(lowered) is None)


def cut_recursive(text: str, start: int, low: int, limit: int) -> int:
    """The best place to end a chunk in `low..limit`: the text before it is the chunk.

    A paragraph's end, else a line's, a sentence's (these two in the upper half), a word's; else
    a place where no character that a reader sees as one is torn, if it is near.
    """
    cut = text.rfind("\n\n", low, limit + 2)
    if cut < 0:
        cut = text.rfind("\n\r\n", low, limit + 3)
    if cut < 0:
        half = (low + limit) // 2
        cut = text.rfind("\n", half, limit + 1)
        if cut < 0:
            # One more character is shown than may be taken: it tells whether a word goes on.
            for end in sentence_ends(text, half, min(limit + 1, len(text))):
                if end <= limit:
                    cut = end
    return cut if cut > start else cut_words(text, start, low, limit)


def cut_words(text: str, start: int, low: int, limit: int) -> int:
    """The end of the last word in `low..limit`, else the last place that tears no character."""
    for marks in ((" ", "\n", "\t", "\u3000"), ("\u3002", "\uff0c", "\u3001", ",", ";")):
        cut = max(text.rfind(mark, low, limit + 1) for mark in marks)
        if marks[0] != " ":
            cut = cut + 1 if start <= cut < limit else -1
        if cut > start:
            return cut
    return cut_characters(text, start, low, limit)


def cut_characters(text: str, start: int, low: int, limit: int) -> int:
    """The last place in `low..limit` inside no cluster, if near; never inside a surrogate pair."""
    if limit >= len(text):
        return len(text)
    for cut in range(limit, max(low, limit - _RUN, start), -1):
        if not tears(text, start, cut):
            return cut
    pair = "\ud800" <= text[limit - 1] <= "\udbff" and "\udc00" <= text[limit] <= "\udfff"
    return limit - 1 if pair and limit - 1 > start else limit


def tears(text: str, start: int, cut: int) -> bool:
    """Whether a reader sees the characters on both sides of `cut` as one.

    Source: the rules of UAX 29 for extended grapheme clusters; in doubt, True.

    Args:
        start: Where to begin counting flags: a place that tears none, before `cut`.
    """
    left, right = text[cut - 1], text[cut]
    if left == "\u200d":
        return True
    if right < "\u0300":
        return (left == "\r" and right == "\n") or (left > "\u05ff" and _prepends(left))
    if unicodedata.category(right) in ("Mn", "Me", "Mc"):
        return True
    if (
        right in "\u200c\u200d\uff9e\uff9f\u0e33\u0eb3"
        or "\U0001f3fb" <= right <= "\U0001f3ff"
        or "\U000e0020" <= right <= "\U000e007f"
    ):
        return True
    if "\udc00" <= right <= "\udfff":
        return "\ud800" <= left <= "\udbff"
    if "\U0001f1e6" <= right <= "\U0001f1ff":
        flags = cut
        while flags > start and "\U0001f1e6" <= text[flags - 1] <= "\U0001f1ff":
            flags -= 1
        return (cut - flags) % 2 == 1
    if _hangul(right) and _hangul(left):
        return not ("\uac00" <= left <= "\ud7a3" and "\uac00" <= right <= "\ud7a3")
    return _prepends(left) or _links(text, start, cut)


def _prepends(left: str) -> bool:
    return (
        "\u0600" <= left <= "\u0605"
        or left in "\u06dd\u070f\u0890\u0891\u08e2\u0d4e"
        or left in "\U000110bd\U000110cd\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a"
        or "\U00011a84" <= left <= "\U00011a89"
        or left in "\U00011d46\U00011f02\U000113d1"
    )


def _hangul(character: str) -> bool:
    return (
        "\u1100" <= character <= "\u11ff"
        or "\ua960" <= character <= "\ua97c"
        or "\uac00" <= character <= "\ud7fb"
    )


def _links(text: str, start: int, cut: int) -> bool:
    """Whether a virama before `cut` joins the consonant after it to the one before."""
    for position in range(cut - 1, max(start, cut - 8), -1):
        if unicodedata.combining(text[position]) == 9:
            return True
        if unicodedata.category(text[position]) != "Mn" and text[position] != "\u200d":
            return False
    return False


def overlap_start(text: str, low: int, end: int) -> int:
    """Where the next chunk may begin so as to repeat the text from there to `end`.

    The first sentence or line in the lower half of `low..end`, else the first word, else a
    place that tears no character; `end` where there is none.
    """
    middle = (low + end) // 2
    line = text.find("\n", low - 1, middle)
    if line >= 0:
        return _skip_blank(text, line + 1, end)
    for sentence in sentence_ends(text, low - 1, middle + 1):
        if sentence <= middle:
            return _skip_blank(text, sentence, end)
    word = _BLANK.search(text, low - 1, end)
    if word is not None:
        return _skip_blank(text, word.end(), end)
    for begin in range(low, min(end, low + _RUN)):
        if not tears(text, max(0, low - _RUN), begin):
            return begin
    return end


_BLANK: Final = re.compile(r"\s")
_NON_BLANK: Final = re.compile(r"\S")


def _skip_blank(text: str, position: int, end: int) -> int:
    match = _NON_BLANK.search(text, position, end)
    return end if match is None else match.start()
