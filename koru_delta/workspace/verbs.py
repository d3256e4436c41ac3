"""What workspaces ask of a database: some of its public verbs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from koru_delta.causal import Version, When
from koru_delta.embedders import Embedder, TextEmbedder
from koru_delta.lifecycle import Lifecycle
from koru_delta.log.moments import AsOf
from koru_delta.log.retention import Erased
from koru_delta.search.answers import Matches
from koru_delta.search.causality import CausalFilter
from koru_delta.search.filters import Filter
from koru_delta.search.query import Row
from koru_delta.search.synthesis.store import Moment as StoreMoment
from koru_delta.search.synthesis.store import Store
from koru_delta.transaction import Transaction
from koru_delta.values import Value


class Moment(StoreMoment, Protocol):
    """A `View`, as far as workspaces use it."""

    @property
    def time(self) -> datetime:
        """The moment of the view (UTC)."""
        ...


class Verbs(Store, Protocol):
    """A `Database`, as far as workspaces use it: what synthesis asks of it, and more."""

    @property
    def embedder(self) -> TextEmbedder | None:
        """What turns text to vectors, or None."""
        ...

    @property
    def lifecycle(self) -> Lifecycle:
        """As `Database.lifecycle`."""
        ...

    def as_of(self, ref: AsOf) -> Moment:
        """As `Database.as_of`."""
        ...

    def transaction(
        self, *, author: str | None = ..., message: str | None = ..., run: str | None = ...
    ) -> Transaction:
        """As `Database.transaction`."""
        ...

    def used(
        self, what: Iterable[Version | tuple[str, str]], *, kind: Literal["used", "recall"] = ...
    ) -> int:
        """As `Database.used`."""
        ...

    def expire(
        self,
        namespace: str,
        key: str,
        *,
        ttl: float | timedelta | None = ...,
        at: When | None = ...,
        author: str | None = ...,
        message: str | None = ...,
    ) -> Version:
        """As `Database.expire`."""
        ...

    def touch(
        self,
        namespace: str,
        key: str,
        *,
        ttl: float | timedelta | None = ...,
        author: str | None = ...,
        message: str | None = ...,
    ) -> Version:
        """As `Database.touch`."""
        ...

    def hide_many(
        self,
        versions: Iterable[Version | str],
        *,
        author: str | None = ...,
        message: str | None = ...,
    ) -> list[Version]:
        """As `Database.hide_many`."""
        ...

    def unhide_many(
        self,
        versions: Iterable[Version | str],
        *,
        author: str | None = ...,
        message: str | None = ...,
    ) -> list[Version]:
        """As `Database.unhide_many`."""
        ...

    def retain(
        self,
        namespace: str,
        *,
        keep: timedelta | None = ...,
        versions: int | None = ...,
        author: str | None = ...,
        message: str | None = ...,
    ) -> Any:
        """As `Database.retain`."""
        ...

    def retentions(self) -> Mapping[str, Any]:
        """As `Database.retentions`."""
        ...

    def configure_text(
        self,
        namespace: str,
        *,
        fields: Sequence[str] | None = ...,
        stemmer: str | None = ...,
        author: str | None = ...,
        message: str | None = ...,
    ) -> Version:
        """As `Database.configure_text`."""
        ...

    def reembed(
        self,
        namespace: str,
        model: str,
        embed_fn: Embedder,
        *,
        author: str | None = ...,
        message: str | None = ...,
    ) -> int:
        """As `Database.reembed`."""
        ...

    def get(
        self,
        namespace: str,
        key: str,
        default: Value = ...,
        *,
        as_of: AsOf = ...,
        valid_at: When | None = ...,
    ) -> Value:
        """As `Database.get`."""
        ...

    def get_raw(
        self, namespace: str, key: str, *, as_of: AsOf = ..., valid_at: When | None = ...
    ) -> bytes:
        """As `Database.get_raw`."""
        ...

    def query(
        self,
        namespace: str,
        filter: Filter | None = ...,
        *,
        sort: str | Sequence[str] | None = ...,
        limit: int | None = ...,
        offset: int = ...,
        select: Sequence[str] | None = ...,
        causal: CausalFilter | None = ...,
        as_of: AsOf = ...,
        valid_at: When | None = ...,
    ) -> list[Row]:
        """As `Database.query`."""
        ...

    def count(
        self,
        namespace: str,
        filter: Filter | None = ...,
        *,
        text: str | None = ...,
        causal: CausalFilter | None = ...,
        as_of: AsOf = ...,
        valid_at: When | None = ...,
    ) -> int:
        """As `Database.count`."""
        ...

    def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = ...,
        after: str | None = ...,
        limit: int | None = ...,
        as_of: AsOf = ...,
        valid_at: When | None = ...,
    ) -> list[str]:
        """As `Database.list_keys`."""
        ...

    def list_namespaces(self, *, as_of: AsOf = ..., valid_at: When | None = ...) -> list[str]:
        """As `Database.list_namespaces`."""
        ...

    def history(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = ...,
        reverse: bool = ...,
        limit: int | None = ...,
        include_annotations: bool = ...,
    ) -> list[Version]:
        """As `Database.history`."""
        ...

    def search(self, namespace: str, text: str, *args: Any, **options: Any) -> Matches:
        """As `Database.search`."""
        ...

    def erase(self, what: Any, *, author: str | None = ..., message: str | None = ...) -> Erased:
        """As `Database.erase`."""
        ...
