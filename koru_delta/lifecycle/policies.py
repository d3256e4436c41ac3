"""What is wished of the lifecycle, by namespace: budgets, how long idle keys stay, pins.

Wishes are entries of the log (namespace `$lifecycle`), so that it tells who wished what and
when, and an earlier moment is read by what was wished then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fnmatch import translate
from typing import Any, Final

from koru_delta.causal import DELETE, PUT, Cut
from koru_delta.errors import ConflictError, InvalidDataError, KeyNotFoundError
from koru_delta.lifecycle.grouping import Consolidate, days
from koru_delta.lifecycle.plan import Budget, Tier
from koru_delta.lifecycle.usage import Place
from koru_delta.log import CausalLog, Write
from koru_delta.log.log import LIFECYCLE
from koru_delta.values import LeftOut, canonical_bytes, check_key, decode, distinction_id

KEEP: Final[Any] = LeftOut("as it stands")
_DATABASE: Final = "database"
_NAMESPACE: Final = "namespace:"
_PIN: Final = "pin:"
_TRIES: Final = 20  # against others who wish something at the same time


@dataclass(frozen=True, slots=True)
class Policy:
    """What is wished of a namespace, or with `namespace` None of the whole database.

    `str()` of it says it in words. `idle` has by pattern of keys how long after its last write
    or use a key is hidden, `consolidate` which old events become a summary.
    """

    namespace: str | None
    budget: Budget = field(default_factory=Budget)
    idle: Mapping[str, timedelta] = field(default_factory=dict)
    consolidate: Consolidate | None = None

    @property
    def is_active(self) -> bool:
        """Whether anything is wished at all."""
        return self.budget.is_limit() or bool(self.idle) or self.consolidate is not None

    def __str__(self) -> str:
        wishes = [
            f"at most {limit:,} bytes of {tier} keys"
            for tier in Tier
            if (limit := self.budget.of(tier)) is not None
        ]
        wishes += [
            f"keys {pattern!r} idle for {days(ttl)} are hidden"
            for pattern, ttl in self.idle.items()
        ]
        if self.consolidate is not None:
            wishes.append(str(self.consolidate))
        place = "the whole database" if self.namespace is None else repr(self.namespace)
        return f"{place}: {'; '.join(wishes) or 'nothing is wished'}"


class Policies:
    """Reads and writes wishes in a log."""

    def __init__(self, log: CausalLog) -> None:
        self._log = log

    def all(self, cut: Cut) -> dict[str | None, Policy]:
        """Every policy there was at a moment, by namespace; that of the database under None."""
        policies = (
            _read(key, decode(entry.body or b"null"))
            for prefix in (_DATABASE, _NAMESPACE)
            for key, entry in self._log.engine.visible_keys(
                LIFECYCLE, cut.seq, cut.clock, cut.clock, prefix=prefix
            )
            if key == _DATABASE or key.startswith(_NAMESPACE)
        )
        return {policy.namespace: policy for policy in policies}

    def change(
        self,
        namespace: str | None,
        *,
        author: str | None,
        message: str | None,
        keys: str = "*",
        ttl: Any = KEEP,
        consolidate: Any = KEEP,
        **budget: Any,
    ) -> Policy:
        """Wish something anew, and leave the rest; returns all that is wished there now.

        Raises:
            InvalidDataError: it makes no sense.
        """
        name = _DATABASE
        if namespace is not None:
            check_key(namespace, "-")
            name = _NAMESPACE + namespace
        for _ in range(_TRIES):
            cut = self._log.now()
            try:
                version = self._log.version_at(LIFECYCLE, name, cut, cut.clock)
                known, said_by = _read(name, version.value), version.id
            except KeyNotFoundError:
                known, said_by = Policy(namespace), None
            wished = _changed(known, keys, ttl, consolidate, budget)
            if wished == known:
                return known
            body = _recorded(wished)
            write = Write(
                PUT, LIFECYCLE, name, body, if_match=said_by, author=author, message=message
            )
            try:
                self._log.commit([write])
            except ConflictError:
                continue
            return wished
        raise ConflictError(LIFECYCLE, name, None, None)

    def pin(self, namespace: str, key: str, *, author: str | None, message: str | None) -> None:
        """Wish a key to stay near and not to be forgotten, whether it is there yet or not."""
        check_key(namespace, key)
        body = canonical_bytes({"namespace": namespace, "key": key})
        name = _PIN + distinction_id("json", body).hex()
        if (namespace, key) not in self.pins(self._log.now()):
            self._log.commit([Write(PUT, LIFECYCLE, name, body, author=author, message=message)])

    def unpin(self, namespace: str, key: str, *, author: str | None, message: str | None) -> bool:
        """Wish that no more; False if nobody did."""
        check_key(namespace, key)
        body = canonical_bytes({"namespace": namespace, "key": key})
        name = _PIN + distinction_id("json", body).hex()
        gone = Write(DELETE, LIFECYCLE, name, author=author, message=message, missing_ok=True)
        return bool(self._log.commit([gone]))

    def pins(self, cut: Cut) -> set[Place]:
        """What was pinned at a moment."""
        found = self._log.engine.visible_keys(LIFECYCLE, cut.seq, cut.clock, cut.clock, prefix=_PIN)
        said = (decode(entry.body or b"null") for key, entry in found if key.startswith(_PIN))
        return {(each["namespace"], each["key"]) for each in said}


def matching(pattern: str) -> re.Pattern[str]:
    """A pattern of keys as a shell has them: `*`, `?`, `[abc]`, `[!abc]`."""
    return re.compile(translate(pattern))


def literal_prefix(pattern: str) -> str:
    """What every key of a pattern begins with.

    >>> literal_prefix("session-*"), literal_prefix("*"), literal_prefix("a[bc]d")
    ('session-', '', 'a')
    """
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]


def _changed(
    known: Policy, keys: str, ttl: Any, consolidate: Any, budget: Mapping[str, Any]
) -> Policy:
    if ttl is not KEEP:
        if known.namespace is None:
            raise InvalidDataError("a ttl is of one namespace; name it")
        if not isinstance(keys, str) or not keys:
            raise InvalidDataError(f"keys is a pattern such as 'session-*', not {keys!r}")
        if ttl is not None and (not isinstance(ttl, timedelta) or ttl <= timedelta(0)):
            raise InvalidDataError(f"ttl is a timedelta above 0, or None, not {ttl!r}")
        idle = {**known.idle, keys: ttl}
        known = replace(known, idle={name: each for name, each in sorted(idle.items()) if each})
    if consolidate is not KEEP:
        if known.namespace is None:
            raise InvalidDataError("what is consolidated is of one namespace; name it")
        if not isinstance(consolidate, Consolidate | None):
            raise InvalidDataError(
                f"consolidate is a Consolidate(...) or None, not {consolidate!r}"
            )
        known = replace(known, consolidate=consolidate)
    limits = {name: limit for name, limit in budget.items() if limit is not KEEP}
    for name, limit in limits.items():
        if limit is not None and (
            not isinstance(limit, int) or isinstance(limit, bool) or limit < 0
        ):
            raise InvalidDataError(f"{name}_bytes is a number of bytes from 0 on, not {limit!r}")
    return replace(known, budget=replace(known.budget, **limits))


def _recorded(policy: Policy) -> bytes:
    return canonical_bytes(
        {
            "namespace": policy.namespace,
            "hot": policy.budget.hot, "warm": policy.budget.warm, "cold": policy.budget.cold,
            "idle": {
                pattern: ttl // timedelta(microseconds=1) for pattern, ttl in policy.idle.items()
            },
            "consolidate": None if policy.consolidate is None else policy.consolidate.to_json(),
        }
    )  # fmt: skip


def _read(name: str, value: Any) -> Policy:
    said: dict[str, Any] = value
    return Policy(
        None if name == _DATABASE else said["namespace"],
        Budget(said["hot"], said["warm"], said["cold"]),
        {pattern: timedelta(microseconds=ttl) for pattern, ttl in said["idle"].items()},
        None if said.get("consolidate") is None else Consolidate.read(said["consolidate"]),
    )
