"""Tables of text as spreadsheets, pandas and R write them: their rows, and which column is meant."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from cache_schema.annotations.published import encoding_of, first_line, start_of
from cache_schema.errors import LabelError

_DELIMITERS = ",;\t"
_SEPARATOR_LINE = re.compile(r"sep=(.)", re.IGNORECASE)  # Excel's own first line
_QUOTED_LINE = re.compile(r'"[^"]*"(?:.?"[^"]*")*')  # as R writes names of columns
VIDEO_COLUMNS = (
    "videoid", "videoname", "video", "filename", "filepath", "videopath", "videofile", "file", "path", "clippath",
    "clipname", "clip", "youtubeid", "id",
)  # fmt: skip
"""What tables call the column of videos (`plain`), the likeliest first."""


@dataclass(frozen=True)
class Table:
    """A table that is read row by row.

    Attributes:
        columns: the first line's names.
        rows: number of the line and values of each row that is not empty, stripped, as many as there are columns.
        delimiter: what divides its columns.
    """

    columns: tuple[str, ...]
    rows: Iterator[tuple[int, list[str]]]
    delimiter: str

    def column(self, names: Sequence[str]) -> int | None:
        """The place of the first of these names (`plain`) that a column has; None: there is none."""
        plain_columns = [plain(column) for column in self.columns]
        return next((plain_columns.index(name) for name in names if name in plain_columns), None)


def plain(column: str) -> str:
    """A column's name in small letters, without blanks and lines."""
    return re.sub(r"[\s_-]", "", column.lower())


@contextmanager
def open_table(path: Path, *, distinct: bool = True) -> Iterator[Table]:
    """Open a table whose first line names its columns, in UTF-8 or UTF-16, divided by ',', ';' or tabs.

    Columns without a name are passed over at the end of a line where they are empty. Names of rows, for which R's
    write.table has no column in its first line (all of it in quotes, perhaps divided by blanks), are a column "".

    Args:
        distinct: refuse two columns with the same name (`plain`).

    Raises:
        LabelError: on opening or reading, where a line is no CSV, has more fields than the first, or is not
            text; two columns have the same name.
    """
    with path.open(encoding=encoding_of(path), newline="") as file:
        first = first_line(path)
        stated = _SEPARATOR_LINE.fullmatch(first)
        if stated:
            file.readline()
        delimiter = stated[1] if stated else delimiter_of(first)
        # Strict, or a quote that is never closed would swallow the lines after it.
        reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
        skipped = 1 if stated else 0
        read = skipped
        try:
            columns = _columns(path, next(reader, []), distinct=distinct)
            read += reader.line_num
            first_row = next(reader, None)
            if first_row and len(first_row) == len(columns) + 1 and _QUOTED_LINE.fullmatch(first):
                columns = ("", *columns)

            def rows() -> Iterator[tuple[int, list[str]]]:
                nonlocal read
                width = len(columns)
                for row in chain([] if first_row is None else [first_row], reader):
                    read = skipped + reader.line_num
                    values = [value.strip() for value in row]
                    if any(values):
                        yield read, _fitted(f"{path}, line {read}", values, width, delimiter)

            yield Table(columns, rows(), delimiter)
        except csv.Error as error:
            raise LabelError(f"{path}, line {read + 1}: not CSV ({error})") from error


def columns_of(path: Path) -> Mapping[str, str]:
    """The names of a table's columns as they stand in its first line, by `plain` name; empty: it has none."""
    first, *more = re.split(r"\r\n?|\n", start_of(path), maxsplit=2)
    if (stated := _SEPARATOR_LINE.fullmatch(first)) and more:
        first = more[0]
    delimiter = stated[1] if stated else delimiter_of(first)
    try:
        names = next(csv.reader([first], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return {}
    return {plain(name): name.strip() for name in names}


def number_in_cell(text: str, delimiter: str) -> float:
    """A number, with a decimal comma where commas do not divide columns. Raises ValueError where it is none."""
    return float(text if delimiter == "," else text.replace(",", "."))


def delimiter_of(line: str) -> str:
    """What divides the columns of a table with this first line."""
    unquoted = re.sub(r'"[^"]*"', "", line)
    if unquoted and not unquoted.strip(" "):
        return " "  # R's usual one
    return max(_DELIMITERS, key=unquoted.count)


def _columns(path: Path, names: list[str], *, distinct: bool) -> tuple[str, ...]:
    columns = tuple(name.strip() for name in names)
    named = [plain(column) for column in columns if column and distinct]
    if twice := next((column for column in columns if column and named.count(plain(column)) > 1), None):
        raise LabelError(f"{path}: two columns {twice!r} in the first line")
    return columns


def _fitted(place: str, values: list[str], width: int, delimiter: str) -> list[str]:
    """A row with as many values as there are columns."""
    if len(values) > width:
        if any(values[width:]):
            raise LabelError(
                f"{place}: {len(values)} fields, not the {width} of the first line; a field with {delimiter!r} in "
                "it needs quotes around it"
            )
        return values[:width]
    return values + [""] * (width - len(values))
