"""LlamaIndex chat histories in a KoruDelta database.

A message is one key of the namespace `<namespace>/messages`: the hash of its conversation's
name and its number, so that a history grows by what is said and never is written again. What
conversations there are is in `<namespace>/sessions`.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self, TypeVar

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import ChatMessage
from llama_index.core.storage.chat_store.base import BaseChatStore
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus

import koru_delta
from koru_delta import AsOf, Database
from koru_delta_llamaindex.connection import GONE, Batch, Connection, atomically
from koru_delta_llamaindex.keys import in_order, listed, order_of

T = TypeVar("T")

DEFAULT_NAMESPACE: Final = "llamaindex/chat"


class KoruDeltaChatStore(BaseChatStore):
    """Chat histories, at any moment of their past.

    Async methods wait in threads, never on the event loop. Pickled, a store opens its
    directory anew; a copy shares its database.

    >>> store = KoruDeltaChatStore()
    >>> store.add_message("ada", ChatMessage("rain?"))
    >>> then = store.database.commits()[-1]
    >>> deleted = store.delete_messages("ada")
    >>> store.get_messages("ada"), store.as_of(then).get_messages("ada")[0].content
    ([], 'rain?')
    >>> store.close()
    """

    namespace: str = DEFAULT_NAMESPACE

    _connection: Connection = PrivateAttr()

    def __init__(
        self,
        database: Database | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        as_of: AsOf = None,
        connection: Connection | None = None,
    ) -> None:
        """Keep histories in `database`, or in one opened at `path`; in memory by default.

        Args:
            database: An open database; closing the store leaves it open.
            as_of: Show the store as it stood then, to be read only.
            connection: In the place of database, path and as_of.
        """
        fields: dict[str, Any] = {"namespace": namespace}
        super().__init__(**fields)
        self._connection = connection or Connection(database, path, as_of=as_of)

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls the class."""
        return "KoruDeltaChatStore"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.namespace!r} of {self.database!r}>"

    __str__ = __repr__

    @property
    def database(self) -> Database:
        """The database the histories are in."""
        return self._connection.database

    def as_of(self, ref: AsOf) -> Self:
        """The store as it stood at a moment, that instant included, to be read only."""
        return type(self)(namespace=self.namespace, connection=self._connection.past(ref))

    def close(self) -> None:
        """Close the database if the store opened it. Closing twice is fine."""
        self._connection.close()

    def __copy__(self) -> Self:
        return type(self)(namespace=self.namespace, connection=self._connection.shared())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.__copy__()

    def __reduce_ex__(self, _protocol: object) -> Any:
        return _again, (type(self), {"namespace": self.namespace, **self._connection.reopening()})

    def set_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Make these the messages of a key, in one commit.

        What they begin with, as the present ones do, is not written again.
        """
        self._log.set(key, messages)

    def get_messages(self, key: str) -> list[ChatMessage]:
        """The messages of a key, oldest first."""
        return self._log.messages(key)

    def add_message(self, key: str, message: ChatMessage) -> None:
        """Add a message to those of a key."""
        self._log.add(key, [message])

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """Delete a key and give its messages back; None where there is no such key."""
        return self._log.drop(key)

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete a message and give it back; None where there is none.

        Args:
            idx: Its place, the oldest is 0 and the newest -1.
        """
        return self._log.delete_at(key, idx)

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the newest message and give it back; None where there is none."""
        return self._log.delete_at(key, -1)

    def get_keys(self) -> list[str]:
        """Every key that was written and not deleted, in order."""
        return self._log.keys()

    async def aset_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """As `set_messages`."""
        await self._connection.threads.write(self.set_messages, key, messages)

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        """As `get_messages`."""
        return await self._connection.threads.read(self.get_messages, key)

    async def async_add_message(self, key: str, message: ChatMessage) -> None:
        """As `add_message`."""
        await self._connection.threads.write(self.add_message, key, message)

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        """As `delete_messages`."""
        return await self._connection.threads.write(self.delete_messages, key)

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        """As `delete_message`."""
        return await self._connection.threads.write(self.delete_message, key, idx)

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        """As `delete_last_message`."""
        return await self._connection.threads.write(self.delete_last_message, key)

    async def aget_keys(self) -> list[str]:
        """As `get_keys`."""
        return await self._connection.threads.read(self.get_keys)

    @property
    def _log(self) -> _Histories:
        return _Histories(self._connection, self.namespace)


class KoruDeltaAsyncChatStore(AsyncDBChatStore):
    """Chat histories for `llama_index.core.memory.Memory`, at any moment of their past.

    Messages are active until they are archived. It shares its histories with a
    `KoruDeltaChatStore` of the same namespace, which knows the active ones. Storage waits in
    threads, never on the event loop. Pickled, a store opens its directory anew.
    """

    namespace: str = DEFAULT_NAMESPACE

    _connection: Connection = PrivateAttr()

    def __init__(
        self,
        database: Database | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        as_of: AsOf = None,
        connection: Connection | None = None,
    ) -> None:
        """Keep histories in `database`, or in one opened at `path`; in memory by default.

        Args:
            database: An open database; closing the store leaves it open.
            as_of: Show the store as it stood then, to be read only.
            connection: In the place of database, path and as_of.
        """
        fields: dict[str, Any] = {"namespace": namespace}
        super().__init__(**fields)
        self._connection = connection or Connection(database, path, as_of=as_of)

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls the class."""
        return "KoruDeltaAsyncChatStore"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.namespace!r} of {self.database!r}>"

    __str__ = __repr__

    @property
    def database(self) -> Database:
        """The database the histories are in."""
        return self._connection.database

    def as_of(self, ref: AsOf) -> Self:
        """The store as it stood at a moment, that instant included, to be read only."""
        return type(self)(namespace=self.namespace, connection=self._connection.past(ref))

    def close(self) -> None:
        """Close the database if the store opened it. Closing twice is fine."""
        self._connection.close()

    def __copy__(self) -> Self:
        return type(self)(namespace=self.namespace, connection=self._connection.shared())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.__copy__()

    def __reduce_ex__(self, _protocol: object) -> Any:
        return _again, (type(self), {"namespace": self.namespace, **self._connection.reopening()})

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        """The messages of a key, oldest first, from `offset` on, at most `limit`.

        Args:
            status: Those active or archived; None is both.
        """
        start = _number("offset", offset or 0)
        count = None if limit is None else _number("limit", limit)
        found = await self._connection.threads.read(self._log.messages, key, status)
        return found[start : None if count is None else start + count]

    async def count_messages(
        self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE
    ) -> int:
        """How many messages of a key are active or archived; None counts both."""
        return await self._connection.threads.read(self._log.count, key, status)

    async def add_message(
        self, key: str, message: ChatMessage, status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Add a message to those of a key."""
        await self.add_messages(key, [message], status)

    async def add_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Add messages to those of a key, in one commit."""
        await self._connection.threads.write(self._log.add, key, messages, status)

    async def set_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Make these the messages of a key, and the only ones, in one commit."""
        await self._connection.threads.write(self._log.set, key, messages, status)

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete a message and give it back; None where there is none.

        Args:
            idx: Its place among all of the key, archived ones too; the oldest is 0.
        """
        return await self._connection.threads.write(self._log.delete_at, key, idx, None)

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Delete the messages of a key that are active or archived; None is both."""
        await self._connection.threads.write(self._log.delete, key, status)

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Delete the `n` oldest active messages and give them back, in one commit."""
        return await self._connection.threads.write(self._log.take, key, n, None)

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Archive the `n` oldest active messages and give them back, in one commit."""
        return await self._connection.threads.write(self._log.take, key, n, MessageStatus.ARCHIVED)

    async def get_keys(self) -> list[str]:
        """Every key that has messages, in order."""
        return await self._connection.threads.read(self._log.keys, with_messages=True)

    @property
    def _log(self) -> _Histories:
        return _Histories(self._connection, self.namespace)


def _again(cls: type[Any], options: dict[str, Any]) -> Any:
    return cls(**options)


class _Histories:
    """The messages of conversations; every call that writes is one commit.

    Whoever writes reads the conversation's entry first and writes it anew, so that of two who
    do so at once the second begins again.
    """

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._messages = f"{namespace}/messages"
        self._sessions = f"{namespace}/sessions"

    def messages(
        self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE
    ) -> list[ChatMessage]:
        return [_message(value) for _, value in self._stored(key, status)]

    def count(self, key: str, status: MessageStatus | None) -> int:
        return len(self._stored(key, status))

    def keys(self, *, with_messages: bool = False) -> list[str]:
        view = self._connection.at()
        found: list[Any] = [row.value for row in view.query(self._sessions)]
        return sorted(
            value["key"]
            for value in found
            if not with_messages
            or view.list_keys(self._messages, prefix=_prefix(value["key"]), limit=1)
        )

    def add(
        self,
        key: str,
        messages: Sequence[ChatMessage],
        status: MessageStatus = MessageStatus.ACTIVE,
    ) -> None:
        values = [
            _value(key, each, status) for each in listed("messages", messages, of=ChatMessage)
        ]

        def work(batch: Batch) -> None:
            session = self._session(batch, key)
            if values:
                self._write(batch, key, session, values)

        self._atomically(work)

    def set(
        self,
        key: str,
        messages: Sequence[ChatMessage],
        status: MessageStatus = MessageStatus.ACTIVE,
    ) -> None:
        values = [
            _value(key, each, status) for each in listed("messages", messages, of=ChatMessage)
        ]

        def work(batch: Batch) -> None:
            session = self._session(batch, key)
            stored = self._stored(key)
            same = 0
            for (_, before), after in zip(stored, values, strict=False):
                if before != after:
                    break
                same += 1
            if session is None or len(stored) != same or len(values) != same:
                self._drop(batch, stored[same:])
                self._write(batch, key, session, values[same:])

        self._atomically(work)

    def drop(self, key: str) -> list[ChatMessage] | None:
        def work(batch: Batch) -> list[ChatMessage] | None:
            if self._session(batch, key) is None:
                return None
            stored = self._stored(key)
            self._drop(batch, stored)
            batch.delete(self._sessions, _digest(key))
            return [_message(value) for _, value in stored]

        return self._atomically(work)

    def delete(self, key: str, status: MessageStatus | None) -> None:
        def work(batch: Batch) -> None:
            session = self._session(batch, key)
            gone = self._stored(key, status)
            if gone:
                self._drop(batch, gone)
                self._write(batch, key, session)

        self._atomically(work)

    def delete_at(
        self, key: str, place: int, status: MessageStatus | None = MessageStatus.ACTIVE
    ) -> ChatMessage | None:
        _number("a place", place)

        def work(batch: Batch) -> ChatMessage | None:
            session = self._session(batch, key)
            stored = self._stored(key, status)
            if not -len(stored) <= place < len(stored):
                return None
            self._drop(batch, [stored[place]])
            self._write(batch, key, session)
            return _message(stored[place][1])

        return self._atomically(work)

    def take(self, key: str, count: int, to: MessageStatus | None) -> list[ChatMessage]:
        """The oldest active ones: deleted, or given another status."""
        _number("n", count)

        def work(batch: Batch) -> list[ChatMessage]:
            session = self._session(batch, key)
            oldest = self._stored(key, MessageStatus.ACTIVE)[: max(0, count)]
            if oldest:
                if to is None:
                    self._drop(batch, oldest)
                else:
                    for name, value in oldest:
                        batch.put(self._messages, name, {**value, "status": to.value})
                self._write(batch, key, session)
            return [_message(value) for _, value in oldest]

        return self._atomically(work)

    # Parts of the above

    def _atomically(self, work: Callable[[Batch], T]) -> T:
        self._connection.check_writable()
        return atomically(self._connection.database, work)

    def _session(self, batch: Batch, key: str) -> Any:
        return batch.get(self._sessions, _digest(key))

    def _stored(self, key: str, status: MessageStatus | None = None) -> list[tuple[str, Any]]:
        wanted = None if status is None else _status(status).value
        view = self._connection.at()
        names = view.list_keys(self._messages, prefix=_prefix(key))
        found: dict[str, Any] = view.get_many(self._messages, names)
        return [
            (name, value)
            for name, value in found.items()
            if wanted is None or value["status"] == wanted
        ]

    def _drop(self, batch: Batch, stored: Iterable[tuple[str, Any]]) -> None:
        for name, _ in stored:
            batch.put(self._messages, name, GONE)

    def _write(
        self, batch: Batch, key: str, session: Any, values: Sequence[dict[str, Any]] = ()
    ) -> None:
        """Append messages, and write the entry of the conversation."""
        number = 0 if session is None else session["next"]
        for value in values:
            batch.put(self._messages, f"{_prefix(key)}{number:016d}", value)
            number += 1
        batch.put(self._sessions, _digest(key), {"key": key, "next": number})


def _digest(key: str) -> str:
    if not isinstance(key, str):
        raise koru_delta.errors.InvalidDataError(f"a key is a string, not {type(key).__name__}")
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _prefix(key: str) -> str:
    return f"{_digest(key)}:"


def _number(what: str, given: object) -> int:
    if not isinstance(given, int):
        raise koru_delta.errors.InvalidDataError(f"{what} is a whole number, not {given!r}")
    return given


def _status(given: object) -> MessageStatus:
    try:
        return MessageStatus(given)
    except ValueError as error:
        raise koru_delta.errors.InvalidDataError(
            f"a status is {' or '.join(status.value for status in MessageStatus)}, not {given!r}"
        ) from error


def _value(key: str, message: ChatMessage, status: MessageStatus) -> dict[str, Any]:
    try:
        given = message.model_dump(mode="json")
    except (ValueError, TypeError, RecursionError) as error:
        raise koru_delta.errors.InvalidDataError(
            f"this message cannot be kept as JSON: {error}"
        ) from error
    if _has_no_number(message.additional_kwargs):  # the framework would make None of it
        raise koru_delta.errors.InvalidDataError(
            "this message holds NaN or infinity, which are no JSON numbers", "$.additional_kwargs"
        )
    value: dict[str, Any] = {"key": key, "status": _status(status).value, "message": given}
    order = order_of(given.get("additional_kwargs"))
    if order is not None:
        value["order"] = order
    return value


def _has_no_number(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_no_number, value.values()))
    if isinstance(value, (list, tuple, set)):
        return any(map(_has_no_number, value))
    return isinstance(value, float) and not math.isfinite(value)


def _message(value: Any) -> ChatMessage:
    given = dict(value["message"])
    given["additional_kwargs"] = in_order(given.get("additional_kwargs", {}), value.get("order"))
    return ChatMessage.model_validate(given)
