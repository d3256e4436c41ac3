"""Exact vector search at any moment, over every version at once.

One space holds the vectors of a (namespace, model): a row of float32 for each distinct
vector, and rows in two times (`rows.py`) that say when it is visible. The scan is a
matrix-vector product; what it selects is scored again in float64, row by row, so that a
score depends on the two vectors alone and a search can be repeated exactly.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from koru_delta.causal import FOREVER, Cut
from koru_delta.errors import DimensionMismatchError, InvalidDataError, ModelMismatchError
from koru_delta.log import CausalLog
from koru_delta.search.columns import Columns
from koru_delta.search.filters import CompiledFilter
from koru_delta.search.rows import Mask, Rows
from koru_delta.storage import Entry, Space
from koru_delta.values import Value, Vector, decode

Scores = npt.NDArray[np.float64]
_FLOAT32_STEP = 2.0**-24  # relative error of one float32 operation
_FLOAT32_SMALL = 2.0**-126  # below it, float32 loses digits or becomes zero
_FLOAT64_STEP = 2.0**-52
_TINY = 1e-25
_ROWS_AT_ONCE = 8192


class Scored(NamedTuple):
    """A hit before its version is loaded; `score` as the space's metric says."""

    score: float
    seq: int


class VectorSpace:
    """The vectors of one model in one namespace. Safe to share by threads."""

    def __init__(self, log: CausalLog, space: Space) -> None:
        self.space = space
        self._log = log
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        """Begin again from an empty reading of the log."""
        self._slots: dict[int, int] = {}  # vector object -> slot
        self._wanted: list[int] = []  # objects whose slots are not loaded yet
        self._room = np.empty((0, self.space.dimensions), dtype=np.float32)  # grown by half
        self._vectors = self._room
        self._lengths = np.empty(0, dtype=np.float64)  # of each vector
        self._scales = np.empty(0, dtype=np.float32)  # their inverse, for cosine
        self._tiny = False  # whether a length is too small for float32 products
        self._aligned = True  # row i has slot i, as long as no vector was written twice
        self._rows = Rows(self._slot_of, self._timeline)
        self._columns = Columns(self._values)
        self._seq = 0

    @property
    def slots(self) -> int:
        """How many distinct vectors are held."""
        return len(self._slots)

    def search(
        self,
        query: Vector,
        k: int,
        cut: Cut,
        valid_at: int,
        *,
        where: CompiledFilter | None = None,
        threshold: float | None = None,
    ) -> list[Scored]:
        """The `k` best visible keys by exact score, ties by key and then version id.

        Raises:
            DimensionMismatchError: the query is not as long as the space's vectors.
            InvalidDataError: a zero query under cosine.
        """
        if len(query) != self.space.dimensions:
            raise DimensionMismatchError(self.space.namespace, self.space.dimensions, len(query))
        if self.space.metric == "cosine" and not query.any():
            raise InvalidDataError("a zero vector points nowhere; cosine cannot rank by it")
        with self._lock:
            self._catch_up(cut.seq)
            rows = self._rows
            if not rows.count:
                return []
            mask = rows.visible(cut, valid_at, self._log.position)
            if where is not None:
                mask = self._filtered(mask, where)
            slots, keys, seqs = rows["slot"], rows["key"], rows["seq"]
            chosen = self._candidates(query, slots, mask, k)
            exact = self._exact(query, slots[chosen])
            key_ids, found = keys[chosen], seqs[chosen]
        if threshold is not None:
            kept = exact >= threshold
            key_ids, found, exact = key_ids[kept], found[kept], exact[kept]
        return self._ordered(exact, key_ids, found, k)

    def count(self, cut: Cut, valid_at: int) -> int:
        """How many keys have a vector at a moment."""
        with self._lock:
            self._catch_up(cut.seq)
            mask = self._rows.visible(cut, valid_at, self._log.position)
            return self._rows.count if mask is None else int(np.count_nonzero(mask))

    def bytes_held(self) -> int:
        """Bytes of vectors in memory."""
        return self._room.nbytes

    # Reading the log

    def _catch_up(self, seq: int) -> None:
        """Read what was written since the last search, so that every search sees it."""
        if self._seq >= seq:
            return
        head = self._log.head().seq
        try:
            entries = self._log.engine.entries(self.space, self._seq)
            self._rows.add(entry for entry in entries if entry.seq <= head)
            self._load_vectors()
            self._aligned = self._in_order()
        except BaseException:
            self._forget()  # half a reading answers wrongly; none is read again
            raise
        self._seq = head

    def _timeline(self, key_id: int) -> list[Entry]:
        return self._log.engine.entries(self.space, 0, key_id=key_id)

    def _slot_of(self, item: int) -> int:
        slot = self._slots.get(item)
        if slot is None:
            slot = self._slots[item] = len(self._slots)
            self._wanted.append(item)
        return slot

    def _load_vectors(self) -> None:
        if not self._wanted:
            return
        data = b"".join(self._log.engine.vectors(self._wanted))
        fresh = np.frombuffer(data, dtype="<f4").reshape(-1, self.space.dimensions)
        lengths = np.sqrt((fresh.astype(np.float64) ** 2).sum(axis=1))
        self._lengths = np.concatenate([self._lengths, lengths])
        if self.space.metric == "cosine":
            self._tiny |= bool(lengths.min() < _TINY)
            with np.errstate(over="ignore"):  # an infinite scale sends the search to all rows
                self._scales = np.concatenate([self._scales, (1 / lengths).astype(np.float32)])
        held, count = len(self._vectors), len(self._vectors) + len(fresh)
        if count > len(self._room):
            wider = max(count, 0 if not held else held + held // 2)
            self._room = np.empty((wider, self.space.dimensions), dtype=np.float32)
            self._room[:held] = self._vectors
        self._room[held:count] = fresh
        self._vectors = self._room[:count]
        self._wanted.clear()

    def _in_order(self) -> bool:
        slots = self._rows["slot"]
        return len(slots) == len(self._vectors) and bool((slots == np.arange(len(slots))).all())

    def _values(self, start: int, stop: int) -> Sequence[Value]:
        """What filters look at: the values of rows `start` to `stop`."""
        seqs = self._rows["seq"][start:stop].tolist()
        distinct = list(dict.fromkeys(seqs))
        bodies = {e.seq: e.body for e in self._log.engine.at_many(distinct)}
        return [decode(bodies[seq] or b"null") for seq in seqs]

    # Scoring

    def _filtered(self, mask: Mask | None, where: CompiledFilter) -> Mask:
        matching = where.mask(self._columns, self._rows.count)
        return matching if mask is None else mask & matching

    def _candidates(
        self, query: Vector, slots: npt.NDArray[np.int64], mask: Mask | None, k: int
    ) -> npt.NDArray[np.int64]:
        """Visible rows that may be among the best `k`, by float32 and its error bound.

        Where float32 overflows there is no bound, and all visible rows are candidates.
        """
        visible = None if mask is None or mask.all() else np.flatnonzero(mask)
        count = len(slots) if visible is None else len(visible)
        best: npt.NDArray[np.int64] | None = None
        if count > k and not self._tiny:
            with np.errstate(over="ignore", invalid="ignore"):
                near = self._scanned(self._scanner(query), slots, visible)
                if self.space.metric == "cosine":
                    best = _within(near, k, (self.space.dimensions + 8) * _FLOAT32_STEP)
                else:
                    lengths = self._lengths[slots if visible is None else slots[visible]]
                    best = self._possible(near, lengths, query, k)
        if best is None:
            best = np.arange(count)
        return best if visible is None else visible[best]

    def _scanner(self, query: Vector) -> Vector:
        """The query as the scan uses it: of length 1 under cosine."""
        if self.space.metric != "cosine":
            return query
        wide = query.astype(np.float64)
        unit: Vector = (wide / np.sqrt((wide**2).sum())).astype(np.float32)
        return unit

    def _possible(
        self,
        near: npt.NDArray[np.float32],
        lengths: npt.NDArray[np.float64],
        query: Vector,
        k: int,
    ) -> npt.NDArray[np.int64] | None:
        """Rows whose score may be among the best, each by its own bound (dot and l2)."""
        size, target = self.space.dimensions, query.astype(np.float64)
        length = float(np.sqrt((target**2).sum()))
        scores = near.astype(np.float64)
        errors = size * _FLOAT32_STEP * length * lengths + size * _FLOAT32_SMALL
        if self.space.metric == "l2":
            # -|x - q|^2 without its constant |q|^2: the same order as minus the distance.
            scores = 2 * scores - lengths**2
            errors = 2 * errors + size * _FLOAT64_STEP * (length + lengths) ** 2
        if not np.isfinite(scores).all():
            return None
        surely = scores - errors
        return np.flatnonzero(scores + errors >= _kth_best(surely, k))

    def _scanned(
        self, query: Vector, slots: npt.NDArray[np.int64], visible: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.float32]:
        """Scores of the visible rows: few are gathered, many are scanned where they lie."""
        if visible is None:
            near = self._near(query, slice(None))
            return near if self._aligned else near[slots]
        if not len(visible):
            return np.empty(0, dtype=np.float32)
        if self._aligned:  # an earlier moment is a piece of the rows, as far as nothing changed
            first, end = int(visible[0]), int(visible[-1]) + 1
            if len(visible) * 4 >= end - first:
                near = self._near(query, slice(first, end))
                return near if len(near) == len(visible) else near[visible - first]
        elif len(visible) * 4 >= len(self._vectors):
            return self._near(query, slice(None))[slots[visible]]
        return self._near(query, slots[visible])

    def _near(self, query: Vector, which: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        products: npt.NDArray[np.float32] = self._vectors[which] @ query
        if self.space.metric == "cosine":
            products *= self._scales[which]
        return products

    def _exact(self, query: Vector, slots: npt.NDArray[np.int64]) -> Scores:
        """Scores in float64, each from its own row alone, whatever stands beside it."""
        target = query.astype(np.float64)
        square = (target * target).sum()
        scores = np.empty(len(slots), dtype=np.float64)
        for start in range(0, len(slots), _ROWS_AT_ONCE):
            wide = self._vectors[slots[start : start + _ROWS_AT_ONCE]].astype(np.float64)
            part = scores[start : start + _ROWS_AT_ONCE]
            if self.space.metric == "l2":
                np.negative(np.sqrt(((wide - target) ** 2).sum(axis=1)), out=part)
                continue
            part[:] = (wide * target).sum(axis=1)
            if self.space.metric == "cosine":  # a vector finds itself with exactly 1
                part /= np.sqrt((wide * wide).sum(axis=1) * square)
                np.clip(part, -1.0, 1.0, out=part)
        return scores

    def _ordered(
        self,
        exact: Scores,
        key_ids: npt.NDArray[np.int64],
        seqs: npt.NDArray[np.int64],
        k: int,
    ) -> list[Scored]:
        """Best first; equal scores by key, which each appears once at a moment."""
        if len(exact) > k:
            kth = np.partition(exact, len(exact) - k)[len(exact) - k]
            kept = exact >= kth
            exact, key_ids, seqs = exact[kept], key_ids[kept], seqs[kept]
        hits = [Scored(*hit) for hit in zip(exact.tolist(), seqs.tolist(), strict=True)]
        if len({hit.score for hit in hits}) == len(hits):  # no ties, no need for the keys
            hits.sort(reverse=True)
            return hits
        keys = self._log.engine.keys_of(key_ids.tolist())
        keyed = sorted(zip(hits, keys, strict=True), key=lambda hit: (-hit[0].score, hit[1]))
        return [hit for hit, _ in keyed[:k]]


def _kth_best(scores: npt.NDArray[np.floating[Any]], k: int) -> float:
    """The `k`-th largest of at least `k` numbers.

    The `k`-th largest of the maxima of blocks is no greater, and quickly found; only what
    reaches it needs to be put in order.
    """
    blocks = 32 * k
    if len(scores) >= 16 * blocks:
        width = len(scores) // blocks
        tops = scores[: blocks * width].reshape(width, blocks).max(axis=0)
        scores = scores[scores >= np.partition(tops, blocks - k)[blocks - k]]
    return float(np.partition(scores, len(scores) - k)[len(scores) - k])


def _within(near: npt.NDArray[np.float32], k: int, error: float) -> npt.NDArray[np.int64] | None:
    """Rows at most two errors below the `k`-th best; None if a score is no number."""
    if not np.isfinite(near.sum()):
        return None
    kth = _kth_best(near, k)
    floor = np.nextafter(np.float32(kth - 2 * error), np.float32(-np.inf))
    return np.flatnonzero(near >= floor)


class Vectors:
    """All vector spaces of a log, each read when it is first asked for."""

    def __init__(self, log: CausalLog) -> None:
        self._log = log
        self._begin()
        log.engine.after_fork.append(self._begin)

    def _begin(self) -> None:
        """Start with nothing read, and no other thread reading, as a forked child does."""
        self._lock = threading.Lock()
        self._spaces: dict[int, VectorSpace] = {}
        self._first: dict[int, int] = {}

    def known(self, namespace: str, cut: Cut) -> list[Space]:
        """The spaces of a namespace that had begun by a cut, oldest first."""
        return [s for s in self._log.engine.spaces(namespace) if self._began(s) <= cut.seq]

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
        names = tuple(space.model for space in known)
        if model is not None:
            if model not in names:
                raise ModelMismatchError(namespace, model, names)
            return self._opened(known[names.index(model)])
        if len(known) > 1:
            seen = [space for space in map(self._opened, known) if space.count(cut, valid_at)]
            if len(seen) > 1:
                raise ModelMismatchError(namespace, None, tuple(s.space.model for s in seen))
            return seen[0] if seen else None
        return self._opened(known[0])

    def statistics(self) -> dict[str, int]:
        """What is held in memory: spaces, distinct vectors, bytes of them."""
        with self._lock:
            held = list(self._spaces.values())
        return {
            "spaces_open": len(held),
            "vectors_in_memory": sum(space.slots for space in held),
            "vector_bytes_in_memory": sum(space.bytes_held() for space in held),
        }

    def _began(self, space: Space) -> int:
        """The position of the first vector of a space, which never changes."""
        first = self._first.get(space.space_id)
        if first is None:
            first = self._log.engine.space_used(space)
            if first != FOREVER:
                self._first[space.space_id] = first
        return first

    def _opened(self, space: Space) -> VectorSpace:
        found = self._spaces.get(space.space_id)
        if found is None:
            with self._lock:
                found = self._spaces.setdefault(space.space_id, VectorSpace(self._log, space))
        return found
