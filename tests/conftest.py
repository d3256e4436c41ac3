"""What most tests begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import koru_delta
from koru_delta.testing import FixedClock, HashEmbedder


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def db(clock: FixedClock) -> Iterator[koru_delta.Database]:
    with koru_delta.open(embedder=HashEmbedder(), clock=clock) as database:
        yield database
