"""What a question finds at two moments, what changed between them, and why.

A change is put down to what happened to versions in between: to the version itself where
that is enough, else to the others that pushed it down or made room. Every cause is tried:
the question is asked once more as of the later moment, but with the named keys as they
were at the earlier one. Only where that undoes the change is it `verified`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from koru_delta.causal import Cut, Version, microseconds
from koru_delta.errors import KeyNotFoundError
from koru_delta.log import CausalLog
from koru_delta.log.log import TEXTS
from koru_delta.search.answers import Answers, Match, Matches
from koru_delta.search.explained import explained
from koru_delta.search.hybrid import Asked, Question
from koru_delta.search.records import Records, Swap
from koru_delta.search.texts import TextIndex, TextSettings

ChangeKind = Literal["entered", "left", "moved", "edited"]
CauseName = Literal[
    "new", "restored", "unhidden", "began", "edited", "re-embedded", "deleted", "expired",
    "ended", "hidden", "superseded", "filtered", "statistics", "settings",
]  # fmt: skip
_MOST_TRIED: Final = 64  # keys that are undone one by one
_EDITS_AT_ONCE: Final = 16  # versions of a key
_MOST_LINES: Final = 200  # of a text diff
_LINE: Final = 100  # characters
_LIKE: Final = 0.5  # in words; less is another text, unless one edit brought it and took the other
_CAME: Final[tuple[CauseName, ...]] = ("new", "restored", "began")
_GONE: Final[tuple[CauseName, ...]] = ("deleted", "ended")


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
    change where `verified` says so. Ranks count from 1. Where an edit of a document put one
    chunk in the place of another, that is one change: `key` is the new chunk's,
    `counterpart` the key of the one before it, None everywhere else.
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
    counterpart: str | None = None

    def __str__(self) -> str:
        places = f"{self.rank_before or '-'} -> {self.rank_after or '-'}"
        mine = [cause for cause in self.causes if self.is_own(cause)]
        others = [cause for cause in self.causes if not self.is_own(cause)]
        reasons: list[str] = list(dict.fromkeys(cause.name for cause in mine))
        if others:
            verb = "made room" if self._rose else "outranked"
            reasons.append(f"{verb}: {', '.join(f'{c.key} ({c.name})' for c in others)}")
        doubt = "" if self.verified else " [not confirmed]"
        told = f"{self.key}: {self.kind} ({places}), {'; '.join(reasons) or 'unknown'}{doubt}"
        return "\n    ".join([told, *self._shown()])

    def is_own(self, cause: Happened) -> bool:
        """Whether a cause happened to this hit itself, not to another."""
        return cause.key in (self.key, self.counterpart)

    def _shown(self) -> list[str]:
        """A line of what it says, or the first that differs, before and after."""
        lines = self.text_diff.splitlines()[2:]  # without the two names
        if lines:
            firsts = (next((x for x in lines if x.startswith(sign)), "") for sign in "-+")
            return [_line(first) for first in firsts if first]
        hit = self.after or self.before
        value = None if hit is None else hit.value
        text = value.get("text") if isinstance(value, dict) else value
        return [_line(text)] if isinstance(text, str) and text.strip() else []

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
            "counterpart": self.counterpart,
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
    unchanged: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Change]:
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


def compare(
    log: CausalLog,
    records: Records,
    index: TextIndex,
    answers: Answers,
    earlier: Question,
    later: Question,
) -> RetrievalDiff:
    """What one question finds at two moments, and why that differs."""
    before, after = earlier.ranked(log), later.ranked(log)
    old = {each.key: (rank, each) for rank, each in enumerate(before.candidates, 1)}
    new = {each.key: (rank, each) for rank, each in enumerate(after.candidates, 1)}
    worlds = _Worlds(log, records, index.settings, earlier, later)
    happened = worlds.happened(dict.fromkeys([*new, *old]))
    found = [answers.ranked(one, partial(explained, asked, one, log)).load()
             for one, asked in ((before, earlier), (after, later))]  # fmt: skip

    def text_of(seq: int) -> str:
        return index.settings.text_of(log.versions([seq])[0].value)

    # Chunks are named by what they say, so an edited one has another key.
    pairs = _pairs(
        {key: text_of(old[key][1].seq) for key in old if key not in new},
        {key: text_of(new[key][1].seq) for key in new if key not in old},
        happened, log,
    )  # fmt: skip
    for key in [*pairs, *pairs.values()]:
        happened[key] = happened[key]._replace(name="edited")
    replaced = set(pairs.values())
    changes: list[Change] = []
    unchanged: list[str] = []
    for key in dict.fromkeys([*new, *old]):
        if key in replaced:  # told with what took its place
            continue
        counterpart = pairs.get(key)
        rank_before, was = old.get(counterpart or key, (None, None))
        rank_after, now = new.get(key, (None, None))
        same = was is not None and now is not None and was.seq == now.seq
        if same and rank_before == rank_after:
            unchanged.append(key)
            continue
        kind: ChangeKind
        if was is None:
            kind = "entered"
        elif now is None:
            kind = "left"
        else:
            kind = "edited" if rank_before == rank_after else "moved"
        wanted = None if was is None or rank_before is None else (rank_before, was.seq)
        causes, verified = _causes(key, counterpart, kind, wanted, happened, worlds)
        match_before = None if rank_before is None else found[0][rank_before - 1]
        match_after = None if rank_after is None else found[1][rank_after - 1]
        diff = ""
        if was is not None and now is not None and was.seq != now.seq:
            diff = _text_diff(text_of(was.seq), text_of(now.seq))
        changes.append(
            Change(
                key, kind, match_before, match_after, rank_before, rank_after, causes, verified,
                diff, counterpart,
            )
        )  # fmt: skip
    return RetrievalDiff(
        records.namespace, later.asked.text or None, found[0], found[1], earlier.asked.cut,
        later.asked.cut, tuple(changes), tuple(unchanged),
    )  # fmt: skip


class _Worlds:
    """The later moment with some keys as they were, and what happened to keys in between."""

    def __init__(
        self,
        log: CausalLog,
        records: Records,
        settings: TextSettings,
        earlier: Question,
        later: Question,
    ) -> None:
        self._log = log
        self._records = records
        self._settings = settings
        self._then, self._now = earlier.asked, later.asked
        self._later = later
        self._as_then = replace(later, texts=earlier.texts)
        self.resettled = later.texts is not earlier.texts  # one index for the same settings
        self._asked: dict[tuple[frozenset[str], bool], dict[str, tuple[int, int]]] = {}
        reading = self._reading = records.at(max(self._then.cut.seq, self._now.cut.seq))
        masks = [
            records.passing(reading, asked.cut, asked.valid_at, asked.where, asked.causal).mask
            for asked in (self._then, self._now)
        ]
        self._slots = [
            dict(zip(reading.key[some].tolist(), some.tolist(), strict=True))
            for some in (np.flatnonzero(masks[0] & ~masks[1]), np.flatnonzero(masks[1] & ~masks[0]))
        ]
        numbers = sorted(self._slots[0].keys() | self._slots[1].keys())
        self._numbers = dict(zip(records.names(numbers), numbers, strict=True))

    @property
    def changed(self) -> list[str]:
        """Every key that something else may be found of than before."""
        return sorted(self._numbers)

    def found(
        self, undone: frozenset[str], *, settings: bool = False
    ) -> dict[str, tuple[int, int]]:
        """Of each hit its rank and version, with some keys as they were, or settings too."""
        known = self._asked.get((undone, settings))
        if known is None:
            numbers = [self._numbers[key] for key in undone if key in self._numbers]
            swap = Swap(
                np.array(numbers, dtype=np.int64), self._then.cut, self._then.valid_at,
                self._then.causal,
            )  # fmt: skip
            question = self._as_then if settings else self._later
            ranked = question.ranked(self._log, swap=swap)
            known = self._asked[undone, settings] = {
                each.key: (rank, each.seq) for rank, each in enumerate(ranked.candidates, 1)
            }
        return known

    def settled(self, key: str) -> Happened:
        """That words are read by other settings than before, said of a key."""
        cut = self._now.cut
        version = self._log.version_at(TEXTS, self._records.namespace, cut, cut.clock)
        return Happened(key, "settings", version)

    def happened(self, keys: Iterable[str]) -> dict[str, Happened]:
        """What happened to those of the keys that something happened to."""
        found: dict[str, Happened] = {}
        for key in keys:
            number = self._numbers.get(key)
            if number is not None:
                name, version = self._what(
                    key, self._slots[0].get(number), self._slots[1].get(number)
                )
                found[key] = Happened(key, name, version)
        return found

    def _what(self, key: str, was: int | None, now: int | None) -> tuple[CauseName, Version | None]:
        log, seqs = self._log, self._reading.seqs
        if was is not None and now is not None:
            before, after = log.versions([int(seqs[was]), int(seqs[now])])
            if after.seq <= self._then.cut.seq:  # nothing was written: another time holds another
                if microseconds(after.valid_from) > self._then.valid_at:
                    return "began", after
                if before.valid_to is not None:
                    return "ended", before
            if before.distinction == after.distinction and before.vectors != after.vectors:
                return "re-embedded", after
            return "edited", self._edit(key, before, after, wording=True)
        if now is not None:
            return self._appeared(key, log.versions([int(seqs[now])])[0])
        assert was is not None
        return self._vanished(key, log.versions([int(seqs[was])])[0])

    def _appeared(self, key: str, version: Version) -> tuple[CauseName, Version | None]:
        if version.seq <= self._then.cut.seq:  # it was written, but not to be found
            if self._log.engine.shade(version.seq, self._then.cut.seq).hidden:
                return "unhidden", self._mark(key, version, "unhide")
            began = version.valid_from
            if microseconds(began) > self._then.valid_at:
                return "began", version
            return "filtered", version
        past = self._log.history(self._records.namespace, key, self._then.cut,
                                 reverse=True, limit=1)  # fmt: skip
        if not past:
            return "new", version
        stands = self._stands(key, self._then)
        if stands is None:
            return "restored", version
        return "edited", self._edit(key, stands, version, wording=False)

    def _vanished(self, key: str, version: Version) -> tuple[CauseName, Version | None]:
        stands = self._stands(key, self._now)
        engine, cut = self._log.engine, self._now.cut
        if stands is not None and stands.id != version.id:
            if engine.shade(stands.seq, cut.seq).hidden:
                return "hidden", self._mark(key, stands, "hide")
            return "edited", self._edit(key, version, stands, wording=False)  # it does not pass
        if stands is not None:
            shade = engine.shade(version.seq, cut.seq)
            if shade.hidden:
                return "hidden", self._mark(key, version, "hide")
            if shade.superseded:
                return "superseded", self._superseding(version)
            return "filtered", version
        expires = version.expires_at
        if expires is not None and microseconds(expires) <= cut.clock:
            return "expired", version
        ends = version.valid_to
        if ends is not None and microseconds(ends) <= self._now.valid_at:
            return "ended", version
        past = self._log.history(self._records.namespace, key, cut, reverse=True, limit=None)
        gone = next((each for each in past if each.is_tombstone), None)
        return "deleted", gone

    def _edit(self, key: str, before: Version, after: Version, *, wording: bool) -> Version:
        """The last version after `before`, up to `after`, that changed what a key holds.

        With `wording`, what its text says, if that is another. Who embedded it anew since, or
        wrote something beside it, did not do that.
        """
        text_of = self._settings.text_of
        wording = wording and text_of(before.value) != text_of(after.value)

        def said(version: Version) -> object:
            readable = wording and not version.is_erased
            return text_of(version.value) if readable else version.distinction

        if said(before) == said(after):
            return after
        limit = _EDITS_AT_ONCE
        while True:
            past = self._log.history(
                self._records.namespace, key, self._now.cut, reverse=True, limit=limit
            )
            last = after
            for each in (version for version in past if version.seq < after.seq):
                if said(each) != said(after):
                    return last
                last = each
            if len(past) < limit:
                return last
            limit *= _EDITS_AT_ONCE

    def _stands(self, key: str, asked: Asked) -> Version | None:
        """What `get` would find at a moment."""
        try:
            return self._log.version_at(self._records.namespace, key, asked.cut, asked.valid_at)
        except KeyNotFoundError:
            return None

    def _mark(self, key: str, version: Version, operation: str) -> Version | None:
        marks = self._log.history(
            self._records.namespace, key, self._now.cut, reverse=True, limit=None, annotations=True
        )
        return next(
            (each for each in marks if each.operation == operation and each.target == version.id),
            None,
        )

    def _superseding(self, version: Version) -> Version | None:
        seqs = self._log.engine.effects(bytes.fromhex(version.id), self._now.cut.seq)
        for each in self._log.versions(seqs):
            if ("supersedes", version.id) in each.causes:
                return each
        return None


def _pairs(
    left: Mapping[str, str],
    entered: Mapping[str, str],
    happened: Mapping[str, Happened],
    log: CausalLog,
) -> dict[str, str]:
    """What entered to what left, where an edit of their source put one in the other's place.

    Args:
        left, entered: The texts, by key.
    """
    gone = {key: _sources(happened.get(key), _GONE, log) for key in left}
    came = {key: _sources(happened.get(key), _CAME, log) for key in entered}
    likely = []
    for key, here in came.items():
        for other, there in gone.items():
            by_one = not here.keys().isdisjoint(there)  # by one and the same edit
            if by_one or not set(here.values()).isdisjoint(there.values()):
                likeness = difflib.SequenceMatcher(
                    None, left[other].split(), entered[key].split(), autojunk=False
                ).ratio()
                if by_one or likeness >= _LIKE:
                    likely.append((by_one, likeness, key, other))
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for _, _, key, other in sorted(likely, key=lambda each: (-each[0], -each[1], *each[2:])):
        if key not in pairs and other not in taken:
            pairs[key] = other
            taken.add(other)
    return pairs


def _sources(
    happened: Happened | None, names: Sequence[CauseName], log: CausalLog
) -> dict[str, tuple[str, str]]:
    """What the version that did it was derived from: ids, with the keys that had them."""
    if happened is None or happened.version is None or happened.name not in names:
        return {}
    sources = [
        log.version(cause.id) for cause in happened.version.causes if cause.kind == "derived_from"
    ]
    return {source.id: (source.namespace, source.key) for source in sources}


def _causes(
    key: str,
    counterpart: str | None,
    kind: ChangeKind,
    wanted: tuple[int, int] | None,
    happened: Mapping[str, Happened],
    worlds: _Worlds,
) -> tuple[tuple[Happened, ...], bool]:
    """Least sets first: what undoes the change, and whether it does."""

    def undone(by: frozenset[str], *, settings: bool = False) -> bool:
        answer = worlds.found(by, settings=settings)
        if counterpart is not None:  # the one is gone again, the other back in its place
            return key not in answer and answer.get(counterpart) == wanted
        found = answer.get(key)
        if wanted is None or kind == "left":  # it is about being there at all
            return (found is None) == (wanted is None)
        return found == wanted

    mine = [each for each in (key, counterpart) if each is not None and each in happened]
    own = tuple(happened[each] for each in mine)
    if own and undone(frozenset(mine)):
        return own, True
    if worlds.resettled and undone(frozenset(), settings=True):
        return (worlds.settled(key),), True
    others = [each for each in happened if each not in (key, counterpart)][:_MOST_TRIED]
    for other in others:
        if undone(frozenset({other})):
            return (happened[other],), True
    together = [*mine, *others]
    if together and undone(frozenset(together)):
        return tuple(happened[each] for each in _least(together, undone)), True
    # Nothing among the hits explains it: something beyond them does.
    every = worlds.changed
    if every and undone(frozenset(every)):
        beyond = [each for each in every if each not in happened]
        if len(beyond) <= _MOST_TRIED:
            both = {**happened, **worlds.happened(beyond)}
            return tuple(both[each] for each in _least([*together, *beyond], undone)), True
        return (*(happened[each] for each in together), Happened(key, "statistics", None)), True
    if worlds.resettled and undone(frozenset(every), settings=True):
        return (*own, worlds.settled(key)), True
    return own, False


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


def _line(text: str) -> str:
    told = " ".join(text.split())
    return told if len(told) <= _LINE else told[: _LINE - 1] + "…"
