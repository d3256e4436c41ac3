"""The command line, called in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from koru_delta.surfaces import sample
from koru_delta.surfaces.cli import app

PROJECT = Path(__file__).parents[2]
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path: Path) -> None:
    for name in ("KORU_DELTA_DB", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KORU_DELTA_AUTHOR", "tester")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run() -> Run:
    runner = CliRunner()

    def call(*arguments: object, code: int | None = 0, input: str | None = None) -> Result:
        result = runner.invoke(app, [str(each) for each in arguments], input=input)
        assert code is None or result.exit_code == code, result.output
        return result

    return call


@pytest.fixture(scope="module")
def repo(tmp_path_factory) -> Path:
    return sample.make_sample(tmp_path_factory.mktemp("sample"))


def kdelta(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "koru_delta", *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, **options)


def said(result: Result) -> Any:
    return json.loads(result.stdout)
