"""Reading what came about, and from what: versions of keys, commits, causes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from koru_delta.causal import Commit, Version
from koru_delta.database.arguments import cause_kinds
from koru_delta.database.handle import Handle
from koru_delta.log.causes import Walk
from koru_delta.log.moments import TAGS, AsOf
from koru_delta.search.query import check_page
from koru_delta.values import check_key, decode

if TYPE_CHECKING:  # loaded where it is used
    from koru_delta.ingest.lineage import Lineage, Reference
    from koru_delta.ingest.quarantine import Quarantine


class HistoryVerbs(Handle):
    """What was written, and what came from what."""

    def history(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = None,
        reverse: bool = False,
        limit: int | None = None,
        include_annotations: bool = False,
    ) -> list[Version]:
        """Every put and delete of a key, oldest first unless `reverse`; [] if never written.

        Args:
            include_annotations: Every hide and unhide of its versions as well.
        """
        check_key(namespace, key)
        check_page(limit)
        cut = self._cut(as_of)
        return self._log.history(
            namespace, key, cut, reverse=reverse, limit=limit, annotations=include_annotations
        )

    def diff(self, before: Version | str, after: Version | str) -> list[dict[str, Any]]:
        """What turns the value of one version into that of another: an RFC 6902 JSON Patch.

        A tombstone counts as null. Equal values give [].
        """
        import jsonpatch

        old = self._log.version(before, until=self._until)
        new = self._log.version(after, until=self._until)
        patch: list[dict[str, Any]] = jsonpatch.make_patch(old.value, new.value).patch
        return patch

    def commits(
        self,
        *,
        after: AsOf = 0,
        as_of: AsOf = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Commit]:
        """Commits, oldest first unless `reverse`: `after` exclusive, up to `as_of` inclusive."""
        check_page(limit)
        start, until = self._log.cut(after), self._cut(as_of)
        return self._log.commits(start, until, reverse=reverse, limit=limit)

    def changes(self, after: AsOf = 0, *, as_of: AsOf = None) -> Iterator[Version]:
        """Every version in log order, annotations too: `after` exclusive, `as_of` inclusive."""
        start, until = self._log.cut(after), self._cut(as_of)
        return self._log.changes(start, until)

    def tags(self) -> dict[str, int]:
        """Every tag and the position it names, by name."""
        cut = self._cut(None)
        found = self._log.engine.visible_keys(TAGS, cut.seq, cut.clock, cut.clock)
        return {name: int(decode(entry.body or b"null")["seq"]) for name, entry in found}

    def ancestors(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
        as_of: AsOf = None,
    ) -> list[Version]:
        """The versions this one came from, over its causes: nearest first, then log order.

        Args:
            kinds: Kinds of cause to follow; None is all.
            max_hops: How far to go; None is to the end.
        """
        return self._walk(version, kinds, max_hops, as_of, up=True)

    def descendants(
        self,
        version: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
        as_of: AsOf = None,
    ) -> list[Version]:
        """The versions that came from this one: as `ancestors`, the other way."""
        return self._walk(version, kinds, max_hops, as_of, up=False)

    def path(
        self,
        effect: Version | str,
        cause: Version | str,
        *,
        kinds: Sequence[str] | None = None,
        as_of: AsOf = None,
    ) -> list[Version]:
        """A shortest way from a version up to one of its ancestors, both included; [] if none."""
        cut, allowed = self._cut(as_of), cause_kinds(kinds)
        start, goal = self._log.version(effect), self._log.version(cause)
        return self._log.versions(
            Walk(self._log.engine, cut.seq, allowed).path(start.seq, goal.seq)
        )

    def lineage(
        self,
        ref: Reference,
        direction: Literal["up", "down"] = "up",
        *,
        kinds: Sequence[str] | None = None,
        max_hops: int | None = None,
        as_of: AsOf = None,
    ) -> Lineage:
        """What something came from, or with `"down"` what came of it, to print or to walk.

        From a chunk that was found up to its document, commit and run: along every cause,
        and from a document to the record of the run that wrote it (kind `"written_in"`).

        Args:
            ref: A version or its id, a match, a `Run`, or `(namespace, key)`: the version
                present then, downwards every version the key has had.
            kinds: Kinds of step to take; None is all.
            max_hops: How far to go; None is to the end.
            as_of: With the causes known then.

        Raises:
            KeyNotFoundError, UnknownVersionError: there is no such thing at that moment.
            QueryError: the direction or a kind is none.
        """
        from koru_delta.ingest.lineage import trace

        check_page(max_hops)
        return trace(
            self._log, ref, direction, kinds=kinds, max_hops=max_hops, cut=self._cut(as_of)
        )

    def quarantines(self, *, as_of: AsOf = None) -> list[Quarantine]:
        """The quarantines that stand, oldest first."""
        from koru_delta.ingest.quarantine import active

        return active(self._log, self._cut(as_of))

    def _walk(
        self,
        version: Version | str,
        kinds: Sequence[str] | None,
        max_hops: int | None,
        as_of: AsOf,
        *,
        up: bool,
    ) -> list[Version]:
        check_page(max_hops)
        cut, allowed = self._cut(as_of), cause_kinds(kinds)
        start = self._log.version(version)
        walk = Walk(self._log.engine, cut.seq, allowed)
        rings = walk.rings([start.seq], "up" if up else "down", max_hops)
        return self._log.versions([seq for ring in rings for seq in ring])
