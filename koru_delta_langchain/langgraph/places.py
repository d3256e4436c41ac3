"""Where the parts of a checkpoint are kept, and in what pieces: see `checkpoint.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import get_checkpoint_id

import koru_delta
from koru_delta_langchain.ids import text
from koru_delta_langchain.langgraph.keys import newest_first, part

_SMALL: Final = 100  # characters
_LARGE: Final = 4096  # characters; what is stored once is not much smaller
_TOGETHER: Final = 8 * 1024 * 1024  # characters of writes in one value; it holds 64 MiB
Record = dict[str, Any]
Records = list[Record]


def asked_of(config: object, *, thread: bool = True) -> Mapping[str, Any]:
    """The configurable part of a config, which names a thread where it must.

    Raises:
        InvalidDataError: it does not.
    """
    asked = config.get("configurable") if isinstance(config, Mapping) else None
    if not isinstance(asked, Mapping) or (thread and asked.get("thread_id") is None):
        raise koru_delta.errors.InvalidDataError(
            'a config names what it is about: {"configurable": {"thread_id": ...}}, perhaps with '
            '"checkpoint_ns" and "checkpoint_id"'
        )
    return asked


def check_dict(what: str, given: object) -> None:
    """Refuse what is no dict.

    Raises:
        InvalidDataError: it is none.
    """
    if not isinstance(given, Mapping):
        raise koru_delta.errors.InvalidDataError(f"{what} is a dict, not {type(given).__name__}")


class Place(NamedTuple):
    """Where a checkpoint belongs; without an identity, its thread and namespace."""

    thread: str
    ns: str
    identity: str | None = None

    @classmethod
    def of(cls, config: RunnableConfig) -> Place:
        """The place a config names."""
        asked = asked_of(config)
        identity = get_checkpoint_id(config)
        return cls(
            str(asked["thread_id"]),
            text("checkpoint_ns", asked.get("checkpoint_ns") or ""),
            str(identity) if identity else None,
        )

    @classmethod
    def of_record(cls, record: Record) -> Place:
        """The place of a checkpoint that is stored."""
        return cls(record["thread"], record["ns"], record["id"])

    def parent(self, record: Record) -> Place | None:
        """The place of the checkpoint it came after."""
        return self._replace(identity=record["parent"]) if record["parent"] else None

    def prefix(self, kind: str) -> str:
        """What the keys of a kind begin with here."""
        return f"{kind}/{part(self.thread)}/{part(self.ns)}/"

    def key(self, kind: str) -> str:
        """The key of a kind for the checkpoint itself."""
        return self.prefix(kind) + newest_first(self.identity or "")

    def config(self) -> RunnableConfig:
        """The config that names it."""
        named = {"thread_id": self.thread, "checkpoint_ns": self.ns}
        if self.identity is not None:
            named["checkpoint_id"] = self.identity
        return {"configurable": named}


def blob_key(prefix: str, channel: str, version: str | int | float) -> str:
    """The key of a channel's value, in the place whose values have this prefix."""
    # Numbers are told from strings by a sign no quoted string begins with.
    named = part(version) if isinstance(version, str) else f"={version!r}"
    return f"{prefix}{part(channel)}/{named}"


def is_small(value: object) -> bool:
    """Whether a value is cheaper said in each checkpoint than stored once, apart.

    None that could be changed in place: what has no new version is still what it was.
    """
    kind = type(value)
    return (
        value is None or kind is bool or kind is int or kind is float
        or (kind is str and len(cast("str", value)) <= _SMALL)
    )  # fmt: skip


def is_large(write: Record) -> bool:
    """Whether a write's value is kept apart, so that it is stored once with its channel's."""
    return len(write["value"][1]) > _LARGE


def without_value(write: Record) -> Record:
    """A write whose value is kept apart."""
    return {"index": write["index"], "channel": write["channel"]}


def shared_out(writes: Iterable[Record]) -> list[Records]:
    """Writes in their order, as many together as is not too much for one value."""
    found: list[Records] = []
    size = 0
    for write in writes:
        added = len(write["value"][1]) if "value" in write else 0
        if not found or size + added > _TOGETHER:
            found.append([])
            size = 0
        found[-1].append(write)
        size += added
    return found


def writes_in(stored: Any) -> Records:
    """The writes in one stored value."""
    if isinstance(stored, list):  # the value of one
        return []
    found: Records = stored.get("writes", [stored])  # each was stored by itself once
    return found
