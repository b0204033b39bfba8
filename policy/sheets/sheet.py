"""Tables of values, pictures and sentences, independent of how they are rendered."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

NO_VALUE = "–"

INTERVALS = "In brackets: the 95 % bootstrap interval"
"""Begins the sentence below a document whose numbers have intervals; narrow terminals replace that."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n − 1) over seeds, and the bootstrap interval over videos or groups.

    Attributes:
        std: None for a single seed.
        low, high: ends of the interval; None without one.
    """

    mean: float
    std: float | None
    low: float | None = None
    high: float | None = None

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def text(self, decimals: int, *, interval: bool) -> str:
        text = _fixed(self.mean, decimals)
        if self.std is not None:
            text += f" ± {_fixed(self.std, decimals)}"
        if interval and self.low is not None and self.high is not None:
            text += f" [{_fixed(self.low, decimals)}, {_fixed(self.high, decimals)}]"
        return text


Value = str | float | int | Spread | None


@dataclass(frozen=True)
class Column:
    """Attributes:
    key: its name in CSV and JSON.
    decimals: shown of a float.
    numeric: align to the right; None: unless a value is a text.
    heading: shown once above all neighbouring columns with the same heading.
    paper: the data set for which a paper prints these values. Terminals join such columns of one data set.
    emphasised: shown in bold.
    """

    title: str
    key: str = ""
    decimals: int = 1
    numeric: bool | None = None
    heading: str = ""
    paper: str = ""
    emphasised: bool = False

    @property
    def above(self) -> str:
        """What is shown above its title: the paper's data set or the heading, or nothing."""
        return f"paper, {self.paper}" if self.paper else self.heading

    @property
    def full_title(self) -> str:
        """The title where there is one row of titles alone."""
        return f"{self.above}: {self.title}" if self.above else self.title


def with_ends(column: Column) -> tuple[Column, Column, Column]:
    """A column, and those of the low and the high end of its interval."""
    low, high = (replace(column, title=end, key=f"{column.key}_{end}") for end in ("low", "high"))
    return column, low, high


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        rows: a value per column; None is a value that does not exist.
        detail: a long table: shown last, and neither in terminals nor in LaTeX.
        groups: by index of a row, the title of the group that it begins; an empty title is only a rule.
        ruled: draw a rule above each group.
        emphasised: indices of rows shown in bold.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    detail: bool = False
    groups: Mapping[int, str] = field(default_factory=dict)
    ruled: bool = True
    emphasised: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{self.title}: row {index} has {len(row)} cells, not {len(self.columns)}: they do not fit"
                )

    @property
    def header(self) -> list[str]:
        return [column.full_title for column in self.columns]

    @property
    def column_groups(self) -> list[tuple[str, list[str]]]:
        """What is shown above neighbouring columns, and their titles; one group, below nothing, in a table without
        headings."""
        groups = groupby(self.columns, key=lambda column: column.above)
        return [(above, [column.title for column in columns]) for above, columns in groups]

    @property
    def words(self) -> list[list[str]]:
        """The rows as shown, with intervals where there are any."""
        return self.words_with(intervals=True)

    def words_with(self, *, intervals: bool) -> list[list[str]]:
        return [
            [_shown(value, column, intervals) for value, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column is aligned to the right."""
        return [
            not any(isinstance(row[place], str) for row in self.rows)
            if column.numeric is None
            else column.numeric
            for place, column in enumerate(self.columns)
        ]

    @property
    def plain(self) -> Sheet:
        """The same with numbers alone, for scripts: a column of spreads becomes those of mean, standard deviation
        and, where some have one, interval: KEY, KEY_std, KEY_low, KEY_high."""
        columns: list[Column] = []
        rows: list[list[Value]] = [[] for _ in self.rows]
        for place, column in enumerate(self.columns):
            values = [row[place] for row in self.rows]
            spreads = [value for value in values if isinstance(value, Spread)]
            parts = ["mean"]
            if spreads:
                parts += ["std"] + ["low", "high"] * any(one.low is not None for one in spreads)
            for part in parts:
                columns.append(column if part == "mean" else replace(column, key=f"{column.key}_{part}"))
                for row, value in zip(rows, values, strict=True):
                    plain = value if part == "mean" else None
                    row.append(getattr(value, part) if isinstance(value, Spread) else plain)
        return replace(self, columns=columns, rows=rows)

    @property
    def records(self) -> list[dict[str, Value]]:
        """The values of each row by the columns' keys."""
        keys = [column.key for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]


def _fixed(value: float, decimals: int) -> str:
    """With so many decimals; what is rounded to zero has no sign."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def _shown(value: Value, column: Column, interval: bool) -> str:
    if value is None:
        return NO_VALUE
    if isinstance(value, Spread):
        return value.text(column.decimals, interval=interval)
    return _fixed(value, column.decimals) if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Picture:
    """A PNG.

    Attributes:
        alt: text for readers who cannot see it.
        caption: on the page; by default the title of the document.
        brief: replaces `alt` in Markdown.
    """

    png: bytes
    alt: str
    caption: str = ""
    brief: str = ""


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG or PNG."""

    image: bytes
    alt: str
    caption: str
    marked: bool = False


@dataclass(frozen=True)
class Thumbnails:
    """Pictures in a row that wraps; marked ones have a green frame."""

    title: str
    images: Sequence[Thumbnail]
    note: str = ""


@dataclass(frozen=True)
class Document:
    """A table or a figure with everything that is shown with it.

    Attributes:
        id: HTML id of its section: a letter, then letters, digits, - and _.
        state: how the numbers were obtained, a sentence each.
        command: prints it again.
        thumbnails: replace the pictures on a page.
        record: the fields of its JSON besides state and command.
        data: the sheets written as CSV.
        label: by which LaTeX refers to it. A document with a label is a table: pictures come after it, and LaTeX
            sets the state below it. Without one it is a figure, followed by the numbers behind it.
    """

    id: str
    title: str
    sheets: Sequence[Sheet] = ()
    state: Sequence[str] = ()
    command: str = ""
    pictures: Sequence[Picture] = ()
    thumbnails: Sequence[Thumbnails] = ()
    record: Mapping[str, object] = field(default_factory=dict)
    data: Sequence[Sheet] = ()
    label: str = ""

    @property
    def main(self) -> list[Sheet]:
        return [sheet for sheet in self.sheets if not sheet.detail]

    @property
    def details(self) -> list[Sheet]:
        return [sheet for sheet in self.sheets if sheet.detail]
