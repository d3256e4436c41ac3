"""The outline of a Markdown text: its sections, and the blocks that should stay whole.

Only what decides about headings and blocks is read, line by line: ATX and setext headings,
fenced and indented code, HTML, lists, quotations, front matter (CommonMark 0.31, 4 and 5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from koru_delta.ingest.chunking.sections import Section

_FRONT: Final = re.compile(
    r"\ufeff?(?:---[ \t]*\r?\n(?:.*\n)*?(?:---|\.\.\.)|\+\+\+[ \t]*\r?\n(?:.*\n)*?\+\+\+)"
    r"[ \t]*\r?(?:\n|\Z)"
)
_ATX: Final = re.compile(r"(#{1,6})(?:[ \t]+|$)")
_CLOSING_MARKS: Final = re.compile(r"(?:^|[ \t])#+$")
_ITEM: Final = re.compile(r"(?:[-+*]|\d{1,9}[.)])(?:([ \t]+)(?=\S)|[ \t]*$)")
_RULE: Final = re.compile(r"([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_FENCE: Final = re.compile(r"(`{3,})[^`]*$|(~{3,})")
# HTML whose end is its own: what opens it, and what then closes it.
_HTML: Final = (
    (
        re.compile(r"<(?:pre|script|style|textarea)(?:[\s>]|$)", re.I),
        ("</pre>", "</script>", "</style>", "</textarea>"),
    ),
    (re.compile(r"<!--"), ("-->",)),
    (re.compile(r"<\?"), ("?>",)),
    (re.compile(r"<!\[CDATA\["), ("]]>",)),
    (re.compile(r"<![A-Za-z]"), (">",)),
)
_TAGS: Final = (
    "address article aside base basefont blockquote body caption center col colgroup dd details "
    "dialog dir div dl dt fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 "
    "head header hr html iframe legend li link main menu menuitem nav noframes ol optgroup option "
    "p param search section summary table tbody td tfoot th thead title tr track ul"
)
_BLOCK_TAG: Final = re.compile(rf"</?(?:{_TAGS.replace(' ', '|')})(?:\s|/?>|$)", re.I)
_ANY_TAG: Final = re.compile(
    r"<(?:/|(?!(?:pre|script|style|textarea)\b))[A-Za-z][^<>]*>[ \t]*$", re.I
)
_DELIMITERS: Final = re.compile(r"[|:\- \t]+$")
_DEEPEST: Final = 16  # quotations and lists begun on one line
_LONGEST_TITLE: Final = 200  # characters


@dataclass(slots=True)
class Outline:
    """Sections by heading; where blocks begin; where their parts (items, fences) do."""

    sections: list[Section] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)


def outline(text: str) -> Outline:
    """Find what stands where. The sections follow each other without a gap."""
    headings, found = _Scan(text).run()
    stack: list[tuple[int, str]] = []
    path: tuple[str, ...] = ()
    start = 0
    for position, level, title in headings:
        if position > start:
            found.sections.append(Section(start, position, path))
        while stack and stack[-1][0] >= level:
            stack.pop()
        stack.append((level, title))
        path, start = tuple(name for _, name in stack), position
    found.sections.append(Section(start, len(text), path))
    return found


class _Scan:
    """Reads the lines once; what was read decides what the next line is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found = Outline()
        self._headings: list[tuple[int, int, str]] = []
        self._paragraph: list[str] | None = None  # lines of one that may become a heading
        self._paragraph_start = 0
        self._fence = ""  # what closes it
        self._fence_outside = True  # of any list
        self._html: tuple[str, ...] | None = None  # what ends it; () is a blank line
        self._content: int | None = None  # columns that a line in the open list is indented by
        self._quoted = False
        self._table = False
        self._blank = True  # the last line was
        self._text_open = False  # the last line of a list or quotation was running text

    def run(self) -> tuple[list[tuple[int, int, str]], Outline]:
        position = 0
        front = _FRONT.match(self._text)
        if front is not None and front.end() < len(self._text):
            position = front.end()
            self._found.blocks.append(position)
        for line in self._text[position:].split("\n"):
            self._read(line, position)
            position += len(line) + 1
        return self._headings, self._found

    def _read(self, line: str, position: int) -> None:
        bare = line.strip(" \t\r")
        if not bare:
            self._blank_line()
            return
        head = line[: len(line) - len(line.lstrip(" \t"))]
        indent = len(head.expandtabs(4)) if "\t" in head else len(head)
        first = bare[0]
        inside = self._content is not None and indent >= self._content
        if self._fence and (inside or self._content is None or self._fence_outside):
            run = self._fence
            if bare.startswith(run) and not bare.strip(run[0]):
                self._fence = ""
                self._paragraph = None
                self._blank = False
            return
        self._fence = ""
        if self._html is not None:
            if self._html and any(mark in bare.lower() for mark in self._html):
                self._html = None
            self._blank = False
            return
        if inside:
            self._in_list(bare, position, indent)
            return
        self._top(bare, first, indent, position)

    def _blank_line(self) -> None:
        if self._fence:
            return
        if self._html == ():
            self._html = None
        if self._html is None:
            self._paragraph = None
            self._quoted = self._table = False
            self._blank = True

    def _in_list(self, bare: str, position: int, indent: int) -> None:
        """A line of the open list: nothing in it heads a section."""
        content = self._content or 0
        item = _ITEM.match(bare)
        if item is not None:
            self._found.parts.append(position)
        elif self._open_fence(bare, outside=False, indent=indent - content):
            self._text_open = False
        else:
            deep = indent - content > 3 and (self._blank or not self._text_open)
            self._text_open = not deep and _runs(bare)
        if item is not None:
            rest = bare[item.end() :]
            self._text_open = _runs(rest)
            if self._open_fence(rest, outside=False, indent=0):
                self._text_open = False
        self._blank = False

    def _top(self, bare: str, first: str, indent: int, position: int) -> None:
        was_blank, self._blank = self._blank, False
        open_list = self._content is not None
        lazy = not was_blank and (open_list or self._quoted) and self._text_open
        if indent > 3:
            if self._paragraph is not None:
                self._paragraph.append(bare)
            elif not lazy:
                if was_blank or open_list or self._quoted:
                    self._found.blocks.append(position)
                self._content = None
                self._quoted = self._table = False
            return
        if first == "#" and (mark := _ATX.match(bare)) is not None:
            title = _CLOSING_MARKS.sub("", bare[mark.end() :].rstrip()).strip()
            self._heading(position, len(mark[1]), title)
            return
        if self._paragraph is not None and first in "=-" and not bare.strip(first):
            title = " ".join(self._paragraph)
            self._heading(self._paragraph_start, 1 if first == "=" else 2, title)
            return
        if self._open_fence(bare, outside=True, indent=indent):
            self._start(position)
            return
        if first in "-*_" and _RULE.match(bare) is not None:
            self._start(position)
            return
        item = _ITEM.match(bare)
        if item is not None and (
            self._paragraph is None or (item[1] is not None and not _numbered_late(bare))
        ):
            if open_list:
                self._found.parts.append(position)
            else:
                self._start(position)
            space = len(item[1].expandtabs(4)) if item[1] else 1
            marker = len(bare[: item.end()].rstrip(" \t"))
            self._content = indent + marker + (space if space <= 4 else 1)
            self._paragraph = None
            self._quoted = False
            rest = bare[item.end() :]
            self._text_open = space <= 4 and _runs(rest)
            if space <= 4 and self._open_fence(rest, outside=False, indent=0):
                self._text_open = False
            return
        if first == ">":
            if not self._quoted:
                self._start(position)
            self._quoted = True
            self._text_open = _runs(bare[1:].strip())
            return
        if first == "<" and self._html_begins(bare, running=lazy or self._paragraph is not None):
            self._start(position)
            return
        if lazy or (self._table and not was_blank):
            return
        if self._paragraph is not None:
            self._paragraph.append(bare)
            if (
                len(self._paragraph) >= 2
                and "|" in bare
                and _DELIMITERS.match(bare) is not None
                and _cells(bare) == _cells(self._paragraph[-2])
            ):
                self._table, self._paragraph = True, None
            return
        self._start(position)
        self._paragraph = [bare]
        self._paragraph_start = position

    def _start(self, position: int) -> None:
        """A block begins that is in no list."""
        self._found.blocks.append(position)
        self._content = None
        self._paragraph = None
        self._quoted = self._table = False

    def _heading(self, position: int, level: int, title: str) -> None:
        self._headings.append((position, level, title[:_LONGEST_TITLE]))
        self._content = None
        self._paragraph = None
        self._quoted = self._table = False

    def _open_fence(self, bare: str, *, outside: bool, indent: int) -> bool:
        if bare[:1] not in ("`", "~") or indent > 3:
            return False
        mark = _FENCE.match(bare)
        if mark is None:
            return False
        self._fence = mark[1] or mark[2]
        self._fence_outside = outside
        if outside:
            self._content = None
        return True

    def _html_begins(self, bare: str, *, running: bool) -> bool:
        for opens, closes in _HTML:
            mark = opens.match(bare)
            if mark is not None:
                rest = bare.lower() if closes[0] == "</pre>" else bare
                if not any(close in rest[mark.end() - 1 :] for close in closes):
                    self._html = tuple(closes)
                return True
        if _BLOCK_TAG.match(bare) is not None or (not running and _ANY_TAG.match(bare) is not None):
            self._html = ()
            return True
        return False


def _runs(bare: str) -> bool:
    """Whether a line's text is a paragraph's, so that the next line may go on with it."""
    for _ in range(_DEEPEST):
        item = _ITEM.match(bare)
        if item is None and bare[:1] != ">":
            break
        bare = bare[1 if item is None else item.end() :].strip()
    return bool(bare) and not (
        (bare[0] == "#" and _ATX.match(bare) is not None)
        or (bare[0] in "-*_" and _RULE.match(bare) is not None)
        or (bare[0] in "`~" and _FENCE.match(bare) is not None)
    )


def _cells(bare: str) -> int:
    return bare.strip("|").count("|") - bare.count("\\|")


def _numbered_late(bare: str) -> bool:
    """Whether an ordered item begins with another number than 1: it interrupts no paragraph."""
    return bare[0].isdigit() and re.match(r"0*1[.)]", bare) is None
