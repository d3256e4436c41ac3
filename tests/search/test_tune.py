"""What searching costs is measured on this machine, kept, and changes no answer."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import koru_delta
from koru_delta import AsyncDatabase, Database
from koru_delta.search import codes, graph, tune
from koru_delta.search.bounds import Int8Bounds
from koru_delta.search.plan import Costs

DIMENSIONS = 32
NAMES = {field.name for field in fields(Costs)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "_SECONDS", 0.005)
    monkeypatch.setattr(tune, "_CODED_ROWS", (512, 2048))
    monkeypatch.setattr(tune, "_FED_ROWS", 500)
    monkeypatch.setattr(tune, "_MOST_BYTES", 16e6)


def fill(db: Database, namespace: str, rows: int, metric: Any = "cosine") -> np.ndarray:
    vectors = tune.made_up(rows, DIMENSIONS)
    items = [(f"k{number}", vector, number) for number, vector in enumerate(vectors)]
    db.embed_many(namespace, items, metric=metric)
    return vectors


def test_what_can_be_measured_is_and_the_rest_keeps_its_default() -> None:
    with koru_delta.open() as db:
        told: list[tuple[int, int]] = []
        found = db.tune(progress=lambda *so_far: told.append(so_far))

    measured = set(found["measured"])
    assert {"scan", "scan_far", "gather", "signs", "signs_call"} <= measured
    assert ("turbo4" in measured) is (codes.best_kind() == "turbo4")
    assert ("turbo4_place" in measured) is (codes.best_kind() == "turbo4")
    assert ("bounds" in measured) is Int8Bounds.available()
    assert ("graph_step" in measured) is graph.available()
    assert found["costs"].keys() == found["defaults"].keys() == NAMES
    assert found["defaults"] == Costs().to_json()
    for name in NAMES - measured:
        assert found["costs"][name] == found["defaults"][name]
    assert all(0 < cost < 1e9 for cost in found["costs"].values())
    assert (found["namespace"], found["rows"]) == (None, 2048)
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] > 1


def test_bounds_are_measured_by_what_scans_take_them_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Int8Bounds, "available", staticmethod(lambda: False))
    with koru_delta.open() as db:
        assert not {"bounds", "bounds_call"} & set(db.tune()["measured"])


def test_it_is_kept_for_every_later_opening(tmp_path: Path) -> None:
    with koru_delta.open(tmp_path / "db") as db:
        costs = db.tune()["costs"]
    assert json.loads((tmp_path / "db" / "index" / "costs.json").read_bytes()) == costs
    with koru_delta.open(tmp_path / "db") as db:
        assert db._vectors.upkeep.costs().to_json() == costs


def test_a_read_only_handle_tunes_for_itself_alone(tmp_path: Path) -> None:
    koru_delta.open(tmp_path / "db").close()
    with koru_delta.open(tmp_path / "db", read_only=True) as db:
        costs = db.tune()["costs"]
        assert db._vectors.upkeep.costs().to_json() == costs
    assert not list((tmp_path / "db").rglob("costs.json"))


def test_it_measures_the_vectors_there_are_if_they_are_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tune, "ENOUGH_ROWS", 1000)
    with koru_delta.open() as db:
        fill(db, "few", 999)
        assert db.tune()["namespace"] is None
        fill(db, "docs", 1500, "l2")

        found = db.tune()
        few = db.tune("few")

    assert (found["namespace"], found["model"]) == ("docs", "default")
    assert (found["dimensions"], found["rows"]) == (DIMENSIONS, 1500)
    assert few["namespace"] is None


def test_it_measures_the_model_in_use_and_not_one_that_was_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tune, "ENOUGH_ROWS", 1000)
    with koru_delta.open() as db:
        vectors = tune.made_up(1_500, DIMENSIONS)
        db.embed_many("v", [(f"k{n}", row, {"text": str(n)}) for n, row in enumerate(vectors)])
        db.reembed("v", "later", lambda texts: vectors[[int(t) for t in texts], :16])
        found = db.tune("v")
    assert (found["model"], found["dimensions"]) == ("later", 16)


def test_answers_are_the_same_before_and_after() -> None:
    with koru_delta.open() as db:
        vectors = fill(db, "docs", 3000)
        before = [list(db.similar("docs", query, exact=True)) for query in vectors[:20]]

        db.tune()

        assert [list(db.similar("docs", query, exact=True)) for query in vectors[:20]] == before
        for query, exact in zip(vectors[:20], before, strict=True):
            found = db.similar("docs", query)
            assert len(found) == len(exact)
            assert found[0] == exact[0]


def test_the_new_costs_choose_from_the_next_search_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with koru_delta.open() as db:
        query = fill(db, "docs", 300)[0]
        assert db.similar("docs", query).plan == "scan"
        dear = {"scan": 10.0, "scan_far": 10.0, "gather": 0.001, "gather_far": 0.001}
        monkeypatch.setattr(
            tune, "_scans", lambda _: {name: cost for name, cost in dear.items() if name in NAMES}
        )

        found = db.tune()

        assert db.similar("docs", query).plan == "gather"
    assert {plan["default"] for plan in found["plans"]} <= {"gather", "scan", "codes", "graph"}
    assert "scan" not in {plan["tuned"] for plan in found["plans"]}


def test_noise_that_makes_no_sense_is_not_taken_for_a_cost() -> None:
    assert tune._line((1, 2, 3), (30.0, 20.0, 10.0), "each", "once") == {}
    assert tune._line((5, 5), (10.0, 20.0), "each", "once") == {}
    found = tune._line((10, 20, 30), (100.0, 200.0, 300.0), "each", "once")
    assert found["each"] == pytest.approx(10)
    assert 0 < found["once"] <= 100


async def test_it_can_be_awaited() -> None:
    async with await AsyncDatabase.open() as adb:
        assert (await adb.tune())["seconds"] > 0
