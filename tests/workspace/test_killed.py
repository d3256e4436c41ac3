"""Whoever says what is true and is killed, or is not alone, leaves no fact beside what it ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from itertools import pairwise
from typing import Any

import pytest

import koru_delta
from koru_delta import Database
from koru_delta.testing import FixedClock
from koru_delta.workspace.shelf import Shelf
from tests.worker import ROOT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_killed_writers_leave_every_fact_whole() -> None:
    kills = "400" if float(os.environ.get("KORU_LONG_SECONDS", "0")) else "24"
    # In a process of its own: the killed ones are forks, and should inherit nothing from here.
    found = subprocess.run(
        [sys.executable, "-m", "tests.remembering", "--kills", kills],
        cwd=ROOT, capture_output=True, text=True, timeout=3_000,
    )  # fmt: skip

    assert found.returncode == 0, found.stdout + found.stderr
    assert " 0 problems" in found.stdout


def elsewhere(do: Any) -> None:
    """Do something as another thread does it, which shares no transaction."""
    thread = threading.Thread(target=do)
    thread.start()
    thread.join()


@pytest.mark.parametrize("known", [True, False])
def test_what_is_claimed_while_a_fact_is_said_is_ended_by_it(
    monkeypatch: pytest.MonkeyPatch, clock: FixedClock, known: bool
) -> None:
    with koru_delta.open(clock=clock) as db:
        memory, other = (db.workspace("w").ai_context() for _ in range(2))
        if known:  # and ended before
            other.remember_fact("home", "Bonn", source="bob", supersede=False)
        memory.remember_fact("home", "Rome")
        claims, done = Shelf.claims, list[bool]()

        def claimed_meanwhile(self: Shelf, *args: Any) -> list[str]:
            found = claims(self, *args)
            if not done:
                done.append(True)
                elsewhere(
                    lambda: other.remember_fact("home", "Oslo", source="bob", supersede=False)
                )
            return found

        monkeypatch.setattr(Shelf, "claims", claimed_meanwhile)
        told = memory.remember_fact("home", "Paris")

        assert memory.contradictions() == []
        assert [each.value for each in memory.recall("home")] == ["Paris"]
        assert told.valid_to is None
        oslo = next(each for each in memory.timeline("home") if each.value == "Oslo")
        assert oslo.valid_to == told.valid_from


def test_what_becomes_true_while_a_fact_is_said_is_no_change_to_come(
    monkeypatch: pytest.MonkeyPatch, clock: FixedClock
) -> None:
    with koru_delta.open(clock=clock) as db:
        memory, other = (db.workspace("w").ai_context() for _ in range(2))
        memory.remember_fact("home", "Bonn")
        history, done = Database.history, list[bool]()

        def said_meanwhile(self: Database, *args: Any, **options: Any) -> Any:
            if not done:
                done.append(True)
                clock.advance(seconds=1)
                elsewhere(lambda: other.remember_fact("home", "Oslo"))
                clock.advance(seconds=1)
            return history(self, *args, **options)

        monkeypatch.setattr(Database, "history", said_meanwhile)
        memory.remember_fact("home", "Paris")

        spans = memory.timeline("home")
        assert [each.value for each in spans] == ["Bonn", "Oslo", "Paris"]
        assert all(earlier.valid_to == later.valid_from for earlier, later in pairwise(spans))
        assert spans[-1].valid_to is None


def test_a_claim_that_is_new_to_who_says_a_fact_is_ended_all_the_same(
    monkeypatch: pytest.MonkeyPatch, clock: FixedClock
) -> None:
    with koru_delta.open(clock=clock) as db:
        memory, other = (db.workspace("w").ai_context() for _ in range(2))
        memory.remember_fact("home", "Bonn")
        claims, done = Shelf.claims, list[bool]()

        def claimed_before(self: Shelf, *args: Any) -> list[str]:
            if not done:  # after the transaction began, before it looked
                done.append(True)
                elsewhere(
                    lambda: other.remember_fact("home", "Oslo", source="bob", supersede=False)
                )
            return claims(self, *args)

        monkeypatch.setattr(Shelf, "claims", claimed_before)
        memory.remember_fact("home", "Paris")
        assert memory.contradictions() == []
        assert [each.value for each in memory.recall("home")] == ["Paris"]
