"""The generic format: a CSV with the header video_id,label,subset; several labels are joined by ';'."""

from __future__ import annotations

import csv
from pathlib import Path

from cache_schema.annotations.labels import LabelSet, VideoLabel
from cache_schema.errors import LabelError

COLUMNS = ("video_id", "label", "subset")


def read(path: Path) -> LabelSet:
    """Read the CSV (UTF-8). Raises LabelError naming the line that is wrong."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Strict, or a quote that is never closed would swallow the lines after it.
        reader = csv.DictReader(file, strict=True)
        try:
            return LabelSet(path, _videos(path, reader))
        except csv.Error as error:
            raise LabelError(f"{path}, line {reader.line_num + 1}: not CSV ({error})") from error


def _videos(path: Path, reader: csv.DictReader[str]) -> tuple[VideoLabel, ...]:
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise LabelError(
            f"{path}: no column {missing[0]!r}; the first line must be {','.join(COLUMNS)} "
            "(several labels of a video are joined by ';')"
        )
    videos = tuple(_video(path, reader.line_num, row) for row in reader)
    if not videos:
        raise LabelError(f"{path}: no videos in it")
    return videos


def _video(path: Path, line: int, row: dict[str, str | None]) -> VideoLabel:
    for column in COLUMNS:
        if not (row[column] or "").strip():
            raise LabelError(f"{path}, line {line}: no {column} for video {row['video_id'] or '(unnamed)'!r}")
    labels = [label.strip() for label in (row["label"] or "").split(";")]
    if not all(labels):
        raise LabelError(f"{path}, line {line}: an empty label between ';' for video {row['video_id']!r}")
    return VideoLabel(
        video_id=(row["video_id"] or "").strip(),
        labels=tuple(dict.fromkeys(labels)),
        subset=(row["subset"] or "").strip(),
    )
