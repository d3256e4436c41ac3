"""What most tests begin with."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

import koru_delta
from koru_delta.storage import SqliteEngine
from koru_delta.testing import FixedClock, HashEmbedder

# How long anything takes is a matter of the machine, and of what else it does.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Who starts tests in the background may have them ignore it, and all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def db(clock: FixedClock) -> Iterator[koru_delta.Database]:
    with koru_delta.open(embedder=HashEmbedder(), clock=clock) as database:
        yield database


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Places of the log whose entries were read with their values, one after the other."""
    found: list[int] = []
    plain = SqliteEngine.at_many

    def at_many(self: Any, seqs: Any) -> Any:
        found.extend(seqs)
        return plain(self, seqs)

    monkeypatch.setattr(SqliteEngine, "at_many", at_many)
    return found
