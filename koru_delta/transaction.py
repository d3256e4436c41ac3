"""Writes that belong together: gathered, and committed as one or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any

from koru_delta.causal import DELETE, PUT, Cut, Version
from koru_delta.errors import (
    ErasedError,
    InvalidDataError,
    KeyNotFoundError,
    TransactionError,
)
from koru_delta.intents import KEEP, Erasable, Intents, WriteOptions
from koru_delta.log import Pending, Write
from koru_delta.log.writes import EXPECT
from koru_delta.values import Value, VectorLike, check_key, decode


class Transaction:
    """Writes gathered to be one commit, or none.

    Reads see the database as it stood at the beginning, and this transaction's own
    writes. Several writes to one key become several versions. `commit` is None until
    the block has ended; then `versions` are what it wrote, in order.
    """

    def __init__(
        self,
        intents: Intents,
        options: WriteOptions,
        began: Callable[[Transaction], None],
    ) -> None:
        self._intents = intents
        self._options = options
        self._began = began
        self._writes: list[Write] = []
        self._own: dict[tuple[str, str], list[Write]] = {}  # those that hold at the beginning
        self._state = "new"
        self.versions: list[Version] = []

    def __enter__(self) -> Transaction:
        self.begin(self.now())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        if kind is None:
            self.commit()

    @property
    def is_open(self) -> bool:
        """Whether its block has begun and not ended."""
        return self._state == "open"

    def now(self) -> Cut:
        """The moment it would begin at."""
        return self._intents.log.now()

    def begin(self, cut: Cut) -> None:
        """Take writes from here on; the `with` block does it."""
        if self._state != "new":
            raise TransactionError("a transaction runs once; begin another")
        self._began(self)
        self._state = "open"
        self._cut = cut

    def end(self) -> None:
        """Take no more writes."""
        self._state = "ended"

    def commit(self) -> None:
        """Write what was gathered, in one commit; the `with` block does it at its end.

        Raises:
            TransactionError: the block has not ended, or this was called before.
        """
        if self._state != "ended":
            raise TransactionError("a transaction commits at the end of its with block")
        self._state = "committed"
        if self._writes:
            self.versions, removed = self._intents.log.erase(self._writes)
            self._intents.log.shrink(removed)

    def put(self, namespace: str, key: str, value: Value, **options: Any) -> Pending:
        """Add a put; the result may be named as a cause later in this transaction.

        Options are those of `Database.put`; and `if_last`, the last entry that the key must
        have had, annotations included (None: it was never written); unlike `if_match` it also
        tells of what was written for other valid times. `expires_at` says when it ends, as
        `ttl` does.
        """
        merged: WriteOptions = {**self._options, **options}  # type: ignore[typeddict-item]
        return self._add(self._intents.put(namespace, key, value, merged))

    def delete(self, namespace: str, key: str, **options: Any) -> Pending:
        """Add a delete; raises `KeyNotFoundError` at once if there is nothing to delete."""
        merged: WriteOptions = {**self._options, **options}  # type: ignore[typeddict-item]
        write = self._intents.delete(namespace, key, merged)
        if write.valid_from is None and write.valid_to is None:
            self._check_stands(namespace, key)
        return self._add(write)

    def hide(
        self,
        namespace: str,
        key: str,
        *,
        version: Version | str | Pending | None = None,
        **options: Any,
    ) -> Pending:
        """Add a hide of a version, which may be one written here; None is what the key holds.

        Options are those of `Database.hide`; raises `KeyNotFoundError` at once if the key
        holds nothing.
        """
        return self._annotate(namespace, key, version, options, back=False)

    def unhide(
        self,
        namespace: str,
        key: str,
        *,
        version: Version | str | Pending | None = None,
        **options: Any,
    ) -> Pending:
        """Add an unhide: as `hide`, the other way."""
        return self._annotate(namespace, key, version, options, back=True)

    def erase(self, what: Erasable | Iterable[Erasable], **options: Any) -> None:
        """Add what `Database.erase` does; options are those of it.

        Versions written in this transaction cannot be erased by it.
        """
        self._check_open()
        merged: WriteOptions = {**self._options, **options}  # type: ignore[typeddict-item]
        for write in self._intents.erase(what, merged):
            self._add(write)

    def embed(
        self,
        namespace: str,
        key: str,
        vector: VectorLike | str,
        value: Value = KEEP,
        *,
        model: str | None = None,
        metric: str | None = None,
        **options: Any,
    ) -> Pending:
        """Add an embed; text is embedded now, before any lock is taken."""
        merged: WriteOptions = {**self._options, **options}  # type: ignore[typeddict-item]
        write = self._intents.embed(
            namespace, key, vector, value, keep=value is KEEP, model=model, metric=metric,
            options=merged,
        )  # fmt: skip
        return self._add(write)

    def embed_many(
        self,
        namespace: str,
        items: Iterable[tuple[str, VectorLike | str] | tuple[str, VectorLike | str, Value]],
        *,
        model: str | None = None,
        metric: str | None = None,
        **options: Any,
    ) -> list[Pending]:
        """Add many embeds of `(key, vector_or_text)` or `(key, vector_or_text, value)`."""
        self._check_open()
        merged: WriteOptions = {**self._options, **options}  # type: ignore[typeddict-item]
        writes = self._intents.embed_many(
            namespace, items, model=model, metric=metric, options=merged
        )
        return [self._add(write) for write in writes]

    def delete_many(self, namespace: str, keys: Iterable[str], **options: Any) -> None:
        """Add deletes of those of the keys that are present when it is committed."""
        self._check_open()
        if isinstance(keys, str) or not isinstance(keys, Iterable):
            raise InvalidDataError("keys is a list of strings")
        merged: WriteOptions = {**self._options, **options}  # type: ignore[typeddict-item]
        for key in dict.fromkeys(keys):
            write = self._intents.delete(namespace, key, merged)
            write.missing_ok = True
            self._add(write)

    def expect_unchanged(
        self, namespace: str, *, prefix: str = "", since: int | None = None
    ) -> None:
        """Commit only if no key that starts with `prefix` was written meanwhile, by anybody.

        So that what was decided by reading still holds when it is written: that nothing is
        there, or that there are these keys and no others. The commit raises `ChangedSinceError`,
        a `ConflictError`, where it does not; then read again and decide anew.

        Args:
            since: The place in the log that was read, as `View.seq`; the beginning of the
                transaction, if left out.
        """
        self._check_open()
        check_key(namespace, prefix or "-")
        seen = self._cut.seq if since is None else since
        self._writes.append(Write(EXPECT, namespace, prefix, since=seen))

    def expect_present(self, namespace: str, keys: Iterable[str]) -> None:
        """Commit only if each of these keys holds a value then, before what is written here.

        It takes less than to read them. The commit raises `KeyNotFoundError` where one does not.
        """
        self._check_open()
        for key in keys:
            check_key(namespace, key)
            self._writes.append(Write(EXPECT, namespace, key))

    def get(self, namespace: str, key: str) -> Value:
        """What the key holds: this transaction's last write, or what stood at its beginning.

        Raises:
            KeyNotFoundError: absent, or deleted here.
            ErasedError: what stood there was erased.
        """
        self._check_open()
        check_key(namespace, key)
        body: bytes | None = None
        own = self._own.get((namespace, key), ())
        if not own or (own[0].operation == PUT and own[0].body is None):  # keeps what stands
            log, cut = self._intents.log, self._cut
            try:
                body = log.get(namespace, key, cut, cut.clock)
            except KeyNotFoundError:
                if not own:
                    raise
        for write in own:
            if write.operation == DELETE:
                body = None
            else:
                body = write.body or body or write.fallback or b"null"
        if body is None:
            raise KeyNotFoundError(namespace, key)
        return decode(body)

    def contains(self, namespace: str, key: str) -> bool:
        """Whether `get` would find something."""
        try:
            self.get(namespace, key)
        except (KeyNotFoundError, ErasedError):
            return False
        return True

    def similar(self, *_arguments: object, **_options: object) -> None:
        """Raise: a search cannot see what is not committed yet.

        Raises:
            TransactionError: always.
        """
        raise TransactionError("search after the transaction has ended, or before it begins")

    search = similar

    def _check_stands(self, namespace: str, key: str) -> None:
        """Raise as `get` where there is nothing; what was erased is still something."""
        with suppress(ErasedError):
            self.get(namespace, key)

    def _annotate(
        self,
        namespace: str,
        key: str,
        version: Version | str | Pending | None,
        options: dict[str, Any],
        *,
        back: bool,
    ) -> Pending:
        merged: WriteOptions = {**self._options, **options}  # type: ignore[typeddict-item]
        write = self._intents.hide(namespace, key, version, merged, back=back)
        if version is None:
            self._check_stands(namespace, key)
        return self._add(write)

    def _add(self, write: Write) -> Pending:
        self._check_open()
        write.made = Pending()
        self._writes.append(write)
        if write.annotates:
            return write.made
        clock = self._cut.clock
        starts = clock if write.valid_from is None else write.valid_from
        if starts <= clock and (write.valid_to is None or clock < write.valid_to):
            self._own.setdefault((write.namespace, write.key), []).append(write)
        return write.made

    def _check_open(self) -> None:
        if self._state != "open":
            raise TransactionError("use a transaction inside its with block")
