"""What every annotation format comes down to: a LabelSet."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cache_schema.annotations.video_names import ids_of, without_ending
from cache_schema.errors import LabelError, UserError
from cache_schema.names import did_you_mean

TRAIN, VAL = "train", "val"
TRAIN_SUBSETS = ("training", TRAIN)
VAL_SUBSETS = ("validation", VAL, "valid", "dev")
"""What label files call the videos to train on, and those to choose by."""


@dataclass(frozen=True)
class Segment:
    """A class shown from `start_s` to `end_s` seconds of a video."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class VideoLabel:
    """One annotated video.

    Attributes:
        video_id: the id that the cache is expected to have.
        labels: its classes without repeats, in the order of the file; empty where the benchmark withholds them.
        subset: empty where the file does not say.
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

    def of_classes(self, classes: Container[str]) -> VideoLabel:
        """The same with those of its labels and segments alone that are of some classes."""
        return replace(
            self,
            labels=tuple(name for name in self.labels if name in classes),
            segments=tuple(one for one in self.segments if one.label in classes),
        )


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

    @property
    def undivided(self) -> bool:
        """Whether nothing says which videos to train on, and which to judge."""
        return len(self.subsets) == 1

    def usual_subset(self, names: Sequence[str]) -> str | None:
        """The first of the names, in small or capital letters, that has labels; None: none has."""
        labelled = dict.fromkeys(video.subset for video in self.videos if video.labels)
        return next((subset for name in names for subset in labelled if subset.lower() == name), None)

    def no_subset(self, names: Sequence[str], option: str) -> LabelError:
        """The error where `usual_subset` finds none.

        Args:
            option: says which subset is meant.
        """
        if self.subsets == ("",):
            return LabelError(
                f"{self.source}: does not say which videos to train on and which to judge (no column "
                "'subset'); --val-fraction 0.2 sets a fifth of the videos of each class aside"
            )
        more = "; or divide its videos with --val-fraction 0.2" if self.undivided else ""
        return LabelError(
            f"{self.source}: no subset named {' or '.join(names)} with labels; say with {option} which of "
            f"{self._named_subsets()} to use{more}"
        )

    def _named_subsets(self) -> str:
        return ", ".join(subset or "(none)" for subset in self.subsets)

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
            known = self._named_subsets() + did_you_mean(name, self.subsets)
            raise LabelError(f"{self.source}: no subset {name!r}; it has: {known}")
        chosen = [video for video in videos if is_chosen(video)]
        if not chosen:
            raise LabelError(f"{self.source}: the videos of subset {name!r} have no labels")
        return chosen


class Entry(NamedTuple):
    """A video as a file lists it.

    Attributes:
        name: a path with or without folders and ending.
        line: of the file, from 1; 0: it has no lines.
        frames: as of a VideoLabel.
    """

    name: str
    labels: tuple[str, ...]
    subset: str
    file: Path
    line: int
    frames: int | None = None

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.line}" if self.line else str(self.file)


def label_set(source: Path, entries: Sequence[Entry], notes: Sequence[str] = ()) -> LabelSet:
    """The listed videos, each with all the ids that it may have in a cache.

    Raises:
        LabelError: a video is listed twice, or there is none.
    """
    first: dict[str, Entry] = {}
    for entry in entries:
        before = first.setdefault(without_ending(entry.name), entry)
        if before is not entry:
            where = f"line {before.line}" if before.line else repr(before.name)
            where = where if before.file == entry.file else f"{before.file.name}, {where}"
            other = "" if before.labels == entry.labels else f", of class {';'.join(before.labels)!r} there"
            raise LabelError(f"{entry.place}: video {entry.name!r} occurs twice, first in {where}{other}")
    if not entries:
        raise LabelError(f"{source}: no videos in it")
    ids = ids_of([entry.name for entry in entries])
    return LabelSet(
        source,
        tuple(
            VideoLabel(video_id, entry.labels, entry.subset, aliases=tuple(aliases), frames=entry.frames)
            for (video_id, *aliases), entry in zip(ids, entries, strict=True)
        ),
        tuple(notes),
    )


def leave_out(problem: str, skip_missing: bool, notes: list[str]) -> None:
    """Raises LabelError unless videos with a problem are to be left out, which becomes a note."""
    if not skip_missing:
        raise LabelError(f"{problem}; --skip-missing leaves such videos out")
    notes.append(f"{problem}; left out")
