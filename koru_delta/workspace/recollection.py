"""What a memory is to whoever recalls it, and how several become part of a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from textwrap import shorten
from typing import Any, Final, Literal, get_args

from koru_delta.causal import FOREVER, Version, moment
from koru_delta.errors import InvalidDataError, MissingExtraError
from koru_delta.search.answers import Match
from koru_delta.search.synthesis.explanation import Explanation
from koru_delta.values import Value, canonical_bytes
from koru_delta.workspace.patterns import Outcomes, Span

MemoryType = Literal["episode", "fact", "procedure"]

TYPES: Final[tuple[str, ...]] = get_args(MemoryType)
_ENCODING: Final = "o200k_base"
_SHOWN: Final = 60  # characters of a text, of a memory in a list of them
_BYTES_PER_TOKEN: Final = 3  # of an estimate: English has more than 4, so it is rather too high


@dataclass(frozen=True, slots=True, repr=False)
class Memory:
    """Something remembered, as it stood at the moment it was asked for.

    `str()` of it is its text and its `citation`.

    Attributes:
        id: Names it: what `forget`, `used` and `get` take.
        type: "episode", "fact" or "procedure".
        text: What is searched, and shown to a model.
        value: Of a fact what it says, of a procedure its steps; None for an episode.
        name: The key of a fact, the name of a procedure; None for an episode.
        tags: As they were given.
        session: The conversation it comes from, if that was said.
        source: Who or what it comes from, if that was said.
        data: Whatever else was given.
        valid_from: When it began to be true, or happened.
        valid_to: When it stopped being true by what was known at that moment; None is never.
        version: The entry of the log: its `time` is when it was recorded, `author` by whom.
        score: Of a recall, by which memories of one recall are in order.
        relevance: Of a recall, in [0, 1] and comparable between recalls: the cosine to the
            question, or the share of the question's words it has (rare ones count more),
            whichever is more.
        outcomes: Of a procedure, what came of trying it.
    """

    id: str
    type: MemoryType
    text: str
    value: Value
    name: str | None
    tags: tuple[str, ...]
    session: str | None
    source: str | None
    data: Mapping[str, Any]
    valid_from: datetime
    valid_to: datetime | None
    version: Version
    score: float | None = None
    relevance: float | None = None
    outcomes: Outcomes | None = None
    match: Match | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        found = "" if self.relevance is None else f", relevance {self.relevance:.2f}"
        said = shorten(self.text, _SHOWN)
        return f"<Memory {self.id!r}: {said!r} ({self.citation}{found})>"

    def __str__(self) -> str:
        return f"{self.text} ({self.citation})"

    def __hash__(self) -> int:
        return hash(self.version.id)

    @property
    def time(self) -> datetime:
        """When it was recorded (UTC)."""
        return self.version.time

    @property
    def expires_at(self) -> datetime | None:
        """From when on it is forgotten by itself; None is never."""
        return self.version.expires_at

    @property
    def explanation(self) -> Explanation | None:
        """Why it was recalled and stands where it stands; None if it was not recalled."""
        return None if self.match is None else self.match.explanation

    @property
    def citation(self) -> str:
        """What it is, since when, and from whom: a line for a prompt."""
        said: list[str] = [self.type]
        if self.type == "episode":
            said.append(_shown(self.valid_from))
        elif self.type == "fact":
            until = "" if self.valid_to is None else f" until {_shown(self.valid_to)}"
            said.append(f"since {_shown(self.valid_from)}{until}")
        elif self.outcomes is not None and self.outcomes.trials:
            said.append(f"worked {self.outcomes.successes} of {self.outcomes.trials} times")
        else:
            said.append("never tried")
        if teller := _teller(self):
            said.append(f"from {' '.join(teller.split())}")  # on one line, whatever it is
        return ", ".join(said)


def check_word(what: str, given: object) -> None:
    """Refuse what is no text, or blank.

    Raises:
        InvalidDataError: it is.
    """
    if not isinstance(given, str) or not given.strip():
        raise InvalidDataError(f"{what} is a text that is not blank, not {given!r}")


def value_of(kind: str, *, text: str = "", tags: object = (), **fields: Any) -> dict[str, Any]:
    """A memory as it is stored: what was not given is left out."""
    check_word("text", text)
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidDataError(f"tags is a list of strings, not {type(tags).__name__}")
    listed = list(dict.fromkeys(tags))
    if not all(isinstance(tag, str) and tag for tag in listed):
        raise InvalidDataError("tags is a list of strings, none of them empty")
    made: dict[str, Any] = {"type": kind, "text": text}
    if listed:
        made["tags"] = listed
    for name, given in fields.items():
        if name in ("session", "source") and given is not None:
            check_word(name, given)
        if name == "data" and given is not None and not isinstance(given, Mapping):
            raise InvalidDataError(f"data is a mapping, not {type(given).__name__}")
        if given is not None or name == "value":
            made[name] = dict(given) if name == "data" else given
    return made


def sentence(name: str, value: Value) -> str:
    """How a fact or procedure reads that was given no text."""
    words = name.replace("_", " ").replace("-", " ")
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return f"{words}: {'; '.join(value)}"
    return f"{words}: {value if isinstance(value, str) else canonical_bytes(value).decode()}"


def is_memory(value: object) -> bool:
    """Whether a value was remembered, and not put beside memories by somebody."""
    return (
        isinstance(value, dict)
        and value.get("type") in TYPES
        and isinstance(value.get("text"), str)
    )


def memory_of(
    version: Version,
    *,
    span: Span | None = None,
    outcomes: Outcomes | None = None,
    match: Match | None = None,
    relevance: float | None = None,
) -> Memory:
    """The memory that a version holds; `span` is where nothing later took over from it.

    Raises:
        InvalidDataError: it holds none.
    """
    value: Any = version.value
    if not is_memory(value):
        raise InvalidDataError(
            f"{version.key!r} in {version.namespace!r} holds no memory; somebody put something "
            "else there"
        )
    valid_to = version.valid_to
    valid_from = version.valid_from
    if span is not None:
        valid_from = moment(span.valid_from)
        valid_to = None if span.valid_to == FOREVER else moment(span.valid_to)
    return Memory(
        version.key, value["type"], value["text"], value.get("value"), value.get("name"),
        tuple(value.get("tags", ())), value.get("session"), value.get("source"),
        value.get("data", {}), valid_from, valid_to, version,
        None if match is None else match.score, relevance, outcomes, match,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class Forgotten:
    """What was forgotten, when, and until when it is still there: `restore` takes it back.

    What had been forgotten before is not in it.
    """

    memories: tuple[Memory, ...]
    mode: Literal["hide", "ttl"]
    time: datetime
    until: datetime | None
    versions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.memories)

    def __repr__(self) -> str:
        return f"<Forgotten {self._counted}: {', '.join(each.id for each in self.memories)}>"

    def __str__(self) -> str:
        listed = [f"{each.id}  {shorten(each.text, _SHOWN)}" for each in self.memories]
        return "\n  ".join([f"forgotten, {self._counted}:", *listed])

    @property
    def _counted(self) -> str:
        number = "1 memory" if len(self) == 1 else f"{len(self):,} memories"
        return f"{number} from {_shown(self.until or self.time)} on"


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two memories that say different things of one fact for the same time."""

    name: str
    memories: tuple[Memory, Memory]
    valid_from: datetime
    valid_to: datetime | None

    def __str__(self) -> str:
        until = "" if self.valid_to is None else f" until {_shown(self.valid_to)}"
        said = [
            f"{each.text} (from {teller})" if (teller := _teller(each)) else each.text
            for each in self.memories
        ]
        return f"{' or '.join(said)}, since {_shown(self.valid_from)}{until}"


@dataclass(frozen=True, slots=True, repr=False)
class Context:
    """Memories as part of a prompt: `str()` of it is the text.

    `[1]` in it is `memories[0]`, and so on. `tokens` is how long it is, `exact` whether
    that was counted by a tokenizer (the extra `tokens`) or is an estimate from its bytes.
    `left_out` is how many more were found, for which the budget was too small.
    """

    text: str
    memories: tuple[Memory, ...]
    tokens: int
    exact: bool
    left_out: int = 0

    def __repr__(self) -> str:
        number = "1 memory" if len(self.memories) == 1 else f"{len(self.memories):,} memories"
        about = "" if self.exact else "about "
        more = f", {self.left_out:,} left out" if self.left_out else ""
        return f"<Context of {number} in {about}{self.tokens:,} tokens{more}>"

    def __str__(self) -> str:
        return self.text


def count_tokens(text: str) -> int:
    """How many tokens a text is (o200k_base), or about: see `counts_exactly`."""
    if not counts_exactly():
        return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)
    from koru_delta.ingest.chunking.tokens import Tokens

    return Tokens(text, _ENCODING).size(0, len(text)) if text else 0


@cache
def counts_exactly() -> bool:
    """Whether tokens are counted by a tokenizer, and not by bytes."""
    from koru_delta.ingest.chunking.tokens import encoding_named

    try:
        encoding_named(_ENCODING)
    except MissingExtraError:
        return False
    return True


def within(memories: Iterable[Memory], budget_tokens: int) -> list[Memory]:
    """The memories whose texts fit into a budget, best first: what does not fit is passed over."""
    kept = []
    for memory in memories:
        tokens = count_tokens(memory.text)
        if tokens <= budget_tokens:
            budget_tokens -= tokens
            kept.append(memory)
    return kept


def context_of(memories: Sequence[Memory], at: datetime, budget_tokens: int) -> Context:
    """A block for a prompt, no longer than a budget; empty where nothing fits."""
    text, kept, left_out = "", list[Memory](), 0
    told: set[tuple[str, str | None, str]] = set()
    for memory in memories:
        words = (memory.type, memory.session, memory.text)
        if words in told:
            continue
        told.add(words)
        before = text or f"What is remembered, as of {_shown(at)}:"
        # A memory of several lines cannot pass for another one.
        lines = "\n    ".join(line.strip() for line in memory.text.strip().splitlines())
        longer = f"{before}\n[{len(kept) + 1}] ({memory.citation}) {lines}"
        if count_tokens(longer) <= budget_tokens:
            text = longer
            kept.append(memory)
        else:
            left_out += 1
    return Context(text, tuple(kept), count_tokens(text), counts_exactly(), left_out)


def _teller(memory: Memory) -> str | None:
    return memory.source or memory.version.author


def _shown(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
