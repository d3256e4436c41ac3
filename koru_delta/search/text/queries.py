from __future__ import annotations
from typing import NamedTuple
class TextQuery(NamedTuple):
    words: list[str]
def parse_query(text, analyzer, *, syntax=True):
    return TextQuery(analyzer.terms(text))
