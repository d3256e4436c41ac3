"""Reading keys: what they hold, which there are, and which have values that match."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from koru_delta.causal import Version, When
from koru_delta.database.arguments import RAISE, check_namespace, key_list, valid_clock
from koru_delta.database.handle import Handle
from koru_delta.errors import ErasedError, KeyNotFoundError, QueryError
from koru_delta.log.log import WORKSPACES
from koru_delta.log.moments import AsOf
from koru_delta.search.causality import CausalFilter, valid_time
from koru_delta.search.filters import Filter, compiled
from koru_delta.search.query import Row, check_page, count_rows, select_rows
from koru_delta.values import Value, check_key, decode

if TYPE_CHECKING:  # loaded where it is used
    from koru_delta.database.reads import View


class KeyVerbs(Handle):
    """What keys hold at a moment."""

    def get(
        self,
        namespace: str,
        key: str,
        default: Value = RAISE,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> Value:
        """The value of a key, a fresh copy.

        Args:
            default: Returned where the key is absent, in place of an error.

        Raises:
            KeyNotFoundError: never written, deleted (`deleted_at` says when) or expired.
            ErasedError: what it held was erased; `default` is not for that.
        """
        if as_of is None and valid_at is None and self._at is None:
            hot = self._log.hot
            if hot.cells[0] == hot.at:
                try:
                    kept, nested = hot.values[namespace][key]
                except (KeyError, TypeError):
                    pass  # not cached, or a key that is no key: said below
                else:
                    value = kept.copy()
                    for name in nested:
                        value[name] = value[name].copy()
                    if self._sample():
                        self._tracker.got_often(namespace, key)
                    return value
        try:
            return decode(self.get_raw(namespace, key, as_of=as_of, valid_at=valid_at))
        except KeyNotFoundError:
            if default is RAISE:
                raise
            return default

    def get_raw(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> bytes:
        """The canonical JSON bytes of a key: what `get` decodes.

        Raises:
            KeyNotFoundError: absent, deleted or expired.
        """
        if as_of is None and valid_at is None and self._at is None:
            hot = self._log.hot
            if hot.cells[0] == hot.at:
                try:
                    body = hot.raw[namespace][key]
                except (KeyError, TypeError):
                    pass  # as above
                else:
                    if self._sample():
                        self._tracker.got_often(namespace, key)
                    return body
            check_key(namespace, key)
            body = self._log.present(namespace, key)
        else:
            check_key(namespace, key)
            cut = self._cut(as_of)
            body = self._log.get(namespace, key, cut, valid_clock(valid_at, cut))
        self._tracker.got(namespace, key)
        return body

    def get_many(
        self,
        namespace: str,
        keys: Iterable[str],
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> dict[str, Value]:
        """The values of those keys that are present, in the order asked for, at one moment.

        Raises:
            ErasedError: what one of them held was erased.
        """
        cut = self._cut(as_of)
        at = valid_clock(valid_at, cut)
        found: dict[str, Value] = {}
        for key in key_list(keys):
            check_key(namespace, key)
            try:
                found[key] = decode(self._log.get(namespace, key, cut, at))
            except KeyNotFoundError:
                continue
        self._tracker.got_many(namespace, found)
        return found

    def get_at(self, namespace: str, key: str, timestamp: AsOf) -> Value:
        """The value of a key as of a moment: `get(namespace, key, as_of=timestamp)`."""
        return self.get(namespace, key, as_of=timestamp)

    def version(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> Version:
        """The version `get` takes its value from: what `if_match` compares with.

        One that was erased is returned all the same: its record is there, its value raises.

        Raises:
            KeyNotFoundError: absent, deleted or expired.
        """
        check_key(namespace, key)
        cut = self._cut(as_of)
        return self._log.version_at(namespace, key, cut, valid_clock(valid_at, cut))

    def get_version(self, version: Version | str) -> Version:
        """The version of that id, or of its first 8 or more hex digits, with its value.

        Raises:
            UnknownVersionError: there is none, or more than one.
        """
        return self._log.version(version, until=self._until)

    def contains(
        self,
        namespace: str,
        key: str,
        *,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> bool:
        """Whether `get` would find a value."""
        try:
            self.get_raw(namespace, key, as_of=as_of, valid_at=valid_at)
        except (KeyNotFoundError, ErasedError):
            return False
        return True

    def query(
        self,
        namespace: str,
        filter: Filter | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        select: Sequence[str] | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> list[Row]:
        """The keys whose values match a filter, in key order unless `sort` says otherwise.

        A key whose version is hidden there is left out, or was erased since.

        Args:
            filter: As in `koru_delta.search.filters`; None is everything.
            sort: Dotted paths, most significant first; `-path` descends. null sorts
                before booleans, numbers and strings, a missing field last.
            select: Dotted paths; each row's value is then `{path: field}` of those present.
            causal: Where versions come from; it leaves out what is superseded, as searches do.

        Raises:
            QueryError: the filter, sort, page or selection is not well formed.
            ErasedError: a moment behind what the namespace retains.
        """
        check_namespace(namespace)
        cut, at = self._moment(namespace, as_of, valid_time(causal, valid_at))
        return select_rows(
            self._texts.records(namespace), cut, at,
            filter=filter, sort=sort, limit=limit, offset=offset, select=select,
            causal=self._causality.compile(causal, namespace, cut), searched=causal is not None,
        )  # fmt: skip

    def count(
        self,
        namespace: str,
        filter: Filter | None = None,
        *,
        text: str | None = None,
        causal: CausalFilter | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> int:
        """How many keys `query` would return; with `text`, how many a search by words would.

        As searches do, `text` and `causal` leave out what is superseded.
        """
        check_namespace(namespace)
        cut, at = self._moment(namespace, as_of, valid_time(causal, valid_at))
        only = self._causality.compile(causal, namespace, cut)
        if text is not None:
            where = None if filter is None else compiled(filter)
            return self._texts.index(namespace, cut).count(text, cut, at, where=where, causal=only)
        return count_rows(
            self._texts.records(namespace), cut, at, filter=filter, causal=only,
            searched=causal is not None,
        )  # fmt: skip

    def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        as_of: AsOf = None,
        valid_at: When | None = None,
    ) -> list[str]:
        """Present keys in code point order, those that start with `prefix`, `after` exclusive.

        A key whose version there was erased is left out.

        Raises:
            ErasedError: a moment behind what the namespace retains; `query`, `count` and all
                searches raise it too.
        """
        check_namespace(namespace)
        check_page(limit)
        for what, given in (("prefix", prefix), ("after", after)):
            if not isinstance(given, str) and (given is not None or what == "prefix"):
                raise QueryError(f"{what} is a string, not {type(given).__name__}")
        cut, at = self._moment(namespace, as_of, valid_at)
        found = self._log.engine.visible_keys(
            namespace, cut.seq, at, cut.clock,
            prefix=prefix, after=after, limit=limit, bodies=False,
        )  # fmt: skip
        return [key for key, _ in found]

    def list_namespaces(self, *, as_of: AsOf = None, valid_at: When | None = None) -> list[str]:
        """Namespaces with at least one present key, in order; erased ones count."""
        cut = self._cut(as_of)
        return self._log.engine.namespaces(
            cut.seq, valid_clock(valid_at, cut), cut.clock, hidden=False
        )

    def list_workspaces(self, *, as_of: AsOf = None) -> list[str]:
        """Workspaces in which something was stored or set, and that were not dropped, in order."""
        cut = self._cut(as_of)
        found = self._log.engine.visible_keys(
            WORKSPACES, cut.seq, cut.clock, cut.clock, bodies=False
        )
        return [name for name, _ in found]

    def as_of(self, ref: AsOf) -> View:
        """The database as it stood at a moment, to be read only."""
        from koru_delta.database.reads import View  # which is built on this

        return View(self, self._cut(ref))
