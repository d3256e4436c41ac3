"""What makes search fast, made beside it: segments, codes, graphs, and their files.

A search never waits for any of this. A thread runs while there is something to make and
ends when there is not; it makes new objects and publishes them in one step. Files say
which log they were made from, up to which position and chained root; a file that does not
fit the log, or does not hold what was written, is as good as none.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from time import monotonic
from typing import Final

import numpy as np

from koru_delta.errors import (
    DatabaseClosedError,
    InvalidDataError,
    KoruDeltaError,
    StorageError,
)
from koru_delta.log import CausalLog
from koru_delta.search import cache, codes
from koru_delta.search.bounds import Int8Bounds
from koru_delta.search.budget import Place
from koru_delta.search.cache import Unusable
from koru_delta.search.files import IndexFiles
from koru_delta.search.frame import CodesUnavailable, Vectors
from koru_delta.search.graph import GraphUnavailable
from koru_delta.search.graphs import Graphs, is_behind, pieces
from koru_delta.search.memory import Memory
from koru_delta.search.nearest import VectorSpace
from koru_delta.search.plan import Costs
from koru_delta.search.signs import Shelved
from koru_delta.search.truth import Leafed, Segment, Truth

SEAL_ROWS: Final = 4096  # a tail this long becomes a segment
SEAL_LEAST: Final = 512  # likewise, when everything is to be made
SEGMENT_ROWS: Final = 262_144  # segments grow by merging up to this
BOUNDED_ROWS: Final = 32_768  # in a segment, from which small integers beat floats
PAUSE_SECONDS: Final = 0.05
RETRY_SECONDS: Final = 60.0  # until what a full disk made impossible is tried again
QUIET_SECONDS: Final = 0.25  # without a write, until a graph is given the last few rows
SAVE_ENTRIES: Final = 8_192  # log entries read since the files were written
_FAILURES = (Unusable, CodesUnavailable, GraphUnavailable, KoruDeltaError, OSError, MemoryError)
_Step = tuple[str, Callable[[VectorSpace, bool], None]]  # what it makes, and how
_log = logging.getLogger("koru_delta")


class _Stopped(Exception):  # noqa: N818 - no error
    """The database is being closed."""


class Upkeep:
    """Keeps the spaces of one database fast. At most one thread of it works at a time."""

    def __init__(
        self,
        log: CausalLog,
        opened: Callable[[], Iterable[VectorSpace]],
        memory: int | None = None,
    ) -> None:
        """Keep within `memory` bytes, if given, whatever of `opened` can be read from files."""
        self._log = log
        self._opened = opened
        self._files = IndexFiles(log)
        self._memory = Memory(opened, memory, in_files=self._files.folder is not None)
        self._costs: Costs | None = None
        self._starting = threading.Lock()
        self._working = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._due: dict[int, VectorSpace] = {}
        # What failed, in which space and epoch, and the monotonic time until which it is let be.
        self._given_up: dict[tuple[str, int, int], float] = {}
        self._saved: dict[int, int] = {}  # position of the last state written or read
        self._named: dict[int, list[str | None]] = {}  # segments, by the last state
        self._swept: set[int] = set()  # spaces whose folder was looked through
        self._unsaved: set[int] = set()  # spaces whose files an erasure has removed
        self._graphs = Graphs(self._files, self._memory, self._check)

    # Settings

    def costs(self) -> Costs:
        """What each way of searching costs here: as tuned, or as a rule of thumb."""
        if self._costs is None:
            self._costs = self._tuned()
        return self._costs

    def set_costs(self, costs: Costs) -> None:
        """Go by these costs from now on, in every process that opens this database.

        Raises:
            StorageFullError, StorageError: only here, for they could not be written.
        """
        self._costs = costs
        if self._files.folder is None or not self._files.writable:
            return
        place = self._files.folder / "costs.json"
        try:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            with cache.replacing(place) as file:
                file.write_text(json.dumps(costs.to_json(), indent=1))
        except OSError as error:
            raise StorageError.because(
                error,
                f"what searches cost was measured, but cannot be kept in {place} ({error}): it "
                "holds until this database is closed; mend that and tune again",
            ) from error

    def _tuned(self) -> Costs:
        file = self._files.folder and self._files.folder / "costs.json"
        if file is None or file.is_fifo():  # which would be waited for
            return Costs()
        try:
            return Costs.read(json.loads(file.read_bytes()))
        except FileNotFoundError:
            return Costs()
        except (OSError, ValueError, InvalidDataError) as error:
            _log.warning("tuned costs cannot be read (%s); run: kdelta tune", error)
            return Costs()

    # When

    def nudge(self, space: VectorSpace) -> None:
        """Note that a space has read more of the log; start working if that is due."""
        if self._due.get(space.space.space_id) is space:
            return  # the thread has yet to look at it, and will see this too
        if self._stop.is_set() or not (self._wants(space) or is_behind(space)):
            return
        with self._starting:
            self._due[space.space.space_id] = space
            if self._thread is None and not self._stop.is_set():
                # Not a daemon: those are torn down in the middle of native code.
                thread = threading.Thread(target=self._run, name="koru-delta-upkeep")
                try:
                    thread.start()
                except RuntimeError as error:  # there may be no more, or the program is ending
                    self._due.clear()
                    _log.info("nothing is made in the background: %s", error)
                else:
                    self._thread = thread

    def _wants(self, space: VectorSpace) -> bool:
        reading = space.reading
        if space.space.space_id in self._unsaved:
            return True
        tail = reading.truth.slots - reading.truth.sealed
        uncoded = tail >= SEAL_ROWS or any(s.uncoded for s in reading.truth.segments)
        if uncoded and not self._has_given_up("codes", space):
            return True
        if space.to_code and not self._has_given_up("codes of filters", space):
            return True
        if self._is_held(space) and not self._has_given_up("files", space):
            return True
        if self._is_to_be_tried_again(space):
            return True
        return not self._has_given_up("graph", space) and self._graphs.wants(space)

    def _is_to_be_tried_again(self, space: VectorSpace) -> bool:
        mine = (space.space.space_id, space.epoch)
        return bool(self._given_up) and any(
            known[1:] == mine and monotonic() >= until
            for known, until in list(self._given_up.items())
        )

    def _is_held(self, space: VectorSpace) -> bool:
        """Whether something is in memory only because another process was writing files."""
        segments = space.reading.truth.segments
        return (
            self._memory.is_limited
            and self._files.writable
            and any(segment.file is None for segment in segments)
        )

    def _run(self) -> None:
        self._stop.wait(PAUSE_SECONDS)  # the search that asked for it goes first
        while True:
            with self._starting:
                if not self._due or self._halting():
                    self._thread = None
                    return
                due = self._due  # what there is to make before what is only behind by little
                number = next((n for n, each in due.items() if self._wants(each)), next(iter(due)))
                space = due.pop(number)
            try:
                if self._wants(space):
                    self.work(space)
                elif self._quiet(space):
                    with self._working:
                        self._take((("graph", self._graphs.feed_rest),), space, complete=False)
                elif is_behind(space):
                    self.nudge(space)
            except _Stopped:
                continue
            except BaseException:
                with self._starting:
                    self._thread = None  # the next that is due starts another
                raise

    def _quiet(self, space: VectorSpace) -> bool:
        """Whether a space reads nothing new for a while."""
        seq, until = space.reading.seq, monotonic() + QUIET_SECONDS
        while space.reading.seq == seq and not self._halting():
            if any(self._wants(other) for other in list(self._due.values())):
                return False  # that goes first
            if monotonic() >= until:
                return True
            self._stop.wait(PAUSE_SECONDS)
        return False

    def _halting(self) -> bool:
        return self._stop.is_set() or not threading.main_thread().is_alive()

    def _check(self) -> None:
        if self._halting():
            raise _Stopped

    def close(self) -> None:
        """Stop the thread, then write what was made and is not in a file yet."""
        self._stop.set()
        with self._starting:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        if self._files.folder is None or not self._files.writable:
            return
        steps = (("codes", self._seal), ("files", self._save), ("files", self._graphs.save))
        with self._working:
            self._try_again()
            for space in self._opened():
                self._take(steps, space, complete=False)

    # What

    def work(
        self,
        space: VectorSpace,
        *,
        complete: bool = False,
        tell: Callable[[int], None] | None = None,
    ) -> OSError | None:
        """Make what a space lacks: with `complete`, everything.

        Args:
            tell: Called with the number of vectors that a graph was given, from time to time.

        Returns:
            What kept something from being written or made, if it may pass.
        """
        steps = (
            ("files", self._sweep),
            ("codes", self._seal),
            ("memory", self._share_out),
            ("codes", self._recode),
            ("codes of filters", self._code_masks),
            ("files", self._save),
            ("memory", self._fit),
            ("graph", self._graphs.load),
            ("graph", self._graphs.build),
            ("names", self._read_names),
            ("files", self._graphs.save),
            ("bounds", self._bound),
            ("memory", self._give_back),
        )
        with self._working:
            self._unsaved.discard(space.space.space_id)
            if complete:
                self._try_again()
            self._graphs.tell = tell
            try:
                return self._take(steps, space, complete=complete)
            finally:
                self._graphs.tell = None

    def load(self, space: VectorSpace) -> None:
        """Take up what is in files, and make nothing."""
        with self._working:
            steps = (
                ("memory", self._share_out), ("codes", self._load_codes), ("memory", self._fit),
                ("graph", self._graphs.load), ("memory", self._give_back),
            )  # fmt: skip
            self._take(steps, space, complete=False)

    def _take(
        self, steps: Sequence[_Step], space: VectorSpace, *, complete: bool
    ) -> OSError | None:
        """Take these steps; one that fails is told of once, and not taken again for a while.

        Returns:
            The last failure that may pass, such as of a full disk.
        """
        failed: set[str] = set()
        passing: OSError | None = None
        for what, step in steps:
            try:
                if space.is_stale:
                    return passing  # something was erased: another has taken its place
            except DatabaseClosedError:
                return passing
            if not self._has_given_up(what, space):
                try:
                    try:
                        step(space, complete)
                    except Unusable:
                        space.heal()  # and then from the log
                        step(space, complete)
                except _FAILURES as error:
                    self._give_up(what, what, space, error)
                    failed.add(what)
                    passing = error if isinstance(error, OSError) else passing
        for what in {what for what, _ in steps} - failed:
            if not self._has_given_up(what, space):
                self._given_up.pop((what, space.space.space_id, space.epoch), None)
        return passing

    def _give_up(self, what: str, named: str, space: VectorSpace, error: BaseException) -> None:
        """Let something be: for a while if a disk was full, say, which may pass."""
        passes = isinstance(error, OSError)
        known = what, space.space.space_id, space.epoch
        level = logging.INFO if known in self._given_up else logging.WARNING
        self._given_up[known] = monotonic() + RETRY_SECONDS if passes else inf
        _log.log(
            level,
            "no %s for %r %s (answers stay right, some searches are slower): %s",
            named, space.space.namespace,
            "for now" if passes else "until the database is opened again", error,
        )  # fmt: skip

    def _try_again(self) -> None:
        """Let nothing be any more that may have passed."""
        for what, until in self._given_up.items():
            self._given_up[what] = until if until == inf else -inf

    def _has_given_up(self, what: str, space: VectorSpace) -> bool:
        return monotonic() < self._given_up.get((what, space.space.space_id, space.epoch), -inf)

    # Segments and codes

    def _seal(self, space: VectorSpace, complete: bool = False) -> None:
        """Make a segment of the tail, together with the segments before it that are not larger."""
        while True:
            epoch, truth = space.epoch, space.reading.truth
            tail = truth.slots - truth.sealed
            if tail < (min(SEAL_LEAST, SEAL_ROWS) if complete else SEAL_ROWS):
                return
            stop, first, segments = truth.slots, len(truth.segments), truth.segments
            while (
                first
                and segments[first - 1].rows < 2 * (stop - segments[first - 1].stop)
                and stop - segments[first - 1].start <= SEGMENT_ROWS
            ):
                first -= 1
            old = segments[first:]
            start = old[0].start if old else truth.sealed
            stop = min(stop, start + SEGMENT_ROWS)
            made = self._joined(space, truth, start, stop)
            if space.epoch != epoch or not space.publish(old, made):
                return
            if self._halting() and not complete:
                return  # no second one: somebody waits

    def _joined(self, space: VectorSpace, truth: Truth, start: int, stop: int) -> Segment:
        """A segment of these slots: from a file at once, if memory is limited and one can be."""
        leafed = Leafed(truth, start, stop, truth.dimensions)
        place = self._files.place(space)
        if self._memory.is_limited and place is not None and self._files.writable:
            made = self._encoded(space, leafed)
            with cache.writing(place) as mine:
                if mine and not space.is_stale:
                    parts = cache.Parts(leafed.shape, leafed.pieces)
                    return self._files.write_vectors(space, place, start, parts, made, frugal=True)
        vectors = leafed[:]
        return Segment(start, stop, vectors, None, self._encoded(space, vectors))

    def _encoded(self, space: VectorSpace, vectors: Vectors) -> codes.Codes | None:
        """Codes, or None where they are of no use or the library fails: then it is scanned."""
        if self._has_given_up("encoding", space):
            return None
        try:
            return codes.encode(vectors, space.space.metric)
        except CodesUnavailable as error:
            self._give_up("encoding", "codes", space, error)
            return None

    def _load_codes(self, space: VectorSpace, _complete: bool) -> None:
        tiers = self._place_of(space).tiers
        for segment in space.reading.truth.segments:
            if tiers.get(segment.start) == "cold":
                continue
            kept = self._files.read_codes(space, segment) if segment.uncoded else None
            if kept is not None and kept.name == codes.best_kind():
                space.publish((segment,), replace(segment, codes=kept, uncoded=False))

    def _recode(self, space: VectorSpace, complete: bool) -> None:
        """Give codes to segments that have none, or none of the best kind: from their files.

        What is not in a file is made anew.
        """
        kind, tiers = codes.best_kind(), self._place_of(space).tiers
        for segment in space.reading.truth.segments:
            if tiers.get(segment.start) == "cold" and segment.file is not None:
                continue
            if not segment.uncoded and (segment.codes is None or segment.codes.name == kind):
                continue
            self._check_unless(complete)
            kept = self._files.read_codes(space, segment)
            if kept is not None and kept.name == kind:
                space.publish((segment,), replace(segment, codes=kept, uncoded=False))
                continue
            made = self._encoded(space, segment.leafed())
            fresh = replace(segment, codes=made, uncoded=False)
            if made is not None:  # to be written to a file of its own
                fresh = replace(
                    fresh, held=segment.vectors(), mapped=None, file=None, identity=None
                )
            space.publish((segment,), fresh)

    def _code_masks(self, space: VectorSpace, complete: bool) -> None:
        """Make codes of just what is under the masks that are used often."""
        waiting = space.to_code  # another takes its place if the space begins again
        while waiting:
            self._check_unless(complete)
            space.code(waiting[0])
            del waiting[0]

    def _bound(self, space: VectorSpace, complete: bool) -> None:
        """Give large segments bounds for exact scans."""
        if not Int8Bounds.available() or self._memory.is_limited:
            return
        for segment in space.reading.truth.segments:
            if segment.bounds is None and segment.rows >= BOUNDED_ROWS and not segment.unbounded:
                self._check_unless(complete)
                made = Int8Bounds.made(segment.vectors(), space.space.metric)
                space.publish((segment,), replace(segment, bounds=made, unbounded=made is None))

    def _check_unless(self, complete: bool) -> None:
        if not complete:
            self._check()

    # Memory

    def memory(self) -> dict[str, int | None]:
        """Bytes for vectors: the budget, what is held now, and the least that can be."""
        return self._memory.statistics()

    def _place_of(self, space: VectorSpace) -> Place:
        return self._memory.place(space)

    def _share_out(self, _space: VectorSpace, _complete: bool) -> None:
        """Decide what of all spaces is kept in memory, if that is limited."""
        self._memory.share_out()

    def _fit(self, _space: VectorSpace, _complete: bool) -> None:
        """Let go of what is not to be in memory, where files have it."""
        if not self._memory.is_limited:
            return
        for space in self._opened():
            space.thin()
            place = self._place_of(space)
            known = space.reading.graph
            if known is not None and not place.graph:
                space.drop_graph(known)
            for segment in space.reading.truth.segments:
                tier = place.tiers.get(segment.start, "hot")
                if segment.mapped is None:
                    continue  # it has no file yet
                segment.mapped.frugal = tier != "hot"
                if tier == "hot":
                    continue
                segment.mapped.release()
                shelved = segment.codes
                if tier == "cold" and (not isinstance(shelved, Shelved) or shelved.is_bad):
                    shelved = self._shelved(space, segment)
                if shelved is not segment.codes or segment.bounds is not None:
                    uncoded = tier == "warm" and segment.uncoded
                    fresh = replace(segment, codes=shelved, bounds=None, uncoded=uncoded)
                    space.publish((segment,), fresh)

    def _give_back(self, _space: VectorSpace, _complete: bool) -> None:
        if self._memory.is_limited:
            self._memory.give_back()

    def _shelved(self, space: VectorSpace, segment: Segment) -> Shelved | None:
        """Codes of a segment in a file of their own, made if it is missing; None: of no use."""
        try:
            return self._files.shelved(space, segment)
        except CodesUnavailable:
            if not self._files.writable:
                return None
        made = codes.encode(segment.leafed(), space.space.metric, kind="signs")
        if made is None or not self._files.write_signs(space, segment, made):
            return None
        return self._files.shelved(space, segment)

    # Names

    def _read_names(self, space: VectorSpace, _complete: bool) -> None:
        if self._memory.is_limited:
            return
        seen = space.reading.seen
        for _, some in pieces(np.unique(seen.key[seen.alive()]), 10_000):
            space.names(some.tolist())

    # Files

    def _sweep(self, space: VectorSpace, _complete: bool) -> None:
        """Once, remove what killed processes left of files they were writing."""
        place = self._files.place(space)
        if space.space.space_id in self._swept or place is None or not self._files.writable:
            return
        self._swept.add(space.space.space_id)
        if place.exists():
            with cache.writing(place) as mine:
                if mine:
                    cache.sweep(place)

    def _save(self, space: VectorSpace, complete: bool = False) -> None:
        """Write segments that have no file, and a state that names them all."""
        place = self._files.place(space)
        if place is None or not self._files.writable:
            return
        reading = space.reading
        saved = self._saved.get(space.space.space_id, 0)
        named = [each.identity for each in reading.truth.segments]
        stale = named != self._named.get(space.space.space_id)
        stale |= any(not self._files.has(space, each) for each in reading.truth.segments)
        late = reading.seq - saved >= (1 if complete else SAVE_ENTRIES)
        late |= saved > 0 and not self._files.has_state(space, saved)  # somebody deleted it
        if not reading.truth.segments or not (stale or late):
            return
        with cache.writing(place) as mine:
            if not mine or space.is_stale:
                return  # another process is at it, or something was erased
            cache.sweep(place)
            for segment in reading.truth.segments:
                if not self._files.has(space, segment):
                    frugal = self._memory.is_limited
                    self._files.write_segment(space, place, segment, frugal=frugal)
            seq = self._files.write_state(space, place)
            if seq is not None:  # else a file went bad meanwhile; the next round writes it anew
                self._saved[space.space.space_id] = seq
                self._note_named(space)

    def _note_named(self, space: VectorSpace) -> None:
        """Note that a state in a file names the segments there are now."""
        segments = space.reading.truth.segments
        self._named[space.space.space_id] = [each.identity for each in segments]

    def restore(self, space: VectorSpace, old: VectorSpace | None = None) -> None:
        """Go on from another that became stale, or the newest files that fit the log, if any."""
        followed = old is not None and old.reading.seq and self._follow(space, old)
        if not followed:
            seq = self._files.restore(space, frugal=self._memory.is_limited)
            if seq is not None:
                self._saved[space.space.space_id] = seq
                self._note_named(space)
        space.moved = partial(self.nudge, space)
        self.nudge(space)

    def _follow(self, space: VectorSpace, old: VectorSpace) -> bool:
        try:
            space.follow(old)
        except Unusable as error:
            space.forget()
            _log.info("a cache is not used, and made anew from the log: %s", error)
            return False
        if self._files.folder is not None and self._files.writable:
            self._unsaved.add(space.space.space_id)
            self._graphs.unsaved.add(space.space.space_id)
        return True
