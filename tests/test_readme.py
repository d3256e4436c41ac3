"""Every example of the README runs, in order, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


def make_repository(path: Path) -> None:
    """Two commits to ingest, where the examples say `.`."""
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q", "."], cwd=path, check=True)
    for way in ("by hand", "by the caller"):
        (path / "README.md").write_text(f"# Errors\n\nErrors are handled {way}.\n")
        subprocess.run([*git, "add", "README.md"], cwd=path, check=True)
        subprocess.run([*git, "commit", "-q", "-m", way], cwd=path, check=True)


def test_the_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_repository(tmp_path)
    code = [text for language, text in BLOCKS if language == "python"]
    assert len(code) >= 6
    for _ in range(2):  # whoever tries them again has what they left
        names: dict[str, object] = {}
        for text in code:
            exec(compile(text, "README.md", "exec"), names)


def shell_blocks() -> list[str]:
    found = [text for language, text in BLOCKS if language == "sh"]
    return [text for text in found if "make " not in text]


@pytest.mark.parametrize("block", shell_blocks())
def test_the_commands_run(block: str, tmp_path: Path) -> None:
    make_repository(tmp_path)
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_make_targets_the_readme_names_exist() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test", "bench", "crash"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
