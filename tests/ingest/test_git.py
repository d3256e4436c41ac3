from __future__ import annotations

import gc
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from koru_delta.errors import IngestError, InvalidDataError
from koru_delta.ingest import git as git_source
from koru_delta.ingest.files import Skipped, SkipReason
from koru_delta.ingest.git import (
    BlobReader,
    Commit,
    CommitRef,
    count_commits,
    ordered,
    read_history,
    repository_root,
)

SECOND = 1_000_000


class Repo:
    """A repository made with the real git, where every commit says when it happened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str, time: int = 0, stdin: bytes | None = None) -> str:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_AUTHOR_DATE": f"@{time + 5} +0200",
            "GIT_COMMITTER_NAME": "Carl",
            "GIT_COMMITTER_EMAIL": "carl@example.org",
            "GIT_COMMITTER_DATE": f"@{time} +0000",
        }
        done = subprocess.run(
            ["git", "-C", str(self.path), *arguments],
            env=env,
            input=stdin,
            capture_output=True,
            check=True,
        )
        return os.fsdecode(done.stdout).strip()

    def write(self, name: str, content: str | bytes = "text\n") -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, message: str, time: int) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message, time=time)
        return self.git("rev-parse", "HEAD")

    def blob(self, name: str, rev: str = "HEAD") -> str:
        return self.git("rev-parse", f"{rev}:{name}")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "repo")


def told(commit: Commit) -> list[tuple[str, ...]]:
    return [
        (change.status, change.path)
        if change.old_path is None
        else (change.status, change.old_path, change.path)
        for change in commit.changes
    ]


def story(repo: Repo, **options) -> list[tuple[str, list[tuple[str, ...]]]]:
    return [(commit.message, told(commit)) for commit in read_history(repo.path, **options)]


def lines(start: int, count: int = 40) -> str:
    return "".join(f"line {n} of a file\n" for n in range(start, start + count))


def test_a_commit_says_who_when_what_and_where_it_stands(repo):
    repo.write("a.txt", "one\n")
    first = repo.commit("Begin\n\nWith a body.\n\n", time=1000)
    repo.write("a.txt", "two\n")
    second = repo.commit("Go on", time=2000)

    history = read_history(repo.path)

    assert (history.root, history.head, len(history), history.is_shallow) == (
        repo.path,
        second,
        2,
        False,
    )
    assert history.refs[0] == CommitRef(first, None, 1000 * SECOND, 0)
    one, two = history
    assert one.message == "Begin\n\nWith a body."
    assert (one.sha, one.parent, one.position) == (first, None, 0)
    assert (two.sha, two.parent, two.position) == (second, first, 1)
    assert (one.committed_at, one.authored_at) == (1000 * SECOND, 1005 * SECOND)
    assert (one.author_name, one.author_email) == ("Ada", "ada@example.org")
    (change,) = two.changes
    assert (change.status, change.path, change.mode) == ("modified", "a.txt", 0o100644)
    assert change.old_blob == repo.blob("a.txt", first) == one.changes[0].blob
    assert change.blob == repo.blob("a.txt")
    assert list(history) == [one, two]


def test_renames_deletes_and_readds_are_told_apart(repo):
    repo.write("a.txt", lines(0))
    repo.write("dir/b.txt", lines(100))
    repo.commit("add", time=1)
    repo.git("mv", "a.txt", "moved.txt")
    repo.write("moved.txt", lines(0) + "one more\n")
    repo.commit("rename", time=2)
    repo.git("rm", "-q", "dir/b.txt")
    repo.commit("delete", time=3)
    repo.write("dir/b.txt", lines(100))
    repo.commit("again", time=4)
    repo.commit("nothing", time=5)

    assert story(repo) == [
        ("add", [("added", "a.txt"), ("added", "dir/b.txt")]),
        ("rename", [("renamed", "a.txt", "moved.txt")]),
        ("delete", [("deleted", "dir/b.txt")]),
        ("again", [("added", "dir/b.txt")]),
        ("nothing", []),
    ]
    deleted = list(read_history(repo.path))[2].changes[0]
    assert (deleted.blob, deleted.mode) == (None, 0)
    assert deleted.old_blob == repo.blob("dir/b.txt")


def test_a_merge_shows_what_it_brought_to_its_first_parent(repo):
    repo.write("a.txt")
    repo.commit("base", time=1)
    repo.git("checkout", "-q", "-b", "side")
    repo.write("b.txt", lines(0))
    repo.commit("side one", time=2)
    repo.write("c.txt", lines(100))
    repo.commit("side two", time=3)
    repo.git("checkout", "-q", "main")
    repo.write("a.txt", "changed\n")
    repo.commit("main", time=4)
    repo.git("merge", "-q", "--no-ff", "-m", "merge", "side", time=5)

    assert story(repo) == [
        ("base", [("added", "a.txt")]),
        ("main", [("modified", "a.txt")]),
        ("merge", [("added", "b.txt"), ("added", "c.txt")]),
    ]
    assert [commit for commit, _ in story(repo, rev="side")] == ["base", "side one", "side two"]


def test_equal_times_keep_the_chain_and_backward_times_are_sorted(repo):
    for number, when in enumerate([100, 100, 100, 50, 200]):
        repo.write("a.txt", f"{number}\n")
        repo.commit(f"c{number}", time=when)

    history = read_history(repo.path)

    assert [commit.message for commit in history] == ["c3", "c0", "c1", "c2", "c4"]
    assert [commit.position for commit in history] == [3, 0, 1, 2, 4]
    # Each is still compared with its parent, not with what was yielded before it.
    assert told(next(iter(history))) == [("modified", "a.txt")]
    assert ordered(reversed(history.refs)) == list(history.refs)


def test_skipped_commits_are_not_read_and_positions_stay(repo):
    shas = []
    for number in range(4):
        repo.write("a.txt", f"{number}\n")
        shas.append(repo.commit(f"c{number}", time=number))

    history = read_history(repo.path, skip={shas[0], shas[2]})

    assert [(commit.sha, commit.position) for commit in history] == [(shas[1], 1), (shas[3], 3)]
    assert list(read_history(repo.path, skip=shas)) == []


def test_include_turns_a_rename_across_its_border_into_add_or_delete(repo):
    repo.write("in/a.md", lines(0))
    repo.write("out.md", lines(100))
    repo.commit("one", time=1)
    repo.git("mv", "in/a.md", "a.md")
    repo.git("mv", "out.md", "in/out.md")
    repo.commit("two", time=2)
    repo.git("mv", "in/out.md", "in/still.md")
    repo.commit("three", time=3)

    assert story(repo, include=["in/**"]) == [
        ("one", [("added", "in/a.md")]),
        ("two", [("deleted", "in/a.md"), ("added", "in/out.md")]),
        ("three", [("renamed", "in/out.md", "in/still.md")]),
    ]
    with pytest.raises(InvalidDataError):
        read_history(repo.path, include=["[z-a]"])


def test_a_changed_mode_is_a_change_with_the_same_blob(repo):
    repo.write("run.sh")
    repo.commit("one", time=1)
    repo.git("update-index", "--chmod=+x", "run.sh")
    repo.git("commit", "-q", "-m", "two", time=2)

    change = list(read_history(repo.path))[1].changes[0]

    assert (change.status, change.mode) == ("modified", 0o100755)
    assert change.blob == change.old_blob


def test_links_and_submodules_are_skipped_and_a_file_that_becomes_one_is_deleted(repo, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    repo.write("file", lines(0))
    repo.write("keep", lines(100))
    head = repo.commit("files", time=1)
    (repo.path / "file").unlink()
    (repo.path / "file").symlink_to(secret)
    (repo.path / "link").symlink_to(secret)
    repo.git("add", "-A")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{head},sub")
    repo.git("commit", "-q", "-m", "links", time=2)
    (repo.path / "file").unlink()
    repo.write("file", lines(0))
    repo.git("rm", "-q", "--cached", "sub", "link")
    (repo.path / "link").unlink()
    repo.commit("back", time=3)

    files, links, back = read_history(repo.path)

    assert files.skipped == ()
    assert told(links) == [("deleted", "file")]
    assert set(links.skipped) == {
        Skipped("file", SkipReason.SYMLINK),
        Skipped("link", SkipReason.SYMLINK),
        Skipped("sub", SkipReason.SUBMODULE),
    }
    assert told(back) == [("added", "file")]
    assert back.skipped == ()
    assert [c.skipped for c in read_history(repo.path, include=["keep"])] == [(), (), ()]


def test_a_path_that_is_not_utf8_is_counted_and_left_out(repo):
    blob = repo.git("hash-object", "-w", "--stdin", stdin=lines(0).encode())
    repo.git("update-index", "--index-info", stdin=f"100644 {blob}\t".encode() + b"\xff.txt\n")
    repo.git("commit", "-q", "-m", "odd", time=1)
    repo.git(
        "update-index",
        "--index-info",
        stdin=b"0 " + b"0" * 40 + b"\t\xff.txt\n" + f"100644 {blob}\tgood.txt\n".encode(),
    )
    repo.git("commit", "-q", "-m", "named", time=2)

    odd, named = read_history(repo.path)

    assert odd.changes == ()
    assert odd.skipped == (Skipped("\\xff.txt", SkipReason.PATH_NOT_UTF8),)
    assert told(named) == [("added", "good.txt")]
    assert named.skipped == ()


ODD_NAMES = [
    "-dash",
    "--upload-pack=x",
    ":100644 100644 a b M",
    "two\nlines",
    "quo\"te's",
    "tab\there",
    "back\\slash",
    "*?[glob]",
    "\x01",
    " space ",
    "日本/語.txt",
    ":(top)magic",
]


def test_odd_file_names_come_through_as_they_are(repo):
    index = moved_index = b""
    for number, name in enumerate(ODD_NAMES):
        blob = repo.git("hash-object", "-w", "--stdin", stdin=lines(number * 1000).encode())
        index += f"100644 {blob}\t{name}".encode() + b"\0"
        moved_index += f"100644 {blob}\tnew/{name}".encode() + b"\0"
    repo.git("update-index", "-z", "--index-info", stdin=index)
    repo.git("commit", "-q", "-m", "odd", time=1)
    repo.git("update-index", "-z", "--index-info", stdin=moved_index)
    repo.git(
        "update-index",
        "-z",
        "--index-info",
        stdin=b"".join(b"0 " + b"0" * 40 + b"\t" + n.encode() + b"\0" for n in ODD_NAMES),
    )
    repo.git("commit", "-q", "-m", "moved", time=2)

    odd, moved = read_history(repo.path)

    assert sorted(told(odd)) == sorted(("added", name) for name in ODD_NAMES)
    assert sorted(told(moved)) == sorted(("renamed", name, f"new/{name}") for name in ODD_NAMES)
    with BlobReader(repo.path) as blobs:
        for change in odd.changes:
            assert blobs.text(change.blob) == lines(ODD_NAMES.index(change.path) * 1000)


def test_messages_and_names_may_be_odd_too(repo):
    tree = repo.git("write-tree")
    message = "\n:100644 000000 x y D\n\nnot an entry: é"
    raw = (
        f"tree {tree}\nauthor Zoë <z\u00eb@x> 7 +0000\ncommitter C <c@x> 9 -0300\n"
        f"encoding ISO-8859-1\n\n{message}"
    )
    sha = repo.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=raw.encode("latin-1"))
    bad = f"tree {tree}\nparent {sha}\nauthor \xff <x> zzz\ncommitter <> 10 +0000\n\n\xff"
    last = repo.git(
        "hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=bad.encode("latin-1")
    )

    one, two = read_history(repo.path, rev=last)

    assert (one.author_name, one.author_email, one.message) == ("Zoë", "zë@x", message)
    assert (one.authored_at, one.committed_at) == (7 * SECOND, 9 * SECOND)
    assert (two.author_name, two.message, two.authored_at) == ("\ufffd", "\ufffd", 0)


def test_a_time_beyond_the_calendar_is_moved_to_its_end(repo):
    tree = repo.git("write-tree")
    raw = f"tree {tree}\nauthor A <a> 1 +0000\ncommitter C <c> 99999999999999 +0000\n\nx\n"
    sha = repo.git(
        "hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=raw.encode()
    )

    (commit,) = read_history(repo.path, rev=sha)

    assert commit.committed_at == 253_402_300_799 * SECOND


def test_blobs_are_text_or_say_why_not(repo):
    contents = {
        "text": "é\r\n".encode(),
        "empty": b"",
        "binary": b"a\0b",
        "latin1": b"\xe9",
        "large": b"x" * 300_000,
        "after": b"still in step\n",
    }
    for name, content in contents.items():
        repo.write(name, content)
    repo.commit("all", time=1)

    with BlobReader(repo.path, max_bytes=100_000) as blobs:
        found = {name: blobs.text(repo.blob(name)) for name in contents}
        assert blobs.read(repo.blob("binary")) == b"a\0b"

    assert found == {
        "text": "é\r\n",
        "empty": "",
        "binary": SkipReason.BINARY,
        "latin1": SkipReason.NOT_UTF8,
        "large": SkipReason.TOO_LARGE,
        "after": "still in step\n",
    }


def test_text_conversion_by_attributes_is_not_applied(repo):
    repo.write(".gitattributes", "*.txt text eol=crlf filter=shout ident\n")
    repo.git("config", "filter.shout.smudge", "tr a-z A-Z")
    repo.git("config", "core.autocrlf", "true")
    blob = repo.git("hash-object", "-w", "--stdin", "--no-filters", stdin=b"quiet $Id$\n")

    with BlobReader(repo.path) as blobs:
        assert blobs.text(blob) == "quiet $Id$\n"


def test_a_missing_object_a_tree_and_a_bad_hash_are_errors(repo):
    repo.write("d/a")
    repo.commit("x", time=1)

    with BlobReader(repo.path) as blobs:
        with pytest.raises(IngestError, match="is a tree"):
            blobs.read(repo.blob("d"))
        assert blobs.text(repo.blob("d/a")) == "text\n"
        for bad in ["HEAD", "", "a" * 40 + "\nb", "--batch"]:
            with pytest.raises(IngestError, match="not a full object hash"):
                blobs.read(bad)
        with pytest.raises(IngestError, match="lacks objects"):
            blobs.read("0123456789" * 4)
        assert blobs.text(repo.blob("d/a")) == "text\n"
    with pytest.raises(IngestError, match="not open"):
        blobs.read(repo.blob("d/a"))


def test_a_missing_tree_is_an_error_while_iterating(repo):
    repo.write("d/a")
    repo.commit("x", time=1)
    tree = repo.git("rev-parse", "HEAD:d")
    (repo.path / ".git" / "objects" / tree[:2] / tree[2:]).unlink()

    with pytest.raises(IngestError, match="git fsck"):
        list(read_history(repo.path))


def test_nothing_the_repository_configures_is_run(repo, tmp_path):
    trap = tmp_path / "trap.sh"
    sprung = tmp_path / "sprung"
    trap.write_text(f'#!/bin/sh\necho "$0 $@" >> \'{sprung}\'\ncat "$1" 2>/dev/null\nexit 0\n')
    trap.chmod(0o755)
    repo.write(".gitattributes", "* diff=trap filter=trap\n")
    repo.write("a.txt", lines(0))
    repo.commit("one", time=1)
    repo.git("mv", "a.txt", "b.txt")
    repo.write("b.txt", lines(0) + "more\n")
    repo.commit("two", time=2)
    for name in [
        "core.fsmonitor",
        "core.pager",
        "core.editor",
        "core.sshCommand",
        "core.alternateRefsCommand",
        "core.askPass",
        "diff.external",
        "diff.trap.command",
        "diff.trap.textconv",
        "filter.trap.clean",
        "filter.trap.smudge",
        "filter.trap.process",
        "gpg.program",
        "credential.helper",
        "pager.rev-list",
        "pager.diff-tree",
        "pager.cat-file",
        "alias.rev-list",
        "alias.diff-tree",
    ]:
        repo.git("config", name, str(trap))
    repo.git("config", "log.showSignature", "true")
    for hook in (repo.path / ".git" / "hooks").iterdir():
        hook.unlink()
    for hook in ["post-index-change", "reference-transaction", "fsmonitor-watchman"]:
        (repo.path / ".git" / "hooks" / hook).symlink_to(trap)

    assert repository_root(repo.path) == repo.path
    assert count_commits(repo.path) == 2
    history = read_history(repo.path)
    assert [told(commit) for commit in history][1] == [("renamed", "a.txt", "b.txt")]
    with BlobReader(history.root) as blobs:
        for commit in history:
            for change in commit.changes:
                blobs.text(change.blob)

    assert not sprung.exists()
    with suppress(subprocess.CalledProcessError):
        repo.git("status")  # the trap does spring where nothing disarms it
    assert sprung.exists()


def test_a_partial_clone_fetches_nothing(repo, tmp_path):
    repo.write("a.txt", lines(0))
    repo.commit("one", time=1)
    blob = repo.blob("a.txt")
    repo.git("config", "uploadpack.allowFilter", "true")
    partial = tmp_path / "partial"
    repo.git(
        "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{repo.path}", str(partial)
    )

    assert [told(commit) for commit in read_history(partial)] == [[("added", "a.txt")]]
    with BlobReader(partial) as blobs, pytest.raises(IngestError, match="partial clone"):
        blobs.read(blob)

    packs = list((partial / ".git" / "objects" / "pack").glob("*.pack"))
    assert len(packs) == 1
    objects = repo.git("-C", str(partial), "cat-file", "--batch-check", "--batch-all-objects")
    assert blob not in objects


def test_a_shallow_clone_says_so_and_starts_with_every_file(repo, tmp_path):
    for number in range(3):
        repo.write(f"{number}.txt", lines(number * 100))
        repo.commit(f"c{number}", time=number)
    shallow = tmp_path / "shallow"
    repo.git("clone", "-q", "--depth=2", f"file://{repo.path}", str(shallow))

    history = read_history(shallow)

    assert history.is_shallow
    assert [told(commit) for commit in history] == [
        [("added", "0.txt"), ("added", "1.txt")],
        [("added", "2.txt")],
    ]


def test_replaced_and_grafted_commits_are_read_as_their_hashes_say(repo):
    shas = []
    for number in range(3):
        repo.write("a.txt", f"{number}\n")
        shas.append(repo.commit(f"c{number}", time=number))
    repo.git("replace", shas[2], shas[0])
    (repo.path / ".git" / "info" / "grafts").write_text(f"{shas[2]} {shas[0]}\n")

    assert [commit.sha for commit in read_history(repo.path)] == shas


def test_branches_tags_and_short_hashes_name_a_commit(repo):
    repo.write("a.txt", "1\n")
    first = repo.commit("one", time=1)
    repo.git("tag", "-a", "-m", "a tag", "v1", time=1)
    repo.write("a.txt", "2\n")
    repo.commit("two", time=2)

    for rev in ["v1", first, first[:10], "HEAD~1", "main^"]:
        assert read_history(repo.path, rev=rev).head == first
        assert count_commits(repo.path, rev=rev) == 1


@pytest.mark.parametrize(
    "rev",
    [
        "nonsense",
        "",
        "--upload-pack=x",
        "--all",
        "-h",
        "--output=sprung",
        "HEAD:a.txt",
        "HEAD^{tree}",
        "main..main",
        "main\nmain",
        "a\0b",
        "\ud800",
        "f" * 40,
    ],
)
def test_what_is_not_a_commit_is_an_error_that_says_what_to_name(repo, rev, monkeypatch):
    repo.write("a.txt")
    repo.commit("one", time=1)
    monkeypatch.chdir(repo.path)

    for ask in (read_history, count_commits):
        with pytest.raises(IngestError, match="name a branch, tag or commit"):
            ask(repo.path, rev=rev)

    assert sorted(entry.name for entry in repo.path.iterdir()) == [".git", "a.txt"]


def test_an_empty_repository_has_no_commits_and_no_history(repo):
    assert count_commits(repo.path) == 0
    with pytest.raises(IngestError, match="has no commits"):
        read_history(repo.path)


def test_a_directory_without_a_repository_is_told_so(tmp_path):
    for place in [tmp_path, tmp_path / "missing"]:
        assert repository_root(place) is None
        with pytest.raises(IngestError, match="not in a git repository"):
            read_history(place)
        with pytest.raises(IngestError, match="not in a git repository"):
            count_commits(place)


def test_a_repository_is_found_from_below_bare_and_by_odd_names(tmp_path):
    repo = Repo(tmp_path / "-odd\nname ")
    repo.write("sub/a.txt")
    repo.commit("one", time=1)
    bare = tmp_path / "bare.git"
    repo.git("clone", "-q", "--bare", ".", str(bare))

    assert repository_root(repo.path / "sub") == repo.path
    assert repository_root(repo.path / ".git") == repo.path / ".git"
    assert repository_root(bare) == bare
    for place in [repo.path / "sub", repo.path / ".git", bare]:
        assert [told(commit) for commit in read_history(place)] == [[("added", "sub/a.txt")]]


def test_a_relative_path_is_enough(repo, monkeypatch):
    repo.write("a.txt")
    repo.commit("one", time=1)
    monkeypatch.chdir(repo.path.parent)

    assert read_history(Path("repo")).root == repo.path


def test_the_callers_environment_does_not_point_elsewhere(repo, tmp_path, monkeypatch):
    repo.write("a.txt")
    head = repo.commit("one", time=1)
    other = Repo(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.path))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")

    assert read_history(repo.path).head == head


def test_without_git_the_error_says_what_to_install(repo, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    for ask in (repository_root, read_history, count_commits):
        with pytest.raises(IngestError, match="install git"):
            ask(repo.path)
    with pytest.raises(IngestError, match="install git"), BlobReader(repo.path):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives away")
def test_a_repository_of_someone_else_is_refused_with_the_way_to_trust_it(repo, monkeypatch):
    repo.write("a.txt")
    head = repo.commit("one", time=1)
    for place in [repo.path, repo.path / ".git"]:
        os.chown(place, 12345, 12345)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)

    for ask in (repository_root, read_history):
        with pytest.raises(IngestError, match=r"safe\.directory"):
            ask(repo.path)

    trusting = repo.path.parent / "trusting"
    trusting.write_text(f"[safe]\n\tdirectory = {repo.path}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(trusting))
    assert read_history(repo.path).head == head


@pytest.fixture
def started(monkeypatch):
    """The long-lived git processes started while the test runs."""
    processes: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            if options.get("stdin") != subprocess.DEVNULL:
                processes.append(self)

    monkeypatch.setattr(git_source.subprocess, "Popen", Recorded)
    return processes


def test_git_is_ended_however_the_reader_is_left(repo, started):
    for number in range(300):
        repo.write("a.txt", lines(number))
        repo.git("add", "-A")
        repo.git("commit", "-q", "-m", "x" * 2000, time=number)
    history = read_history(repo.path)

    for _ in history:
        break
    gc.collect()
    unfinished = iter(history)
    next(unfinished)
    unfinished.close()
    assert len(list(history)) == 300
    with suppress(KeyError), BlobReader(repo.path) as blobs:
        blobs.read(repo.blob("a.txt"))
        raise KeyError
    blobs.close()

    mine = [
        process for process in started if "--stdin" in process.args or "--batch" in process.args
    ]
    assert len(mine) == 4
    assert all(process.returncode is not None for process in mine)


def test_a_git_that_dies_in_between_is_an_error(repo, started):
    repo.write("a.txt")
    repo.commit("one", time=1)

    blob = repo.blob("a.txt")

    with BlobReader(repo.path) as blobs:
        blobs.read(blob)
        started[-1].kill()
        started[-1].wait()
        with pytest.raises(IngestError, match="git failed"):
            blobs.read(blob)


def import_stream(commits: int) -> bytes:
    parts = []
    for number in range(commits):
        message = f"commit {number}"
        content = lines(number, 30)
        parts.append(
            f"commit refs/heads/main\ncommitter C <c@x> {1000 + number} +0000\n"
            f"data {len(message)}\n{message}\n"
            f"M 100644 inline f{number % 50}.txt\ndata {len(content)}\n{content}\n"
        )
    return "".join(parts).encode()


def test_a_long_history_streams_without_a_deadlock_and_in_little_time(repo):
    repo.git("fast-import", "--quiet", stdin=import_stream(5000))

    began = time.perf_counter()
    history = read_history(repo.path)
    read = 0
    with BlobReader(history.root) as blobs:
        for commit in history:
            for change in commit.changes:
                assert blobs.text(change.blob) == lines(commit.position, 30)
                read += 1
    seconds = time.perf_counter() - began

    assert read == len(history) == count_commits(repo.path) == 5000
    assert seconds < 60
