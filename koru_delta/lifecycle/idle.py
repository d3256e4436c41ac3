"""Hiding what has been idle for as long as a policy wishes; `unhide` brings it back.

Idle is what was neither written, nor annotated (so not unhidden either), nor used. It is hidden
in entries of the log that say why, so every moment before still finds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from datetime import timedelta
from typing import Final

from koru_delta.causal import HIDE, Version, moment
from koru_delta.lifecycle.policies import Policy, literal_prefix, matching
from koru_delta.lifecycle.usage import Place
from koru_delta.log import CausalLog, Write

_PAGE: Final = 2_000  # keys looked at together
_AT_ONCE: Final = 100  # hides in one commit, so that writers do not wait long


def hide_idle(
    log: CausalLog,
    policy: Policy,
    last_uses: dict[str, int],
    pins: Set[Place],
    *,
    author: str | None,
) -> list[Version]:
    """Hide what a namespace's policy wishes hidden by now; the entries that do so.

    Where several patterns match a key, the shortest time counts.

    Args:
        last_uses: When each key was last used, in microseconds.
        pins: Are never hidden.
    """
    assert policy.namespace is not None
    now = log.now()
    writes: dict[str, Write] = {}
    for pattern, ttl in sorted(policy.idle.items(), key=lambda item: (item[1], item[0])):
        limit = now.clock - ttl // timedelta(microseconds=1)
        for key, identity, idle_from in _idle(log, policy.namespace, pattern, limit, last_uses):
            if key not in writes and (policy.namespace, key) not in pins:
                writes[key] = Write(
                    HIDE, policy.namespace, key, target=identity, missing_ok=True, author=author,
                    message=(
                        f"idle since {moment(idle_from).isoformat()}: keys like {pattern!r} are "
                        f"hidden after {_in_words(ttl)}"
                    ),
                )  # fmt: skip
    every = list(writes.values())
    made: list[Version] = []
    for start in range(0, len(every), _AT_ONCE):
        made += log.commit(every[start : start + _AT_ONCE])
    return made


def _idle(
    log: CausalLog, namespace: str, pattern: str, limit: int, last_uses: dict[str, int]
) -> Iterator[tuple[str, str, int]]:
    """Keys of a pattern that have been idle since a time: key, version, and since when."""
    cut, fits = log.now(), matching(pattern)
    after: str | None = None
    while True:
        found = log.engine.visible_keys(
            namespace, cut.seq, cut.clock, cut.clock, prefix=literal_prefix(pattern),
            after=after, limit=_PAGE, bodies=False, hidden=False,
        )  # fmt: skip
        if not found:
            return
        after = found[-1][0]
        for key, entry in found:
            since = max(entry.tx_time, last_uses.get(key, 0))
            if since > limit or not fits.match(key):
                continue
            (last,) = log.engine.key_versions(
                namespace, key, cut.seq, reverse=True, limit=1, annotations=True
            )
            since = max(since, last.tx_time)
            if since <= limit:
                yield key, entry.version_id.hex(), since


def _in_words(ttl: timedelta) -> str:
    """A time span for people: the largest unit it is a whole number of.

    >>> _in_words(timedelta(days=30)), _in_words(timedelta(hours=1)), _in_words(timedelta(0, 90))
    ('30 days', '1 hour', '90 seconds')
    """
    for unit, span in (("day", timedelta(days=1)), ("hour", timedelta(hours=1)),
                       ("minute", timedelta(minutes=1))):  # fmt: skip
        if not ttl % span:
            count = ttl // span
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{ttl.total_seconds():g} seconds"
