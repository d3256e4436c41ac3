"""The adapters of frameworks beside the core's own calls, and beside the frameworks' others.

The embedding does nothing: vectors are made beforehand. The core's side makes the same
calls with the same vectors and reads what it finds. Each framework is a module that may
be missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from benchmarks.measure import Row, SkippedError

# The module that measures, and the package it needs.
FRAMEWORKS = (
    ("benchmarks.adapters_langchain", "langchain_core"),
    ("benchmarks.adapters_llamaindex", "llama_index"),
    ("benchmarks.adapters_langgraph", "langgraph"),
)


def run(folder: Path, scale: float) -> Iterator[Row]:
    there = [module for module, needs in FRAMEWORKS if find_spec(needs) is not None]
    if not there:
        raise SkippedError("no framework is installed")
    for module in there:
        yield from import_module(module).run(folder, scale)
