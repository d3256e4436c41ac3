"""Hiding what has been idle for as long as a policy wishes; `unhide` brings it back.

Idle is what was neither written, nor annotated (so not unhidden either), nor used. It is hidden
in entries of the log that say why, so every moment before still finds it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import numpy as np

from koru_delta.causal import HIDE, Version, moment
from koru_delta.lifecycle.holdings import Held, Ids
from koru_delta.lifecycle.policies import Policy, literal_prefix, matching
from koru_delta.log import CausalLog, Write
from koru_delta.storage.pace import gently

_AT_ONCE: Final = 100  # hides in one commit, so that writers do not wait long


class Idle:
    """Finds keys that have been idle for too long. Used by one thread at a time."""

    def __init__(self, log: CausalLog) -> None:
        self._log = log
        # By namespace and pattern the keys that fit it, and the last key that was asked.
        self._fitting: dict[tuple[str, str], tuple[Ids, int]] = {}

    def hide(
        self, policy: Policy, held: Held, rows: Ids, last: Ids, *, author: str | None
    ) -> list[Version]:
        """Hide what a namespace's policy wishes hidden by now; the entries that do so.

        Where several patterns match a key, the shortest time counts.

        Args:
            rows: Keys of the namespace that may be hidden.
            last: When something was last done with each key of `held`, in microseconds.
        """
        assert policy.namespace is not None
        now = self._log.now()
        writes: dict[int, Write] = {}
        for pattern, ttl in sorted(policy.idle.items(), key=lambda item: (item[1], item[0])):
            limit = now.clock - ttl // timedelta(microseconds=1)
            idle = rows[last[rows] <= limit]
            if not len(idle):
                continue
            idle = idle[np.isin(held.ids[idle], self._fit(policy.namespace, pattern))]
            idle = np.array([row for row in idle.tolist() if row not in writes], dtype=np.int64)
            known = {
                seq: identity.hex()
                for seq, identity, _ in self._log.engine.records_at(held.seqs[idle].tolist())
            }
            for row, (namespace, key) in zip(idle.tolist(), held.places(idle), strict=True):
                writes[row] = Write(
                    HIDE, namespace, key, target=known[int(held.seqs[row])], missing_ok=True,
                    author=author,
                    message=(
                        f"idle since {moment(int(last[row])).isoformat()}: keys like {pattern!r} "
                        f"are hidden after {_in_words(ttl)}"
                    ),
                )  # fmt: skip
        every = sorted(writes.values(), key=lambda write: write.key)
        made: list[Version] = []
        for start in gently(range(0, len(every), _AT_ONCE)):
            made += self._log.commit(every[start : start + _AT_ONCE])
        return made

    def _fit(self, namespace: str, pattern: str) -> Ids:
        """The keys of a namespace that fit a pattern."""
        known, after = self._fitting.get((namespace, pattern), (np.zeros(0, np.int64), 0))
        found = self._log.engine.keys_like(namespace, literal_prefix(pattern), after)
        if found:
            fits = matching(pattern)
            new = [number for number, key in gently(found) if fits.match(key)]
            known = np.append(known, np.array(new, dtype=np.int64))
            self._fitting[namespace, pattern] = known, max(number for number, _ in found)
        return known


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
