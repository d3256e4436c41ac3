"""The first-parent history of a git repository, read safely and as a stream.

The repository may be anyone's. Only plumbing commands run (`rev-parse`,
`rev-list`, `diff-tree`, `cat-file`), with whatever its configuration could start
switched off: hooks, fsmonitor, text conversion, external diffs, signature
checks, fetching of missing objects. Revisions are resolved once and after that
named by their full hash; nothing is ever checked out. Knows nothing of the
database.

Order: git history is a chain, but the clocks of its authors are not. Commits
come in (committer time, position in the chain) order, see `ordered`.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Protocol, Self, TypeVar

from koru_delta.errors import IngestError
from koru_delta.ingest.files import (
    DEFAULT_MAX_BYTES,
    PathFilter,
    Skipped,
    decode_text,
)
from koru_delta.ingest.reasons import SkipReason

Status = Literal["added", "modified", "deleted", "renamed"]

_OPTIONS = (
    "--no-pager",
    "--no-optional-locks",
    "--no-replace-objects",  # a hash names what it hashes, nothing else
    "--literal-pathspecs",
    "-c", "core.fsmonitor=false",
    "-c", f"core.hooksPath={os.devnull}",
    "-c", "core.commitGraph=false",  # a file beside the objects, under no hash
    "-c", "log.showSignature=false",
    "-c", "maintenance.auto=false",
    "-c", "gc.auto=0",
)  # fmt: skip

# The caller's settings for git itself (safe.directory among them) hold; what
# would point git at another repository than the one asked for does not.
_KEPT_VARIABLES = re.compile(
    r"GIT_(?:CONFIG_.*|CONFIG|EXEC_PATH|CEILING_DIRECTORIES|DISCOVERY_ACROSS_FILESYSTEM)"
)
_SET_VARIABLES = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # the same for a git that does not know the line above
    "GIT_GRAFT_FILE": os.devnull,
    "LC_ALL": "C",
}

_FORMAT = "tformat:%x00%H%x00%an%x00%ae%x00%at%x00%B%x00"
_DIFF_TREE = (
    "diff-tree", "--stdin", "-r", "--root", "--always", "-z", "--raw", "--no-abbrev",
    "-M50%", "-l1000", "--no-rename-empty", "--no-textconv", "--no-ext-diff", "--no-relative",
    "--encoding=UTF-8", f"--format={_FORMAT}",
)  # fmt: skip

_OBJECT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REGULAR_FILES = (0o100644, 0o100755, 0o100664)  # the last from very old repositories
_SYMLINK, _SUBMODULE = 0o120000, 0o160000
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z, the end of datetime
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class FileChange:
    """What a commit did to one file, against the commit's first parent.

    `blob` and `mode` are those after the change (None and 0 for a delete),
    `old_blob` the one before it (None for an add); they are equal if only the mode
    or the name changed. `old_path` is set for a rename only. Whether a blob is text
    is known once `BlobReader` has read it.
    """

    status: Status
    path: str
    old_path: str | None
    blob: str | None
    old_blob: str | None
    mode: int


@dataclass(frozen=True, slots=True)
class CommitRef:
    """Where a commit stands: `position` counts from 0, the oldest of the chain.

    `parent` is the first parent, None for a root. `committed_at` is in microseconds
    since 1970, UTC.
    """

    sha: str
    parent: str | None
    committed_at: int
    position: int


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit and what it changed, as `CommitRef` and git tell it.

    `message` is whole, without the line ends after it. Bytes that are not UTF-8 in
    names and messages become U+FFFD. `skipped` names the paths this commit added or
    changed that cannot be ingested; a path that was a file before and is a link or
    a submodule now is in `changes` as deleted, too.
    """

    sha: str
    parent: str | None
    committed_at: int
    position: int
    authored_at: int
    author_name: str
    author_email: str
    message: str
    changes: tuple[FileChange, ...]
    skipped: tuple[Skipped, ...]


class _Placed(Protocol):
    @property
    def committed_at(self) -> int: ...

    @property
    def position(self) -> int: ...


_P = TypeVar("_P", bound=_Placed)


def ordered(commits: Iterable[_P]) -> list[_P]:
    """Sort commits by committer time; equal times stay in topological order.

    Where a clock ran backward this is not the order of the chain: a child dated
    before its parent comes first.
    """
    return sorted(commits, key=lambda commit: (commit.committed_at, commit.position))


class History:
    """The commits of a first-parent chain that are still to be read, in `ordered` order.

    Only a few words per commit are kept; messages and changes are read from git while
    iterating, which can be done again. A loop left early ends its git process.

    `root` is the repository's top directory, `head` the commit it was asked for,
    `chain` the hashes of the whole chain, oldest first, `refs` what iterating will
    yield, `is_shallow` whether older commits are missing (the oldest one then seems
    to add every file).
    """

    def __init__(
        self,
        root: Path,
        head: str,
        chain: Sequence[str],
        refs: Sequence[CommitRef],
        wanted: PathFilter,
        *,
        is_shallow: bool,
    ) -> None:
        self.root, self.head, self.chain, self.refs = root, head, tuple(chain), tuple(refs)
        self.is_shallow = is_shallow
        self._wanted = wanted

    def __len__(self) -> int:
        return len(self.refs)

    def __iter__(self) -> Iterator[Commit]:
        return _read_commits(self.root, self.refs, self._wanted)


def read_history(
    repo: Path, *, rev: str = "HEAD", include: Sequence[str] = (), skip: Container[str] = ()
) -> History:
    """List the first-parent history of `rev`, to be iterated commit by commit.

    Args:
        repo: The repository, bare or not, or any directory in it. All of the
            repository is read, and paths count from its top.
        rev: A branch, tag or commit.
        include: See `PathFilter`. A rename across its border becomes an add or a
            delete; commits without a matching change are yielded all the same.
        skip: Full commit hashes that need not be read (again).

    Raises:
        IngestError: git is missing, there is no repository or it belongs to someone
            else, it has no commits, or `rev` is unknown; while iterating, an
            object is missing.
        InvalidDataError: a pattern is not well formed.
    """
    wanted = PathFilter(include)
    root = _require_root(repo)
    head = _resolve(root, rev)
    chain = _first_parents(root, head)
    refs = ordered(ref for ref in chain if ref.sha not in skip)
    shallow = _output(root, "rev-parse", "--is-shallow-repository").strip() == b"true"
    return History(root, head, [ref.sha for ref in chain], refs, wanted, is_shallow=shallow)


def count_commits(repo: Path, *, rev: str = "HEAD") -> int:
    """How many commits the first-parent chain of `rev` has; 0 when nothing was committed.

    Raises:
        IngestError: as for `read_history`, save that an empty repository is none.
    """
    root = _require_root(repo)
    if rev == "HEAD" and _try_resolve(root, rev) is None:
        return 0
    head = _resolve(root, rev)
    return int(_output(root, "rev-list", "--first-parent", "--count", "--end-of-options", head))


def repository_root(path: Path) -> Path | None:
    """The top directory of the repository that holds `path` (the git directory if bare).

    Returns:
        None when `path` is in no repository, or there is no such directory.

    Raises:
        IngestError: git is missing, or refuses the repository because of its owner.
    """
    if not path.is_dir():
        return None
    bare = _run(path, "rev-parse", "--is-bare-repository")
    if bare.returncode != 0:
        if b"not a git repository" in bare.stderr:
            return None
        raise _failure(path, bare.stderr)
    in_git_dir = _output(path, "rev-parse", "--is-inside-git-dir").strip() == b"true"
    if bare.stdout.strip() == b"true" or in_git_dir:
        top = _output(path, "rev-parse", "--absolute-git-dir")
    else:
        top = _output(path, "rev-parse", "--show-toplevel")
    return Path(os.fsdecode(top.removesuffix(b"\n").removesuffix(b"\r")))


class BlobReader:
    """The contents of blobs, through one git process; use it as a context manager.

    Not for several threads at once.
    """

    def __init__(self, root: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._root, self._max_bytes = root, max_bytes
        self._git: _Git | None = None

    def __enter__(self) -> Self:
        self._git = _Git(self._root, ("cat-file", "--batch"), subprocess.PIPE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the git process; may be called again."""
        if self._git is not None:
            self._git.close()
            self._git = None

    def read(self, blob: str) -> bytes | SkipReason:
        """The bytes of `blob`, or TOO_LARGE.

        Raises:
            IngestError: the object is missing or not a blob, or the reader is closed.
        """
        git = self._git
        if git is None:
            raise IngestError("the blob reader is not open; use it in a with statement")
        if not _OBJECT_ID.fullmatch(blob):
            raise IngestError(f"{blob!r} is not a full object hash; take it from a FileChange")
        # One question at a time: git answers before it reads on, so no pipe can fill up.
        answer = git.ask(blob.encode() + b"\n").split()
        if len(answer) != 3:
            # "<hash> missing", or nothing at all from a git that is gone.
            complaint = b" ".join(answer) or git.said() or b"it stopped"
            raise _failure(self._root, complaint)
        kind, size = answer[1], int(answer[2])
        too_large = size > self._max_bytes or kind != b"blob"
        data = git.take(size + 1, keep=not too_large)
        if kind != b"blob":
            raise IngestError(f"object {blob} is a {kind.decode()}, not a file's content")
        return SkipReason.TOO_LARGE if too_large else data[:-1]

    def text(self, blob: str) -> str | SkipReason:
        """The text of `blob`, or why it is none (binary, not UTF-8, too large).

        Raises:
            IngestError: as for `read`.
        """
        data = self.read(blob)
        return data if isinstance(data, SkipReason) else decode_text(data)


def _require_root(repo: Path) -> Path:
    root = repository_root(repo)
    if root is None:
        raise IngestError(
            f"{repo} is not in a git repository; name the directory of a clone, "
            "or ingest it as files"
        )
    return root


def _resolve(root: Path, rev: str) -> str:
    head = _try_resolve(root, rev)
    if head is not None:
        return head
    if rev == "HEAD":
        raise IngestError(
            f"the current branch of {root} has no commits; commit something, or name "
            "another branch as the revision"
        )
    raise IngestError(
        f"{root} has no commit {rev!r}; name a branch, tag or commit that "
        "`git log` knows there (a shallow clone lacks the older ones)"
    )


def _try_resolve(root: Path, rev: str) -> str | None:
    # No name of a commit starts with a dash; git must not take one for an option.
    if rev.startswith("-") or not rev or any(c in rev for c in "\0\r\n"):
        return None
    try:
        rev.encode("utf-8")
    except UnicodeEncodeError:
        return None
    done = _run(root, "rev-parse", "--verify", "--quiet", "--end-of-options", rev + "^{commit}")
    name = done.stdout.decode("ascii", "replace").strip()
    return name if done.returncode == 0 and _OBJECT_ID.fullmatch(name) else None


def _first_parents(root: Path, head: str) -> list[CommitRef]:
    listing = _output(
        root, "rev-list", "--first-parent", "--parents", "--timestamp", "--end-of-options", head
    )
    lines = listing.decode("ascii").splitlines()
    refs = []
    for position, line in enumerate(reversed(lines)):
        seconds, sha, *parents = line.split()
        refs.append(CommitRef(sha, parents[0] if parents else None, _micros(seconds), position))
    return refs


def _read_commits(root: Path, refs: Sequence[CommitRef], wanted: PathFilter) -> Iterator[Commit]:
    # From a file, not a pipe: git could otherwise wait for us to read while we wait
    # for it to take more. "child parent" makes a merge differ from its first parent only.
    with tempfile.TemporaryFile() as asked:
        for ref in refs:
            asked.write(f"{ref.sha} {ref.parent or ''}".rstrip().encode() + b"\n")
        asked.seek(0)
        git = _Git(root, _DIFF_TREE, asked)
    try:
        tokens = git.tokens()
        token = next(tokens, None)
        for ref in refs:
            header = [next(tokens, None) for _ in range(6)]
            if token != b"" or header[0] != ref.sha.encode() or header[5] != b"":
                raise _failure(root, git.said())
            _, name, email, authored, message, _ = (field or b"" for field in header)
            changes: list[FileChange] = []
            skipped: list[Skipped] = []
            while (token := next(tokens, None)) is not None and token != b"":
                entry = token.lstrip(b"\n").split()
                old = next(tokens, b"")
                new = next(tokens, b"") if entry[4][:1] == b"R" else old
                _note(entry, old, new, wanted, changes, skipped)
            yield Commit(
                sha=ref.sha,
                parent=ref.parent,
                committed_at=ref.committed_at,
                position=ref.position,
                authored_at=_micros(authored),
                author_name=name.decode("utf-8", "replace"),
                author_email=email.decode("utf-8", "replace"),
                message=message.decode("utf-8", "replace").rstrip("\r\n"),
                changes=tuple(changes),
                skipped=tuple(skipped),
            )
        if token is not None or not git.ended_well():
            raise _failure(root, git.said())
    finally:
        git.close()


def _note(
    entry: list[bytes],
    old: bytes,
    new: bytes,
    wanted: PathFilter,
    changes: list[FileChange],
    skipped: list[Skipped],
) -> None:
    """Sort one raw entry (`:mode mode id id status`, see git-diff-tree(1))."""
    old_mode, new_mode = int(entry[0].lstrip(b":"), 8), int(entry[1], 8)
    old_blob, new_blob = entry[2].decode(), entry[3].decode()
    was = _readable(old_mode, old, wanted)
    becomes = _readable(new_mode, new, wanted)
    if was is None and becomes is None and new_mode == 0:
        return
    if becomes is None and new_mode != 0 and (reason := _why_not(new_mode, new, wanted)):
        skipped.append(Skipped(new.decode("utf-8", "backslashreplace"), reason))
    if becomes is not None:
        if was is None:
            change = FileChange("added", becomes, None, new_blob, None, new_mode)
        elif was != becomes:
            change = FileChange("renamed", becomes, was, new_blob, old_blob, new_mode)
        else:
            change = FileChange("modified", becomes, None, new_blob, old_blob, new_mode)
        changes.append(change)
    elif was is not None:
        changes.append(FileChange("deleted", was, None, None, old_blob, 0))


def _readable(mode: int, path: bytes, wanted: PathFilter) -> str | None:
    if mode not in _REGULAR_FILES:
        return None
    try:
        decoded = path.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return decoded if wanted.matches(decoded) else None


def _why_not(mode: int, path: bytes, wanted: PathFilter) -> SkipReason | None:
    """Why a path is not read; None if only because it was not asked for."""
    try:
        if not wanted.matches(path.decode("utf-8")):
            return None
    except UnicodeDecodeError:
        return SkipReason.PATH_NOT_UTF8
    by_mode = {_SYMLINK: SkipReason.SYMLINK, _SUBMODULE: SkipReason.SUBMODULE}
    return by_mode.get(mode, SkipReason.NOT_A_FILE)


def _micros(seconds: str | bytes) -> int:
    """Unix seconds as microseconds; what is not a time of this era is moved to its ends."""
    try:
        return min(max(int(seconds or 0), 0), _LAST_SECOND) * 1_000_000
    except ValueError:
        return 0


class _Git:
    """A git process whose output is read as it comes, and which never outlives its owner."""

    def __init__(self, root: Path, arguments: Sequence[str], stdin: int | IO[bytes]) -> None:
        # Complaints go to a file: a pipe that nobody reads would fill up and stop git.
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        try:
            self._process = subprocess.Popen(
                _command(root, arguments),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                env=_environment(),
            )
        except OSError as error:
            self._complaints.close()
            raise _cannot_start(error) from error
        assert self._process.stdout is not None
        self._output = self._process.stdout

    def ask(self, question: bytes) -> bytes:
        """Write a line and read one back; empty if git is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(question)
            self._process.stdin.flush()
        except OSError:
            return b""
        return self._output.readline()

    def take(self, size: int, *, keep: bool) -> bytes:
        """Read exactly `size` bytes, or only pass over them."""
        if keep:
            data = self._output.read(size)
            size -= len(data)
        else:
            data = b""
            while size > 0 and (piece := self._output.read(min(size, _PIECE))):
                size -= len(piece)
        if size > 0:
            raise IngestError(f"git stopped in the middle of a file ({_line(self.said())})")
        return data

    def tokens(self) -> Iterator[bytes]:
        """What stands between the NULs of the output; an unfinished last one is left out."""
        unfinished: list[bytes] = []
        while piece := os.read(self._output.fileno(), _PIECE):
            first, *rest = piece.split(b"\0")
            unfinished.append(first)
            if rest:
                yield b"".join(unfinished)
                yield from rest[:-1]
                unfinished = [rest[-1]]

    def ended_well(self) -> bool:
        return self._process.wait() == 0

    def said(self) -> bytes:
        """What git has complained about so far."""
        self._complaints.seek(0)
        return self._complaints.read(_PIECE)

    def close(self) -> None:
        self._process.kill()  # it only reads: there is nothing to lose
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):  # a question was left in the buffer
                    stream.close()
        self._process.wait()
        self._complaints.close()


def _command(root: Path, arguments: Sequence[str]) -> list[str]:
    return ["git", *_OPTIONS, "-C", os.fspath(root.absolute()), *arguments]


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or _KEPT_VARIABLES.fullmatch(name)
    }
    return kept | _SET_VARIABLES


def _run(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            _command(root, arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_environment(),
            check=False,
        )
    except OSError as error:
        raise _cannot_start(error) from error


def _output(root: Path, *arguments: str) -> bytes:
    done = _run(root, *arguments)
    if done.returncode != 0:
        raise _failure(root, done.stderr)
    return done.stdout


def _cannot_start(error: OSError) -> IngestError:
    return IngestError(
        f"git could not be started ({error}); install git and put it on PATH, "
        "or ingest the directory as files"
    )


def _failure(root: Path, complaint: bytes) -> IngestError:
    if b"dubious ownership" in complaint:
        return IngestError(
            f"git refuses {root} because another user owns it; if you trust it: "
            f"git config --global --add safe.directory {root}"
        )
    missing = (b"missing", b"promisor", b"unable to read", b"not allowed", b"bad object")
    if any(word in complaint for word in missing):
        return IngestError(
            f"{root} lacks objects of its own history ({_line(complaint)}); if it is a partial "
            "clone, clone it without --filter, else look at: git fsck"
        )
    return IngestError(f"git failed in {root} ({_line(complaint)}); look at: git fsck")


def _line(complaint: bytes) -> str:
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it did not say why"
