from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.vectors import __main__ as bench
from benchmarks.vectors import floors
from benchmarks.vectors.measuring import blocks, recall
from benchmarks.vectors.now import at_recall, reaching
from benchmarks.vectors.past import threshold
from benchmarks.vectors.report import Check, Part
from benchmarks.vectors.sets import kth_scores, lid
from benchmarks.vectors.stock import SHARES, History


def test_the_quick_form_measures_every_part_and_names_missing_peers(tmp_path, capsys):
    figures, docs = tmp_path / "figures.json", tmp_path / "figures.md"

    bench.main(["--quick", "--json", str(figures), "--docs", str(docs)])

    told = json.loads(figures.read_text())
    printed, written = capsys.readouterr().out, docs.read_text()
    assert list(told["parts"]) == list(bench.PARTS)
    for name, part in told["parts"].items():
        assert part["tables"] or "KORU_DATA" in part["skipped"], (name, part["skipped"])
        assert f"{name}:" in printed
        assert part["title"] in written
    for title, subjects in told["parts"]["now"]["measured"].items():
        if title.endswith("by turns"):
            assert len(subjects["KoruDelta"]) == 2
            continue
        assert subjects["koru"]["settings"]
        assert all(each.get("missing") or each["settings"] for each in subjects.values())
    for each in told["parts"]["past"]["measured"].values():
        assert all(0 <= case["recall"] <= 1 for case in each["cases"])
    assert "MISSED" in printed  # counted even where there is none
    assert "Written by `make bench-vectors`." in written
    assert str(tmp_path) not in written
    assert str(Path.home()) not in written


def test_tables_of_some_parts_say_what_measured_them(tmp_path):
    docs = tmp_path / "some.md"

    bench.write([Part("past", "Then")], {"cores": "2"}, None, None, docs, Console())

    assert "Written by `python -m benchmarks.vectors past`. cores 2." in docs.read_text()


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        bench.main(["speed"])

    assert stopped.value.code == 2
    assert "no part 'speed'" in capsys.readouterr().err


def test_a_disk_too_small_is_told_of_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    full = shutil.disk_usage(tmp_path)._replace(free=2 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)

    with pytest.raises(SystemExit) as stopped:
        bench.main(["--work", str(tmp_path)])

    assert stopped.value.code == 2
    assert "has 2: make room, pass --work" in capsys.readouterr().err


def test_a_part_that_fails_is_named_and_the_others_are_kept(tmp_path, monkeypatch):
    def full(_: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(floors, "run", full)
    figures = tmp_path / "figures.json"
    with pytest.raises(SystemExit, match="not measured: floors"):
        bench.main(["--quick", "commits", "floors", "--json", str(figures)])

    parts = json.loads(figures.read_text())["parts"]
    assert parts["commits"]["tables"]
    assert "No space left" in parts["floors"]["skipped"]


def test_no_query_is_used_twice():
    cut = blocks(100, warm=5, counted=20)

    used = [range(block.start, block.end) for block in (next(cut) for _ in range(4))]

    assert [(each.start, each.stop) for each in used] == [(0, 25), (25, 50), (50, 75), (75, 100)]
    with pytest.raises(RuntimeError, match="too few queries"):
        next(cut)


def test_recall_counts_equals_of_the_tenth_best_and_no_hit_twice():
    vectors = np.eye(20, dtype=np.float32)[:12]
    vectors[11] = vectors[9]
    query = np.linspace(1, 0.1, 20, dtype=np.float32)[None]
    tenth = kth_scores(vectors[:11], query)

    def found(*numbers: int) -> float:
        return recall([numbers], vectors, query, tenth, 11)

    assert found(*range(10)) == 1.0
    assert found(*range(9), 11) == 1.0  # row 11 is row 9 again
    assert found(*range(9), 10) == 0.9
    assert found(*[0] * 10) == 0.1


def test_a_history_knows_what_is_alive_at_each_moment():
    past = History(400)
    keys = past.keys.tolist()
    for written in (*(past.moment(share) for share in SHARES), past.stored):
        newest: dict[int, int] = {}
        for version in range(written):
            newest[keys[version]] = version

        assert past.alive(written).tolist() == sorted(newest.values())
    assert [len(past.alive(past.moment(share))) * 100 // 400 for share in SHARES] == list(SHARES)


def test_a_threshold_passes_about_the_share_asked_for():
    numbers = np.arange(10_000)

    shares = [float((numbers >= threshold(numbers, each)).mean()) for each in (50, 10, 1, 0.1)]

    assert shares == pytest.approx([0.5, 0.1, 0.01, 0.001], rel=0.01)


def test_the_local_dimension_of_a_flat_cloud_is_that_of_its_plane():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.standard_normal((64, 9)))[0].astype(np.float32)
    cloud = (rng.standard_normal((20_000, 9)) @ plane.T).astype(np.float32)
    cloud /= np.linalg.norm(cloud, axis=1, keepdims=True)  # a sphere in it: one dimension less

    assert lid(cloud[200:], cloud[:200]) == pytest.approx(8, rel=0.1)


def test_a_peer_is_compared_at_the_same_recall():
    settings = [{"recall": r, "us": u} for r, u in ((0.90, 10.0), (0.96, 20.0), (0.98, 40.0))]

    assert at_recall(settings, 0.97) == pytest.approx(30.0)
    assert at_recall(settings, 0.5) == 10.0
    assert at_recall(settings, 0.999) == 40.0
    assert reaching(settings, 0.95) == settings[1]
    assert reaching(settings, 0.99) is None


def test_a_target_is_met_or_missed_and_a_peer_is_behind_or_ahead():
    verdicts = [
        Check("call", figure, "us", "<=", 20.0, peer).verdict
        for peer in ("", "hnswlib")
        for figure in (20.0, 21.0)
    ]

    assert verdicts == ["met", "MISSED", "ahead", "BEHIND"]
