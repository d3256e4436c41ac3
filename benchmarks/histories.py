"""Real git repositories, written in one go: made-up histories, and those of the PEPs."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.documents import text
from benchmarks.peps import Revision


class Change(NamedTuple):
    """A commit that writes one file."""

    time: int  # seconds since 1970
    path: str
    content: str
    message: str


def made_up(commits: int, *, files: int = 60) -> Iterator[Change]:
    """Files of about 8 KB; a commit writes one anew with two of its paragraphs changed."""
    rng = random.Random(4)
    pages: dict[str, list[str]] = {}
    for n in range(commits):
        path = f"docs/{rng.randrange(files):03}.md"
        page = pages.setdefault(path, [_paragraph(rng) for _ in range(20)])
        for place in rng.sample(range(len(page)), 2):
            page[place] = _paragraph(rng)
        yield Change(1_600_000_000 + 600 * n, path, "\n\n".join(page) + "\n", f"Revise {path}")


def of_peps(revisions: Iterable[Revision]) -> Iterator[Change]:
    for revision in revisions:
        value = revision.value
        yield Change(revision.committed_at, f"{revision.pep}.rst", value["text"], value["commit"])


def write_repository(folder: Path, changes: Iterable[Change]) -> Path:
    """A bare repository with these changes on its branch `main`, a commit for each."""
    folder.mkdir(parents=True)
    run_git(folder, "init", "-q", "--bare", "-b", "main", ".")
    stream: list[bytes] = []
    for change in changes:
        message, content = change.message.encode(), change.content.encode()
        stream.append(
            b"commit refs/heads/main\ncommitter Ada <ada@example.org> %d +0000\ndata %d\n%s\n"
            b"M 100644 inline %s\ndata %d\n%s\n"
            % (
                change.time, len(message), message,
                change.path.encode(), len(content), content,
            )
        )  # fmt: skip
    run_git(folder, "fast-import", "--quiet", stdin=b"".join(stream))
    return folder


def run_git(folder: Path, *arguments: str, stdin: bytes = b"") -> None:
    subprocess.run(
        ["git", "-C", str(folder), *arguments], input=stdin, check=True, capture_output=True
    )


def _paragraph(rng: random.Random) -> str:
    return text(rng, rng.randrange(200, 600)).capitalize() + "."
