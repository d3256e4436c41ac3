"""A graph over the vectors alive now: few steps from anywhere to the nearest ones.

The library, hnswlib, is optional. It may be searched by many threads at once, but not
while vectors are added or marked: whoever writes is alone in it, for short moments, and
a search that comes in such a moment is sent away at once, to be answered otherwise.

The caller scores again what it finds. Every slot found was fed and not dropped.

Source: hierarchical navigable small worlds, Malkov & Yashunin, TPAMI 2020.
"""

from __future__ import annotations

import errno
import functools
import importlib
import importlib.metadata
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from koru_delta.search.pages import large_pages

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float32]

FEW: Final = 10  # nearest, of which a graph is to find its shares
MANY: Final = 100  # and of so many
LINKS: Final = 16
EFFORT: Final = 100
_SPACES: Final = {"cosine": "cosine", "dot": "ip", "l2": "l2"}
_FAILURES = (RuntimeError, ValueError, TypeError, MemoryError, OverflowError)
_FEED_FIRST: Final = 16  # rows added at a time, at first; more while nobody is sent away
_FEED_MOST: Final = 2048
_FEED_LEAST: Final = 12  # fewer rows are not added by two threads
_FEED_SECONDS: Final = 0.005  # to add rows for at a time, once searches are sent away
_DROP_CHUNK: Final = 1024
_PATIENCE: Final = 60.0  # seconds for searches to end
_REST_MOST: Final = 0.01  # seconds between two chunks, for those who were sent away
_WORN: Final = 0.5  # of what is live: more dropped or replaced, and a new graph is better
_SLACK: Final = 1.6  # of replaced places, by which effort must rise to find as much
_SLACK_MOST: Final = 1.4
_SURE: Final = 1.5  # standard errors by which a measured recall must pass the target
_BESIDE: Final = np.float32(0.25)  # noise in a query, as a part of it
_FIRST_PLACES: Final = 1024
_LARGEST: Final = np.float32(1e16)  # its square, some thousand times, is still a float32
_HEADER: Final = struct.Struct("=6QiI3QdQ")  # what the library writes first
_ABSENT, _LIVE, _DROPPED = 0, 1, 2
_LADDER: Final = (
    2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128,
    160, 192, 224, 256, 320, 384, 448, 512,
)  # fmt: skip


class GraphUnavailable(Exception):  # noqa: N818 - a state, not a mistake of the caller
    """The library is not there, or failed: the graph is of no more use."""


@functools.cache
def available() -> bool:
    """Whether the library is installed and loads."""
    try:
        importlib.import_module("hnswlib")
    except (ImportError, OSError):
        return False
    return True


@functools.cache
def library() -> str:
    """The library and its version, to tell whose file a saved graph is."""
    return f"hnswlib {importlib.metadata.version('hnswlib')}" if available() else "none"


class Efforts(NamedTuple):
    """What finds each share of the ten nearest, and of the hundred; none for shares missed.

    In between it is taken from a straight line.

    Only a few of the queries it was measured by found worse than `floors`: scores of the best
    hit, the second, and on.
    """

    few: dict[float, int]
    many: dict[float, int]
    floors: tuple[float, ...]

    def of(self, recall: float, asked: int) -> int | None:
        """The effort that finds this share of the `asked` nearest; None if none is known."""
        for target, few in sorted(self.few.items()):
            if target >= recall:
                many = self.many.get(target)
                if many is None or asked <= FEW:
                    return few * max(asked, FEW) // FEW
                many = max(many, few)
                if asked <= MANY:
                    return few + (many - few) * (asked - FEW) // (MANY - FEW)
                return many * asked // MANY
        return None


class LiveGraph:
    """Finds the slots whose vectors are nearest, among those fed and not dropped.

    Slots are row numbers: a byte is kept for each up to the highest one fed. A slot stands
    for the same vector always.

    Args:
        metric: "cosine", "dot" or "l2".
        links: How many others a vector is linked with; more find better and take memory.
        effort: How many candidates are looked at for the links of a new vector.
        places: How many vectors to make room for at first; it grows when they are taken.

    Raises:
        GraphUnavailable: the library is not installed, or not enough memory.
    """

    _index: Any  # the library's; None when it failed

    def __init__(
        self,
        dimensions: int,
        metric: str,
        *,
        links: int = LINKS,
        effort: int = EFFORT,
        seed: int = 1,
        places: int = _FIRST_PLACES,
    ) -> None:
        self._prepare(dimensions, metric, links)
        try:
            self._index = _new_index(dimensions, metric)
            with large_pages():
                self._index.init_index(
                    max_elements=max(places, 1), M=links, ef_construction=effort,
                    random_seed=seed, allow_replace_deleted=True,
                )  # fmt: skip
            self._index.set_ef(1)  # each search says what it wants by the number it asks for
        except _FAILURES as error:
            raise GraphUnavailable(f"no graph can be made: {error}") from error
        self._places = max(places, 1)

    def _prepare(self, dimensions: int, metric: str, links: int) -> None:
        self.dimensions = dimensions
        self.metric = metric
        self.fed = 0  # vectors fed and dropped in the life of this object
        self.gone_by = (0, 0)  # a log position and a clock by which all dropped had ended
        self.replaced = 0  # vectors that came in the place of dropped ones
        self.broken = False
        self._links = links
        self._places = 0
        self._state = np.zeros(_FIRST_PLACES, dtype=np.int8)  # by slot
        self._forgotten: Numbers = np.empty(0, dtype=np.int64)
        self._live = 0
        self._vacant = 0  # vectors marked as deleted whose place was not taken again
        self._slack = 1.0
        self._writer = threading.Lock()  # one at a time, for a whole feed
        self._gate = threading.Lock()  # held for a few steps of the interpreter only
        self._left = threading.Condition(self._gate)
        self._readers = 0
        self._writing = False
        self._refused = False  # somebody was sent away lately
        self._pace = _FEED_FIRST  # rows to add at a time

    @property
    def live(self) -> int:
        """How many slots it can find."""
        return self._live

    @property
    def worn(self) -> bool:
        """Whether so much of it was dropped or replaced that a new one would be better."""
        return max(self._vacant, self.replaced) > _WORN * max(self._live, 1)

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        places = self._live + self._vacant
        upper = (4 * self._links + 20) / max(self._links - 1, 1)
        of_library = _place_bytes(self.dimensions, self._links) + 8 + 40 + 4 + 4 + 48 + upper
        return int(places * of_library) + self._state.nbytes

    # Writing

    def feed(
        self, slots: Numbers, vectors: Matrix, *, threads: int = 2, chunk: int = _FEED_MOST
    ) -> None:
        """Let these slots be found; those it holds already are passed over.

        Args:
            vectors: Of shape (len(slots), dimensions).
            chunk: How many rows at most to add while searches are sent away; once there
                are any, fewer are added at a time, with rests for them in between.

        Raises:
            GraphUnavailable: the library failed, now or before.
        """
        slots, vectors = _distinct(slots, vectors)
        if not len(slots):
            return
        with self._writer:
            self._make_states(int(slots.max()) + 1)
            fresh = np.flatnonzero(self._state[slots] != _LIVE)
            start, self._pace = 0, min(self._pace, _FEED_FIRST)
            while start < len(fresh):
                some = fresh[start : start + min(chunk, self._pace)]
                began = time.perf_counter()
                with self._alone() as index:
                    self._add(index, slots[some], vectors[some], threads)
                start += len(some)
                self._rest(len(some), time.perf_counter() - began)

    def _rest(self, rows: int, seconds: float) -> None:
        """Let those in who came meanwhile, for as long as they were kept out."""
        if self._refused:
            self._refused = False
            self._pace = max(_FEED_LEAST, int(rows * _FEED_SECONDS / max(seconds, 1e-6)))
            time.sleep(min(seconds, _REST_MOST))
        else:
            self._pace = max(self._pace, 4 * rows)

    def _add(self, index: Any, slots: Numbers, vectors: Matrix, threads: int) -> None:
        # The library must never be given a label that it knows: it would be kept twice,
        # and lost when the place of the first one is taken. So these are brought back.
        new = np.array([not self._revived(index, slot) for slot in slots.tolist()], dtype=np.bool_)
        count = int(np.count_nonzero(new))
        taken = min(count, self._vacant)
        wanted = self._live + self._vacant + count - taken
        if wanted > self._places:
            places = max(wanted, self._places + self._places // 2)
            with large_pages():
                index.resize_index(places)
            self._places = places
        if count:
            rows = self._tame(vectors if count == len(slots) else vectors[new])
            # Apart: a new vector looks for neighbours in vain where all are still deleted,
            # and the library does not survive that.
            for part in (slice(0, taken), slice(taken, count)):
                if part.start < part.stop:
                    index.add_items(
                        rows[part], slots[new][part], num_threads=threads, replace_deleted=True
                    )
        self._vacant -= taken
        self.replaced += taken
        self._live += count
        self._set_slack()
        self._state[slots] = _LIVE
        self.fed += len(slots)

    def _set_slack(self) -> None:
        # A vector in the place of another is found less well.
        self._slack = min(_SLACK_MOST, 1 + _SLACK * self.replaced / max(self._live, 1))

    def _revived(self, index: Any, slot: int) -> bool:
        if self._state[slot] != _DROPPED:
            return False
        try:
            index.unmark_deleted(slot)
        except RuntimeError:  # another vector took its place
            return False
        self._vacant -= 1
        self._live += 1
        self._state[slot] = _LIVE
        return True

    def _tame(self, vectors: Matrix) -> Matrix:
        """Vectors whose products do not overflow; all but extreme ones as they are."""
        peaks = np.abs(vectors).max(axis=1, initial=0)
        if self.metric == "cosine":
            odd = (peaks > _LARGEST) | ((peaks < 1 / _LARGEST) & (peaks > 0))
            if odd.any():
                vectors = vectors.copy()
                vectors[odd] /= peaks[odd, None]
        elif (peaks > _LARGEST).any():
            vectors = np.clip(vectors, -_LARGEST, _LARGEST)
        return vectors

    def drop(self, slots: Numbers) -> None:
        """Find these slots no more; their places are taken by vectors fed later.

        Drop before feeding: a vector near those it comes for is found best in their place.

        Raises:
            GraphUnavailable: the library failed, now or before.
        """
        with self._writer:
            gone = np.unique(slots[self.holds(slots)])
            for start in range(0, len(gone), _DROP_CHUNK):
                some = gone[start : start + _DROP_CHUNK]
                with self._alone() as index:
                    for slot in some.tolist():
                        index.mark_deleted(slot)
                    self._state[some] = _DROPPED
                    self._live -= len(some)
                    self._vacant += len(some)
                    self.fed += len(some)

    def forget(self, slots: Numbers) -> None:
        """Note that nothing may be kept of the vectors of these slots, which are fed no more."""
        with self._writer:
            self._make_states(int(slots.max(initial=-1)) + 1)
            known = slots[self._state[slots] != _ABSENT]
            self._forgotten = np.union1d(self._forgotten, known)

    def forgotten(self) -> Numbers:
        """Those of them that it may still hold."""
        return self._forgotten

    def overwrite(self, slots: Numbers, vectors: Matrix) -> None:
        """Put other vectors in the places of forgotten slots, which are not found any more.

        They are linked anew, so that no link tells where they were.

        Raises:
            GraphUnavailable: the library failed, now or before.
        """
        self.drop(slots)
        with self._writer:
            for slot, vector in zip(slots.tolist(), self._tame(vectors), strict=True):
                with self._alone() as index:
                    if self._revived(index, slot):
                        index.add_items(vector[None], np.array([slot]), num_threads=1)
                        index.mark_deleted(slot)
                        self._state[slot] = _DROPPED
                        self._live -= 1
                        self._vacant += 1
            self._forgotten = np.setdiff1d(self._forgotten, slots)
            self.fed += len(slots)

    def holds(self, slots: Numbers) -> Mask:
        """Which of these slots it can find."""
        state = self._state
        known = (slots >= 0) & (slots < len(state))
        held: Mask = (state[np.where(known, slots, 0)] == _LIVE) & known
        return held

    def _make_states(self, slots: int) -> None:
        if slots > len(self._state):
            state = np.zeros(max(slots, len(self._state) * 2), dtype=np.int8)
            state[: len(self._state)] = self._state
            self._state = state

    @contextmanager
    def _alone(self) -> Iterator[Any]:
        """The library, with nobody else in it. If anything goes wrong it is given up."""
        done = False
        try:
            with self._gate:
                self._writing = True
                if not self._left.wait_for(lambda: not self._readers, _PATIENCE):
                    raise GraphUnavailable("a search in it does not end")
            yield self._usable()
            done = True
        except _FAILURES as error:
            raise GraphUnavailable(f"the graph failed: {error}") from error
        finally:
            if not done:
                self._give_up()
            with self._gate:
                self._writing = False

    def _usable(self) -> Any:
        if self._index is None:
            raise GraphUnavailable("the graph failed before")
        return self._index

    def _give_up(self) -> None:
        self.broken = True
        self._index = None
        self._live = self._vacant = 0
        self._state = np.zeros(1, dtype=np.int8)

    # Searching

    def nearest(self, query: Vector, count: int, effort: int) -> Numbers | None:
        """The slots nearest to `query`, best first: up to `count`, or None.

        None says that the graph is being written, or that it does not lead to enough
        slots; it never waits.

        Args:
            effort: How many candidates are kept on the way, in a graph that is not worn;
                more find better.

        Raises:
            GraphUnavailable: the library failed, now or before.
        """
        if not self._enter():
            return None
        try:
            found = self._found(query, count, effort, 1)
        finally:
            self._leave()
        return None if found is None else found[0]

    def nearest_many(
        self, queries: Matrix, count: int, effort: int, *, threads: int = 2
    ) -> Numbers | None:
        """Slots nearest to each query, of shape (len(queries), up to `count`), or None."""
        if not self._enter():
            return None
        try:
            return self._found(queries, count, effort, threads)
        finally:
            self._leave()

    def _enter(self) -> bool:
        with self._gate:
            if self._writing:
                self._refused = True
                return False
            self._readers += 1
            return True

    def _leave(self) -> None:
        with self._gate:
            self._readers -= 1
            if self._writing and not self._readers:
                self._left.notify()

    def _found(self, queries: Matrix, count: int, effort: int, threads: int) -> Numbers | None:
        # The effort is asked for as a number of results: set as the library would have it,
        # it would be shared by all threads, and one could lower that of another.
        wanted = min(max(int(effort * self._slack), count), self._live)
        index = self._usable()
        if wanted <= 0:
            return np.empty((1 if queries.ndim == 1 else len(queries), 0), dtype=np.int64)
        try:
            labels, _ = index.knn_query(queries, wanted, threads)
        except _FAILURES as error:
            if isinstance(error, RuntimeError) and "Cannot return" in str(error):
                return None  # from where it entered it does not get to so many
            self._give_up()
            raise GraphUnavailable(f"the graph failed: {error}") from error
        found: Numbers = labels.view(np.int64)[:, :count]
        return found

    def calibrate(
        self,
        queries: Matrix,
        truth: Numbers,
        targets: Sequence[float] = (0.90, 0.95, 0.98, 0.99),
        *,
        spare: int = 2,
        threads: int = 2,
    ) -> dict[float, int]:
        """The effort that reaches each recall on these queries; none for those missed.

        The mean over the queries must pass the target by more than chance explains, and
        the effort is at least `spare` times the number looked for: the others may be harder.

        Args:
            queries: Some 256 of `like_queries`.
            truth: Slots that should be found, of shape (len(queries), k).
        """
        efforts: dict[float, int] = {}
        k = truth.shape[1]
        for effort in _LADDER:
            if len(efforts) == len(targets):
                break
            if effort < spare * k:
                continue
            found = self.nearest_many(queries, k, effort, threads=threads)
            if found is None:
                continue
            hits = (found[:, :, None] == truth[:, None, :]).any(axis=1).mean(axis=1)
            sure = hits.mean() - _SURE * hits.std() / np.sqrt(len(hits))
            for target in targets:
                if sure >= target:
                    efforts.setdefault(target, effort)
        return efforts

    # Files

    def save(self, path: Path) -> None:
        """Write it to `path`; searches go on.

        Raises:
            OSError: it could not be written whole.
            GraphUnavailable: the library failed, now or before.
        """
        with self._writer:
            index = self._usable()
            try:
                index.save_index(os.fspath(path))
                size = index.index_file_size()
            except _FAILURES as error:
                raise GraphUnavailable(f"the graph was not saved: {error}") from error
            if path.stat().st_size != size:  # the library does not look
                raise OSError(errno.EIO, "the graph was not written whole", os.fspath(path))

    @classmethod
    def load(cls, path: Path, dimensions: int, metric: str, *, replaced: int = 0) -> LiveGraph:
        """The graph saved at `path`.

        Args:
            replaced: What the graph's `replaced` was; the file does not say.

        Raises:
            GraphUnavailable: it cannot be read, or is of other dimensions.
        """
        links, places = _read_header(path, dimensions)
        graph = cls.__new__(cls)
        graph._prepare(dimensions, metric, links)
        try:
            index = graph._index = _new_index(dimensions, metric)
            with large_pages():
                index.load_index(os.fspath(path), max_elements=places, allow_replace_deleted=True)
            index.set_ef(1)
            graph._recount(np.array(index.get_ids_list(), dtype=np.int64))
        except _FAILURES as error:
            raise GraphUnavailable(f"the graph cannot be read: {error}") from error
        graph._places = places
        graph.replaced = replaced
        graph._set_slack()
        return graph

    def _recount(self, slots: Numbers) -> None:
        """Find out which slots are live: the library says so only by refusing to mark them."""
        if len(slots):
            self._make_states(int(slots.max()) + 1)
        for slot in slots.tolist():
            try:
                self._index.mark_deleted(slot)
            except RuntimeError:
                self._state[slot] = _DROPPED
                self._vacant += 1
            else:
                self._index.unmark_deleted(slot)
                self._state[slot] = _LIVE
                self._live += 1


def like_queries(vectors: Matrix, random: np.random.Generator) -> Matrix:
    """Vectors a little beside these, about as hard to search for as queries are.

    Give it some that the graph does not hold yet, and feed them afterwards: a vector is
    linked with those nearest to it, so the graph finds these with half the effort or less.
    """
    spread = np.sqrt(np.mean(np.square(vectors, dtype=np.float64), axis=1, keepdims=True))
    noise = random.standard_normal(vectors.shape, dtype=np.float32)
    most = float(np.finfo(np.float32).max)
    queries: Matrix = np.clip(vectors + _BESIDE * spread * noise, -most, most).astype(np.float32)
    return queries


def _new_index(dimensions: int, metric: str) -> Any:
    if not available():
        raise GraphUnavailable("hnswlib is not installed")
    return importlib.import_module("hnswlib").Index(space=_SPACES[metric], dim=dimensions)


def _distinct(slots: Numbers, vectors: Matrix) -> tuple[Numbers, Matrix]:
    """The first of each slot, in the order they came."""
    slots = np.ascontiguousarray(slots, dtype=np.int64)
    _, first = np.unique(slots, return_index=True)
    if len(first) == len(slots):
        return slots, vectors
    first.sort()
    return slots[first], vectors[first]


def _place_bytes(dimensions: int, links: int) -> int:
    """What the library keeps of a vector on the lowest level: links, numbers, label."""
    return (2 * links * 4 + 4) + dimensions * 4 + 8


def _read_header(path: Path, dimensions: int) -> tuple[int, int]:
    """Links and places of a saved graph. The library itself trusts any file."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            size = os.fstat(file.fileno()).st_size
        _, places, count, each, _, _, _, _, _, _, links, _, _ = _HEADER.unpack(head)
    except (OSError, struct.error) as error:
        raise GraphUnavailable(f"the graph cannot be read: {error}") from error
    if each != _place_bytes(dimensions, links) or count > places or count * each > size:
        raise GraphUnavailable("the graph is damaged, or of other dimensions")
    return links, places
