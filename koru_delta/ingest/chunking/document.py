"""Cut a document as a `ChunkingConfig` says."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from koru_delta.errors import InvalidDataError
from koru_delta.ingest.chunking.borders import (
    cut_recursive,
    cut_words,
    overlap_start,
    sentence_ends,
)
from koru_delta.ingest.chunking.chunk import Chunk
from koru_delta.ingest.chunking.config import ChunkingConfig, checked
from koru_delta.ingest.chunking.content import chunk_text, start_after
from koru_delta.ingest.chunking.rulers import Characters, Ruler
from koru_delta.ingest.chunking.sections import Section, joined

# (text, start, low, limit) -> the end of the chunk that begins at `start`, in `low..limit`,
# or earlier (but after `start`) where that is a better place.
Cutter = Callable[[str, int, int, int], int]


_NON_BLANK: Final = re.compile(r"\S")


class _Piece(NamedTuple):
    start: int
    end: int
    size: int  # in the unit asked for
    section: Section


def chunk_document(text: str, config: ChunkingConfig | None = None) -> list[Chunk]:
    r"""Cut `text` into chunks, in order; see `ChunkingConfig` for the strategies.

    `text[chunk.start:chunk.end] == chunk.text`, always. Every character that is not white
    space is in a chunk, and in one only unless `overlap` was asked for; then only neighbours
    share some. No chunk is longer than `size`: in characters as `len` counts, in tokens as
    encoding `chunk.text` by itself counts. A character that a reader sees as one (an emoji of
    a family, a letter with its accents) is cut only where it is longer than a chunk. The same
    text and settings give the same chunks everywhere, in time proportional to the text.

    Args:
        config: None: paragraphs packed into chunks of up to 1,200 characters.

    Raises:
        InvalidDataError: `text` is not a `str`, or `config` no `ChunkingConfig`.
        MissingExtraError: the strategy or unit needs a package that is not installed; the
            message has the command that installs it.

    >>> guide = "# Guide\n\nBe brief.\n\n## Setup\n\nRun it twice.\n"
    >>> for chunk in chunk_document(guide, ChunkingConfig("markdown", min_size=0)):
    ...     print(chunk.headings, repr(chunk.text))
    ('Guide',) '# Guide\n\nBe brief.'
    ('Guide', 'Setup') '## Setup\n\nRun it twice.'
    """
    config = ChunkingConfig() if config is None else checked(config)
    if not isinstance(text, str):
        raise InvalidDataError(
            f"a text to chunk must be str, not {type(text).__name__}; decode bytes first"
        )
    ruler = _ruler(text, config)
    pieces = [
        piece
        for section, cutter in _sections(text, config, ruler)
        for piece in _fill(text, section, ruler, cutter, config.most, config.overlap)
    ]
    return _numbered(text, pieces, config)


def _ruler(text: str, config: ChunkingConfig) -> Ruler:
    if config.measure == "characters":
        return Characters()
    from koru_delta.ingest.chunking.tokens import Tokens

    return Tokens(text, config.encoding)


def _sections(text: str, config: ChunkingConfig, ruler: Ruler) -> Iterator[tuple[Section, Cutter]]:
    """What to cut one after the other, and how."""
    whole = Section(0, len(text))
    if config.strategy == "markdown":
        from koru_delta.ingest.chunking.markdown import outline

        found = outline(text)
        sections = joined(
            found.sections, ruler, most=config.most, least=config.least, by_size=False
        )
        cutter = _cut_at(found.blocks, _cut_at(found.parts, cut_recursive, patient=False))
        yield from ((section, cutter) for section in sections)
    elif config.strategy == "code":
        from koru_delta.ingest.chunking.code import definitions

        parts = definitions(text, config.language or "", ruler, config.most)
        sections = joined(parts, ruler, most=config.most, least=config.least, by_size=True)
        yield from ((section, cut_recursive) for section in sections)
    elif config.strategy == "content":
        # About three characters a token, so that few chunks of most texts must be cut again.
        per_unit = 1 if config.measure == "characters" else 3
        for chunk in chunk_text(
            text, max_chars=config.most * per_unit, min_chars=config.least * per_unit
        ):
            yield Section(chunk.start, chunk.end), cut_recursive
    elif config.strategy == "sentence":
        yield whole, _cut_at(list(sentence_ends(text, 0, len(text))), cut_recursive)
    elif config.strategy == "token":
        yield whole, _cut_late
    else:
        yield whole, cut_recursive


def _cut_at(places: Sequence[int], otherwise: Cutter, *, patient: bool = True) -> Cutter:
    """Cut at the last of `places` (in order) that is near enough, else as `otherwise` does.

    Args:
        patient: Take a place before `low` rather than cut what lies after it.
    """

    def cut(text: str, start: int, low: int, limit: int) -> int:
        after = bisect_right(places, limit)
        if after < len(places) and _NON_BLANK.search(text, limit, places[after]) is None:
            return limit
        found = after - 1
        if found >= 0 and places[found] > (start if patient else low):
            return places[found]
        return otherwise(text, start, low, limit)

    return cut


def _cut_late(text: str, start: int, low: int, limit: int) -> int:
    return cut_words(text, start, limit - (limit - low) // 4, limit)


def _fill(
    text: str, section: Section, ruler: Ruler, cutter: Cutter, most: int, overlap: int
) -> Iterator[_Piece]:
    """Cut a section into pieces of at most `most`, each as long as its cutter lets it be."""
    stop = section.start + len(text[section.start : section.end].rstrip())
    start = fresh = start_after(text, section.start, most)
    previous = section.start  # the end of the last piece
    while start < stop:
        end, cut, size = _cut(text, start, stop, previous, ruler, cutter, most)
        if end <= previous and start < fresh:
            # What would be repeated leaves no room for anything new.
            start = fresh
            continue
        yield _Piece(start, end, size, section)
        fresh = start_after(text, cut, most)
        begin = fresh
        if overlap and fresh < stop:
            begin = _repeat(text, max(start + 1, previous), end, ruler, overlap, fresh)
        previous, start = end, begin


def _cut(
    text: str, start: int, stop: int, previous: int, ruler: Ruler, cutter: Cutter, most: int
) -> tuple[int, int, int]:
    """Where the piece from `start` ends, where its text was cut, and its size."""
    allowance = most
    while True:
        limit = ruler.limit(start, allowance)
        if limit >= stop:
            cut = stop
        else:
            floor = max(start, previous)
            cut = cutter(text, start, min(limit, floor + max(1, (limit - floor) // 4)), limit)
            if cut <= previous:
                cut = limit
        end = start + len(text[start:cut].rstrip())
        size = ruler.size(start, end)
        if size <= most or limit <= start + 1:
            return end, cut, size
        # The ends of a piece can be more tokens than they were in the whole text.
        allowance = max(1, min(allowance - 1, allowance * most // size))


def _repeat(text: str, low: int, end: int, ruler: Ruler, overlap: int, fresh: int) -> int:
    """Where the piece after one that ends at `end` begins, to repeat at most `overlap`."""
    allowance = overlap
    while allowance > 0:
        begin = overlap_start(text, max(low, ruler.back(end, allowance)), end)
        if begin >= end:
            break
        size = ruler.size(begin, end)
        if size <= overlap:
            return begin
        allowance = min(allowance - 1, allowance * overlap // size)
    return fresh


def _numbered(text: str, pieces: Sequence[_Piece], config: ChunkingConfig) -> list[Chunk]:
    chunks: list[Chunk] = []
    before, last_line = 0, 1  # the end of the chunk before, and the line it is in
    markdown, tokens = config.strategy == "markdown", config.measure == "tokens"
    for index, (start, end, size, section) in enumerate(pieces):
        body = text[start:end]
        if start >= before:
            first_line = last_line + text.count("\n", before, start)
        else:
            first_line = last_line - text.count("\n", start, before)
        before, last_line = end, first_line + body.count("\n")
        chunks.append(
            Chunk(
                body,
                start,
                end,
                index,
                first_line,
                last_line,
                section.path if markdown else (),
                ".".join(section.path) or None if not markdown else None,
                section.kind,
                size if tokens else None,
            )
        )
    return chunks
