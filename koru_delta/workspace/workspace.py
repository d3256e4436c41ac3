"""A workspace: an isolated part of a database, with its own embedder, quota and rules.

Built from the public verbs alone: its namespaces are those that begin with its name and a
slash. Whoever has the database sees all of it; whoever has a workspace sees only that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from koru_delta.causal import Version, When
from koru_delta.embedders import Embedder, as_embedder
from koru_delta.errors import ImmutableEventError, InvalidDataError
from koru_delta.intents import KEEP, CauseLike
from koru_delta.log.moments import AsOf
from koru_delta.log.retention import checked_policy
from koru_delta.values import LeftOut, Value, check_key
from koru_delta.workspace.inside import Item, text_of
from koru_delta.workspace.patterns import Outcomes
from koru_delta.workspace.reads import OUTCOMES, WorkspaceReads
from koru_delta.workspace.settings import (
    PATTERNS,
    Pattern,
    Rule,
    Settings,
    checked_limit,
)
from koru_delta.workspace.writes import Intended

if TYPE_CHECKING:
    from koru_delta.workspace.memory import AgentMemory

_ANY: Final[Any] = LeftOut()  # an `if_match`: whatever stands there
_BEGINNING: Final = "0001-01-01T00:00:00+00:00"


class Workspace(WorkspaceReads):
    """An isolated part of a database: what it stores, finds and refers to is its own.

    Made by `Database.workspace`. Namespaces are named as inside it; the versions it returns
    name theirs in the database, `"<workspace>/<namespace>"`. It can be shared between threads,
    and opened in several processes at once: settings, quota and patterns are in the log.

    Where it has an embedder, `store` embeds a value that is a string, or its `"text"`.
    """

    # Rules

    def configure(
        self,
        *,
        max_items: int | None = KEEP,
        max_bytes: int | None = KEEP,
        keep: timedelta | None = KEEP,
        versions: int | None = KEEP,
        author: str | None = None,
        message: str | None = None,
    ) -> Settings:
        """Change what is recorded of the workspace; what is left out stays, None lifts it.

        Args:
            max_items: How many keys it may hold.
            max_bytes: How many bytes their values may take, as canonical JSON. Both count
                what is hidden, and not what has been deleted or has expired.
            keep: How long what is out of use is retained, in every namespace of it; and
            versions: how many versions of a key: as for `Database.retain`.

        Raises:
            InvalidDataError: they make no sense.
        """
        given: dict[str, Any] = {
            "max_items": max_items, "max_bytes": max_bytes, "keep": keep, "versions": versions,
        }  # fmt: skip
        given = {what: value for what, value in given.items() if value is not KEEP}
        for what in ("max_items", "max_bytes"):
            checked_limit(what, given.get(what))
        checked_policy(self.name, given.get("keep"), given.get("versions"))
        before, after = self._inside.recorded.change(
            lambda known: replace(known, **given), author=author, message=message
        )
        if (before.keep, before.versions) != (after.keep, after.versions):
            self._inside.writer.retain(after)
        if after.has_quota and not before.has_quota:
            self._inside.writer.count_anew(author=author)
        return after

    def pattern(
        self,
        namespace: str,
        pattern: Pattern,
        *,
        prefix: str = "",
        author: str | None = None,
        message: str | None = None,
    ) -> None:
        """Have the keys of a namespace that begin with `prefix` follow a pattern, for good.

        Args:
            pattern: "event": each is written once, and never deleted. "reference": what is
                stored holds from its `valid_from` up to the next change that is known of, so
                that it ends what it contradicts, in whatever order changes become known.
                "procedure": versions with `outcome`s, kept in `"<namespace>.outcomes"`.

        Raises:
            InvalidDataError: there is no such pattern, or they follow another one.
        """
        if pattern not in PATTERNS:
            raise InvalidDataError(
                f"there is no pattern {pattern!r}; it is one of {', '.join(PATTERNS)}"
            )
        self._inside.whole(namespace)
        if not isinstance(prefix, str):
            raise InvalidDataError(f"prefix is a string, not {type(prefix).__name__}")
        rules = [Rule(namespace, prefix, pattern)]
        if pattern == "procedure":
            self._inside.whole(namespace + OUTCOMES)
            rules.append(Rule(namespace + OUTCOMES, "", "event"))
        self._inside.recorded.change(
            lambda known: _ruled(known, rules), author=author, message=message
        )

    # Writing

    def store(
        self,
        namespace: str,
        key: str,
        value: Value,
        *,
        text: str | None = None,
        if_match: Version | str | None = _ANY,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        """Store a JSON value under a key, with a vector where there is a text to embed.

        Args:
            text: What is embedded, in place of the value if it is a string, or its `"text"`.

        Raises:
            IsolationError: a cause is not of this workspace.
            QuotaExceededError: it would be too much.
            ImmutableEventError: the key is an event, and was written before.
            EmbedderError: another embedder filled the workspace; and those of `Database.put`.
        """
        check_key(self._inside.whole(namespace), key)  # None would be made up
        options = self._options(causes, ttl, valid_from, valid_to)
        if if_match is not _ANY:
            options["if_match"] = if_match
        items = [Item(key, value, text_of(value, text))]
        return self._inside.write(
            namespace, items, options, author=author, message=message, run=run
        )[0]

    def store_many(
        self,
        namespace: str,
        items: Iterable[tuple[str, Value]],
        *,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """Store many `(key, value)` in one commit: all of them or none."""
        whole, wanted = self._inside.whole(namespace), []
        given: object = items
        if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
            raise InvalidDataError(
                f"items is a list of (key, value), not {type(given).__name__}; of a dict, pass "
                "its items()"
            )
        for item in items:
            if not isinstance(item, tuple) or len(item) != 2:
                raise InvalidDataError("an item to store is (key, value)")
            check_key(whole, item[0])  # None would be made up
            wanted.append(Item(*item, text_of(item[1], None)))
        options = self._options(causes, ttl, valid_from, valid_to)
        return self._inside.write(
            namespace, wanted, options, author=author, message=message, run=run
        )

    def delete(
        self,
        namespace: str,
        key: str,
        *,
        if_match: Version | str | None = _ANY,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        """Mark a key as deleted from now on; the past before it stays readable.

        Raises:
            KeyNotFoundError: there is nothing to delete.
            ImmutableEventError: the key is an event.
        """
        whole = self._inside.whole(namespace)
        check_key(whole, key)
        options: dict[str, Any] = {} if if_match is _ANY else {"if_match": if_match}

        def plan(settings: Settings) -> list[Intended]:
            if settings.pattern(namespace, key) == "event":
                raise ImmutableEventError(namespace, key)
            return [Intended(whole, key, delete=True, options=dict(options))]

        return self._inside.writer.commit(plan, author=author, message=message, run=run)[0]

    def expire(
        self,
        namespace: str,
        key: str,
        *,
        ttl: float | timedelta | None = None,
        at: When | None = None,
        author: str | None = None,
        message: str | None = None,
    ) -> Version:
        """As `Database.expire`."""
        whole = self._inside.whole(namespace)
        return self._db.expire(whole, key, ttl=ttl, at=at, author=author, message=message)

    def touch(
        self,
        namespace: str,
        key: str,
        *,
        ttl: float | timedelta | None = KEEP,
        author: str | None = None,
        message: str | None = None,
    ) -> Version:
        """As `Database.touch`."""
        whole = self._inside.whole(namespace)
        return self._db.touch(whole, key, ttl=ttl, author=author, message=message)

    def outcome(
        self,
        namespace: str,
        key: str,
        success: bool,
        *,
        note: str | None = None,
        author: str | None = None,
        run: str | None = None,
    ) -> Outcomes:
        """Record what came of trying a procedure as it stands; returns all that came of it.

        Raises:
            KeyNotFoundError: there is no such procedure.
            InvalidDataError: the key follows another pattern, or `success` is no bool.
        """
        if type(success) is not bool:
            raise InvalidDataError(f"success is True or False, not {success!r}")
        if note is not None and not isinstance(note, str):
            raise InvalidDataError(f"note is text, not {type(note).__name__}")
        check_key(self._inside.whole(namespace), key)
        if self.settings.pattern(namespace, key) != "procedure":
            raise InvalidDataError(
                f"{key!r} in {namespace!r} is no procedure; say pattern({namespace!r}, "
                '"procedure") once, to keep outcomes'
            )
        tried = self.version(namespace, key)
        value: dict[str, Value] = {
            "procedure": key, "content": tried.distinction, "success": success,
        }  # fmt: skip
        if note is not None:
            value["note"] = note
        self.add(
            namespace + OUTCOMES, value, causes=[("references", tried)], author=author, run=run
        )
        return self.outcomes(namespace, key)

    def add(
        self,
        namespace: str,
        value: Value,
        *,
        text: str | None = None,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        """Store a value under a new key, made of the time and a short name of the value."""
        options = self._options(causes, ttl, valid_from, valid_to)
        items = [Item(None, value, text_of(value, text))]
        return self._inside.write(
            namespace, items, options, author=author, message=message, run=run
        )[0]

    # Care

    def stats(self) -> dict[str, Any]:
        """How much it holds, in which namespaces, and what is recorded of it."""
        settings, usage = self.settings, self._inside.writer.usage()
        return {
            "name": self._inside.name,
            "items": usage.items,
            "bytes": usage.bytes,
            "namespaces": {
                name: len(self._db.list_keys(self._inside.prefix + name))
                for name in self.list_namespaces()
            },
            "embedder": settings.embedder,
            "max_items": settings.max_items,
            "max_bytes": settings.max_bytes,
            "keep": settings.keep,
            "versions": settings.versions,
            "patterns": [rule._asdict() for rule in settings.rules],
        }

    def export(self, *, history: bool = False, as_of: AsOf = None) -> Iterator[dict[str, Any]]:
        """Everything it holds at a moment as records ready for JSON, by namespace and key.

        Args:
            history: Every put and delete of those keys, oldest first, in place of what they hold.
        """
        cut = self._db.as_of(as_of).seq
        for namespace in self.list_namespaces(as_of=cut):
            whole = self._inside.prefix + namespace
            found = {row.key for row in self._db.query(whole, select=[], as_of=cut)}
            for key in self._db.list_keys(whole, as_of=cut):
                if history:
                    versions = self._db.history(whole, key, as_of=cut)
                else:
                    versions = [self._db.version(whole, key, as_of=cut)]
                for version in versions:
                    yield _exported(namespace, version, hidden=key not in found)

    def reembed(
        self, embedder: Embedder, *, author: str | None = None, message: str | None = None
    ) -> int:
        """Give every present key that has a vector one of another embedder, which fills it then.

        Returns:
            How many versions were written.
        """
        new = as_embedder(embedder)
        written = sum(
            self._db.reembed(name, new.name, new, author=author, message=message)
            for name in self._inside.writer.namespaces()
        )
        self._inside.recorded.change(
            lambda known: replace(known, embedder=new.name), author=author, message=message
        )
        self._inside.own = new
        return written

    def drop(
        self, *, erase: bool = False, author: str | None = None, message: str | None = None
    ) -> int:
        """Delete everything in it, at every valid time, and its settings; returns how many keys.

        The past stays readable, and the name may be used anew.

        Args:
            erase: Remove all values and vectors for good as well, from the past too.
        """
        keys = dict.fromkeys(
            (version.namespace, version.key)
            for version in self._db.changes()
            if not version.is_annotation and version.namespace.startswith(self._inside.prefix)
        )
        present = sum(
            len(self._db.list_keys(namespace)) for namespace in self._inside.writer.namespaces()
        )
        if erase and keys:
            self._db.erase(list(keys), author=author, message=message)
        if keys:
            with self._db.transaction(author=author, message=message) as tx:
                for namespace in dict.fromkeys(namespace for namespace, _ in keys):
                    some = [key for name, key in keys if name == namespace]
                    tx.delete_many(namespace, some, valid_from=_BEGINNING)
        self._inside.recorded.forget(author=author, message=message)
        return present

    def _options(
        self,
        causes: Sequence[CauseLike],
        ttl: float | timedelta | None,
        valid_from: When | None,
        valid_to: When | None,
    ) -> dict[str, Any]:
        return {
            "causes": self._inside.causes(causes), "ttl": ttl, "valid_from": valid_from,
            "valid_to": valid_to,
        }  # fmt: skip

    def ai_context(self) -> AgentMemory:
        """The memory of an agent, kept in this workspace.

        Words are compared by their English stems, so that "deploys" finds "deployed" (where
        PyStemmer is installed when the first thing is remembered). For another language say, in
        the database, `configure_text("<workspace>/memory", fields=["text", "tags"],
        stemmer="german")`.
        """
        from koru_delta.workspace.memory import AgentMemory

        return AgentMemory(self)


def _ruled(known: Settings, rules: Sequence[Rule]) -> Settings:
    """The settings with rules added.

    Raises:
        InvalidDataError: the same keys follow another pattern already.
    """
    said = {(rule.namespace, rule.prefix): rule.pattern for rule in known.rules}
    for rule in rules:
        before = said.setdefault((rule.namespace, rule.prefix), rule.pattern)
        if before != rule.pattern:
            raise InvalidDataError(
                f"keys that begin with {rule.prefix!r} in {rule.namespace!r} follow the pattern "
                f"{before!r}, for good; take another namespace or prefix for {rule.pattern!r}"
            )
    return replace(known, rules=tuple(Rule(*place, how) for place, how in sorted(said.items())))


def _exported(namespace: str, version: Version, *, hidden: bool) -> dict[str, Any]:
    def iso(when: datetime | None) -> str | None:
        return None if when is None else when.isoformat()

    return {
        "namespace": namespace, "key": version.key, "operation": version.operation,
        "value": None if version.is_erased else version.value, "version": version.id,
        "time": version.time.isoformat(), "valid_from": version.valid_from.isoformat(),
        "valid_to": iso(version.valid_to), "expires_at": iso(version.expires_at),
        "hidden": hidden, "erased": version.is_erased, "author": version.author,
        "message": version.message, "run": version.run,
        "causes": [list(cause) for cause in version.causes],
    }  # fmt: skip
