"""How the command line shows things: tables for people, one JSON document for programs.

Texts come from anywhere, so nothing in them may steer the terminal or be read as markup.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from koru_delta import Commit, Retention, Version
from koru_delta.ingest import Quarantine

_WIDTH_WHEN_PIPED: Final = 100
_TRUTH: Final = ("tail", "segments", "mapped")  # where the vectors themselves lie
_CONTROLS: Final = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {
    127: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    # What reorders text could make one line look like another.
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD),
}


def counted(number: int, what: str) -> str:
    """A number of things: `1 file`, `2 files`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def console(*, stderr: bool = False) -> Console:
    """A console for people, as wide as the terminal; 100 columns when piped."""
    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = _WIDTH_WHEN_PIPED
    return made


def clean(text: object) -> str:
    r"""The text with control characters made visible; tabs and line ends stay.

    >>> clean("red \x1b[31m")
    'red ␛[31m'
    """
    return str(text).replace("\r\n", "\n").translate(_CONTROLS)


def one_line(text: object, limit: int = 72) -> str:
    """The first line of a text, cut to `limit` characters."""
    first = clean(text).strip().partition("\n")[0].replace("\t", " ")
    return first if len(first) <= limit else first[: limit - 1].rstrip() + "…"


def gist(text: str, limit: int = 72) -> str:
    r"""The first line that is no heading, or else the first, cut to `limit` characters.

    >>> gist("# Rain\n\nIt rains.")
    'It rains.'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    plain = [line for line in lines if not line.startswith(("#", "==", "--", "```"))]
    return one_line((plain or lines or [""])[0], limit)


def print_json(value: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_value(value: object) -> None:
    """Print a value: text as it is, everything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    if sys.stdout.isatty():
        text = clean(text)
    sys.stdout.write(text + ("" if text.endswith("\n") else "\n"))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> Table:
    """A plain table; columns named in `right` hold numbers."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(
            name, justify="right" if name in right else "left", overflow="fold",
            no_wrap=name in ("version", "commit", "when", "valid from"),
        )  # fmt: skip
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row))
    return made


def when(moment: datetime | None) -> str:
    """A moment to the second, UTC.

    >>> when(None)
    ''
    """
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%SZ")


def size(count: float) -> str:
    """A number of bytes.

    >>> size(999), size(1_234_567)
    ('999 bytes', '1.2 MB')
    """
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_each:
            return f"{count / bytes_each:,.1f} {unit}"
    return f"{count:,.0f} bytes"


def quarantine_facts(held: Quarantine) -> dict[str, Any]:
    """A quarantine as JSON."""
    return {
        "quarantine": held.id, "time": held.time.isoformat(), "author": held.author,
        "message": held.message, "start": [version.id for version in held.start],
        "versions": [version.id for version in held.versions], "hidden": held.hidden,
    }  # fmt: skip


def retention_facts(policy: Retention) -> dict[str, Any]:
    """What a namespace retains, as JSON."""
    return {
        "namespace": policy.namespace,
        "keep_seconds": None if policy.keep is None else policy.keep.total_seconds(),
        "versions": policy.versions,
        "horizon": None if policy.horizon is None else policy.horizon.isoformat(),
    }


def space_parts(space: Mapping[str, Any]) -> str:
    """What a search of a vector space may look at."""
    segments = counted(space["segments"], "segment")
    told = [f"{segments} with codes {', '.join(space['codes'])}" if space["codes"] else segments]
    told.append(f"{space['in_tail']:,} in the tail")
    if space["in_graph"]:
        told.append(f"a graph of {space['in_graph']:,}")
    return ", ".join(told)


def print_space(out: Console, space: Mapping[str, Any]) -> None:
    """Print what `Database.stats` tells of a vector space."""
    sizes, each = space["bytes"], space["per_row"]
    per_row = {"truth": sum(each[name] for name in _TRUTH)} | {
        name: count for name, count in each.items() if name not in _TRUTH
    }
    resident = sum(sizes.values()) - sizes["mapped"]
    live = f" ({space['resident_per_live']:,.1f} bytes a live row)" if space["live"] else ""
    out.print()
    out.print(
        Text.assemble(
            (clean(space["namespace"]), "bold"),
            f"  {clean(space['model'])}, {space['dimensions']:,} numbers, {space['metric']}",
        ),
        soft_wrap=True,
    )
    for name, told in (
        (
            "rows",
            f"{space['rows']:,}, {space['live']:,} of them live; "
            f"{counted(space['vectors'], 'vector')}",
        ),
        ("searched by", space_parts(space)),
        ("bytes a row", ", ".join(f"{part} {count:,.1f}" for part, count in per_row.items())),
        ("in memory", size(resident) + live),
        ("mapped", size(sizes["mapped"])),
    ):
        out.print(Text.assemble((f"  {name:<13}", "dim"), told), soft_wrap=True)


def version_facts(version: Version, *, value: bool = False) -> dict[str, Any]:
    """A version as JSON."""
    facts: dict[str, Any] = {
        "id": version.id,
        "seq": version.seq,
        "operation": version.operation,
        **({} if version.target is None else {"target": version.target}),
        **({"targets": list(version.targets)} if version.operation == "erase" else {}),
        **({"erased_at": version.erasure.time.isoformat()} if version.erasure else {}),
        "namespace": version.namespace,
        "key": version.key,
        "time": version.time.isoformat(),
        "valid_from": version.valid_from.isoformat(),
        "valid_to": None if version.valid_to is None else version.valid_to.isoformat(),
        "author": version.author,
        "message": version.message,
        "run": version.run,
        "causes": [[cause.kind, cause.id] for cause in version.causes],
    }
    if value:
        facts["value"] = version.value
    return facts


def commit_facts(commit: Commit) -> dict[str, Any]:
    """A commit of the log as JSON."""
    return {
        "seq": commit.seq,
        "first_seq": commit.first_seq,
        "time": commit.time.isoformat(),
        "author": commit.author,
        "message": commit.message,
        "run": commit.run,
        "versions": commit.size,
        "root": commit.root,
    }


def text_of(value: object) -> str | None:
    """The text a value holds, if it is text or has a field `text`."""
    if isinstance(value, dict):
        value = value.get("text")
    return value if isinstance(value, str) else None


def unified(before: str, after: str, old: str, new: str, *, context: int = 3) -> list[str]:
    r"""The lines of a unified diff, without line ends.

    >>> unified("a\nb\n", "a\nc\n", "then", "now")
    ['--- then', '+++ now', '@@ -1,2 +1,2 @@', ' a', '-b', '+c']
    """
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), old, new, n=context, lineterm=""
    )
    return [line.rstrip("\n") for line in lines]


def diff_text(lines: Iterable[str]) -> Text:
    """A unified diff in the usual colours."""
    styles = {"+++": "bold", "---": "bold", "+": "green", "-": "red", "@": "cyan"}
    shown = Text()
    for line in lines:
        style = next((name for start, name in styles.items() if line.startswith(start)), "")
        shown.append(clean(line) + "\n", style=style)
    shown.right_crop(1)
    return shown
