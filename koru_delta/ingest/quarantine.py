"""Take out of search whatever came of something, until it is released.

A quarantine is one commit: a record that names what was quarantined, and a hide, caused by
that record, of each version that was derived from it by then and was not hidden yet. What
it covers can be told anew from the log, so two of them may overlap: a version comes back
when the last quarantine that covers it is released. A text that is embedded anew meanwhile,
by another model, is covered like the version it was. What somebody had hidden without a
quarantine stays hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from koru_delta.causal import FOREVER, Cut, Version
from koru_delta.errors import ConflictError, InvalidDataError, KeyNotFoundError, UnknownVersionError
from koru_delta.ingest.lineage import WRITTEN_IN, Reference, Runs, around, starts
from koru_delta.intents import Intents, WriteOptions
from koru_delta.log import CausalLog, Pending
from koru_delta.log.log import QUARANTINES

QUARANTINED: Final = ("derived_from", WRITTEN_IN)  # the steps it follows
_TRIES: Final = 20  # against others who make one at the same time


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What is kept out of search together, from when on, by whom and why.

    `start` are the versions it was asked for, `versions` all it covers: these and what was
    derived from them by then. `hidden` counts those that it took out of search; the others
    were hidden already.
    """

    id: str
    start: tuple[Version, ...]
    versions: tuple[Version, ...] = field(repr=False)
    hidden: int
    author: str | None
    message: str | None
    time: datetime

    def __str__(self) -> str:
        starts = ", ".join(dict.fromkeys(f"{v.namespace}/{v.key}" for v in self.start))
        by = "" if self.author is None else f" by {self.author}"
        why = "" if self.message is None else f" ({self.message})"
        count = len(self.versions)
        return (
            f"{self.id}: {starts} and what came of it, {count:,} version{'s' * (count != 1)}, "
            f"since {self.time.isoformat(timespec='seconds')}{by}{why}"
        )


def quarantine(intents: Intents, ref: Reference, options: WriteOptions) -> Quarantine:
    """Hide what came of `ref`, as `Database.quarantine` says."""
    log = intents.log
    conflict: ConflictError | None = None
    for _ in range(_TRIES):
        cut = log.now()
        start = [version for version in starts(log, ref, cut, down=True) if _is_put(version)]
        if not start:
            raise InvalidDataError(f"{ref!r} is no put, so there is nothing to quarantine")
        covered = _covered(log, start, cut, FOREVER)
        shown = [v for v in covered if not log.engine.shade(v.seq, cut.seq).hidden]
        name = f"q{len(_names(log, cut)) + 1}"
        record = intents.put(
            "quarantines", name,
            {"start": [version.id for version in start], "hidden": len(shown)}, options,
        )  # fmt: skip
        record.namespace, record.if_match, record.made = QUARANTINES, None, Pending()
        hides = intents.hide_many(shown, {**options, "causes": [("caused_by", record.made)]})
        try:
            written = log.commit([record, *hides])[0]
        except ConflictError as error:
            conflict = error
            continue
        return Quarantine(
            name, tuple(start), tuple(covered), len(shown), written.author, written.message,
            written.time,
        )  # fmt: skip
    assert conflict is not None
    raise conflict


def release(intents: Intents, which: Quarantine | str, options: WriteOptions) -> list[Version]:
    """Bring back what only this quarantine hides, as `Database.release` says."""
    log = intents.log
    name = which.id if isinstance(which, Quarantine) else which
    if not isinstance(name, str):
        raise InvalidDataError(f"a quarantine or its id is wanted, not {type(which).__name__}")
    cut = log.now()
    standing = active(log, cut)
    ended = next((each for each in standing if each.id == name), None)
    if ended is None:
        raise UnknownVersionError(f"quarantine {name!r} (it may have been released)")
    others = {v.id for each in standing if each.id != name for v in each.versions}
    records = {
        record.id
        for each in _names(log, cut)
        for record in log.history(QUARANTINES, each, cut, reverse=False, limit=None)
    }
    back = [
        version for version in ended.versions
        if version.id not in others and _was_quarantined(log, version, records, cut)
    ]  # fmt: skip
    end = intents.delete("quarantines", name, options)
    end.namespace, end.made = QUARANTINES, Pending()
    end.if_match = log.version_at(QUARANTINES, name, cut, cut.clock).id
    causes = [("caused_by", end.made)]
    return log.commit([end, *intents.hide_many(back, {**options, "causes": causes}, back=True)])[1:]


def active(log: CausalLog, cut: Cut) -> list[Quarantine]:
    """The quarantines that stand at a cut, oldest first."""
    found = []
    for name in _names(log, cut):
        try:
            record = log.version_at(QUARANTINES, name, cut, cut.clock)
        except KeyNotFoundError:
            continue
        value = record.value
        start = [log.version(each) for each in value["start"]]
        covered = _covered(log, start, cut, record.seq)
        found.append(
            Quarantine(
                name, tuple(start), tuple(covered), value["hidden"], record.author,
                record.message, record.time,
            )
        )  # fmt: skip
    return sorted(found, key=lambda each: each.time)


def _covered(log: CausalLog, start: Sequence[Version], cut: Cut, made: int) -> list[Version]:
    """What a quarantine whose record is at `made` covers at a cut, nearest first."""
    found = {version.id: version for version in start}
    ring, runs = list(start), Runs(log, cut)
    while ring:
        fresh: dict[str, Version] = {}
        for edge, here, there in around(log, runs, ring, cut, up=False):
            if edge.kind in QUARANTINED and (there.seq < made or _is_again(here, there)):
                fresh[there.id] = there
        ring = sorted(
            (each for each in fresh.values() if each.id not in found), key=lambda each: each.seq
        )
        found |= {version.id: version for version in ring}
    return [version for version in found.values() if _is_put(version)]


def _is_again(before: Version, after: Version) -> bool:
    """Whether a version only embeds anew what another one holds."""
    return (after.namespace, after.key, after.distinction) == (
        before.namespace, before.key, before.distinction,
    )  # fmt: skip


def _names(log: CausalLog, cut: Cut) -> list[str]:
    """Every name a quarantine had up to a cut, released ones too."""
    names: list[str] = []
    while log.history(QUARANTINES, f"q{len(names) + 1}", cut, reverse=True, limit=1):
        names.append(f"q{len(names) + 1}")
    return names


def _is_put(version: Version) -> bool:
    return version.operation == "put"


def _was_quarantined(log: CausalLog, version: Version, records: set[str], cut: Cut) -> bool:
    """Whether a version is hidden now, and was by one of these records."""
    if not log.engine.shade(version.seq, cut.seq).hidden:
        return False
    for mark in log.history(
        version.namespace, version.key, cut, reverse=True, limit=None, annotations=True
    ):
        if mark.target == version.id:
            return any(cause.id in records for cause in mark.causes)
    return False
