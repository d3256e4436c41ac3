"""LangGraph's published suite for checkpointers, as it is, on disk and in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

from koru_delta_langchain.langgraph import KoruDeltaSaver


@pytest.mark.parametrize("stored", ["on disk", "in memory"])
async def test_every_capability_is_detected_and_passes(stored: str, tmp_path: Path) -> None:
    opened = 0

    @checkpointer_test(name="KoruDeltaSaver")
    async def saver() -> AsyncIterator[BaseCheckpointSaver[str]]:
        nonlocal opened
        opened += 1
        path = tmp_path / str(opened) if stored == "on disk" else None
        async with KoruDeltaSaver(path=path) as checkpointer:
            yield checkpointer

    report = await validate(saver)

    assert {name: (each.detected, each.passed) for name, each in report.results.items()} == {
        capability.value: (True, True) for capability in Capability
    }, [failure for each in report.results.values() for failure in each.failures]
    assert len(report.results) == 8
    assert not any(each.tests_skipped for each in report.results.values())
    assert all(each.tests_passed > 0 for each in report.results.values())


def test_without_langgraph_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["langgraph"] = None
import koru_delta_langchain
assert koru_delta_langchain.KoruDeltaVectorStore
for name in ("KoruDeltaSaver", "KoruDeltaStore", "KoruDeltaNodeCache"):
    try:
        getattr(koru_delta_langchain, name)
    except ImportError as error:
        assert "koru-delta[langgraph]" in str(error), error
    else:
        raise AssertionError(name)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
