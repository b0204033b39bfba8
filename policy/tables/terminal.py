"""A report for a terminal, or for a pipe: the same table without colours."""

from __future__ import annotations

import io
import shutil
import textwrap

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from policy.tables.cells import NO_VALUE, SHOWN, Cells, cells
from policy.tables.datasets import DATASETS
from policy.tables.report import Report

_LONGEST_LINE = 100  # of the sentences below, however wide the terminal is


def render(report: Report, *, colour: bool = False, width: int | None = None) -> str:
    """Args:
    width: of the terminal in characters, by default as it is. The table is never narrower than its numbers:
        a terminal that is too narrow wraps its lines, but no digit is lost.
    """
    width = width or shutil.get_terminal_size((_LONGEST_LINE, 24)).columns
    table = _table(report)
    console = Console(
        file=io.StringIO(),
        width=max(width, width_of(table)),
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(Text(report.table.title, style="bold"), end="\n\n")
        console.print(table)
    return "\n".join([*stripped(captured.get()), "", *state_lines(report, min(width, _LONGEST_LINE))]) + "\n"


def state_lines(report: Report, width: int) -> list[str]:
    """The sentences under the table, wrapped, and the command in one line for the clipboard."""
    lines = [
        line for sentence in report.state for line in textwrap.wrap(sentence, width, subsequent_indent="  ")
    ]
    return [*lines, f"$ {report.command}"]


def _table(report: Report) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column("\n\nmethod", no_wrap=True)
    for place, title in enumerate(SHOWN.values()):
        table.add_column(f"{'ours' if place == 0 else ''}\n\n{title}", justify="right", no_wrap=True)
    for name, dataset in DATASETS.items():
        style = "bold" if name == report.dataset else ""
        header = Text(f"paper\n{dataset.title}\nmAP / GFLOPs", style=style)
        table.add_column(header, justify="right", no_wrap=True, style=style)
    group = "methods"
    for row in cells(report, tuple(DATASETS)):
        if row.group != group:
            group = row.group
            table.add_section()
            table.add_row(Text(group, style="italic"))
        table.add_row(*_row(row), style="bold" if row.emphasised else None)
    return table


def _row(row: Cells) -> list[str]:
    # Costs in line under each other, as the paper has them between 10 and 1000.
    published = [
        NO_VALUE if pair == (NO_VALUE,) * 2 else f"{pair[0]} / {pair[1]:>5}"
        for pair in row.published.values()
    ]
    return [row.title, *row.ours.values(), *published]


def width_of(table: Table) -> int:
    """Characters that the table takes where nothing is cut."""
    wide = Console(file=io.StringIO(), width=10_000)
    return Measurement.get(wide, wide.options, table).maximum


def stripped(text: str) -> list[str]:
    """Lines without the blanks at their ends."""
    return [line.rstrip() for line in text.rstrip().splitlines()]
