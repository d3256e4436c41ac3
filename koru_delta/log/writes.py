"""Intended writes, as the log takes them: one commit is a list of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from koru_delta.causal import DELETE, Version
from koru_delta.values import DistinctionId

RETENTION: Final = "$retention"  # where policies are, and what was erased by them
ANY: Final = "any"  # `if_match` left out: write whatever stands there
EXPECT: Final = -1  # an operation that writes nothing, and lets a batch be refused


class NewVector(NamedTuple):
    """A vector to be carried by a version; `metric` None means what the space has."""

    model: str
    metric: str | None
    id: DistinctionId
    data: bytes  # little-endian float32

    @property
    def dimensions(self) -> int:
        """How many numbers it has."""
        return len(self.data) // 4


@dataclass(slots=True, eq=False)
class Write:
    """One intended entry. A put with no `body` keeps the value that stands there.

    `fallback` is the value where nothing stands. A hide or unhide is about `target`, or where
    that is None about the version that stands there; an erase is about `targets`, or with
    `every` about all puts of its key; one filed in `$retention` is about puts of the namespace
    that is its key. With `missing_ok`, what there is nothing to delete of, or
    is hidden (unhidden, erased) already, is left out. One that expects writes nothing: the
    batch is refused where `key` holds nothing; with `since`, where a key that begins with `key`
    was written after that place.
    """

    operation: int
    namespace: str
    key: str
    body: bytes | None = None
    fallback: bytes | None = None
    vectors: Sequence[NewVector] = ()
    carried: dict[str, Any] | None = None  # vectors of an earlier version, put back as they were
    if_match: str | None = ANY
    causes: Sequence[tuple[str, str | Pending]] = ()
    parents: Sequence[str] = ()
    valid_from: int | None = None
    valid_to: int | None = None
    ttl: int | None = None
    author: str | None = None
    message: str | None = None
    run: str | None = None
    missing_ok: bool = False
    made: Pending | None = None
    target: str | Pending | None = None
    targets: Sequence[str] = ()
    every: bool = False
    expires_at: int | None = None  # in place of `ttl`, where the end is known
    if_last: str | None = ANY  # the last entry of the key, which must be this one (None: none)
    since: int | None = None

    @property
    def annotates(self) -> bool:
        """Whether this says something of a version and leaves the key as it stands."""
        return self.operation > DELETE

    def like(
        self,
        key: str,
        body: bytes | None,
        fallback: bytes | None,
        vectors: Sequence[NewVector],
    ) -> Write:
        """The same for another key and content."""
        return Write(
            self.operation, self.namespace, key, body, fallback, vectors, self.carried,
            self.if_match, self.causes, self.parents, self.valid_from, self.valid_to, self.ttl,
            self.author, self.message, self.run, self.missing_ok, expires_at=self.expires_at,
            if_last=self.if_last,
        )  # fmt: skip


class Pending:
    """A write that has no id yet; a later write of the same commit may name it as a cause.

    `version` is the version it became, once the commit has happened.
    """

    __slots__ = ("version",)

    def __init__(self) -> None:
        self.version: Version | None = None
