"""What tools answer: as JSON, and as a text for whoever reads only that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, JsonValue

from koru_delta import Memory, Version
from koru_delta.surfaces.tools.arguments import Type


class Remembered(BaseModel):
    """A memory in an answer; what it does not have is left out."""

    id: str = Field(description="What names it in forget, why and history.")
    type: Type
    text: str
    name: str | None = Field(default=None, description="Of a fact or procedure.")
    value: JsonValue = Field(
        default=None, description="What a fact says; the steps of a procedure."
    )
    valid_from: str = Field(description="When it began to be true, or happened.")
    valid_to: str | None = Field(default=None, description="When it stopped being true.")
    recorded_at: str
    version: str = Field(description="Names this state of it: a moment for as_of.")
    author: str | None = None
    source: str | None = None
    session: str | None = None
    tags: list[str] | None = None
    expires_at: str | None = Field(default=None, description="From when on it is forgotten.")
    relevance: float | None = Field(default=None, description="To the query, from 0 to 1.")
    successes: int | None = Field(default=None, description="Of a procedure: how often it worked.")
    failures: int | None = None

    @classmethod
    def of(cls, memory: Memory) -> Self:
        """A memory, as JSON has it."""
        tried = memory.outcomes if memory.type == "procedure" else None
        return cls(
            id=memory.id, type=memory.type, text=memory.text, name=memory.name,
            value=memory.value, valid_from=memory.valid_from.isoformat(),
            valid_to=iso(memory.valid_to), recorded_at=memory.time.isoformat(),
            version=memory.version.id, author=memory.version.author, source=memory.source,
            session=memory.session, tags=list(memory.tags) or None,
            expires_at=iso(memory.expires_at),
            relevance=None if memory.relevance is None else round(memory.relevance, 3),
            successes=None if tried is None else tried.successes,
            failures=None if tried is None else tried.failures,
        )  # fmt: skip


class Entry(BaseModel):
    """An entry of the log in an answer."""

    id: str = Field(description="The memory (or other item) it is of.")
    version: str
    operation: str = Field(description="put, delete, hide, unhide or erase.")
    recorded_at: str
    text: str | None = None
    value: JsonValue = None
    source: str | None = None
    author: str | None = None
    message: str | None = None
    valid_from: str | None = None
    valid_to: str | None = None
    expires_at: str | None = None

    @classmethod
    def of(cls, version: Version) -> Self:
        """An entry, as JSON has it."""
        kept: Any = version.value if version.operation == "put" and not version.erasure else None
        said: dict[str, Any] = kept if isinstance(kept, dict) else {"value": kept}
        put = version.operation == "put"
        return cls(
            id=version.key, version=version.id, operation=version.operation,
            recorded_at=version.time.isoformat(), text=said.get("text"), value=said.get("value"),
            source=said.get("source"), author=version.author, message=version.message,
            valid_from=version.valid_from.isoformat() if put else None,
            valid_to=iso(version.valid_to) if put else None, expires_at=iso(version.expires_at),
        )  # fmt: skip


class Answer(BaseModel):
    """What a tool answers."""

    def text(self) -> str:
        """The same for whoever reads only text."""
        raise NotImplementedError


class RememberAnswer(Answer):
    """Answer of `remember`."""

    memory: Remembered
    known_before: bool = Field(
        default=False, description="It was remembered before in the same words; nothing was added."
    )

    def text(self) -> str:
        """What was kept."""
        said = "Known before, so nothing was added" if self.known_before else "Remembered"
        return f"{said}: {_line(self.memory)}"


class RecallAnswer(Answer):
    """Answer of `recall`."""

    memories: list[Remembered] = Field(description="The most relevant first.")

    def text(self) -> str:
        """The memories, one after the other."""
        if not self.memories:
            return "Nothing that is remembered matches. Try other words, or fewer conditions."
        return _numbered(f"{_counted(self.memories)}, the most relevant first:", self.memories)


class AsOfAnswer(Answer):
    """Answer of `as_of`."""

    as_of: str = Field(description="The moment it is about.")
    memories: list[Remembered]

    def text(self) -> str:
        """The memories as they stood."""
        if not self.memories:
            return f"As of {self.as_of}, nothing of that kind was remembered."
        return _numbered(f"As of {self.as_of}, {_counted(self.memories)}:", self.memories)


class ForgetAnswer(Answer):
    """Answer of `forget`."""

    mode: Literal["hide", "ttl", "restore"]
    memories: list[Remembered] = Field(description="What was forgotten, or is remembered again.")
    until: str | None = Field(
        default=None, description="Of mode 'ttl': until when it is still recalled."
    )

    def text(self) -> str:
        """What was done, and how to undo it."""
        if not self.memories:
            return "Nothing was forgotten: nothing matches well enough, or it was forgotten before."
        if self.mode == "restore":
            return _numbered("Remembered again:", self.memories)
        when = "" if self.until is None else f" from {self.until} on"
        return _numbered(
            f"Forgotten{when}; mode 'restore' with the ids takes it back:", self.memories
        )


class WhyAnswer(Answer):
    """Answer of `why`."""

    memory: Remembered
    sources: list[Entry] = Field(description="What it came from, the nearest first.")
    left_out: int = Field(default=0, description="How many more sources there are.")

    def text(self) -> str:
        """Where it comes from."""
        lines = [_line(self.memory), f"Recorded {self.memory.recorded_at}{_by(self.memory)}."]
        if self.sources:
            lines.append("It came from, the nearest first:")
            lines += [f"- {_entry(each)}" for each in self.sources]
        else:
            lines.append("It was not concluded from other memories.")
        return "\n".join([*lines, *_more(self.left_out)])


class Disagreement(BaseModel):
    """Two claims about one fact, of the same time, that differ."""

    memories: list[Remembered]
    valid_from: str
    valid_to: str | None = None


class HistoryAnswer(Answer):
    """Answer of `history`."""

    id: str
    versions: list[Entry] = Field(description="Everything recorded of it, the latest first.")
    left_out: int = Field(default=0, description="How many older ones there are.")
    timeline: list[Remembered] = Field(
        description="Of a fact: what it said when, by what is known today."
    )
    disagreements: list[Disagreement] = Field(
        description="Of a fact: where sources say different things of the same time."
    )

    def text(self) -> str:
        """What happened to it."""
        lines = [
            f"{_flat(self.id)}, the latest first:",
            *(f"- {_entry(each)}" for each in self.versions),
        ]
        lines += _more(self.left_out)
        if self.timeline:
            lines.append("What was true when, by what is known today:")
            lines += [f"- {_line(each)}" for each in self.timeline]
        for each in self.disagreements:
            said = " / ".join(_line(memory) for memory in each.memories)
            lines.append(f"Sources disagree: {said}")
        return "\n".join(lines)


def iso(when: datetime | None) -> str | None:
    """A time as answers write it; None stays None."""
    return None if when is None else when.isoformat()


def _counted(memories: Sequence[Remembered]) -> str:
    return "1 memory" if len(memories) == 1 else f"{len(memories)} memories"


def _numbered(title: str, memories: Sequence[Remembered]) -> str:
    lines = [f"[{number}] {_line(memory)}" for number, memory in enumerate(memories, start=1)]
    return "\n".join([title, *lines])


def _line(memory: Remembered) -> str:
    """A memory in a line; one of several lines cannot pass for another memory."""
    said = [_flat(memory.id)]
    if memory.type == "episode":
        said.append(memory.valid_from)
    elif memory.type == "fact":
        until = "" if memory.valid_to is None else f" until {memory.valid_to}"
        said.append(f"since {memory.valid_from}{until}")
    elif memory.successes or memory.failures:
        worked, failed = memory.successes or 0, memory.failures or 0
        said.append(f"worked {worked} of {worked + failed} times")
    else:
        said.append("never tried")
    found = "" if memory.relevance is None else f", relevance {memory.relevance:.2f}"
    return f"({', '.join(said)}{_by(memory)}{found}) {_inset(memory.text)}"


def _by(memory: Remembered | Entry) -> str:
    by = memory.source or memory.author
    return "" if by is None else f", from {_flat(by)}"


def _entry(entry: Entry) -> str:
    what = entry.text if entry.text is not None else json.dumps(entry.value, ensure_ascii=False)
    said = "" if entry.operation != "put" else f" {_inset(what)}"
    why = "" if entry.message is None else f" [{_inset(entry.message)}]"
    true = (
        "" if entry.valid_from in (None, entry.recorded_at) else f", true from {entry.valid_from}"
    )
    until = "" if entry.valid_to is None else f" until {entry.valid_to}"
    return (
        f"{entry.recorded_at} {entry.operation} ({_flat(entry.id)}{_by(entry)}{true}{until}, "
        f"version {entry.version[:12]}){said}{why}"
    )


def _more(left_out: int) -> list[str]:
    return [f"... and {left_out} more"] if left_out else []


def _flat(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def _inset(text: str) -> str:
    return "\n    ".join(line.strip() for line in text.strip().splitlines())
