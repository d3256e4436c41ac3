"""What a vector space holds of the log, and how it follows it.

A `Reading` is everything a search looks at, as of one position: immutable, so searches
wait for nobody but for the log itself. What is made beside them (`upkeep.py`) is
published as a new reading.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from koru_delta.causal import FOREVER, Cut
from koru_delta.errors import CorruptionError
from koru_delta.log import CausalLog
from koru_delta.search.cache import Unusable
from koru_delta.search.columns import Columns
from koru_delta.search.graph import Efforts, LiveGraph
from koru_delta.search.kept import Asked, KeptMask, Lists, ToCode
from koru_delta.search.lookup import ITEM_BYTES, Lookup
from koru_delta.search.plan import Costs, Way
from koru_delta.search.rows import Rows
from koru_delta.search.seen import Mask, Numbers, Seen
from koru_delta.search.truth import Matrix, Segment, Truth
from koru_delta.storage import Entry, Space
from koru_delta.values import Value, decode

Scores = npt.NDArray[np.float64]
TINY: Final = 1e-25  # shorter vectors are left to float64
_ROWS_AT_ONCE = 8192
_NO_OBJECT: Final = 0  # nor what is below it
_NAMES_KEPT: Final = 2_000_000
_MASKS_BYTES: Final = 32 * 1024 * 1024
_COPIED_BYTES: Final = 48_000_000  # of vectors and codes that are copied, under all masks
NAME_BYTES: Final = 160  # of a key's name in memory, about
_MANY: Final = 4_000  # rows alive, from which what has been chosen is kept
_FEW_MORE: Final = 128  # until so many more are there
_FEW_ENTRIES: Final = 1024  # of the log, which a writer reads so that a search need not
_FEW: Final = 8  # numbers that Python is through with before numpy has begun


@dataclass(frozen=True, slots=True)
class Graph:
    """A live graph: it holds what was visible among the first `stop` slots when it was fed.

    That was at the clock `since`; at `until` some that it lacks become true. `efforts` were
    measured when `measured` were alive.
    """

    live: LiveGraph
    stop: int
    efforts: Efforts
    measured: int
    since: int = 0
    until: int = FOREVER


@dataclass(slots=True, eq=False)  # never changed, as `Seen`
class Reading:
    """Everything a search looks at, as of position `seq` of the log."""

    seq: int
    seen: Seen
    truth: Truth
    tiny: bool  # whether a length is too small for float32 products
    graph: Graph | None
    revived: tuple[int, ...]  # slots the graph may lack though they come before its end
    deaths: int  # rows that ended since the graph was fed
    ways: dict[tuple[int, float], tuple[Way, int]]  # and effort, for all that is alive
    alive: Mask | None = None  # which vectors have a row that nothing has ended; made once
    asked: bool = False  # whether anybody has looked at it


class SpaceReadings:
    """Reads the vectors of one model in one namespace. Safe to share by threads."""

    def __init__(self, log: CausalLog, space: Space, costs: Callable[[], Costs]) -> None:
        self.space = space
        self.log = log
        self.lock = threading.RLock()  # held to read the log, and to publish a reading
        self._is_following = False  # in whatever thread; a signal handler may write meanwhile
        self._costs = costs
        self.erased = log.engine.erased(space.namespace)  # the last erasure it takes account of
        self._names: dict[int, str] = {}
        self.names_kept = _NAMES_KEPT
        self.masks_kept = _MASKS_BYTES
        self.copied_kept = _COPIED_BYTES
        self._columns = Columns(self._values)
        self._columns_lock = threading.Lock()
        self.moved: Callable[[], None] = lambda: None  # called after the log was read
        self.epoch = 0  # how often it has begun again
        self.forget()

    def forget(self) -> None:
        """Begin again from an empty reading of the log."""
        with self.lock:
            self.epoch += 1
            self._slots: Lookup | None = None  # vector object -> slot; made when it is asked
            self._objects = np.empty(0, dtype=np.int64)  # and back, with room for more
            self._held = 0  # slots
            self._wanted: list[int] = []  # objects whose vectors are not loaded yet
            self._room = np.empty((0, self.space.dimensions), dtype=np.float32)  # of the tail
            self._squares = np.empty(0, dtype=np.float64)
            self._scales = np.empty(0, dtype=np.float32)
            self._rows = Rows(self._slot_of, self._timeline)
            self._masks: dict[Any, KeptMask] = {}
            self._turn = 0  # uses of masks so far
            self._lists: dict[Asked, Lists] = {}  # of codes of all that is there
            self._kept: dict[int, KeptMask] = {}  # the same, by the id of the mask
            self.to_code: list[ToCode] = []  # for what works in the background
            with self._columns_lock:
                self._columns = Columns(self._values)
            empty = Truth(self.space.dimensions, (), self._room, self._squares, self._scales)
            self.reading = Reading(0, self._rows.seen(), empty, False, None, (), 0, {})

    def count(self, cut: Cut, valid_at: int) -> int:
        """How many keys have a vector at a moment."""
        seen = self.at(cut.seq).seen
        if seen.is_now(cut, valid_at):
            return seen.live
        return int(np.count_nonzero(seen.visible(cut, valid_at, self.log.position)))

    def present_slots(self, reading: Reading) -> tuple[Mask, int, int]:
        """Which vectors have a row that is visible now, since when, until when no other has."""
        seen, slots = reading.seen, reading.truth.slots
        if not seen.clocked:
            return seen.slots_of(seen.alive(), slots), 0, FOREVER
        cut = self.log.now()._replace(seq=reading.seq)
        visible = seen.visible(cut, cut.clock, self.log.position)
        return seen.slots_of(visible, slots), cut.clock, seen.beginning(cut.clock)

    def names(self, key_ids: Sequence[int]) -> list[str]:
        """The names of keys, from memory where they are known."""
        known = self._names
        try:
            return [known[key_id] for key_id in key_ids]
        except KeyError:
            missing = [key_id for key_id in key_ids if key_id not in known]
            found = dict(zip(missing, self.log.engine.keys_of(missing), strict=True))
            if len(known) < self.names_kept:
                known.update(found)
            return [found.get(key_id) or known[key_id] for key_id in key_ids]

    # Reading the log

    def at(self, seq: int) -> Reading:
        """A reading that has come at least as far as `seq`: every search sees every write."""
        reading = self.reading
        if reading.seq < seq:
            with self.lock:
                if self.reading.seq < seq:
                    self._catch_up()
                    self.moved()
                reading = self.reading
        reading.asked = True
        return reading

    def keep_up(self) -> None:
        """Take up what this process has just written, so that the next search need not.

        If nobody has asked since the write before, nobody may ask now either. Who writes waits
        for no other thread that reads, and does not read the much that another process wrote.
        """
        reading = self.reading
        if not reading.asked or self._is_following or self.is_stale:
            return
        if self.log.head().seq - reading.seq <= _FEW_ENTRIES:
            with self.lock:  # not `acquire`: an interrupt after it would leave it locked
                self._catch_up()
                self.moved()

    @property
    def is_stale(self) -> bool:
        """Whether something was erased since, that it may hold: then another takes its place."""
        return self.erased != self.log.engine.erased(self.space.namespace)

    def _catch_up(self) -> None:
        erased = self.erased
        while True:
            try:
                return self._follow()
            except CorruptionError:
                # A vector may have been erased after the entry that carries it was read.
                before, erased = erased, self.log.engine.erased(self.space.namespace)
                if erased == before:
                    raise

    def _follow(self) -> None:
        head = self.log.head().seq
        before = self.reading
        try:
            self._is_following = True
            entries = self.log.engine.entries(self.space, before.seq)
            if entries and entries[-1].seq > head:
                entries = [entry for entry in entries if entry.seq <= head]
            self._rows.add(entries)
            self._load_vectors()
            self.reading = self._followed(before, head) if entries else replace(before, seq=head)
        except BaseException:
            if self.reading is before:  # interrupted anywhere before the last step
                self.forget()  # half a reading answers wrongly; none is read again
            raise
        finally:
            self._is_following = False

    def _followed(self, before: Reading, head: int) -> Reading:
        """The reading after `before`, with what has been taken up since."""
        seen, truth = self._rows.seen(), self._truth(before.truth.segments)
        graph, revived, deaths = before.graph, before.revived, before.deaths
        if graph is not None:
            deaths += seen.count - before.seen.count - (seen.live - before.seen.live)
            if not seen.aligned:
                again = seen.slot[before.seen.count :]
                revived += tuple(again[again < graph.stop].tolist())
        tiny = before.tiny or self._tiny(before.truth.slots)
        # A few more rows change no choice that many decided.
        few = seen.live >= _MANY and truth.slots // _FEW_MORE == before.truth.slots // _FEW_MORE
        ways = before.ways if few and tiny == before.tiny else {}
        return Reading(head, seen, truth, tiny, graph, revived, deaths, ways)

    def _truth(self, segments: tuple[Segment, ...]) -> Truth:
        """What is held now; the lock is held."""
        slots = self._held
        sealed = segments[-1].stop if segments else 0
        return Truth(
            self.space.dimensions, segments, self._room[: slots - sealed],
            self._squares[:slots], self._scales[:slots],
        )  # fmt: skip

    def _tiny(self, start: int) -> bool:
        if self.space.metric != "cosine":
            return False
        squares = self._squares[start : self._held]
        if len(squares) <= _FEW:
            return any(square < TINY**2 for square in squares.tolist())
        return bool(squares.min() < TINY**2)

    def _timeline(self, key_id: int) -> Sequence[Entry]:
        return self.log.engine.entries(self.space, 0, key_id=key_id)

    def _slot_of(self, item: int) -> int:
        slots = self._slots
        if slots is None:
            objects = self._objects[: self._held].copy()
            slots = self._slots = Lookup(objects, np.arange(self._held))
        slot = slots.get(item)
        if slot is None:
            slot = self._held + len(self._wanted)
            slots.put(item, slot)
            self._wanted.append(item)
        return slot

    def _load_vectors(self) -> None:
        """Read the vectors of new slots into the tail."""
        if not self._wanted:
            return
        fresh = self.vectors_of(self._wanted)
        held, count = self._held, self._held + len(fresh)
        tail = held - self.reading.truth.sealed
        squares = _squares(fresh)
        self._squares = _grown(self._squares, held, count)
        self._squares[held:count] = squares
        if self.space.metric == "cosine":
            self._scales = _grown(self._scales, held, count)
            self._scales[held:count] = _scales(squares)
        self._room = _grown(self._room, tail, tail + len(fresh))
        self._room[tail : tail + len(fresh)] = fresh
        self._objects = _grown(self._objects, held, count)
        self._objects[held:count] = self._wanted
        self._held = count
        self._wanted = []

    def vectors_of(self, objects: Sequence[int]) -> Matrix:
        """Vectors from the log, each checked against its hash; blank ones for what is none."""
        there = [item for item in objects if item > _NO_OBJECT]
        data = b"".join(self.log.engine.vectors(there))
        found = np.frombuffer(data, dtype="<f4").reshape(-1, self.space.dimensions)
        if len(there) == len(objects):
            return found
        every = np.zeros((len(objects), self.space.dimensions), dtype=np.float32)
        every[:, 0] = 1
        every[np.array(objects) > _NO_OBJECT] = found
        return every

    def objects(self, start: int, stop: int) -> list[int]:
        """The objects of the slots `start` to `stop`."""
        found: list[int] = self._objects[start:stop].tolist()
        return found

    def _values(self, start: int, stop: int) -> Sequence[Value]:
        """What filters look at: the values of rows `start` to `stop`."""
        seqs = self.reading.seen.seq[start:stop].tolist()
        distinct = list(dict.fromkeys(seqs))
        bodies = dict(zip(distinct, self.log.engine.bodies(distinct), strict=True))
        return [decode(bodies[seq] or b"null") for seq in seqs]

    @property
    def fixed_bytes(self) -> int:
        """What is in memory whatever the budget: rows, the tail, and names of some keys."""
        return self._row_bytes + self._room.nbytes + len(self._names) * NAME_BYTES

    @property
    def kept_bytes(self) -> int:
        """Likewise for a while: which rows passed, and copies of their vectors."""
        with self._columns_lock:
            masks = list(self._masks.values())
        return sum(kept.mask.nbytes + kept.copied_bytes for kept in masks)

    def keep_within(self, budget: int) -> None:
        """Keep no more beside rows, segments and codes than suits a budget of memory."""
        self.names_kept = budget // 20 // NAME_BYTES
        self.masks_kept = min(_MASKS_BYTES, budget // 20)
        self.copied_kept = min(_COPIED_BYTES, budget // 10)

    @property
    def _row_bytes(self) -> int:
        slots = self._slots
        found = 0 if slots is None else slots.nbytes + slots.fresh * ITEM_BYTES
        arrays = (self._squares, self._scales, self._objects)
        return self._rows.nbytes + found + sum(array.nbytes for array in arrays)

    def thin(self) -> None:
        """Let go of what is quickly made again once something is added."""
        with self.lock:
            self._slots = None
            self._rows.thin()

    def statistics(self) -> dict[str, Any]:
        """What is held, and what it takes: in memory of this process, or mapped from files.

        `codes` and `graph` are as their libraries account for them. `tiers` tells how many
        vectors are in each, the tail among the hot ones. `per_row` is of each
        row ever stored, `resident_per_live` of each that nothing has ended.
        """
        reading = self.reading
        seen, truth, graph = reading.seen, reading.truth, reading.graph
        segments = truth.segments
        size = {
            "tail": self._room.nbytes,
            "segments": sum(s.held.nbytes for s in segments if s.held is not None),
            "mapped": sum(s.mapped.nbytes for s in segments if s.mapped is not None),
            "codes": sum(s.codes.nbytes for s in segments if s.codes is not None),
            "bounds": sum(s.bounds.nbytes for s in segments if s.bounds is not None),
            "graph": 0 if graph is None else graph.live.nbytes,
            "rows": self._row_bytes,
        }  # fmt: skip
        resident = sum(size.values()) - size["mapped"]
        tiers = dict.fromkeys(("hot", "warm", "cold"), 0)
        for segment in segments:
            tiers[segment.tier] += segment.rows
        tiers["hot"] += truth.slots - truth.sealed
        return {
            "namespace": self.space.namespace,
            "model": self.space.model,
            "dimensions": self.space.dimensions,
            "metric": self.space.metric,
            "rows": seen.count,
            "live": seen.live,
            "vectors": truth.slots,
            "segments": len(segments),
            "tiers": tiers,
            "codes": sorted({s.codes.name for s in segments if s.codes is not None}),
            "in_tail": truth.slots - truth.sealed,
            "in_graph": 0 if graph is None else graph.live.live,
            "efforts": {} if graph is None else dict(graph.efforts.few),
            "bytes": size,
            "per_row": {name: round(value / max(1, seen.count), 1) for name, value in size.items()},
            "resident_per_live": round(resident / seen.live, 1) if seen.live else None,
        }

    # What upkeep publishes

    def heal(self) -> None:
        """Read from the log again what a file no longer holds."""
        with self.lock:
            try:
                self._heal()
            except CorruptionError:
                if not self.is_stale:
                    raise
                self.forget()  # something of it was erased meanwhile: all is read again
            self.moved()

    def _heal(self) -> None:
        segments = []
        for segment in self.reading.truth.segments:
            try:
                if segment.mapped is not None:
                    segment.mapped.check()
                segments.append(segment)
            except Unusable:
                held = self.vectors_of(self.objects(segment.start, segment.stop))
                segments.append(replace(segment, held=held, mapped=None, file=None, identity=None))
        self.reading = replace(self.reading, truth=self._truth(tuple(segments)), ways={})

    def publish(self, old: Sequence[Segment], new: Segment) -> bool:
        """Put a segment in the place of some that follow each other, and of the tail's start.

        False, and nothing done, if they are no longer there.
        """
        with self.lock:
            truth = self.reading.truth
            segments, sealed = truth.segments, truth.sealed
            at = segments.index(old[0]) if old and old[0] in segments else len(segments)
            start = segments[at].start if at < len(segments) else sealed
            end = at + len(old)
            if segments[at:end] != tuple(old) or new.start != start or new.stop > truth.slots:
                return False
            room = self._room
            if new.stop > sealed and end == len(segments):
                # Readers keep the old room; what is left of it moves to one of its own.
                room = room[new.stop - sealed : truth.slots - sealed].copy()
            elif not old or new.stop != old[-1].stop:
                return False
            segments = (*segments[:at], new, *segments[end:])
            before = self.reading
            try:
                self._room = room
                self.reading = replace(before, truth=self._truth(segments), ways={})
            except BaseException:
                if self.reading is before:
                    self.forget()  # the room may not fit it any more
                raise
            return True

    def publish_graph(self, fed: Reading | None, graph: Graph) -> None:
        """Ask this graph from now on; it holds what was alive in the reading `fed`.

        With None it may hold anything: what it lacks and what is dead in it is looked up.
        """
        with self.lock:
            seen = self.reading.seen
            if fed is None:
                alive, since, until = self.present_slots(self.reading)
                held = graph.live.holds(np.arange(len(alive)))
                lacking = np.flatnonzero(alive & ~held)
                self.reading = replace(
                    self.reading, graph=replace(graph, since=since, until=until),
                    deaths=int((held & ~alive).sum()),
                    revived=tuple(lacking[lacking < graph.stop].tolist()), ways={},
                )  # fmt: skip
                return
            then = fed.seen
            again = seen.slot[then.count :]
            self.reading = replace(
                self.reading, graph=graph, revived=tuple(again[again < graph.stop].tolist()),
                deaths=seen.count - then.count - (seen.live - then.live), ways={},
            )  # fmt: skip

    def drop_graph(self, graph: Graph) -> None:
        """Ask this graph no more."""
        with self.lock:
            if self.reading.graph is graph:
                self.reading = replace(self.reading, graph=None, revived=(), deaths=0, ways={})

    def dump(self) -> tuple[Reading, dict[str, npt.NDArray[Any]]]:
        """The present reading, and all but vectors and codes as arrays, by name."""
        with self.lock:
            slots = self.reading.truth.slots
            arrays: dict[str, npt.NDArray[Any]] = {
                f"rows.{name}": array.copy() for name, array in self._rows.dump().items()
            }
            arrays["objects"] = self._objects[:slots].copy()
            arrays["squares"] = self._squares[:slots].copy()
            if self.space.metric == "cosine":
                arrays["scales"] = self._scales[:slots].copy()
            return self.reading, arrays

    def restore(
        self,
        seq: int,
        segments: Sequence[Segment],
        arrays: dict[str, npt.NDArray[Any]],
    ) -> None:
        """Go on from what `dump` gave; vectors that are in no segment come from the log."""
        with self.lock:
            self.forget()
            sealed = segments[-1].stop if segments else 0
            self._rows.restore(
                {n.removeprefix("rows."): a for n, a in arrays.items() if n.startswith("rows.")}
            )
            self._objects, self._squares = arrays["objects"], arrays["squares"]
            self._held = len(self._objects)
            self._slots = None
            if self.space.metric == "cosine":
                self._scales = arrays["scales"]
            if sealed < self._held:
                self._room = self.vectors_of(self._objects[sealed:].tolist()).copy()
            self.reading = Reading(
                seq, self._rows.seen(), self._truth(tuple(segments)), self._tiny(0), None, (), 0, {}
            )

    def follow(self, old: SpaceReadings) -> None:
        """Go on from what another has read, without what was erased since.

        Slots keep their numbers. One whose vector is gone has a blank one, of length 1, and no
        object; no row leads there.

        Raises:
            Unusable: a file that it has mapped does not hold any more what was written.
        """
        erased = self.log.engine.erased_between(self.space.namespace, old.erased, self.erased)
        before, arrays = old.dump()
        truth, graph = before.truth, before.graph
        with self.lock:
            self.forget()
            self._rows.restore(
                {n.removeprefix("rows."): a for n, a in arrays.items() if n.startswith("rows.")}
            )
            rows, lost = self._rows.erase(np.array(erased, dtype=np.int64))
            self._objects, self._squares = arrays["objects"], arrays["squares"]
            self._objects[lost], self._squares[lost] = -1 - lost, 1
            if self.space.metric == "cosine":
                self._scales = arrays["scales"]
                self._scales[lost] = 1
            self._held, self._slots = len(self._objects), None
            self._room = _blanked(truth.tail, lost - truth.sealed)
            segments = tuple(_without_lost(segment, lost) for segment in truth.segments)
            self._names = old._names
            with self._columns_lock, old._columns_lock:
                self._columns = old._columns.without(rows, self._values, moving_up=False)
            self.reading = Reading(
                before.seq, self._rows.seen(), self._truth(segments), self._tiny(0), None, (), 0, {}
            )
            if graph is not None and not graph.live.broken:
                graph.live.forget(lost)
                self.publish_graph(None, graph)


def _without_lost(segment: Segment, lost: Numbers) -> Segment:
    """A segment with blank vectors in some slots, and no codes that tell of what was there."""
    mine = lost[(segment.start <= lost) & (lost < segment.stop)] - segment.start
    if not len(mine):
        return segment
    held = _blanked(segment.vectors(), mine)
    return Segment(segment.start, segment.stop, held, None, uncoded=True)


def _blanked(vectors: Matrix, rows: Numbers) -> Matrix:
    """A copy with other vectors in some rows; those that are none are left out."""
    found = vectors.copy()
    rows = rows[(rows >= 0) & (rows < len(vectors))]
    found[rows] = 0
    found[rows, 0] = 1
    return found


def _squares(vectors: Matrix) -> Scores:
    """The squared length of each vector, as `_exact` comes to it."""
    if len(vectors) <= _ROWS_AT_ONCE:
        wide = vectors.astype(np.float64)
        wide *= wide
        few: Scores = np.add.reduce(wide, axis=1)
        return few
    found = np.empty(len(vectors), dtype=np.float64)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        wide = vectors[start : start + _ROWS_AT_ONCE].astype(np.float64)
        wide *= wide
        np.add.reduce(wide, axis=1, out=found[start : start + _ROWS_AT_ONCE])
    return found


def _scales(squares: Scores) -> npt.NDArray[np.float32] | list[float]:
    """One over each length; an infinite one, of whatever is no longer than nothing: all rows."""
    if len(squares) <= _FEW:
        few = squares.tolist()
        if all(TINY**2 < square < inf for square in few):
            return [1 / sqrt(square) for square in few]
    with np.errstate(over="ignore", divide="ignore"):
        return (1 / np.sqrt(squares)).astype(np.float32)


def _grown(array: npt.NDArray[Any], held: int, count: int) -> npt.NDArray[Any]:
    """Room for `count` rows, of which the first `held` are kept; grown by half."""
    if count <= len(array):
        return array
    wider = np.empty((max(count, 0 if not held else held + held // 2), *array.shape[1:]),
                     dtype=array.dtype)  # fmt: skip
    wider[:held] = array[:held]
    return wider
