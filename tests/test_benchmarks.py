from __future__ import annotations

import json

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.measure import Row, at_most, by_turns, ratio_at_least, ratio_at_most
from benchmarks.peps import data_file
from tests.real_data import lacking


@pytest.mark.parametrize("name", sorted(benchmarks.SUBJECTS))
def test_every_subject_runs_and_prints_its_figures(name, tmp_path, capsys):
    if name in ("storage", "synthesis", "text") and data_file() is None:
        lacking("the PEP revisions")
    kept = tmp_path / "figures.json"

    benchmarks.main([name, "--scale", "0.001", "--versions", "100000", "--json", str(kept)])

    figures = json.loads(kept.read_text())["figures"][name]
    printed = capsys.readouterr().out
    assert figures
    # So few vectors may fit into what the process had already.
    assert all(figure["ours"] > 0 or "memory above idle" in figure["what"] for figure in figures)
    assert all(figure["what"].split(",")[0] in printed for figure in figures)


def test_an_unknown_subject_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmarks.main(["speed"])

    assert stopped.value.code == 2
    assert "no subject 'speed'" in capsys.readouterr().err


def test_one_target_of_several_is_enough():
    slow_but_near = Row("get", 300, "ns", 50, "look-up", (at_most(250), ratio_at_most(8)))
    fast = Row("get", 200, "ns", 10, "look-up", (at_most(250), ratio_at_most(8)))
    neither = Row("get", 300, "ns", 10, "look-up", (at_most(250), ratio_at_most(8)))
    context = Row("get", 300, "ns")

    assert [row.met for row in (slow_but_near, fast, neither, context)] == [
        True, True, False, None,
    ]  # fmt: skip
    assert Row("rate", 90, "/s", 10, "one", (ratio_at_least(8),)).met


def test_sides_take_turns_in_every_round():
    calls: list[tuple[str, int]] = []

    by_turns((lambda n: calls.append(("a", n)), lambda n: calls.append(("b", n))), 2, warm_up=1)

    assert calls == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]


def test_several_subjects_are_measured_apart_and_kept_together(tmp_path, capfd):
    kept = tmp_path / "figures.json"

    benchmarks.main(["get", "search", "--scale", "0.001", "--json", str(kept)])

    figures = json.loads(kept.read_text())["figures"]
    printed = capfd.readouterr().out
    assert list(figures) == ["get", "search"]
    assert all(row["what"].split(",")[0] in printed for rows in figures.values() for row in rows)
    assert printed.count("Medians of interleaved rounds") == 1
