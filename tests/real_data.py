"""What a test does when the real texts it needs are not there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Fail in the gate, where `what` must be; say so and skip elsewhere."""
    missing = f"KORU_DATA names no folder with {what}"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
