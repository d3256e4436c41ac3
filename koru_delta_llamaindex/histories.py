"""The messages of conversations, as both chat stores keep them.

A message is one key of the namespace `<namespace>/messages`: the hash of its conversation's
name and its number, so that a history grows by what is said and never is written again. What
conversations there are is in `<namespace>/sessions`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from llama_index.core.llms import ChatMessage
from llama_index.core.storage.chat_store.base_db import MessageStatus

import koru_delta
from koru_delta_llamaindex.connection import GONE, Batch, Connection, atomically
from koru_delta_llamaindex.keys import in_order, listed, order_of

T = TypeVar("T")


class Histories:
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
        """The messages of a key, oldest first."""
        return [_message(value) for _, value in self._stored(key, status)]

    def count(self, key: str, status: MessageStatus | None) -> int:
        """How many those are."""
        return len(self._stored(key, status))

    def keys(self, *, with_messages: bool = False) -> list[str]:
        """Every key that was written and not deleted, in order."""
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
        """Append messages."""
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
        """Make these the messages, and write again none of those that they begin with."""
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
        """Delete a key and give its messages back; None where there is no such key."""

        def work(batch: Batch) -> list[ChatMessage] | None:
            if self._session(batch, key) is None:
                return None
            stored = self._stored(key)
            self._drop(batch, stored)
            batch.delete(self._sessions, _digest(key))
            return [_message(value) for _, value in stored]

        return self._atomically(work)

    def delete(self, key: str, status: MessageStatus | None) -> None:
        """Delete messages of a key, which stays."""

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
        """Delete the message at a place among those of a status, and give it back."""
        number("a place", place)

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
        number("n", count)

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


def number(what: str, given: object) -> int:
    """A whole number.

    Raises:
        InvalidDataError: it is none.
    """
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
            f"a message of {key!r} cannot be written as JSON: {error}"
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
