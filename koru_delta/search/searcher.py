"""A search whose settings are chosen once, for whoever asks the same way again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import signature
from typing import Any, Protocol

from koru_delta.errors import QueryError
from koru_delta.search.answers import Matches


class Searches(Protocol):
    """What a searcher needs of a `Database`, or of a `View` of one."""

    @property
    def search(self) -> Callable[..., Matches]:
        """As `Database.search`."""
        ...


class HybridSearcher:
    """Searches one namespace with settings of its own.

    `HybridSearcher(db, "docs", weights={"text": 2}, half_life=86400)` asks as `Database.search`
    does with these; what a call says itself comes first. Nothing is kept between calls:
    every one sees what is there then, or what its `as_of` saw.

    Args:
        db: An open `Database`, or a `View` for one moment.
        settings: Of `Database.search`, by name: `mode`, `k`, `weights`, `fusion`, `mmr`,
            `half_life`, `filter`, `causal`, `group_by`, `threshold`, `model`, `exact`, ...

    Raises:
        QueryError: a search has no setting of that name.
    """

    def __init__(self, db: Searches, namespace: str, **settings: Any) -> None:
        self._db = db
        self._check(settings)
        self.namespace = namespace
        self.settings = settings

    def __repr__(self) -> str:
        said = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"HybridSearcher({self._db!r}, {self.namespace!r}{said})"

    def search(self, text: str, **settings: Any) -> Matches:
        """What `Database.search` finds with the searcher's settings and these.

        Raises:
            QueryError: a setting that a search does not have, or those of `Database.search`.
        """
        self._check(settings)
        return self._db.search(self.namespace, text, **{**self.settings, **settings})

    async def asearch(self, text: str, **settings: Any) -> Matches:
        """As `search`, from an event loop: on another thread, every hit's version read."""
        return await asyncio.to_thread(lambda: self.search(text, **settings).load())

    def _check(self, settings: Mapping[str, Any]) -> None:
        if not settings:
            return
        allowed = signature(self._db.search).parameters
        known = [name for name, each in allowed.items() if each.kind is each.KEYWORD_ONLY]
        for name in settings:
            if name not in known:
                likely = get_close_matches(name, known, 1)
                more = f"; did you mean {likely[0]!r}?" if likely else f" ({', '.join(known)})"
                raise QueryError(f"a search has no setting {name!r}{more}")
