"""The inside of a workspace: what is its own, and how things are written into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import Any, Final

from blake3 import blake3

from koru_delta.causal import FOREVER, Cause, Version, microseconds, moment
from koru_delta.embedders import Embedder, TextEmbedder, as_embedder
from koru_delta.errors import (
    EmbedderError,
    InvalidDataError,
    IsolationError,
    ModelMismatchError,
    QueryError,
)
from koru_delta.intents import CauseLike
from koru_delta.search.causality import CausalFilter
from koru_delta.values import (
    MAX_NAMESPACE_BYTES,
    Value,
    Vector,
    as_vector,
    canonical_bytes,
    check_key,
    check_name,
)
from koru_delta.workspace.patterns import timeline, until
from koru_delta.workspace.settings import Recorded, Settings
from koru_delta.workspace.verbs import Verbs
from koru_delta.workspace.writes import RESERVED, Intended, Writer

_WALKS: Final = ("derived_from", "descendants_of", "ancestors_of", "related_to")


@dataclass(frozen=True, slots=True)
class Item:
    """Something to store: its key (None: made up), its value, and what is embedded of it.

    `options` are of its own; `siblings` names keys that say the same apart, which it ends as
    well where it follows the pattern "reference"; all of them begin with `watched`. `said` is
    the field of the value that is what such a reference says; None is all of it.
    """

    key: str | None
    value: Value
    text: str | None
    options: Mapping[str, Any] | None = None
    siblings: Callable[[], Sequence[str]] | None = None
    watched: str | None = None
    said: str | None = None


class Inside:
    """One workspace: its border, its embedder, and its writes."""

    def __init__(self, db: Verbs, recorded: Recorded, name: str, embedder: Embedder | None) -> None:
        self.db, self.recorded, self.name = db, recorded, name
        self.prefix = f"{name}/"
        self.own = None if embedder is None else as_embedder(embedder)
        self.writer = Writer(db, recorded, name)
        known = self.settings.embedder
        if self.own is not None and known not in (None, self.own.name):
            raise ModelMismatchError(f"{name}/*", self.own.name, (str(known),))

    @property
    def settings(self) -> Settings:
        """What is recorded of it."""
        return self.recorded.read()[0]

    @property
    def embedder(self) -> TextEmbedder | None:
        """Its own, or the database's if that filled it."""
        if self.own is not None:
            return self.own
        known, shared = self.settings.embedder, self.db.embedder
        return shared if shared is not None and known in (None, shared.name) else None

    # Writing

    def write(
        self,
        namespace: str,
        items: Sequence[Item],
        options: Mapping[str, Any],
        *,
        prefix: str = "",
        besides: Sequence[Intended] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """What `store`, `store_many` and `add` do, and what memories are written by.

        Args:
            items: With what is embedded of each. A key of None is made up after `prefix`.
            options: Of every put.
            besides: What else belongs into the commit.
        """
        whole = self.whole(namespace)
        for item in items:
            check_key(whole, "-" if item.key is None else item.key)
        vectors, model = self._embedded([item.text for item in items])
        turn = count()

        def plan(settings: Settings) -> list[Intended]:
            now, tried = self.db.as_of(None).time, next(turn)
            made: list[Intended] = []
            taken: set[str] = set()
            for place, (item, vector) in enumerate(zip(items, vectors, strict=True)):
                key = item.key
                if key is None:
                    among = None if len(items) == 1 else place
                    key = _new_key(prefix, now, among, item.value, tried, taken)
                taken.add(key)
                given = {**options, **(item.options or {})}
                each = Intended(whole, key, item.value, vector, options=given)
                pattern = settings.pattern(namespace, key)
                if item.key is None:
                    each.options["if_last"] = None
                    each.planned = True  # under another key
                elif pattern == "event":
                    each.once = True
                made.append(each)
                if pattern == "reference":
                    made += self._taken_over(each, item)
            # In the order of the items, so that their versions come first.
            made.sort(key=lambda each: each.delete or each.watch)
            return [*made, *besides]

        return self.writer.commit(plan, model=model, author=author, message=message, run=run)[
            : len(items)
        ]

    # The border

    def whole(self, namespace: str) -> str:
        """What a namespace inside is called in the database.

        Raises:
            InvalidDataError: it cannot be called so.
        """
        given: object = namespace
        if isinstance(given, str) and given.startswith(RESERVED):
            raise InvalidDataError(
                f"namespace {namespace!r} starts with '$', which is kept for KoruDelta; "
                "choose another first character"
            )
        check_name("namespace", namespace, MAX_NAMESPACE_BYTES - len(self.prefix.encode()))
        return self.prefix + namespace

    def causes(self, causes: Sequence[CauseLike]) -> list[tuple[str, Version]]:
        """Causes of something stored here.

        Raises:
            IsolationError: one is not of this workspace.
        """
        if isinstance(causes, (str, Version, Cause)) or not isinstance(causes, Sequence):
            raise InvalidDataError("causes is a list of versions or of (kind, version) pairs")
        found = []
        for cause in causes:
            kind, target = cause if isinstance(cause, tuple) else ("caused_by", cause)
            if not isinstance(target, (str, Version)):
                raise InvalidDataError(
                    f"a cause names a version or its id, not {type(target).__name__}"
                )
            found.append((kind, self.mine(target)))
        return found

    def mine(self, reference: Version | str) -> Version:
        """A version of this workspace.

        Raises:
            IsolationError: it is of another one, or of none.
        """
        version = self.db.get_version(reference)
        if not version.namespace.startswith(self.prefix):
            raise IsolationError(self.name, f"version {version.id[:12]}")
        return version

    def own_filter(self, causal: CausalFilter) -> CausalFilter:
        """The filter, with the namespaces of its anchors named whole.

        Raises:
            QueryError: it is no `CausalFilter`.
            IsolationError: an anchor is not of this workspace.
        """
        given: object = causal
        if not isinstance(given, CausalFilter):
            raise QueryError(f"causal is a CausalFilter, not {type(given).__name__}")
        changed: dict[str, Any] = {}
        for name in _WALKS:
            anchors = getattr(causal, name)
            if anchors is not None:
                changed[name] = [
                    (self.whole(anchor[0]), anchor[1])
                    if isinstance(anchor, tuple) else self.mine(anchor)
                    for anchor in anchors
                ]  # fmt: skip
        return replace(causal, **changed) if changed else causal

    def filling(self, *, needed: bool = False) -> TextEmbedder | None:
        """What embeds the texts that are stored.

        Raises:
            EmbedderError: another embedder filled the workspace, or it is needed and none.
            ModelMismatchError: it was given another one meanwhile.
        """
        embedder, known = self.embedder, self.settings.embedder
        if embedder is not None and known not in (None, embedder.name):
            raise ModelMismatchError(f"{self.name}/*", embedder.name, (str(known),))
        if embedder is None and (needed or known is not None):
            filled = "has no embedder" if known is None else f"is filled by {known!r}"
            raise EmbedderError(
                f"workspace {self.name!r} {filled}; open it with "
                f"workspace({self.name!r}, embedder=...), or the database with embedder="
            )
        return embedder

    def _embedded(self, texts: Sequence[str | None]) -> tuple[list[Vector | None], str | None]:
        """A vector for each text that is one, and what made them."""
        said = [text for text in texts if text is not None and text.strip()]
        embedder = self.filling() if said else None
        if embedder is None:
            return [None for _ in texts], None
        made = iter(embedder.embed_documents(said))
        vectors = [
            as_vector(next(made)) if text is not None and text.strip() else None for text in texts
        ]
        if self.settings.embedder is None:  # only now: one that fails fills nothing
            self.recorded.change(
                lambda known: _filled(known, self.name, embedder.name), author=None, message=None
            )
        return vectors, embedder.name

    def _taken_over(self, each: Intended, item: Item) -> list[Intended]:
        """Let a reference hold up to the next change that is known of; what it ends apart.

        What says the same as what holds has held since then. It is planned again if somebody
        writes the key meanwhile, or one of its siblings.
        """
        namespace, options = each.namespace, each.options
        last = self.db.history(namespace, each.key, reverse=True, limit=1, include_annotations=True)
        options["if_last"] = last[0] if last else None
        each.planned = True
        keys = [] if item.siblings is None else item.siblings()
        others = [(key, self._latest_first(namespace, key)) for key in keys]
        # Only now: what has been read of others who say what is true now is no change to come.
        now = self.db.as_of(None).time
        since, stopped = options.get("valid_from"), options.get("valid_to")
        starts = microseconds(since or now)
        known = [entries for _, entries in others]
        if last and not _holds_on(last[0], starts):
            known.append(self._latest_first(namespace, each.key))
        if stopped is None:
            ends = [end for end in (until(entries, starts) for entries in known) if end is not None]
            stopped = options["valid_to"] = moment(min(ends)) if ends else None
        stops = FOREVER if stopped is None else microseconds(stopped)
        if since is None and stopped is not None:
            since = options["valid_from"] = now  # it may be over before this is committed
        elif since is None and last and _says_so(last[0], each.value, now, item.said):
            options["valid_from"] = last[0].valid_from
        watch = [] if item.watched is None else [Intended(namespace, item.watched, watch=True)]
        return watch + [
            Intended(
                namespace, key, delete=True, planned=True,
                options={"valid_from": since, "valid_to": stopped, "if_last": entries[0]},
            )
            for key, entries in others
            if any(span.valid_from < stops and starts < span.valid_to for span in timeline(entries))
        ]  # fmt: skip

    def _latest_first(self, namespace: str, key: str) -> list[Version]:
        return self.db.history(namespace, key, reverse=True, include_annotations=True)


def _holds_on(last: Version, starts: int) -> bool:
    """Whether the last entry of a key leaves nothing to change after a time."""
    return (
        not last.is_annotation and last.valid_to is None and microseconds(last.valid_from) <= starts
    )


def _says_so(last: Version, value: Value, now: datetime, said: str | None) -> bool:
    """Whether what a key last held says the same, and does so still."""
    if last.is_tombstone or last.is_erased or not _holds_on(last, microseconds(now)):
        return False
    if last.expires_at is not None and last.expires_at <= now:
        return False
    return _part(last.value, said) == _part(value, said)


def _part(value: Value, said: str | None) -> bytes:
    return canonical_bytes(value.get(said) if said and isinstance(value, dict) else value)


def text_of(value: Value, text: str | None) -> str | None:
    """What is embedded of a value."""
    if text is not None:
        if not isinstance(text, str):
            raise InvalidDataError(f"text is a string, not {type(text).__name__}")
        return text
    if isinstance(value, dict):
        value = value.get("text")
    return value if isinstance(value, str) else None


def _new_key(
    prefix: str, now: datetime, place: int | None, value: Value, tried: int, taken: set[str]
) -> str:
    """A key nobody else is likely to have: its time, and a short name of the value.

    `place` is where it stands among others of one commit, so that they are in this order.
    """
    short = blake3(canonical_bytes(value)).hexdigest()[:8]
    among = "" if place is None else f"{place:06}-"
    key = f"{prefix}{now:%Y%m%dT%H%M%S}.{now.microsecond:06}Z-{among}{short}"
    number = tried
    while number or key in taken:
        number = max(number, 1)
        longer = f"{key}-{number}"
        if longer not in taken:
            return longer
        number += 1
    return key


def _filled(known: Settings, workspace: str, model: str) -> Settings:
    if known.embedder not in (None, model):
        raise ModelMismatchError(f"{workspace}/*", model, (str(known.embedder),))
    return replace(known, embedder=model)
