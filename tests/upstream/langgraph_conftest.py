"""The fixtures of LangGraph's own tests, made of KoruDelta's classes.

`langgraph.py` puts this in the place of their conftest. Where a test makes an
in-memory saver or store of LangGraph's itself, it is given one of KoruDelta's. The fixtures have
the parameters that name the snapshots of their tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any
from uuid import UUID

import langgraph.checkpoint.memory
import langgraph.store.memory
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import BaseStore

from koru_delta_langchain.langgraph import KoruDeltaNodeCache, KoruDeltaSaver, KoruDeltaStore

NO_DOCKER = True


def pytest_configure(config: pytest.Config) -> None:
    with suppress(ModuleNotFoundError):
        # Made of LangGraph's own saver, so imported before that is replaced.
        import_module("tests.memory_assert")
    places: Any = (langgraph.checkpoint.memory, langgraph.store.memory)
    places[0].InMemorySaver = places[0].MemorySaver = KoruDeltaSaver
    places[1].InMemoryStore = KoruDeltaStore


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def deterministic_uuids(mocker: Any) -> Any:
    numbered = (UUID(f"00000000-0000-4000-8000-{n:012}", version=4) for n in range(10000))
    return mocker.patch("uuid.uuid4", side_effect=numbered)


@pytest.fixture(params=["sync", "async", "exit"])
def durability(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["memory"])
def cache(request: pytest.FixtureRequest) -> Iterator[KoruDeltaNodeCache[Any]]:
    with KoruDeltaNodeCache() as opened:
        yield opened


@pytest.fixture(params=["in_memory"])
def sync_store(request: pytest.FixtureRequest) -> Iterator[BaseStore]:
    with KoruDeltaStore() as store:
        yield store


@pytest.fixture(params=["in_memory"])
async def async_store(request: pytest.FixtureRequest) -> AsyncIterator[BaseStore]:
    async with KoruDeltaStore() as store:
        yield store


@pytest.fixture(params=["memory"])
def sync_checkpointer(request: pytest.FixtureRequest) -> Iterator[BaseCheckpointSaver[str]]:
    with KoruDeltaSaver() as saver:
        yield saver


@pytest.fixture(params=["memory"])
async def async_checkpointer(
    request: pytest.FixtureRequest,
) -> AsyncIterator[BaseCheckpointSaver[str]]:
    async with KoruDeltaSaver() as saver:
        yield saver
