"""Text for a terminal, or for a pipe: no table is narrower than its numbers, no sentence wider than one reads."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

LONGEST_LINE = 100
"""Characters of a line that is not a table, however wide the terminal is."""


def plain_table() -> Table:
    """A table without columns yet, ruled below its head only."""
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)


def console_for(tables: Sequence[Table], *, colour: bool, width: int) -> Console:
    """One to capture from, wide enough for every number of the tables."""
    return Console(
        file=io.StringIO(),
        width=max(width, *map(width_of, tables)),
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
    )


def width_of(table: Table) -> int:
    """Characters that the table takes where nothing is cut."""
    wide = Console(file=io.StringIO(), width=10_000)
    return Measurement.get(wide, wide.options, table).maximum


def stripped(text: str) -> list[str]:
    """Lines without the blanks at their ends."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def wrapped(sentences: Sequence[str], width: int, *, indent: str = "  ") -> list[str]:
    """Each sentence in lines of the width, at most `LONGEST_LINE`, all but its first indented."""
    longest = min(width, LONGEST_LINE)
    return [
        line for sentence in sentences for line in textwrap.wrap(sentence, longest, subsequent_indent=indent)
    ]
