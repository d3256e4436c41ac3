"""Git histories made to order, and what a plain reading of them says."""

from __future__ import annotations

import os
import subprocess
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

Tree = dict[str, str | bytes]


@dataclass
class Made:
    """A commit: its time in seconds, the tree it leaves, and the one it started from."""

    time: int
    tree: Tree
    parent: int | None
    position: int
    message: str = "change"
    author: str = "Ada"
    sha: str = ""


@dataclass
class HistoryMaker:
    """Commits gathered in memory, then written to a bare repository in one go."""

    path: Path
    commits: list[Made] = field(default_factory=list)

    def commit(
        self,
        time: int,
        changes: dict[str, str | bytes | None],
        *,
        onto: int | None = None,
        message: str = "change",
        author: str = "Ada",
    ) -> int:
        """Add a commit after `onto` (the last one); None removes a path."""
        parent = onto if onto is not None else (len(self.commits) - 1 if self.commits else None)
        tree = {} if parent is None else dict(self.commits[parent].tree)
        for path, content in changes.items():
            if content is None:
                del tree[path]
            else:
                tree[path] = content
        position = 0 if parent is None else self.commits[parent].position + 1
        self.commits.append(Made(time, tree, parent, position, message, author))
        return len(self.commits) - 1

    def write(self) -> Path:
        """Make the repository; every commit gets its hash and a branch `c<number>`."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.path), "GIT_CONFIG_NOSYSTEM": "1"}
        stream: list[bytes] = []
        for number, made in enumerate(self.commits):
            branch = f"refs/heads/c{number}"
            who = f"{made.author} <{made.author.lower()}@example.org> {made.time} +0000"
            stream.append(f"commit {branch}\nmark :{number + 1}\n".encode())
            stream.append(f"author {who}\ncommitter {who}\n".encode() + data(made.message))
            if made.parent is not None:
                stream.append(f"from :{made.parent + 1}\n".encode())
            stream.append(b"deleteall\n")
            for path, content in made.tree.items():
                stream.append(f"M 100644 inline {path}\n".encode() + data(content))
        self.path.mkdir(parents=True, exist_ok=True)
        marks = self.path / "marks"
        repo = self.path / "repo"
        subprocess.run(
            ["git", "init", "-q", "--bare", str(repo)], env=env, check=True, capture_output=True
        )
        subprocess.run(
            ["git", "-C", str(repo), "fast-import", "--quiet", f"--export-marks={marks}"],
            input=b"".join(stream), env=env, check=True, capture_output=True,
        )  # fmt: skip
        for line in marks.read_text().splitlines():
            mark, sha = line.split()
            self.commits[int(mark[1:]) - 1].sha = sha
        last = f"refs/heads/c{len(self.commits) - 1}"
        subprocess.run(["git", "-C", str(repo), "symbolic-ref", "HEAD", last], env=env, check=True)
        return repo

    def chain(self, tip: int | None = None) -> list[int]:
        """The commits from the root to `tip` (the last one)."""
        found: list[int] = []
        here: int | None = len(self.commits) - 1 if tip is None else tip
        while here is not None:
            found.append(here)
            here = self.commits[here].parent
        return found[::-1]

    def states(self, numbers: list[int] | None = None) -> dict[str, States]:
        """Per path, what it holds when: changes by (time, position), the later wins."""
        told: dict[str, list[tuple[int, int, str | bytes | None]]] = {}
        for number in self.chain() if numbers is None else numbers:
            made = self.commits[number]
            before = {} if made.parent is None else self.commits[made.parent].tree
            for path in before.keys() | made.tree.keys():
                after = made.tree.get(path)
                if before.get(path) != after:
                    told.setdefault(path, []).append((made.time, made.position, after))
        return {
            path: States(sorted(changes, key=lambda c: c[:2])) for path, changes in told.items()
        }


@dataclass
class States:
    """One path over time."""

    changes: list[tuple[int, int, str | bytes | None]]

    def at(self, time: float) -> str | None:
        """Its text at a time, None if absent or no text."""
        times = [change[0] for change in self.changes]
        found = bisect_right(times, time)
        content = self.changes[found - 1][2] if found else None
        return content if isinstance(content, str) else None


def data(content: str | bytes) -> bytes:
    """As `git fast-import` reads it."""
    raw = content.encode() if isinstance(content, str) else content
    return b"data %d\n%s\n" % (len(raw), raw)


def moment(seconds: float) -> datetime:
    """A committer time as a datetime."""
    return datetime.fromtimestamp(seconds, UTC)
