"""A database that records on which threads its verbs are called, and those of its views."""

from __future__ import annotations

import threading
from typing import Any

from koru_delta import AsOf, Database, View


class _Watching:
    seen: list[tuple[str, int]]

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found):
            return found
        seen = super().__getattribute__("seen")

        def call(*arguments: Any, **options: Any) -> Any:
            seen.append((name, threading.get_ident()))
            return found(*arguments, **options)

        return call


class Watched(_Watching, Database):
    """Tells in `seen` which verb was called, and on which thread."""

    def __init__(self) -> None:
        self.seen = []
        super().__init__()

    def as_of(self, ref: AsOf) -> View:
        """A view that is watched as well."""
        return _WatchedView(self, super().as_of(ref))


class _WatchedView(_Watching, View):
    def __init__(self, database: Watched, view: View) -> None:
        self.seen = database.seen
        super().__init__(database, view._cut(None))
