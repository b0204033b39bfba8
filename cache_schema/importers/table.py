"""Class scores as a CSV: video_id and the classes' names in the first line, then a line a video or clip."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.rows import ID_COLUMN, Rows, Source, check_ids, place_of
from cache_schema.schema import Float64Array


class ScoreTable(Source):
    """The videos of a CSV file; consecutive lines with the same id are the rows of one video.

    Raises:
        UserError: a line is wrong; the message names it and its column.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, list[Float64Array]] = {}
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                # Strict, or a quote that is never closed would swallow the lines after it.
                self._lines = csv.reader(file, strict=True)
                self._read()
        except OSError as error:
            raise UserError(f"{printable(path)}: cannot be read: {error.strerror or error}") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{printable(path)}: not CSV in UTF-8: {error}") from error
        check_ids(tuple(self._rows), path)

    def _read(self) -> None:
        columns = next(self._lines, [])
        if len(columns) < 2 or columns[0].strip() != ID_COLUMN:
            raise UserError(
                f"{printable(self._path)}: the first line must be {ID_COLUMN},CLASS,CLASS,… with each class's name"
            )
        self.classes: tuple[str, ...] = tuple(name.strip() for name in columns[1:])
        last = None
        for cells in self._lines:
            if not cells:
                continue
            video_id = cells[0].strip()
            if len(cells) != len(columns):
                raise self._wrong(f"{len(cells)} cells, but {len(columns)} in the first line")
            if video_id != last and video_id in self._rows:
                raise self._wrong(
                    f"video {video_id!r} again, with others between: put the lines of a video one below the other",
                )
            self._rows.setdefault(video_id, []).append(self._scores(cells[1:]))
            last = video_id

    def _scores(self, cells: list[str]) -> Float64Array:
        try:
            scores = np.array(cells, np.float64)
        except ValueError:
            scores = np.array([_number(cell) for cell in cells])
        if not np.isfinite(scores).all():
            column = int(np.flatnonzero(~np.isfinite(scores))[0])
            found = repr(cells[column]) if cells[column].strip() else "nothing"
            raise self._wrong(f"{found} in column {self.classes[column]!r}, where a number is expected")
        return scores

    def _wrong(self, what: str) -> UserError:
        return UserError(f"{printable(self._path)}, line {self._lines.line_num}: {what}")

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Rows]:
        source = printable(Path(self._path.name))
        for video_id, rows in self._rows.items():
            yield Rows(video_id, place_of(video_id, self._path), scores=np.stack(rows), source=source)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
