"""What is shown, before anything is known of terminals, files or pages: tables of values, pictures, sentences."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NO_VALUE = "–"

INTERVALS = "In brackets: the 95 % bootstrap interval over the evaluation videos."
"""Stands below a document whose numbers have intervals; terminals too narrow for them say something else."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds (of a sample: n − 1; None of a single one), and the ends of the
    bootstrap interval over videos, where there is one."""

    mean: float
    std: float | None
    low: float | None = None
    high: float | None = None

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def text(self, decimals: int, *, interval: bool) -> str:
        text = f"{self.mean:.{decimals}f}"
        if self.std is not None:
            text += f" ± {self.std:.{decimals}f}"
        if interval and self.low is not None and self.high is not None:
            text += f" [{self.low:.{decimals}f}, {self.high:.{decimals}f}]"
        return text


Value = str | float | int | Spread | None


@dataclass(frozen=True)
class Column:
    """Attributes:
    key: in CSV and JSON.
    decimals: of a float as it is shown.
    numeric: its values stand in line at the right; by default where none is a text.
    heading: of it and its neighbours with the same one.
    paper: the data set for which a paper prints its values. Terminals show such columns of a data set as one.
    emphasised: it stands out.
    """

    title: str
    key: str = ""
    decimals: int = 1
    numeric: bool | None = None
    heading: str = ""
    paper: str = ""
    emphasised: bool = False

    @property
    def full_title(self) -> str:
        """Where nothing stands above it."""
        return f"{self.paper} {self.title}, paper" if self.paper else self.title


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        rows: a value per column; None is a value that does not exist.
        detail: it is long: it comes after all that is said of the others, and terminals and LaTeX do not have it.
        groups: by index of a row, the title of the group that it begins; an empty title is only a rule.
        ruled: a rule above each group.
        emphasised: indices of rows that stand out.
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
    def words(self) -> list[list[str]]:
        """The rows as they are shown, with intervals where there are any."""
        return self.words_with(intervals=True)

    def words_with(self, *, intervals: bool) -> list[list[str]]:
        return [
            [_shown(value, column, intervals) for value, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]

    @property
    def numeric(self) -> list[bool]:
        """Per column, whether it holds numbers."""
        return [
            not any(isinstance(row[place], str) for row in self.rows)
            if column.numeric is None
            else column.numeric
            for place, column in enumerate(self.columns)
        ]

    @property
    def records(self) -> list[dict[str, Value]]:
        """The rows as they are, by the columns' keys."""
        keys = [column.key for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]


def _shown(value: Value, column: Column, interval: bool) -> str:
    if value is None:
        return NO_VALUE
    if isinstance(value, Spread):
        return value.text(column.decimals, interval=interval)
    return f"{value:.{column.decimals}f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Picture:
    """A PNG.

    Attributes:
        alt: what it shows, for those who do not see it.
        caption: on the page; by default the title of the document.
        brief: instead of `alt` in Markdown.
    """

    png: bytes
    alt: str
    caption: str = ""
    brief: str = ""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, JPEG or PNG, with what is to be read instead of it, and below it."""

    image: bytes
    alt: str
    caption: str
    marked: bool = False


@dataclass(frozen=True)
class Thumbnails:
    """Pictures in a row that wraps, the marked ones in a green frame."""

    title: str
    images: Sequence[Thumbnail]
    note: str = ""


@dataclass(frozen=True)
class Document:
    """A table or a figure with all that belongs to it.

    Attributes:
        id: of its section on a page: a letter, then letters, digits, - and _.
        state: what one has to know to read the numbers, a sentence each.
        command: prints it again.
        thumbnails: on a page in place of the pictures.
        record: what JSON says besides state and command.
        data: the sheets of its CSV files, where they are not those that are shown.
        label: what LaTeX refers to it by. A document with a label is first of all its table: pictures come after
            it, and LaTeX sets the state below it. Without one it is a figure, with the numbers behind it.
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
