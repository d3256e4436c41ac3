"""A LangGraph store in a KoruDelta database: what agents remember, and remembered before.

An item is one key of the store's namespace, `label/label/=key` (`keys.py` says how names are
written in it). Its vectors are keys of a second namespace, one for each text that is
embedded, with a copy of the value, so that a search filters before it takes the best;
`search` groups them by item.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from math import inf
from typing import Any, Final, NamedTuple, Self, cast

import koru_delta
from koru_delta import AsOf, Database, Filter, Transaction, Version, View, prefixed
from koru_delta_langchain.home import Home
from koru_delta_langchain.ids import foreign, listed, text
from koru_delta_langchain.langgraph.keys import name_of, part

try:
    from langchain_core.embeddings import Embeddings
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        IndexConfig,
        Item,
        ListNamespacesOp,
        MatchCondition,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        ensure_embeddings,
        get_text_at_path,
        tokenize_path,
        validate_op_namespace,
    )
except ModuleNotFoundError as error:
    raise koru_delta.errors.MissingExtraError("KoruDeltaStore", "langgraph") from error

Labels = tuple[str, ...]

_LONGEST_LABEL: Final = 96  # bytes; a key has at most 1024 in all
_WHOLE: Final = "$"
_DEEPEST_FILTER: Final = 64
_MODEL: Final = "default"
_UNNOTED: Final = 0.01  # of its time to live: an item read so soon again is not written again
_Vector = Sequence[float]


class Revision(NamedTuple):
    """What an item held from a moment on; a value of None says that it was deleted."""

    at: datetime
    value: dict[str, Any] | None
    version: Version


class KoruDeltaStore(BaseStore, Home):
    """Items under hierarchical namespaces, found by path, by filter and by meaning.

    An item's value is a JSON object. Its time to live (in minutes) is exact: from the
    microsecond it ends, nothing finds the item. Reading it makes it live as long again,
    unless `refresh_ttl` says no; that is a write, so a read-only store leaves it out, and a
    read within a hundredth of that time since the last does not count. What has expired
    stays on disk and in `history` as long as `keep` says.

    Filters are those of `koru_delta.search.filters` over the value: the operators LangGraph
    names and more; types never mix, so numbers compare as numbers and a string is no number.
    An object in a filter must be matched by the fields it has: `{"a": {"b": 1}}` is
    `{"a.b": 1}`.

    A search without a query finds items in the order of their namespaces and keys.

    A batch reads what stood at its beginning, then writes in one commit; of several writes
    to one item the last counts.

    Safe to share by threads, and a database by processes. Methods that start with `a` embed
    with the embedding's own async methods and run storage in threads; cancelling one does
    not undo a write that has begun.

    >>> store = KoruDeltaStore()
    >>> store.put(("users", "ada"), "food", {"likes": "plums"})
    >>> then = store.database.as_of(None).seq
    >>> store.put(("users", "ada"), "food", {"likes": "figs"})
    >>> store.get(("users", "ada"), "food").value
    {'likes': 'figs'}
    >>> store.as_of(then).get(("users", "ada"), "food").value
    {'likes': 'plums'}
    >>> [revision.value for revision in store.history(("users", "ada"), "food")]
    [{'likes': 'plums'}, {'likes': 'figs'}]
    >>> store.close()
    """

    supports_ttl = True

    def __init__(
        self,
        *,
        database: Database | None = None,
        path: str | os.PathLike[str] | None = None,
        namespace: str = "langgraph.store",
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        keep: timedelta | None = None,
    ) -> None:
        """Keep items in `database`, or in one opened at `path`; in memory by default.

        Args:
            database: An open database; closing the store leaves it open.
            namespace: Of the items; their vectors are in `f"{namespace}.vectors"`.
            index: What is embedded, and by what, as LangGraph has it; without `embed`, by
                the embedder of the database. Without it nothing is embedded, and a query
                finds what no query would.
            ttl: `default_ttl` and `refresh_on_read`. Expired items are always left out, and
                need no sweeping.
            keep: For how long what has expired or was replaced or deleted stays on disk: said
                to `Database.retain` with the first write, unless that was told something
                before. None says nothing; then the whole past stays.

        Raises:
            InvalidDataError: both `database` and `path` are given; and the errors of
                `koru_delta.open`.
            EmbedderError: there is nothing to embed with.
        """
        for what, config in (("index", index), ("ttl", ttl)):
            if config is not None and not isinstance(config, Mapping):
                raise koru_delta.errors.InvalidDataError(
                    f"{what} is a dict, as LangGraph has it, not {type(config).__name__}"
                )
        Home.__init__(self, namespace, database, path)
        self._keep = keep
        self.ttl_config = ttl
        self.index_config = copy.copy(index)
        self.embeddings = None if index is None else _embeddings_of(index, self._database)
        self._fields = _tokenized((index or {}).get("fields") or [_WHOLE])
        self._vectors = f"{namespace}.vectors"

    @classmethod
    def from_conn_string(
        cls, conn_string: str, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> Self:
        """Open a store at a path, `":memory:"` in memory: `with` or `async with` closes it."""
        path = None if conn_string == ":memory:" else conn_string
        return cls(path=path, index=index, ttl=ttl)

    def setup(self) -> None:
        """Nothing is left to do: it is here for who comes from another store."""

    # Reading and writing

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do many operations: reads as of one moment, then writes in one commit.

        Returns:
            The result of each, in order; None for writes.

        Raises:
            InvalidDataError: a value is no JSON object, a namespace is no tuple of strings or
                too long with its key, or a time to live is none.
            QueryError: a filter, an offset, a limit or a depth is not well formed.
            InvalidNamespaceError: a label is empty, no string, or holds a period.
            ReadOnlyError: a write, and the store shows a past moment or is read-only.
        """
        work = _Work(ops)
        embedded: dict[str, _Vector] = {}
        if self.embeddings is not None:
            for query in work.queries():
                embedded[query] = self.embeddings.embed_query(query)
            texts = self._texts(work)
            if texts:
                embedded |= _each(texts, self.embeddings.embed_documents(texts))
        return self._done(work, embedded)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`."""
        work = _Work(ops)
        embedded: dict[str, _Vector] = {}
        if self.embeddings is not None:
            queries = work.queries()
            found = await asyncio.gather(*(self.embeddings.aembed_query(q) for q in queries))
            embedded = dict(zip(queries, found, strict=True))
            texts = self._texts(work)
            if texts:
                embedded |= _each(texts, await self.embeddings.aembed_documents(texts))
        return await asyncio.to_thread(self._done, work, embedded)

    def history(
        self,
        namespace: Labels,
        key: str,
        *,
        as_of: AsOf = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Revision]:
        """What an item has held, oldest first unless `reverse`, deletions included.

        Reads that made it live on are left out. A revision's `version` can be passed to
        `as_of`.
        """
        versions = self._moment(as_of).history(
            self._namespace, _key(namespace, str(key)), reverse=reverse
        )
        found = [
            Revision(_time(version), record.get("value"), version)
            for version in versions
            if "refreshed" not in (record := {} if version.is_tombstone else _record(version))
        ]
        return found if limit is None else found[: _count("limit", limit)]

    async def ahistory(
        self,
        namespace: Labels,
        key: str,
        *,
        as_of: AsOf = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Revision]:
        """As `history`."""
        return await asyncio.to_thread(
            self.history, namespace, key, as_of=as_of, reverse=reverse, limit=limit
        )

    # Parts of the above

    def _texts(self, work: _Work) -> list[str]:
        """The texts to embed of what will be put, each once."""
        return [*dict.fromkeys(t for op in work.puts.values() for t in self._texts_of(op))]

    def _texts_of(self, op: PutOp) -> list[str]:
        if op.value is None or op.index is False or self.embeddings is None:
            return []
        fields = self._fields if op.index is None else _tokenized(op.index)
        try:
            return [found for field in fields for found in get_text_at_path(op.value, field)]
        except (TypeError, ValueError, RecursionError) as error:
            raise koru_delta.errors.InvalidDataError(
                f"a value is a JSON object: {error}"
            ) from error

    def _done(self, work: _Work, embedded: Mapping[str, _Vector]) -> list[Result]:
        """Everything a batch does to storage, its texts being embedded."""
        if work.puts:
            self._check_writable()
            keep, self._keep = self._keep, None  # once is enough
            for name in (self._namespace, self._vectors):
                koru_delta.adapters.retain_by_default(self._database, name, keep)
        view = self._moment(None)
        results: list[Result] = []
        read: dict[str, Version] = {}  # what is to live on
        for op in work.ops:
            if isinstance(op, GetOp):
                found = self._version(view, _key(op.namespace, op.key))
                if found is None:
                    results.append(None)
                    continue
                results.append(_item(Item, found))
                if op.refresh_ttl:
                    read[found.key] = found
            elif isinstance(op, SearchOp):
                hits = self._search(view, op, embedded)
                results.append([_item(SearchItem, hit, score=score) for hit, score in hits])
                if op.refresh_ttl:
                    read |= {hit.key: hit for hit, _ in hits}
            elif isinstance(op, ListNamespacesOp):
                results.append(self._namespaces(view, op))
            else:
                results.append(None)
        lasting = {key: hit for key, hit in read.items() if _is_older(hit, view.time)}
        if self._view is not None or self._database.read_only:
            lasting.clear()
        refreshed = {key: found for key, found in lasting.items() if key not in work.puts}
        while work.puts or refreshed:
            try:
                with self._database.transaction() as tx:
                    now = self._database.as_of(None)
                    for version in refreshed.values():
                        self._refresh(tx, now, version)
                    for key, op in work.puts.items():
                        self._write(tx, now, key, op, embedded)
            except koru_delta.errors.ConflictError:
                continue  # somebody has just written one of them, and perhaps its vectors
            break
        return results

    def _version(self, view: View, key: str) -> Version | None:
        try:
            return view.version(self._namespace, key)
        except koru_delta.errors.KeyNotFoundError:
            return None

    def _search(
        self, view: View, op: SearchOp, embedded: Mapping[str, _Vector]
    ) -> list[tuple[Version, float | None]]:
        """The items a search finds, each with its score if there is a query."""
        vector = embedded.get(op.query) if op.query else None
        until = op.offset + op.limit
        if vector is None:
            return [(version, None) for version in self._found(view, op, until)[op.offset :]]
        hits: list[tuple[str, float]] = []
        if any(vector):  # a zero vector is like nothing
            matches = view.search(
                self._vectors, "", mode="vector", vector=vector, k=until, group_by="item",
                filter=_where(op), model=_MODEL,
            )  # fmt: skip
            hits = [(match.value["item"], match.score) for match in matches]
        found: list[tuple[Version, float | None]] = [
            (version, score)
            for key, score in hits[op.offset :]
            if (version := self._version(view, key)) is not None
        ]
        if len(hits) < until:  # what has no vector comes last, as in LangGraph's own stores
            scored = {key for key, _ in hits}
            rest = [each for each in self._found(view, op, until) if each.key not in scored]
            start = max(0, op.offset - len(hits))
            found += [(version, None) for version in rest[start : until - len(hits)]]
        return found

    def _found(self, view: View, op: SearchOp, until: int | None) -> list[Version]:
        """The first items under a prefix that pass the filter, in key order."""
        if op.filter:
            rows = view.query(self._namespace, _where(op), limit=until)
            return [row.version for row in rows]
        keys = view.list_keys(self._namespace, prefix=_path(op.namespace_prefix), limit=until)
        return [view.version(self._namespace, key) for key in keys]

    def _namespaces(self, view: View, op: ListNamespacesOp) -> list[Labels]:
        conditions = op.match_conditions or ()
        found = {
            labels if op.max_depth is None else labels[: op.max_depth]
            for labels in self._labels(view, _beginning(conditions))
            if all(_matches(condition, labels) for condition in conditions)
        }
        return sorted(found)[op.offset : op.offset + op.limit]

    def _labels(self, view: View, beginning: Labels) -> Iterator[Labels]:
        """Each namespace that has an item, of those that begin so."""
        last = None
        for key in view.list_keys(self._namespace, prefix=_path(beginning)):
            quoted, _, _ = key.partition("=")
            if quoted == last:
                continue
            last = quoted
            names = [name_of(label) for label in quoted.split("/")[:-1]]
            if None in names:
                yield tuple(view.get(self._namespace, key)["namespace"])
            else:
                yield tuple(cast("list[str]", names))

    def _write(
        self, tx: Transaction, now: View, key: str, op: PutOp, embedded: Mapping[str, _Vector]
    ) -> None:
        """Put or delete an item and its vectors, if nobody writes it meanwhile."""
        tx.expect_unchanged(self._namespace, prefix=key, since=now.seq)
        stale = now.list_keys(self._vectors, prefix=f"{key}/")
        if op.value is None:
            tx.delete_many(self._namespace, [key])
            tx.delete_many(self._vectors, stale)
            return
        before = self._version(now, key)
        record: dict[str, Any] = {
            "path": _path(op.namespace), "namespace": list(op.namespace), "key": op.key,
            "value": dict(op.value),
        }  # fmt: skip
        if before is not None:
            record["created"] = _created(before).isoformat()
        if op.ttl is not None:
            record["ttl"] = op.ttl
        ttl = _seconds(op.ttl)
        tx.put(self._namespace, key, record, ttl=ttl)
        made = []
        for number, words in enumerate(self._texts_of(op)):
            vector = embedded[words]
            if any(vector):
                made.append(f"{key}/{number}")
                row = {"item": key, "path": record["path"], "value": record["value"]}
                tx.embed(
                    self._vectors, made[-1], vector, row, model=_MODEL, metric="cosine", ttl=ttl
                )
        tx.delete_many(self._vectors, [old for old in stale if old not in made])

    def _refresh(self, tx: Transaction, now: View, version: Version) -> None:
        """Make an item that was read live as long again, if it is still the one that was."""
        current = self._version(now, version.key)
        if current is None or current.id != version.id:
            return
        tx.expect_unchanged(self._namespace, prefix=version.key, since=now.seq)
        record = version.value
        record["created"] = _created(version).isoformat()
        record["refreshed"] = _updated(version).isoformat()
        ttl = _seconds(record["ttl"])
        tx.put(self._namespace, version.key, record, ttl=ttl)
        for key in now.list_keys(self._vectors, prefix=f"{version.key}/"):
            row = now.version(self._vectors, key)
            vector = self._database.vectors(row)[_MODEL]
            tx.embed(self._vectors, key, vector, row.value, model=_MODEL, ttl=ttl)


@dataclass(init=False)
class _Work:
    """The operations of a batch, checked; of the writes to one item the last, by its key."""

    ops: list[Op]
    puts: dict[str, PutOp]

    def __init__(self, ops: Iterable[Op]) -> None:
        self.ops = list(ops)
        self.puts = {}
        for op in self.ops:
            if not isinstance(op, (GetOp, SearchOp, PutOp, ListNamespacesOp)):
                raise TypeError(f"unknown operation {type(op).__name__}")
            _check(op)
            if isinstance(op, PutOp):
                self.puts[_key(op.namespace, op.key)] = op

    def queries(self) -> list[str]:
        """The queries of searches, each once."""
        asked = [op.query for op in self.ops if isinstance(op, SearchOp) and op.query]
        return [*dict.fromkeys(asked)]


def _check(op: Op) -> None:
    """Refuse what LangGraph passes on as it was given."""
    _check_labels(getattr(op, "namespace", getattr(op, "namespace_prefix", ())))
    validate_op_namespace(op)
    if isinstance(op, PutOp) and op.value is not None:
        if not isinstance(op.value, Mapping):
            raise koru_delta.errors.InvalidDataError(
                f"an item's value is a JSON object, a dict, not {type(op.value).__name__}"
            )
        ttl = op.ttl
        if ttl is not None and not (isinstance(ttl, (int, float)) and 0 < ttl < inf):
            raise koru_delta.errors.InvalidDataError(
                f"a ttl is a number of minutes above 0, not {ttl!r}; None is for ever"
            )
    elif isinstance(op, (SearchOp, ListNamespacesOp)):
        _count("limit", op.limit)
        _count("offset", op.offset)
        if isinstance(op, SearchOp) and op.query is not None:
            text("a query", op.query)
        if isinstance(op, ListNamespacesOp) and op.max_depth is not None:
            _count("max_depth", op.max_depth)


def _beginning(conditions: Iterable[MatchCondition]) -> Labels:
    """The labels that all namespaces begin with which meet the conditions, as far as is said."""
    longest: Labels = ()
    for condition in conditions:
        if condition.match_type == "prefix":
            known = tuple(takewhile(lambda label: label != "*", condition.path))
            longest = max(longest, known, key=len)
    return longest


def _path(namespace: Labels) -> str:
    """What the keys of all items in a namespace or below it begin with."""
    _check_labels(namespace)
    return "".join(f"{part(label, _LONGEST_LABEL)}/" for label in namespace)


def _check_labels(namespace: object) -> None:
    if isinstance(namespace, str) or not isinstance(namespace, Iterable):
        raise koru_delta.errors.InvalidDataError(  # each character would be a label
            f"a namespace is a tuple of labels, such as ('users',), not {namespace!r}"
        )


def _key(namespace: Labels, key: str) -> str:
    return f"{_path(namespace)}={part(key)}"


def _where(op: SearchOp) -> Filter | None:
    """The prefix and the filter of a search, for records and for rows of vectors alike."""
    wanted: list[Filter] = []
    if op.namespace_prefix:
        wanted.append({"path": {"$prefix": _path(op.namespace_prefix)}})
    if op.filter is not None:
        wanted.append(prefixed(_by_fields(op.filter), "value"))
    return {"$and": wanted} if wanted else None


def _by_fields(filter: Mapping[Any, Any], depth: int = 0) -> dict[Any, Any]:
    """A filter with every object in it that is no operator taken apart into its fields.

    Raises:
        QueryError: it is no filter, or too deep for one.
    """
    if not isinstance(filter, Mapping) or depth > _DEEPEST_FILTER:
        raise koru_delta.errors.QueryError(
            f"a filter is a dict, nested at most {_DEEPEST_FILTER} deep, not "
            f"{type(filter).__name__} at depth {depth}"
        )
    found: dict[Any, Any] = {}
    for name, wanted in filter.items():
        if name in {"$and", "$or"} and isinstance(wanted, (list, tuple)):
            found[name] = [_by_fields(each, depth + 1) for each in wanted]
        elif name == "$not" and isinstance(wanted, Mapping):
            found[name] = _by_fields(wanted, depth + 1)
        elif isinstance(wanted, Mapping) and wanted and not any(map(_is_operator, wanted)):
            outer = tuple(name.split(".")) if isinstance(name, str) else name
            for inner, each in _by_fields(wanted, depth + 1).items():
                below = tuple(inner.split(".")) if isinstance(inner, str) else inner
                found[(*outer, *below)] = each
        else:
            found[name] = wanted
    return found


def _is_operator(name: object) -> bool:
    return isinstance(name, str) and name.startswith("$")


def _matches(condition: MatchCondition, labels: Labels) -> bool:
    """Whether a namespace begins, or ends, as a condition says."""
    wanted = condition.path
    if condition.match_type not in ("prefix", "suffix"):
        raise koru_delta.errors.QueryError(
            f"a namespace is matched by prefix or suffix, not {condition.match_type!r}"
        )
    if len(wanted) > len(labels):
        return False
    there = labels[: len(wanted)]
    if condition.match_type == "suffix":
        there = labels[len(labels) - len(wanted) :]
    return all(label in ("*", own) for label, own in zip(wanted, there, strict=True))


def _item(kind: type[Any], version: Version, **more: Any) -> Any:
    record = _record(version)
    return kind(
        namespace=tuple(record["namespace"]), key=record["key"], value=record["value"],
        created_at=_created(version), updated_at=_updated(version), **more,
    )  # fmt: skip


def _record(version: Version) -> dict[str, Any]:
    record: object = version.value
    if not isinstance(record, dict) or not {"namespace", "key", "value"} <= record.keys():
        raise foreign(version.namespace, version.key, "item of a store")
    return record


def _created(version: Version) -> datetime:
    kept = version.value.get("created")
    return _time(version) if kept is None else datetime.fromisoformat(kept)


def _updated(version: Version) -> datetime:
    kept = version.value.get("refreshed")
    return _time(version) if kept is None else datetime.fromisoformat(kept)


def _time(version: Version) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=version.tx_time)


def _seconds(minutes: float | None) -> float | None:
    return None if minutes is None else minutes * 60


def _is_older(version: Version, now: datetime) -> bool:
    """Whether an item has lived for more of its time than what is not worth a write."""
    minutes = version.value.get("ttl")
    return minutes is not None and now - _time(version) > _UNNOTED * timedelta(minutes=minutes)


def _count(what: str, given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise koru_delta.errors.QueryError(f"{what} is a whole number from 0 on, not {given!r}")
    return given


def _each(texts: Sequence[str], made: Iterable[_Vector] | None) -> dict[str, _Vector]:
    """The vector of each text.

    Raises:
        EmbedderError: there is not one for each, with a number in it.
    """
    vectors = [] if made is None else list(made)
    if len(vectors) != len(texts) or not all(len(vector) for vector in vectors):
        raise koru_delta.errors.EmbedderError(
            f"the embedding was given {len(texts):,} texts and returned {len(vectors):,} vectors; "
            "it must return one for each, and none that is empty"
        )
    return dict(zip(texts, vectors, strict=True))


def _tokenized(fields: Iterable[str]) -> list[Any]:
    """Paths as `get_text_at_path` takes them; `"$"` is the whole value."""
    return [
        _WHOLE if field == _WHOLE else tokenize_path(text("a field", field))
        for field in listed("fields", fields)
    ]


def _embeddings_of(index: IndexConfig, database: Database) -> Embeddings:
    given = index.get("embed")
    if given is not None and not (isinstance(given, (str, Embeddings)) or callable(given)):
        raise koru_delta.errors.EmbedderError(
            f"embed is LangChain's Embeddings or a function, not {type(given).__name__}"
        )
    own = database.embedder
    if given is None and own is not None:
        given = lambda texts: own.embed_documents(list(texts)).tolist()  # noqa: E731
    if given is None:
        raise koru_delta.errors.EmbedderError(
            'an index needs something to embed with: "embed", or a database with an embedder'
        )
    try:
        return ensure_embeddings(given)
    except (ImportError, ValueError) as error:  # of a string, which LangChain is to know
        raise koru_delta.errors.EmbedderError(str(error)) from error
