"""The vector spaces of a log, each read when it is first asked for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, Final

from koru_delta.causal import FOREVER, Cut
from koru_delta.errors import KoruDeltaError, ModelMismatchError
from koru_delta.log import CausalLog, Write
from koru_delta.search.nearest import VectorSpace
from koru_delta.search.upkeep import Upkeep
from koru_delta.storage import Space

_FEW_WRITES: Final = 16  # in one commit
_log = logging.getLogger("koru_delta")


class Vectors:
    """All vector spaces of a log, each read when it is first asked for."""

    def __init__(self, log: CausalLog, memory: int | None = None) -> None:
        """Keep to `memory` bytes if given, as far as files have what is let go of."""
        self.log = log
        self._memory = memory
        self._begin()
        log.after_commit = self.keep_up
        log.engine.after_fork.append(self._begin)

    def _begin(self) -> None:
        """Start with nothing read, and no other thread reading, as a forked child does."""
        self._lock = threading.Lock()
        self._spaces: dict[int, VectorSpace] = {}
        self._of: dict[str, dict[int, VectorSpace]] = {}  # the same, by namespace
        self._first: dict[int, int] = {}
        self.upkeep = Upkeep(self.log, self.opened, self._memory)

    def opened(self) -> list[VectorSpace]:
        """The spaces that have been read."""
        with self._lock:
            return list(self._spaces.values())

    def keep_up(self, writes: Sequence[Write]) -> None:
        """Have spaces that are searched between writes take up a few that were committed.

        Nothing is raised: these are made, whatever becomes of what follows them.
        """
        if len(writes) > _FEW_WRITES:
            return
        for namespace in {write.namespace for write in writes}:
            for space in list(self._of.get(namespace, {}).values()):
                try:
                    space.keep_up()
                except (KoruDeltaError, MemoryError) as error:  # a search will say it
                    _log.info("%r could not be followed: %s", namespace, error)

    def known(self, namespace: str, cut: Cut) -> list[Space]:
        """The spaces of a namespace that had begun by a cut, oldest first."""
        return [s for s in self.log.engine.spaces(namespace) if self._began(s) <= cut.seq]

    def space(
        self, namespace: str, model: str | None, cut: Cut, valid_at: int
    ) -> VectorSpace | None:
        """The space a search means, or None if the namespace has no vectors.

        Raises:
            ModelMismatchError: no such model there, or several that are visible and
                none named.
        """
        known = self.known(namespace, cut)
        if not known:
            return None
        if model is not None:
            for space in known:
                if space.model == model:
                    return self.open(space)
            raise ModelMismatchError(namespace, model, tuple(space.model for space in known))
        if len(known) > 1:
            seen = [space for space in map(self.open, known) if space.count(cut, valid_at)]
            if len(seen) > 1:
                raise ModelMismatchError(namespace, None, tuple(s.space.model for s in seen))
            return seen[0] if seen else None
        return self.open(known[0])

    def open(self, space: Space) -> VectorSpace:
        """A space, read from its cache or with nothing read yet."""
        found = self._spaces.get(space.space_id)
        if found is None or found.is_stale:
            with self._lock:
                found = self._spaces.get(space.space_id)
                if found is None or found.is_stale:
                    fresh = VectorSpace(self.log, space, self.upkeep.costs)
                    if self._memory is not None:
                        fresh.keep_within(self._memory)
                    self.upkeep.restore(fresh, found)
                    found = self._spaces[space.space_id] = fresh
                    self._of.setdefault(space.namespace, {})[space.space_id] = fresh
        return found

    def _began(self, space: Space) -> int:
        """The position of the first vector of a space, which never changes."""
        first = self._first.get(space.space_id)
        if first is None:
            first = self.log.engine.space_used(space)
            if first != FOREVER:
                self._first[space.space_id] = first
        return first

    def statistics(self) -> dict[str, Any]:
        """What is held for search, per space; sizes in bytes."""
        spaces = [space.statistics() for space in self.opened()]
        return {
            "spaces_open": len(spaces),
            "vectors_in_memory": sum(space["vectors"] for space in spaces),
            "vector_bytes_in_memory": sum(space["bytes"]["tail"] + space["bytes"]["segments"]
                                          for space in spaces),
            "vector_memory": self.upkeep.memory(),
            "vector_spaces": spaces,
        }  # fmt: skip

    def close(self) -> None:
        """Stop what runs in the background, keep what it has made, and let go of all files."""
        self.upkeep.close()
        for space in self.opened():
            space.forget()
