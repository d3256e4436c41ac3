"""How a text is to be cut: which strategy, how long, measured in what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from koru_delta.errors import InvalidDataError

Strategy = Literal["recursive", "sentence", "markdown", "code", "token", "content"]
Unit = Literal["characters", "tokens"]

ENCODINGS: Final = ("cl100k_base", "o200k_base")
LANGUAGES: Final = (
    "c", "cpp", "csharp", "go", "java", "javascript", "php", "python", "ruby", "rust", "tsx",
    "typescript",
)  # fmt: skip

_USUAL_SIZE: Final[dict[Unit, int]] = {"characters": 1200, "tokens": 300}
_TOKENS_OF_A_CHARACTER: Final = 4  # at most: one for each byte


@dataclass(frozen=True, slots=True)
class ChunkingConfig:
    """How `chunk_document` cuts. Settings that cannot be met are refused when they are made.

    | strategy | cuts | take it for |
    | --- | --- | --- |
    | `recursive` | at the largest of paragraph, line, sentence, word that fits | any text; fast |
    | `sentence` | after whole sentences, as many as fit | prose, question answering |
    | `markdown` | at headings, then between blocks; `headings` tells where | docs, wikis, READMEs |
    | `code` | at definitions, with their comments and decorators; where there are none, at \
lines | source in `language` |
    | `token` | after `size` tokens, at the last word | a model's window filled to the brim |
    | `content` | where the text itself says | what is edited again and again: an edit \
changes the chunks it touches, so few are embedded anew |

    Every strategy keeps `size` exactly, in either unit. `code` needs the extra `code`, tokens
    need the extra `tokens`; nothing is ever downloaded, or done some other way in silence.

    Args:
        strategy: See above.
        size: No chunk is longer, in `unit`. None: 1,200 characters or 300 tokens.
        overlap: At most so much of a chunk's end, in `unit`, begins the next one again: whole
            sentences or words. At most half of `size`. Only pieces of one section
            (markdown) or definition (code) overlap.
        min_size: In `unit`; shorter sections and definitions are put together with their
            neighbours where `size` allows, and `content` passes over earlier boundaries.
            The other strategies have no use for it. None: a sixth of `size`.
        unit: `characters` (of Python: code points) or `tokens`. None: tokens for the
            strategy `token`, else characters.
        encoding: Whose tokens are counted: `cl100k_base` or `o200k_base`.
        language: What `code` reads: c, cpp, csharp, go, java, javascript, php, python, ruby,
            rust, tsx or typescript.

    Raises:
        InvalidDataError: a name is unknown, a number out of its range, or two settings
            contradict each other; the message says what to choose.
    """

    strategy: Strategy = "recursive"
    size: int | None = None
    overlap: int = 0
    min_size: int | None = None
    unit: Unit | None = None
    encoding: str = "cl100k_base"
    language: str | None = None

    def __post_init__(self) -> None:
        _known("strategy", self.strategy, get_args(Strategy))
        if self.unit is not None:
            _known("unit", self.unit, get_args(Unit))
        _known("encoding", self.encoding, ENCODINGS)
        if self.language is not None:
            _known("language", self.language, LANGUAGES)
        if self.strategy == "code" and self.language is None:
            raise InvalidDataError(
                f"strategy 'code' must know the language; choose one of {', '.join(LANGUAGES)}"
            )
        if self.strategy != "code" and self.language is not None:
            raise InvalidDataError(
                f"strategy {self.strategy!r} reads no language; leave it out, or choose "
                "strategy='code'"
            )
        if self.strategy == "token" and self.unit == "characters":
            raise InvalidDataError(
                "strategy 'token' counts tokens; leave unit out, or choose strategy='recursive'"
            )
        least = _TOKENS_OF_A_CHARACTER if self.measure == "tokens" else 1
        _whole("size", self.most, least, None, "one character may take so many tokens")
        _whole("overlap", self.overlap, 0, self.most // 2, "half of size")
        _whole("min_size", self.least, 0, self.most, "size")
        if self.strategy == "content" and self.overlap:
            raise InvalidDataError(
                "chunks of strategy 'content' do not overlap (an edit would change more of "
                "them); choose overlap=0 or strategy='recursive'"
            )

    @property
    def measure(self) -> Unit:
        """`unit`, or what stands for None."""
        if self.unit is not None:
            return self.unit
        return "tokens" if self.strategy == "token" else "characters"

    @property
    def most(self) -> int:
        """`size`, or what stands for None."""
        return _USUAL_SIZE[self.measure] if self.size is None else self.size

    @property
    def least(self) -> int:
        """`min_size`, or what stands for None."""
        return self.most // 6 if self.min_size is None else self.min_size


def checked(given: object) -> ChunkingConfig:
    """What was given, if it is a `ChunkingConfig`.

    Raises:
        InvalidDataError: it is not; the message shows how to write one.
    """
    if isinstance(given, ChunkingConfig):
        return given
    name = given if isinstance(given, str) and given in get_args(Strategy) else "recursive"
    language = ', language="python"' if name == "code" else ""
    shown = repr(given) if isinstance(given, str) else type(given).__name__
    raise InvalidDataError(
        f'how to cut is told by a ChunkingConfig, not {shown}; write ChunkingConfig("{name}"'
        f"{language}), from koru_delta"
    )


def _known(what: str, given: object, names: tuple[str, ...]) -> None:
    if not isinstance(given, str) or given not in names:
        raise InvalidDataError(f"no {what} {given!r}; choose one of {', '.join(names)}")


def _whole(what: str, given: object, low: int, high: int | None, why: str) -> None:
    fits = isinstance(given, int) and not isinstance(given, bool) and low <= given
    if not fits or (high is not None and isinstance(given, int) and given > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {high} ({why})"
        if high is None and low > 1:
            limits += f" ({why})"
        raise InvalidDataError(f"{what}={given!r} cannot be; choose a whole number {limits}")
