"""When what a key holds ends to count: said of what is written already.

The same value and vectors are written again, with another end, over just the valid times that
the version still holds. So from then on the key answers as if it had been put with that end in
the first place, and every moment before answers as it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from koru_delta.causal import (
    FOREVER,
    HIDE,
    Cut,
    Version,
    check_kept,
    interval_of,
    moment,
    without,
)
from koru_delta.errors import AnnotationError, ConflictError, InvalidTimestampError
from koru_delta.log.log import CausalLog
from koru_delta.log.writes import ANY, Pending, Write

_TRIES: Final = 20  # against others who write the same key at the same time


def renew(log: CausalLog, said: Write, *, restart: bool = False) -> Version:
    """Write what a key holds anew, to end when `said` does: by `ttl`, `expires_at` or never.

    What never ends is left as it is where `said` has no end, or with `restart`: that gives it
    as long again as it was given.

    Raises:
        KeyNotFoundError: the key holds nothing.
        ErasedError: what it holds was erased.
        AnnotationError: what it holds is superseded.
        InvalidTimestampError: the end is not ahead.
    """
    if said.expires_at is not None and said.expires_at <= log.now().clock:
        raise InvalidTimestampError(
            moment(said.expires_at).isoformat(),
            "is not ahead; to end it now, delete() the key, or hide() it from search",
        )
    conflict: ConflictError | None = None
    for _ in range(_TRIES):
        cut = log.now()
        version = log.version_at(said.namespace, said.key, cut, cut.clock)
        if said.if_match not in (ANY, version.id):
            raise ConflictError(said.namespace, said.key, said.if_match, version.id)
        check_kept(version)
        ends = version.expires_at
        if ends is None and (restart or (said.ttl is None and said.expires_at is None)):
            return version
        wanted = replace(said, if_match=ANY)
        if restart and ends is not None:
            wanted.ttl = (ends - version.time) // timedelta(microseconds=1)
        try:
            return _written(log, wanted, version, cut)
        except ConflictError as error:
            conflict = error  # somebody wrote the key meanwhile: look again what it holds
    assert conflict is not None
    raise conflict


def _written(log: CausalLog, said: Write, version: Version, cut: Cut) -> Version:
    """Write what takes the place of a version, unless the key was written since the cut."""
    shade = log.engine.shade(version.seq, cut.seq)
    if shade.superseded:
        raise AnnotationError(
            version.id, "is superseded, and its like would be found again; delete or hide it"
        )
    name = said.namespace, said.key
    entries = log.history(*name, cut, reverse=True, limit=None, annotations=True)
    reasons = next((e.causes for e in entries if e.target == version.id), ())
    causes = _causes(log, said, version)
    writes: list[Write] = []
    here = 0
    for starts, ends in _held(version, entries):
        if starts <= cut.clock < ends:
            here = len(writes)
        write = replace(
            said, body=version.raw, carried=dict(version.vectors), causes=causes, made=Pending(),
            valid_from=starts, valid_to=None if ends == FOREVER else ends,
            if_last=ANY if writes else entries[0].id,
        )  # fmt: skip
        writes.append(write)
        if shade.hidden:  # for the same reasons, so that whoever ends these finds it, too
            hide = Write(HIDE, *name, target=write.made, causes=reasons)
            hide.author, hide.message, hide.run = said.author, said.message, said.run
            writes.append(hide)
    return log.commit(writes)[here]


def _held(version: Version, entries: Sequence[Version]) -> list[tuple[int, int]]:
    """The valid times of a version that nothing later of its key (latest first) took over."""
    held = [interval_of(version)]
    for entry in entries:
        if entry.seq <= version.seq:
            break
        if not entry.is_annotation:
            held = [part for each in held for part in without(each, interval_of(entry))]
    return sorted(held)


def _causes(log: CausalLog, said: Write, version: Version) -> Sequence[tuple[str, str | Pending]]:
    """The version itself, and where its value came from: that is still true of it."""
    causes: list[tuple[str, str | Pending]] = [("derived_from", version.id)]
    for cause in version.causes:
        source = log.version(cause.id)
        if (source.namespace, source.key) != (version.namespace, version.key):
            causes.append(cause)
    return [*causes, *(cause for cause in said.causes if cause not in causes)]
