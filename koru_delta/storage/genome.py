"""The genome of a deep file: a manifest, in JSON beside it, that a restored file is held to.

It says what was archived without holding any of it: hashes, counts, ranges of keys and times,
the centroid of the vectors of each space. From it alone nothing can be brought back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from blake3 import blake3

from koru_delta.storage.pace import gently
from koru_delta.storage.place import replacing
from koru_delta.storage.tierfile import Made, TierFile
from koru_delta.values import distinction_id

FORMAT: Final = 1
_DIGITS: Final = 6
_AT_ONCE: Final = 1_000

Rows = Callable[[str, Any], list[Any]]  # asks the log


def write(rows: Rows, file: TierFile, made: Made) -> None:
    """Write the genome of a file beside it, whole and synced.

    Raises:
        OSError, CorruptionError: it cannot be written, or the file not be read.
    """
    path = file.path.with_suffix(".json")
    with replacing(path) as out:
        out.write(orjson.dumps(describe(rows, file, made), option=orjson.OPT_INDENT_2))


def describe(rows: Rows, file: TierFile, made: Made) -> dict[str, Any]:
    """What a file holds, read from the file, and whose it is, as the log says."""
    entries = sorted(set(file.entries.tolist()))
    return {
        "format": FORMAT,
        "file": file.path.name,
        "number": file.number,
        "root": made.root.hex(),
        "bytes": made.size,
        "raw_bytes": made.raw,
        "blocks": file.hashes,
        **_content(rows, file),
        "entries": [entries[0], entries[-1]] if entries else None,
        **_origins(rows, entries),
    }


def problems(rows: Rows, file: TierFile, made: Made) -> Iterator[str]:
    """In what a file and its genome differ.

    Raises:
        CorruptionError: the file cannot be read.
    """
    path = file.path.with_suffix(".json")
    said = read(path)
    if said is None:
        yield (
            f"{path} is missing or no genome; the lifecycle's job 'genome' makes it anew from "
            f"{file.path.name}"
        )
        return
    found = describe(rows, file, made)
    for name in found.keys() | said.keys():
        if found.get(name) != said.get(name):
            yield f"{path} does not match {file.path.name}: {name} differs"


def read(path: Path) -> dict[str, Any] | None:
    """A genome, or None where there is none that can be read."""
    try:
        found = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _content(rows: Rows, file: TierFile) -> dict[str, Any]:
    """Counts, a hash over the ids of all items in order, and centroids."""
    content, bodies = blake3(), 0
    sums: dict[tuple[str, str], tuple[int, Any]] = {}
    spaces = _spaces(rows, file)
    item = 0
    for number in range(len(file)):
        block = file.block(number)
        for item in gently(file.items_of(number)):
            data = file.cut(block, number, item)
            if not file.is_floats(item):
                content.update(distinction_id("json", data))
                bodies += 1
                continue
            content.update(distinction_id("vec", data))
            vector = np.frombuffer(data, "<f4").astype(np.float64)
            for space in spaces.get(-int(file.owners[item]), ()):
                count, total = sums.get(space, (0, 0.0))
                sums[space] = (count + 1, total + vector)
    return {
        "content": content.hexdigest(),
        "bodies": bodies,
        "vectors": len(file.owners) - bodies,
        "spaces": [
            {
                "namespace": namespace, "model": model, "vectors": count,
                "centroid": np.round(total / count, _DIGITS).tolist(),
            }
            for (namespace, model), (count, total) in sorted(sums.items())
        ],
    }  # fmt: skip


def _spaces(rows: Rows, file: TierFile) -> dict[int, list[tuple[str, str]]]:
    """The spaces that each vector of a file is in, of the entry it came with."""
    found: dict[int, list[tuple[str, str]]] = {}
    entries = sorted(set(file.entries.tolist()))
    for start in range(0, len(entries), _AT_ONCE):
        places = orjson.dumps(entries[start : start + _AT_ONCE]).decode()
        for item, namespace, model in rows(
            """SELECT x.object, s.name, p.model FROM json_each(?) j
            CROSS JOIN versions v ON v.seq = j.value CROSS JOIN keys k ON k.key_id = v.key_id
            CROSS JOIN spaces p ON p.ns = k.ns CROSS JOIN namespaces s ON s.ns = p.ns
            CROSS JOIN vectors x ON x.space = p.space AND x.seq = v.seq WHERE x.object > 0""",
            (places,),
        ):
            known = found.setdefault(item, [])
            if (namespace, model) not in known:
                known.append((namespace, model))
    return {item: sorted(known) for item, known in gently(found.items())}


def _origins(rows: Rows, entries: list[int]) -> dict[str, Any]:
    """Times, and of each namespace how many entries and from which key to which."""
    times: list[int] = []
    names: dict[str, tuple[int, str, str]] = {}
    for start in range(0, len(entries), _AT_ONCE):
        places = orjson.dumps(entries[start : start + _AT_ONCE]).decode()
        for name, key, time in rows(
            """SELECT s.name, k.key, v.tx_time FROM json_each(?) j
            CROSS JOIN versions v ON v.seq = j.value CROSS JOIN keys k ON k.key_id = v.key_id
            CROSS JOIN namespaces s ON s.ns = k.ns""",
            (places,),
        ):
            times.append(time)
            count, first, last = names.get(name, (0, key, key))
            names[name] = (count + 1, min(first, key), max(last, key))
    return {
        "times": [min(times), max(times)] if times else None,
        "namespaces": {
            name: {"entries": count, "keys": [first, last]}
            for name, (count, first, last) in sorted(names.items())
        },
    }
