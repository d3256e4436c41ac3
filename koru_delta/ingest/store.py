"""What ingest needs of a database, and the embedder it asks it for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from koru_delta.causal import Version
from koru_delta.embedders import Embedder, TextEmbedder, as_embedder
from koru_delta.errors import EmbedderError
from koru_delta.transaction import Transaction
from koru_delta.values import Value, Vector

EmbedderChoice = Embedder | Literal["own"] | None


class Store(Protocol):
    """What ingest needs of a `Database`."""

    @property
    def directory(self) -> Path | None:
        """As `Database.directory`."""
        ...

    def transaction(
        self, *, author: str | None = ..., message: str | None = ..., run: str | None = ...
    ) -> Transaction:
        """As `Database.transaction`."""
        ...

    def get(
        self,
        namespace: str,
        key: str,
        default: Value = ...,
        *,
        as_of: Any = ...,
        valid_at: datetime | str | None = ...,
    ) -> Value:
        """As `Database.get`."""
        ...

    def get_many(
        self,
        namespace: str,
        keys: Sequence[str],
        *,
        as_of: Any = ...,
        valid_at: datetime | str | None = ...,
    ) -> dict[str, Value]:
        """As `Database.get_many`."""
        ...

    def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = ...,
        limit: int | None = ...,
        as_of: Any = ...,
        valid_at: datetime | str | None = ...,
    ) -> list[str]:
        """As `Database.list_keys`."""
        ...

    def history(
        self, namespace: str, key: str, *, reverse: bool = ..., limit: int | None = ...
    ) -> list[Version]:
        """As `Database.history`."""
        ...

    def vectors(self, version: Version | str) -> dict[str, Vector]:
        """As `Database.vectors`."""
        ...

    def ancestors(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = ...,
        max_hops: int | None = ...,
    ) -> list[Version]:
        """As `Database.ancestors`."""
        ...

    def quarantines(self) -> Sequence[Any]:
        """As `Database.quarantines`."""
        ...


def chosen_embedder(db: Store, embedder: EmbedderChoice) -> TextEmbedder | None:
    """The embedder a run uses; None for text alone.

    Raises:
        EmbedderError: the store's own was asked for, and it has none.
    """
    if embedder is None:
        return None
    if embedder != "own":
        return as_embedder(embedder)
    own = getattr(db, "embedder", None)  # not every store has one
    if own is None:
        raise EmbedderError(
            "ingest was told of no embedder; pass embedder= (koru_delta.embedders.local() needs "
            "no network), or embedder=None to ingest text without vectors"
        )
    return as_embedder(own)
