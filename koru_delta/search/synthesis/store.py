"""What synthesis asks of a database: a few of its public reads, for a moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from koru_delta.causal import Version, When
from koru_delta.log.moments import AsOf
from koru_delta.search.answers import Matches
from koru_delta.search.filters import Filter
from koru_delta.search.query import Row
from koru_delta.values import Vector, VectorLike


class Moment(Protocol):
    """A `View`, as far as synthesis uses it."""

    @property
    def seq(self) -> int:
        """The last position of the log it sees."""
        ...


class Store(Protocol):
    """A `Database`, as far as synthesis uses it."""

    def as_of(self, ref: AsOf) -> Moment:
        """As `Database.as_of`."""
        ...

    def version(
        self, namespace: str, key: str, *, as_of: AsOf = ..., valid_at: When | None = ...
    ) -> Version:
        """As `Database.version`."""
        ...

    def get_version(self, version: Version | str) -> Version:
        """As `Database.get_version`."""
        ...

    def vectors(self, version: Version | str) -> Mapping[str, Vector]:
        """As `Database.vectors`."""
        ...

    def history(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = ...,
        reverse: bool = ...,
        limit: int | None = ...,
    ) -> list[Version]:
        """As `Database.history`."""
        ...

    def changes(self, after: AsOf = ..., *, as_of: AsOf = ...) -> Iterator[Version]:
        """As `Database.changes`."""
        ...

    def ancestors(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = ...,
        max_hops: int | None = ...,
        as_of: AsOf = ...,
    ) -> list[Version]:
        """As `Database.ancestors`."""
        ...

    def descendants(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = ...,
        max_hops: int | None = ...,
        as_of: AsOf = ...,
    ) -> list[Version]:
        """As `Database.descendants`."""
        ...

    def query(
        self,
        namespace: str,
        filter: Filter | None = ...,
        *,
        limit: int | None = ...,
        as_of: AsOf = ...,
        valid_at: When | None = ...,
    ) -> list[Row]:
        """As `Database.query`."""
        ...

    def similar(
        self,
        namespace: str,
        query: VectorLike | str,
        *,
        k: int = ...,
        as_of: AsOf = ...,
        valid_at: When | None = ...,
        model: str | None = ...,
        exact: bool = ...,
    ) -> Matches:
        """As `Database.similar`."""
        ...
