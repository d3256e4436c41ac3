"""What is kept of threads, as it stands at a moment, and what of it they still need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple, PendingWrite, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

import koru_delta
from koru_delta import Database, View
from koru_delta_langchain.home import Home
from koru_delta_langchain.langgraph.keys import newest_first, packed, part, unpacked
from koru_delta_langchain.langgraph.places import (
    Place,
    Record,
    Records,
    asked_of,
    blob_key,
    writes_in,
)

_PAGE: Final = 64  # keys read at a time, of those that may not all be wanted
Reader = Database | View
T = TypeVar("T")


class Threads(Home):
    """Reads checkpoints, their values and writes, of every thread of a namespace."""

    serde: SerializerProtocol

    def _dumps(self, value: object) -> list[str]:
        return packed(*self.serde.dumps_typed(value))

    def _loads(self, stored: Sequence[str]) -> Any:
        return self.serde.loads_typed(unpacked(stored))

    def _reading(self, read: Callable[[View], T]) -> T:
        """Read as of one moment; of a later one if what was there is erased meanwhile.

        Raises:
            ErasedError: it was erased before.
        """
        while True:
            view = self._moment(None)
            try:
                return read(view)
            except koru_delta.errors.ErasedError:
                if self._view is not None or self._database.as_of(None).seq == view.seq:
                    raise

    def _of_thread(self, view: View, thread: str) -> list[str]:
        return [
            key
            for kind in "cbw"
            for key in view.list_keys(self._namespace, prefix=f"{kind}/{part(thread)}/")
        ]

    def _listed(
        self, view: View, config: RunnableConfig | None, before: RunnableConfig | None
    ) -> Iterator[str]:
        """Keys of checkpoints, newest first, read as they are asked for where that can be."""
        asked = asked_of(config) if config else {}
        identity, ns = asked.get("checkpoint_id"), asked.get("checkpoint_ns")
        last = asked_of(before, thread=False).get("checkpoint_id") if before else None
        until = newest_first(str(last)) if last else ""
        if not config or ns is None:
            prefix = f"c/{part(str(asked['thread_id']))}/" if config else "c/"
            keys = view.list_keys(self._namespace, prefix=prefix)
            found = sorted(keys, key=lambda key: key.rsplit("/", 1)[1])
            wanted = newest_first(str(identity)) if identity else ""
            for key in found:
                own = key.rsplit("/", 1)[1]
                if own > until and wanted in ("", own):
                    yield key
            return
        place = Place.of(config)
        if identity:
            if newest_first(str(identity)) > until and self._has(view, place):
                yield place.key("c")
            return
        after: str | None = f"{place.prefix('c')}{until}" if until else None
        while page := view.list_keys(
            self._namespace, prefix=place.prefix("c"), after=after, limit=_PAGE
        ):
            yield from page
            after = page[-1]

    def _record(self, reader: Reader, place: Place) -> Record | None:
        """The record of a checkpoint, or of the latest where the place names none."""
        if place.identity is not None:
            key = place.key("c")
        else:
            latest = reader.list_keys(self._namespace, prefix=place.prefix("c"), limit=1)
            if not latest:
                return None
            key = latest[0]
        record: Record | None = reader.get(self._namespace, key, None)
        return record

    def _has(self, reader: Reader, place: Place) -> bool:
        try:
            return reader.contains(self._namespace, place.key("c"))
        except koru_delta.errors.ErasedError:
            return False

    def _has_any(self, thread: str) -> bool:
        """Whether a thread has a checkpoint now."""
        prefix = f"c/{part(thread)}/"
        return bool(self._database.list_keys(self._namespace, prefix=prefix, limit=1))

    def _found(self, view: View, place: Place) -> CheckpointTuple | None:
        record = self._record(view, place)
        return None if record is None else self._tuple(view, record)

    def _tuple(self, reader: Reader, record: Record) -> CheckpointTuple:
        place = Place.of_record(record)
        checkpoint: Checkpoint = self._loads(record["checkpoint"])
        parent = place.parent(record)
        small = checkpoint.get("channel_values") or {}
        stored = self._blobs(reader, record, checkpoint)
        values = {**small, **{name: self._loads(blob) for name, blob in stored.items()}}
        named = checkpoint["channel_versions"]
        checkpoint["channel_values"] = {name: values[name] for name in named if name in values}
        known = parent is not None and self._has(reader, parent)
        return CheckpointTuple(
            config=place.config(),
            checkpoint=checkpoint,
            metadata=self._loads(record["metadata"]),
            parent_config=parent.config() if parent is not None and known else None,
            pending_writes=[self._pending(write) for write in self._writes(reader, place)],
        )

    def _blobs(
        self,
        reader: Reader,
        record: Record,
        checkpoint: Checkpoint,
        channels: Collection[str] | None = None,
    ) -> dict[str, Sequence[str]]:
        """The values a checkpoint has apart, as stored.

        A channel it does not speak of, such as a `DeltaChannel` between snapshots, has the
        value that was stored with its version, if any was.
        """
        prefix, empty = Place.of_record(record).prefix("b"), record.get("empty", ())
        small = checkpoint.get("channel_values") or {}
        found: dict[str, Sequence[str]] = {}
        for channel, version in checkpoint["channel_versions"].items():
            wanted = channels is None or channel in channels
            if not wanted or channel in small or channel in empty:
                continue
            stored = reader.get(self._namespace, blob_key(prefix, channel, version), None)
            if stored is not None:
                found[channel] = stored
        return found

    def _stored(
        self, reader: Reader, record: Record, channels: Collection[str]
    ) -> tuple[dict[str, Any], dict[str, Sequence[str]]]:
        """The values of some channels: those that are small, and the others as stored."""
        checkpoint: Checkpoint = self._loads(record["checkpoint"])
        small = checkpoint.get("channel_values") or {}
        return (
            {channel: small[channel] for channel in channels if channel in small},
            self._blobs(reader, record, checkpoint, channels),
        )

    def _writes(self, reader: Reader, place: Place) -> Records:
        """The pending writes of a checkpoint as they are stored, in the order they apply."""
        stored = self._kept(reader, f"{place.key('w')}/")
        kept: Records = []
        for key, each in stored.items():
            task = key.rsplit("/", 1)[0]
            for write in writes_in(each):
                value = write.get("value") or stored.get(f"{task}/={write['index']}")
                if value is not None:  # else it is being deleted
                    kept.append(
                        {**write, "task": each["task"], "path": each["path"], "value": value}
                    )
        return sorted(kept, key=lambda w: writes_sort_key(w["path"], w["task"], w["index"]))

    def _kept(self, reader: Reader, prefix: str) -> dict[str, Any]:
        """The values of all keys that begin so."""
        keys = reader.list_keys(self._namespace, prefix=prefix)
        found = ((key, reader.get(self._namespace, key, None)) for key in keys)
        return {key: value for key, value in found if value is not None}

    def _pending(self, write: Record) -> PendingWrite:
        return write["task"], write["channel"], self._loads(write["value"])

    def _ancestors(self, view: View, record: Record) -> Iterator[Record]:
        """The records of parents, nearest first; a chain that leads back ends there."""
        seen = {record["id"]}
        while (parent := Place.of_record(record).parent(record)) is not None:
            known = self._record(view, parent)
            if known is None or known["id"] in seen:
                return
            seen.add(known["id"])
            yield known
            record = known

    def _needed(self, view: View, head: Record) -> Iterator[str]:
        """Keys of the ancestors that the delta channels of a checkpoint are rebuilt from."""
        counted = self._loads(head["metadata"]).get("counters_since_delta_snapshot") or {}
        small, apart = self._stored(view, head, counted)
        remaining = counted.keys() - small.keys() - apart.keys()
        for ancestor in self._ancestors(view, head):
            if not remaining:
                return
            yield Place.of_record(ancestor).key("c")
            small, apart = self._stored(view, ancestor, remaining)
            remaining -= small.keys() | apart.keys()

    def _unneeded(self, view: View, thread: str) -> list[str]:
        """Keys of what a thread does not need to go on from where it is."""
        keys: list[str] = []
        heads: dict[str, str] = {}
        for key in view.list_keys(self._namespace, prefix=f"c/{part(thread)}/"):
            heads.setdefault(key.rsplit("/", 1)[0], key)
        records = [view.get(self._namespace, head) for head in heads.values()]
        records.sort(key=lambda record: record["ns"].count("|"))  # callers first
        kept: set[str] = set()
        for record in records:
            place = Place.of_record(record)
            if self._is_of_use(view, record, kept):
                kept |= {place.key("c"), *self._needed(view, record)}
            keys += self._unused(view, place, lambda key, kept=kept: key not in kept)
            keys += self._strays(view, place)
        return keys

    def _is_of_use(self, view: View, record: Record, kept: Collection[str]) -> bool:
        """Whether the latest checkpoint of a namespace may be gone on from.

        Not that of a task (a namespace "name:task") which a checkpoint began that goes.
        """
        place = Place.of_record(record)
        if ":" not in place.ns.rsplit("|", 1)[-1]:
            return True
        parents = self._loads(record["metadata"]).get("parents") or {}
        callers = (Place(place.thread, ns, identity) for ns, identity in parents.items())
        return all(each.key("c") in kept or not self._has(view, each) for each in callers)

    def _strays(self, view: View, latest: Place) -> list[str]:
        """Keys of writes whose checkpoint went before they came, older than the latest.

        A younger one may be that of a run: its writes may come before it.
        """
        there = set(view.list_keys(self._namespace, prefix=latest.prefix("c")))
        prefix, found = latest.prefix("w"), []
        for key in view.list_keys(self._namespace, prefix=prefix):
            own = latest.prefix("c") + key[len(prefix) :].partition("/")[0]
            if own > latest.key("c") and own not in there:
                found.append(key)
        return found

    def _unused(self, view: View, place: Place, goes: Any) -> list[str]:
        """Keys of the checkpoints that go, of their writes, and of values only they have."""
        keys: list[str] = []
        used: set[str] = set()
        mine: set[str] = set()
        prefix = place.prefix("b")
        for key in view.list_keys(self._namespace, prefix=place.prefix("c")):
            record = view.get(self._namespace, key)
            versions = self._loads(record["checkpoint"])["channel_versions"]
            blobs = {blob_key(prefix, channel, version) for channel, version in versions.items()}
            if not goes(key):
                used |= blobs
                continue
            mine |= blobs
            writes = f"{Place.of_record(record).key('w')}/"
            keys += [key, *view.list_keys(self._namespace, prefix=writes)]
        stored = view.list_keys(self._namespace, prefix=prefix)  # not those empty
        return keys + [key for key in stored if key in mine and key not in used]
