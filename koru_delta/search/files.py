"""The files of vector spaces under `index/`: reading and writing them.

A file says which space and log it was made from, up to which position and chained root; one
that does not fit, or does not hold what was written, is as good as none. When to write them
is decided in `upkeep.py`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from koru_delta.errors import CorruptionError
from koru_delta.log import CausalLog
from koru_delta.search import cache, codes, graph
from koru_delta.search.cache import CacheFile, Parts, Unusable
from koru_delta.search.codes import Codes
from koru_delta.search.frame import CodesUnavailable
from koru_delta.search.graph import Efforts, GraphUnavailable, LiveGraph
from koru_delta.search.nearest import VectorSpace
from koru_delta.search.readings import Graph, Reading
from koru_delta.search.signs import Shelved
from koru_delta.search.truth import Matrix, Segment

FORMAT: Final = 2
_UNSAID: Final = {"erased": 0}  # by files from before anything could be erased
_log = logging.getLogger("koru_delta")


class IndexFiles:
    """The index files of one database; none, if it is in memory."""

    def __init__(self, log: CausalLog) -> None:
        self._log = log
        engine = log.engine
        self.folder = None if engine.temporary else engine.directory / "index"
        self.writable = self.folder is not None and not engine.read_only

    def place(self, space: VectorSpace) -> Path | None:
        """The folder of a space, whether it is there or not."""
        return None if self.folder is None else self.folder / str(space.space.space_id)

    # What they say

    def _about(self, space: VectorSpace, kind: str) -> dict[str, Any]:
        mine = space.space
        return {
            "format": FORMAT, "kind": kind, "namespace": mine.namespace, "model": mine.model,
            "dimensions": mine.dimensions, "metric": mine.metric, "erased": space.erased,
        }  # fmt: skip

    def _fits(self, space: VectorSpace, file: CacheFile, kind: str) -> dict[str, Any]:
        about = file.about
        wanted = self._about(space, kind)
        if {name: about.get(name, _UNSAID.get(name)) for name in wanted} != wanted:
            raise Unusable(f"{file.name} is of another format or space")
        return about

    def _position(self, reading: Reading) -> dict[str, Any]:
        return {"seq": reading.seq, "root": self._log.root_at(reading.seq).hex()}

    def _checked_position(self, about: dict[str, Any], name: str) -> int:
        seq: int = about["seq"]
        if seq > self._log.head().seq or self._log.root_at(seq).hex() != about["root"]:
            raise Unusable(f"{name} was made from another log")
        return seq

    # Segments, and the state that names them

    def has(self, space: VectorSpace, segment: Segment) -> bool:
        """Whether the file of a segment is there."""
        place = self.place(space)
        return place is not None and segment.file is not None and (place / segment.file).exists()

    def has_state(self, space: VectorSpace, seq: int) -> bool:
        """Whether the state of a position is there."""
        place = self.place(space)
        return place is not None and (place / _state_name(seq)).exists()

    def write_segment(
        self, space: VectorSpace, place: Path, segment: Segment, *, frugal: bool
    ) -> None:
        """Write a segment, and go on with it from its file."""
        fresh = self.write_vectors(
            space, place, segment.start, segment.vectors(), segment.codes, frugal=frugal
        )
        fresh = replace(
            segment, held=None, mapped=fresh.mapped, file=fresh.file, identity=fresh.identity
        )
        space.publish((segment,), fresh)

    def write_vectors(
        self,
        space: VectorSpace,
        place: Path,
        start: int,
        vectors: Matrix | Parts,
        made: Codes | None,
        *,
        frugal: bool,
    ) -> Segment:
        """Write the vectors of the slots from `start` on, and their codes: a segment from there."""
        sections: dict[str, cache.Section] = {"vectors": vectors}
        if made is not None:
            sections["codes"] = made.dump()
        stop = start + vectors.shape[0]
        about = self._about(space, "vectors") | {"start": start, "stop": stop}
        name = f"vectors-{start}-{stop}.kdx"
        cache.write(place / name, about, sections)
        file = CacheFile(place / name)
        mapped = file.mapped("vectors")
        mapped.frugal = frugal
        mapped.check()  # so that no search has to
        return Segment(start, stop, None, mapped, made, file=name, identity=file.identity.hex())

    def write_state(self, space: VectorSpace, place: Path) -> int | None:
        """Write what a space has read, and remove files of no more use; returns its position.

        None, and nothing written, if a segment has no file.
        """
        reading, arrays = space.dump()
        segments = reading.truth.segments
        if any(segment.file is None for segment in segments):
            return None
        about = self._about(space, "state") | self._position(reading)
        about["segments"] = [[s.file, s.identity, s.start, s.stop] for s in segments]
        name = _state_name(reading.seq)
        cache.write(place / name, about, arrays)
        keep = {name, *(s.file for s in segments), *(_signs_name(s) for s in segments)}
        for kind in ("state", "vectors", "signs"):
            for file in place.glob(f"{kind}-*.kdx"):
                if file.name not in keep:
                    file.unlink(missing_ok=True)
        return reading.seq

    def restore(self, space: VectorSpace, *, frugal: bool) -> int | None:
        """Go on from the newest state that fits; returns its position, None if there is none."""
        place = self.place(space)
        for path in sorted(place.glob("state-*.kdx"), reverse=True) if place is not None else ():
            try:
                try:
                    return self._restore(space, path, frugal=frugal)
                except (KeyError, TypeError, ValueError, CorruptionError) as error:
                    # The last is raised, too, if a vector that it names is erased right now.
                    raise Unusable(f"{path.name} makes no sense: {error!r}") from error
            except Unusable as error:
                space.forget()
                _log.info("a cache is not used, and made anew from the log: %s", error)
        return None

    def _restore(self, space: VectorSpace, path: Path, *, frugal: bool) -> int:
        state = CacheFile(path)
        about = self._fits(space, state, "state")
        seq = self._checked_position(about, path.name)
        segments = []
        for name, identity, start, stop in about["segments"]:
            file = CacheFile(path.parent / name)
            if file.identity.hex() != identity:
                raise Unusable(f"{name} is not the file that {path.name} names")
            self._fits(space, file, "vectors")
            mapped = file.mapped("vectors")
            mapped.frugal = frugal
            segments.append(
                Segment(start, stop, None, mapped, uncoded=True, file=name, identity=identity)
            )
        space.restore(seq, segments, {name: state.array(name) for name in state.names()})
        state.close()
        return seq

    # Codes

    def read_codes(self, space: VectorSpace, segment: Segment) -> Codes | None:
        """The codes that stand beside the vectors of a segment, if they can be used."""
        place = self.place(space)
        if place is None or segment.file is None:
            return None
        try:
            file = CacheFile(place / segment.file)
            if file.identity.hex() != segment.identity or "codes" not in file:
                return None
            mine = space.space
            kept = file.stored("codes")
            return codes.read(kept.read, kept.nbytes, mine.metric, mine.dimensions, segment.rows)
        except (Unusable, CodesUnavailable, CorruptionError) as error:
            _log.info("codes in %s are not used, and made anew: %s", segment.file, error)
            return None

    def shelved(self, space: VectorSpace, segment: Segment) -> Shelved:
        """Codes of a segment that stay in a file of their own.

        Raises:
            CodesUnavailable: it is not there, or cannot be used.
        """
        place, mine = self.place(space), space.space
        name = _signs_name(segment)
        try:
            if place is None:
                raise Unusable("the database is in memory")
            file = CacheFile(place / name)
            about = self._fits(space, file, "signs")
            if about["of"] != segment.identity:
                raise Unusable(f"{name} is of other vectors")
            stored = file.stored("codes")

            def read(offset: int, length: int) -> bytes:
                try:
                    return stored.read(offset, length)
                except Unusable as error:
                    raise CodesUnavailable(f"codes in {name} cannot be read: {error}") from error

            return Shelved(read, stored.nbytes, mine.metric, mine.dimensions, segment.rows)
        except (Unusable, CorruptionError, KeyError) as error:
            raise CodesUnavailable(f"codes in {name} cannot be read: {error}") from error

    def write_signs(self, space: VectorSpace, segment: Segment, made: Codes) -> bool:
        """Write codes of a segment to a file of their own; False if another is at it."""
        place = self.place(space)
        assert place is not None
        with cache.writing(place) as alone:
            if not alone or space.is_stale:
                return False
            about = self._about(space, "signs") | {"of": segment.identity}
            cache.write(place / _signs_name(segment), about, {"codes": made.dump()})
        return True

    # The graph

    def write_graph(self, space: VectorSpace, place: Path, reading: Reading, known: Graph) -> None:
        """Write a graph and what is known of it."""
        about = self._about(space, "graph") | self._position(reading)
        with cache.replacing(place / "graph.hnsw") as file:
            known.live.save(file)
            about["hash"] = cache.hash_of(file)
        about |= {
            "stop": known.stop, "library": graph.library(), "replaced": known.live.replaced,
            "measured": known.measured, "floors": list(known.efforts.floors),
            "efforts": [[target, effort] for target, effort in known.efforts.few.items()],
            "wide": [[target, effort] for target, effort in known.efforts.many.items()],
        }  # fmt: skip
        cache.write(place / "graph.kdx", about, {})

    def read_graph(self, space: VectorSpace) -> Graph | None:
        """The graph in its file, if it can be used; the space has then come as far as it has."""
        place = self.place(space)
        if place is None or not (place / "graph.kdx").exists():
            return None
        try:
            about = self._fits(space, CacheFile(place / "graph.kdx"), "graph")
            seq = self._checked_position(about, "the graph")
            space.at(seq)  # the graph may be newer than all else that was in files
            native = place / "graph.hnsw"
            if about["library"] != graph.library() or cache.hash_of(native) != about["hash"]:
                raise Unusable("the graph is damaged, or of another version of its library")
            known = LiveGraph.load(
                native, space.space.dimensions, space.space.metric, replaced=about["replaced"]
            )
            efforts = Efforts(
                dict(about["efforts"]), dict(about.get("wide", ())), tuple(about["floors"])
            )
            return Graph(known, about["stop"], efforts, about["measured"])
        except (Unusable, GraphUnavailable, KeyError, TypeError, ValueError) as error:
            _log.info("a graph is not used, and made anew: %s", error)
            return None


def _signs_name(segment: Segment) -> str:
    return f"signs-{segment.start}-{segment.stop}.kdx"


def _state_name(seq: int) -> str:
    return f"state-{seq:020d}.kdx"
