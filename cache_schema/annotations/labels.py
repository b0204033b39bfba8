"""What every annotation format comes down to: a LabelSet."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cache_schema.annotations.video_names import ids_of, without_ending
from cache_schema.errors import LabelError

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


@dataclass(frozen=True)
class LabelSet:
    """The annotated videos of a benchmark.

    Attributes:
        notes: what the user should know about the files, a line each.
        classes: every class that is a label, sorted.
        multi_label: whether some video has more than one class.
    """

    source: Path
    videos: tuple[VideoLabel, ...]
    notes: tuple[str, ...] = ()

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

    def divided(self, fraction: float, seed: int) -> LabelSet:
        """The same videos as subsets "train" and "val", which has a share of each class.

        Raises:
            LabelError: the videos are divided already, or no video would be in "val".
        """
        if not self.undivided:
            raise LabelError(
                f"{self.source}: has subsets already ({', '.join(self.subsets)}); leave --val-fraction out, which "
                "divides labels without"
            )
        labelled = [video for video in self.videos if video.labels]
        aside = set_aside(((video.video_id, video.labels) for video in labelled), fraction, seed)
        if not aside:
            raise LabelError(
                f"{self.source}: --val-fraction {fraction:g} sets none of {len(labelled):,} videos aside without "
                "taking the last one of a class; use a larger one"
            )
        note = (
            f"{self.source}: {len(aside):,} of {len(labelled):,} videos, {fraction:g} of each class, are set "
            f"aside as subset {VAL!r}, drawn with seed {seed} (--split N draws others)"
        )
        videos = (replace(video, subset=VAL if video.video_id in aside else TRAIN) for video in self.videos)
        return LabelSet(self.source, tuple(videos), (*self.notes, note))

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
            f"{', '.join(subset or '(none)' for subset in self.subsets)} to use{more}"
        )

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


def set_aside(videos: Iterable[tuple[str, Sequence[str]]], fraction: float, seed: int = 0) -> set[str]:
    """Ids of a share of the videos, of each class about the same; which ones, their ids and the seed alone decide.

    Every 1/fraction-th of the videos in the order of their classes is taken, but none that is the last of a class.

    Args:
        videos: ids and classes.
    """
    salt = f"{seed} " if seed else ""
    listed = [
        (labels[0], hashlib.sha256(f"{salt}{name}".encode()).digest(), name, labels)
        for name, labels in videos
    ]
    left = Counter(label for *_, labels in listed for label in labels)
    taken: set[str] = set()
    for i, (_, _, name, labels) in enumerate(sorted(listed)):
        due = int((i + 1) * fraction + 0.5) > len(taken)
        if due and all(left[label] > 1 for label in labels):
            left.subtract(labels)
            taken.add(name)
    return taken


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
