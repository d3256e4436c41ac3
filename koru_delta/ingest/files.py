"""Text files of a directory tree, in a fixed order, and what counts as text.

Nothing outside the tree is read: symbolic links are reported, never followed.
What cannot be ingested is yielded as `Skipped` with its reason, so that nothing
goes missing silently. Knows nothing of the database.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from koru_delta.errors import IngestError, InvalidDataError, MissingExtraError
from koru_delta.ingest.documents import Document, is_installed, kind_of, read_document
from koru_delta.ingest.reasons import SkipReason

DEFAULT_MAX_BYTES = 2 * 1024 * 1024
_PDF_FACTOR = 16  # most of a PDF is not text
_BEGINNING = 4096  # bytes that tell what a file is
_DATABASE = frozenset({"log.db", "generation"})  # what a directory of KoruDelta's holds


@dataclass(frozen=True, slots=True)
class Skipped:
    r"""A path that is not ingested; bytes of it that are not UTF-8 are shown as `\xNN`."""

    path: str
    reason: SkipReason


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A text file: its posix path below the root it was found in, and what it says.

    `text` is exactly the bytes decoded: line ends and a byte order mark are kept. Of a PDF
    or HTML file it is what `document` tells, None for plain text.
    `modified_at` is in microseconds since 1970, UTC.
    """

    path: str
    text: str
    modified_at: int
    document: Document | None = None


class PathFilter:
    """Glob patterns over posix paths; without patterns every path matches.

    `*` and `?` stay within a directory, `**` crosses them, `[a-z]` and `[!a-z]`
    are sets. A pattern without `/` is looked for in every directory; one that
    ends in `/` means all that is below. Case counts.

    Raises:
        InvalidDataError: a pattern is empty or not well formed.

    >>> docs = PathFilter(["*.md", "src/**/*.py"])
    >>> [p for p in ["a/b.md", "src/x.py", "src/y/z.py", "x.py"] if docs.matches(p)]
    ['a/b.md', 'src/x.py', 'src/y/z.py']
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        if isinstance(patterns, str):
            raise InvalidDataError(f"include={patterns!r} is one string; pass a list of patterns")
        self._patterns = [_compile(pattern) for pattern in patterns]

    def matches(self, path: str) -> bool:
        """Whether any pattern matches the whole of `path`."""
        return not self._patterns or any(p.fullmatch(path) for p in self._patterns)


def decode_text(data: bytes) -> str | SkipReason:
    """Decode UTF-8, or say why `data` is not text."""
    if b"\0" in data:
        return SkipReason.BINARY
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return SkipReason.NOT_UTF8


def read_files(
    paths: Sequence[Path], *, include: Sequence[str] = (), max_bytes: int = DEFAULT_MAX_BYTES
) -> Iterator[SourceFile | Skipped]:
    """Read the text files at and below `paths`, each directory's entries in name order.

    A path that is itself a link is taken for what it points to, because the caller
    named it; links below it are skipped. `.git` and KoruDelta's databases are left out without
    a word.

    Args:
        include: See `PathFilter`; matched against the path below the root. What it
            leaves out is not reported.
        max_bytes: Larger files are skipped; a PDF may be 16 times as large, its text not.

    Returns:
        An iterator that holds one file at a time. Files carry the path relative to
        the directory that was named, a file named directly just its name.

    Raises:
        IngestError: a path does not exist (before anything is read), or two of the
            roots hold the same relative path.
        InvalidDataError: a pattern is not well formed.
        MissingExtraError: a PDF or HTML file was named itself, and what reads it is not
            installed (below a directory it is skipped).
    """
    wanted = PathFilter(include)
    roots: dict[Path, None] = {}
    for path in paths:
        try:
            roots[path.resolve(strict=True)] = None
        except (OSError, ValueError, RuntimeError) as error:
            raise IngestError(f"{path} cannot be read ({error}); check the path") from error
    for root in roots:
        kind = kind_of(root.name, b"")
        if kind is not None and root.is_file() and not is_installed(kind):
            raise MissingExtraError(f"reading {root.name}", "documents")
    return _read_roots(list(roots), wanted, max_bytes)


def _read_roots(
    roots: list[Path], wanted: PathFilter, max_bytes: int
) -> Iterator[SourceFile | Skipped]:
    found_in: dict[str, Path] = {}
    for root in roots:
        for item in _read_root(root, wanted, max_bytes):
            if len(roots) > 1 and isinstance(item, SourceFile):
                other = found_in.setdefault(item.path, root)
                if other != root:
                    raise IngestError(
                        f"{item.path!r} is found from both {other} and {root}; ingest the "
                        "directory above them, or each into a namespace of its own"
                    )
            yield item


def _read_root(root: Path, wanted: PathFilter, max_bytes: int) -> Iterator[SourceFile | Skipped]:
    if not root.is_dir():
        if (name := _posix(root.name)) is None:
            yield Skipped(_shown(root.name), SkipReason.PATH_NOT_UTF8)
        elif wanted.matches(name):
            yield _read_one(root, name, max_bytes)
        return
    waiting: list[tuple[Path, str]] = [(root, "")]
    while waiting:
        place, prefix = waiting.pop()
        if place != root and not _is_plain_directory(place):
            path = prefix.rstrip("/")
            if _posix(path) is None:
                yield Skipped(_shown(path), SkipReason.PATH_NOT_UTF8)
            elif wanted.matches(path):
                yield _read_one(place, path, max_bytes)
            continue
        try:
            names = sorted((entry.name for entry in place.iterdir()), reverse=True)
        except OSError:
            yield Skipped(_shown(prefix or "."), SkipReason.UNREADABLE)
            continue
        if _DATABASE.issubset(names):
            continue  # to open and close SQLite's file here would drop its locks
        waiting.extend((place / name, f"{prefix}{name}/") for name in names if name != ".git")


def _read_one(place: Path, path: str, max_bytes: int) -> SourceFile | Skipped:
    try:
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            return Skipped(path, SkipReason.SYMLINK)
        if not stat.S_ISREG(mode):
            return Skipped(path, SkipReason.NOT_A_FILE)
        # The file may have been swapped since: do not follow a link, do not wait on a pipe.
        flags = os.O_RDONLY
        for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
            flags |= getattr(os, name, 0)
        with os.fdopen(os.open(place, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return Skipped(path, SkipReason.NOT_A_FILE)
            data = file.read(_BEGINNING)
            kind = kind_of(path, data)
            limit = max_bytes * (_PDF_FACTOR if kind == "pdf" else 1)
            if status.st_size > limit:
                return Skipped(path, SkipReason.TOO_LARGE)
            data += file.read(limit + 1)
    except OSError:
        return Skipped(path, SkipReason.UNREADABLE)
    if len(data) > limit:
        return Skipped(path, SkipReason.TOO_LARGE)
    read = decode_text(data) if kind is None else read_document(kind, data)
    if isinstance(read, SkipReason):
        return Skipped(path, read)
    document = None if isinstance(read, str) else read
    text = read if isinstance(read, str) else read.text
    if document is not None and len(text) > max_bytes:
        return Skipped(path, SkipReason.TOO_LARGE)
    return SourceFile(path, text, status.st_mtime_ns // 1000, document)


def _is_plain_directory(place: Path) -> bool:
    try:
        return stat.S_ISDIR(place.lstat().st_mode)
    except OSError:
        return False


def _posix(path: str) -> str | None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:  # the file system held bytes that are not UTF-8
        return None
    return path


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _compile(pattern: str) -> re.Pattern[str]:
    anchored = "/" in pattern
    glob = pattern.removeprefix("./").removeprefix("/")
    if glob.endswith("/"):
        glob += "**"
    if not glob:
        raise InvalidDataError(
            f"the pattern {pattern!r} matches nothing; leave include out to take every file"
        )
    try:
        return re.compile(("" if anchored else "(?:[^/]+/)*+") + _regex(glob), re.DOTALL)
    except re.error as error:
        raise InvalidDataError(f"the pattern {pattern!r} is not well formed: {error}") from error


def _regex(glob: str) -> str:
    parts: list[str] = []
    at = 0
    while at < len(glob):
        character = glob[at]
        starts_segment = at == 0 or glob[at - 1] == "/"
        if starts_segment and glob.startswith("**/", at):
            parts.append("(?:[^/]+/)*")
            at += 3
        elif character == "*":
            run = len(glob) - at - len(glob[at:].lstrip("*"))
            whole = starts_segment and run == 2 and at + run == len(glob)
            parts.append(".+" if whole else "[^/]*")
            at += run
        elif character == "?":
            parts.append("[^/]")
            at += 1
        elif character == "[" and (close := glob.find("]", at + 2)) != -1:
            inside = glob[at + 1 : close]
            negated = inside[0] in "!^"
            members = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside[1:] if negated else inside)
            parts.append(f"(?![/])[{'^' if negated else ''}{members}]")
            at = close + 1
        else:
            parts.append(re.escape(character))
            at += 1
    return "".join(parts)
