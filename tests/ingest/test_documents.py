"""PDF and HTML among the files that are ingested."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter
from reportlab.pdfgen.canvas import Canvas

import koru_delta
from koru_delta import Database
from koru_delta.errors import MissingExtraError
from koru_delta.ingest import SkipReason
from koru_delta.ingest.documents import Document, read_document
from koru_delta.ingest.files import SourceFile, read_files
from koru_delta.testing import HashEmbedder

PAGE = """<?xml version="1.0"?>
<!DOCTYPE html><html><head><title>All  about
weather</title><style>p { color: red }</style><script>alert("no")</script></head>
<body><h1>Weather</h1><p>It <b>rains</b> on the <a href="/plain">plain</a>.
<h2>Snow</h2><ul><li>white<li>cold</ul>
<table><tr><th>day<th>mm<tr><td>Monday<td>7</table>
<pre>def rain():
    return 7</pre><img alt="a cloud" src="data:image/png;base64,AAAA">
<noscript>turn it on</noscript></body></html>
"""
MARKDOWN = """# Weather

It **rains** on the [plain](/plain).

## Snow

- white
- cold

| day | mm |
| --- | --- |
| Monday | 7 |

```
def rain():
    return 7
```

![a cloud]()
"""


def write_pdf(path: Path, pages: list[list[str]], title: str | None = None) -> None:
    canvas = Canvas(str(path), invariant=1)
    if title is not None:
        canvas.setTitle(title)
    for lines in pages:
        for number, line in enumerate(lines):
            canvas.drawString(72, 760 - 14 * number, line)
        canvas.showPage()
    canvas.save()


def lines(about: str) -> list[str]:
    return [f"{about} falls on the plain, line {number}." for number in range(30)]


@pytest.fixture
def db() -> Iterator[Database]:
    with koru_delta.open(embedder=HashEmbedder(64)) as database:
        yield database


def test_html_becomes_markdown_that_is_cut_at_its_headings(db: Database, tmp_path: Path) -> None:
    (tmp_path / "weather.html").write_text(PAGE)

    run = db.ingest(tmp_path, namespace="docs")

    document = db.get("docs", "weather.html")
    assert (run.documents, run.skipped) == (1, {})
    assert document["text"] == MARKDOWN
    assert document["metadata"] == {"format": "html", "title": "All about weather"}
    [hit] = db.similar("docs.chunks", "it rains on the plain", k=1)
    assert hit.value["metadata"]["title"] == "All about weather"


def test_a_chunk_of_a_pdf_tells_its_page(db: Database, tmp_path: Path) -> None:
    write_pdf(tmp_path / "w.pdf", [lines("rain"), [], lines("snow"), ["The end."]], "Weather")

    run = db.ingest(tmp_path / "w.pdf", namespace="docs")

    document = db.get("docs", "w.pdf")
    assert (run.documents, run.skipped) == (1, {})
    assert document["metadata"] == {"format": "pdf", "title": "Weather"}
    starts = document["pages"]
    assert len(starts) == 4
    assert document["text"][starts[2] :].startswith("snow falls on the plain, line 0.")
    assert document["text"][starts[3] :] == "The end."
    for row in db.query("docs.chunks"):
        place = row.value["metadata"]
        text = row.value["text"]
        pages = [page for page, word in ((1, "rain"), (3, "snow"), (4, "The end")) if word in text]
        assert (place["page"], place["last_page"]) == (pages[0], pages[-1])
    [hit] = db.similar("docs.chunks", "snow falls", k=1, filter={"metadata.page": {"$gte": 2}})
    assert hit.value["metadata"]["page"] in (2, 3)


def test_a_chunk_that_moves_to_another_page_tells_the_new_one_and_is_not_embedded_again(
    db: Database, tmp_path: Path
) -> None:
    write_pdf(tmp_path / "w.pdf", [lines("rain"), lines("snow")])
    db.ingest(tmp_path, namespace="docs")
    before = {row.value["text"]: row.value["metadata"] for row in db.query("docs.chunks")}
    write_pdf(tmp_path / "w.pdf", [["Contents"], lines("rain"), lines("snow")])

    db.ingest(tmp_path, namespace="docs")

    after = {row.value["text"]: row.value["metadata"] for row in db.query("docs.chunks")}
    stayed = before.keys() & after.keys()
    assert stayed
    assert {after[text]["page"] - before[text]["page"] for text in stayed} == {1}


def test_what_cannot_be_read_is_skipped_with_its_reason(db: Database, tmp_path: Path) -> None:
    write_pdf(tmp_path / "whole.pdf", [lines("rain")])
    whole = (tmp_path / "whole.pdf").read_bytes()
    (tmp_path / "cut.pdf").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "text.pdf").write_text("not a PDF at all")
    (tmp_path / "empty.pdf").write_bytes(b"")
    write_pdf(tmp_path / "pictures.pdf", [[], []])
    locked = PdfWriter()
    locked.append(PdfReader(tmp_path / "whole.pdf"))
    locked.encrypt("secret", algorithm="RC4-128")
    locked.write(tmp_path / "locked.pdf")
    (tmp_path / "latin.html").write_bytes(b"<p>caf\xe9")
    (tmp_path / "nul.html").write_bytes(b"<p>\0")
    (tmp_path / "deep.html").write_text("<div>" * 20_000 + "x")
    (tmp_path / "large.pdf").write_bytes(b"%PDF-1.4\n" + b"0" * 320_000)
    (tmp_path / "large.html").write_text("<p>" + "x" * 20_000)

    run = db.ingest(tmp_path, namespace="docs", max_bytes=15_000)

    del run.skipped["deep.html"]  # larger than the limit as well
    assert {path: reason.name for path, reason in run.skipped.items()} == {
        "cut.pdf": "DAMAGED", "text.pdf": "DAMAGED", "empty.pdf": "DAMAGED",
        "pictures.pdf": "NO_TEXT", "locked.pdf": "ENCRYPTED", "latin.html": "NOT_UTF8",
        "nul.html": "BINARY", "large.pdf": "TOO_LARGE", "large.html": "TOO_LARGE",
    }  # fmt: skip
    assert read_document("html", b"<div>" * 20_000 + b"x") is SkipReason.TOO_DEEP
    assert db.list_keys("docs") == ["whole.pdf"]


def test_html_is_decoded_as_it_says_itself() -> None:
    page = '<meta charset="iso-8859-1"><p>café'
    found = read_document("html", page.encode("iso-8859-1"))
    assert isinstance(found, Document)
    assert found.text == "café\n"
    assert read_document("html", b'<meta charset="nonsense"><p>\xe9') is SkipReason.NOT_UTF8


def test_a_file_without_a_suffix_is_known_by_how_it_begins(tmp_path: Path) -> None:
    write_pdf(tmp_path / "paper", [["It rains."]])
    (tmp_path / "page").write_text("\n<!DOCTYPE html>\n<p>It snows.")
    (tmp_path / "note").write_text("about <html> and %PDF-1.4")
    (tmp_path / "source.py").write_text("<html>")

    found = [item for item in read_files([tmp_path]) if isinstance(item, SourceFile)]

    assert {item.path: item.text for item in found} == {
        "paper": "It rains.", "page": "It snows.\n", "note": "about <html> and %PDF-1.4",
        "source.py": "<html>",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "package"), [("a.pdf", "pypdf"), ("a.html", "markdownify")])
def test_without_the_extra_a_file_is_skipped_and_told_how_to_get_it(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    (tmp_path / name).write_bytes(b"anything")
    (tmp_path / "a.md").write_text("It rains.")
    monkeypatch.setitem(sys.modules, package, None)

    run = db.ingest(tmp_path, namespace="docs")

    assert (run.documents, list(run.skipped)) == (1, [name])
    assert "pip install 'koru-delta[documents]'" in run.skipped[name].value
    with pytest.raises(MissingExtraError, match=r"koru-delta\[documents\]"):
        db.ingest(tmp_path / name, namespace="docs")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_documents_never_raise(data: Any) -> None:
    kind = data.draw(st.sampled_from(["pdf", "html"]))
    original = PAGE.encode() if kind == "html" else PDF
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(0, 12))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(len(damaged) // 2, len(damaged))) :]

    found = read_document(kind, bytes(damaged))

    if isinstance(found, Document):
        found.text.encode()
        assert list(found.pages) == sorted(set(found.pages))
    else:
        assert isinstance(found, SkipReason)


def _pdf() -> bytes:
    canvas = Canvas("", invariant=1)
    canvas.drawString(72, 700, "It rains.")
    canvas.showPage()
    return bytes(canvas.getpdfdata())


PDF = _pdf()
