from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import koru_delta
from koru_delta.surfaces import demo as demonstration
from koru_delta.surfaces import sample
from koru_delta.surfaces.cli import app
from tests.ingest.history_maker import HistoryMaker

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KORU_DELTA_DB", raising=False)
    monkeypatch.chdir(tmp_path)


def demo(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["demo", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_without_a_repository_the_sample_is_asked_now_and_then():
    facts = json.loads(demo("--json"))

    assert facts["is_sample"]
    assert facts["ingested"]["commits"] == 9
    then, now = zip(*((each["then"], each["now"]) for each in facts["questions"]), strict=True)
    assert [each["question"] for each in facts["questions"]] == list(sample.QUESTIONS)
    for answer, words in zip(then, ("30 days", "deployed last", "60 requests"), strict=True):
        assert words in answer["text"]
    for answer, words in zip(now, ("one year", "on call", "600 requests"), strict=True):
        assert words in answer["text"]
    assert {(answer["path"], answer["author"]) for answer in now} == {
        ("docs/operations.md", "Dora"), ("docs/operations.md", "Chen"), ("docs/quotas.md", "Ben"),
    }  # fmt: skip
    assert facts["history"]["path"] == "docs/operations.md"
    assert facts["diff"]["lines"]


def test_an_answer_is_the_very_lines_it_names(tmp_path):
    repo = sample.make_sample(tmp_path)

    for each in json.loads(demo("--repo", repo, "--json"))["questions"]:
        for answer, commit in ((each["then"], None), (each["now"], "main")):
            rev = commit or answer["commit"]
            shown = subprocess.run(
                ["git", "-C", repo, "show", f"{rev}:{answer['path']}"],
                capture_output=True, text=True, check=True,
            ).stdout.split("\n")  # fmt: skip
            lines = shown[answer["first_line"] - 1 : answer["last_line"]]
            assert "\n".join(lines) == answer["text"]


def test_every_answer_tells_why_it_was_found():
    for each in json.loads(demo("--sample", "--json"))["questions"]:
        for answer in (each["then"], each["now"]):
            why = answer["why"]
            assert why["rank"] == 1
            parts = {part["name"]: part for part in why["parts"]}
            added = sum(part["contribution"] for part in why["parts"])
            assert (sorted(parts), pytest.approx(added)) == (["text", "vector"], why["score"])
            terms = parts["text"]["terms"]
            assert terms
            assert all(term["term"] in answer["text"].casefold() for term in terms)


def test_every_change_of_an_answer_has_a_cause_that_was_tried():
    [backups, night, limits] = json.loads(demo("--sample", "--json"))["questions"]

    for each, kind, because in (
        (
            backups, "edited",
            "edited 2024-08-19 by Dora: Keep backups for a year, encrypted and elsewhere",
        ),
        (
            night, "edited",
            "edited 2023-11-13 by Chen: Introduce a rota after the outage of November",
        ),
        (limits, "entered", "true since 2024-02-06 by Ben: Raise the quota tenfold"),
    ):  # fmt: skip
        [first] = [change for change in each["changes"] if change["rank_after"] == 1]
        assert (first["kind"], first["because"]) == (kind, because)
        assert all(change["verified"] for change in each["changes"])


def test_it_is_told_as_tables_no_wider_than_a_hundred_columns():
    shown = demo("--sample")

    told = [line for line in shown.splitlines() if not line.startswith("  kdelta ")]
    assert max(map(len, told)) <= 100
    for words in (
        "docs/operations.md:1-7", "2b7bc8514e", "Dora", "+A copy of the database is taken every",
        "kdelta ingest git PATH", "--valid-at", "by words #1 (backups", "by meaning #1 (similarity",
        "~ edited   1→1  docs/operations.md  edited 2024-08-19 by Dora",
    ):  # fmt: skip
        assert words in shown
    assert "\x1b" not in shown


def test_a_question_of_ones_own_at_a_commit_of_ones_own(tmp_path):
    maker = HistoryMaker(tmp_path / "made")
    maker.commit(1_600_000_000, {"a.md": "The gate is painted red.\n"}, author="Ada")
    maker.commit(1_610_000_000, {"b.md": "The wall is made of stone.\n"}, author="Ben")
    maker.commit(1_620_000_000, {"a.md": "The gate is painted blue.\n"}, author="Chen")
    repo = maker.write()

    facts = json.loads(
        demo("--repo", repo, "--ask", "which colour has the gate", "--ask", "what is the wall of",
             "--then", maker.commits[1].sha[:10], "--json")
    )  # fmt: skip

    gate, wall = facts["questions"]
    assert "red" in gate["then"]["text"]
    assert "blue" in gate["now"]["text"]
    assert (gate["same"], wall["same"]) == (False, True)
    assert wall["now"]["commit"] == maker.commits[1].sha
    shown = demo("--repo", repo, "--ask", "what is the wall of", "--then", maker.commits[1].sha)
    assert "unchanged since 2021-01-07" in shown


def test_the_repository_around_here_is_taken_when_it_has_a_history(tmp_path, monkeypatch):
    env = {
        **os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "a@example.org",
    }  # fmt: skip

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], env=env, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    Path("README.md").write_text("# Mill\n\nThe mill grinds corn. Tests run with make test.\n")
    git("add", ".")
    git("commit", "-qm", "Begin")
    assert "fewer than two commits" in demo()
    Path("README.md").write_text("# Mill\n\nThe mill saws wood. Tests run with make check.\n")
    git("commit", "-qam", "Saw")
    Path("sub").mkdir()
    monkeypatch.chdir("sub")

    facts = json.loads(demo("--json"))

    assert not facts["is_sample"]
    assert facts["ingested"]["commits"] == 2
    assert [each["question"] for each in facts["questions"]] == [
        "Which command runs the test suite?"
    ]
    assert "make check" in facts["questions"][0]["now"]["text"]


def test_the_database_is_kept_where_asked(tmp_path):
    demo("--sample", "--db", tmp_path / "kept")
    again = json.loads(demo("--sample", "--db", tmp_path / "kept", "--json"))

    assert again["ingested"]["commits"] == 0
    assert again["questions"][0]["now"] is not None
    with koru_delta.open(tmp_path / "kept", read_only=True) as db:
        assert db.count("docs.commits") == 9


def test_what_cannot_be_shown_is_told(tmp_path, monkeypatch):
    assert "not in a git repository" in demo("--repo", tmp_path, code=1)
    assert "feedface" in demo("--sample", "--then", "feedface", code=3)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install git" in demo("--sample", code=1)


# What it ends with


def commands(shown: str) -> list[list[str]]:
    """The commands it tells to go on with."""
    after = shown.partition("Now you")[2]
    return [shlex.split(line) for line in after.splitlines() if line.startswith("  kdelta ")]


def test_the_commands_it_ends_with_can_be_copied(tmp_path, monkeypatch):
    repo = sample.make_sample(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")

    ingest, search, earlier, another = commands(demo("--repo", repo, "--ask", "Are backups kept?"))

    assert ingest == [
        "kdelta", "ingest", "git", "harbour", "--chunk-size", "600", "--db", "history.koru",
    ]  # fmt: skip
    assert search == ["kdelta", "search", "docs", "Are backups kept?", "--db", "history.koru"]
    for command in (ingest, search, earlier):
        result = CliRunner().invoke(app, command[1:])
        assert result.exit_code == 0, result.output
    assert "harbour" in ingest
    assert another[1:] == ["demo", "--repo", "PATH"]


def test_the_sample_can_be_kept_and_asked():
    keep, search, earlier, *_ = commands(demo("--sample"))

    for command in (keep, search, earlier):
        assert CliRunner().invoke(app, command[1:]).exit_code == 0


def test_the_command_is_told_as_it_was_typed(tmp_path, monkeypatch):
    program = tmp_path / ".venv" / "bin" / "kdelta"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(program), "demo"])
    assert demonstration.invocation() == [".venv/bin/kdelta"]
    monkeypatch.setenv("PATH", str(program.parent))
    assert demonstration.invocation() == ["kdelta"]
    monkeypatch.setattr("sys.argv", ["/somewhere/koru_delta/__main__.py"])
    assert demonstration.invocation() == [sys.executable, "-m", "koru_delta"]


def test_the_database_of_everything_else_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KORU_DELTA_DB", str(tmp_path / "mine"))

    assert json.loads(demo("--sample", "--json"))["database"] is None
    assert not (tmp_path / "mine").exists()
    result = CliRunner().invoke(app, ["--db", "kept", "demo", "--sample", "--json"])
    assert json.loads(result.stdout)["database"] == "kept"


# What it chooses


def test_the_earlier_moment_is_one_with_answers(tmp_path):
    maker = HistoryMaker(tmp_path / "made")
    bread = "Bread is baked in an oven of stone, and the baking of bread takes one hour.\n"
    maker.commit(1_600_000_000, {"a.md": "Nothing to be seen in this place.\n"})
    maker.commit(1_610_000_000, {"a.md": bread})
    maker.commit(1_620_000_000, {"a.md": bread.replace("stone", "steel")})
    maker.commit(1_630_000_000, {"b.md": "Milk comes from cows, which stand in the meadow.\n"})

    facts = json.loads(demo("--repo", maker.write(), "--ask", "how is bread baked", "--json"))

    assert facts["then"]["commit"] == maker.commits[1].sha


def test_no_progress_bar_stays_on_the_screen():
    ours, theirs = pty.openpty()
    env = os.environ | {"PYTHONPATH": str(PROJECT), "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-m", "koru_delta", "demo", "--sample"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=env
    ) as process:
        os.close(theirs)
        shown = process.communicate(timeout=60)[0].decode()
        progress = os.read(ours, 1 << 20).decode()
    os.close(ours)

    assert process.returncode == 0
    assert "backups" in shown
    assert progress.rpartition("\x1b[2K")[2].strip("\r\n") in ("", "\x1b[?25h")
