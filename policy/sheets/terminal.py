"""Documents for a terminal or a pipe: tables as wide as their numbers need, prose at most 100 characters wide."""

from __future__ import annotations

import io
import shutil
import textwrap
from collections.abc import Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cache_schema.command import count
from policy.sheets.sheet import INTERVALS, NO_VALUE, Document, Sheet

LONGEST_LINE = 100
"""Characters of a line of prose, however wide the terminal is."""

_ELSEWHERE = "Bootstrap intervals are in the files of --out and in --json; a wider terminal shows them, too."


def render(document: Document, *, colour: bool = False, width: int | None = None) -> str:
    """Args:
    width: of the terminal in characters, by default its actual width. Where one table is too wide, the intervals
        are left out; then the paper's values get a table of their own. A terminal that is still too narrow
        wraps the lines; no digit is cut.
    """
    width = width or terminal_width()
    lines, intervals = print_sheets(document.main, colour=colour, width=width)
    long = [
        f"{sheet.title}: {count(len(sheet.rows), 'rows')}, in the files of --out and in --json."
        for sheet in document.details
    ]
    state = [_ELSEWHERE if line.startswith(INTERVALS) and not intervals else line for line in document.state]
    return "\n".join([*lines, "", *wrapped([*long, *state], width), f"$ {document.command}"]) + "\n"


def terminal_width() -> int:
    """In characters; of a pipe, `LONGEST_LINE`."""
    return shutil.get_terminal_size((LONGEST_LINE, 24)).columns


def print_sheets(
    sheets: Sequence[Sheet], *, width: int, colour: bool = False, title: str = ""
) -> tuple[list[str], bool]:
    """The lines of all tables, each below its title; and whether every interval is shown."""
    layouts = [_layout(sheet, width) for sheet in sheets]
    widths = [_width_of(table) for tables, _ in layouts for table in tables]
    console = Console(
        file=io.StringIO(),
        width=max(width, *widths),
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
    )
    with console.capture() as captured:
        if title:
            console.print(Text(title, style="bold"), end="\n\n")
        for sheet, (tables, _) in zip(sheets, layouts, strict=True):
            if sheet.title:
                console.print(Text(sheet.title, style="bold"), end="\n\n")
            for table in tables:
                console.print(table)
                console.print()
    lines = [line.rstrip() for line in captured.get().rstrip().splitlines()]
    return lines, all(intervals for _, intervals in layouts)


def wrapped(sentences: Sequence[str], width: int, *, indent: str = "  ") -> list[str]:
    """Sentences wrapped to the width, at most `LONGEST_LINE`; all lines of one but its first are indented."""
    longest = min(width, LONGEST_LINE)
    return [
        line for sentence in sentences for line in textwrap.wrap(sentence, longest, subsequent_indent=indent)
    ]


def _layout(sheet: Sheet, width: int) -> tuple[list[Table], bool]:
    """The fullest layout that fits, or the last one; and whether it has intervals."""
    splits: list[list[dict[str, bool]]] = [[{}]]
    if any(column.paper for column in sheet.columns):
        splits.append([{"paper": False}, {"ours": False}])
    layouts = [
        ([_table(sheet, intervals, **part) for part in parts], intervals)
        for parts in splits
        for intervals in (True, False)
    ]
    fitting = (layout for layout in layouts if all(_width_of(table) <= width for table in layout[0]))
    return next(fitting, layouts[-1])


def _table(sheet: Sheet, intervals: bool, *, ours: bool = True, paper: bool = True) -> Table:
    """The paper's columns of a data set are joined. Without ours, rows that the paper lacks are left out."""
    words = sheet.words_with(intervals=intervals)
    numeric, columns = sheet.numeric, list(sheet.columns)
    heads: list[tuple[str, bool, str]] = []
    cells: list[list[str]] = []
    heading = ""
    for name, group in groupby(range(len(columns)), key=lambda place: columns[place].paper):
        places = list(group)
        if name and paper:
            measures = " / ".join(columns[place].title.removesuffix(" %") for place in places)
            style = "bold" if columns[places[0]].emphasised else ""
            heads.append((f"paper\n{name}\n{measures}", True, style))
            cells.append(_joined([[row[place] for place in places] for row in words]))
        elif not name:
            for place in places if ours else places[:1]:
                column = columns[place]
                over = f"{column.heading}\n\n" if column.heading != heading else ""
                heading = column.heading
                heads.append((f"{over}{column.title}", numeric[place], ""))
                cells.append([row[place] for row in words])
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
    height = max(head.count("\n") for head, _, _ in heads)
    for head, right, style in heads:
        titled = Text("\n" * (height - head.count("\n")) + head, style=style)
        table.add_column(titled, justify="right" if right else "left", no_wrap=True, style=style)
    for index, row in enumerate(zip(*cells, strict=True)):
        if not ours and set(row[1:]) == {NO_VALUE}:
            continue
        if index in sheet.groups:
            if sheet.ruled:
                table.add_section()
            if sheet.groups[index]:
                table.add_row(Text(sheet.groups[index], style="italic"))
        table.add_row(*map(Text, row), style="bold" if index in sheet.emphasised else None)
    return table


def _joined(values: Sequence[Sequence[str]]) -> list[str]:
    """The values of each row as one text, aligned with the other rows."""
    widths = [max(map(len, column)) for column in zip(*values, strict=True)]
    return [
        NO_VALUE
        if set(row) == {NO_VALUE}
        else " / ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True))
        for row in values
    ]


def _width_of(table: Table) -> int:
    """Characters that the table takes uncut."""
    wide = Console(file=io.StringIO(), width=10_000)
    return Measurement.get(wide, wide.options, table).maximum
