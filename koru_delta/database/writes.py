"""Writing: each verb is one commit, and `transaction` gathers several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Literal

from koru_delta.causal import Version, When
from koru_delta.database.arguments import ANY, check_namespace, key_list, write_options
from koru_delta.database.opened import Opened
from koru_delta.errors import InvalidDataError, KeyNotFoundError, TransactionError
from koru_delta.intents import KEEP, CauseLike, tuples_of
from koru_delta.log.moments import TAGS, AsOf
from koru_delta.search.texts import SETTINGS, TextSettings
from koru_delta.transaction import Transaction
from koru_delta.values import Value, VectorLike, check_key


class WriteVerbs(Opened):
    """What adds to the log."""

    # The last transaction begun in this thread or task, which may have ended since.
    _transaction: ContextVar[Transaction | None]

    def put(
        self,
        namespace: str,
        key: str,
        value: Value,
        *,
        if_match: Version | str | None = ANY,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        """Store a JSON value under a key, as a new version; drops the key's vectors.

        Args:
            if_match: The version that must be the present one; None if there must be none.
            ttl: Seconds (or a timedelta) after which the key counts as absent, exactly.

        Raises:
            InvalidDataError: the value, key or namespace cannot be stored.
            ConflictError: another version than `if_match` is the present one.
            UnknownCauseError: a cause is not in the log.
            ReadOnlyError, DatabaseLockedError, StorageFullError, StorageError.
        """
        options = write_options(if_match, causes, ttl, valid_from, valid_to, author, message, run)
        return self._log.commit([self._intents.put(namespace, key, value, options)])[0]

    def put_many(
        self,
        items: Iterable[tuple[str, str, Value]],
        *,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """Store many `(namespace, key, value)` in one commit: all of them or none."""
        options = write_options(ANY, causes, ttl, valid_from, valid_to, author, message, run)
        every = tuples_of(items, "(namespace, key, value)", 3)
        put = self._intents.put
        return self._log.commit([put(name, key, value, options) for name, key, value in every])

    def delete(
        self,
        namespace: str,
        key: str,
        *,
        if_match: Version | str | None = ANY,
        causes: Sequence[CauseLike] = (),
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        """Mark a key as deleted from now on; the past before it stays readable.

        Raises:
            KeyNotFoundError: there is nothing to delete.
            ConflictError: another version than `if_match` is the present one.
        """
        options = write_options(if_match, causes, None, valid_from, valid_to, author, message, run)
        return self._log.commit([self._intents.delete(namespace, key, options)])[0]

    def delete_many(
        self,
        namespace: str,
        keys: Iterable[str],
        *,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """Delete those of the keys that are present, in one commit; absent ones are no error."""
        options = write_options(ANY, causes, None, None, None, author, message, run)
        writes = []
        for key in dict.fromkeys(key_list(keys)):
            write = self._intents.delete(namespace, key, options)
            write.missing_ok = True
            writes.append(write)
        return self._log.commit(writes)

    def drop_namespace(
        self, namespace: str, *, author: str | None = None, message: str | None = None
    ) -> int:
        """Delete every present key of a namespace in one commit; returns how many.

        The past stays readable; the namespace is there again with its next put.
        """
        check_namespace(namespace)
        cut = self._log.now()
        found = self._log.engine.visible_keys(
            namespace, cut.seq, cut.clock, cut.clock, bodies=False, erased=True
        )
        keys = [key for key, _ in found]
        return len(self.delete_many(namespace, keys, author=author, message=message))

    def hide(
        self,
        namespace: str,
        key: str,
        *,
        version: Version | str | None = None,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        """Take a version out of search and `query` from now on, and out of nothing else.

        `get`, `version` and `history` go on as before, and so does every moment before this.
        What the key held earlier does not come back into search; what is put later is found.
        What was derived from it is found as well, so of an ingested document its chunks:
        `quarantine` takes out these too.

        Args:
            version: A put of this key, by itself or its id; None is what the key holds now.

        Returns:
            The entry of the log that hides it: its `target` is the version hidden.

        Raises:
            KeyNotFoundError: the key holds nothing, and no version was named.
            AnnotationError: the version is hidden already, or is no put of this key.
            UnknownVersionError: the version is not in the log.
            UnknownCauseError, ReadOnlyError, DatabaseLockedError, StorageError.
        """
        options = write_options(ANY, causes, None, None, None, author, message, run)
        write = self._intents.hide(namespace, key, version, options)
        return self._log.commit([write])[0]

    def unhide(
        self,
        namespace: str,
        key: str,
        *,
        version: Version | str | None = None,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        """Bring a hidden version back into search and `query`, if its key still holds it.

        Arguments and errors are those of `hide`.

        Raises:
            AnnotationError: the version is not hidden.
        """
        options = write_options(ANY, causes, None, None, None, author, message, run)
        write = self._intents.hide(namespace, key, version, options, back=True)
        return self._log.commit([write])[0]

    def hide_many(
        self,
        versions: Iterable[Version | str],
        *,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """Hide many versions, of any keys, in one commit; those hidden already are left out.

        Returns:
            The entries written, one for each version that was not hidden before.
        """
        options = write_options(ANY, causes, None, None, None, author, message, run)
        return self._log.commit(self._intents.hide_many(versions, options))

    def unhide_many(
        self,
        versions: Iterable[Version | str],
        *,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """Unhide many versions in one commit; those that are not hidden are left out."""
        options = write_options(ANY, causes, None, None, None, author, message, run)
        return self._log.commit(self._intents.hide_many(versions, options, back=True))

    def embed(
        self,
        namespace: str,
        key: str,
        vector: VectorLike | str,
        value: Value = KEEP,
        *,
        model: str | None = None,
        metric: Literal["cosine", "dot", "l2"] | None = None,
        if_match: Version | str | None = ANY,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Version:
        """Store a vector with a key, so that `similar` finds it.

        Args:
            vector: Shape (dimensions,), or text for the database's embedder.
            value: Left out, the key keeps the value it has; where it has none, text
                is stored as `{"text": ...}` and a bare vector as null.
            model: Files the vector; by default the embedder's name for text, else the
                one model the namespace has ever had, or "default". With a new value, vectors
                that other models made of the one before are dropped.
            metric: Fixed by the first vector of a namespace and model ("cosine" then).

        Raises:
            DimensionMismatchError, ModelMismatchError (several models, and none named),
            MetricMismatchError, InvalidDataError (NaN, infinity, a zero vector under cosine),
            EmbedderError; and those of `put`.
        """
        options = write_options(if_match, causes, ttl, valid_from, valid_to, author, message, run)
        write = self._intents.embed(
            namespace, key, vector, value, keep=value is KEEP, model=model, metric=metric,
            options=options,
        )  # fmt: skip
        return self._log.commit([write])[0]

    def embed_many(
        self,
        namespace: str,
        items: Iterable[tuple[str, VectorLike | str] | tuple[str, VectorLike | str, Value]],
        *,
        model: str | None = None,
        metric: Literal["cosine", "dot", "l2"] | None = None,
        causes: Sequence[CauseLike] = (),
        ttl: float | timedelta | None = None,
        valid_from: When | None = None,
        valid_to: When | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """Embed many `(key, vector_or_text)` or `(key, vector_or_text, value)` in one commit."""
        options = write_options(ANY, causes, ttl, valid_from, valid_to, author, message, run)
        writes = self._intents.embed_many(
            namespace, items, model=model, metric=metric, options=options
        )
        return self._log.commit(writes)

    def transaction(
        self,
        *,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Transaction:
        """Gather writes into one commit: `with db.transaction() as tx: tx.put(...)`.

        An exception inside the block writes nothing. `tx.get` sees the beginning and
        the transaction's own writes; `tx.versions` are there after the block.

        Raises:
            TransactionError: one is already open here; they do not nest.
        """
        options = write_options(ANY, (), None, None, None, author, message, run)
        return Transaction(self._intents, options, self._begin_transaction)

    def revert(
        self,
        namespace: str,
        key: str,
        to: AsOf,
        *,
        if_match: Version | str | None = ANY,
        author: str | None = None,
        message: str | None = None,
    ) -> Version:
        """Make a key hold again what it held as of `to`, vectors included, as a new version.

        `to` is a moment, or a version of this key (its whole commit, as everywhere). The
        version that is brought back becomes a `references` cause; where the key was absent,
        it is deleted.

        Raises:
            KeyNotFoundError: absent then and now.
            InvalidDataError: `to` is a version of another key.
            ConflictError: another version than `if_match` is the present one.
        """
        check_key(namespace, key)
        if isinstance(to, Version) and (to.namespace, to.key) != (namespace, key):
            raise InvalidDataError(
                f"{to!r} is a version of another key; pass one out of "
                f"history({namespace!r}, {key!r}), or a moment"
            )
        cut = self._log.cut(to)
        note = message or f"revert to {cut.seq}"
        try:
            past = self._log.version_at(namespace, key, cut, cut.clock)
        except KeyNotFoundError:
            return self.delete(namespace, key, if_match=if_match, author=author, message=note)
        options = write_options(
            if_match, [("references", past)], None, None, None, author, note, None
        )
        write = self._intents.put(namespace, key, past.value, options)
        write.carried = dict(past.vectors)
        return self._log.commit([write])[0]

    def tag(
        self,
        name: str,
        ref: AsOf = None,
        *,
        move: bool = False,
        author: str | None = None,
        message: str | None = None,
    ) -> Version:
        """Name a moment (now by default), to be asked for as `as_of="tag:name"`.

        Raises:
            ConflictError: the name is taken; pass `move=True` to point it elsewhere.
        """
        check_key("tags", name)
        cut = self._log.cut(ref)
        write = self._intents.put(
            "tags", name, None, write_options(ANY, (), None, None, None, author, message, None)
        )
        write.namespace, write.body = TAGS, self._log.tag_value(cut)
        if not move:
            write.if_match = None
        return self._log.commit([write])[0]

    def configure_text(
        self,
        namespace: str,
        *,
        fields: Sequence[str] | None = None,
        stemmer: str | None = None,
        author: str | None = None,
        message: str | None = None,
    ) -> Version:
        """Say what of a namespace's values is searched by words, and how; recorded in the log.

        It holds from now on: searches of earlier moments go by what was recorded then.

        Args:
            fields: Dotted paths of strings, or of arrays or objects that hold some; None is
                a value that is a string, the `"text"` of an object, or else all its strings.
            stemmer: A Snowball language, such as "english"; None compares whole words.

        Raises:
            QueryError: a field that is no path, or an unknown stemmer.
        """
        check_namespace(namespace)
        settings = TextSettings.of(fields, stemmer)
        options = write_options(ANY, (), None, None, None, author, message, None)
        write = self._intents.put(namespace, namespace, settings.to_json(), options)
        write.namespace = SETTINGS
        return self._log.commit([write])[0]

    def _begin_transaction(self, transaction: Transaction) -> None:
        last = self._transaction.get()
        if last is not None and last.is_open:
            raise TransactionError("a transaction is already open here; they do not nest")
        self._transaction.set(transaction)
