"""The care of tier files: after a killed mover and an erasure, checks, copies, genomes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from koru_delta.errors import CorruptionError, StorageError
from koru_delta.storage import genome
from koru_delta.storage.engine import Moved
from koru_delta.storage.mover import SqliteMover
from koru_delta.storage.place import sync_directory
from koru_delta.storage.schema import TAINTED
from koru_delta.storage.tierfile import DEEP, FOLDER, REMEDY, Made, path_of


class SqliteTierCare(SqliteMover):
    """What keeps the files of tiers whole, and free of what is not to be there."""

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
        """Remove what killed movers left, write anew files of which little is used, and genomes."""
        done = Moved()
        if self._has_tiers():
            with self._moving():
                self._sweep_orphans()
                done = self._tidy([number for number, *_ in self._files()])
                for number, tier, _, items, raw, size, root in self._files():
                    if tier == DEEP and genome.read(self._genome_of(number)) is None:
                        file = self._shelf.file(number, self._file_facts)
                        genome.write(self._rows, file, Made(size, raw, root, items))
        return done

    def _genome_of(self, number: int) -> Path:
        return path_of(self.directory, DEEP, number).with_suffix(".json")

    def _sweep_orphans(self) -> None:
        known = {number for number, *_ in self._files()}
        for number, path in self._on_disk():
            if number not in known:
                path.unlink()

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

    def tier_problems(self) -> Iterator[str]:
        """What is wrong with tier files: every byte of them is held to its hash."""
        for number, tier, _, items, raw, size, root in self._files():
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
