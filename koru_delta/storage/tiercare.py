"""The care of tier files: after a killed mover and an erasure, checks, copies, genomes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from koru_delta.errors import CorruptionError, StorageError
from koru_delta.storage import genome
from koru_delta.storage.engine import Moved
from koru_delta.storage.mover import FEW_USED, FILE_BYTES, FILE_ITEMS, Part, SqliteMover, both
from koru_delta.storage.pace import gently
from koru_delta.storage.place import sync_directory
from koru_delta.storage.schema import FRESH, TAINTED, WHOLE, WORN
from koru_delta.storage.tierfile import COLD, DEEP, FOLDER, REMEDY, Made, path_of

_SMALL: Final = 0.25  # of a full file: one that is smaller is put together with others
_JUDGED: Final = 8  # files of which little is known to have left, looked at in one round
_MANY_SMALL: Final = 8  # of a tier, from which on that is done
_log = logging.getLogger("koru_delta")


class SqliteTierCare(SqliteMover):
    """What keeps the files of tiers whole, and free of what is not to be there."""

    _judged = 0  # the last file that was looked at in its turn

    def _has_tiers(self) -> bool:
        """Whether anything was ever moved, as far as there is anything left of it."""
        return (self.directory / FOLDER / "lock").exists() or bool(self._files())

    def _resume(self) -> None:
        """Clean up, when a database is opened, what a killed mover left."""
        if not self._has_tiers():
            return
        try:
            with self._moving(wait=False):
                self._sweep_orphans()
        except BlockingIOError:
            pass  # somebody moves, so nobody was killed
        except OSError as error:
            raise StorageError(f"cannot clean up {self.directory / FOLDER}: {error}") from error

    def clean_tiers(self) -> bool:
        """Remove what a killed mover left, and what was erased; whether nothing is left.

        It waits for other movers.
        """
        if not self._has_tiers():
            return True
        with self._moving():
            self._sweep_orphans()
            self._tidy([number for number, _, state, *_ in self._files() if state == TAINTED])
            self._shelf.forget()
            return not self._tainted()

    def tidy_tiers(self) -> Moved:
        """Remove what killed movers left; write anew files that are worn or small, and genomes."""
        done = Moved()
        if self._has_tiers():
            with self._moving():
                self._sweep_orphans()
                done = self._tidy(self._to_judge())
                for tier in (COLD, DEEP):
                    done = both(done, self._gather(tier))
                for number, tier, _, items, raw, size, root in self._files():
                    if tier == DEEP and genome.read(self._genome_of(number)) is None:
                        file = self._shelf.file(number, self._file_facts)
                        genome.write(self._rows, file, Made(size, raw, root, items))
        return done

    def _to_judge(self) -> list[int]:
        """Tainted files, those that much has left, and some others, in turn.

        What other processes brought back this one has not counted.
        """
        worn = {number: items for number, _, state, items, *_ in self._files() if state != WHOLE}
        tainted = {number for number, _, state, *_ in self._files() if state == TAINTED}
        few = sorted(
            number for number, items in worn.items()
            if number not in tainted and self._left.get(number, items) <= FEW_USED * items
        )  # fmt: skip
        later = [number for number in few if number > self._judged] or few
        self._judged = later[:_JUDGED][-1] if later else 0
        return [number for number in worn if number not in few or number in later[:_JUDGED]]

    def _gather(self, tier: int) -> Moved:
        """Put small files of a tier together: every move makes one, and there are never many."""
        done = Moved()
        small = [
            number
            for number, kind, state, items, raw, *_ in self._files()
            if kind == tier and state in {WHOLE, WORN}
            and items < _SMALL * FILE_ITEMS and raw < _SMALL * FILE_BYTES
        ]  # fmt: skip
        if len(small) < _MANY_SMALL:
            return done
        some: list[Part] = []
        left: list[int] = []
        size = 0
        for number in small:
            try:
                used, _ = self._used(number)
                file = self._shelf.file(number, self._file_facts)
                for block in {part.group[1] for part in used}:
                    file.block(block)  # one that is damaged stays as it is, and keeps none back
            except CorruptionError as error:
                _log.warning("a tier file cannot be cleaned up: %s", error)
                continue
            size += sum(part.size for part in used)
            if len(some) + len(used) > FILE_ITEMS or size > FILE_BYTES:
                done = both(done, self._put_together(some, left, tier))
                some, left, size = [], [], 0
            left.append(number)
            some += [
                part if part.group[0] else part._replace(group=(-number, part.group[1]))
                for part in gently(used)
            ]
        return both(done, self._put_together(some, left, tier)) if len(left) > 1 else done

    def _put_together(self, parts: list[Part], left: list[int], tier: int) -> Moved:
        """Write all that is used of some files into one, and remove them."""
        parts.sort(
            key=lambda part: (part.floats, part.size * part.floats, part.group, abs(part.owner))
        )
        done = self._carry_away(parts, tier)._replace(items=0) if parts else Moved()
        for number in left:
            self._drop(number, tier)
        return done

    def _genome_of(self, number: int) -> Path:
        return path_of(self.directory, DEEP, number).with_suffix(".json")

    def _sweep_orphans(self) -> None:
        known = {number for number, *_ in self._files()}
        for number, path in self._on_disk():
            if number not in known:
                path.unlink()
        if any(state == FRESH for _, _, state, *_ in self._files()):
            # A killed mover was filling it: what was erased meanwhile may lie in it.
            self._in_steps(
                [TAINTED],
                lambda _: (
                    lambda con: con.execute(
                        "UPDATE tiers SET state = ? WHERE state = ?", (TAINTED, FRESH)
                    )
                ),
            )

    def compact_tiers(self) -> int:
        """Write every file anew of which not all is used; the bytes they are shorter by."""
        if not self._has_tiers():
            return 0
        with self._moving():
            self._sweep_orphans()
            before = sum(size for *_, size, _ in self._files())
            self._tidy([number for number, *_ in self._files()], all_of_it=True)
            return before - sum(size for *_, size, _ in self._files())

    @contextmanager
    def _standing(self) -> Iterator[None]:
        """Keep tier files from being moved or removed, as far as this handle may."""
        if not self._has_tiers() or self.read_only:
            yield  # who copies a database that it may not write to sees at the end what is missing
            return
        with self._moving():
            yield

    def _copy_tiers(self, target: Path) -> None:
        """Copy the files that the log in `target` points at.

        Raises:
            CorruptionError: one of them is missing.
            StorageError: the copy cannot be written.
        """
        con = apsw.Connection(str(target / "log.db"), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            files: list[Any] = con.execute("SELECT tier, file FROM tiers").fetchall()
        finally:
            con.close()
        for tier, number in files:
            source, copy = (path_of(each, tier, number) for each in (self.directory, target))
            try:
                copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
                if tier == DEEP and source.with_suffix(".json").exists():
                    shutil.copyfile(source.with_suffix(".json"), copy.with_suffix(".json"))
            except FileNotFoundError as error:
                raise CorruptionError(
                    f"{source} is missing, so there is no whole copy; back up again if somebody "
                    f"moves things just now, or {REMEDY}"
                ) from error
            except OSError as error:
                raise StorageError(f"cannot copy {source} to {copy}: {error}") from error
            for each in (copy, copy.parent, copy.parent.parent):
                sync_directory(each)

    def tier_files(self) -> list[tuple[int, int]]:
        """Numbers of the tier files, in order, and how many bytes the bodies in each are."""
        return sorted((number, raw) for number, _, _, _, raw, *_ in self._files())

    def tier_problems(self, numbers: Collection[int] | None = None) -> Iterator[str]:
        """What is wrong with tier files, or some: every byte of them is held to its hash."""
        for number, tier, _, items, raw, size, root in self._files():
            if numbers is not None and number not in numbers:
                continue
            path = path_of(self.directory, tier, number)
            try:
                self._shelf.forget([number])
                file = self._shelf.file(number, self._file_facts)
                for block in range(len(file)):
                    file.block(block)
                if path.stat().st_size != file.size or file.size != size:
                    yield f"{path} is not as long as it was"
                if tier == DEEP:
                    made = Made(size, raw, root, items)
                    yield from genome.problems(self._rows, file, made)
            except FileNotFoundError:
                yield f"{path} is missing"
            except CorruptionError as error:
                if self._file_facts(number) is not None:  # else written anew meanwhile
                    yield str(error)
