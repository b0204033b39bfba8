"""What every annotation format comes down to: a LabelSet, and the CSV that holds one."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache_schema.errors import LabelError, UserError

COLUMNS = ("video_id", "label", "subset")


@dataclass(frozen=True)
class Segment:
    """A class shown from `start_s` to `end_s` seconds of a video."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class VideoLabel:
    """One annotated video.

    Attributes:
        video_id: the id that the cache is expected to have.
        labels: its classes without repeats, in the order of the file; empty where the benchmark withholds them.
        segments: where they are shown, in the order of the file.
        ambiguous: spans in which the benchmark judges nothing, of no class: start and end in seconds.
        group: equal for videos that belong together, of one person or source; empty where that is not known.
        aliases: other ids that the video goes by in practice.
        frames: its length according to the benchmark's list, if that has it.
        frames_per_s: the rate at which `frames` was counted; None: the rate of the video file.
    """

    video_id: str
    labels: tuple[str, ...]
    subset: str
    segments: tuple[Segment, ...] = ()
    aliases: tuple[str, ...] = ()
    frames: int | None = None
    frames_per_s: float | None = None
    ambiguous: tuple[tuple[float, float], ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Grouping:
    """How the group of a video is told: by a column of the CSV of labels, or from the video's id.

    Attributes:
        pattern: a regular expression, of which the one group in parentheses is the name.

    Raises:
        UserError: it is not one of both, or the pattern is none.
    """

    column: str | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        if (self.column is None) == (self.pattern is None):
            raise UserError("give --group-column or --group-pattern, not both")
        if self.pattern is None:
            return
        try:
            names = re.compile(self.pattern).groups
        except re.error as error:
            raise UserError(f"{self}: is no regular expression: {error}") from error
        if names != 1:
            raise UserError(
                f"{self}: has {names} pairs of parentheses; put one around what names the group, as in (.*)_c"
            )

    @staticmethod
    def of(column: str | None, pattern: str | None) -> Grouping | None:
        """None where neither is given. Raises UserError as above."""
        return None if column is None and pattern is None else Grouping(column, pattern)

    def __str__(self) -> str:
        return f"--group-column {self.column}" if self.pattern is None else f"--group-pattern {self.pattern}"


@dataclass(frozen=True)
class LabelSet:
    """The annotated videos of a benchmark.

    Attributes:
        notes: what the user should know about the files, a line each.
        grouping: how the videos' groups were told; None where they have none.
        classes: every class that is a label, sorted.
        multi_label: whether some video has more than one class.
    """

    source: Path
    videos: tuple[VideoLabel, ...]
    notes: tuple[str, ...] = ()
    grouping: Grouping | None = None

    def __post_init__(self) -> None:
        ids: set[str] = set()
        for video in self.videos:
            if video.video_id in ids:
                raise LabelError(f"{self.source}: video {video.video_id!r} occurs twice")
            ids.add(video.video_id)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({label for video in self.videos for label in video.labels}))

    @property
    def multi_label(self) -> bool:
        return any(len(video.labels) > 1 for video in self.videos)

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the subsets, in the order of the file."""
        return tuple(dict.fromkeys(video.subset for video in self.videos))

    def subset(self, name: str) -> Sequence[VideoLabel]:
        """The labelled videos of a subset, in the order of the file.

        Raises:
            LabelError: there is no such subset, or it has no labels.
        """
        return self._of_subset(name, lambda video: bool(video.labels))

    def judged(self, name: str) -> Sequence[VideoLabel]:
        """`subset`, and its videos without labels but with ambiguous spans: what is found there is judged, too."""
        return self._of_subset(name, lambda video: bool(video.labels or video.ambiguous))

    def _of_subset(self, name: str, is_chosen: Callable[[VideoLabel], bool]) -> Sequence[VideoLabel]:
        videos = [video for video in self.videos if video.subset == name]
        if not videos:
            raise LabelError(f"{self.source}: no subset {name!r}; it has: {', '.join(self.subsets)}")
        chosen = [video for video in videos if is_chosen(video)]
        if not chosen:
            raise LabelError(f"{self.source}: the videos of subset {name!r} have no labels")
        return chosen


def read_csv(path: Path) -> LabelSet:
    """Read a CSV (UTF-8) with the header video_id,label,subset; several labels of a video are joined by ';'.

    Raises:
        LabelError: a line is wrong; the message names it.
    """
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
