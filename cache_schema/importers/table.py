"""Class scores as a CSV: video_id and the classes' names in the first line, then a line a video or clip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cache_schema.annotations.published import shortened
from cache_schema.annotations.table import VIDEO_COLUMNS, Table, number_in_cell, open_table, plain
from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.rows import ID_COLUMN, Rows, Source, check_ids, place_of, reading_table
from cache_schema.schema import Float64Array


class ScoreTable(Source):
    """The videos of a table; consecutive lines with the same id are the rows of one video.

    Its first column is video_id, or called alike (`VIDEO_COLUMNS`), or has no name; before it there may be another
    without a name, of numbers.

    Raises:
        UserError: a line is wrong; the message names it and its column.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, list[Float64Array]] = {}
        with reading_table(path), open_table(path, distinct=False) as table:
            self._read(table)
        self.ids = check_ids(tuple(self._rows), path)

    def _read(self, table: Table) -> None:
        place = self._id_column(table.columns)
        names = list(table.columns[place + 1 :])
        while names and not names[-1]:
            names.pop()
        if not names:
            raise self._no_table(table.columns)
        self.classes: tuple[str, ...] = tuple(names)
        end = place + 1 + len(names)
        last = None
        for line, values in table.rows:
            video_id = values[place]
            if extra := next(filter(None, values[end:]), None):
                raise self._wrong(line, f"{extra!r} in a column without a class's name in the first line")
            if video_id != last and video_id in self._rows:
                raise self._wrong(
                    line,
                    f"video {video_id!r} again, with others between: put the lines of a video one below the other",
                )
            scores = self._scores(values[place + 1 : end], table.delimiter, line)
            self._rows.setdefault(video_id, []).append(scores)
            last = video_id

    def _id_column(self, columns: tuple[str, ...]) -> int:
        """The place of the column of ids."""
        first, second = map(plain, (*columns, "", "")[:2])
        if first in VIDEO_COLUMNS:
            return 0
        if first or len(columns) < 2:
            raise self._no_table(columns)
        return int(second in VIDEO_COLUMNS)

    def _no_table(self, columns: tuple[str, ...]) -> UserError:
        found = shortened(", ".join(filter(None, columns))) or "nothing"
        return UserError(
            f"{printable(self._path)}: the first line must be {ID_COLUMN},CLASS,CLASS,… with each class's name "
            f"(divided by ',', ';' or tabs); it has: {found}"
        )

    def _scores(self, cells: list[str], delimiter: str, line: int) -> Float64Array:
        try:
            scores = np.array(cells, np.float64)
        except ValueError:
            scores = np.array([_number(cell, delimiter) for cell in cells])
        if not np.isfinite(scores).all():
            column = int(np.flatnonzero(~np.isfinite(scores))[0])
            found = repr(cells[column]) if cells[column] else "nothing"
            raise self._wrong(line, f"{found} in column {self.classes[column]!r}, where a number is expected")
        return scores

    def _wrong(self, line: int, what: str) -> UserError:
        return UserError(f"{printable(self._path)}, line {line}: {what}")

    def __iter__(self) -> Iterator[Rows]:
        source = printable(Path(self._path.name))
        for video_id, rows in self._rows.items():
            yield Rows(video_id, place_of(video_id, self._path), scores=np.stack(rows), source=source)


def _number(cell: str, delimiter: str) -> float:
    try:
        return number_in_cell(cell, delimiter)
    except ValueError:
        return float("nan")
