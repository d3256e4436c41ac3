"""Filters on where a version comes from: when, by whom, from what, and as which of its key.

A causal filter chooses among what is visible at the moment of the search. It never brings
an older version back: to ask what a key held earlier there is `as_of`. Like every filter
it holds before the best are chosen.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial
from typing import Final, Literal, NamedTuple, TypeAlias, cast

import numpy as np

from koru_delta.causal import Commit, Cut, Version, When, microseconds
from koru_delta.errors import InvalidDataError, KeyNotFoundError, QueryError, UnknownVersionError
from koru_delta.log import CausalLog
from koru_delta.log.causes import ALL_KINDS, Direction, Walk
from koru_delta.log.moments import AsOf
from koru_delta.search.provenance import Provenance
from koru_delta.search.seen import Mask, Numbers
from koru_delta.values import check_key

Anchor: TypeAlias = Version | str | tuple[str, str]
"""A version, its id (or at least 8 digits of it), or (namespace, key)."""

RELATED_HOPS: Final = 4  # of `related_to`, unless `max_hops` says otherwise
_WALKS_KEPT: Final = 64
_FOLLOWED: Final = 2048  # entries of the log's end, up to which a walk goes on from another
_WALKED_KEPT: Final = 4_000_000  # positions, in all of them
_ASKED_AT_ONCE: Final = 1024  # versions in memory at once
_WHOLE_ID: Final = re.compile(r"[0-9a-f]{64}\Z")
_MOMENTS: Final = (int, datetime, str, Version, Commit, Cut)


@dataclass(frozen=True, slots=True)
class CausalFilter:
    """What a version must have come from to be found; everything that is given must hold.

    Two filters are equal when they ask the same. A list of anchors, runs or authors is kept
    as a frozenset: their order means nothing, and an empty one passes nothing. `(namespace,
    key)` is a tuple of two strings; two ids are a list.

    Attributes:
        after: Written after this moment, exclusive: anything `as_of` takes (a time, a
            position, a version or commit, `"tag:name"`). Of a version or commit that is
            after its whole commit.
        before: Written before this moment, exclusive; of a version or commit, before its
            whole commit. Moments are those of the log as it is now; a time that lies ahead
            is no error here: nothing was written after it, and everything before.
        valid_at: True at this time: the same as the argument of the search, which may be
            left out then and must not differ.
        min_versions: The key has had at least this many puts up to the moment of the
            search, deleted and superseded ones counted.
        max_versions: At most this many.
        derived_from: Came from one of these over `derived_from` causes alone.
        descendants_of: Came from one of these over causes of any kind.
        ancestors_of: One of these came from it, over causes of any kind.
        related_to: Tied to one of these by causes in either direction, and none of these.
        max_hops: How many causes may lie in between and one end, at most; 0 passes nothing.
            By default 4 for `related_to`, and no limit for the other three.
        run: Written in this run, or one of these.
        author: Written by this author, or one of these.
        exclude_superseded: Leave out what a `supersedes` cause names, as every search does;
            False finds it too.
        predicate: A function of the version, asked last, and only of versions that pass
            everything else. Its answers are kept with what passed: it should depend on
            nothing but the version. What it raises, the search raises.

    An anchor is a version, its id or at least 8 digits of it, or `(namespace, key)` for
    every put and delete of that key up to the moment of the search. Only causes that were
    known then count, and only anchors: a search raises `UnknownVersionError` or
    `KeyNotFoundError` for one that was not there yet, as a database of that day would. An
    anchor itself passes only where another anchor leads to it.

    Raises:
        QueryError: something is of the wrong type; the message names it.

    >>> CausalFilter(run="nightly") == CausalFilter(run=["nightly"])
    True
    """

    after: AsOf = None
    before: AsOf = None
    valid_at: When | None = None
    min_versions: int | None = None
    max_versions: int | None = None
    derived_from: Anchor | Collection[Anchor] | None = None
    descendants_of: Anchor | Collection[Anchor] | None = None
    ancestors_of: Anchor | Collection[Anchor] | None = None
    related_to: Anchor | Collection[Anchor] | None = None
    max_hops: int | None = None
    run: str | Collection[str] | None = None
    author: str | Collection[str] | None = None
    exclude_superseded: bool = True
    predicate: Callable[[Version], bool] | None = None

    def __post_init__(self) -> None:
        for name in ("after", "before"):
            _check(name, getattr(self, name), _MOMENTS, "a moment, as as_of= takes it")
        _check("valid_at", self.valid_at, (datetime, str), "a datetime or ISO 8601 text")
        for name in ("min_versions", "max_versions", "max_hops"):
            number = getattr(self, name)
            if number is not None and (type(number) is not int or number < 0):
                raise QueryError(f"causal {name} is a whole number from 0 on, not {number!r}")
        for name in _WALKS:
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _anchors(name, given))
        for name in ("run", "author"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _texts(name, given))
        if type(self.exclude_superseded) is not bool:
            raise QueryError(
                f"causal exclude_superseded is True or False, not {self.exclude_superseded!r}"
            )
        if self.predicate is not None and not callable(self.predicate):
            raise QueryError(f"causal predicate is a function of a version, not {self.predicate!r}")

    def facts(self) -> list[tuple[str, object]]:
        """What is asked, with sets in order: `repr` of it is the same in every process.

        But for `predicate`, which is known in one process alone.
        """
        told = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [
            (name, sorted(map(repr, given)) if isinstance(given, frozenset) else given)
            for name, given in told
        ]


class _Kind(NamedTuple):
    """How to walk from anchors: over which kinds of cause, and which way."""

    kinds: frozenset[str]
    direction: Direction


_WALKS: Final = {
    "derived_from": _Kind(frozenset({"derived_from"}), "down"),
    "descendants_of": _Kind(ALL_KINDS, "down"),
    "ancestors_of": _Kind(ALL_KINDS, "up"),
    "related_to": _Kind(ALL_KINDS, "both"),
}
# What can leave something out, beside the moments.
_ASKED: Final = (*_WALKS, "min_versions", "max_versions", "run", "author", "predicate")


class _Walked(NamedTuple):
    """Where a walk led at a position of the log; positions in order."""

    until: int
    starts: frozenset[int]
    reached: Numbers


class CompiledCausal:
    """A causal filter over one namespace at one cut: every moment a position, every walk walked.

    `name` is equal for two that pass the same of what is visible at the same cut, and of
    whatever else is visible where nothing was written in between; fit for a cache.
    """

    __slots__ = (
        "_counted", "_cut", "_log", "_predicate", "_provenance", "_walked", "_written",
        "after", "exclude_superseded", "name", "until",
    )  # fmt: skip

    def __init__(
        self,
        causal: CausalFilter,
        log: CausalLog,
        provenance: Provenance,
        cut: Cut,
        after: int,
        until: int,
        walked: tuple[Numbers, ...],
    ) -> None:
        """Made by `Causality.compile`: `after` exclusive and `until` inclusive are positions."""
        self._log = log
        self._cut = cut
        self._provenance = provenance
        self._walked = walked
        self._predicate = causal.predicate
        self._written: dict[Literal["run", "author"], frozenset[str] | None] = {
            "run": cast("frozenset[str] | None", causal.run),
            "author": cast("frozenset[str] | None", causal.author),
        }
        self._counted = (causal.min_versions, causal.max_versions)
        self.after = after
        self.until = until
        self.exclude_superseded = causal.exclude_superseded
        anchored = tuple(getattr(causal, name) for name in _WALKS) if walked else ()
        self.name: Hashable = (
            after, None if until >= cut.seq else until, self._counted, causal.run, causal.author,
            anchored, (causal.max_hops, cut.seq) if walked else None,
            causal.exclude_superseded, None if self._predicate is None else _Same(self._predicate),
        )  # fmt: skip

    @property
    def narrows(self) -> bool:
        """Whether it can leave out anything that is visible."""
        return bool(self._tests())

    def mask(self, seqs: Numbers, among: Mask | None = None) -> Mask:
        """Which of some rows pass.

        Args:
            seqs: The position of each row's version, a put of the namespace.
            among: The rows to choose from, and to ask the predicate of: those that pass
                everything else. None is all up to the cut.
        """
        tests = self._tests()
        if among is not None and not tests:
            return among
        rows = np.flatnonzero(seqs <= self._cut.seq if among is None else among)
        mine = seqs[rows]
        for test in tests:
            if not len(rows):
                break
            passing = test(mine)
            rows, mine = rows[passing], mine[passing]
        found = np.zeros(len(seqs), dtype=np.bool_)
        found[rows] = True
        return found

    def _tests(self) -> list[Callable[[Numbers], Mask]]:
        """What is to be asked of positions, the cheapest first."""
        tests: list[Callable[[Numbers], Mask]] = []
        if self.after > 0 or self.until < self._cut.seq:
            tests.append(lambda seqs: (self.after < seqs) & (seqs <= self.until))
        for walked in self._walked:
            tests.append(partial(_among, walked))
        for column, names in self._written.items():
            if names is not None:
                tests.append(partial(self._provenance.by, column, names))
        if self._counted != (None, None):
            tests.append(self._versions)
        if self._predicate is not None:
            tests.append(partial(self._predicted, self._predicate))
        return tests

    def _versions(self, seqs: Numbers) -> Mask:
        counts = self._provenance.versions_of_key(seqs, self._cut.seq)
        least, most = self._counted
        passing: Mask = np.ones(len(seqs), dtype=np.bool_) if least is None else counts >= least
        if most is not None:
            passing &= counts <= most
        return passing

    def _predicted(self, predicate: Callable[[Version], bool], seqs: Numbers) -> Mask:
        distinct, back = np.unique(seqs, return_inverse=True)
        holds = np.empty(len(distinct), dtype=np.bool_)
        for start in range(0, len(distinct), _ASKED_AT_ONCE):
            some: list[int] = distinct[start : start + _ASKED_AT_ONCE].tolist()
            for place, version in enumerate(self._log.versions(some), start):
                holds[place] = bool(predicate(version))
        passing: Mask = holds[back]
        return passing


class Narrowed:
    """A causal filter, or none, and besides only versions at some positions."""

    __slots__ = ("_causal", "_seqs", "exclude_superseded", "name")

    narrows = True

    def __init__(self, causal: Condition | None, seqs: Numbers, name: Hashable) -> None:
        """Keep to `seqs`, in order; equal `name`s stand for equal ones at the same cut."""
        self._causal = causal
        self._seqs = seqs
        self.exclude_superseded: bool = causal is None or causal.exclude_superseded
        self.name: Hashable = (name, None if causal is None else causal.name)

    def besides(self, causal: Condition | None) -> Narrowed:
        """The same positions, with another filter."""
        return Narrowed(causal, self._seqs, self.name)

    def mask(self, seqs: Numbers, among: Mask | None = None) -> Mask:
        """As `CompiledCausal.mask`."""
        passing: Mask = np.isin(seqs, self._seqs)
        if among is not None:
            passing &= among
        return passing if self._causal is None else self._causal.mask(seqs, passing)


Condition = CompiledCausal | Narrowed


class Causality:
    """Makes causal filters ready to use, and keeps what they read. Safe to share by threads."""

    def __init__(self, log: CausalLog) -> None:
        self._log = log
        self._begin()
        log.engine.after_fork.append(self._begin)

    def _begin(self) -> None:
        """Start with nothing read, and no other thread reading, as a forked child does."""
        self._lock = threading.Lock()
        self._namespaces: dict[str, Provenance] = {}
        # By what was asked and the position it was asked at, where it never changes.
        self._walks: OrderedDict[tuple[Hashable, ...], _Walked] = OrderedDict()
        self._latest: dict[tuple[Hashable, ...], _Walked] = {}  # by what was asked

    def compile(
        self, causal: CausalFilter | None, namespace: str, cut: Cut
    ) -> CompiledCausal | None:
        """A filter over what is visible in a namespace at a cut; None if everything passes.

        Raises:
            QueryError: not a `CausalFilter`.
            UnknownVersionError, KeyNotFoundError: an anchor is not there at the cut.
            UnknownVersionError, InvalidTimestampError: `after` or `before` is no moment.
        """
        if causal is None:
            return None
        after, until = 0, cut.seq
        if causal.after is not None:
            after = self._log.cut(causal.after, ahead=True).seq
        if causal.before is not None:
            # What was written at the moment itself shares its time, and so its commit.
            moment = self._log.cut(causal.before, ahead=True)
            until = min(until, moment.seq, self._log.position(moment.clock - 1))
        walked = tuple(
            self._walked(name, getattr(causal, name), causal.max_hops, cut.seq)
            for name in _WALKS
            if getattr(causal, name) is not None
        )
        if (
            after == 0
            and until == cut.seq
            and all(getattr(causal, name) is None for name in _ASKED)
            and causal.exclude_superseded
        ):
            return None
        return CompiledCausal(
            causal, self._log, self._provenance(namespace), cut, after, until, walked
        )

    def _provenance(self, namespace: str) -> Provenance:
        found = self._namespaces.get(namespace)
        if found is None:
            with self._lock:
                found = self._namespaces.setdefault(namespace, Provenance(self._log, namespace))
        return found

    def _walked(
        self, name: str, anchors: frozenset[Anchor], max_hops: int | None, until: int
    ) -> Numbers:
        """The positions that anchors lead to at a position of the log, in order."""
        asked = (name, anchors, max_hops)
        with self._lock:
            known = self._walks.get((*asked, until))
            if known is not None:
                self._walks.move_to_end((*asked, until))
                return known.reached
            before = self._latest.get(asked)
        walked = self._walk(name, self._places(anchors, until), max_hops, until, before)
        with self._lock:
            self._walks[*asked, until] = self._latest[asked] = walked
            held = sum(len(each.reached) for each in self._walks.values())
            while len(self._walks) > 1 and (len(self._walks) > _WALKS_KEPT or held > _WALKED_KEPT):
                (*oldest, _), dropped = self._walks.popitem(last=False)
                held -= len(dropped.reached)
                if self._latest.get(tuple(oldest)) is dropped:
                    del self._latest[tuple(oldest)]
        return walked.reached

    def _walk(
        self,
        name: str,
        starts: frozenset[int],
        max_hops: int | None,
        until: int,
        before: _Walked | None,
    ) -> _Walked:
        """Walk from anchors, or go on from what was reached at an earlier position."""
        kinds, direction = _WALKS[name]
        walk = Walk(self._log.engine, until, kinds)
        if before is not None and 0 <= until - before.until <= _FOLLOWED:
            if direction == "up" and starts == before.starts:  # what came before them stays
                return _Walked(until, starts, before.reached)
            if direction == "down" and max_hops is None:
                more = walk.following(before.until, starts, before.reached.tolist())
                reached = np.append(before.reached, np.array(more, dtype=np.int64))
                return _Walked(until, starts, reached)
        if direction == "both" and max_hops is None:
            max_hops = RELATED_HOPS
        found = walk.reached(starts, direction, max_hops)
        return _Walked(until, starts, np.array(found, dtype=np.int64))

    def _places(self, anchors: frozenset[Anchor], until: int) -> frozenset[int]:
        """The positions of anchors, each of which must be there by then."""
        engine, places = self._log.engine, set[int]()
        ids: list[str] = []
        for anchor in sorted(anchors, key=repr):  # of several that are not there, always the same
            if isinstance(anchor, tuple):
                versions = engine.key_places(*anchor, until)
                if not versions:
                    raise KeyNotFoundError(*anchor)
                places.update(versions)
            elif isinstance(anchor, Version) or _WHOLE_ID.match(anchor):
                ids.append(anchor.id if isinstance(anchor, Version) else anchor)
            else:
                identity = self._log.full_id(anchor, until=until)
                assert identity is not None
                ids.append(identity)
        found = engine.places_of([bytes.fromhex(each) for each in ids])
        for each in ids:
            place = found.get(bytes.fromhex(each), until + 1)
            if place > until:
                raise UnknownVersionError(f"version {each}")
            places.add(place)
        return frozenset(places)


def valid_time(causal: CausalFilter | None, valid_at: When | None) -> When | None:
    """The valid time a search asks for, by its argument or its causal filter.

    Raises:
        QueryError: not a `CausalFilter`, or the two differ.
    """
    if causal is None:
        return valid_at
    if not isinstance(causal, CausalFilter):
        raise QueryError(f"causal is a CausalFilter, not {type(causal).__name__}")
    mine = causal.valid_at
    if mine is None or valid_at is None:
        return valid_at if mine is None else mine
    if microseconds(mine) != microseconds(valid_at):
        raise QueryError(
            f"valid_at is {valid_at!r}, and {mine!r} in the causal filter; give it in one place"
        )
    return valid_at


@dataclass(frozen=True, slots=True, eq=False)
class _Same:
    """Equal to another of the same thing, whatever that thing calls equal."""

    thing: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


def _among(walked: Numbers, seqs: Numbers) -> Mask:
    found: Mask = np.isin(seqs, walked)
    return found


def _check(name: str, given: object, kinds: tuple[type, ...], wanted: str) -> None:
    if given is not None and (not isinstance(given, kinds) or isinstance(given, bool)):
        raise QueryError(f"causal {name} is {wanted}, not {given!r}")


def _anchors(name: str, given: object) -> frozenset[Anchor]:
    one = _anchor(name, given)
    if one is not None:
        return frozenset({one})
    if isinstance(given, bytes | Mapping) or not isinstance(given, Collection):
        raise _no_anchor(name, given)
    found: set[Anchor] = set()
    for each in given:
        anchor = _anchor(name, each)
        if anchor is None:
            raise _no_anchor(name, each)
        found.add(anchor)
    return frozenset(found)


def _anchor(name: str, given: object) -> Anchor | None:
    if isinstance(given, str | Version):
        return given
    if isinstance(given, tuple) and len(given) == 2 and all(isinstance(g, str) for g in given):
        try:
            check_key(*given)
        except InvalidDataError as error:
            raise QueryError(f"causal {name} names no key by {given!r}: {error}") from error
        return given
    return None


def _no_anchor(name: str, given: object) -> QueryError:
    return QueryError(
        f"causal {name} takes versions, ids of versions or (namespace, key), one or a list; "
        f"not {given!r}"
    )


def _texts(name: str, given: object) -> frozenset[str]:
    if isinstance(given, str):
        return frozenset({given})
    if isinstance(given, bytes | Mapping) or not isinstance(given, Collection):
        raise QueryError(f"causal {name} is a text or a list of them, not {given!r}")
    for each in given:
        if not isinstance(each, str):
            raise QueryError(f"causal {name} is a text or a list of them, not of {each!r}")
    return frozenset(given)
