"""LlamaIndex chat stores in a KoruDelta database, at any moment of their past."""

from __future__ import annotations

import os
from typing import Any, Final

from llama_index.core.bridge.pydantic import BaseModel, PrivateAttr
from llama_index.core.llms import ChatMessage
from llama_index.core.storage.chat_store.base import BaseChatStore
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus

from koru_delta import AsOf, Database
from koru_delta_llamaindex.connection import Connection
from koru_delta_llamaindex.histories import Histories, number
from koru_delta_llamaindex.store import Store

DEFAULT_NAMESPACE: Final = "llamaindex/chat"


class _Chats(Store, BaseModel):
    """What both chat stores are made of."""

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

    @property
    def _log(self) -> Histories:
        return Histories(self._connection, self.namespace)

    def _made_with(self) -> dict[str, Any]:
        return {"namespace": self.namespace}


class KoruDeltaChatStore(_Chats, BaseChatStore):
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

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls the class."""
        return "KoruDeltaChatStore"

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


class KoruDeltaAsyncChatStore(_Chats, AsyncDBChatStore):
    """Chat histories for `llama_index.core.memory.Memory`, at any moment of their past.

    Messages are active until they are archived. It shares its histories with a
    `KoruDeltaChatStore` of the same namespace, which knows the active ones. Storage waits in
    threads, never on the event loop. Pickled, a store opens its directory anew.

    >>> import asyncio
    >>> from llama_index.core.memory import Memory
    >>> store = KoruDeltaAsyncChatStore()
    >>> memory = Memory(sql_store=store, session_id="ada", token_limit=4000)
    >>> asyncio.run(memory.aput(ChatMessage("rain?")))
    >>> [message.content for message in asyncio.run(memory.aget())]
    ['rain?']
    >>> store.close()
    """

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls the class."""
        return "KoruDeltaAsyncChatStore"

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
        start = number("offset", offset or 0)
        count = None if limit is None else number("limit", limit)
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
