"""Generations and messages of LangChain as text, exactly, and back through an allow-list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

from langchain_core._api import suppress_langchain_beta_warning
from langchain_core.load import dumps, loads
from langchain_core.load.serializable import Serializable
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    Generation,
    GenerationChunk,
)

import koru_delta
from koru_delta_langchain.ids import listed

_ALLOWED: Final[tuple[type[Serializable], ...]] = (
    AIMessage, AIMessageChunk, ChatMessage, ChatMessageChunk, FunctionMessage,
    FunctionMessageChunk, HumanMessage, HumanMessageChunk, RemoveMessage, SystemMessage,
    SystemMessageChunk, ToolMessage, ToolMessageChunk, ChatGeneration, ChatGenerationChunk,
    Generation, GenerationChunk,
)  # fmt: skip


class Codec:
    """Writes what comes back equal, and revives nothing but what it allows.

    No text can name a class outside the list, and none reads the environment.
    """

    def __init__(self, more: Iterable[type[Serializable]] = ()) -> None:
        """Allow messages, generations, and some classes more."""
        named = listed("allowed_objects", more, of=type)
        self._allowed = {kind.__name__: kind for kind in (*_ALLOWED, *named)}

    def encode(self, given: Any) -> str:
        """Text that `decode` makes the same of.

        Raises:
            InvalidDataError: it would come back as something else.
        """
        try:
            text = dumps(given)
            same = self.decode(text) == given
        except (ValueError, TypeError, RecursionError) as error:  # circular or very deep, too
            raise _unequal() from error
        if not same:
            raise _unequal()
        return text

    def decode(self, text: str) -> Any:
        """What was encoded.

        Raises:
            InvalidDataError: it names a class that is not allowed, or is damaged.
        """
        # Allowing a class takes longer than making one, so only those the text may name are.
        allowed = [kind for name, kind in self._allowed.items() if name in text]
        try:
            with suppress_langchain_beta_warning():
                return cast(
                    "Any",
                    loads(
                        text, allowed_objects=allowed, secrets_map={}, secrets_from_env=False
                    ),
                )  # fmt: skip
        except (
            ValueError, NotImplementedError, ImportError, TypeError, RecursionError
        ) as error:  # fmt: skip
            raise koru_delta.errors.InvalidDataError(
                f"this cannot be read back: {error}; a class of your own is allowed by "
                "allowed_objects="
            ) from error

    def decode_all(self, texts: Iterable[str]) -> list[Any]:
        """As `decode`, of several texts, in less time than one by one."""
        return cast("list[Any]", self.decode(f"[{','.join(texts)}]"))


def _unequal() -> koru_delta.errors.InvalidDataError:
    return koru_delta.errors.InvalidDataError(
        "this does not come back equal from LangChain's own serialization: it holds something "
        "that is no JSON, or is of a class that allowed_objects= does not name"
    )
