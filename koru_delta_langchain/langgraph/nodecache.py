"""A cache of LangGraph nodes in a KoruDelta database: what they returned, for later runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import koru_delta
from koru_delta_langchain.home import Home
from koru_delta_langchain.ids import listed, pairs_of
from koru_delta_langchain.langgraph.keys import packed, part, unpacked

try:
    from langgraph.cache.base import BaseCache, FullKey, Namespace
    from langgraph.checkpoint.serde.base import SerializerProtocol
except ModuleNotFoundError as error:
    raise koru_delta.errors.MissingExtraError("KoruDeltaNodeCache", "langgraph") from error

ValueT = TypeVar("ValueT")


class KoruDeltaNodeCache(BaseCache[ValueT], Home):
    """What nodes returned, by namespace and key, each for as long as its policy says.

    An entry is gone to the microsecond its `ttl` (seconds) ends. Safe to share by threads,
    and a database by processes. Methods that start with `a` run storage in threads.

    >>> cache = KoruDeltaNodeCache()
    >>> cache.set({(("node",), "a"): ([1, 2], None), (("node",), "b"): ("soon", 60)})
    >>> cache.get([(("node",), "a"), (("node",), "c")])
    {(('node',), 'a'): [1, 2]}
    >>> cache.clear([("node",)]); cache.get([(("node",), "a")])
    {}
    >>> cache.close()
    """

    def __init__(
        self,
        *,
        database: koru_delta.Database | None = None,
        path: str | os.PathLike[str] | None = None,
        namespace: str = "langgraph.cache",
        serde: SerializerProtocol | None = None,
        keep: timedelta | None = timedelta(0),
    ) -> None:
        """Keep entries in `database`, or in one opened at `path`; in memory by default.

        Args:
            database: An open database; closing the cache leaves it open.
            serde: Turns values to bytes and back; LangGraph's own by default, which pickles
                nothing.
            keep: For how long an entry that has ended or was replaced stays on disk: said to
                `Database.retain` with the first entry, unless that was told something
                before. None says nothing.

        Raises:
            InvalidDataError: both `database` and `path` are given; and the errors of
                `koru_delta.open`.
        """
        Home.__init__(self, namespace, database, path)
        BaseCache.__init__(self, serde=serde)
        self._keep: timedelta | None = keep

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Those of the entries that are there and have not ended."""
        pairs = pairs_of("keys", keys)
        names = {_key(key): (tuple(key[0]), key[1]) for key in pairs}
        found = self._reader().get_many(self._namespace, names)
        return {names[key]: self.serde.loads_typed(unpacked(v)) for key, v in found.items()}

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """As `get`."""
        return await asyncio.to_thread(self.get, keys)

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Store entries, each with the seconds it is to live, None for good.

        Those that live equally long are one commit; one that is to live no time is deleted.
        """
        self._check_writable()
        keep, self._keep = self._keep, None  # once is enough
        koru_delta.adapters.retain_by_default(self._database, self._namespace, keep)
        lives: dict[int | None, list[tuple[str, str, list[str]]]] = {}
        if not isinstance(pairs, Mapping):
            raise koru_delta.errors.InvalidDataError(
                "pairs is a dict of (value, ttl) by (namespace, key)"
            )
        pairs_of("the values of pairs", pairs.values())
        for key, (value, ttl) in pairs.items():
            if ttl is not None and not isinstance(ttl, (int, float)):
                raise koru_delta.errors.InvalidDataError(f"ttl is seconds or None, not {ttl!r}")
            entry = (self._namespace, _key(key), packed(*self.serde.dumps_typed(value)))
            lives.setdefault(ttl, []).append(entry)
        for ttl, entries in lives.items():
            if ttl is None or ttl > 0:
                self._database.put_many(entries, ttl=ttl)
            else:
                self._remove([key for _, key, _ in entries])

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """As `set`."""
        await asyncio.to_thread(self.set, pairs)

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Delete the entries of namespaces, each as it is named and no deeper; None is all."""
        self._check_writable()
        prefixes = (
            [""] if namespaces is None else [_prefix(n) for n in listed("namespaces", namespaces)]
        )
        keys = [
            key
            for prefix in dict.fromkeys(prefixes)
            for key in self._database.list_keys(self._namespace, prefix=prefix)
        ]
        self._remove(keys)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """As `clear`."""
        await asyncio.to_thread(self.clear, namespaces)

    def _remove(self, keys: Sequence[str]) -> None:
        if keys:  # what `keep` says then erases them
            self._database.delete_many(self._namespace, keys)


def _prefix(namespace: Namespace) -> str:
    """What the keys of a namespace begin with, and those of no other."""
    labels = [part(label) for label in listed("a namespace", namespace)]
    return part(f"{len(labels)}/{'/'.join(labels)}", longest=500) + "="


def _key(key: FullKey) -> str:
    ((namespace, name),) = pairs_of("keys", [key])
    return _prefix(namespace) + part(name, longest=500)
