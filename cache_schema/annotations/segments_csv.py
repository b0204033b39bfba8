"""A CSV of one's own with a line for each segment: video_id,start_s,end_s,label,subset."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cache_schema.annotations.labels import LabelSet, Segment, VideoLabel
from cache_schema.annotations.published_segments import finite
from cache_schema.annotations.table import VIDEO_COLUMNS, columns_of, open_table, plain
from cache_schema.annotations.video_names import ids_of
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
    """Whether the first line of a .csv or .tsv has the columns of segments."""
    return path.suffix.lower() in {".csv", ".tsv"} and columns_of(path).keys() >= {"starts", "ends"}


def read(path: Path) -> LabelSet:
    """Read a CSV (`table`) with the columns video_id, start_s, end_s, label and, to train on it, subset.

    A video may have any number of lines, all with the same subset. A line without times says that the video has a
    class, but not where.

    Raises:
        LabelError: a line is wrong; the message names it.
    """
    videos: dict[str, _Video] = {}
    with open_table(path) as table:
        places = {
            "video_id": table.column(VIDEO_COLUMNS),
            **{name: table.column([plain(name)]) for name in COLUMNS[1:]},
            SUBSET: table.column([SUBSET]),
        }
        if missing := next((name for name in COLUMNS if places[name] is None), None):
            raise LabelError(
                f"{path}: no column {missing!r}; the first line must be {','.join(COLUMNS)},{SUBSET} (without "
                f"{SUBSET}, all videos are of subset {DEFAULT_SUBSET!r})"
            )
        for line, row in table.rows:
            values = {name: row[place] for name, place in places.items() if place is not None}
            if table.delimiter == ";":  # where a comma stands for the point
                values |= {name: values[name].replace(",", ".") for name in ("start_s", "end_s")}
            _add(videos, values, f"{path}, line {line}", line)
    if not videos:
        raise LabelError(f"{path}: no videos in it")
    return LabelSet(
        path,
        tuple(
            VideoLabel(video_id, tuple(video.labels), video.subset, tuple(video.segments), tuple(aliases))
            for (video_id, *aliases), video in zip(ids_of([*videos]), videos.values(), strict=True)
        ),
    )


def _add(videos: dict[str, _Video], values: dict[str, str], place: str, line: int) -> None:
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
