"""How much of its past a namespace retains, and which versions that leaves to be erased.

A policy is an entry of the log (namespace `$retention`, one key a namespace), and so is what
was done by it: each sweep erases versions and notes in the same commit where the past that is
still whole begins. Records stay; what goes are values and vectors that nobody can meet at any
moment of the window any more.

A version is out of use once its key has moved on, or once it has expired. What a key holds now
is never out of use, and neither is a version with explicit valid times that still holds some
of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from koru_delta.causal import ERASE, FOREVER, PUT, Cut, Version, microseconds, moment
from koru_delta.errors import ConflictError, InvalidDataError, KeyNotFoundError
from koru_delta.log.log import CausalLog
from koru_delta.log.writes import RETENTION, Write
from koru_delta.storage import Candidate
from koru_delta.values import Value, canonical_bytes, decode

AT_ONCE: Final = 2_000  # versions erased in one commit
_LONGEST: Final = timedelta(days=36_525_000)
_TRIES: Final = 20  # against others who set a policy or sweep at the same time


@dataclass(frozen=True, slots=True)
class Retention:
    """What a namespace retains behind what is current.

    Versions out of use for all of `keep` are erased, but for the last `versions` entries
    of each key; where one of the two is None, the other alone decides. `horizon` is the moment
    from which on everything can still be asked; None while nothing was swept away.
    """

    namespace: str
    keep: timedelta | None
    versions: int | None
    horizon: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Whether anything is ever swept away."""
        return self.keep is not None or self.versions is not None


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be erased of a namespace, and the horizon that leaves (microseconds)."""

    versions: tuple[Candidate, ...]
    horizon: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased: the ids of the versions, the entries that say so, and how many bytes.

    `is_clean` tells that no file of the database holds a copy any more. It is False while a
    long reader keeps the write-ahead log from being emptied, or an index file could not be
    removed; the next erase, sweep, `compact` or opening sees to it.

    `derived` are the ids of versions that came from what was erased (`derived_from`, over any
    number of steps) and have a value still: chunks of a document, facts that were concluded
    from an episode. Whether they tell of it is yours to judge; to erase them as well, pass them
    to `erase`.
    """

    versions: tuple[str, ...]
    entries: tuple[Version, ...]
    bytes_erased: int
    is_clean: bool
    derived: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep erased: how many versions, bytes of values and vectors, of which namespaces.

    `bytes_returned` is by how much the file became shorter; what is not returned is room that
    the next writes take.
    """

    versions: int
    bytes_erased: int
    bytes_returned: int
    namespaces: tuple[str, ...]


def checked_policy(namespace: str, keep: timedelta | None, versions: int | None) -> Retention:
    """A policy, if it makes sense.

    Raises:
        InvalidDataError: it does not.
    """
    if keep is not None and (
        not isinstance(keep, timedelta) or not timedelta(0) <= keep <= _LONGEST
    ):
        raise InvalidDataError(
            f"keep is a timedelta from 0 to {_LONGEST.days} days, not {keep!r}; None is for ever"
        )
    if versions is not None and (
        not isinstance(versions, int) or isinstance(versions, bool) or not 1 <= versions < 2**63
    ):
        raise InvalidDataError(
            f"versions is a whole number from 1 to 2**63 - 1, not {versions!r}; None is all"
        )
    return Retention(namespace, keep, versions)


def retained(log: CausalLog, cut: Cut) -> dict[str, tuple[Retention, str]]:
    """The policy of every namespace that has or had one, and the version that says so."""
    found = log.engine.visible_keys(RETENTION, cut.seq, cut.clock, cut.clock)
    return {
        name: (_read(name, decode(entry.body or b"null")), entry.version_id.hex())
        for name, entry in found
    }


def retention_of(log: CausalLog, namespace: str, cut: Cut) -> tuple[Retention | None, str | None]:
    """The policy of a namespace and the version that says so; None where it never had one."""
    try:
        version = log.version_at(RETENTION, namespace, cut, cut.clock)
    except KeyNotFoundError:
        return None, None
    return _read(namespace, version.value), version.id


def recorded(policy: Retention, horizon: int) -> bytes:
    """A policy as it is kept in the log."""
    keep = None if policy.keep is None else policy.keep // timedelta(microseconds=1)
    return canonical_bytes({"keep": keep, "versions": policy.versions, "horizon": horizon or None})


def due(log: CausalLog, policy: Retention, now: int) -> Due:
    """Versions that a policy no longer retains at a time, the oldest first."""
    if not policy.is_active:
        return Due((), 0)
    keep = 0 if policy.keep is None else policy.keep // timedelta(microseconds=1)
    time, engine = now - keep, log.engine
    found = engine.candidates(policy.namespace, time, last=policy.versions or 0)
    needed = {
        key_id: _needed(engine.timeline(key_id), time)
        for key_id in {each.key_id for each in found if each.odd}
    }
    kept = [e for e in found if not e.odd or e.seq not in needed[e.key_id][0]]
    ends = (needed[e.key_id][1] if e.odd else e.ended for e in kept)
    return Due(tuple(kept), max(ends, default=0))


def sweep(log: CausalLog, namespace: str, *, author: str | None, message: str) -> tuple[int, int]:
    """Erase what a namespace no longer retains; how many versions and bytes of them.

    Each commit holds one erase of up to `AT_ONCE` versions, and the horizon they leave; others
    may write in between.
    """
    versions = removed = 0
    for _ in range(_TRIES):
        now = log.now()
        policy, said_by = retention_of(log, namespace, now)
        if policy is None or said_by is None:
            break
        what = due(log, policy, now.clock)
        known = 0 if policy.horizon is None else microseconds(policy.horizon)
        body = recorded(policy, max(known, what.horizon))
        try:
            for start in range(0, len(what.versions), AT_ONCE):
                if start:
                    log.engine.step_aside()
                some = what.versions[start : start + AT_ONCE]
                noted = Write(
                    PUT, RETENTION, namespace, body, if_match=said_by, author=author,
                    message=message,
                )  # fmt: skip
                gone = Write(
                    ERASE, RETENTION, namespace, author=author, message=message, missing_ok=True,
                    targets=[each.version_id.hex() for each in some],
                )  # fmt: skip
                made, given = log.erase([noted, gone])
                said_by = made[0].id
                versions += sum(len(each.targets) for each in made)
                removed += given
        except ConflictError:
            continue  # somebody set another policy, or swept
        break
    return versions, removed


def _needed(entries: Sequence[tuple[int, ...]], time: int) -> tuple[set[int], int]:
    """Of a key's puts those that can be met at some moment from a time on, by their places.

    And the last time up to that one at which anything about it changed. A put with explicit
    valid times can be met for as long as it holds some of them.
    """
    held: list[tuple[int, int, int]] = []  # place, and an interval of valid time
    explicit: set[int] = set()
    expired: set[int] = set()
    last = 0
    for seq, operation, tx_time, starts, ends, expires in entries:
        last = max(last, *(each for each in (tx_time, starts, ends, expires) if each <= time), 0)
        if tx_time <= time:
            rest = []
            for place, low, high in held:
                rest += [
                    (place, *part)
                    for part in ((low, min(high, starts)), (max(low, ends), high))
                    if part[0] < part[1]
                ]
            held = rest
        if operation == PUT:
            held.append((seq, starts, ends))
            if starts != tx_time or ends != FOREVER:
                explicit.add(seq)
            if expires <= time:
                expired.add(seq)
    needed = {
        place for place, _, high in held
        if place not in expired and (place in explicit or high > time)
    }  # fmt: skip
    return needed, last


def _read(namespace: str, value: Value) -> Retention:
    said: dict[str, Any] = value
    keep, horizon = said["keep"], said["horizon"]
    return Retention(
        namespace,
        None if keep is None else timedelta(microseconds=keep),
        said["versions"],
        None if horizon is None else moment(horizon),
    )
