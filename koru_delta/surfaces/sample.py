"""A small history to try things on: three years of the handbook of a made-up service."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from koru_delta.errors import IngestError

QUESTIONS: Final = (
    "How long are backups kept?",
    "Who is called when the service fails at night?",
    "How many requests may a client send per minute?",
)

_README = """\
# Harbour

Harbour books berths for ships. A port tells it which berths are free, a captain asks for
one, and Harbour makes sure that no two ships are promised the same place at the same hour.

## Getting started

Install it with `pip install harbour`, then run `harbour serve`. The server listens on port
{port}. The configuration is read from `harbour.toml`; every setting has a default, so an
empty file is a fine beginning.
"""

_BACKUPS_2023 = """\
# Operations

## Backups

A copy of the database is taken every Sunday and kept for 30 days. Copies lie on the same
disk as the database. To restore one, stop the server and put the file in its place; what
was booked since the copy is lost.

"""

_BACKUPS_2024 = """\
# Operations

## Backups

A copy of the database is taken every night and kept for one year. Copies are encrypted and
stored in another data centre; after 30 days they move to cold storage, from where a restore
takes up to six hours. Once a quarter a restore is rehearsed and the result written down.

"""

_NIGHT_2023 = """\
## When it is down

There is no rota. If the service fails at night, call whoever deployed last; the telephone
numbers hang beside the coffee machine. Most outages end when the server is started again.
"""

_NIGHT_2024 = """\
## When it is down

The engineer on call is paged when the service fails, at night as well as by day. The rota
changes on Mondays and is kept in the calendar `oncall`. A page that nobody has answered
after 15 minutes goes to the head of engineering. Write down what happened within two days.
"""

_LIMITS_2023 = """\
# Limits

A client may send 60 requests per minute. Whoever sends more is refused with status 429 until
the minute is over. There are no exceptions, not even for ports.
"""

_LIMITS_2024 = """\
# Quotas

A client may send 600 requests per minute, with bursts of up to 100 in one second. Ports have
a quota of their own, which is agreed in their contract. Whoever is over the quota gets status
429 and a `Retry-After` header that says how many seconds to wait.
"""

_PRICES = """\
# Prices

A booking costs 2 % of the berth fee, at least one euro. Cancelled bookings are free until
24 hours before arrival.
"""


class _Step(NamedTuple):
    when: str
    author: str
    message: str
    files: dict[str, str]
    removed: tuple[str, ...] = ()
    renamed: tuple[str, str] | None = None


_HISTORY = (
    _Step("2022-03-07", "Ada", "Say what Harbour is", {"README.md": _README.format(port=8080)}),
    _Step("2022-05-16", "Ada", "Describe backups and outages",
          {"docs/operations.md": _BACKUPS_2023 + _NIGHT_2023}),
    _Step("2022-09-02", "Ben", "Limit how much a client may ask",
          {"docs/limits.md": _LIMITS_2023, "docs/prices.md": _PRICES}),
    _Step("2023-06-21", "Ben", "Listen on port 7070, as 8080 is taken on most machines",
          {"README.md": _README.format(port=7070)}),
    _Step("2023-11-13", "Chen", "Introduce a rota after the outage of November",
          {"docs/operations.md": _BACKUPS_2023 + _NIGHT_2024}),
    _Step("2024-02-05", "Chen", "Call limits quotas, as the contracts do", {},
          renamed=("docs/limits.md", "docs/quotas.md")),
    _Step("2024-02-06", "Ben", "Raise the quota tenfold", {"docs/quotas.md": _LIMITS_2024}),
    _Step("2024-08-19", "Dora", "Keep backups for a year, encrypted and elsewhere",
          {"docs/operations.md": _BACKUPS_2024 + _NIGHT_2024}),
    _Step("2024-10-01", "Ada", "Take prices out of the handbook", {}, removed=("docs/prices.md",)),
)  # fmt: skip


class State(NamedTuple):
    """What the handbook held from a moment on, and who wrote what changed, and why."""

    time: datetime
    author: str
    message: str
    files: dict[str, str]


def states() -> Iterator[State]:
    """The states of the sample, oldest first, without git."""
    files: dict[str, str] = {}
    for step in _HISTORY:
        if step.renamed is not None:
            old, new = step.renamed
            files[new] = files.pop(old)
        for path in step.removed:
            del files[path]
        files |= step.files
        yield State(_noon(step), step.author, step.message, dict(files))


def make_sample(folder: Path) -> Path:
    """Make the sample repository with git, bare, in `folder`; the same hashes every time.

    Raises:
        IngestError: git is missing, or refuses.
    """
    repo = folder / "harbour"
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    environment |= {
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TEMPLATE_DIR": "",
    }  # fmt: skip
    commands = (
        ("git", "init", "--quiet", "--bare", "--initial-branch=main", str(repo)),
        ("git", "-C", str(repo), "fast-import", "--quiet"),
    )
    for command, given in zip(commands, (b"", _stream()), strict=True):
        try:
            subprocess.run(command, input=given, capture_output=True, check=True, env=environment)
        except FileNotFoundError as error:
            raise IngestError(
                "git is not installed, and the demo reads histories that git keeps; install git "
                "and run this again, or begin with: kdelta ingest files DIRECTORY"
            ) from error
        except subprocess.CalledProcessError as error:
            complaint = error.stderr.decode("utf-8", "replace").strip()
            raise IngestError(f"git could not make the sample history: {complaint}") from error
    return repo


def _stream() -> bytes:
    """The history as `git fast-import` reads it."""
    parts: list[bytes] = []
    for step in _HISTORY:
        noon = _noon(step)
        who = f"{step.author} <{step.author.lower()}@harbour.example> {int(noon.timestamp())} +0000"
        parts.append(f"commit refs/heads/main\nauthor {who}\ncommitter {who}\n".encode())
        parts.append(_data(step.message))
        if step.renamed is not None:
            parts.append(f"R {step.renamed[0]} {step.renamed[1]}\n".encode())
        parts += [f"D {path}\n".encode() for path in step.removed]
        for path, text in step.files.items():
            parts.append(f"M 100644 inline {path}\n".encode() + _data(text))
    return b"".join(parts)


def _noon(step: _Step) -> datetime:
    return datetime.fromisoformat(step.when).replace(hour=12, tzinfo=UTC)


def _data(text: str) -> bytes:
    data = text.encode()
    return b"data %d\n%s\n" % (len(data), data)
