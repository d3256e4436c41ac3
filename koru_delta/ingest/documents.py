"""Text out of PDF and HTML, by the libraries of the extra `documents`.

HTML becomes Markdown, so that its headings, lists and tables are still there to be cut
at; scripts, styles and the head are left out. A PDF becomes the text of its pages, in
order, with a note of where each begins. Knows nothing of the database.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import Final, Literal

from koru_delta.ingest.reasons import SkipReason

Kind = Literal["pdf", "html"]

_SUFFIXES: Final[dict[str, Kind]] = {
    ".pdf": "pdf", ".html": "html", ".htm": "html", ".xhtml": "html",
}  # fmt: skip
_PACKAGES: Final[dict[Kind, tuple[str, ...]]] = {
    "pdf": ("pypdf",), "html": ("bs4", "lxml", "markdownify"),
}  # fmt: skip
_PDF_HEADER: Final = re.compile(rb"\A[\x00-\x20]{0,64}%PDF-[12]\.")
_HTML_HEADER: Final = re.compile(rb"\A(?:\xef\xbb\xbf)?\s{0,64}<(?:!doctype html|html)[\s>]", re.I)
_XML_DECLARATION: Final = re.compile(r"\A\ufeff?\s*<\?xml[^>]{0,200}\?>")
_LONE: Final = re.compile("[\ud800-\udfff\0]")
_BLANK_LINES: Final = re.compile(r"\n(?:[ \t]*\n){2,}")
_WITHOUT_TEXT: Final = ("head", "iframe", "noscript", "script", "style", "svg", "template")
_PAGE_BREAK: Final = "\n\n"


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says: its text, title (None if it tells none), and where its pages begin.

    `pages` holds the character at which each page begins, the first at 0; it is empty for
    what has no pages.
    """

    kind: Kind
    text: str
    title: str | None = None
    pages: tuple[int, ...] = ()


def kind_of(path: str, data: bytes) -> Kind | None:
    """Whether a file is a PDF or HTML: by its suffix, else by how it begins.

    >>> kind_of("a.HTML", b""), kind_of("a", b"%PDF-1.7"), kind_of("a.md", b"<html>")
    ('html', 'pdf', None)
    """
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    if dot > 0:
        return _SUFFIXES.get(name[dot:].lower())
    if _PDF_HEADER.match(data):
        return "pdf"
    return "html" if _HTML_HEADER.match(data[:200]) else None


def is_installed(kind: Kind) -> bool:
    """Whether what reads such files is installed."""
    try:
        for name in _PACKAGES[kind]:
            import_module(name)
    except ImportError:
        return False
    return True


def read_document(kind: Kind, data: bytes) -> Document | SkipReason:
    """The text of a PDF or HTML file, or why there is none."""
    if not is_installed(kind):
        return SkipReason.NEEDS_DOCUMENTS
    return _read_pdf(data) if kind == "pdf" else _read_html(data)


def _read_pdf(data: bytes) -> Document | SkipReason:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    # What it thinks of a file is told by the reason alone.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = PdfReader(BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            return SkipReason.ENCRYPTED
        texts = [_LONE.sub("\ufffd", page.extract_text()).strip() for page in reader.pages]
        about = reader.metadata
        title = None if about is None else about.title
    except (DependencyError, FileNotDecryptedError):
        return SkipReason.ENCRYPTED
    except Exception:  # noqa: BLE001 - a damaged file makes it raise anything; told as the reason
        return SkipReason.DAMAGED
    if not any(texts):
        return SkipReason.NO_TEXT
    pages = []
    at = 0
    for text in texts:
        pages.append(at)
        at += len(text) + len(_PAGE_BREAK)
    return Document("pdf", _PAGE_BREAK.join(texts), _title(title), tuple(pages))


def _read_html(data: bytes) -> Document | SkipReason:
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    markup = _decode_html(data)
    if isinstance(markup, SkipReason):
        return markup
    if "<" not in markup:  # no markup at all
        return Document("html", markup)
    try:
        soup = BeautifulSoup(_XML_DECLARATION.sub("", markup), "lxml")
        title = None if soup.title is None else soup.title.get_text()
        for element in soup.find_all(_WITHOUT_TEXT):
            element.decompose()
        for image in soup.find_all("img", src=re.compile(r"\A\s*data:", re.I)):
            image["src"] = ""  # the picture itself is no text
        text = MarkdownConverter(heading_style="ATX", bullets="-").convert_soup(soup)
    except RecursionError:
        return SkipReason.TOO_DEEP
    except Exception:  # noqa: BLE001 - as above
        return SkipReason.DAMAGED
    return Document("html", _BLANK_LINES.sub("\n\n", text).strip() + "\n", _title(title))


def _decode_html(data: bytes) -> str | SkipReason:
    """UTF-8, or what the file says of itself, and no guess beyond that."""
    from bs4.dammit import EncodingDetector

    if b"\0" in data:
        return SkipReason.BINARY
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        declared = EncodingDetector.find_declared_encoding(data[:4096], is_html=True)
    try:
        return SkipReason.NOT_UTF8 if declared is None else data.decode(declared)
    except (LookupError, UnicodeError):
        return SkipReason.NOT_UTF8


def _title(given: object) -> str | None:
    if not isinstance(given, str):
        return None
    return " ".join(_LONE.sub("\ufffd", given).split())[:500] or None
