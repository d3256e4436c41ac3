"""Why a hit stands where it stands, and why an answer changed: for people, in few words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from koru_delta import Explanation, Version
from koru_delta.search.difference import Change, Happened, RetrievalDiff
from koru_delta.surfaces import show

Named = Callable[[str], str]

_LEGS: Final = {"text": "words", "vector": "meaning"}
SIGNS: Final = {
    "entered": ("+", "green"), "left": ("-", "red"), "moved": ("↕", "cyan"),
    "edited": ("~", "yellow"),
}  # fmt: skip
_HAPPENED: Final = {
    "new": "written",
    "restored": "written again",
    "unhidden": "brought back from hiding",
    "began": "began to be true",
    "edited": "edited",
    "re-embedded": "given another vector",
    "deleted": "deleted",
    "expired": "expired",
    "ended": "stopped being true",
    "hidden": "hidden",
    "superseded": "superseded",
    "filtered": "no longer passes the filter",
    "statistics": "how common its words are",
}
_TRUE: Final = _HAPPENED | {"new": "true since", "began": "true since", "deleted": "gone since"}
_MOST_TERMS: Final = 4
_MOST_OTHERS: Final = 3


def why(explanation: Mapping[str, Any], *, between: str = "   ") -> Text:
    """Where each way of searching had the hit, and which words it has, by `Explanation.to_dict`."""
    told = Text()
    parts = explanation["parts"]
    for part in sorted(parts, key=lambda part: list(_LEGS).index(part["name"])
                       if part["name"] in _LEGS else len(_LEGS)):  # fmt: skip
        if told:
            told.append(between, "dim")
        name = _LEGS.get(part["name"])
        if name is None:
            told.append(f"{part['name']} {part['contribution']:+.4f}", "dim")
        elif part["rank"] is None:
            told.append(f"not by {name}", "dim")
        else:
            told.append(f"by {name} ", "dim")
            told.append(f"#{part['rank']}", "bold")
            told.append_text(_measured(part, explanation["formula"]))
    return told


def _measured(part: Mapping[str, Any], formula: str) -> Text:
    """The words a part found, or its similarity, in brackets."""
    told = Text(" (", "dim")
    terms = sorted(part["terms"], key=lambda term: -term["contribution"])
    for number, term in enumerate(terms[:_MOST_TERMS]):
        told.append(", " if number else "", "dim")
        told.append(show.one_line(term["term"], 24), "cyan")
        told.append(f" {term['contribution']:.1f}", "dim")
    if len(terms) > _MOST_TERMS:
        told.append(f", {len(terms) - _MOST_TERMS} more", "dim")
    if not terms:
        if part["raw"] is None:
            return Text()
        what = {"dot": "dot product", "l2": "minus distance"}.get(formula, "similarity")
        told.append(f"{what} {part['raw']:.2f}", "dim")
    return told.append(")", "dim")


def why_table(explanation: Explanation) -> Table:
    """Every part of the score, with what the place would be without it."""
    columns = ("found by", "place", "measure", "weight", "adds", "place without it")
    rows: list[Sequence[object]] = []
    for part in explanation.parts:
        rows.append(
            (
                _LEGS.get(part.name, part.name),
                f"#{part.rank}" if part.rank is not None else "not found",
                "" if part.raw is None else f"{part.raw:.4f}",
                f"{part.weight:g}",
                f"{part.contribution:+.4f}",
                "" if len(explanation.parts) == 1
                else "not found" if part.rank_without is None else f"#{part.rank_without}",
            )
        )  # fmt: skip
        for term in part.terms:
            rows.append(
                (
                    Text(f"  {show.clean(term.term)}", "cyan"), "", f"{term.contribution:.4f}",
                    "", "", f"{term.tf}x here, in {term.df:,} in all",
                )
            )  # fmt: skip
    return show.table(columns, rows, right=columns[2:5])


def changes_table(changed: RetrievalDiff, named: Named, title: Named, *, valid: bool) -> Table:
    """What entered, left and moved, and by what.

    Args:
        named: How a key is called in a sentence.
        title: How a hit is called, with what it says.
        valid: Whether two valid times were compared.
    """
    rows = []
    for change in changed:
        sign, style = SIGNS[change.kind]
        ranks = f"{change.rank_before or '·'} → {change.rank_after or '·'}"
        rows.append(
            (Text(f"{sign} {change.kind}", style), ranks, title(change.key),
             because(change, named, valid=valid))
        )  # fmt: skip
    return show.table(("what", "place", "hit", "because"), rows)


def because(change: Change, named: Named = str, *, valid: bool = False) -> str:
    """The causes of a change, in a sentence without its end."""
    mine = [cause for cause in change.causes if change.is_own(cause)]
    others = [cause for cause in change.causes if not change.is_own(cause)]
    told = list(dict.fromkeys(_happened(cause, valid=valid) for cause in mine))
    if others:
        rose = change.rank_before is None or (
            change.rank_after is not None and change.rank_after < change.rank_before
        )
        kinds: dict[str, list[str]] = {}
        for cause in others:
            kinds.setdefault(_HAPPENED[cause.name], []).append(named(cause.key))
        each = "; ".join(
            f"{_some(list(dict.fromkeys(names)))} ({what})" for what, names in kinds.items()
        )
        told.append(f"{'room was made by' if rose else 'outranked by'} {each}")
    sentence = "; ".join(told) or "nothing that was found"
    return sentence if change.verified else f"{sentence} (not confirmed)"


def _happened(cause: Happened, *, valid: bool) -> str:
    told = (_TRUE if valid else _HAPPENED)[cause.name]
    version = cause.version
    if version is None:
        return told
    told += f" {_moment_of(version, valid=valid):%Y-%m-%d}"
    if version.author:
        told += f" by {show.one_line(version.author, 30)}"
    if version.message:
        told += f": {show.one_line(version.message, 50)}"
    return told


def _moment_of(version: Version, *, valid: bool) -> datetime:
    return version.valid_from if valid else version.time


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_OTHERS
    told = ", ".join(names[:_MOST_OTHERS])
    return f"{told} and {more} more" if more > 0 else told
