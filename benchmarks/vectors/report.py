"""What a part found, printed, kept as JSON, drawn, and written into the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table as Printed

_COLOURS = (
    "tab:red", "black", "tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown",
    "tab:cyan", "tab:olive", "tab:gray",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """A target beside what was measured; or, where `peer` is named, a peer's figure."""

    what: str
    figure: float
    unit: str
    sign: Literal["<=", ">="]
    limit: float
    peer: str = ""

    @property
    def met(self) -> bool:
        return self.figure <= self.limit if self.sign == "<=" else self.figure >= self.limit

    @property
    def verdict(self) -> str:
        if self.peer:
            return "ahead" if self.met else "BEHIND"
        return "met" if self.met else "MISSED"

    def cells(self) -> tuple[str, str, str, str]:
        """What, measured, target, verdict."""
        beside = f"{self.peer} {number(self.limit)}"
        target = f"{beside if self.peer else f'{self.sign} {number(self.limit)}'} {self.unit}"
        return (
            self.what,
            f"{number(self.figure)} {self.unit}".rstrip(),
            target.rstrip(),
            self.verdict,
        )


@dataclass(slots=True)
class Table:
    """Rows of text under headings; `note` says how they were got."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    note: str = ""

    def add(self, *cells: str | float | None) -> None:
        self.rows.append(tuple(cell if isinstance(cell, str) else number(cell) for cell in cells))


@dataclass(frozen=True, slots=True)
class Curve:
    """A subject's recall and latency, setting by setting."""

    plot: str
    subject: str
    points: list[tuple[float, float]]  # recall, microseconds


@dataclass(slots=True)
class Part:
    """All that one part has to say."""

    name: str
    title: str
    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    skipped: str = ""
    pace: str = ""  # how fast the machine was before and after
    raw: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        checks = [{**asdict(check), "met": check.met} for check in self.checks]
        return {
            "title": self.title,
            "skipped": self.skipped,
            "pace": self.pace,
            "tables": [asdict(table) for table in self.tables],
            "checks": checks,
            "measured": self.raw,
        }


def number(figure: float | None) -> str:
    """Three digits that count; nothing for None."""
    if figure is None:
        return ""
    if figure == 0:
        return "0"
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def ratio(figure: float | None) -> str:
    """Recall, in three places."""
    return "" if figure is None else f"{figure:.3f}"


def show(part: Part, console: Console) -> None:
    """Print everything but the curves."""
    console.print(f"\n[bold]{part.name}[/]: {part.title}")
    if part.skipped:
        console.print(f"  skipped: {part.skipped}")
    if part.pace:
        console.print(f"  the machine's pace: {part.pace}")
    for table in part.tables:
        printed = Printed(title=table.title, title_justify="left", caption=table.note)
        printed.caption_justify = "left"
        for n, heading in enumerate(table.columns):
            printed.add_column(heading, justify="right" if n and _numeric(table, n) else "left")
        for row in table.rows:
            printed.add_row(*row)
        console.print(printed)
    for title, heading, checks in _verdicts(part):
        printed = Printed(title=title, title_justify="left")
        for column in ("what", "measured", heading, ""):
            printed.add_column(column, justify="left" if column in ("what", "") else "right")
        for check in checks:
            *cells, verdict = check.cells()
            printed.add_row(*cells, f"[{'green' if check.met else 'bold red'}]{verdict}[/]")
        console.print(printed)


def draw(curves: Sequence[Curve], file: Path) -> None:
    """Recall against latency, a panel for each set; more to the lower right is better.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    plots = list(dict.fromkeys(curve.plot for curve in curves))
    figure, panels = pyplot.subplots(
        1,
        len(plots),
        figsize=(7 * len(plots), 6.5),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    subjects = list(dict.fromkeys(curve.subject for curve in curves))
    for panel, plot in zip(panels[0], plots, strict=True):
        for curve in curves:
            if curve.plot != plot or not curve.points:
                continue
            which = subjects.index(curve.subject)
            points = sorted(curve.points)
            panel.plot(
                [point[0] for point in points],
                [point[1] for point in points],
                marker="osv^D*P"[which // len(_COLOURS)],
                color=_COLOURS[which % len(_COLOURS)],
                linewidth=2.5 if not which else 1.2,
                label=curve.subject,
            )
        panel.axvline(0.95, color="grey", linestyle=":", linewidth=1)
        panel.set(title=plot, xlabel="recall@10", yscale="log", xlim=(0.6, 1.005))
        panel.grid(visible=True, which="both", alpha=0.25)
    panels[0][0].set_ylabel("median of a call, microseconds")
    lines = {
        line.get_label(): line for panel in panels[0] for line in panel.get_lines()[:-1]
    }  # the last line of a panel is the mark at .95
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=5, fontsize=9)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def document(parts: Iterable[Part], facts: dict[str, str], plot: str | None, command: str) -> str:
    """The tables as Markdown, without date or place, and the command that measured them."""
    lines = [
        "# Search by vector, measured",
        "",
        f"Written by `{command}`. " + ", ".join(f"{k} {v}" for k, v in facts.items()) + ".",
        "",
        "Every figure is the median over distinct queries that are asked once, after a warm-up "
        "with others, from one thread; no result cache takes part (KoruDelta keeps in memory "
        "what hits held that were read lately, up to 16 MB, as other stores keep pages). Each "
        "subject runs in a process of its own. Recall is recall@10 against every row that a query "
        "may see. "
        "LID is the local intrinsic dimension of a set around its queries (maximum likelihood, "
        "100 neighbours). On a machine shared with other work the figures move, by half and "
        "more: each part says how long a plain loop of Python and a numpy product took before "
        "it and after, so that parts can be compared.",
        "",
    ]
    if plot is not None:
        lines += [f"![Recall against latency]({plot})", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        if part.skipped:
            lines += [f"Skipped: {part.skipped}.", ""]
        if part.pace:
            lines += [f"The machine's pace: {part.pace}.", ""]
        for table in part.tables:
            lines += [f"### {table.title}", "", *_markdown(table.columns, table.rows), ""]
            if table.note:
                lines += [table.note, ""]
        for title, heading, checks in _verdicts(part):
            rows = [check.cells() for check in checks]
            lines += [f"### {title}", "", *_markdown(("what", "measured", heading, ""), rows), ""]
    return "\n".join(lines)


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return lines


def _verdicts(part: Part) -> Iterator[tuple[str, str, list[Check]]]:
    """Title, heading and checks: the targets, then what peers do."""
    targets = [check for check in part.checks if not check.peer]
    if targets:
        yield "Targets", "target", targets
    beside = [check for check in part.checks if check.peer]
    if beside:
        yield "Beside peers", "theirs", beside


def _numeric(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows if row[column]]
    return bool(cells) and all(cell[0].isdigit() or cell[0] in "-." for cell in cells)
