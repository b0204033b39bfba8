"""A report for a terminal, or for a pipe: the same table without colours."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from policy.console import LONGEST_LINE, console_for, plain_table, stripped, width_of, wrapped
from policy.tables.cells import NO_VALUE, Cells, cells, titles
from policy.tables.datasets import dataset_title
from policy.tables.report import INTERVALS, Report

_ELSEWHERE = (
    "Intervals over videos are in the files of --out and in --json; a wider terminal shows them, too."
)


def render(report: Report, *, colour: bool = False, width: int | None = None) -> str:
    """Args:
    width: of the terminal in characters, by default as it is. Where it has no room for all in one table, the
        intervals go; then the paper's values go into a table of their own. No table is narrower than its
        numbers: a terminal that is too narrow wraps its lines, but no digit is lost.
    """
    width = width or shutil.get_terminal_size((LONGEST_LINE, 24)).columns
    tables, intervals = _layout(report, width)
    console = console_for(tables, colour=colour, width=width)
    with console.capture() as captured:
        console.print(Text(report.table.title, style="bold"))
        for table in tables:
            console.print()
            console.print(table)
    state = [_ELSEWHERE if one == INTERVALS and not intervals else one for one in report.state]
    return "\n".join([*stripped(captured.get()), "", *wrapped(state, width), f"$ {report.command}"]) + "\n"


def _layout(report: Report, width: int) -> tuple[list[Table], bool]:
    """The fullest of the layouts that fits, or the last; and whether it has intervals."""
    layouts = []
    for apart in (False, True) if report.table.printed else (False,):
        for intervals in (True, False):
            rows = list(cells(report, intervals=intervals))
            parts = ({"paper": False}, {"ours": False}) if apart else ({},)
            layouts.append(([_table(report, rows, **part) for part in parts], intervals))
    fitting = (one for one in layouts if all(width_of(table) <= width for table in one[0]))
    return next(fitting, layouts[-1])


def _table(report: Report, rows: Sequence[Cells], *, ours: bool = True, paper: bool = True) -> Table:
    table = plain_table()
    table.add_column("\n\nmethod", no_wrap=True)
    if ours:
        for title in report.table.columns:
            table.add_column(f"\n\n{title}", no_wrap=True)
        for place, title in enumerate(titles(report.table.measures)):
            table.add_column(f"{'ours' if place == 0 else ''}\n\n{title}", justify="right", no_wrap=True)
    names = report.table.datasets if paper and report.table.printed else ()
    for name in names:
        style = "bold" if name == report.dataset else ""
        measures = " / ".join(title.removesuffix(" %") for title in titles(report.table.printed))
        header = Text(f"paper\n{dataset_title(name)}\n{measures}", style=style)
        table.add_column(header, justify="right", no_wrap=True, style=style)
    published = [_published(rows, name) for name in names]
    for row, *values in zip(rows, *published, strict=True):
        if not ours and set(values) == {NO_VALUE}:
            continue
        if row.heading:
            table.add_section()
            table.add_row(Text(row.heading, style="italic"))
        words = [row.title, *((*row.columns, *row.ours.values()) if ours else ()), *values]
        table.add_row(*words, style="bold" if row.emphasised else None)
    return table


def _published(rows: Sequence[Cells], dataset: str) -> list[str]:
    """A data set's values of each row, in line under each other."""
    values = [list(row.published[dataset].values()) for row in rows]
    widths = [max(map(len, column)) for column in zip(*values, strict=True)]
    return [
        NO_VALUE
        if set(mine) == {NO_VALUE}
        else " / ".join(f"{text:>{width}}" for text, width in zip(mine, widths, strict=True))
        for mine in values
    ]
