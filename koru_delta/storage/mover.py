"""Moving bodies and vectors between the log and tier files: what they are never changes.

A move writes a file, syncs and renames it, and then points the log at it, a few rows in each
transaction, so that writers wait for milliseconds and readers not at all: they look again where
a body is. Whatever kills it leaves every body where the log says it is. Files that the log does
not know are removed when the database is opened, those of which not all is used are written anew.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import apsw
import orjson
import zstandard

from koru_delta.errors import CorruptionError, InvalidDataError, StorageError
from koru_delta.storage import genome
from koru_delta.storage.engine import Moved, TierSize
from koru_delta.storage.laying import Lay, as_told, lay
from koru_delta.storage.pace import gently
from koru_delta.storage.place import sync_directory
from koru_delta.storage.rows import (
    lay_anew,
    store_anew,
    tell_anew,
    told_by,
    wear,
    whole,
)
from koru_delta.storage.schema import FRESH, GONE, MOVED, RAW, TAINTED, WHOLE, WORN
from koru_delta.storage.shelf import MissingError
from koru_delta.storage.steps import SqliteSteps
from koru_delta.storage.tierfile import (
    COLD,
    DEEP,
    FOLDER,
    MAX_ITEMS,
    NAMES,
    WARM,
    Item,
    Made,
    TierFile,
    parts_of,
    path_of,
    place_of,
    write,
)
from koru_delta.values import distinction_id

FILE_BYTES: Final = 16 << 20  # of bodies in one file, about: erasing waits while one is written
FILE_ITEMS: Final = min(MAX_ITEMS, 8_192)
_MOST_NEAR: Final = 48  # rows that come back in one transaction; some of them are large
FEW_USED: Final = 0.5  # of a file: it is written anew below that
_AT_ONCE: Final = 2_000  # places looked up together
_log = logging.getLogger("koru_delta")


class Part(NamedTuple):
    """A body or vector to be moved: whose it is, and where it is now.

    Of an entry's own body the owner is its place, of an object its negative number.
    """

    owner: int
    entry: int  # the place of one that holds it
    group: tuple[int, int]
    floats: bool
    at: int | None  # a place in a file; None is in the log
    size: int  # zero: not known before the file is read
    identity: bytes  # of an object


class SqliteMover(SqliteSteps):
    """Moves between tiers, and the care of their files."""

    _left: Mapping[int, int] = MappingProxyType({})  # by file what left it, by this handle

    # Asking

    def tier_of(self, seqs: Sequence[int]) -> list[int]:
        """The tier of each of these entries: where the nearest of its body and vectors lies."""
        return [tier for tier, _ in self.whereabouts(seqs)]

    def whereabouts(self, seqs: Sequence[int]) -> list[tuple[int, int]]:
        """Of each of these entries its tier, and how many bytes its body and vectors are.

        One that holds nothing is warm. Bytes that cannot be read count nothing.
        """
        tiers = {number: tier for number, tier, *_ in self._files()}
        found: dict[int, tuple[int, int]] = {}
        for seq, part in gently(self._parts(seqs)):
            tier, size = WARM, part.size
            if part.at is not None:
                tier = tiers.get(parts_of(part.at)[0], WARM)
                with suppress(CorruptionError):
                    size = self._shelf.size(part.at, self._file_facts)
            near, known = found.get(seq, (DEEP, 0))
            found[seq] = min(tier, near), known + size
        return [found.get(seq, (WARM, 0)) for seq in seqs]

    def unreadable(self, seqs: Sequence[int]) -> dict[int, str]:
        """Those of these entries whose body or vectors cannot be read, and what is wrong."""
        found: dict[int, str] = {}
        for seq, part in gently(self._parts(seqs)):
            try:
                if part.at is not None:
                    self._shelf.read(part.at, self._file_facts)
                elif part.owner < 0:
                    self._checked_object(part)
            except CorruptionError as error:
                found.setdefault(seq, str(error))
        return found

    def tier_sizes(self) -> dict[int, TierSize]:
        """What the files of the cold and the deep tier hold."""
        found = {COLD: TierSize(), DEEP: TierSize()}
        for _, tier, _, items, raw, size, _ in self._files():
            known = found[tier]
            found[tier] = TierSize(
                known.files + 1, known.items + items, known.size_bytes + size,
                known.raw_bytes + raw,
            )  # fmt: skip
        return found

    def _files(self) -> list[tuple[int, int, int, int, int, int, bytes]]:
        return self._rows("SELECT file, tier, state, items, raw, size, root FROM tiers")

    # Moving

    def move(self, seqs: Iterable[int], tier: int) -> Moved:
        """Move what these entries hold to a tier: WARM, COLD or DEEP; what is there stays.

        What several entries hold together moves with the first of them. Asked for again, it
        does what is left to do.

        Raises:
            ReadOnlyError: opened read-only.
            StorageError: the file system refused; what was moved until then is moved.
            CorruptionError: what is to be moved cannot be read; it stays where it is.
        """
        if tier not in NAMES:
            raise InvalidDataError(f"a tier is one of {NAMES}, not {tier!r}")
        wanted = sorted(set(seqs))
        done = Moved()
        with self._moving():
            for start in range(0, len(wanted), _AT_ONCE * 4):
                some = wanted[start : start + _AT_ONCE * 4]
                for parts in self._portions(some, tier):
                    done = both(done, self._moved(parts, tier))
        return done

    def _moved(self, parts: Sequence[Part], tier: int) -> Moved:
        """Move a file full of things; files that are left are cleaned up."""
        done = self._bring_near(parts) if tier == WARM else self._carry_away(parts, tier)
        tidied = self._tidy(self._much_left(parts))
        self._give_back_gently()
        return both(done, tidied)

    def _much_left(self, parts: Sequence[Part]) -> list[int]:
        """The files that these were in, if enough left them lately for a look at all in them."""
        left = Counter(parts_of(part.at)[0] for part in parts if part.at is not None)
        if not left:
            return []
        known = {number: (state, items) for number, _, state, items, *_ in self._files()}
        self._left = {number: self._left.get(number, 0) + left[number] for number in known}
        return [
            number
            for number, (state, items) in known.items()
            if number in left and (state == TAINTED or self._left[number] > FEW_USED * items)
        ]

    def _portions(self, seqs: Sequence[int], tier: int) -> Iterator[list[Part]]:
        """What is not in a tier yet, in file fulls; what differs from another before that."""
        tiers = {number: kind for number, kind, *_ in self._files()}
        parts = {
            part.owner: part
            for _, part in gently(self._parts(seqs))
            if (WARM if part.at is None else tiers.get(parts_of(part.at)[0], WARM)) != tier
        }
        ordered = sorted(parts.values(), key=lambda p: (p.floats, p.group, abs(p.owner)))
        portion: list[Part] = []
        size = 0
        for part in gently(ordered):
            more = part.size
            if part.at is not None:
                more = self._shelf.size(part.at, self._file_facts)
            if portion and (size + more > FILE_BYTES or len(portion) >= FILE_ITEMS):
                yield portion
                portion, size = [], 0
            portion.append(part)
            size += more
        if portion:
            yield portion

    def _parts(self, seqs: Sequence[int]) -> Iterator[tuple[int, Part]]:
        """What entries hold, with the place of the entry; things that are shared come often."""
        for start in range(0, len(seqs), _AT_ONCE):
            places = orjson.dumps(list(seqs[start : start + _AT_ONCE])).decode()
            for seq, key_id, size, item, identity, codec, base, packed, head in self._rows(
                """SELECT v.seq, v.key_id, length(v.body), v.object, o.object_id, o.codec, o.base,
                length(o.data), substr(o.data, 1, 18)
                FROM json_each(?) j CROSS JOIN versions v ON v.seq = j.value
                LEFT JOIN objects o ON o.object = v.object
                WHERE v.body IS NOT NULL OR v.object IS NOT NULL""",
                (places,),
            ):
                group = (key_id, 0)
                if item is None or item < 0:
                    yield seq, Part(seq, seq, group, False, item, size or 0, b"")
                elif codec == MOVED:
                    yield seq, Part(-item, seq, group, False, base, 0, identity)
                else:
                    long = packed if codec == RAW else zstandard.frame_content_size(head)
                    yield seq, Part(-item, seq, group, False, None, long, identity)
            for seq, item, identity, codec, base, dimensions in self._rows(
                f"""SELECT v.seq, o.object, o.object_id, o.codec, o.base, p.dimensions
                FROM json_each(?) j CROSS JOIN versions v ON v.seq = j.value
                CROSS JOIN keys k ON k.key_id = v.key_id CROSS JOIN spaces p ON p.ns = k.ns
                CROSS JOIN vectors x ON x.space = p.space AND x.seq = v.seq
                CROSS JOIN objects o ON o.object = x.object WHERE x.object <> {GONE}""",
                (places,),
            ):
                at, group = base if codec == MOVED else None, (dimensions, 0)
                yield seq, Part(-item, seq, group, True, at, 4 * dimensions, identity)

    def _carry_away(self, parts: Sequence[Part], tier: int) -> Moved:
        """Write a file of things, and point the log at it."""
        number, made = self._write_file(tier, self._items(parts))
        known = {part.owner: place_of(number, item) for item, part in enumerate(parts)}
        begin = partial(_register, number=number, tier=tier, made=made)
        longest = self._in_steps([number], lambda _: begin)
        left: list[Part] = []

        def prepare(some: Sequence[Part]) -> Callable[[apsw.Connection], object]:
            told = as_told(
                Lay(part.owner, part.at, part.identity, MOVED, known[part.owner], b"")
                for part in some
            )  # fmt: skip

            def point(con: apsw.Connection) -> None:
                kept = lay(con, told)
                left.extend(part for part in some if part.owner not in kept)

            return point

        # What is told by its difference to another goes first: nothing is told anew for it.
        deltas = self._deltas([-part.owner for part in parts if part.owner < 0])
        for first in (True, False):
            some = [part for part in parts if (-part.owner in deltas) is first]
            longest = max(longest, self._in_steps(some, prepare, alone=True))
        refused, slowest = self._point_one_by_one(left, number, known)
        longest = max(longest, slowest)
        if refused:  # erased or written again while it was carried: it is not to lie there
            longest = max(longest, self._tidy([number]).longest_seconds)
        else:
            whole = "UPDATE tiers SET state = ? WHERE file = ? AND state = ?"
            facts = (WHOLE, number, FRESH)
            end = self._in_steps([number], lambda _: lambda con: con.execute(whole, facts))
            longest = max(longest, end)
        return Moved(len(parts) - refused, made.size, longest)

    def _point_one_by_one(
        self, parts: Sequence[Part], number: int, known: Mapping[int, int]
    ) -> tuple[int, float]:
        """Point the log at what others are told by, and see what is not there any more.

        Returns:
            How many are not to lie in the file, and the longest wait in seconds.
        """
        refused = 0

        def point(some: Sequence[Part], con: apsw.Connection) -> None:
            nonlocal refused
            kept = self._still_there(con, some)
            lay_anew(
                con, [(part.owner, known[part.owner], None) for part in kept if part.owner > 0]
            )
            objects = [-part.owner for part in kept if part.owner < 0]
            store_anew(con, [(item, MOVED, known[-item], b"") for item in objects])
            for item in objects:  # only now: what goes too is not to be told by anything near
                tell_anew(con, self._shelf, told_by(con, item))
            wear(con, [parts_of(part.at)[0] for part in kept if part.at is not None], WORN)
            if len(kept) < len(some):
                refused += len(some) - len(kept)
                wear(con, [number], TAINTED)

        longest = self._in_steps(parts, lambda some: partial(point, some), most=1)
        return refused, longest

    def _bring_near(self, parts: Sequence[Part]) -> Moved:
        """Put things back into the log."""
        written = moved = 0

        def prepare(some: Sequence[Part]) -> Callable[[apsw.Connection], object]:
            near = {part.owner: self._near(part) for part in some}
            told = as_told(Lay(p.owner, p.at, p.identity, *near[p.owner]) for p in some)

            def put(con: apsw.Connection) -> None:
                nonlocal written, moved
                kept = lay(con, told)
                written += sum(len(near[owner][2]) for owner in kept)
                moved += len(kept)

            return put

        ordered = sorted(parts, key=lambda part: -(part.at or 0))
        longest = self._in_steps(ordered, prepare, alone=True, most=_MOST_NEAR)
        return Moved(moved, written, longest)

    def _near(self, part: Part) -> tuple[int, int | None, bytes]:
        """What lies far as it is kept in the log: codec, no base, data."""
        assert part.at is not None
        data = self._shelf.read(part.at, self._file_facts)
        return (RAW, None, data) if part.owner > 0 or part.floats else whole(data)

    def _still_there(self, con: apsw.Connection, parts: Sequence[Part]) -> list[Part]:
        """Those that are where they were when the move began."""
        places = orjson.dumps([part.owner for part in parts if part.owner > 0]).decode()
        now: dict[int, tuple[int | None, bytes]] = {}
        for seq, item in con.execute(
            """SELECT v.seq, v.object FROM json_each(?) j CROSS JOIN versions v ON v.seq = j.value
            WHERE v.erased IS NULL AND (v.body IS NOT NULL OR v.object < 0)""",
            (places,),
        ):
            now[seq] = (item, b"")
        objects = orjson.dumps([-part.owner for part in parts if part.owner < 0]).decode()
        for item, identity, codec, base in con.execute(
            """SELECT o.object, o.object_id, o.codec, o.base FROM json_each(?) j
            CROSS JOIN objects o ON o.object = j.value""",
            (objects,),
        ):
            now[-item] = (base if codec == MOVED else None, identity)
        return [part for part in parts if now.get(part.owner) == (part.at, part.identity)]

    def _deltas(self, objects: Sequence[int]) -> set[int]:
        """Those of these objects that are told by their difference to another."""
        rows = self._rows(
            """SELECT o.object FROM json_each(?) j CROSS JOIN objects o ON o.object = j.value
            WHERE o.base > 0""",
            (orjson.dumps(list(objects)).decode(),),
        )
        return {row[0] for row in rows}

    def _items(self, parts: Sequence[Part]) -> Iterator[Item]:
        """What is to be moved, with its bytes, checked."""
        for part in gently(parts):
            if part.at is not None:
                data = self._shelf.read(part.at, self._file_facts)
            elif part.owner > 0:
                found = self._rows("SELECT body FROM versions WHERE seq = ?", (part.owner,))[0][0]
                data = bytes(part.size) if found is None else found
            else:
                data = self._checked_object(part)
            yield Item(part.owner, part.entry, part.group, part.floats, data)

    def _checked_object(self, part: Part) -> bytes:
        """The bytes of an object; if it was erased meanwhile, some that nothing will point at."""
        try:
            data = self._object(-part.owner)
        except MissingError:
            if self._rows("SELECT 1 FROM objects WHERE object = ?", (-part.owner,)):
                raise
            return bytes(part.size)
        if part.identity not in (distinction_id("json", data), distinction_id("vec", data)):
            raise CorruptionError(
                f"object {-part.owner} of {self.directory} does not match its hash; "
                "restore a backup"
            )
        return data

    # Files

    def _write_file(self, tier: int, items: Iterable[Item]) -> tuple[int, Made]:
        """Write a file that the log does not know yet."""
        number = 1 + max(self._highest(), *self._numbers_on_disk(), 0)
        path = path_of(self.directory, tier, number)
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_directory(self.directory)
                sync_directory(path.parent.parent)
            made = write(path, tier, number, items)
            if tier == DEEP:
                genome.write(self._rows, TierFile(path, tier, number, made.root), made)
        except OSError as error:
            told = f"cannot write {path} ({error}); everything is where it was"
            raise StorageError.because(error, told) from error
        return number, made

    def _highest(self) -> int:
        rows = self._rows("SELECT value FROM meta WHERE name = 'tier_file'")
        return int(rows[0][0]) if rows else 0

    def _numbers_on_disk(self) -> list[int]:
        return [number for number, _ in self._on_disk()]

    def _on_disk(self) -> list[tuple[int, Path]]:
        """Every file of ours beside the log, by its number; half-written ones count as 0."""
        found: list[tuple[int, Path]] = []
        for folder, name in ((FOLDER, "cold"), (f"{FOLDER}/deep", "deep")):
            for path in (self.directory / folder).glob(f"{name}-*"):
                number = path.stem.removeprefix(f"{name}-")
                if path.suffix in (".kdt", ".json") and number.isdecimal():
                    found.append((int(number), path))
            found += [(0, path) for path in (self.directory / folder).glob(f".{name}-*.tmp")]
        return found

    def _tidy(self, numbers: Iterable[int], *, all_of_it: bool = False) -> Moved:
        """Write anew those of these files that are tainted, or of which little is used."""
        done = Moved()
        states = {number: (tier, state) for number, tier, state, *_ in self._files()}
        for number in sorted(set(numbers) & states.keys()):
            tier, state = states[number]
            if state == WHOLE:
                continue
            try:
                used, count = self._used(number)
                self._left = {**self._left, number: count - len(used)}
                worn = all_of_it or len(used) < FEW_USED * count
                if state != TAINTED and not (worn and len(used) < count):
                    continue
                if used:
                    done = both(done, self._carry_away(used, tier)._replace(items=0))
            except CorruptionError as error:
                _log.warning("a tier file cannot be cleaned up: %s", error)
                continue
            self._drop(number, tier)
        return done

    def _used(self, number: int) -> tuple[list[Part], int]:
        """What of a file the log points at, and how many items there are in it.

        Raises:
            CorruptionError: it cannot be read.
        """
        file = self._shelf.file(number, self._file_facts)
        owners, entries, sizes = (
            each.tolist() for each in (file.owners, file.entries, file.sizes)
        )  # fmt: skip
        keys: dict[int, int] = {}
        now: dict[int, tuple[int, bytes]] = {}
        for start in range(0, len(owners), _AT_ONCE):
            some = owners[start : start + _AT_ONCE]
            mine = orjson.dumps([owner for owner in some if owner > 0]).decode()
            for seq, key_id, item in self._rows(
                """SELECT v.seq, v.key_id, v.object FROM json_each(?) j
                CROSS JOIN versions v ON v.seq = j.value WHERE v.object < 0""",
                (mine,),
            ):
                now[seq], keys[seq] = (item, b""), key_id
            shared = orjson.dumps([-owner for owner in some if owner < 0]).decode()
            for item, identity, base in self._rows(
                f"""SELECT o.object, o.object_id, o.base FROM json_each(?) j
                CROSS JOIN objects o ON o.object = j.value WHERE o.codec = {MOVED}""",
                (shared,),
            ):
                now[-item] = (base, identity)
        parts = []
        blocks, are_floats = file.blocks_of_all()
        for item, owner in gently(enumerate(owners)):
            at, identity = now.get(owner, (0, b""))
            if at == place_of(number, item):
                group, floats = (keys.get(owner, 0), blocks[item]), are_floats[item]
                parts.append(Part(owner, entries[item], group, floats, at, sizes[item], identity))
        return parts, len(owners)

    def _drop(self, number: int, tier: int) -> None:
        """Forget a file that nothing points at, and remove it."""
        self._in_steps(
            [number],
            lambda _: lambda con: con.execute("DELETE FROM tiers WHERE file = ?", (number,)),
            lasting=True,
        )
        self._shelf.forget([number])
        path = path_of(self.directory, tier, number)
        for each in (path, path.with_suffix(".json")):
            each.unlink(missing_ok=True)
        sync_directory(path.parent)


def _register(con: apsw.Connection, *, number: int, tier: int, made: Made) -> None:
    con.execute(
        "INSERT INTO tiers VALUES(?,?,?,?,?,?,?)",
        (number, tier, FRESH, made.items, made.raw, made.size, made.root),
    )
    con.execute("INSERT OR REPLACE INTO meta VALUES('tier_file', ?)", (str(number),))


def both(one: Moved, other: Moved) -> Moved:
    """What two moves did together."""
    return Moved(
        one.items + other.items, one.bytes_written + other.bytes_written,
        max(one.longest_seconds, other.longest_seconds),
    )  # fmt: skip
