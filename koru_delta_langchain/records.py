"""What LangChain's `index` remembers of a vector store, kept in the same commits as it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from langchain_core.documents import Document
from langchain_core.indexing import RecordManager

import koru_delta
from koru_delta import Database, Transaction
from koru_delta_langchain.documents import document_of
from koru_delta_langchain.home import Home
from koru_delta_langchain.ids import foreign, key_of, keys_of, listed, text
from koru_delta_langchain.vectorstore import KoruDeltaVectorStore

_PREFIX: Final = "langchain.records/"


@dataclass(frozen=True, slots=True)
class Drift:
    """Where records and documents of a store do not say the same; ids, in key order.

    `unrecorded` documents have no record, `missing` ones have a record and are not there, and
    `ungrouped` ones have a record without the source that `source_id_key` names.
    """

    unrecorded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ungrouped: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.unrecorded or self.missing or self.ungrouped)


class KoruDeltaRecordManager(Home, RecordManager):
    """Which documents `langchain_core.indexing.index` has written, when, and of what source.

    Made with `store=`, it is of one piece with that store: whatever is added to the store or
    deleted from it writes its records in the same commit, so that nothing (a crash, an
    error, a full disk) leaves one without the other. A record then exists only where its
    document does: what expired or was deleted behind the store's back is indexed again.

    The namespace of the database is `langchain.records/` and the name given here. A run of
    `index` writes a version, of some 500 bytes, of the record of every document it has seen,
    changed or not. By default their past is kept like any other: the times and sources that
    `Database.retain` takes away are fewer bytes than the chain of versions, which stays, and
    what it writes to say that they are gone.

    >>> from langchain_core.documents import Document
    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> from langchain_core.indexing import index
    >>> from koru_delta_langchain import KoruDeltaVectorStore
    >>> store = KoruDeltaVectorStore(DeterministicFakeEmbedding(size=8))
    >>> records = KoruDeltaRecordManager("site", store=store, source_id_key="page")
    >>> page = [Document(page_content="rain", metadata={"page": "today"})]
    >>> index(page, records, store, cleanup="incremental", source_id_key="page",
    ...       key_encoder="sha256")["num_added"]
    1
    >>> len(store.database.commits()), bool(records.verify())
    (1, False)
    """

    namespace: str = ""  # a plain attribute: LangChain's name, not the database's

    def __init__(
        self,
        namespace: str,
        *,
        store: KoruDeltaVectorStore | None = None,
        source_id_key: str | Callable[[Document], str | None] | None = None,
        database: Database | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        """Keep the records of `store`, or of any other store in `database` or at `path`.

        Args:
            store: The store to be of one piece with; it keeps the records of one manager.
            source_id_key: That of `index`. With it, the commit that adds a document also
                says its source, and the update that follows has nothing left to write.

        Raises:
            InvalidDataError: more than one of `store`, `database` and `path` is given, or
                the store keeps the records of another manager.
        """
        if store is not None:
            if not isinstance(store, KoruDeltaVectorStore):
                raise koru_delta.errors.InvalidDataError(
                    f"store is a KoruDeltaVectorStore, not {type(store).__name__}; records of "
                    "another store are kept by database= or path="
                )
            if database is not None or path is not None:
                raise koru_delta.errors.InvalidDataError(
                    "records are kept where their store is; leave database and path out"
                )
            if store._records is not None:
                raise koru_delta.errors.InvalidDataError(
                    f"this store keeps the records of {store._records.namespace!r}; make "
                    "another over the same namespace for other records"
                )
            database = store.database
        Home.__init__(self, _PREFIX + text("namespace", namespace), database, path)
        RecordManager.__init__(self, namespace)
        self._source_of = _source_of(source_id_key)
        self._store = store
        if store is not None:
            store._records = self

    # What `index` asks

    def create_schema(self) -> None:
        """Do nothing: there is none to create."""

    async def acreate_schema(self) -> None:
        """Do nothing, likewise."""

    def get_time(self) -> float:
        """The time of the database's clock, which never runs backwards: seconds since 1970."""
        return self._database.as_of(None).time.timestamp()

    async def aget_time(self) -> float:
        """As `get_time`."""
        return await asyncio.to_thread(self.get_time)

    def update(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> None:
        """Record, in one commit, that these were seen now.

        Where the store writes its own records, those of documents that are not there (any
        more) are left out.

        Args:
            group_ids: The source of each; left out, or None, it keeps the source it has.
            time_at_least: What was recorded since, as it would be now, is not written again
                where the store writes its own records.

        Raises:
            ValueError: not as many groups as keys, or `time_at_least` is in the future.
        """
        self._check_writable()
        names = listed("keys", keys)
        groups = listed("group_ids", group_ids or ()) or [None] * len(names)
        if len(names) != len(groups):
            raise koru_delta.errors.InvalidDataError(
                f"Length of keys must match length of group_ids: {len(names):,} keys, "
                f"{len(groups):,} groups"
            )
        given = dict(zip(keys_of(names), zip(names, groups, strict=True), strict=True))
        while True:
            try:
                self._update(given, time_at_least)
            except koru_delta.errors.ConflictError:
                continue  # somebody has just written or deleted one of the documents
            return

    def _update(
        self, given: Mapping[str, tuple[str, str | None]], time_at_least: float | None
    ) -> None:
        view, now = self._database.as_of(None), self.get_time()
        if time_at_least is not None and not (
            isinstance(time_at_least, (int, float)) and time_at_least <= now
        ):
            raise koru_delta.errors.InvalidDataError(
                f"time_at_least must be in the past: {time_at_least} is after {now}"
            )
        held = view.get_many(self._namespace, given)
        there: Iterable[str] = given
        if self._store is not None:
            there = view.get_many(self._store.namespace, given)
        with self._database.transaction() as tx:
            for key in there:
                name, group = given[key]
                record = held.get(key)
                if group is None and record is not None:
                    group = record["group_id"]
                if self._store is not None:
                    if (
                        time_at_least is not None
                        and record is not None
                        and record["group_id"] == group
                        and record["updated_at"] >= time_at_least
                    ):
                        continue
                    tx.expect_unchanged(self._store.namespace, prefix=key, since=view.seq)
                tx.put(self._namespace, key, _record(name, group, now))

    async def aupdate(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> None:
        """As `update`."""
        await asyncio.to_thread(self.update, keys, group_ids=group_ids, time_at_least=time_at_least)

    def exists(self, keys: Sequence[str]) -> list[bool]:
        """Whether each is recorded, and there, where a store was given."""
        names = keys_of(keys)
        reader = self._moment(None)
        held = reader.get_many(self._namespace, names)
        if self._store is not None:
            there = reader.get_many(self._store.namespace, held)
            return [key in there for key in names]
        return [key in held for key in names]

    async def aexists(self, keys: Sequence[str]) -> list[bool]:
        """As `exists`."""
        return await asyncio.to_thread(self.exists, keys)

    def list_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """What was recorded before and after two times, both exclusive, of some sources.

        Args:
            group_ids: Left out or empty, the source does not matter.
            limit: Left out or 0, there is none.
        """
        wanted: dict[str, Any] = {}
        times = {"$lt": before, "$gt": after}
        if before is not None or after is not None:
            wanted["updated_at"] = {name: t for name, t in times.items() if t is not None}
        if group_ids:
            wanted["group_id"] = {"$in": listed("group_ids", group_ids)}
        rows = self._reader().query(
            self._namespace, wanted or None, select=["id", "updated_at"], limit=limit or None
        )
        return [self._name(row.key, row.value) for row in rows]

    async def alist_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """As `list_keys`."""
        return await asyncio.to_thread(
            self.list_keys, before=before, after=after, group_ids=group_ids, limit=limit
        )

    def delete_keys(self, keys: Sequence[str]) -> None:
        """Delete records, and in the same commit their documents where a store was given."""
        self._check_writable()
        names = keys_of(keys)
        with self._database.transaction() as tx:
            self.forget(tx, names)
            if self._store is not None:
                tx.delete_many(self._store.namespace, names)

    async def adelete_keys(self, keys: Sequence[str]) -> None:
        """As `delete_keys`."""
        await asyncio.to_thread(self.delete_keys, keys)

    # Of one piece with a store

    def note(self, tx: Transaction, values: Iterable[Mapping[str, Any]]) -> None:
        """Add to a transaction the records of documents that are written in it.

        Each keeps the source it has, or gets that which `source_id_key` names; a document that
        has no such metadata, as one added without `index`, has no source.
        """
        given = list(values)
        held = self._held(value["id"] for value in given)
        now = self.get_time()
        for value in given:
            key = key_of(value["id"])
            group = held[key]["group_id"] if key in held else None
            if self._source_of is not None:
                named = self._source_of(document_of(self._namespace, key, value))
                group = group if named is None else named
            tx.put(self._namespace, key, _record(value["id"], group, now))

    def forget(self, tx: Transaction, keys: Iterable[str]) -> None:
        """Add to a transaction the deletes of the records of documents, by their keys."""
        tx.delete_many(self._namespace, keys)

    def verify(self, *, mend: bool = False) -> Drift:
        """Find where records and documents differ, and mend it when told to, in one commit.

        They differ only if somebody wrote to either past the store and this manager. What is
        mended is the records, by the documents: the unrecorded get one as of now, so that
        `index` with a full clean-up takes away those its loader does not bring; records of
        what is not there are deleted; and sources are filled in. While it runs nobody else
        should index.

        Raises:
            InvalidDataError: there is no store to hold the records to.
        """
        if self._store is None:
            raise koru_delta.errors.InvalidDataError(
                "these records are of no store; make the manager with store="
            )
        moment = self._moment(None)
        held = {row.key: row.value for row in moment.query(self._namespace)}
        there = {row.key: row.value for row in moment.query(self._store.namespace)}
        place = self._store.namespace
        named = {key: str(document_of(place, key, value).id) for key, value in there.items()}
        groups: dict[str, str] = {}
        if self._source_of is not None:
            for key, value in there.items():
                if key in held and held[key]["group_id"] is None:
                    group = self._source_of(document_of(self._store.namespace, key, value))
                    if group is not None:
                        groups[key] = group
        missing = [key for key in held if key not in there]
        unrecorded = [key for key in there if key not in held]
        drift = Drift(
            tuple(named[key] for key in unrecorded),
            tuple(self._name(key, held[key]) for key in missing),
            tuple(named[key] for key in groups),
        )
        if mend and drift:
            self._check_writable()
            now = self.get_time()
            with self._database.transaction(message="mend the records") as tx:
                self.note(tx, ({**there[key], "id": named[key]} for key in unrecorded))
                self.forget(tx, missing)
                for key, group in groups.items():
                    tx.put(self._namespace, key, _record(named[key], group, now))
        return drift

    async def averify(self, *, mend: bool = False) -> Drift:
        """As `verify`."""
        return await asyncio.to_thread(self.verify, mend=mend)

    def _name(self, key: str, value: object) -> str:
        if isinstance(value, dict) and "updated_at" in value:
            return cast("str", value.get("id", key))
        raise foreign(self._namespace, key, "record of a document")

    def _held(self, names: Iterable[str]) -> dict[str, Any]:
        return self._database.get_many(self._namespace, keys_of(names))


def _record(name: str, group: str | None, now: float) -> dict[str, Any]:
    """What is kept of an id: itself only where it is not the key."""
    named = {} if key_of(name) == name else {"id": name}
    return {**named, "group_id": group, "updated_at": now}


def _source_of(
    key: str | Callable[[Document], str | None] | None,
) -> Callable[[Document], str | None] | None:
    if key is None or callable(key):
        return key
    return lambda document: document.metadata.get(key)  # as `index` compares it: as it is
