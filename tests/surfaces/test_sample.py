from __future__ import annotations

import subprocess
from pathlib import Path

from koru_delta.surfaces import sample


def test_its_states_are_what_git_has_at_each_commit(tmp_path: Path) -> None:
    repo = sample.make_sample(tmp_path)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repo), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    commits = git("log", "--reverse", "--format=%H %ct %an", "main").splitlines()
    told = [(int(state.time.timestamp()), state.author) for state in sample.states()]
    assert told == [(int(c.split()[1]), c.split()[2]) for c in commits]
    for commit, state in zip(commits, sample.states(), strict=True):
        sha = commit.split()[0]
        paths = git("ls-tree", "-r", "--name-only", sha).splitlines()
        assert {path: git("show", f"{sha}:{path}") for path in paths} == state.files
