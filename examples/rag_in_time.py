"""Retrieval for a language model that knows what was known when: ask of then, not of now.

The documents change, the question is about a day in the past. Search of now finds what is
said today, which is wrong for that day; the same search as of that day finds what was right.
Along the way: chunks, filters, reasons, lineage, a quarantine, and what changed and why.

Run it with: python examples/rag_in_time.py (needs the extra local). With KORU_DATA it reads
the real histories of Python Enhancement Proposals, else three years of a made-up handbook.
"""

from __future__ import annotations

import json
import lzma
import os
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import koru_delta
from koru_delta import CausalFilter, ChunkingConfig, HybridSearcher, Match, embedders
from koru_delta.ingest import Records
from koru_delta.surfaces import sample
from koru_delta.testing import FixedClock

PEPS = Path(os.environ.get("KORU_DATA", "."), "peps", "full-text-revisions.jsonl.xz")
CHUNKING = ChunkingConfig("content", size=800)  # an edit changes the chunks it touches
READ = (361, 373, 376, 492, 494, 498, 572)  # of the 70 that are there


class State(NamedTuple):
    """All documents as they stood from a moment on."""

    time: datetime
    author: str
    documents: dict[str, dict[str, str]]  # by id: text and metadata


class Question(NamedTuple):
    text: str
    day: str  # the day it is about
    then: str  # what the right answer says
    now: str  # what today's says instead


def peps() -> Iterator[State]:
    """Month by month, what some PEPs said at its end."""
    months: dict[tuple[int, int], list[dict[str, str]]] = defaultdict(list)
    with lzma.open(PEPS, "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["pep"] in READ]
    for row in sorted(rows, key=lambda row: row["committed_at"]):
        time = datetime.fromtimestamp(row["committed_at"], UTC)
        months[time.year, time.month].append(row)
    documents: dict[str, dict[str, str]] = {}
    for (year, month), changes in months.items():
        for row in changes:
            name = f"pep-{row['pep']}"
            documents[name] = {"text": row["text"], "status": row["status"], "topic": name}
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        yield State(end, "the PEP editors", dict(documents))


def handbook() -> Iterator[State]:
    for state in sample.states():
        yield State(
            state.time, state.author,
            {path: {"text": text, "status": "Active", "topic": path.partition("/")[0]}
             for path, text in state.files.items()},
        )  # fmt: skip


PEP_QUESTIONS = (
    Question("What is the syntax of a named expression?", "2018-03-10", "as NAME", "NAME :="),
    Question("How often does Python 3.6 receive bugfix updates?", "2016-06-15", "every 3-6 months",
             "every 3 months"),
)  # fmt: skip
HANDBOOK_QUESTIONS = (
    Question("How long are backups kept?", "2023-05-01", "kept for 30 days", "kept for one year"),
    Question("How many requests may a client send per minute?", "2023-05-01", "send 60 requests",
             "send 600 requests"),
)  # fmt: skip


def prompt(question: str, hits: list[Match]) -> str:
    """What a language model would be given: numbered sources, then the question."""
    sources = "\n\n".join(
        f"[{number}] {hit.value['metadata']['document']}, version {hit.version.id[:12]} of "
        f"{hit.version.time:%Y-%m-%d}:\n{hit.value['text']}"
        for number, hit in enumerate(hits, 1)
    )
    return f"Answer from these sources and cite them.\n\n{sources}\n\nQuestion: {question}"


def main() -> None:
    real = PEPS.is_file()
    states, questions = (peps(), PEP_QUESTIONS) if real else (handbook(), HANDBOOK_QUESTIONS)
    clock = FixedClock(0)  # the past is replayed: each state is ingested on its day
    db = koru_delta.open(embedder=embedders.local(), clock=clock)

    # 1. Ingest. Of a changed document only changed chunks are embedded again.
    chunks = embedded = 0
    for state in states:
        clock.now = int(state.time.timestamp() * 1_000_000)
        run = db.ingest(
            Records([{"id": name, **said} for name, said in state.documents.items()],
                    complete=True),
            namespace="docs", chunking=CHUNKING, author=state.author,
            progress=False,
        )  # fmt: skip
        chunks, embedded = chunks + run.chunks + run.unchanged_chunks, embedded + run.embedded
    clock.advance(seconds=86_400)
    print(f"{'PEPs' if real else 'A handbook'}: {chunks:,} chunks seen, {embedded:,} embedded")
    assert embedded < chunks

    # 2. Ask about a day: as of that day it is right, of now it is wrong.
    search = HybridSearcher(db, "docs.chunks", k=3)
    for question in questions:
        then = search.search(question.text, as_of=f"{question.day}T00:00:00Z")
        now = search.search(question.text)
        told_then, told_now = (prompt(question.text, hits) for hits in (then, now))
        assert question.then in told_then
        assert question.now not in told_then
        assert question.now in told_now  # what search without a time tells of that day
        print(f"\n{question.text}\n  on {question.day}: ... {question.then} ...", end="")
        print(f"  ({then[0].value['metadata']['document']})\n  today: ... {question.now} ...")

    # 3. Why was it found? The reasons add up, and every id in them can be looked up.
    [question, *_] = questions
    [best, *_] = search.search(question.text, as_of=f"{question.day}T00:00:00Z")
    why = best.explanation
    assert why is not None
    assert why.verify(db)
    print(f"\nWhy:\n{why}")

    # 4. Filters: on what documents say of themselves, and on where versions come from.
    about = best.value["metadata"]
    where = {"metadata.topic": about["topic"], "metadata.status": about["status"]}
    only = search.search(question.text, filter=where, as_of=f"{question.day}T00:00:00Z")
    assert only[0].version == best.version
    assert {hit.value["metadata"]["topic"] for hit in only} == {about["topic"]}
    early = search.search(question.text, causal=CausalFilter(before=f"{question.day}T00:00:00Z"))
    assert all(hit.version.time.isoformat() < question.day for hit in early)

    # 5. Where did it come from? From the chunk to its document and the run that read it.
    lineage = db.lineage(best)
    assert any(version.namespace == "docs.runs" for version in lineage.versions)
    print(f"\nFrom:\n{lineage}")

    # 6. A source turns out to be wrong: all that came of it leaves search, and can come back.
    rumour = f"{question.text} Never: {question.then} was only a joke."
    record = ("rumour", rumour, {"status": "Active", "topic": "hearsay"})
    db.ingest([record], namespace="docs", chunking=CHUNKING)
    before = db.commits()[-1]
    assert search.search(question.text)[0].value["metadata"]["document"] == "rumour"
    held = db.quarantine(("docs", "rumour"), message="hearsay")
    assert "rumour" not in prompt(question.text, search.search(question.text))
    assert search.search(question.text, as_of=before)[0].value["metadata"]["document"] == "rumour"
    print(f"\nQuarantined {len(held.versions)} versions that came of the rumour")

    # 7. How did the answer change since, and why? Each cause is tried by undoing it.
    changed = db.retrieval_diff("docs.chunks", question.text, f"{question.day}T00:00:00Z", k=3)
    print(f"\nSince {question.day}:\n{changed}")
    assert changed.changes
    assert all(change.verified for change in changed)
    db.close()


if __name__ == "__main__":
    main()
