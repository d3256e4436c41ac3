"""The shape of a version's record, checked where records come from outside.

Loaded only by an import: the rest of the log makes its records itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from koru_delta.causal import FIRST_TIME, LAST_TIME, CauseKind, Metric
from koru_delta.values import MAX_DIMENSIONS

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Moment = Annotated[int, Field(ge=FIRST_TIME, le=LAST_TIME)]  # microseconds since 1970
Model = Annotated[str, Field(min_length=1, max_length=255)]


class VectorRecord(BaseModel):
    """A vector as a record names it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: Id
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)]
    metric: Metric


class VersionRecord(BaseModel):
    """The record of FORMAT.md, with the rules that need nothing but itself."""

    model_config = ConfigDict(strict=True, extra="forbid")

    op: Literal["put", "delete", "hide", "unhide", "erase"]
    namespace: str
    key: str
    time: Annotated[int, Field(ge=1, le=LAST_TIME)]
    clock: dict[str, Annotated[int, Field(ge=1)]]
    distinction: Id | None = None
    target: Id | None = None
    targets: Annotated[list[Id], Field(min_length=1)] | None = None
    previous: Id | None = None
    parents: list[Id] = []
    # JSON has no tuples, and strict mode takes a list for none.
    causes: list[Annotated[tuple[CauseKind, Id], Field(strict=False)]] = []
    valid_from: Moment | None = None
    valid_to: Moment | None = None
    expires_at: Moment | None = None
    vectors: dict[Model, VectorRecord] = {}
    author: str | None = None
    message: str | None = None
    run: str | None = None

    @model_validator(mode="after")
    def _agrees(self) -> VersionRecord:
        starts = self.time if self.valid_from is None else self.valid_from
        if self.valid_to is not None and self.valid_to <= starts:
            raise ValueError("valid_to is not later than valid_from")
        if self.expires_at is not None and self.expires_at <= self.time:
            raise ValueError("it expires before it was written")
        if (self.op == "put") != (self.distinction is not None):
            raise ValueError("a put has a distinction, and nothing else has one")
        if self.op != "put" and (self.vectors or self.expires_at is not None):
            raise ValueError(f"a {self.op} carries no vectors and does not expire")
        annotates = self.op in ("hide", "unhide")
        if annotates != (self.target is not None):
            raise ValueError("a hide or unhide has a target, and nothing else has one")
        if (self.op == "erase") != (self.targets is not None):
            raise ValueError("an erase has targets, and nothing else has them")
        if (annotates or self.op == "erase") and (
            self.valid_from is not None or self.valid_to is not None
        ):
            raise ValueError(f"a {self.op} has no valid times")
        return self
