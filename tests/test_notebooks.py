"""Every notebook runs from its first cell to its last, offline."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PROJECT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("notebook", sorted((PROJECT / "notebooks").glob("*.ipynb")), ids=str)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own parts
def test_the_notebook_runs(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    cells = nbformat.read(notebook, as_version=4)
    NotebookClient(
        cells, timeout=240, resources={"metadata": {"path": str(notebook.parent)}}
    ).execute()
