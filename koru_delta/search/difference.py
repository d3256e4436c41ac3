"""What a question finds at two moments, what changed between them, and why.

A change is put down to what happened to versions in between: to the version itself where
that is enough, else to the others that pushed it down or made room. Every cause is tried:
the question is asked once more as of the later moment, but with the named keys as they
were at the earlier one. Only where that undoes the change is it `verified`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from koru_delta.causal import Cut, Version
from koru_delta.search.answers import Match, Matches

ChangeKind = Literal["entered", "left", "moved", "edited"]
CauseName = Literal[
    "new", "restored", "unhidden", "began", "edited", "re-embedded", "deleted", "expired",
    "ended", "hidden", "superseded", "filtered", "statistics",
]  # fmt: skip
_MOST_TRIED: Final = 64  # keys that are undone one by one
_MOST_LINES: Final = 200  # of a text diff


class Happened(NamedTuple):
    """What happened to a key between two moments, and the version that did it (if one did)."""

    key: str
    name: CauseName
    version: Version | None

    def __str__(self) -> str:
        by = "" if self.version is None else f" by {self.version.id[:12]} at {self.version.time}"
        return f"{self.key}: {self.name}{by}"


@dataclass(frozen=True, slots=True)
class Change:
    """One hit that entered, left, moved, or stayed in place with another version.

    `causes` are what made it so, in no order of weight; undone together they undo the
    change where `verified` says so. Ranks count from 1.
    """

    key: str
    kind: ChangeKind
    before: Match | None
    after: Match | None
    rank_before: int | None
    rank_after: int | None
    causes: tuple[Happened, ...]
    verified: bool
    text_diff: str = ""

    def __str__(self) -> str:
        places = f"{self.rank_before or '-'} -> {self.rank_after or '-'}"
        mine = [cause for cause in self.causes if cause.key == self.key]
        others = [cause for cause in self.causes if cause.key != self.key]
        reasons = [cause.name for cause in mine]
        if others:
            verb = "made room" if self._rose else "outranked"
            reasons.append(f"{verb}: {', '.join(f'{c.key} ({c.name})' for c in others)}")
        doubt = "" if self.verified else " [not confirmed]"
        return f"{self.key}: {self.kind} ({places}), {'; '.join(reasons) or 'unknown'}{doubt}"

    @property
    def _rose(self) -> bool:
        return self.rank_before is None or (
            self.rank_after is not None and self.rank_after < self.rank_before
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "key": self.key,
            "kind": self.kind,
            "rank_before": self.rank_before,
            "rank_after": self.rank_after,
            "version_before": None if self.before is None else self.before.version.id,
            "version_after": None if self.after is None else self.after.version.id,
            "causes": [
                {
                    "key": cause.key,
                    "name": cause.name,
                    "version": None if cause.version is None else cause.version.id,
                }
                for cause in self.causes
            ],
            "verified": self.verified,
            "text_diff": self.text_diff,
        }


@dataclass(frozen=True, slots=True)
class RetrievalDiff:
    """How the answer to one question changed between two moments; `changes` by rank after.

    `unchanged` are the keys that have the same version at the same rank.
    """

    namespace: str
    query: str | None
    before: Matches
    after: Matches
    earlier: Cut
    later: Cut
    changes: tuple[Change, ...]
    unchanged: tuple[str, ...] = field(default=())

    def __iter__(self) -> Any:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __str__(self) -> str:
        if not self.changes:
            return f"no change: {len(self.unchanged)} hits are the same"
        return "\n".join(str(change) for change in self.changes)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "namespace": self.namespace,
            "query": self.query,
            "earlier": self.earlier.seq,
            "later": self.later.seq,
            "changes": [change.to_dict() for change in self.changes],
            "unchanged": list(self.unchanged),
        }


class Facts(NamedTuple):
    """What a comparison needs to know of the log, told by whoever has it.

    `happened` says for keys what happened to them between the moments: nothing for those
    whose version, and whether it may be found, is the same. `again` asks the question as
    of the later moment, with some keys as they were at the earlier; `changed` are all keys
    that something happened to.
    """

    happened: Callable[[Iterable[str]], Mapping[str, Happened]]
    again: Callable[[frozenset[str]], Sequence[tuple[str, int]]]
    changed: Callable[[], Iterable[str]]
    text_of: Callable[[Version], str]


def compare(before: Matches, after: Matches, facts: Facts) -> tuple[list[Change], list[str]]:
    """The changes from one answer to the other, and the keys that stayed as they were."""
    old = {match.key: (rank, match) for rank, match in enumerate(before, 1)}
    new = {match.key: (rank, match) for rank, match in enumerate(after, 1)}
    happened = facts.happened([*old, *(key for key in new if key not in old)])
    worlds: dict[frozenset[str], dict[str, tuple[int, int]]] = {}

    def world(undone: frozenset[str]) -> dict[str, tuple[int, int]]:
        """Of each hit its rank and version, with some keys as they were."""
        known = worlds.get(undone)
        if known is None:
            found = facts.again(undone)
            known = worlds[undone] = {key: (rank, seq) for rank, (key, seq) in enumerate(found, 1)}
        return known

    changes: list[Change] = []
    unchanged: list[str] = []
    for key in [*new, *(key for key in old if key not in new)]:
        rank_before, match_before = old.get(key, (None, None))
        rank_after, match_after = new.get(key, (None, None))
        same = (
            match_before is not None
            and match_after is not None
            and match_before.version == match_after.version
        )
        if same and rank_before == rank_after:
            unchanged.append(key)
            continue
        kind: ChangeKind
        if match_before is None:
            kind = "entered"
        elif match_after is None:
            kind = "left"
        else:
            kind = "edited" if rank_before == rank_after else "moved"
        wanted = None
        if match_before is not None and rank_before is not None:
            wanted = (rank_before, match_before.version.seq)
        causes, verified = _causes(key, kind, wanted, happened, world, facts)
        diff = ""
        if match_before is not None and match_after is not None and not same:
            diff = _text_diff(facts.text_of(match_before.version), facts.text_of(match_after.version))
        changes.append(
            Change(
                key, kind, match_before, match_after, rank_before, rank_after,
                causes, verified, diff,
            )
        )  # fmt: skip
    return changes, unchanged


def _causes(
    key: str,
    kind: ChangeKind,
    wanted: tuple[int, int] | None,
    happened: Mapping[str, Happened],
    world: Callable[[frozenset[str]], dict[str, tuple[int, int]]],
    facts: Facts,
) -> tuple[tuple[Happened, ...], bool]:
    """Least sets first: what undoes the change, and whether it does."""

    def undone(by: frozenset[str]) -> bool:
        found = world(by).get(key)
        if wanted is None or kind == "left":  # it is about being there at all
            return (found is None) == (wanted is None)
        return found == wanted

    own = happened.get(key)
    if own is not None and undone(frozenset({key})):
        return (own,), True
    others = [each for each in happened if each != key][:_MOST_TRIED]
    for other in others:
        if undone(frozenset({other})):
            return (happened[other],), True
    together = [key, *others] if own is not None else others
    if together and undone(frozenset(together)):
        return tuple(happened[each] for each in _least(together, undone)), True
    # Nothing among the hits explains it: something beyond them does.
    every = list(facts.changed())
    if undone(frozenset(every)):
        beyond = [each for each in every if each not in happened]
        known = [happened[each] for each in together]
        told = facts.happened(beyond[:_MOST_TRIED])
        if len(beyond) <= _MOST_TRIED:
            least = _least([*together, *beyond], undone)
            both = {**happened, **told}
            return tuple(both[each] for each in least if each in both), True
        return (*known, Happened(key, "statistics", None)), True
    return () if own is None else (own,), False


def _least(keys: Sequence[str], undone: Callable[[frozenset[str]], bool]) -> list[str]:
    """Leave out, one by one, what is not needed."""
    left = list(keys)
    for each in keys:
        fewer = [other for other in left if other != each]
        if fewer and undone(frozenset(fewer)):
            left = fewer
    return left


def _text_diff(before: str, after: str) -> str:
    if before == after:
        return ""
    lines = list(
        difflib.unified_diff(
            before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=1
        )
    )
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"... {len(lines) - _MOST_LINES} more lines"]
    return "\n".join(lines)
