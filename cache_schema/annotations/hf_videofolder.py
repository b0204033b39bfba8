"""A video folder of Hugging Face's `datasets`: videos with metadata.csv or metadata.jsonl beside them.

https://huggingface.co/docs/datasets/video_dataset. The column file_name is a video's path, relative to the
metadata's own folder; which column names the class is not laid down: label, labels, class and the like are
taken. Each subset may have its folder, train/metadata.csv, or the paths say it, train/0001.mp4; else no video
has a subset. Metadata in Parquet is not read. Video folders without metadata are read by `class_folders`.
"""

from __future__ import annotations

from pathlib import Path

from cache_schema.annotations import videos_csv
from cache_schema.annotations.json_lists import Listed, named_set, read_json_lines
from cache_schema.annotations.labels import LabelSet
from cache_schema.annotations.list_files import folder_subset
from cache_schema.errors import LabelError

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
            raise LabelError(
                f"{file}: is Parquet, which is not read; write metadata.csv instead (pandas: to_csv)"
            )
        if file.name == _LINES:
            listed += read_json_lines(file, subset, start)
        else:
            listed += (Listed(*entry) for entry in videos_csv.entries(file, subset, start))
    if not listed:
        raise LabelError(f"{path}: expected {_CSV} or {_LINES}, as Hugging Face's datasets has it")
    return named_set(path, [_divided(one) for one in listed], class_file)


def _files(path: Path) -> dict[str, Path]:
    """The metadata by the folder below `path` in which it lies; a .csv goes before a .jsonl."""
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
