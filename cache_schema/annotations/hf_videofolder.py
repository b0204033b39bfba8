"""A video folder of Hugging Face's `datasets`: videos with metadata.csv, .jsonl or .parquet beside them.

https://huggingface.co/docs/datasets/video_dataset. The column file_name is a video's path, relative to the
metadata's own folder; which column names the class is not laid down: label, labels, class and the like are
taken. Each subset may have its folder, train/metadata.csv, or the paths say it, train/0001.mp4; else no video
has a subset. Metadata in Parquet needs pyarrow, an extra. Video folders without metadata are read by
`class_folders`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache_schema.annotations import videos_csv
from cache_schema.annotations.json_lists import Listed, listed_in, named_set, read_json_lines
from cache_schema.annotations.labels import LabelSet
from cache_schema.annotations.list_files import folder_subset
from cache_schema.errors import LabelError
from cache_schema.extras import need

_CSV, _LINES, _PARQUET = "metadata.csv", "metadata.jsonl", "metadata.parquet"


def fits(path: Path) -> bool:
    """Whether this is a metadata file, or a folder with one, itself or in the folder of a subset."""
    return bool(_files(path))


def read(path: Path, *, class_file: Path | None = None) -> LabelSet:
    """Read the metadata of a folder, or of the folders of its subsets.

    Args:
        class_file: as in `video_lists.read`.

    Raises:
        LabelError: there is none, a line is wrong, or a video occurs twice.
    """
    listed: list[Listed] = []
    for folder, file in _files(path).items():
        start, subset = (f"{folder}/", folder_subset(folder)) if folder else ("", "")
        if file.name == _PARQUET:
            listed += listed_in(file, _parquet(file), subset, start)
        elif file.name == _LINES:
            listed += read_json_lines(file, subset, start)
        else:
            listed += (Listed(*entry) for entry in videos_csv.entries(file, subset, start))
    if not listed:
        raise LabelError(
            f"{path}: expected {_CSV}, {_LINES} or {_PARQUET}, as Hugging Face's datasets has it"
        )
    return named_set(path, [_divided(one) for one in listed], class_file)


def _parquet(file: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a table; numbers of classes become names where it has these (`ClassLabel`)."""
    parquet: Any = need("pyarrow.parquet", "parquet", f"{file}: a parquet file")
    try:
        table = parquet.read_table(file)
        about = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError) as error:  # of which those of pyarrow are
        raise LabelError(f"{file}: not a readable file of parquet: {error}") from error
    features = about.get("info", {}).get("features", {})
    names = {column: kind.get("names") or [] for column, kind in features.items() if isinstance(kind, dict)}
    for line in table.to_pylist():
        yield {column: _named(value, names.get(column, [])) for column, value in line.items()}


def _named(value: Any, names: Sequence[str]) -> Any:
    """The name of a class; what is the number of none stays."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _files(path: Path) -> dict[str, Path]:
    """The metadata by the folder below `path` in which it lies; a .csv goes before the others."""
    if not path.is_dir():
        return {"": path} if path.name in {_CSV, _LINES, _PARQUET} else {}
    folders = [
        "",
        *sorted(entry.name for entry in path.iterdir() if folder_subset(entry.name) and entry.is_dir()),
    ]
    found = {}
    for folder in folders:
        files = [path / folder / name for name in (_CSV, _LINES, _PARQUET)]
        if file := next((file for file in files if file.is_file()), None):
            found[folder] = file
    return found


def _divided(listed: Listed) -> Listed:
    """With the subset that its path begins with, if nothing else says it."""
    return listed if listed.subset else listed._replace(subset=folder_subset(listed.name.partition("/")[0]))
