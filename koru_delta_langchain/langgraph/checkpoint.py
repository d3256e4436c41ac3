"""A LangGraph checkpointer in a KoruDelta database: every state of every thread, for good.

One namespace holds it all, under three kinds of key (`keys.py` says how names are written
in them): `c/thread/ns/id`, the newest checkpoint first, with those of its channel values that
are a short string, a number or the like; `b/thread/ns/channel/version`, the value of any other
channel, which all checkpoints share that have this version of it; `w/thread/ns/id/task/number`,
a pending write that may be replaced (below 0), or others of the task, together;
`w/thread/ns/id/task/=index`, the value of one of those if it is large.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from itertools import islice
from secrets import randbits
from typing import Any, Final, Self

import koru_delta
from koru_delta import Database, Transaction, View
from koru_delta_langchain.home import Home
from koru_delta_langchain.ids import listed, pairs_of, text
from koru_delta_langchain.langgraph.keys import part

try:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        WRITES_IDX_MAP,
        BaseCheckpointSaver,
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
        get_checkpoint_metadata,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from koru_delta_langchain.langgraph.places import (
        Place,
        Record,
        Records,
        blob_key,
        check_dict,
        is_large,
        is_small,
        shared_out,
        without_value,
        writes_in,
    )
    from koru_delta_langchain.langgraph.threads import Threads
except ModuleNotFoundError as error:
    raise koru_delta.errors.MissingExtraError("KoruDeltaSaver", "langgraph") from error

STRATEGIES: Final = ("keep_latest", "delete")
_BATCH: Final = 16  # tuples handed over to the event loop at a time
_Keys = list[str]  # `list` is a method below
_Put = tuple[str, Any, dict[str, Any]]  # a key, its value, and how to put it


class KoruDeltaSaver(BaseCheckpointSaver[str], Threads):
    """Checkpoints of LangGraph threads, in one object for sync and async graphs.

    A channel value is written when its channel has changed, and not again; a value of more
    than 4 KiB is stored once, whatever threads, channels and pending writes hold it. `put`,
    `put_writes`, `copy_thread` and every kind of deletion are one commit each.

    What is deleted or pruned is erased: its values leave the disk, and the past, for good;
    only records (the names in its keys, hashes, times) stay, and the log still verifies.
    With `erase=False` it is gone from now on alone, and there `as_of` a moment before.

    Safe to share by threads, and a database by processes. Methods that start with `a` run
    storage in threads; cancelling one does not undo a write that has begun.

    >>> from langgraph.checkpoint.base import empty_checkpoint
    >>> saver = KoruDeltaSaver(erase=False)
    >>> config = {"configurable": {"thread_id": "1", "checkpoint_ns": ""}}
    >>> stored = saver.put(config, empty_checkpoint(), {"source": "input", "step": -1}, {})
    >>> then = saver.database.as_of(None).seq
    >>> saver.delete_thread("1")
    >>> saver.get_tuple(config) is None
    True
    >>> saver.as_of(then).get_tuple(config).metadata["step"]
    -1
    >>> saver.close()
    """

    def __init__(
        self,
        *,
        database: Database | None = None,
        path: str | os.PathLike[str] | None = None,
        namespace: str = "langgraph.checkpoints",
        serde: SerializerProtocol | None = None,
        erase: bool = True,
    ) -> None:
        """Keep checkpoints in `database`, or in one opened at `path`; in memory by default.

        Args:
            database: An open database; closing the saver leaves it open.
            serde: Turns values to bytes and back; LangGraph's own by default, which pickles
                nothing. What it makes is kept byte by byte. The ids of thread, checkpoint,
                task and run, and the names of channels and namespaces, are kept as they are.
            erase: Whether what is deleted or pruned goes from the past too.

        Raises:
            InvalidDataError: both `database` and `path` are given; and the errors of
                `koru_delta.open`.
        """
        Home.__init__(self, namespace, database, path)
        BaseCheckpointSaver.__init__(self, serde=serde)
        self._erase = erase

    @classmethod
    def from_conn_string(cls, conn_string: str) -> Self:
        """Open a saver at a path, `":memory:"` in memory: `with` or `async with` closes it."""
        return cls(path=None if conn_string == ":memory:" else conn_string)

    def setup(self) -> None:
        """Nothing is left to do: it is here for who comes from another checkpointer."""

    # Reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint a config names, or the latest of its thread and namespace.

        Its `parent_config` is None where the parent is not stored (any more).

        Raises:
            ErasedError: the saver shows a past moment, and the checkpoint was erased since.
        """
        place = Place.of(config)
        if self._view is None:
            # What is there now is cached; whether it was deleted in between is looked at last.
            record = self._record(self._database, place)
            if record is not None:
                found = self._tuple(self._database, record)
                if self._has(self._database, Place.of_record(record)):
                    return found
        return self._reading(lambda view: self._found(view, place))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first, as of one moment: when the first one is asked for.

        Args:
            config: Its thread's, of its namespace and with its id if it names them; None is
                every thread's.
            filter: Metadata that must be equal.
            before: Those whose id is less than its checkpoint id.
            limit: At most so many.
        """
        check_dict("filter", filter or {})
        if limit is not None and not isinstance(limit, int):
            raise koru_delta.errors.QueryError(f"limit is a whole number or None, not {limit!r}")
        left = limit
        view = self._moment(None)
        for key in self._listed(view, config, before):
            if left is not None and left <= 0:
                return
            try:
                record = view.get(self._namespace, key)
                metadata = self._loads(record["metadata"])
                if filter and any(metadata.get(name) != value for name, value in filter.items()):
                    continue
                found = self._tuple(view, record)
            except koru_delta.errors.ErasedError:
                if self._view is None and not self._database.contains(self._namespace, key):
                    continue  # it was deleted since
                raise
            yield found
            if left is not None:
                left -= 1

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What each channel's value is to be rebuilt from: see the base class.

        Reads of each ancestor only what concerns those channels.
        """
        place, names = Place.of(config), listed("channels", channels)
        return self._reading(lambda view: self._histories(view, place, names)) if names else {}

    def _histories(
        self, view: View, place: Place, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        record = self._record(view, place)
        found: dict[str, DeltaChannelHistory] = {channel: {"writes": []} for channel in channels}
        remaining = set(channels)
        for ancestor in [] if record is None else self._ancestors(view, record):
            if not remaining:
                break
            for write in reversed(self._writes(view, Place.of_record(ancestor))):
                if write["channel"] in remaining:
                    found[write["channel"]]["writes"].append(self._pending(write))
            small, apart = self._stored(view, ancestor, remaining)
            seeds = small | {channel: self._loads(stored) for channel, stored in apart.items()}
            for channel, seed in seeds.items():
                found[channel]["seed"] = seed
            remaining -= seeds.keys()
        for history in found.values():
            history["writes"].reverse()
        return found

    # Writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, and the values of those of its channels that are new, as one.

        Where the checkpoint it goes on from is not there (any more), as when others have pruned
        the thread meanwhile, values that are not new but gone are stored too: a checkpoint is
        always whole. One that needs such values of a thread that was deleted is not stored.

        Returns:
            The config that names it. The checkpoint `config` names becomes its parent.

        Raises:
            ReadOnlyError: the saver shows a past moment, or the database is read-only.
            ValueTooLargeError: a channel's value takes more than 64 MiB.
        """
        self._check_writable()
        at = Place.of(config)
        for what, given in (
            ("checkpoint", checkpoint), ("metadata", metadata), ("new_versions", new_versions)
        ):  # fmt: skip
            check_dict(what, given)
        if not isinstance(checkpoint.get("id"), str):
            raise koru_delta.errors.InvalidDataError('a checkpoint has an "id", which is a string')
        place = at._replace(identity=checkpoint["id"])
        values = checkpoint["channel_values"]
        small = {name: value for name, value in values.items() if is_small(value)}
        kept = get_checkpoint_metadata(config, metadata)
        record: Record = {
            "thread": place.thread, "ns": place.ns, "id": place.identity, "parent": at.identity,
            "checkpoint": self._dumps({**checkpoint, "channel_values": small}),
            "metadata": self._dumps(kept), "empty": sorted(new_versions.keys() - values.keys()),
        }  # fmt: skip
        run = kept.get("run_id")
        run = run if isinstance(run, str) and run else None
        if run is not None:
            record["run"] = run
        blobs = place.prefix("b")
        items: dict[str, Any] = {place.key("c"): record}
        for channel, version in new_versions.items():
            if channel in values and channel not in small:
                items[blob_key(blobs, channel, version)] = self._dumps(values[channel])
        carried = [
            channel for channel in checkpoint["channel_versions"]
            if channel in values and channel not in small and channel not in new_versions
        ]  # fmt: skip
        if not carried:
            self._database.put_many(
                [(self._namespace, key, value) for key, value in items.items()], run=run
            )
        elif at.identity is None or not self._put_after(at, items, run):
            named = {
                blob_key(blobs, channel, checkpoint["channel_versions"][channel]): values[channel]
                for channel in carried
            }
            self._put_with_lost(at, items, named, run)
        return place.config()

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task has written, to go with the checkpoint that `config` names.

        What the task wrote in the same place before stays; only its error, interrupt, resume
        and schedule are replaced.
        """
        self._check_writable()
        task = f"{Place.of(config).key('w')}/{part(task_id)}"
        lasting: Records = []
        replaced: list[_Put] = []
        for place_in_list, (channel, value) in enumerate(pairs_of("writes", writes)):
            text("a channel", channel)
            index = WRITES_IDX_MAP.get(channel, place_in_list)
            write: Record = {"index": index, "channel": channel, "value": self._dumps(value)}
            if index >= 0:
                lasting.append(write)
            else:
                written = {"task": task_id, "path": task_path, "writes": [write]}
                replaced.append((f"{task}/{index}", written, {}))
        number, taken = 0, set[int]()
        while True:
            new = [write for write in lasting if write["index"] not in taken]
            small = [without_value(write) if is_large(write) else write for write in new]
            puts = replaced + [
                (f"{task}/={write['index']}", write["value"], {})
                for write in new if is_large(write)
            ]  # fmt: skip
            for at, some in enumerate(shared_out(small), number):
                written = {"task": task_id, "path": task_path, "writes": some}
                puts.append((f"{task}/{at}", written, {"if_match": None}))
            try:
                self._put_all(puts)
            except koru_delta.errors.ConflictError:  # what is there was first, and stays
                there = self._reading(lambda view: self._kept(view, f"{task}/"))
                names = [key.rsplit("/", 1)[1] for key in there]
                number = 1 + max(-1, *(int(name) for name in names if not name.startswith("=")))
                taken = {write["index"] for each in there.values() for write in writes_in(each)}
                continue
            return

    def delete_thread(self, thread_id: str) -> None:
        """Delete every checkpoint and write of a thread."""
        self._remove(lambda view: self._of_thread(view, str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints these runs have made, with their writes.

        It looks at every checkpoint there is. Values of channels stay as long as another
        checkpoint has them; what a `DeltaChannel` is rebuilt from does not.
        """
        runs = set(listed("run_ids", run_ids))

        def made(view: View) -> _Keys:
            gone: dict[tuple[str, str], set[str]] = {}
            for key in view.list_keys(self._namespace, prefix="c/"):
                record = view.get(self._namespace, key)
                if record.get("run") in runs:
                    gone.setdefault((record["thread"], record["ns"]), set()).add(key)
            keys: _Keys = []
            for (thread, ns), its in gone.items():
                keys += self._unused(view, Place(thread, ns), lambda key, its=its: key in its)
            return keys

        self._remove(made)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another; what it has too is replaced.

        Large values are shared, not copied.
        """
        self._check_writable()
        source, target = str(source_thread_id), str(target_thread_id)
        if source == target:
            return
        old, new = part(source), part(target)

        def work(tx: Transaction) -> None:
            view, found = self._reading(
                lambda view: (view, view.get_many(self._namespace, self._of_thread(view, source)))
            )
            self._expect_unchanged(tx, view, new)  # what it has too is not to lose its values
            for key, value in found.items():
                if key.startswith("c/"):
                    value["thread"] = target
                tx.put(self._namespace, f"{key[:2]}{new}{key[2 + len(old) :]}", value)

        self._atomically(work)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads that are not needed to go on from where they are.

        Args:
            strategy: "keep_latest" keeps the latest of each namespace, and those before it
                that its `DeltaChannel`s are rebuilt from, and nothing of subgraphs that
                were called by a checkpoint that goes; "delete" keeps none.

        Raises:
            QueryError: there is no such strategy.
        """
        self._check_writable()
        if strategy not in STRATEGIES:
            raise koru_delta.errors.QueryError(
                f"there is no strategy {strategy!r}; it is one of {', '.join(STRATEGIES)}"
            )
        threads = [*dict.fromkeys(str(thread) for thread in listed("thread_ids", thread_ids))]

        def unneeded(view: View) -> _Keys:
            keys: _Keys = []
            for thread in threads:
                keys += (
                    self._of_thread(view, thread) if strategy == "delete"
                    else self._unneeded(view, thread)
                )  # fmt: skip
            return keys

        self._remove(unneeded)

    def get_next_version(self, current: str | int | float | None, channel: None) -> str:
        """A version above `current`; no two are equal, so that forks do not share values."""
        number = 0 if current is None else int(str(current).split(".", 1)[0])
        return f"{number + 1:032}.{randbits(64):020}"

    # The same for event loops

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while batch := await asyncio.to_thread(lambda: [*islice(found, _BATCH)]):
            for item in batch:
                yield item

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """As `put_writes`."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        await asyncio.to_thread(partial(self.prune, thread_ids, strategy=strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`."""
        return await asyncio.to_thread(
            partial(self.get_delta_channel_history, config=config, channels=channels)
        )

    # Parts of the above

    def _atomically(self, work: Callable[[Transaction], None], **options: Any) -> None:
        """Read and write as one; again, as often as somebody wrote there meanwhile."""
        while True:
            try:
                with self._database.transaction(**options) as tx:
                    work(tx)
            except koru_delta.errors.ConflictError:
                continue
            return

    def _put_after(self, parent: Place, items: Mapping[str, Any], run: str | None) -> bool:
        """Put what goes on from a checkpoint, if that is there still.

        It is whole then, so that the values which the next one has of it are there as well.
        """
        try:
            with self._database.transaction(run=run) as tx:
                tx.expect_present(self._namespace, [parent.key("c")])
                for key, value in items.items():
                    tx.put(self._namespace, key, value)
        except koru_delta.errors.KeyNotFoundError:
            return False
        return True

    def _put_with_lost(
        self, at: Place, items: Mapping[str, Any], carried: Mapping[str, Any], run: str | None
    ) -> None:
        """Put a checkpoint, and of the values it carries on those that are not there."""

        def work(tx: Transaction) -> None:
            tx.expect_unchanged(self._namespace, prefix=at.prefix("b"))
            lost = [key for key in carried if not self._database.contains(self._namespace, key)]
            if lost and at.identity is not None and not self._has_any(at.thread):
                return  # the thread it goes on from was deleted meanwhile
            for key in lost:
                tx.put(self._namespace, key, self._dumps(carried[key]))
            for key, value in items.items():
                tx.put(self._namespace, key, value)

        self._atomically(work, run=run)

    def _put_all(self, puts: Sequence[_Put]) -> None:
        """Put values in one commit, each with its options."""
        if len(puts) == 1:
            [(key, value, how)] = puts
            self._database.put(self._namespace, key, value, **how)
        elif puts:
            with self._database.transaction() as tx:
                for key, value, how in puts:
                    tx.put(self._namespace, key, value, **how)

    def _expect_unchanged(self, tx: Transaction, view: View, thread: str) -> None:
        for kind in "cbw":
            tx.expect_unchanged(self._namespace, prefix=f"{kind}/{thread}/", since=view.seq)

    def _remove(self, choose: Callable[[View], Iterable[str]]) -> None:
        """Make the keys go that are chosen, in one commit, and nothing that came meanwhile."""
        self._check_writable()

        def work(tx: Transaction) -> None:
            view, gone = self._reading(lambda view: (view, [*dict.fromkeys(choose(view))]))
            for thread in {key.split("/", 2)[1] for key in gone}:
                self._expect_unchanged(tx, view, thread)
            if self._erase:
                tx.erase([(self._namespace, key) for key in gone], message="deleted or pruned")
            else:
                tx.delete_many(self._namespace, gone)

        self._atomically(work)
