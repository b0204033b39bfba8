"""A CSV of one's own with a line for each segment: video_id,start_s,end_s,label,subset."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from cache_schema.annotations.labels import LabelSet, Segment, VideoLabel
from cache_schema.annotations.published import start_of
from cache_schema.annotations.published_segments import finite
from cache_schema.errors import LabelError

COLUMNS = ("video_id", "start_s", "end_s", "label")
SUBSET = "subset"
DEFAULT_SUBSET = "test"
"""Of a file without the column: there is nothing to train on, but detections can be judged."""


@dataclass
class _Video:
    """What lines have said about a video, and the first of them."""

    subset: str
    line: int
    labels: dict[str, None] = field(default_factory=dict)
    segments: dict[Segment, int] = field(default_factory=dict)


def fits(path: Path) -> bool:
    """Whether the first line of a .csv has the columns of segments."""
    if path.suffix.lower() != ".csv":
        return False
    header = start_of(path).partition("\n")[0].split(",")
    return {"start_s", "end_s"} <= {name.strip(' "\r') for name in header}


def read(path: Path) -> LabelSet:
    """Read a CSV (UTF-8) with the columns video_id, start_s, end_s, label and, to train on it, subset.

    A video may have any number of lines, all with the same subset. A line without times says that the video has a
    class, but not where.

    Raises:
        LabelError: a line is wrong; the message names it.
    """
    videos: dict[str, _Video] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Strict, or a quote that is never closed would swallow the lines after it.
        rows = csv.reader(file, strict=True)
        before = 0
        try:
            header = [name.strip() for name in next(rows, [])]
            _check_header(path, header)
            before = rows.line_num
            for row in rows:
                if row:
                    _add(videos, header, row, path, rows.line_num)
                before = rows.line_num
        except csv.Error as error:
            raise LabelError(f"{path}, line {before + 1}: not CSV ({error})") from error
    if not videos:
        raise LabelError(f"{path}: no videos in it")
    return LabelSet(
        path,
        tuple(
            VideoLabel(video_id, tuple(video.labels), video.subset, tuple(video.segments))
            for video_id, video in videos.items()
        ),
    )


def _check_header(path: Path, header: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in header]
    twice = [name for name in header if header.count(name) > 1]
    if missing or twice:
        problem = f"no column {missing[0]!r}" if missing else f"two columns {twice[0]!r}"
        raise LabelError(
            f"{path}: {problem}; the first line must be {','.join(COLUMNS)},{SUBSET} (without {SUBSET}, all "
            f"videos are of subset {DEFAULT_SUBSET!r})"
        )


def _add(videos: dict[str, _Video], header: list[str], row: list[str], path: Path, line: int) -> None:
    place = f"{path}, line {line}"
    if len(row) != len(header):
        raise LabelError(
            f"{place}: {len(row)} fields, not the {len(header)} of the first line; a field with a comma needs "
            "quotes around it"
        )
    values = {name: value.strip() for name, value in zip(header, row, strict=True)}
    video_id, label, subset = values["video_id"], values["label"], values.get(SUBSET, DEFAULT_SUBSET)
    for name, value in (("video_id", video_id), ("label", label), (SUBSET, subset)):
        if not value:
            raise LabelError(f"{place}: no {name} for video {video_id or '(unnamed)'!r}")
    video = videos.setdefault(video_id, _Video(subset, line))
    if video.subset != subset:
        raise LabelError(
            f"{place}: video {video_id!r} is of subset {subset!r}, but of {video.subset!r} in line {video.line}"
        )
    video.labels[label] = None
    segment = _segment(label, values["start_s"], values["end_s"], place)
    if segment is None:
        return
    if segment in video.segments:
        raise LabelError(f"{place}: the segment of line {video.segments[segment]} again; delete one of them")
    video.segments[segment] = line


def _segment(label: str, start: str, end: str, place: str) -> Segment | None:
    """None where there are no times."""
    if not start and not end:
        return None
    try:
        segment = Segment(label, finite(start), finite(end))
    except ValueError as error:
        raise LabelError(f"{place}: from {start!r} to {end!r} s is no segment") from error
    if not 0 <= segment.start_s < segment.end_s:
        raise LabelError(
            f"{place}: from {start} to {end} s is no segment: it must start at 0 s or later, and end after that"
        )
    return segment
