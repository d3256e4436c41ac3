from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import koru_delta
from koru_delta.surfaces import show
from tests.surfaces.command import PROJECT, kdelta, plain_environment, repo, run, said

__all__ = ["plain_environment", "repo", "run"]


# Values


def test_what_is_put_can_be_got(run):
    run("put", "users", "alice", '{"name": "Alice", "age": 30}')
    run("put", "notes", "one", "plain text")
    run("put", "notes", "two", "42", "--text")
    run("put", "notes", "three", "-", input="from a pipe\n")

    assert json.loads(run("get", "users", "alice").stdout) == {"name": "Alice", "age": 30}
    assert run("get", "notes", "one").stdout == "plain text\n"
    assert said(run("get", "notes", "two", "--json"))["value"] == "42"
    assert run("get", "notes", "three").stdout == "from a pipe\n"
    assert said(run("keys", "notes", "--json")) == ["one", "three", "two"]
    assert said(run("keys", "--json")) == {"notes": 3, "users": 1}
    assert run("keys", "notes", "--prefix", "t", "-n", "1").stdout == "three\n"


def test_the_database_is_named_by_option_or_environment(run, monkeypatch):
    run("put", "a", "k", "1", "--db", "one")
    run("--db", "two", "put", "a", "k", "2")
    monkeypatch.setenv("KORU_DELTA_DB", "one")

    assert run("get", "a", "k").stdout == "1\n"
    assert run("get", "a", "k", "--db", "two").stdout == "2\n"
    assert run("--db", "two", "get", "a", "k").stdout == "2\n"
    assert not Path(".kdelta").exists()


def test_a_key_is_read_at_any_moment(run):
    first = said(run("put", "a", "k", "1", "-m", "begin", "--json"))
    run("put", "a", "k", "2", "--author", "Ada")
    run("delete", "a", "k")

    assert run("get", "a", "k", "--as-of", first["id"]).stdout == "1\n"
    assert run("get", "a", "k", "--as-of", 2).stdout == "2\n"
    assert run("at", first["time"], "a", "k").stdout == "1\n"
    assert run("at", 1, "a").stdout == "k\n"
    assert said(run("at", 2, "a", "k", "--json"))["author"] == "Ada"
    history = said(run("log", "a", "k", "--json"))
    assert [version["operation"] for version in history] == ["delete", "put", "put"]
    assert (history[-1]["author"], history[-1]["message"]) == ("tester", "begin")
    assert len(said(run("log", "--json"))) == 3
    assert "begin" in run("log").stdout


def test_valid_times_can_be_given_and_asked(run):
    run("put", "a", "k", '"old"', "--valid-from", "2020-01-01T00:00:00Z")
    run("put", "a", "k", '"new"', "--valid-from", "2024-01-01T00:00:00Z")

    assert run("get", "a", "k", "--valid-at", "2022-01-01").stdout == "old\n"
    assert run("at", "2022-01-01", "a", "k", "--valid").stdout == "old\n"
    assert run("get", "a", "k").stdout == "new\n"


def test_a_diff_is_for_people_or_a_patch(run):
    run("put", "a", "k", json.dumps({"text": "one\ntwo\n", "n": 1}))
    run("put", "a", "k", json.dumps({"text": "one\nthree\n", "n": 2}))

    shown = run("diff", "a", "k").stdout
    patch = said(run("diff", "a", "k", "1", "2", "--json"))

    assert "-two" in shown
    assert "+three" in shown
    assert '"path": "/n"' in shown
    assert {op["path"]: op["value"] for op in patch} == {"/text": "one\nthree\n", "/n": 2}


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("get", "a", "nothing"), 3, "no key 'nothing'"),
        (("get", "a", "k", "--as-of", "deadbeef00"), 3, "deadbeef00"),
        (("log", "a", "nothing"), 3, "nothing"),
        (("diff", "a", "k"), 3, "'k' has one version"),
        (("get", "a", "k", "--as-of", "2999-01-01"), 2, "use --valid-at"),
        (("get", "a", "k", "--as-of", "now-ish"), 2, "tag:NAME"),
        (("get", "a", "k", "--valid-at", "abcd"), 3, "commit abcd was not ingested into 'a'"),
        (("put", "a", "j", "{'a': 1}"), 2, "--text"),
        (("put", "a", "j", "[1, 2"), 2, "--text"),
        (("put", "a", "k", "2", "--if-match", "none"), 4, "read it again"),
        (("get", "a", "k", "--as-of", "yesterday"), 2, "2026-02-01T12:00:00Z"),
        (("get", "a", "k", "--valid-at", "2026-99-01"), 2, "not a time"),
        (("search", "a", "x", "--filter", "{"), 2, "--filter"),
        (("search", "a", "x", "--filter", '{"n": {"$near": 1}}'), 2, "$near"),
        (("log", "a"), 2, "name a key"),
        (("frobnicate",), 2, "frobnicate"),
        (("get", "a", "k", "--db", "nowhere"), 1, "no database at nowhere"),
        (("put", "a", "", "1"), 1, "empty"),
        (("ingest", "git", "."), 1, "not in a git repository"),
        (("ingest", "files", "nowhere"), 1, "cannot be read"),
        (("import", "nowhere"), 1, "nowhere"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_exit_code_and_says_what_to_do(run, arguments, code, told):
    run("put", "a", "k", "1")

    result = run(*arguments, code=code)

    assert told in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_text_that_begins_like_json_is_refused_unless_it_is_said_to_be_text(run):
    assert "--text" in run("put", "a", "k", "-", input='{"a": 1,}\n', code=2).stderr
    assert not Path(".kdelta").exists()
    run("put", "a", "k", "-", "--text", input="[draft] of a letter")

    assert run("get", "a", "k").stdout == "[draft] of a letter\n"


def test_what_was_not_asked_is_not_answered(run):
    run("put", "users", "alice", "1")

    assert "moment" not in run("get", "users", "bob", code=3).stderr
    assert "at that moment" in run("get", "users", "bob", "--as-of", 1, code=3).stderr
    run("delete", "users", "alice")
    deleted = run("get", "users", "alice", code=3).stderr
    assert "--as-of" in deleted
    for complaint in (deleted, run("get", "users", "bob", "--as-of", "feedface00", code=3).stderr):
        assert "()" not in complaint
        assert "=" not in complaint


@pytest.mark.parametrize(
    "arguments",
    [
        ("delete", "a", "k"), ("get", "a", "k"), ("keys",), ("tag", "t"), ("stats",),
        ("index",), ("tune",), ("reembed", "a"),
        ("put", "a", "", "1"), ("put", "a", "k", "{"),
        ("put", "a", "k", "1", "--if-match", "f" * 64),
        ("import", "nowhere"), ("import", "bad"), ("import", "-"),
        ("ingest", "git", "."), ("ingest", "git", "nowhere"), ("ingest", "files", "nowhere"),
    ],
)  # fmt: skip
def test_a_mistake_makes_no_database(run, arguments):
    Path("bad").write_text("no log\n")

    result = run(*arguments, code=None, input="no log\n")

    assert result.exit_code in (1, 2, 3, 4)
    assert [path.name for path in Path().iterdir()] == ["bad"]


def test_an_unknown_revision_makes_no_database(run, repo):
    run("ingest", "git", repo, "--rev", "nothing", code=1)

    assert not Path(".kdelta").exists()


def test_a_directory_of_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "file").write_text("mine")

    run("put", "a", "k", "1", "--db", "work", code=1)

    assert [path.name for path in (tmp_path / "work").iterdir()] == ["file"]


def test_nothing_stored_can_steer_the_terminal(run):
    evil = "\x1b[31mred\x1b]0;title\x07 [bold]not markup[/bold]"
    run("put", "a", evil, json.dumps({"text": evil}), "-m", evil)
    run("put", "a", evil, "1", "--author", evil)

    for command in (("log",), ("log", "a", evil), ("diff", "a", evil), ("keys", "a")):
        shown = run(*command).output
        assert "\x1b" not in shown
        assert "\x07" not in shown
    assert "[bold]not markup[/bold]" in run("keys", "a").stdout
    assert show.clean("a\tb\nc\r\n\u202ed") == "a\tb\nc\n\ufffdd"


# Care


def test_backup_export_import_and_verify_agree(run):
    run("put", "a", "k", "1")
    run("put", "a", "k", "2")

    run("backup", "copy")
    assert said(run("export", "log.jsonl", "--json"))["file"] == "log.jsonl"
    taken = said(run("import", "log.jsonl", "--db", "other", "--json"))

    roots = {
        said(run("stats", "--json", "--db", name))["root"] for name in (".kdelta", "copy", "other")
    }
    assert roots == {taken["root"]}
    assert taken["commits"] == 2
    assert said(run("verify", "--json"))["ok"] is True
    assert "every hash matches" in run("verify", "--db", "copy").stdout
    assert run("export", "-").stdout == Path("log.jsonl").read_text()


def test_verify_tells_of_a_flipped_bit(run):
    run("put", "a", "k", '"a text that will be damaged"')
    run("backup", "copy")
    file = Path("copy/log.db")
    data = file.read_bytes()
    file.write_bytes(data.replace(b"will be damaged", b"will be demaged"))

    report = said(run("verify", "--json", "--db", "copy", code=1))

    assert report["ok"] is False
    assert report["problems"]


# The process


def test_the_library_does_not_load_what_only_the_command_line_needs():
    code = "import koru_delta, koru_delta.ingest, sys; print(*sorted(sys.modules))"
    env = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"typer", "rich", "click", "pydantic", "wordllama", "jsonpatch"}


def test_the_module_runs_as_the_command():
    assert kdelta("put", "a", "k", "1").returncode == 0
    done = kdelta("get", "a", "k")
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)
    missing = kdelta("get", "a", "x")
    assert (missing.stdout, missing.returncode) == ("", 3)
    assert missing.stderr.startswith("error: ")


def test_a_closed_pipe_ends_it_quietly():
    with koru_delta.open(".kdelta") as db:
        db.put_many([("a", f"key {number:06} {'x' * 200}", 1) for number in range(3000)])
    command = f"{sys.executable} -m koru_delta keys a | head -1; exit ${{PIPESTATUS[0]}}"
    env = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=env, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("key 000000")


def wait_until_idle(pid: int) -> None:
    """Return once a process has used no processor time for a second."""
    still, used = 0, ""
    for _ in range(240):
        time.sleep(0.25)
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        now = " ".join(facts[11:13])  # in user and in system mode
        still = still + 1 if now == used and facts[0] == "S" else 0
        used = now
        if still == 4:
            return


def test_an_interrupt_ends_it_in_one_line(tmp_path):
    env = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "koru_delta", "put", "a", "k", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as waiting:
        wait_until_idle(waiting.pid)  # it waits for its input
        waiting.send_signal(signal.SIGINT)
        _, complaint = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert complaint.startswith("error: interrupted")
    assert len(complaint.splitlines()) == 1


@pytest.mark.parametrize("command", ["keys n", "keys n --json", "stats"])
@pytest.mark.parametrize("way", ["LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0", "", "full"])
def test_an_output_that_cannot_take_the_answer_gives_no_traceback(
    tmp_path: Path, command: str, way: str
) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        db.put("n", "ключ 🔑", 1)
    redirect = {"": ">&-", "full": ">/dev/full"}.get(way, "")
    line = (
        f"{way if '=' in way else ''} {sys.executable} -m koru_delta {command} --db db {redirect}"
    )
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8"
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if way == "full" else 0), done.stderr


# Erasing


def test_a_value_is_erased_after_a_yes(run):
    version = said(run("put", "n", "k", '{"text": "private"}', "--json"))["id"]
    run("put", "n", "k", "2")

    refused = run("erase", "n", "k", code=1, input="n\n")
    assert "2 versions of n/k for good" in refused.stderr
    assert "nothing was done" in refused.stderr
    gone = said(run("erase", version[:12], "-m", "asked to", "--json", "--yes"))
    assert (gone["erased"], gone["clean"], len(gone["entries"])) == ([version], True, 1)
    run("put", "n", "k", "3")

    told = run("get", "n", "k", "--as-of", version, code=3)
    assert "was erased" in told.stderr
    assert "asked to" in told.stderr
    assert run("get", "n", "k").stdout == "3\n"
    listed = run("log", "n", "k", "--all").stdout
    assert "erased" in listed
    assert f"erase {version[:12]}" in listed
    [first, *_] = reversed(said(run("log", "n", "k", "--json")))
    assert first["erased_at"]
    run("erase", "n", "k", "--yes")
    assert "was deleted" in run("get", "n", "k", code=3).stderr
    verified = run("verify")
    assert "the content of 3 was erased" in verified.stdout
    assert said(run("verify", "--json"))["erased"] == 3
    run("erase", "n", "never", "--yes", code=3)


def test_what_came_from_what_is_erased_is_named(run, tmp_path):
    place = tmp_path / "derived.koru"
    with koru_delta.open(place) as db:
        for key in ("few", "many"):
            source = db.put("n", key, "private")
            count = 2 if key == "few" else 7
            derived = [
                db.put("facts", f"{key}{n}", n, causes=[("derived_from", source)]).id
                for n in range(count)
            ]
    told = run("erase", "n", "few", "--yes", "--db", place).stderr
    assert "2 versions came from it and may tell of it: " in told
    assert "..." not in told
    gone = run("erase", "n", "many", "--yes", "--db", place)
    assert f"7 versions came from it and may tell of it: {derived[0][:12]}, " in gone.stderr
    assert ", ... (--json has all)" in gone.stderr
    assert said(run("erase", "n", "many", "--yes", "--json", "--db", place))["derived"] == derived


def test_a_namespace_retains_what_it_is_told_to(run):
    for number in range(4):
        run("put", "n", "k", str(number))
    refused = run("retain", "n", "--versions", "1", code=1, input="n\n")
    assert "nothing was done" in refused.stderr
    told = said(run("retain", "n", "--versions", "2", "--keep", "1s", "--yes", "--json"))
    assert told == [{"namespace": "n", "keep_seconds": 1.0, "versions": 2, "horizon": None}]
    run("retain", "n", "--versions", "2", "--yes")

    swept = said(run("sweep", "--yes", "--json"))
    assert (swept["versions"], swept["namespaces"]) == (2, ["n"])
    assert "0 versions" in run("sweep", "n", input="y\n").stderr
    assert run("get", "n", "k").stdout == "3\n"
    assert "retains nothing" in run("keys", "n", "--as-of", "1", code=3).stderr
    [policy] = said(run("retain", "--json"))
    assert policy["horizon"]
    assert "n" in run("retain").stdout
    run("retain", "n", "--everything")
    assert "everything" in run("retain").stdout
    for wrong in (
        ["retain", "n"], ["retain", "--versions", "1"], ["retain", "n", "--keep", "soon"],
        ["retain", "n", "--keep", "1d", "--everything"], ["retain", "n", "--versions", "0"],
    ):  # fmt: skip
        run(*wrong, code=2)
    assert "bytes_returned" in said(run("compact", "--yes", "--json"))
    assert "shorter" in run("compact", input="y\n").stderr


def test_the_help_shows_the_extra_to_install(run):
    assert "koru-delta[documents]" in "".join(run("ingest", "files", "--help").stdout.split())


def test_an_empty_directory_has_no_files(run, tmp_path):
    (tmp_path / "empty").mkdir()

    told = run("ingest", "files", tmp_path / "empty", "--no-embed").stderr

    assert "no files were found there" in told
    assert "ask it" not in told


def test_a_namespace_of_chunks_is_refused_before_a_database_is_made(run, tmp_path):
    (tmp_path / "a.md").write_text("It rains.\n")

    refused = run("ingest", "files", tmp_path / "a.md", "-n", "kb.chunks", code=1)

    assert "ingest into 'kb', and search 'kb.chunks'" in refused.stderr
    assert not Path(".kdelta").exists()


def test_what_comes_back_from_a_quarantine_is_told_with_the_next_command(run, tmp_path):
    page = tmp_path / "a.md"
    page.write_text("It rains.\n")
    run("ingest", "files", page, "--no-embed")
    run("quarantine", "docs", "a.md", "--yes")
    page.write_text("It snows.\n")

    told = run("ingest", "files", page, "--no-embed").stderr

    assert "docs: 1 version of documents and 0 deletes, 1 chunk stored" in told
    assert "a.md can be found again" in told
    assert "kdelta quarantine docs a.md" in told


def test_a_filter_names_fields_of_chunks_as_here_or_as_in_python(run, tmp_path):
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(f"Rain in {name[0]}.\n")
    run("ingest", "files", tmp_path, "--no-embed")

    for where in (
        {"path": "a.md"}, {"metadata.path": "a.md"}, {"text": {"$prefix": "Rain in a"}},
        {"$or": [{"metadata.path": "a.md"}, {"path": "c.md"}]}, {"$not": {"path": "b.md"}},
        {"path": {"$prefix": "a"}, "metadata.path": {"$ne": "b.md"}},
    ):  # fmt: skip
        found = said(run("search", "docs", "rain", "--mode", "text", "--json",
                         "--filter", json.dumps(where)))  # fmt: skip
        assert [hit["path"] for hit in found["hits"]] == ["a.md"], where
    assert "$nor" in run("search", "docs", "rain", "--filter", '{"$nor": []}', code=2).stderr
    by = ("search", "docs", "rain", "--mode", "text", "--json", "--group-by", "metadata.path")
    assert len(said(run(*by))["hits"]) == 2


def test_a_release_tells_what_another_quarantine_still_holds(run):
    run("put", "n", "a", "1")
    for _ in range(2):
        run("quarantine", "n", "a", "--yes")

    told = run("release", "q1").stderr

    assert "0 versions can be found again" in told
    assert "kdelta release q2" in told


def test_a_path_without_a_kind_of_source_is_told_the_command(run, tmp_path):
    (tmp_path / ".git").mkdir()

    told = " ".join(run("ingest", tmp_path, code=2).stderr.split())

    assert f"kdelta ingest files {tmp_path}" in told
    assert f"kdelta ingest git {tmp_path}" in told
    assert "git" not in run("ingest", "nowhere", code=2).stderr


def test_one_of_a_thing_is_told_as_one(run, tmp_path):
    (tmp_path / "a.md").write_text("It rains.\n")
    run("ingest", "files", tmp_path, "--no-embed")
    (tmp_path / "a.md").unlink()

    gone = run("ingest", "files", tmp_path, "--no-embed").stderr
    same = run("retrieval-diff", "docs", "rains", "--from", "3", "--mode", "text").stderr

    assert "a.md is gone since, but still found; --prune deletes its document" in gone
    assert "the same 1 hit in the same order" in same


def test_lists_with_nothing_in_them_say_so(run):
    run("put", "a", "k", "1")

    assert run("tags").stderr == "no moment has a name; kdelta tag NAME gives one\n"
    assert run("quarantines").stderr == "nothing is in quarantine\n"
    assert run("retain").stderr == "every namespace retains all of its past\n"
    assert said(run("tags", "--json")) == {}
    assert said(run("quarantines", "--json")) == said(run("retain", "--json")) == []


def test_help_fills_the_lines_of_the_terminal_not_those_of_the_source():
    shown = kdelta("mcp", "--help").stdout
    told = " ".join(shown.partition("Arguments")[0].split())

    assert "Several may serve one directory at once." in told
    assert "mcp [OPTIONS] [DIRECTORY]" in told
    lines = [line.strip() for line in shown.splitlines()]
    first = next(line for line in lines if line.startswith("A client starts it"))
    assert len(first) > 68
