"""What a text is cut into."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    r"""A piece of a text: `text` is what stands at characters `start` to `end`, half-open.

    `index` counts from 0, lines from 1; both lines are inclusive. Only `\n` ends
    a line. A chunk never starts or ends with a blank line.

    Attributes:
        headings: The headings it stands under, outermost first, its own included
            (markdown); of several sections in one chunk, those they share.
        name: The definition it is or lies in, with those around it: `Stack.push` (code);
            of several, the one that fills at least half, else the one around them all.
        kind: What `name` is: `class`, `function`, `method`, ...
        tokens: How many tokens `text` is, where sizes are in tokens.
    """

    text: str
    start: int
    end: int
    index: int
    first_line: int
    last_line: int
    headings: tuple[str, ...] = ()
    name: str | None = None
    kind: str | None = None
    tokens: int | None = None
