"""What tools are called with.

The descriptions are what a model is told, so they are part of the behaviour.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

Kind = Literal["episode", "fact", "procedure", "outcome"]
Type = Literal["episode", "fact", "procedure"]

TYPES: Final[tuple[str, ...]] = get_args(Type)

_LONGEST: Final = 20_000  # characters of a memory: more is no memory but a document
ZONE: Final = "ISO 8601 with a time zone, such as 2026-03-02T09:00:00Z"

# What each kind of memory needs, and what else it takes.
_COMMON: Final = ("text", "tags", "session", "source", "because", "ttl_seconds")
_FIELDS: Final[dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "episode": (("text",), (*_COMMON, "valid_from")),
    "fact": (("name", "value"), (*_COMMON, "valid_from", "valid_to")),
    "procedure": (("name", "steps"), _COMMON),
    "outcome": (("name", "success"), ("text",)),
}


def _listed(given: object) -> object:
    """A list that was written as JSON in a string, or one word where a list is wanted."""
    if not isinstance(given, str):
        return given
    try:
        parsed = json.loads(given)
    except ValueError:
        return [given]
    return parsed if isinstance(parsed, list) else [given]


Words = Annotated[list[str], BeforeValidator(_listed)]


class Arguments(BaseModel):
    """What a tool is called with; a name it does not know is refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: each for name, each in given.items() if each is not None or name == "value"}


class Remember(Arguments):
    """Arguments of `remember`."""

    text: str | None = Field(
        None,
        max_length=_LONGEST,
        description="What to remember, as full sentences that make sense without this "
        "conversation: say who and what, not 'he' or 'it'. An episode needs it. For a fact or "
        "procedure it may say how it reads; for an outcome it is a note.",
    )
    kind: Kind = Field(
        "episode",
        description="'episode': something happened or was said; it never changes. 'fact': "
        "something is true and may change, kept under `name` as `value`; a new value ends the "
        "old one from when it is true. 'procedure': how something is done, under `name` as "
        "`steps`. 'outcome': what came of trying the procedure `name`.",
    )
    name: str | None = Field(
        None,
        description="Names the fact or procedure, short and always the same: 'home-city', "
        "'deploy'. What is remembered under a name again is its next version.",
    )
    value: JsonValue = Field(None, description="What the fact says: any JSON.")
    steps: Words | None = Field(None, description="The steps of the procedure, in order.")
    success: bool | None = Field(
        None, description="Of an outcome: whether the procedure worked this time."
    )
    tags: Words = Field([], description="Words to choose it by later.")
    session: str | None = Field(None, description="The conversation or task it belongs to.")
    source: str | None = Field(None, description="Who or what it comes from: 'Ada', 'wiki'.")
    valid_from: str | None = Field(
        None,
        description="When the fact began to be true, or the episode happened, if that was not "
        f"just now: {ZONE}. May lie long ago. It ends nothing that is known to have begun "
        "later: if it is still true in spite of that (see valid_to of the answer), remember it "
        "once more without valid_from.",
    )
    valid_to: str | None = Field(
        None, description=f"When the fact stopped being true, if that is known: {ZONE}."
    )
    supersede: bool = Field(
        True,
        description="Of a fact. False notes what `source` claims beside what others claim, "
        "without ending it: for things on which sources disagree.",
    )
    because: Words = Field(
        [], description="Ids of the memories that this one was concluded from; `why` tells them."
    )
    ttl_seconds: float | None = Field(
        None, gt=0, description="Forget it by itself after so many seconds."
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        needed, allowed = _FIELDS[self.kind]
        given = {name for name in self.model_fields_set if getattr(self, name) not in (None, [])}
        if self.kind == "fact":
            given |= self.model_fields_set & {"value"}  # whatever it is
        if missing := [name for name in needed if name not in given]:
            raise ValueError(f"kind '{self.kind}' needs {' and '.join(missing)}")
        if extra := sorted(given - {"kind", "supersede", *needed, *allowed}):
            raise ValueError(
                f"kind '{self.kind}' takes no {', '.join(extra)}; leave that out, or choose "
                "another kind"
            )
        return self


class Recall(Arguments):
    """Arguments of `recall`."""

    query: str = Field(
        min_length=1, description="A question or a few words about what is wanted, as they are."
    )
    limit: int = Field(10, ge=1, le=100, description="How many memories at most.")
    types: Annotated[list[Type], BeforeValidator(_listed)] | None = Field(
        None, description="Only memories of these types."
    )
    tags: Words | None = Field(None, description="Only memories that have all of these tags.")
    session: str | None = Field(None, description="Only memories of this conversation or task.")
    valid_at: str | None = Field(
        None,
        description="What was true, or had happened, at that time by what is known today: "
        f"{ZONE}. For what was known at an earlier moment, use as_of.",
    )
    min_relevance: float = Field(
        0.0, ge=0, le=1, description="Leave out what is less relevant than that, from 0 to 1."
    )
    budget_tokens: int | None = Field(
        None, ge=1, description="Only as many memories as fit into so many tokens of text."
    )


class AsOf(Arguments):
    """Arguments of `as_of`."""

    moment: str = Field(
        min_length=1,
        description=f"The moment to go back to: a time in {ZONE}; or the id of a version from "
        "history or why, which means just after it was recorded. Not in the future.",
    )
    fact: str | None = Field(
        None, description="The name of a fact: what was believed of it. Give this or `query`."
    )
    query: str | None = Field(
        None, min_length=1, description="Find what was remembered about this. Or give `fact`."
    )
    valid_at: str | None = Field(
        None,
        description="Of which time, if not of that same moment: what was thought then about "
        f"that time. {ZONE}.",
    )
    limit: int = Field(10, ge=1, le=100, description="How many memories at most.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.fact is None) == (self.query is None):
            raise ValueError("give either fact (a name) or query (words), not both")
        return self


class Forget(Arguments):
    """Arguments of `forget`."""

    ids: Words | None = Field(
        None, description="The memories, by their ids: recall first. Give this or `query`."
    )
    query: str | None = Field(
        None,
        min_length=1,
        description="Forget what recall finds with the words of this query and `min_relevance`; "
        "safer is to recall, look, and give `ids`.",
    )
    mode: Literal["hide", "ttl", "restore"] = Field(
        "hide",
        description="'hide': not recalled from now on. 'ttl': still recalled for ttl_seconds. "
        "'restore': take back that `ids` were forgotten.",
    )
    ttl_seconds: float | None = Field(None, gt=0, description="Of mode 'ttl': how long yet.")
    reason: str | None = Field(None, description="Why; it is kept in the memory's history.")
    min_relevance: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Of a query: the share of its words that a memory must have, from 0 to 1.",
    )
    limit: int = Field(10, ge=1, le=100, description="Of a query: how many memories at most.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (not self.ids) == (self.query is None):
            raise ValueError("give either ids or query, not both")
        if (self.mode == "ttl") != (self.ttl_seconds is not None):
            raise ValueError("mode 'ttl' and ttl_seconds belong together")
        if self.mode == "restore" and not self.ids:
            raise ValueError(
                "mode 'restore' needs ids; the forget that hid them answered with them"
            )
        return self


class Why(Arguments):
    """Arguments of `why`."""

    id: str = Field(min_length=1, description="The memory, by its id.")
    moment: str | None = Field(
        None,
        min_length=1,
        description="Of the memory as it stood at that moment: a time or version, as for as_of.",
    )


class History(Arguments):
    """Arguments of `history`."""

    id: str = Field(min_length=1, description="The memory, by its id.")
