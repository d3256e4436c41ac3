"""Erasing for good: now, or once it is out of use for longer than a namespace retains it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from math import inf
from time import monotonic
from typing import Final

from koru_delta.causal import ERASE, OPERATIONS, Version, microseconds
from koru_delta.database.arguments import ANY, check_namespace, write_options
from koru_delta.database.opened import Opened
from koru_delta.errors import ConflictError
from koru_delta.intents import CauseLike, Erasable, WriteOptions
from koru_delta.lifecycle import Runner, left_derived
from koru_delta.log import Write
from koru_delta.log.retention import (
    Erased,
    Retention,
    Swept,
    checked_policy,
    recorded,
    retained,
    retention_of,
    sweep,
)
from koru_delta.log.writes import RETENTION

SWEEP_SECONDS: Final = 60.0
_TRIES: Final = 20  # against others who say the same thing at the same time
_VECTORS_SWEPT_SECONDS: Final = 3600.0  # at most so often, since their indexes are made anew


class EraseVerbs(Opened):
    """What removes from the past, and gives disk back."""

    _runner: Runner
    _swept: dict[str, float]  # when namespaces were last swept in the background

    def erase(
        self,
        what: Erasable | Iterable[Erasable],
        *,
        causes: Sequence[CauseLike] = (),
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> Erased:
        """Remove values and vectors for good, from the past too; what they were is recorded.

        It is an entry of the log, in one commit with all that is erased together. Records and
        hashes stay, so that the log still verifies and every proof still holds; what is erased
        is in no file of the database afterwards (`Erased.is_clean` says so), and out of
        search, `query`, `count` and `list_keys` at every moment, past ones too. Whoever asks for
        a value that is gone gets `ErasedError`. A value that another version holds as well
        stays there. Names of namespaces and keys, authors and messages are records: keep
        nothing in them that may have to go.

        A summary that was made by consolidating may quote its sources, so it is erased with
        any of them, and its other sources come back, to be summed up anew. What else came from
        what is erased is named in the answer (`Erased.derived`), and left.

        Args:
            what: A version or its id; or `(namespace, key)` for all that a key ever held, and
                then the key is deleted as well. One, or a list of them. What was erased
                already is left out.
            message: Why: `ErasedError.reason` to whoever asks later.

        Raises:
            KeyNotFoundError: a key was never written.
            UnknownVersionError: a version is not in the log.
            AnnotationError: a version is no put.
            UnknownCauseError, ReadOnlyError, DatabaseLockedError, StorageError.
        """
        self._check_writable()
        options = write_options(ANY, causes, None, None, None, author, message, run)
        erases, made, removed = self._erase(what, options)
        self._log.shrink(removed)
        return Erased(
            tuple(each for entry in made if _is_erase(entry) for each in entry.targets),
            tuple(made), removed, self._log.engine.is_scrubbed(),
            tuple(version.id for version in left_derived(self._log, erases)),
        )  # fmt: skip

    def _erase(
        self, what: Erasable | Iterable[Erasable], options: WriteOptions
    ) -> tuple[list[Write], list[Version], int]:
        """Erase, and what somebody has summed up of it meanwhile.

        Returns:
            Erases of what is gone now, or else was before; the entries; how many bytes.
        """
        if not isinstance(what, (Version, str, tuple)) and isinstance(what, Iterable):
            what = list(what)  # it is gone through for each try
        conflict: ConflictError | None = None
        for _ in range(_TRIES):
            try:
                erases = self._intents.erase(what, options)
                made, removed = self._log.erase(erases)
            except ConflictError as error:
                conflict = error
                continue
            gone = [
                Write(
                    ERASE, entry.namespace, entry.key, targets=entry.targets,
                    author=entry.author, message=entry.message,
                )
                for entry in made if _is_erase(entry)
            ]  # fmt: skip
            more, given = self._log.erase(self._intents.besides_erases(gone))
            return gone or erases, [*made, *more], removed + given
        assert conflict is not None
        raise conflict

    def retain(
        self,
        namespace: str,
        *,
        keep: timedelta | None = None,
        versions: int | None = None,
        author: str | None = None,
        message: str | None = None,
    ) -> Retention:
        """Say how much of its past a namespace retains; recorded in the log, until said anew.

        A version is out of use once its key has been written again or deleted, or once it has
        expired. `sweep` erases what has been out of use for all of `keep` and is not
        among the last `versions` entries of its key (deletes count); where one of the two is
        None, the other alone decides. What a key holds now is never swept, nor what holds
        explicit valid times still. With neither, everything is retained from now on.

        While a namespace has a policy, this handle and every one opened later sweep about
        once a minute (a namespace with vectors: once an hour), beside everything else.

        Args:
            keep: For instance `timedelta(days=30)`; zero retains nothing out of use.
            versions: From 1 on.

        Raises:
            InvalidDataError: they make no sense, or the namespace cannot be.
        """
        check_namespace(namespace)
        self._check_writable()
        policy = checked_policy(namespace, keep, versions)
        for _ in range(_TRIES):
            known, said_by = retention_of(self._log, namespace, self._log.now())
            horizon = None if known is None else known.horizon
            options = write_options(ANY, (), None, None, None, author, message, None)
            write = self._intents.put(namespace, namespace, None, options)
            write.namespace, write.if_match = RETENTION, said_by
            write.body = recorded(policy, 0 if horizon is None else microseconds(horizon))
            try:
                self._log.commit([write])
            except ConflictError:
                continue
            break
        else:
            raise ConflictError(RETENTION, namespace, None, None)
        if policy.is_active and not self._log.engine.temporary:
            self._runner.start()
        return replace(policy, horizon=horizon)

    def retentions(self) -> dict[str, Retention]:
        """What each namespace retains, by name: of those for which somebody ever said so."""
        return {name: policy for name, (policy, _) in retained(self._log, self._log.now()).items()}

    def sweep(
        self,
        namespace: str | None = None,
        *,
        author: str | None = None,
        message: str | None = None,
    ) -> Swept:
        """Erase now what is no longer retained (see `retain`), and give disk back.

        From then on, searches, queries and lists of moments before the namespace's horizon
        (`retentions()`) raise `ErasedError`, since they would lack what was there; `get` raises
        it where what the key held is gone, and answers where it is not.

        Args:
            namespace: Only this one; None is every namespace that has a policy.
        """
        self._check_writable()
        if namespace is not None:
            check_namespace(namespace)
        return self._sweep([namespace] if namespace is not None else None, author, message)

    def compact(self) -> int:
        """Write files anew without what is not used; returns the bytes they are shorter by.

        `sweep` and `erase` give disk back by themselves, but for files of an older version: those
        keep what is free for the next writes until they were compacted once. Writers wait
        meanwhile, readers do not; it takes as much free disk as the file is large, twice.
        """
        self._check_writable()
        engine = self._log.engine
        shorter = engine.compact_tiers() + engine.compact()
        if not self._log.engine.is_scrubbed():
            self._parts.scrub()
        return shorter

    def _sweep(
        self, namespaces: Iterable[str] | None, author: str | None, message: str | None
    ) -> Swept:
        names = self.retentions() if namespaces is None else namespaces
        versions = removed = 0
        swept = []
        for name in names:
            count, given = sweep(
                self._log, name, author=author or self._intents.author,
                message=message or "no longer retained",
            )  # fmt: skip
            versions, removed = versions + count, removed + given
            if count:
                swept.append(name)
        engine = self._log.engine
        if not engine.is_scrubbed():
            self._parts.scrub()
        return Swept(versions, removed, self._log.give_back(), tuple(swept))

    def _sweep_quietly(self) -> None:
        """What is due, from time to time; indexes of vectors are not made anew all the time."""
        now = monotonic()
        due = []
        for name, policy in self.retentions().items():
            often = 0.0 if not self._log.engine.spaces(name) else _VECTORS_SWEPT_SECONDS
            if policy.is_active and now - self._swept.get(name, -inf) >= often:
                due.append(name)
                self._swept[name] = now
        if due:
            self._sweep(due, None, None)


def _is_erase(entry: Version) -> bool:
    return entry.operation == OPERATIONS[ERASE]
