"""Writing into a workspace: one commit for what belongs together, within rules and quota.

What is to be written is planned anew each time somebody else wrote meanwhile, so that two
processes that close each other's facts, or fill the last place, agree on the outcome. How
much a workspace with a quota holds is counted in the log, in the same commit: where it would
be too much, it is counted from scratch first, since items also expire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple

from koru_delta.causal import DELETE, Version, When, microseconds
from koru_delta.errors import (
    ChangedSinceError,
    ConflictError,
    ErasedError,
    ImmutableEventError,
    KeyNotFoundError,
    QuotaExceededError,
)
from koru_delta.log import Pending, Write
from koru_delta.transaction import Transaction
from koru_delta.values import Value, Vector, canonical_bytes
from koru_delta.workspace.settings import Recorded, Settings
from koru_delta.workspace.verbs import Verbs

RESERVED: Final = "$"  # what namespaces inside a workspace do not begin with
_USAGE: Final = "$usage"
_TRIES: Final = 100  # against others who write into the same workspace at the same time


@dataclass(slots=True)
class Intended:
    """A put, or a delete, of a key in a whole namespace; `options` are those of the verb.

    With `planned` it depends on what the key has held so far, and is planned again where
    somebody wrote the key meanwhile; with `once` nobody may ever have written it. With `watch`
    nothing is written: all is planned again where somebody wrote a key that begins so.
    """

    namespace: str
    key: str
    value: Value = None
    vector: Vector | None = None
    delete: bool = False
    planned: bool = False
    once: bool = False
    watch: bool = False
    options: dict[str, Any] = field(default_factory=dict)


Plan = Callable[[Settings], Sequence[Intended]]


class Usage(NamedTuple):
    """How much a workspace holds, by present keys and their values, hidden ones too."""

    items: int
    bytes: int


class Writer:
    """Commits what is planned for one workspace."""

    def __init__(self, db: Verbs, recorded: Recorded, name: str) -> None:
        self._db, self._recorded, self._name = db, recorded, name
        self._counted = f"{name}/{_USAGE}"
        self._retained: dict[str, tuple[timedelta | None, int | None]] = {}  # seen to, by namespace

    def commit(
        self,
        plan: Plan,
        *,
        model: str | None = None,
        author: str | None = None,
        message: str | None = None,
        run: str | None = None,
    ) -> list[Version]:
        """Write what is planned, in one commit; the versions, in order.

        Args:
            model: Made the vectors.

        Raises:
            QuotaExceededError: it would be too much.
            ImmutableEventError: an event was written before.
            ConflictError: an `if_match` did not hold.
        """
        conflict: ConflictError | None = None
        for _ in range(_TRIES):
            settings, said_by = self._recorded.read()
            if said_by is None:
                settings, _ = self._recorded.change(
                    lambda known: known, author=author, message=None
                )
            made: list[Pending] = []
            intended: Sequence[Intended] = ()
            try:
                with self._db.transaction(author=author, message=message, run=run) as tx:
                    intended = plan(settings)
                    if settings.has_quota:
                        self._charge(tx, settings, intended)
                    made = [_added(tx, each, model) for each in intended if not each.watch]
                    for each in intended:
                        if each.watch:
                            tx.expect_unchanged(each.namespace, prefix=each.key)
            except ConflictError as error:
                if error.namespace != self._counted and not self._again(error, intended):
                    raise
                conflict = error
                continue
            self._retain({each.namespace for each in intended}, settings)
            return [each.version for each in made if each.version is not None]
        assert conflict is not None
        raise conflict

    def namespaces(self, **moment: Any) -> list[str]:
        """The whole names of the namespaces inside with a present key, in order."""
        prefix = f"{self._name}/"
        return [
            name for name in self._db.list_namespaces(**moment)
            if name.startswith(prefix) and name[len(prefix)] != RESERVED
        ]  # fmt: skip

    def usage(self) -> Usage:
        """How much there is, counted."""
        items = held = 0
        for namespace in self.namespaces():
            for size in self._sizes(namespace, self._db.list_keys(namespace)):
                items, held = items + 1, held + size
        return Usage(items, held)

    def count_anew(self, *, author: str | None) -> None:
        """Begin to keep count, for a quota."""
        with self._db.transaction(author=author, message="count what there is") as tx:
            tx.put(self._counted, _USAGE, self.usage()._asdict())

    def retain(self, settings: Settings) -> None:
        """See that every namespace retains its past as the settings say."""
        self._retain(self.namespaces(), settings, always=True)

    def _again(self, error: ConflictError, intended: Iterable[Intended]) -> bool:
        """Whether a conflict is of what can be planned anew."""
        if isinstance(error, ChangedSinceError):
            return True
        for each in intended:
            if (each.namespace, each.key) == (error.namespace, error.key):
                if each.once:
                    inside = each.namespace.partition("/")[2]
                    raise ImmutableEventError(inside, each.key) from error
                return each.planned
        return False

    def _charge(self, tx: Transaction, settings: Settings, intended: Sequence[Intended]) -> None:
        """Add what the workspace will hold to the transaction.

        Raises:
            QuotaExceededError: it is too much.
        """
        try:
            counted: Version | None = self._db.version(self._counted, _USAGE)
        except KeyNotFoundError:
            counted = None
        now = microseconds(self._db.as_of(None).time)
        items = held = 0
        sizes: dict[tuple[str, str], int | None] = {}
        for each in intended:
            if each.watch or not _is_now(each, now):
                continue
            place = each.namespace, each.key
            if place not in sizes:
                sizes[place] = next(iter(self._sizes(each.namespace, [each.key])), None)
            before = sizes[place]
            after = None if each.delete else len(canonical_bytes(each.value))
            items += (after is not None) - (before is not None)
            held += (after or 0) - (before or 0)
            sizes[place] = after
        known = self.usage() if counted is None else Usage(**counted.value)
        wanted = Usage(known.items + items, known.bytes + held)
        if _excess(settings, wanted, items, held) and counted is not None:
            known = self.usage()
            wanted = Usage(known.items + items, known.bytes + held)
        excess = _excess(settings, wanted, items, held)
        if excess:
            raise QuotaExceededError(self._name, *excess)
        tx.put(self._counted, _USAGE, wanted._asdict(), if_match=counted)

    def _sizes(self, namespace: str, keys: Iterable[str]) -> Iterator[int]:
        for key in keys:
            try:
                yield len(self._db.get_raw(namespace, key))
            except (KeyNotFoundError, ErasedError):
                continue  # gone meanwhile

    def _retain(
        self, namespaces: Iterable[str], settings: Settings, *, always: bool = False
    ) -> None:
        wanted = settings.keep, settings.versions
        for namespace in namespaces:
            known = self._retained.get(namespace, (None, None))
            if known == wanted and not always:
                continue
            said = self._db.retentions().get(namespace)
            if ((None, None) if said is None else (said.keep, said.versions)) != wanted:
                self._db.retain(namespace, keep=settings.keep, versions=settings.versions)
            self._retained[namespace] = wanted


def uncounted(workspace: str) -> Write:
    """Have what a workspace holds counted anew, where it is counted: it was added to unasked."""
    return Write(DELETE, f"{workspace}/{_USAGE}", _USAGE, missing_ok=True)


def _added(tx: Transaction, each: Intended, model: str | None) -> Pending:
    options = dict(each.options)
    if each.once:
        options["if_last"] = None
    if each.delete and each.planned:  # it may have been written since the transaction began
        tx.delete_many(each.namespace, [each.key], **options)
        return Pending()
    if each.delete:
        return tx.delete(each.namespace, each.key, **options)
    if each.vector is None:
        return tx.put(each.namespace, each.key, each.value, **options)
    return tx.embed(each.namespace, each.key, each.vector, each.value, model=model, **options)


def _is_now(each: Intended, now: int) -> bool:
    """Whether it changes what the key holds now."""
    starts: When | None = each.options.get("valid_from")
    ends: When | None = each.options.get("valid_to")
    return (starts is None or microseconds(starts) <= now) and (
        ends is None or now < microseconds(ends)
    )


def _excess(
    settings: Settings, wanted: Usage, items: int, held: int
) -> tuple[str, int, int] | None:
    """Which limit is passed, if one is by what is added: its name, itself, what was wanted."""
    for what, limit, total, added in (
        ("items", settings.max_items, wanted.items, items),
        ("bytes", settings.max_bytes, wanted.bytes, held),
    ):
        if limit is not None and added > 0 and total > limit:
            return what, limit, total
    return None
