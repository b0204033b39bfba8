"""Tables with a line for each video, video_id,label,subset, of any spreadsheet or library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cache_schema.annotations.labels import Entry, LabelSet, label_set
from cache_schema.annotations.list_files import siblings_note, subset_files, subset_of
from cache_schema.annotations.published import shortened
from cache_schema.annotations.table import VIDEO_COLUMNS, columns_of, open_table
from cache_schema.errors import LabelError

COLUMNS = ("video_id", "label", "subset")
LABEL_COLUMNS = ("label", "labels", "labelname", "class", "classname", "category", "action", "activity")
SUBSET_COLUMNS = ("subset", "split", "partition", "set")
"""What tables call these columns (`table.plain`), the likeliest first."""

_SUFFIXES = {".csv", ".tsv", ".txt"}
_EXPECTED = f"the first line must be {','.join(COLUMNS)} (several labels of a video are joined by ';')"


def fits(path: Path) -> bool:
    """Whether this is a table with columns of videos and labels, or a folder with one for each subset."""
    if path.is_dir():
        return any(subset_of(file.name) and fits(file) for file in path.iterdir() if file.is_file())
    columns = columns_of(path) if path.suffix.lower() in _SUFFIXES else {}
    return not (columns.keys().isdisjoint(VIDEO_COLUMNS) or columns.keys().isdisjoint(LABEL_COLUMNS))


def read(path: Path) -> LabelSet:
    """Read a table (UTF-8 or UTF-16, divided by ',', ';' or tabs), or those of a folder, one for each subset.

    Its columns are video_id, label and subset, or are called alike (`VIDEO_COLUMNS`, `LABEL_COLUMNS`,
    `SUBSET_COLUMNS`); others are passed over. Several labels of a video are joined by ';'. Without a column for
    the subset the file's name says it, and tables beside it that are called alike are read with it, as test.csv
    is with train.csv; else the videos have none.

    Raises:
        LabelError: a line is wrong; the message names it.
    """
    files = table_files(path)
    listed = [entry for subset, file in files.items() for entry in entries(file, subset)]
    return label_set(path, listed, siblings_note(path, files))


def table_files(path: Path) -> dict[str, Path]:
    """The table, or the tables of each subset, by subset; empty where a column says it, or nothing does."""
    return {"": path} if _has_subsets(path) else subset_files(path, fits)


def entries(path: Path, subset: str = "", folder: str = "") -> Iterator[Entry]:
    """The videos of a table.

    Args:
        subset: of all of them, where no column says it.
        folder: what their paths are relative to, with a "/" behind it.
    """
    with open_table(path) as table:
        video, label = table.column(VIDEO_COLUMNS), table.column(LABEL_COLUMNS)
        if video is None or label is None:
            column, found = COLUMNS[video is not None], shortened(", ".join(filter(None, table.columns)))
            raise LabelError(f"{path}: no column {column!r} among {found or 'none'}; {_EXPECTED}")
        place = table.column(SUBSET_COLUMNS)
        known: dict[str, tuple[str, ...]] = {}  # classes are few, lines many
        for line, row in table.rows:
            name = row[video]
            for column, value in zip(COLUMNS, (name, row[label], place is None or row[place]), strict=True):
                if not value:
                    raise LabelError(f"{path}, line {line}: no {column} for video {name or '(unnamed)'!r}")
            if row[label] not in known:
                labels = [part.strip() for part in row[label].split(";")]
                if not all(labels):
                    raise LabelError(f"{path}, line {line}: an empty label between ';' for video {name!r}")
                known[row[label]] = tuple(dict.fromkeys(labels))
            yield Entry(folder + name, known[row[label]], subset if place is None else row[place], path, line)


def _has_subsets(path: Path) -> bool:
    return path.is_file() and not columns_of(path).keys().isdisjoint(SUBSET_COLUMNS)
