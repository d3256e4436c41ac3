"""Cut a text into chunks whose borders depend only on what stands near them.

An edit changes the chunks it touches and leaves the others byte for byte as
they were, so the next revision stores and embeds little more than what is new.

A chunk ends at a natural boundary: a heading, a top-level definition, a blank
line. It ends there once it holds `min_chars` and the boundary is a strong one
or the hash of the line after it says so; where `max_chars` forces a cut, the
least indented line (then the lowest hash) in the second half of the window
wins. Both rules see only nearby text, so two revisions that part in one place
agree again a few boundaries later. This is content-defined chunking (Muthitacharoen,
Chen & Mazieres, SOSP 2001) with natural boundaries as its only candidates.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

from koru_delta.errors import InvalidDataError
from koru_delta.ingest.chunking.chunk import Chunk

_DEFINITION = r"(?:(?:async )?def \w+\s*[(\[]|class \w+\s*[(:\[])"

# Where a chunk may end: blank lines, and definitions or headings without one.
# Decorators are counted so that a run of them cannot be scanned again and again.
_BREAK = re.compile(
    r"\n(?:\s*\n|(?=(?:@[^\n]{0,200}\n){0,8}" + _DEFINITION + r"|#{1,6} \S))",
)

# A heading, whole: `# Title`, or a line under- or overlined with punctuation.
_HEADING = re.compile(
    r"#{1,6} [^\n]*"
    r"|([=\-~^\"'`*+#_.:])\1{2,}[ \t\r]*\n[^\n]{1,200}\n\1{3,}[ \t\r]*(?=\n|\Z)"
    r"|(?=\S)[^\n]{1,200}\n([=\-~^\"'`*+#_.:])\2{2,}[ \t\r]*(?=\n|\Z)"
)

# What else starts something new when it follows a blank line.
_OPENING = re.compile(
    _DEFINITION + r"|@\w"
    r"|(?:export |pub |public |static |abstract |final |default )*"
    r"(?:func|fn|function|impl|struct|enum|interface|trait|type|mod|module|namespace) [\w<(]"
    r"|([=\-~*_])\1{3,}[ \t\r]*(?=\n|\Z)"
)

_NON_BLANK = re.compile(r"\S")
_LINE = re.compile(r"\n(?=[^\n])")
_SENTENCE = re.compile(r"[.!?][\"')\]]*\s+|[\u3002\uff01\uff1f]")  # also CJK full stops
_SPACE = re.compile(r"\s+")

_LOOK = 64  # characters of the following line that decide


class _Break(NamedTuple):
    position: int  # start of the line after the boundary
    before: int  # end of the line before it
    cuts: bool  # True: end the chunk here if it is long enough
    rank: tuple[int, int]  # lowest wins when a cut is forced


def chunk_text(text: str, *, max_chars: int = 1200, min_chars: int = 200) -> list[Chunk]:
    r"""Cut `text` into chunks, in order, at natural boundaries.

    Every character that is not white space is in exactly one chunk; blank lines
    between chunks are in none. A chunk may be shorter than `min_chars` only where
    the text ends.

    Args:
        max_chars: No chunk is longer, in characters. Longer lines are cut at the
            end of a sentence, else at white space, else anywhere.
        min_chars: A boundary before this many characters is passed over.

    Raises:
        InvalidDataError: not `0 <= min_chars <= max_chars`, or `max_chars` is 0.

    >>> text = "# One\n\nfish\n\n# Two\nfish"
    >>> [(chunk.text, chunk.start, chunk.first_line) for chunk in chunk_text(text, min_chars=1)]
    [('# One\n\nfish', 0, 1), ('# Two\nfish', 13, 5)]
    """
    if max_chars < 1 or not 0 <= min_chars <= max_chars:
        raise InvalidDataError(
            f"chunks of {min_chars} to {max_chars} characters cannot be made; "
            "choose 0 <= min_chars <= max_chars and max_chars >= 1"
        )
    chunks: list[Chunk] = []
    end = len(text.rstrip())
    breaks = _breaks(text, end)
    next_break, counted_to, line = 0, 0, 1
    start = start_after(text, 0, max_chars)
    while start < end:
        while next_break < len(breaks) and breaks[next_break].position <= start:
            next_break += 1
        cut = _cut(text, start, end, breaks, next_break, max_chars, max(min_chars, 1))
        body = text[start:cut].rstrip()
        line += text.count("\n", counted_to, start)
        last_line = line + body.count("\n")
        chunks.append(Chunk(body, start, start + len(body), len(chunks), line, last_line))
        counted_to = start
        start = start_after(text, cut, max_chars)
    return chunks


def _breaks(text: str, end: int) -> list[_Break]:
    found: list[_Break] = []
    heading_end = -1
    if (heading := _HEADING.match(text, start_after(text, 0, len(text)))) is not None:
        heading_end = heading.end()
    previous = 0
    for match in _BREAK.finditer(text, 0, end):
        before, position = match.start(), match.end()
        if before <= heading_end:
            # A heading stays with what it heads, and is one thing itself.
            if position > heading_end and (again := _HEADING.match(text, position)) is not None:
                heading_end = again.end()
            continue
        strong = position == before + 1
        if strong:
            above = text[text.rfind("\n", previous, before) + 1 or previous]
            if above in "@#":  # a decorator or comment stays with its definition
                continue
        if (heading := _HEADING.match(text, position)) is not None:
            heading_end = heading.end()
            strong = True
        strong = strong or _OPENING.match(text, position) is not None
        rank = _rank(text, position)
        found.append(_Break(position, before, strong or rank[1] & 1 == 0, rank))
        previous = position
    return found


def _cut(
    text: str,
    start: int,
    end: int,
    breaks: list[_Break],
    next_break: int,
    max_chars: int,
    min_chars: int,
) -> int:
    """Where the chunk that begins at `start` stops: in `start + 1 .. start + max_chars`.

    A boundary's position may lie further on, past blank lines that are not kept.
    """
    limit = start + max_chars
    half = max(min_chars, max_chars // 2)
    fallback: _Break | None = None
    inside: list[_Break] = []
    for index in range(next_break, len(breaks)):
        candidate = breaks[index]
        if candidate.before > limit:
            break
        size = candidate.before - start
        if size < min_chars:
            continue
        if candidate.cuts:
            return candidate.position
        if size >= half:
            inside.append(candidate)
        else:
            fallback = candidate
    if end <= limit:
        return end
    if inside:
        return min(inside, key=lambda candidate: candidate.rank).position
    if fallback is not None:
        return fallback.position
    return _cut_inside(text, start, limit, start + half)


def _cut_inside(text: str, start: int, limit: int, low: int) -> int:
    """Cut where there is no natural boundary: at a line, a sentence, a space, or anywhere."""
    low = max(low, start + 1)
    lines = [match.end() for match in _LINE.finditer(text, low - 1, limit)]
    if lines:
        return min(lines, key=lambda position: _rank(text, position))
    for pattern, since in ((_SENTENCE, low), (_SPACE, limit - (limit - low) // 4)):
        ends: Iterable[int] = (match.end() for match in pattern.finditer(text, since, limit))
        best = min(ends, key=lambda position: _hash(text, position), default=None)
        if best is not None:
            return best
    # The greatest eight characters of the window: as local a choice as a hash, and cheap.
    window = text[low:limit]
    cut = limit
    if window:
        greatest = re.finditer(re.escape(max(window)), window)
        starts = (low + match.start() for match in greatest)
        cut = max(starts, key=lambda position: text[position : position + 8])
    for _ in range(32):  # as far as one emoji may go
        if cut <= low or not _joins(text[cut - 1], text[cut]):
            break
        cut -= 1
    return cut


def _joins(left: str, right: str) -> bool:
    """Whether a reader sees the two as one character (near enough, not all of UAX 29)."""
    return (
        left == "\u200d"
        or right in "\u200d\u20e3"
        or "\ufe00" <= right <= "\ufe0f"
        or "\U0001f3fb" <= right <= "\U0001f3ff"
        or unicodedata.combining(right) != 0
    )


def start_after(text: str, cut: int, max_chars: int) -> int:
    """Skip white space from `cut`, but keep the indentation of the line that follows."""
    match = _NON_BLANK.search(text, cut)
    if match is None:
        return len(text)
    position = match.start()
    line_start = text.rfind("\n", cut, position) + 1
    if line_start == 0:
        line_start = cut if cut == 0 or text[cut - 1] == "\n" else position
    return line_start if position - line_start < max(1, max_chars // 4) else position


def _rank(text: str, position: int) -> tuple[int, int]:
    line = text[position : position + _LOOK]
    return len(line) - len(line.lstrip(" \t")), _crc(line)


def _hash(text: str, position: int) -> int:
    return _crc(text[position : position + 16])


def _crc(line: str) -> int:
    # Not hash(): that differs from one process to the next.
    return crc32(line.partition("\n")[0].rstrip().encode("utf-8", "surrogatepass"))
