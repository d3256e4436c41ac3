"""What the command line takes in and finds, and how it tells of it."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

import koru_delta
from koru_delta import embedders
from koru_delta.errors import MissingExtraError
from koru_delta.search import tune as tuning
from koru_delta.testing import FixedClock, HashEmbedder
from tests.ingest.history_maker import HistoryMaker
from tests.surfaces.command import plain_environment, repo, run, said

__all__ = ["plain_environment", "repo", "run"]


# Ingest and search


def ingested(run: Any, place: Path, **notes: str) -> Path:
    """A folder with these notes, taken up."""
    folder = place / "notes"
    folder.mkdir()
    for name, text in notes.items():
        (folder / f"{name}.md").write_text(f"{text}\n")
    run("ingest", "files", folder, "-m", "first")
    return folder


def test_a_history_is_ingested_and_searched_now_and_then(run, repo):
    report = said(run("ingest", "git", repo, "--json"))
    again = run("ingest", "git", repo)

    assert (report["commits"], report["documents"]) == (9, 9)
    assert "nothing new" in again.stderr
    question = "how long are backups kept"
    now = said(run("search", "docs", question, "--json", "-k", 1))["hits"][0]
    [raised] = [
        commit
        for commit in said(run("keys", "docs.commits", "--json"))
        if "outages" in said(run("get", "docs.commits", commit, "--json"))["value"]["message"]
    ]
    then = said(run("search", "docs", question, "--valid-at", raised[:9], "--json"))["hits"][0]
    assert "kept for one year" in now["value"]["text"]
    assert "kept for 30 days" in then["value"]["text"]
    assert (now["author"], then["author"]) == ("Dora", "Ada")
    assert (now["path"], now["first_line"]) == ("docs/operations.md", 1)
    assert then["commit"] == raised
    shown = run("search", "docs", question, "-k", 2).stdout
    assert "docs/operations.md:1-7" in shown
    only = run("search", "docs", question, "--filter", '{"path": "README.md"}', "--json")
    assert {hit["path"] for hit in said(only)["hits"]} == {"README.md"}
    assert "30 days" in run("at", raised, "docs", "docs/operations.md").stdout
    assert (
        "-A copy of the database is taken every Sunday"
        in run("diff", "docs", "docs/operations.md", raised).stdout
    )
    early = run("at", "2023-01-01", "docs", "docs/operations.md", code=3)
    assert "--valid" in early.stderr


def test_a_fact_that_became_known_late_is_logged_with_both_times(run):
    with koru_delta.open(".kdelta") as db:
        memory = db.workspace("ada").ai_context()
        memory.remember_fact("city", "Paris", valid_from="2020-05-01T00:00:00Z")
        memory.remember_fact("city", "Rome", valid_from="2024-05-01T00:00:00Z")
        in_order = run("log", "ada/memory", "fact:city").stdout.splitlines()
        memory.remember_fact("city", "Bonn", valid_from="2012-05-01T00:00:00Z")

    lines = run("log", "ada/memory", "fact:city").stdout.splitlines()
    assert in_order[1].split()[:3] == ["version", "valid", "from"]
    assert lines[1].split()[:4] == ["version", "when", "valid", "from"]
    assert [line.split()[3] for line in lines if "Z" in line] == [
        "2012-05-01", "2024-05-01", "2020-05-01",
    ]  # fmt: skip


def test_the_lifecycle_is_told_with_what_is_wished_and_what_is_to_move(run):
    with koru_delta.open(".kdelta", clock=FixedClock()) as db:
        memory = db.workspace("ada").ai_context()
        memory.remember_episodes([{"text": f"talk {n}", "session": "s"} for n in range(5)])
        memory.remember_fact("city", "Paris")
        memory.consolidate(timedelta(0), below=1)
        [summary] = db.lifecycle.run_once("consolidate")
        db.lifecycle.policy(hot_bytes=1)
        db.lifecycle.pin("ada/memory", "fact:city")

    told, facts = run("lifecycle").stdout, said(run("lifecycle", "--json"))
    lines = [line.split(None, 1) for line in told.splitlines() if line.strip()]
    assert ["wished", "the whole database: at most 1 bytes of hot keys"] in lines
    assert ["pinned", "ada/memory fact:city"] in lines
    assert ["summaries", f"1, of 5 keys; the last is ada/memory {summary.key}"] in lines
    assert "to move         6 keys of 'ada/memory': hot to warm, importance" in told
    assert facts["tiers"]["hot"]["budget_bytes"] == 1
    assert facts["pins"] == [{"namespace": "ada/memory", "key": "fact:city"}]
    assert facts["summaries"] == {"count": 1, "sources": 5}
    assert [each["namespace"] for each in facts["policies"]] == [None, "ada/memory"]
    assert facts["plan"]["keys"] == 6


def test_a_hit_is_traced_and_what_it_came_from_is_quarantined(run, tmp_path):
    ingested(run, tmp_path, rain="It rains on the plain.", snow="It snows on the hill.")
    [chunk] = [key for key in said(run("keys", "docs.chunks", "--json")) if "rain" in key]
    version = said(run("log", "docs.chunks", chunk, "--json"))[0]["id"]

    up = run("lineage", "docs.chunks", chunk).stdout.splitlines()
    down = said(run("lineage", "docs", "rain.md", "--down", "--json"))
    asked = run("quarantine", "docs", "rain.md", input="n\n", code=1).stderr
    kept = said(run("search", "docs", "rains", "--json"))["hits"]
    held = said(run("quarantine", "docs", "rain.md", "--yes", "-m", "why", "--json"))
    gone = said(run("search", "docs", "rains", "--json"))["hits"]
    listed = run("quarantines").stdout
    told = run("release", "q1").stderr
    back = said(run("search", "docs", "rains", "--json"))["hits"]

    assert run("lineage", version[:12]).stdout.splitlines() == up
    assert [line.split(",")[0].split(": ")[-1] for line in up] == [
        f"docs.chunks/{chunk}", "docs/rain.md", "docs.runs/files-000001",
    ]  # fmt: skip
    assert down["nodes"][1]["id"] == version
    assert "|derived_from|" in run("lineage", version, "--mermaid").stdout
    assert "takes 2 versions out of search: 1 of docs, 1 of docs.chunks" in asked
    assert "nothing was done" in asked
    assert [len(hits) for hits in (kept, gone, back)] == [2, 1, 2]
    assert (held["quarantine"], held["hidden"], held["message"]) == ("q1", 2, "why")
    assert "docs/rain.md" in listed
    assert "2 versions can be found again" in told
    run("release", "q1", code=3)
    run("lineage", "docs", "nothing", code=3)
    run("quarantine", "feedfeedfeed", "--yes", code=3)


def test_files_are_ingested_and_the_gone_ones_told(run, tmp_path):
    folder = ingested(run, tmp_path, a="The moon is made of stone.", b="Cheese is made of milk.")
    (folder / "b.md").unlink()

    assert "gone" in run("ingest", "files", folder).stderr
    hits = said(run("search", "docs", "what is cheese made of", "--json"))["hits"]
    assert hits[0]["path"] == "b.md"
    assert said(run("ingest", "files", folder, "--prune", "--json"))["deleted_documents"] == 1
    assert run("keys", "docs").stdout == "a.md\n"
    assert said(run("log", "docs", "a.md", "--json"))[0]["message"] == "first"


def test_how_files_are_cut_can_be_named(run, tmp_path):
    (tmp_path / "guide.md").write_text("# Guide\n\n" + "Be brief. " * 40 + "\n\n## Setup\n\nRun.\n")
    run("ingest", "files", tmp_path / "guide.md", "--chunking", "markdown", "--no-embed")

    told = [
        said(run("get", "docs.chunks", key, "--json"))["value"]["metadata"]["headings"]
        for key in said(run("keys", "docs.chunks", "--json"))
    ]
    assert ["Guide"] in told
    assert "no strategy" in run("ingest", "files", tmp_path, "--chunking", "odd", code=1).stderr


def test_text_alone_needs_no_model(run, repo):
    assert said(run("ingest", "git", repo, "--no-embed", "--json"))["embedded"] == 0
    assert said(run("stats", "--json"))["vectors"] == 0
    assert "without vectors" in run("search", "docs", "backups").stderr


def test_commits_that_left_the_history_are_told_aloud(run, tmp_path):
    maker = HistoryMaker(tmp_path / "made")
    maker.commit(100, {"a.md": "one\n"})
    maker.commit(200, {"secret.md": "hush\n"})
    maker.commit(300, {"a.md": "two\n"}, onto=0)
    repo = maker.write()

    assert "note:" not in run("ingest", "git", repo, "--rev", "c1", "--no-embed").stderr
    note = " ".join(run("ingest", "git", repo, "--no-embed").stderr.split())
    assert "1 commit that was ingested earlier" in note
    assert "history was rewritten" in note
    assert "-n NAME" in note
    assert said(run("ingest", "git", repo, "--no-embed", "--json"))["elsewhere"] == 1


def test_a_mix_up_of_the_two_times_is_hinted_at(run, repo):
    run("ingest", "git", repo)
    path = "docs/operations.md"

    for command in (
        ("get", "docs", path, "--as-of", "2023-01-01"),
        ("search", "docs", "backups", "--as-of", "2023-01-01"),
    ):
        assert "did you mean --valid-at?" in run(*command, code=None).stderr
    assert "did you mean --valid?" in run("at", "2023-01-01", "docs", path, code=3).stderr
    for command in (
        ("get", "docs", path, "--valid-at", "2020-01-01"),
        ("search", "docs", "backups", "--valid-at", "2020-01-01"),
        ("at", "2020-01-01", "docs", path, "--valid"),
    ):
        assert "begins at 2022-03-07" in run(*command, code=None).stderr
    unknown = run("search", "docs", "backups", "--valid-at", "feedface", code=3).stderr
    assert "was not ingested into 'docs'" in unknown
    assert "time" not in unknown


def test_vectors_of_another_name_are_searched_where_they_may_be(run):
    local = embedders.local()
    with koru_delta.open(".kdelta") as db:
        vector = local.embed_query("a red gate")
        db.embed("mine", "k", vector, "a red gate", model="renamed")
        db.embed("both", "k", vector, "a red gate", model="one")
        db.embed("both", "k", vector, "a red gate", model="two")
        db.embed("short", "k", [1.0, 0.0], "a red gate", model="tiny")

    found = run("search", "mine", "gate", "--json")
    assert said(found)["hits"][0]["key"] == "k"
    assert "renamed" in found.stderr
    assert "--model" in run("search", "both", "gate", code=1).stderr
    assert said(run("search", "both", "gate", "--model", "two", "--json"))["hits"]
    short = run("search", "short", "gate", code=1).stderr
    assert "vectors of 2 numbers" in short
    assert "--mode text" in short
    assert said(run("search", "short", "gate", "--mode", "text", "--json"))["hits"]
    assert "--model" in run("search", "mine", "gate", "--model", "other", code=1).stderr


def vectors_of_their_own(rows: int = 300) -> None:
    chance = np.random.default_rng(3)
    with koru_delta.open(".kdelta") as db:
        items = [(f"k{n}", chance.standard_normal(32), f"the gate of {n}") for n in range(rows)]
        db.embed_many("docs", items, model="mine")
        db.embed_many("few", items[:10], model="mine")
        db.put("plain", "k", 1)


def test_an_answer_tells_how_it_was_found(run):
    local = embedders.local()
    with koru_delta.open(".kdelta") as db:
        texts = [f"a red gate, number {n}" for n in range(5)]
        items = list(zip("abcde", local(texts), texts, strict=True))
        db.embed_many("docs", items, model=local.name)

    found = run("search", "docs", "gate", "-k", 2, "--exact", "--json")
    facts = said(found)
    assert (facts["plan"], facts["approximate"], facts["considered"]) == ("scan+bm25", False, 5)
    assert found.stderr == ""
    assert "exact, by scan+bm25, out of 5" in run("search", "docs", "gate", "--recall", 0.8).stderr
    assert "recall" in run("search", "docs", "gate", "--recall", 2, code=2).stderr


def test_an_index_is_made_and_told_of(run):
    vectors_of_their_own(5000)

    made = said(run("index", "--json"))["spaces"]
    again = run("index", "-n", "docs").stderr
    facts = said(run("stats", "--json"))["vector_spaces"]
    shown = run("stats").stdout

    assert [(space["namespace"], space["live"]) for space in made] == [("docs", 5000), ("few", 10)]
    assert made[0]["segments"] >= 1
    assert "docs (mine): 5,000 vectors, 1 segment" in again
    assert "few" not in again
    assert "no vectors" in run("index", "-n", "plain").stderr
    assert [space["vectors"] for space in facts] == [5000, 10]
    for told in ("docs  mine, 32 numbers, cosine", "5,000, 5,000 of them live", "truth 128.0",
                 "10 in the tail", "in memory", "mapped"):  # fmt: skip
        assert told in shown
    assert re.search(r"vector memory +[0-9.]+ [kM]B \(with vector_memory=0: [0-9.]+ [kM]B\)", shown)
    for raw in ("vector spaces", "record spaces", "text indexes", "{", "["):
        assert raw not in shown


def test_costs_are_measured_and_kept(run, monkeypatch):
    monkeypatch.setattr(tuning, "_SECONDS", 0.005)
    monkeypatch.setattr(tuning, "_CODED_ROWS", (512, 1024))
    monkeypatch.setattr(tuning, "_FED_ROWS", 500)
    vectors_of_their_own()

    facts = said(run("tune", "--json"))
    shown = run("tune", "-n", "docs")

    assert json.loads(Path(".kdelta/index/costs.json").read_text()).keys() == facts["costs"].keys()
    assert "scan" in facts["measured"]
    for told in ("nanoseconds", "default", "measured", "scan far", "from now on"):
        assert told in shown.stdout
    assert "made-up vectors of 256 numbers" in " ".join(shown.stderr.replace(",", "").split())


def test_a_namespace_moves_to_the_local_model(run):
    vectors_of_their_own()
    assert "kdelta reembed" in run("search", "docs", "gate", code=1).stderr

    moved = said(run("reembed", "docs", "-m", "one model for all", "--json"))
    again, nowhere = run("reembed", "docs"), run("reembed", "nope")

    assert (moved["namespace"], moved["written"]) == ("docs", 300)
    assert "0 keys" in again.stderr
    assert "nothing is in nope" in nowhere.stderr
    assert len(said(run("search", "docs", "the gate of 7", "--json"))["hits"]) == 5
    [last, first] = said(run("log", "docs", "k7", "--json"))
    assert (last["message"], last["author"]) == ("one model for all", "tester")
    assert last["causes"] == [["derived_from", first["id"]]]


def test_of_an_ingested_namespace_the_chunks_are_moved(run, repo):
    run("ingest", "git", repo)
    with koru_delta.open(".kdelta") as db:
        db.reembed("docs.chunks", "theirs", HashEmbedder(16))

    moved = said(run("reembed", "docs", "--json"))

    assert moved["namespace"] == "docs.chunks"
    assert moved["written"] > 0
    hits = said(run("search", "docs", "how long are backups kept", "--json", "-k", 1))["hits"]
    assert hits[0]["commit"]
    assert "kept for one year" in hits[0]["value"]["text"]
    assert "nothing new" in run("ingest", "git", repo).stderr


# How search tells


def notes() -> None:
    """Some texts under keys, by two people, one of them derived from a source."""
    local = embedders.local()
    with koru_delta.open(".kdelta", embedder=local) as db:
        source = db.put("sources", "almanac", {"title": "Almanac"}, author="ben")
        for key, text, author, causes in (
            ("gate", "The gate is painted red and made of oak.", "ada", ()),
            (
                "wall",
                "The wall is made of stone, with ivy on it.",
                "ben",
                [("derived_from", source)],
            ),
            ("mill", "The mill grinds corn when the wind blows.", "ada", ()),
        ):
            db.embed("notes", key, text, {"text": text, "kind": "place"}, author=author,
                     causes=causes)  # fmt: skip


def found_keys(result: Result) -> list[str]:
    return [hit["key"] for hit in said(result)["hits"]]


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (("--mode", "text"), ["gate", "wall"]),
        (("--mode", "vector"), ["gate", "wall", "mill"]),
        ((), ["gate", "wall", "mill"]),
        (("--author", "ben"), ["wall"]),
        (("--author", "ben", "--author", "ada"), ["gate", "wall", "mill"]),
        (("--derived-from", "sources:almanac"), ["wall"]),
        (("--after", "2"), ["wall", "mill"]),
        (("--after", "2", "--before", "4"), ["wall"]),
        (("--run", "nightly"), []),
        (("--group-by", "kind"), ["gate"]),
    ],
)
def test_a_search_goes_by_words_meaning_or_both_and_by_where_things_come_from(run, options, keys):
    notes()

    result = run("search", "notes", "an oak gate, made by whom", *options, "--json")

    assert found_keys(result) == keys


def test_words_that_must_or_must_not_be_there_are_marked_unless_it_is_plain_text(run):
    notes()
    text = ("search", "notes", "made -oak", "--mode", "text", "--json")

    assert found_keys(run(*text)) == ["wall"]
    assert sorted(found_keys(run(*text, "--plain"))) == ["gate", "wall"]


def test_a_hit_tells_why_it_stands_there(run):
    notes()

    facts = said(run("search", "notes", "oak gate", "--explain", "--json", "-k", 1))["hits"][0]
    shown = run("search", "notes", "oak gate", "--explain", "-k", 1).stdout

    why = facts["explanation"]
    assert sum(part["contribution"] for part in why["parts"]) == pytest.approx(
        facts["score"], abs=1e-6
    )
    [words] = [part for part in why["parts"] if part["name"] == "text"]
    assert sorted(term["term"] for term in words["terms"]) == ["gate", "oak"]
    for told in ("by words #1 (", "by meaning #1 (similarity", "place without it", "1x here, in 1"):
        assert told in shown
    assert "--explain tells why" in run("search", "notes", "oak gate").stderr


def test_the_next_page_goes_on_from_a_cursor(run):
    notes()
    first = said(run("search", "notes", "made of", "-k", 2, "--json"))
    second = said(run("search", "notes", "made of", "-k", 2, "--cursor", first["cursor"], "--json"))

    keys = [hit["key"] for page in (first, second) for hit in page["hits"]]
    assert sorted(keys) == ["gate", "mill", "wall"]
    assert second["cursor"] is None


def test_without_the_model_it_is_searched_by_words_and_said_so(run, monkeypatch):
    notes()

    def missing() -> None:
        raise MissingExtraError("koru_delta.embedders.local", "local")

    monkeypatch.setattr(embedders, "local", missing)
    found = run("search", "notes", "oak", "--json")

    assert (said(found)["mode"], found_keys(found)) == ("text", ["gate"])
    assert "by words alone" in found.stderr
    assert "koru-delta[local]" in found.stderr
    assert found_keys(run("search", "notes", "oak", "--mode", "text", "--json")) == ["gate"]
    assert "--mode text" in run("search", "notes", "oak", "--mode", "vector", code=1).stderr
    assert "--mode is" in run("search", "notes", "oak", "--mode", "both", code=2).stderr


def test_of_an_ingested_history_what_came_of_a_commit_or_a_file_is_found(run, repo):
    run("ingest", "git", repo)
    commits = {
        said(run("get", "docs.commits", commit, "--json"))["value"]["message"].strip(): commit
        for commit in said(run("keys", "docs.commits", "--json"))
    }
    tenfold = commits["Raise the quota tenfold"]

    for source in (tenfold[:9], "docs/quotas.md"):
        hits = said(run("search", "docs", "requests", "--derived-from", source, "--json"))["hits"]
        assert {(hit["path"], hit["commit"]) for hit in hits} == {("docs/quotas.md", tenfold)}
    assert "no key" in run("search", "docs", "requests", "--derived-from", "nowhere", code=3).stderr
    best = said(run("search", "docs", "the service", "--group-by", "path", "--json"))["hits"]
    assert len({hit["path"] for hit in best}) == len(best)


def test_how_an_answer_changed_is_told_with_causes_that_were_tried(run):
    notes()
    run("tag", "before")
    local = embedders.local()
    with koru_delta.open(".kdelta", embedder=local) as db:
        text = "The gate is painted blue and made of ash."
        db.embed("notes", "gate", text, {"text": text}, author="chen", message="repainted")
        db.delete("notes", "wall", author="dora", message="fell down")

    ask = ("retrieval-diff", "notes", "the oak gate is made of", "--from", "tag:before")
    facts = said(run(*ask, "--json"))
    shown = " ".join(run(*ask).stdout.split())

    causes = {
        change["key"]: ([cause["name"] for cause in change["causes"]], change["verified"])
        for change in facts["changes"]
    }
    assert causes["gate"] == (["edited"], True)
    assert causes["wall"] == (["deleted"], True)
    for told in ("~ edited 1 → 1 gate", "by chen: repainted", "- left", "by dora: fell down",
                 "-The gate is painted red", "+The gate is painted blue"):  # fmt: skip
        assert told in shown
    assert "same" in run(*ask[:4], "tag:before", "--to", "tag:before").stderr
    assert "later" in run(*ask, "--to", "1", code=2).stderr


def test_of_an_ingested_history_two_commits_are_compared_by_what_was_true(run, repo):
    run("ingest", "git", repo)
    first = said(run("log", "docs", "docs/operations.md", "--json"))[-1]["valid_from"]
    ask = ("retrieval-diff", "docs", "how long are backups kept", "-k", 1)
    [commit] = [
        commit
        for commit in said(run("keys", "docs.commits", "--json"))
        if "outages" in said(run("get", "docs.commits", commit, "--json"))["value"]["message"]
    ]

    by_commit = said(run(*ask, "--from", commit[:9], "--json"))
    by_time = said(run(*ask, "--from", first, "--valid", "--json"))

    assert [change["kind"] for change in by_commit["changes"]] == ["edited"]
    assert by_time["changes"] == by_commit["changes"]
    assert "did you mean --valid?" in run(*ask, "--from", "2023-01-01").stderr


def test_what_is_hidden_is_not_found_until_it_is_unhidden(run):
    notes()

    hidden = run("hide", "notes", "gate", "-m", "wrong")
    without = found_keys(run("search", "notes", "oak", "--mode", "text", "--json"))
    back = run("unhide", "notes", "gate")

    assert "kdelta unhide notes gate" in hidden.stderr
    assert without == []
    assert "--all" in back.stderr
    assert found_keys(run("search", "notes", "oak", "--mode", "text", "--json")) == ["gate"]
    assert said(run("hide", "notes", "gate", "--json"))["operation"] == "hide"
    run("hide", "notes", "gate", code=1)
    run("hide", "notes", "door", code=3)


def test_of_a_hidden_document_it_is_said_that_its_chunks_are_found(run, repo):
    run("ingest", "git", repo, "--no-embed")

    assert "kdelta quarantine docs README.md" in run("hide", "docs", "README.md").stderr


def test_what_a_key_is_related_to_is_told_with_evidence(run):
    notes()

    relations = said(run("related", "notes", "wall", "--type", "causation", "--json"))
    shown = " ".join(run("related", "notes", "wall").stdout.split())

    assert [(r["kind"], r["source"]["key"]) for r in relations] == [("causation", "almanac")]
    assert "was brought about by sources almanac" in shown
    assert "derived_from" in shown
    assert "sequence" in run("related", "notes", "wall", "--type", "kinship", code=2).stderr
    assert "no key" in run("related", "notes", "door", code=3).stderr


def test_layers_are_a_tree_of_what_is_alike(run, repo):
    run("ingest", "git", repo)

    facts = said(run("layers", "docs", "--json"))
    shown = run("layers", "docs").stdout

    assert (facts["namespace"], facts["size"]) == ("docs.chunks", 4)
    assert len(facts["levels"]) == 2
    assert shown.splitlines()[0] == "docs.chunks  4 keys"
    assert "docs/operations.md" in shown
    assert "no vectors" in run("layers", "nothing").stderr


def test_a_chunk_is_no_longer_than_was_asked(run, repo):
    run("ingest", "git", repo, "--no-embed", "--chunk-size", 200)

    texts = [
        said(run("get", "docs.chunks", key, "--json"))["value"]["text"]
        for key in said(run("keys", "docs.chunks", "--json"))
    ]
    assert 150 < max(map(len, texts)) <= 200


def test_a_deleted_text_is_shown_as_a_diff(run):
    run("put", "a", "k", json.dumps({"text": "one\ntwo\n"}))
    run("delete", "a", "k")
    gone = run("diff", "a", "k").stdout
    run("put", "a", "k", json.dumps({"text": "three\n"}))
    back = run("diff", "a", "k").stdout

    assert "-one\n-two" in gone
    assert "(deleted)" in gone
    assert "+three" in back


def test_a_moment_can_be_named(run):
    run("put", "a", "k", "1")
    assert said(run("tag", "first", "--json")) == {"first": 1}
    run("put", "a", "k", "2")

    assert run("get", "a", "k", "--as-of", "tag:first").stdout == "1\n"
    assert said(run("tags", "--json")) == {"first": 1}
    assert "first" in run("tags").stdout
    assert "--move" in run("tag", "first", code=4).stderr
    run("tag", "first", "--move")
    assert run("get", "a", "k", "--as-of", "tag:first").stdout == "2\n"


def test_the_version_is_told(run):
    assert run("--version").stdout == f"kdelta {koru_delta.__version__}\n"
