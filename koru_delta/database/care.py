"""Care: how large it is, whether it is whole, proofs, copies, and searches made ready."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import IO, Any

from koru_delta.causal import ConsistencyProof, Cut, InclusionProof, TreeHead, Version, moment
from koru_delta.database.arguments import check_namespace
from koru_delta.database.opened import Opened
from koru_delta.errors import InvalidDataError, KoruDeltaError, QueryError, StorageError
from koru_delta.log import VerifyReport
from koru_delta.log.audit import Audit, prove, prove_consistency, tree_head
from koru_delta.log.moments import AsOf
from koru_delta.progress import shown
from koru_delta.search.nearest import VectorSpace
from koru_delta.search.pages import trim


class CareVerbs(Opened):
    """What looks after a database."""

    def stats(self, *, spaces: bool = False) -> dict[str, Any]:
        """Counts and sizes (bytes) of the log and of what is held in memory.

        Args:
            spaces: Read all vectors' rows and index files first; else `vector_spaces` tells
                only of those that something has searched.
        """
        head = self._log.head()
        if spaces:
            for space in self._read_spaces(None, self._log.now()):
                self._vectors.upkeep.load(space)
        return {
            "path": None if self.directory is None else str(self.directory),
            "durability": self._log.engine.durability,
            "seq": head.seq,
            "root": head.root.hex(),
            "last_commit": None if not head.commits else moment(head.tx_time).isoformat(),
            "transactions": self._log.engine.transactions,
            "hot_bytes": self._log.kept_bytes,
            **self._log.engine.statistics(),
            **self._vectors.statistics(),
            **self._texts.statistics(),
        }

    def build_index(
        self,
        namespace: str | None = None,
        *,
        progress: Callable[[int, int], None] | bool | None = None,
    ) -> None:
        """Make now, and keep in files, what search otherwise makes in the background.

        Searches are right without it; after it they are as fast as they get, and in a
        process that opens the database later, once it has read the files (about a second for
        each 100,000 vectors).

        Args:
            namespace: Only the vectors and words of this one; None is all vectors, and
                the words of every namespace that has some.
            progress: Called with `(done, total)` vectors alive; True shows a bar on standard
                error, False nothing, None a bar for more than 1,000 vectors on a terminal.

        Raises:
            StorageFullError, StorageError: it was made, and is used by this process, but could
                not be written to files.
        """
        cut = self._log.now()
        names = [namespace] if namespace is not None else self.list_namespaces(as_of=cut)
        spaces = {}
        for name in names:
            check_namespace(name)
            spaces[name] = [self._vectors.open(known) for known in self._vectors.known(name, cut)]
        sizes = {space: space.at(cut.seq).seen.live for some in spaces.values() for space in some}
        done, total = 0, sum(sizes.values())
        failed: tuple[str, OSError] | None = None
        with shown(progress, "indexing", total) as tell:
            for name, some in spaces.items():
                for space in some:
                    part = partial(_tell, tell, done, total)
                    error = self._vectors.upkeep.work(space, complete=True, tell=part)
                    if error is not None:
                        failed = name, error
                    done += sizes[space]
                    tell(done, total)
                if namespace is not None or some:
                    error = self._texts.index(name, cut).build(cut)
                    if error is not None:
                        failed = name, error
        trim()
        if failed is not None:
            name, error = failed
            raise StorageError.because(
                error,
                f"the index of {name!r} is made and in use here, but cannot be kept in files "
                f"({error}): mend that and call build_index again; closing the database tries it, "
                "too, and until then other processes make their own",
            ) from error

    def tune(
        self,
        namespace: str | None = None,
        *,
        progress: Callable[[int, int], None] | bool | None = None,
    ) -> dict[str, Any]:
        """Measure what ways of searching cost on this machine, and choose by that from now on.

        It takes 5 to 20 seconds and is kept with the database (not through a read-only
        handle). Only what a search costs changes by it, never an answer's promise.

        Args:
            namespace: Measure on vectors of this one; None is all. Where there are too few,
                made-up ones take their place.
            progress: Called with `(done, total)` steps; True shows a bar on standard error.

        Raises:
            QueryError: there are no vectors in that namespace.
            StorageFullError, StorageError: they hold for this handle, but could not be kept.

        Returns:
            `costs` and `defaults` (nanoseconds, by name), which of them were `measured`, on
            whose vectors (`namespace` and `model`, None: made up; `dimensions`, `rows`), in
            how many `seconds`, and as `plans` what both would do in some situations.
        """
        from koru_delta.search.tune import tune

        spaces = self._read_spaces(namespace, self._log.now())
        if namespace is not None and not spaces:
            raise QueryError(
                f"namespace {namespace!r} holds no vectors to measure; leave it out to measure "
                "on those of the whole database"
            )
        with shown(progress, "measuring") as tell:
            tuned = tune(spaces, tell)
        try:
            self._vectors.upkeep.set_costs(tuned.costs)
        finally:
            for space in self._vectors.opened():
                space.choose_again()
        return tuned.to_json()

    def verify(self, *, progress: Callable[[int, int], None] | bool | None = None) -> VerifyReport:
        """Check every byte that matters against its hash; the report lists what fails.

        Args:
            progress: Called with `(done, total)` entries of the log; otherwise as for
                `build_index`.
        """
        with shown(progress, "verifying") as tell:
            return Audit(self._log, tell).run()

    def tree_head(self) -> TreeHead:
        """The Merkle root over all commits so far: keep it, to hold the log to it later."""
        return tree_head(self._log)

    def prove(self, version: Version | str, head: TreeHead | None = None) -> InclusionProof:
        """Evidence that a version is in the log; `koru_delta.verify_inclusion` checks it."""
        return prove(self._log, self._log.version(version), head)

    def prove_consistency(self, old_size: int, new_size: int | None = None) -> ConsistencyProof:
        """Evidence that the first `old_size` commits are unchanged in the log of today."""
        return prove_consistency(self._log, old_size, new_size)

    def backup(self, target: str | os.PathLike[str]) -> None:
        """Copy the database, as of one moment, to a new directory; others may go on writing."""
        self._log.engine.backup(Path(target).absolute())

    def export_log(self, target: str | os.PathLike[str] | IO[bytes], *, as_of: AsOf = None) -> int:
        """Write the log as JSON lines to a file; returns the number of lines."""
        from koru_delta.log.transfer import export_lines

        lines = export_lines(self._log, self._log.cut(as_of))
        if not isinstance(target, (str, os.PathLike)):
            return _write_lines(target, lines)
        file = Path(target).absolute()
        own = self._log.engine.directory.resolve()
        if own in (file.resolve(), *file.resolve().parents):
            raise InvalidDataError(f"{file} lies inside the database; export to another place")
        try:
            return _write_whole(file, lines)
        except KoruDeltaError:
            raise
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error}") from error

    def import_log(
        self,
        source: str | os.PathLike[str] | IO[bytes],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Take up an exported log that begins as this one does; returns the new commits.

        All of it or nothing; every hash is computed anew and must match.

        Raises:
            ConflictError: this database has entries the other does not begin with.
            InvalidDataError, CorruptionError: the file is not as it was written.
        """
        from koru_delta.log.transfer import import_lines  # loads pydantic

        if not isinstance(source, (str, os.PathLike)):
            return self._imported(import_lines(self._log, source, progress))
        try:
            with Path(source).open("rb") as file:
                return self._imported(import_lines(self._log, file, progress))
        except KoruDeltaError:
            raise
        except OSError as error:
            raise StorageError(f"cannot read {os.fspath(source)}: {error}") from error

    def _imported(self, commits: int) -> int:
        """After an import: what it erased is removed from other files, too."""
        if not self._log.engine.is_scrubbed():
            self._parts.scrub()
        return commits

    def _read_spaces(self, namespace: str | None, cut: Cut) -> list[VectorSpace]:
        """The spaces of a namespace, or of all that are there now, read up to a cut."""
        names = [namespace] if namespace is not None else self.list_namespaces(as_of=cut)
        found = []
        for name in names:
            check_namespace(name)
            for known in self._vectors.known(name, cut):
                found.append(self._vectors.open(known))
                found[-1].at(cut.seq)
        return found


def _write_whole(path: Path, lines: Iterable[bytes]) -> int:
    """Write a file beside `path` and put it in its place: the old one or the whole new one."""
    if not path.parent.is_dir() or path.is_dir() or (path.exists() and not path.is_file()):
        with path.open("wb") as file:  # a device or pipe is written as it is; others raise
            return _write_lines(file, lines)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            written = _write_lines(file, lines)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return written


def _tell(progress: Callable[[int, int], None], before: int, total: int, count: int) -> None:
    progress(min(before + count, total), total)


def _write_lines(file: IO[bytes], lines: Iterable[bytes]) -> int:
    written = 0
    for line in lines:
        file.write(line + b"\n")
        written += 1
    return written
