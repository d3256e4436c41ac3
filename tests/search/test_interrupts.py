"""What goes wrong in the middle of following the log leaves no half of it behind."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import koru_delta
from koru_delta.search.readings import SpaceReadings


@pytest.mark.parametrize("step", ["_truth", "_tiny", "_followed", "_load_vectors"])
def test_an_interrupted_search_leaves_the_past_as_it_was(
    db: koru_delta.Database, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    vectors = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    db.embed_many("v", [(f"a{n:02}", vector) for n, vector in enumerate(vectors[:30])])
    assert len(db.similar("v", vectors[0], k=99)) == 30
    then = db.embed_many("v", [(f"b{n:02}", vector) for n, vector in enumerate(vectors[30:])])[-1]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SpaceReadings, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            db.similar("v", vectors[0])
    db.embed("v", "late", vectors[0])

    past = db.similar("v", vectors[0], k=99, as_of=then, exact=True)
    assert sorted(hit.key for hit in past) == sorted(
        [f"a{n:02}" for n in range(30)] + [f"b{n:02}" for n in range(30)]
    )
    assert len(db.similar("v", vectors[0], k=99)) == 61


@pytest.mark.parametrize("step", ["_truth", "_tiny", "_followed", "_load_vectors"])
def test_a_write_that_is_interrupted_while_it_is_taken_up_is_made(
    db: koru_delta.Database, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    db.embed("v", "a", [1.0, 0.0])
    db.similar("v", [1.0, 0.0])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SpaceReadings, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            db.embed("v", "b", [0.0, 1.0])
    assert [hit.key for hit in db.similar("v", [0.0, 1.0])] == ["b", "a"]
    db.embed("v", "c", [1.0, 1.0])
    with ThreadPoolExecutor(1) as pool:  # no lock was left behind
        found = pool.submit(db.similar, "v", [0.0, 1.0]).result(timeout=60)
    assert [hit.key for hit in found] == ["b", "c", "a"]


def test_closing_while_threads_search_closes_everything(tmp_path: Path) -> None:
    for _ in range(5):
        db = koru_delta.open(tmp_path / "db", durability="relaxed")
        db.embed("v", "k", [1.0, 2.0])
        kept: list[koru_delta.Matches] = []

        def work(db: koru_delta.Database = db, kept: list[koru_delta.Matches] = kept) -> None:
            try:
                while True:
                    kept.append(db.similar("v", [1.0, 2.0]))
            except koru_delta.errors.DatabaseClosedError:
                pass

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(kept) < 50:
            pass
        db.close()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        assert kept[0][0].version.key == "k"


def test_a_search_that_can_start_no_thread_answers_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(0).standard_normal((5000, 8)).astype(np.float32)
    with koru_delta.open(tmp_path / "db") as db:
        db.embed_many("v", [(f"k{n}", vector) for n, vector in enumerate(vectors)])

        def refused(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refused)
        assert db.similar("v", vectors[7], k=1)[0].key == "k7"
