"""Moments: times, versions, commits, positions and tags become a `Cut` here and nowhere else."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from koru_delta.causal import (
    DELETE,
    FOREVER,
    GENESIS,
    Clock,
    Commit,
    Cut,
    Version,
    When,
    checked_clock,
    microseconds,
    moment,
)
from koru_delta.errors import (
    CorruptionError,
    InvalidDataError,
    InvalidTimestampError,
    UnknownVersionError,
)
from koru_delta.storage import SqliteEngine
from koru_delta.values import canonical_bytes, decode

AsOf = int | datetime | str | Version | Commit | Cut | None
TAGS: Final = "$tags"
_HEX_ID = re.compile(r"[0-9a-f]{8,64}\Z")
_HEX_ID_LONG: Final = 24  # digits, more than any time has
_CUTS_KEPT = 4096
_LIKE_A_TIME: Final = 1_000_000_000  # seconds since 1970, or finer parts of them


class Moments:
    """The moments of one log, by its clock."""

    def __init__(self, engine: SqliteEngine, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock
        self._cuts: dict[str, Cut] = {}  # of whole ids

    def _now(self) -> int:
        return checked_clock(self.clock())

    def now(self) -> Cut:
        """The present: everything written, by a clock that never runs backwards."""
        head = self.engine.head()
        now = self._now()
        return Cut(head.seq, now if now > head.tx_time else head.tx_time)

    def cut(self, as_of: AsOf = None, *, ahead: bool = False) -> Cut:
        """Turn any way of naming a moment into a `Cut`.

        Args:
            ahead: Take a time that lies ahead too: up to then, all that is written now.

        Raises:
            InvalidTimestampError: a time that is naive, unreadable or ahead, or a
                position inside a commit or past the end.
            UnknownVersionError: a version, commit or tag this log does not hold.
        """
        if as_of is None:
            return self.now()
        if isinstance(as_of, Cut):
            return as_of
        if isinstance(as_of, Version):
            return self._cuts.get(as_of.id) or self._cut_at_id(as_of.id)
        if isinstance(as_of, Commit):
            return self._cut_at_commit(as_of)
        if isinstance(as_of, int) and not isinstance(as_of, bool):
            return self._cut_at_seq(as_of)
        if isinstance(as_of, str):
            if as_of.startswith("tag:"):
                return self._cut_at_tag(as_of[4:])
            if _HEX_ID.match(as_of):
                known = self._cuts.get(as_of)
                if known is not None:
                    return known
                identity = self.full_id(as_of, missing_ok=True)
                if identity is not None:
                    return self._cut_at_id(identity)
                if as_of.isdigit() and len(as_of) < _HEX_ID_LONG:
                    raise InvalidTimestampError(
                        repr(as_of),
                        "no version's id, and not a time; write a time as in "
                        "2026-02-01T12:00:00Z, and give a position as a number",
                    )
                if len(as_of) > 8:
                    raise UnknownVersionError(f"version {as_of}")
        if isinstance(as_of, (datetime, str)):
            try:
                return self._cut_at_time(as_of, ahead=ahead)
            except InvalidTimestampError as error:
                if isinstance(as_of, str) and self._tagged(as_of) is not None:
                    tag = f"'tag:{as_of}'"
                    raise InvalidTimestampError(
                        repr(as_of), f"not a time; for the tag of that name pass {tag}"
                    ) from error
                raise
        raise InvalidTimestampError(
            repr(as_of),
            "not a moment; pass a datetime, ISO 8601 text, a version, a commit, "
            "a position or 'tag:name'",
        )

    def checked_cut(self, cut: Cut) -> Cut:
        """A cut that came from outside, if this log has got that far.

        Raises:
            InvalidTimestampError: it has not.
        """
        end = self.engine.head().seq
        if not 0 <= cut.seq <= end or (cut.seq and self.position(cut.clock) < cut.seq):
            raise InvalidTimestampError(
                f"position {cut.seq}", f"is not of this database, whose log goes from 0 to {end}"
            )
        return cut

    def full_id(
        self, reference: str | Version, *, missing_ok: bool = False, until: int = FOREVER
    ) -> str | None:
        """The whole id of a version given by itself, its id, or at least 8 digits of it.

        Digits are looked for among the entries up to position `until`.

        Raises:
            UnknownVersionError: there is none, or more than one.
        """
        if isinstance(reference, Version):
            return reference.id
        if not isinstance(reference, str):
            raise InvalidDataError(
                f"a version is named by itself or its id, not by {type(reference).__name__}"
            )
        found = self.engine.ids_like(reference, until) if _HEX_ID.match(reference) else []
        if len(found) == 1:
            return found[0][1].hex()
        if missing_ok and not found:
            return None
        many = "more than one version starts with " if found else "version "
        raise UnknownVersionError(f"{many}{reference}")

    def _cut_at_id(self, version_id: str) -> Cut:
        seq = self.engine.seq_of(bytes.fromhex(version_id))
        if seq is None:
            raise UnknownVersionError(f"version {version_id}")
        cut = self._cut_around(seq)
        if len(self._cuts) >= _CUTS_KEPT:
            self._cuts.clear()
        self._cuts[version_id] = cut
        return cut

    def _cut_around(self, seq: int) -> Cut:
        """The end of the commit that holds entry `seq`."""
        entry = self.engine.at(seq)
        commit = None if entry is None else self.engine.commit_at(entry.tx_time)
        if commit is None:
            raise CorruptionError(f"entry {seq} belongs to no commit; run: kdelta verify")
        return Cut(commit.last_seq, commit.tx_time)

    def _cut_at_commit(self, commit: Commit) -> Cut:
        found = self.engine.commit_at(commit.tx_time)
        if found is None or found.root.hex() != commit.root:
            raise UnknownVersionError(f"commit {commit.root[:16]}")
        return Cut(found.last_seq, found.tx_time)

    def _cut_at_seq(self, seq: int) -> Cut:
        if seq == 0:
            return Cut(0, 0)
        end = self.engine.head().seq
        if not 0 < seq <= end:
            problem = f"the log goes from 0 to {end}"
            if seq >= _LIKE_A_TIME:
                problem += "; a whole number is a position in it, and a time is a datetime or text"
            raise InvalidTimestampError(f"position {seq}", problem)
        cut = self._cut_around(seq)
        if cut.seq != seq:
            raise InvalidTimestampError(
                f"position {seq}", f"lies inside a commit, which ends at {cut.seq}; use that"
            )
        return cut

    def _cut_at_time(self, when: When, *, ahead: bool) -> Cut:
        time = microseconds(when)
        head = self.engine.head()
        latest = max(self._now(), head.tx_time)
        if time > latest and not ahead:
            raise InvalidTimestampError(
                repr(when) if isinstance(when, str) else when.isoformat(),
                f"lies ahead of the database, which has got to {moment(latest).isoformat()}; "
                "to ask what is planned to be true then, use valid_at=",
            )
        if time >= head.tx_time:
            return Cut(head.seq, time)
        return Cut(self.position(time), time)

    def _cut_at_tag(self, name: str) -> Cut:
        body = self._tagged(name)
        if body is None:
            raise UnknownVersionError(f"tag {name!r}")
        pointed = decode(body)
        return Cut(int(pointed["seq"]), int(pointed["time"]))

    def _tagged(self, name: str) -> bytes | None:
        """What a tag says, if there is one of that name."""
        found = self.engine.visible(TAGS, name, FOREVER, self.now().clock)
        return None if found is None or found.operation == DELETE else found.body

    def position(self, time: int) -> int:
        """The last entry written at or before `time` (microseconds); 0 if none was."""
        commit = self.engine.commit_at(time)
        return 0 if commit is None else commit.last_seq

    def root_at(self, seq: int) -> bytes:
        """The chained root of the commit that ends at `seq`: what the log was up to there."""
        entry = self.engine.at(seq)
        commit = None if entry is None else self.engine.commit_at(entry.tx_time)
        return GENESIS if commit is None else commit.root

    def root_of(self, cut: Cut) -> bytes:
        """The chained root of the log at a cut, which may come from outside.

        Raises:
            InvalidTimestampError: this log has not got that far.
        """
        head = self.engine.head()
        if head.seq == cut.seq:
            return head.root
        return self.root_at(self.checked_cut(cut).seq)

    def _time_of(self, seq: int) -> int:
        """When the entry at `seq` was written; before all others for 0."""
        entry = self.engine.at(seq) if seq else None
        return -(2**63) if entry is None else entry.tx_time

    def tag_value(self, cut: Cut) -> bytes:
        """What a tag keeps of the moment it names."""
        commit = self.engine.commit_at(cut.clock)
        root = GENESIS if commit is None else commit.root
        return canonical_bytes({"seq": cut.seq, "time": cut.clock, "root": root.hex()})
