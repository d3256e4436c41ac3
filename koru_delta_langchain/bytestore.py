"""A LangChain key-value store of bytes: for cached embeddings, parents and raw documents."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

from langchain_core.stores import BaseStore

import koru_delta
from koru_delta import AsOf, Database, View
from koru_delta_langchain.home import Home
from koru_delta_langchain.ids import HASHED, foreign, key_of, keys_of, pairs_of, text

_PAGE: Final = 1000  # keys read at once


class KoruDeltaByteStore(Home, BaseStore[str, bytes]):
    r"""Bytes under keys of any string, each with its past; a batch is one commit.

    `store.as_of(then)` is the store as it stood. Bytes that are UTF-8, as cached embeddings
    and documents are, are kept as text, so that `database.search` and `diff` read them; others
    in base64.

    >>> with KoruDeltaByteStore() as store:
    ...     store.mset([("a", b"rain"), ("b", b"\x00\xff")])
    ...     store.mget(["b", "none", "a"]), list(store.yield_keys(prefix="a"))
    ([b'\x00\xff', None, b'rain'], ['a'])
    """

    def __init__(
        self,
        *,
        database: Database | None = None,
        path: str | os.PathLike[str] | None = None,
        namespace: str = "langchain.bytes",
    ) -> None:
        """Keep bytes in `database`, or in one opened at `path`; in memory by default.

        Raises:
            InvalidDataError: both are given; and the errors of `koru_delta.open`.
        """
        super().__init__(namespace, database, path)

    def mget(self, keys: Sequence[str], *, as_of: AsOf = None) -> list[bytes | None]:
        """The bytes of each key, in order; None where there are none."""
        names = keys_of(keys)
        found = self._reader(as_of).get_many(self._namespace, names)
        return [self._bytes(key, found[key]) if key in found else None for key in names]

    async def amget(self, keys: Sequence[str], *, as_of: AsOf = None) -> list[bytes | None]:
        """As `mget`."""
        return await asyncio.to_thread(self.mget, keys, as_of=as_of)

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Store bytes; the last of equal keys wins.

        Raises:
            InvalidDataError: a key is no string, or a value no bytes; nothing is stored.
        """
        self._check_writable()
        pairs = pairs_of("key_value_pairs", key_value_pairs)
        values = {key_of(name): _value(name, data) for name, data in pairs}
        if values:
            self._database.put_many(
                [(self._namespace, key, value) for key, value in values.items()]
            )

    async def amset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """As `mset`."""
        await asyncio.to_thread(self.mset, key_value_pairs)

    def mdelete(self, keys: Sequence[str]) -> None:
        """Delete those that are there; as of a moment before, they still are."""
        self._check_writable()
        self._database.delete_many(self._namespace, keys_of(keys))

    async def amdelete(self, keys: Sequence[str]) -> None:
        """As `mdelete`."""
        await asyncio.to_thread(self.mdelete, keys)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The keys there are when the first is asked for, read page by page as they are taken.

        In code point order, but for those too long or odd to be keys of the database, which
        come last.
        """
        moment, prefix = self._moment(None), text("prefix", prefix or "")
        for hashed in (False, True):
            after: str | None = None
            while True:
                page, after = self._page(moment, prefix, after, hashed=hashed)
                yield from page
                if after is None:
                    break

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        """As `yield_keys`."""
        prefix = text("prefix", prefix or "")
        moment = await asyncio.to_thread(self._moment, None)
        for hashed in (False, True):
            after: str | None = None
            while True:
                page, after = await asyncio.to_thread(
                    self._page, moment, prefix, after, hashed=hashed
                )
                for name in page:
                    yield name
                if after is None:
                    break

    def _page(
        self, moment: View, prefix: str, after: str | None, *, hashed: bool
    ) -> tuple[list[str], str | None]:
        """Some keys, and after which key the next ones come; None when there are no more."""
        if hashed:
            keys = moment.list_keys(self._namespace, prefix=HASHED, after=after, limit=_PAGE)
            found = moment.get_many(self._namespace, keys)
            ids = [self._id(key, value) for key, value in found.items()]
            names = [name for name in ids if name.startswith(prefix)]
        elif prefix and key_of(prefix) != prefix:
            return [], None  # no key of the database can begin so
        else:
            keys = moment.list_keys(self._namespace, prefix=prefix, after=after, limit=_PAGE)
            names = [key for key in keys if not key.startswith(HASHED)]
        return names, keys[-1] if len(keys) == _PAGE else None

    def _bytes(self, key: str, value: object) -> bytes:
        match value:
            case {"text": str(plain)}:
                return plain.encode()
            case {"base64": str(data)}:
                return base64.b64decode(data)
        raise foreign(self._namespace, key, "value of a byte store")

    def _id(self, key: str, value: object) -> str:
        match value:
            case {"id": str(name)}:
                return name
        raise foreign(self._namespace, key, "value of a byte store")


def _value(name: str, data: object) -> dict[str, Any]:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise koru_delta.errors.InvalidDataError(
            f"a value of the byte store is bytes, {name!r} is given {type(data).__name__}"
        )
    value: dict[str, Any] = {} if key_of(name) == name else {"id": name}
    plain = bytes(data)
    try:
        value["text"] = plain.decode()
    except UnicodeDecodeError:
        value["base64"] = base64.b64encode(plain).decode("ascii")
    return value
