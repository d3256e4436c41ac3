"""The memories of a workspace as they are kept: keys, versions, spans of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import Any, Final

from blake3 import blake3

from koru_delta.causal import FOREVER, Version, When, microseconds, moment
from koru_delta.errors import KeyNotFoundError, MissingExtraError, UnknownMemoryError
from koru_delta.intents import CauseLike
from koru_delta.log.log import LIFECYCLE
from koru_delta.log.moments import AsOf
from koru_delta.search.answers import Match
from koru_delta.search.text.analysis import Analyzer
from koru_delta.values import canonical_bytes
from koru_delta.workspace.inside import Item
from koru_delta.workspace.patterns import Outcomes, Span, timeline
from koru_delta.workspace.reads import OUTCOMES, outcomes_of
from koru_delta.workspace.recollection import Memory, is_memory, memory_of
from koru_delta.workspace.settings import Settings
from koru_delta.workspace.workspace import Workspace
from koru_delta.workspace.writes import Intended

MEMORY: Final = "memory"  # the namespace of all three
CLAIMS: Final = "memory.claims"  # which facts are also asserted apart
STEMMER: Final = "english"
_PATTERNS: Final[dict[str, Any]] = {
    "episode:": "event", "fact:": "reference", "claim:": "reference", "procedure:": "procedure",
}  # fmt: skip


class Shelf:
    """Where an agent's memories are kept."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._inside = workspace.inside
        self.db = self._inside.db
        self.whole = self._inside.whole(MEMORY)
        self.index = self._inside.whole(CLAIMS)

    def remember(
        self,
        items: Sequence[Item],
        *,
        prefix: str = "",
        besides: Sequence[Intended] = (),
        causes: Sequence[CauseLike],
        ttl: float | timedelta | None,
        author: str | None,
        run: str | None,
    ) -> list[Memory]:
        """Write memories in one commit, into a workspace that knows their rules by then."""
        workspace = self.workspace
        if workspace.settings.pattern(MEMORY, "procedure:") is None:
            if self._inside.recorded.words(self.whole) is None:  # nobody said how before
                self.db.configure_text(
                    self.whole, fields=["text", "tags"], stemmer=stemmer(), author=author
                )
            for prefixed, pattern in _PATTERNS.items():
                workspace.pattern(MEMORY, pattern, prefix=prefixed, author=author)
        options = {"causes": self._inside.causes(causes), "ttl": ttl}
        written = self._inside.write(
            MEMORY, items, options, prefix=prefix, besides=besides, author=author, run=run
        )
        return [memory_of(version) for version in written]

    def memory(
        self,
        version: Version,
        as_of: AsOf,
        valid_at: When | None = None,
        match: Match | None = None,
        relevance: float | None = None,
    ) -> Memory:
        """The memory that a version holds, as it stood at a moment and a valid time."""
        span: Span | None = None
        outcomes: Outcomes | None = None
        kind = version.key.partition(":")[0]
        if kind in ("fact", "claim"):
            when = microseconds(self.db.as_of(as_of).time if valid_at is None else valid_at)
            spans = [s for s in timeline(self.entries(version.key, as_of)) if s.version == version]
            here = [each for each in spans if each.valid_from <= when < each.valid_to]
            span = next(iter(here or spans), None)
        elif kind == "procedure":
            outcomes = outcomes_of(self.workspace, version, as_of)
        return memory_of(version, span=span, outcomes=outcomes, match=match, relevance=relevance)

    def entries(self, id: str, as_of: AsOf) -> list[Version]:
        """Every version of a memory and what was said of it, latest first."""
        return self.db.history(self.whole, id, as_of=as_of, reverse=True, include_annotations=True)

    def claims(self, key: str, as_of: AsOf = None) -> list[str]:
        """The ids under which a fact is asserted apart, now or at some other valid time."""
        return self.db.list_keys(self.index, prefix=claim_prefix(key), as_of=as_of)

    def spans(self, key: str, as_of: AsOf) -> list[tuple[str, Span]]:
        """Everything a fact says, by the id under which it does, at a moment."""
        clock = self.db.as_of(as_of).time
        return [
            (id, span)
            for id in (f"fact:{key}", *self.claims(key, as_of))
            for span in timeline(self.entries(id, as_of))
            if span.version.expires_at is None or clock < span.version.expires_at
            if is_memory(span.version.value)
        ]

    def known(self, id: str) -> Memory:
        """A memory as it stands, or as it last stood where it says nothing of the present.

        Raises:
            UnknownMemoryError: there never was one.
        """
        try:
            return self.memory(self.db.version(self.whole, id), None)
        except KeyNotFoundError:
            return memory_of(self.puts(id)[-1])

    def puts(self, id: str) -> list[Version]:
        """Every put of a memory.

        Raises:
            UnknownMemoryError: there never was one.
        """
        puts = [each for each in self.db.history(self.whole, id) if not each.is_tombstone]
        if not puts:
            raise UnknownMemoryError(self.whole, id)
        return puts

    def outcomes(self, id: str) -> list[tuple[str, str]]:
        """Where what came of a procedure is kept; nothing, of other memories."""
        whole = self.whole + OUTCOMES
        return [(whole, row.key) for row in self.db.query(whole, {"procedure": id}, select=[])]

    def summary_of(self, id: str) -> Version | None:
        """The summary in place of which a memory is out of recall; None if it is not for one.

        As it was made.
        """
        hide = next((each for each in self.entries(id, None) if each.is_annotation), None)
        if hide is None or hide.operation != "hide":
            return None
        for cause in hide.causes:
            record = self.db.get_version(cause.id)
            if cause.kind == "caused_by" and record.namespace == LIFECYCLE:
                said: Any = record.value
                return self.db.history(said["namespace"], said["key"], limit=1)[0]
        return None

    def end(
        self, ids: Sequence[str], length: int | None, *, author: str | None, message: str
    ) -> list[Version]:
        """Write memories anew to end in so many microseconds, or as they were to end at first.

        What ends before that by itself is left as it is.
        """

        def plan(_: Settings) -> list[Intended]:
            now = self.db.as_of(None).time
            made = []
            for id in ids:
                entries = self.entries(id, None)
                last: Version | None = entries[0] if entries else None
                for span in timeline(entries):
                    ends = span.version.expires_at
                    if length is None:
                        wanted = _first(span.version, entries).expires_at
                        if ends == wanted or (wanted is not None and wanted <= now):
                            continue
                    else:
                        wanted = now + timedelta(microseconds=length)
                        if ends is not None and ends <= wanted:
                            continue
                    each = self._anew(span)
                    each.options["expires_at"] = wanted
                    if last is not None:
                        each.options["if_last"], last = last, None
                    made.append(each)
            return made

        model = self.workspace.settings.embedder
        return self._inside.writer.commit(plan, model=model, author=author, message=message)

    def _anew(self, span: Span) -> Intended:
        """The same memory once more, where it holds."""
        version = span.version
        vectors = self.db.vectors(version)
        model = self.workspace.settings.embedder
        return Intended(
            self.whole, version.key, version.value,
            vectors.get(model) if model is not None else None, planned=True,
            options={
                "valid_from": moment(span.valid_from),
                "valid_to": None if span.valid_to == FOREVER else moment(span.valid_to),
                "causes": [("derived_from", version)],
            },
        )  # fmt: skip


@cache
def stemmer() -> str | None:
    """What makes "deploys" find "deployed"; None where that is not installed."""
    try:
        Analyzer(STEMMER)
    except MissingExtraError:
        return None
    return STEMMER


def claim_prefix(key: str) -> str:
    """How the ids begin under which a fact is asserted apart."""
    return f"claim:{blake3(key.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}:"


def says(span: Span) -> bytes:
    """What a fact says, to be compared."""
    value: Any = span.version.value
    return canonical_bytes(value.get("value"))


def _first(version: Version, entries: Sequence[Version]) -> Version:
    """The version of a memory that this one was written anew from."""
    own = {entry.id: entry for entry in entries}
    while True:
        before = [own[id] for kind, id in version.causes if kind == "derived_from" and id in own]
        if not before:
            return version
        [version] = before
