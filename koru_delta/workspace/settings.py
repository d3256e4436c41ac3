"""What is recorded of a workspace in the log: embedder, quota, retention, patterns.

One entry of the log for each change (namespace `$workspaces`, one key a workspace), so that
every process that opens the workspace goes by the same, and every moment shows what held then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, NamedTuple, get_args

from koru_delta.errors import ConflictError, InvalidDataError, KeyNotFoundError
from koru_delta.intents import Intents, WriteOptions
from koru_delta.log import CausalLog
from koru_delta.log.log import TEXTS, WORKSPACES
from koru_delta.log.moments import AsOf
from koru_delta.search.texts import TextSettings
from koru_delta.values import Value, canonical_bytes, check_name

Pattern = Literal["event", "reference", "procedure"]

PATTERNS: Final[tuple[str, ...]] = get_args(Pattern)
_MAX_NAME_BYTES: Final = 160  # leaves room for its namespaces
_TRIES: Final = 20  # against others who change the same settings at the same time


class Rule(NamedTuple):
    """The keys of a namespace that begin with `prefix` follow a pattern."""

    namespace: str
    prefix: str
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Settings:
    """What a workspace goes by.

    Attributes:
        embedder: The name of the model that fills it; None while nothing was embedded.
        max_items: The quota of present keys; None is no limit.
        max_bytes: The quota of bytes of their values, as canonical JSON.
        keep: How long what is out of use is retained, as for `Database.retain`.
        versions: How many versions of each key are retained.
        rules: The patterns, the longest prefix deciding.
    """

    embedder: str | None = None
    max_items: int | None = None
    max_bytes: int | None = None
    keep: timedelta | None = None
    versions: int | None = None
    rules: tuple[Rule, ...] = ()

    @property
    def has_quota(self) -> bool:
        """Whether anything is limited."""
        return self.max_items is not None or self.max_bytes is not None

    @property
    def retains(self) -> bool:
        """Whether anything is ever swept away."""
        return self.keep is not None or self.versions is not None

    def pattern(self, namespace: str, key: str) -> Pattern | None:
        """The pattern that a key follows, if any."""
        for rule in sorted(self.rules, key=lambda rule: -len(rule.prefix)):
            if rule.namespace == namespace and key.startswith(rule.prefix):
                return rule.pattern
        return None

    def to_json(self) -> dict[str, Value]:
        """As it is kept in the log."""
        return {
            "embedder": self.embedder, "max_items": self.max_items, "max_bytes": self.max_bytes,
            "keep": None if self.keep is None else self.keep // timedelta(microseconds=1),
            "versions": self.versions, "rules": [list(rule) for rule in self.rules],
        }  # fmt: skip

    @classmethod
    def read(cls, said: dict[str, Any]) -> Settings:
        """From the log."""
        keep = said["keep"]
        return cls(
            said["embedder"], said["max_items"], said["max_bytes"],
            None if keep is None else timedelta(microseconds=keep), said["versions"],
            tuple(Rule(*rule) for rule in said["rules"]),
        )  # fmt: skip


def check_workspace(name: object) -> None:
    """Refuse what cannot name a workspace.

    Raises:
        InvalidDataError: as for a namespace, or it holds a slash.
    """
    check_name("workspace", name, _MAX_NAME_BYTES)
    assert isinstance(name, str)
    if name[0] == "$" or "/" in name:
        raise InvalidDataError(
            f"a workspace is not called {name!r}: '/' parts it from its namespaces, and what "
            "starts with '$' is kept for KoruDelta; use another character, such as ':'"
        )


def checked_limit(what: str, limit: object) -> None:
    """Refuse a quota that is none.

    Raises:
        InvalidDataError: no whole number from 0 on.
    """
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidDataError(f"{what} is a whole number from 0 on, or None, not {limit!r}")


class Recorded:
    """The settings of one workspace, as the log has them."""

    def __init__(self, log: CausalLog, intents: Intents, name: str) -> None:
        self._log, self._intents, self._name = log, intents, name
        self._known: tuple[str, Settings] | None = None  # a version of them never changes

    def read(self) -> tuple[Settings, str | None]:
        """The settings now and the version that says so; None where nobody ever said."""
        cut = self._log.now()
        try:
            version = self._log.version_at(WORKSPACES, self._name, cut, cut.clock)
        except KeyNotFoundError:
            return _NONE, None
        if self._known is None or self._known[0] != version.id:
            self._known = version.id, Settings.read(version.value)
        return self._known[1], version.id

    def words(self, whole: str, as_of: AsOf = None) -> TextSettings | None:
        """How the words of a namespace are read at a moment; None where nobody ever said."""
        cut = self._log.cut(as_of)
        try:
            return TextSettings.read(self._log.version_at(TEXTS, whole, cut, cut.clock).value)
        except KeyNotFoundError:
            return None

    def change(
        self, make: Callable[[Settings], Settings], *, author: str | None, message: str | None
    ) -> tuple[Settings, Settings]:
        """Record what `make` makes of the settings; those before and after.

        Nothing is written where it changes nothing, but for the first time.
        """
        conflict: ConflictError | None = None
        for _ in range(_TRIES):
            before, said_by = self.read()
            after = make(before)
            if after == before and said_by is not None:
                return before, after
            options: WriteOptions = {"author": author, "message": message}
            write = self._intents.put(self._name, self._name, None, options)
            write.namespace, write.if_match = WORKSPACES, said_by
            write.body = canonical_bytes(after.to_json())
            try:
                self._log.commit([write])
            except ConflictError as error:
                conflict = error
                continue
            return before, after
        assert conflict is not None
        raise conflict

    def forget(self, *, author: str | None, message: str | None) -> None:
        """Record that there is no such workspace any more."""
        options: WriteOptions = {"author": author, "message": message}
        write = self._intents.delete(self._name, self._name, options)
        write.namespace, write.missing_ok = WORKSPACES, True
        self._log.commit([write])


_NONE: Final = Settings()
