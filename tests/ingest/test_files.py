from __future__ import annotations

import os
from pathlib import Path

import pytest

from koru_delta.errors import IngestError, InvalidDataError
from koru_delta.ingest.files import (
    PathFilter,
    Skipped,
    SkipReason,
    SourceFile,
    decode_text,
    read_files,
)


def write(path: Path, content: str | bytes = "text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def paths_of(found):
    return [item.path for item in found if isinstance(item, SourceFile)]


def skipped_in(found):
    return {item.path: item.reason for item in found if isinstance(item, Skipped)}


def test_files_come_in_name_order_with_posix_paths_text_and_time(tmp_path):
    for name in ["b.md", "a/z.md", "a/b/c.md", "a.md"]:
        write(tmp_path / name, f"I am {name}\r\n")
        os.utime(tmp_path / name, ns=(0, 1_600_000_000_123_456_789))

    assert list(read_files([tmp_path])) == [
        SourceFile(name, f"I am {name}\r\n", 1_600_000_000_123_456)
        for name in ["a/b/c.md", "a/z.md", "a.md", "b.md"]
    ]


def test_a_file_named_directly_goes_by_its_name(tmp_path):
    file = write(tmp_path / "deep" / "er" / "note.txt")

    assert paths_of(read_files([file])) == ["note.txt"]


def test_the_git_directory_is_left_out(tmp_path):
    write(tmp_path / ".git" / "config")
    write(tmp_path / "sub" / ".git", "gitdir: elsewhere")
    write(tmp_path / ".github" / "workflow.yml")

    found = list(read_files([tmp_path]))

    assert paths_of(found) == [".github/workflow.yml"]
    assert skipped_in(found) == {}


def test_what_is_not_text_is_reported_with_its_reason(tmp_path):
    write(tmp_path / "binary", b"\x00\x01")
    write(tmp_path / "latin1", "é".encode("latin-1"))
    write(tmp_path / "large", "x" * 11)
    write(tmp_path / "limit", "x" * 10)
    write(tmp_path / "empty", "")

    found = list(read_files([tmp_path], max_bytes=10))

    assert paths_of(found) == ["empty", "limit"]
    assert skipped_in(found) == {
        "binary": SkipReason.BINARY,
        "latin1": SkipReason.NOT_UTF8,
        "large": SkipReason.TOO_LARGE,
    }


def test_no_link_below_the_root_is_followed(tmp_path):
    secret = write(tmp_path / "outside" / "secret.txt", "secret")
    tree = tmp_path / "tree"
    write(tree / "own.txt")
    (tree / "file-link").symlink_to(secret)
    (tree / "directory-link").symlink_to(secret.parent)
    (tree / "loop").symlink_to(tree)
    (tree / "nowhere").symlink_to("missing")

    found = list(read_files([tree]))

    assert paths_of(found) == ["own.txt"]
    assert skipped_in(found) == dict.fromkeys(
        ["directory-link", "file-link", "loop", "nowhere"], SkipReason.SYMLINK
    )


def test_a_link_named_by_the_caller_is_followed(tmp_path):
    write(tmp_path / "tree" / "own.txt")
    (tmp_path / "link").symlink_to(tmp_path / "tree")

    assert paths_of(read_files([tmp_path / "link"])) == ["own.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_reported_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    assert list(read_files([tmp_path])) == [Skipped("pipe", SkipReason.NOT_A_FILE)]


def test_a_path_that_is_not_utf8_is_reported(tmp_path):
    try:
        write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")))
    except (OSError, ValueError):
        pytest.skip("this file system takes UTF-8 names only")

    assert list(read_files([tmp_path])) == [Skipped("\\xff.txt", SkipReason.PATH_NOT_UTF8)]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_what_may_not_be_read_is_reported(tmp_path):
    write(tmp_path / "closed.txt").chmod(0)
    write(tmp_path / "shut" / "a.txt").parent.chmod(0)

    found = skipped_in(read_files([tmp_path]))

    (tmp_path / "shut").chmod(0o700)
    assert found == {"closed.txt": SkipReason.UNREADABLE, "shut/": SkipReason.UNREADABLE}


def test_a_file_that_vanishes_while_reading_is_reported(tmp_path):
    write(tmp_path / "a.txt")
    write(tmp_path / "b.txt")
    found = read_files([tmp_path])

    assert next(found).path == "a.txt"
    (tmp_path / "b.txt").unlink()

    assert list(found) == [Skipped("b.txt", SkipReason.UNREADABLE)]


def test_several_roots_are_read_in_turn_and_the_same_one_once(tmp_path):
    write(tmp_path / "b" / "1.txt")
    write(tmp_path / "a" / "2.txt")

    found = read_files([tmp_path / "b", tmp_path / "a", tmp_path / "b" / "." / ".." / "b"])

    assert paths_of(found) == ["1.txt", "2.txt"]


def test_one_relative_path_from_two_roots_is_an_error(tmp_path):
    write(tmp_path / "a" / "readme.md")
    write(tmp_path / "b" / "readme.md")

    with pytest.raises(IngestError, match=r"'readme\.md' is found from both"):
        list(read_files([tmp_path / "a", tmp_path / "b"]))


def test_a_missing_root_is_an_error_before_anything_is_read(tmp_path):
    with pytest.raises(IngestError, match="check the path"):
        read_files([tmp_path, tmp_path / "missing"])


def test_a_deep_tree_is_no_problem(tmp_path):
    deep = tmp_path
    for _ in range(300):
        deep = deep / "d"
    write(deep / "f.txt")

    assert paths_of(read_files([tmp_path])) == ["d/" * 300 + "f.txt"]


def test_include_chooses_among_paths_without_a_report(tmp_path):
    for name in ["a.md", "docs/b.md", "docs/c.txt"]:
        write(tmp_path / name)
    (tmp_path / "docs" / "link.txt").symlink_to("c.txt")

    assert [item.path for item in read_files([tmp_path], include=["*.md"])] == [
        "docs/b.md",
        "a.md",
    ][::-1]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.md", ["a.md", "x/y/a.md", ".md", "new\nline.md"], ["a.mdx", "a.md/b"]),
        ("/*.md", ["a.md"], ["x/a.md"]),
        ("./a.md", ["a.md"], ["x/a.md"]),
        ("docs/*.md", ["docs/a.md"], ["docs/x/a.md", "a.md", "x/docs/a.md"]),
        ("docs/**/*.md", ["docs/a.md", "docs/x/y/a.md"], ["a.md", "docsx/a.md"]),
        ("docs/**", ["docs/a", "docs/x/a"], ["docs", "a"]),
        ("docs/", ["docs/a", "docs/x/a"], ["docs", "a"]),
        ("**/test_*.py", ["test_a.py", "x/y/test_a.py"], ["x/atest_a.py"]),
        ("**", ["a", "a/b"], []),
        ("a?c", ["abc", "x/a.c"], ["ac", "a/c"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "-x"]),
        ("[!a-c]x", ["dx"], ["ax"]),
        ("x[!a]y", ["xby"], ["x/y", "xay"]),
        ("a[", ["a["], ["a"]),
        ("[]]", ["]"], ["["]),
        ("a.c+(d)", ["a.c+(d)"], ["abc+(d)", "a.cc(d)"]),
        ("[\\d]", ["\\", "d"], ["1"]),
    ],
)
def test_patterns_mean_what_they_say(pattern, matching, others):
    chosen = PathFilter([pattern])

    assert [path for path in matching if not chosen.matches(path)] == []
    assert [path for path in others if chosen.matches(path)] == []


def test_any_of_several_patterns_is_enough_and_none_takes_all():
    assert PathFilter(["*.md", "*.py"]).matches("a.py")
    assert PathFilter().matches("anything/at all")


@pytest.mark.parametrize("patterns", [[""], ["/"], ["[z-a]"], "*.md"])
def test_patterns_that_make_no_sense_are_refused(patterns):
    with pytest.raises(InvalidDataError):
        PathFilter(patterns)


def test_text_is_utf8_without_nul():
    assert decode_text("é\n".encode()) == "é\n"
    assert decode_text(b"\xef\xbb\xbfx") == "\ufeffx"
    assert decode_text(b"a\0") is SkipReason.BINARY
    assert decode_text(b"\xed\xa0\x80") is SkipReason.NOT_UTF8
