"""Conversations, message by message, each readable as of any moment of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final
from uuid import uuid4

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.load.serializable import Serializable
from langchain_core.messages import BaseMessage

from koru_delta import AsOf, Database
from koru_delta_langchain.codec import Codec
from koru_delta_langchain.home import Home
from koru_delta_langchain.ids import foreign, listed, text

_FIELD: Final = "session"


class KoruDeltaChatMessageHistory(Home, BaseChatMessageHistory):
    """The messages of one session, in the order they were written, whoever wrote them.

    Each message is a key of its own, so that adding one writes one. `clear` empties the
    session; as of a moment before, it is as it was. Sessions share a namespace, whose values
    are `{"session": ..., "type": "human", "text": ..., "message": ...}`, so that
    `database.search(namespace, ...)` recalls what was said in all of them.

    >>> with KoruDeltaChatMessageHistory("ada") as history:
    ...     history.add_user_message("rain?")
    ...     then = history.database.commits()[-1]
    ...     history.add_ai_message("yes")
    ...     [len(history.messages), len(history.get_messages(as_of=then))]
    [2, 1]
    """

    def __init__(
        self,
        session_id: str,
        *,
        database: Database | None = None,
        path: str | os.PathLike[str] | None = None,
        namespace: str = "langchain.chats",
        ttl: float | timedelta | None = None,
        allowed_objects: Iterable[type[Serializable]] = (),
    ) -> None:
        """Keep the session in `database`, or in one opened at `path`; in memory by default.

        Args:
            session_id: Any string.
            ttl: Seconds (or a timedelta) after which a message is gone; None is never.
            allowed_objects: Classes of messages, besides LangChain's own.

        Raises:
            InvalidDataError: both `database` and `path`, or a session that is no string; and
                the errors of `koru_delta.open`.
        """
        text("session_id", session_id)  # anything else could be a filter, and find them all
        super().__init__(namespace, database, path)
        self.session_id = session_id
        self._ttl = ttl
        self._codec = Codec(allowed_objects)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override] # an attribute there
        """The messages, oldest first."""
        return self.get_messages()

    def get_messages(self, *, as_of: AsOf = None) -> list[BaseMessage]:
        """The messages as of a moment, oldest first.

        Raises:
            InvalidDataError: one is of a class that is not allowed.
        """
        rows = self._reader(as_of).query(self._namespace, {_FIELD: self.session_id})
        rows.sort(key=lambda row: row.version.seq)  # as they were written, by whomever
        return self._codec.decode_all(self._encoded(row.key, row.value) for row in rows)

    def _encoded(self, key: str, value: object) -> str:
        match value:
            case {"message": str(encoded)}:
                return encoded
        raise foreign(self._namespace, key, "message")

    async def aget_messages(self, *, as_of: AsOf = None) -> list[BaseMessage]:
        """As `get_messages`."""
        return await asyncio.to_thread(self.get_messages, as_of=as_of)

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages, in one commit.

        Raises:
            InvalidDataError: one would not come back equal, or is no message; nothing is added.
        """
        self._check_writable()
        items = [
            (
                self._namespace,
                uuid4().hex,
                {
                    _FIELD: self.session_id,
                    "type": message.type,
                    "text": str(message.text),
                    "message": self._codec.encode(message),
                },
            )
            for message in listed("messages", messages, of=BaseMessage)
        ]
        if items:
            self._database.put_many(items, ttl=self._ttl)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """As `add_messages`."""
        await asyncio.to_thread(self.add_messages, messages)

    def clear(self) -> None:
        """Empty the session, in one commit."""
        self._check_writable()
        rows = self._database.query(self._namespace, {_FIELD: self.session_id}, select=())
        self._database.delete_many(self._namespace, [row.key for row in rows])

    async def aclear(self) -> None:
        """As `clear`."""
        await asyncio.to_thread(self.clear)
