"""What takes a consolidation back: as it is asked for, or because a source is erased.

A summary may quote its sources. So where one of them is erased, the summary is as well, at
every moment and whether it still stood or not; the other sources come back, to be summed up
anew without what is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypedDict

from koru_delta.causal import (
    DELETE,
    ERASE,
    FOREVER,
    HIDE,
    OPERATIONS,
    PUT,
    UNHIDE,
    Cut,
    Version,
    microseconds,
)
from koru_delta.errors import KeyNotFoundError
from koru_delta.log import CausalLog, Write
from koru_delta.log.log import LIFECYCLE
from koru_delta.values import canonical_bytes, distinction_id

PREFIX: Final = "consolidation:"
_PAGE: Final = 2_000
_WHY: Final = "something it sums up was erased"

Quarantined = Mapping[str, str]  # versions in quarantine, and the record of what keeps each hidden


class Said(TypedDict):
    """What an entry says of itself."""

    author: str | None
    message: str | None


def record_name(namespace: str, key: str) -> str:
    """Where a consolidation into a key is recorded."""
    body = canonical_bytes({"namespace": namespace, "key": key})
    return PREFIX + distinction_id("json", body).hex()


def record_of(log: CausalLog, namespace: str, key: str, cut: Cut) -> Version | None:
    """The last that is recorded of the consolidation into a key; None if it is no summary."""
    name = record_name(namespace, key)
    return next(iter(log.history(LIFECYCLE, name, cut, reverse=True, limit=1)), None)


def first(log: CausalLog, namespace: str, key: str) -> Version:
    """The first version of a key: of that of a summary, the summary as it was made."""
    return log.history(namespace, key, Cut(FOREVER, log.now().clock), reverse=False, limit=1)[0]


def undone(
    log: CausalLog, summary: Version, record: Version, cut: Cut, said: Said, kept: Quarantined
) -> tuple[list[Write], list[Version]]:
    """A commit that takes a consolidation back which stands, and the sources that it shows.

    It holds only if nobody writes any of the keys meanwhile.
    """
    back = _hidden_by(log, record, cut)
    made = first(log, summary.namespace, summary.key)
    writes = [Write(DELETE, LIFECYCLE, record.key, if_match=record.id, **said)]
    writes += _gone(log, made, cut, said)
    writes += _shown(back, said, kept)
    return writes, [version for version, _ in back if version.id not in kept]


def besides_erases(
    log: CausalLog, erases: Sequence[Write], cut: Cut, quarantined: Callable[[], Quarantined]
) -> list[Write]:
    """What has to go with erases: every summary of what is erased."""
    erased: dict[str, Said] = {}
    for write in erases:
        said: Said = {"author": write.author, "message": write.message or _WHY}
        erased.update((id, said) for id in _erased_by(log, write, cut))
    whole = {(each.namespace, each.key) for each in erases if each.every}
    writes: list[Write] = []
    for summary, record in _summaries(log, erased, cut):
        said = next(erased[id] for _, id in summary.causes if id in erased)
        if (summary.namespace, summary.key) not in whole:
            writes.append(_erasing(log, summary, cut, said))
        if record.is_tombstone:
            continue  # it was undone before
        writes.append(Write(DELETE, LIFECYCLE, record.key, if_match=record.id, **said))
        if (summary.namespace, summary.key) not in whole:
            writes += _gone(log, summary, cut, said, written=True)
        back = [
            (version, last) for version, last in _hidden_by(log, record, cut)
            if version.id not in erased and (version.namespace, version.key) not in whole
        ]  # fmt: skip
        writes += _shown(back, said, quarantined() if back else {})
    return writes


def left_derived(log: CausalLog, erases: Sequence[Write]) -> list[Version]:
    """What came from what is erased, and from that and so on, and still has a value.

    That is by `derived_from`; in the order of the log.
    """
    cut = log.now()
    gone = [
        id for write in erases if write.operation == ERASE for id in _erased_by(log, write, cut)
    ]
    known, fresh = dict.fromkeys(gone), list(gone)
    found: list[Version] = []
    while fresh:
        came = [each for each in _effects(log, fresh, cut.seq) if each.id not in known]
        fresh = list(dict.fromkeys(each.id for each in came))
        known.update(dict.fromkeys(fresh))
        found += [each for each in came if not each.is_erased]
    return sorted(set(found), key=lambda version: version.seq)


def _summaries(
    log: CausalLog, erased: Mapping[str, Said], cut: Cut
) -> list[tuple[Version, Version]]:
    """Each summary that is made of some of these versions, as it was made, and its record."""
    found: dict[tuple[str, str], tuple[Version, Version]] = {}
    for version in _effects(log, list(erased), cut.seq):
        place = version.namespace, version.key
        record = None if place in found else record_of(log, *place, cut)
        if record is not None and first(log, *place).id == version.id:
            found[place] = version, record
    return list(found.values())


def _effects(log: CausalLog, ids: Sequence[str], seq: int) -> list[Version]:
    """The puts that are `derived_from` some of these versions."""
    wanted, found = set(ids), []
    for start in range(0, len(ids), _PAGE):
        some = [bytes.fromhex(id) for id in ids[start : start + _PAGE]]
        places = log.engine.effects_many(some, seq)
        for low in range(0, len(places), _PAGE):
            found += [
                version for version in log.versions(places[low : low + _PAGE])
                if version.operation == OPERATIONS[PUT]
                and any(kind == "derived_from" and id in wanted for kind, id in version.causes)
            ]  # fmt: skip
    return found


def _erased_by(log: CausalLog, write: Write, cut: Cut) -> list[str]:
    """What an erase takes away, whether or not it is gone already; nothing, of other writes."""
    if not write.every:
        return list(write.targets)
    entries = log.engine.key_versions(
        write.namespace, write.key, cut.seq, reverse=False, limit=None
    )
    return [entry.version_id.hex() for entry in entries if entry.operation == PUT]


def _erasing(log: CausalLog, summary: Version, cut: Cut, said: Said) -> Write:
    """An erase of a summary wherever its key holds it, but not of what took its place."""
    entries = log.history(summary.namespace, summary.key, cut, reverse=False, limit=None)
    return Write(
        ERASE, summary.namespace, summary.key, missing_ok=True, **said,
        targets=[each.id for each in entries if each.distinction == summary.distinction],
    )  # fmt: skip


def _shown(back: Sequence[tuple[Version, str]], said: Said, kept: Quarantined) -> list[Write]:
    """Sources, each with the last entry of its key, shown again."""
    writes: list[Write] = []
    seen: set[str] = set()
    for version, last in back:
        place = version.namespace, version.key
        write = Write(UNHIDE, *place, target=version.id, missing_ok=True, **said)
        if version.key not in seen:  # else this commit has just written the key
            write.if_last = last
            seen.add(version.key)
        writes.append(write)
        if version.id in kept:  # hidden all the same, until that ends
            causes = [("caused_by", kept[version.id])]
            writes.append(Write(HIDE, *place, target=version.id, causes=causes, **said))
    return writes


def _hidden_by(log: CausalLog, record: Version, cut: Cut) -> list[tuple[Version, str]]:
    """What a consolidation hides still, and the last entry of its key; by key."""
    seqs = log.engine.effects(bytes.fromhex(record.id), cut.seq)
    hides = [
        entry for entry in log.versions(seqs)
        if entry.operation == OPERATIONS[HIDE] and ("caused_by", record.id) in entry.causes
    ]  # fmt: skip
    found = []
    for hide in sorted(hides, key=lambda entry: (entry.key, entry.seq)):
        entries = log.history(
            hide.namespace, hide.key, cut, reverse=True, limit=None, annotations=True
        )
        marks = [entry for entry in entries if entry.target == hide.target]
        version = next(entry for entry in entries if entry.id == hide.target)
        if marks[0] == hide and not version.is_erased:
            found.append((version, entries[0].id))
    return found


def _gone(
    log: CausalLog, summary: Version, cut: Cut, said: Said, *, written: bool = False
) -> list[Write]:
    """A delete of a summary, unless somebody has put something else in its place.

    With `written` this commit has just written the key.
    """
    namespace, key = summary.namespace, summary.key
    try:
        held = log.version_at(namespace, key, cut, cut.clock)
    except KeyNotFoundError:
        return []
    if held.distinction != summary.distinction:
        return []
    (last,) = log.history(namespace, key, cut, reverse=True, limit=1, annotations=True)
    write = Write(DELETE, namespace, key, valid_from=microseconds(summary.valid_from), **said)
    if not written:
        write.if_last = last.id
    return [write]
