"""What tests of search begin with."""

from __future__ import annotations

import pytest

from koru_delta.search import upkeep
from tests.indexing import SMALL, lower


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Some dozen rows have segments, codes and a graph, made when they are asked for."""
    lower(SMALL, monkeypatch.setattr)
    monkeypatch.setattr(upkeep.Upkeep, "nudge", lambda _self, _space: None)
    return monkeypatch
