"""Which videos to train on and which to validate on, and what they show."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache_schema.annotations import LabelSet, VideoLabel
from cache_schema.annotations.dividing import set_aside
from cache_schema.annotations.groups import groups_of, held_out_groups, in_both, onehot, uninformative
from cache_schema.annotations.labels import TRAIN_SUBSETS, VAL_SUBSETS, leave_out
from cache_schema.command import count
from cache_schema.errors import LabelError, UserError
from cache_schema.names import some
from extract.finetune.choices import Choices
from extract.sources import Sources, SourceVideo, fingerprint

VAL_FRACTION = 0.1


@dataclass(frozen=True)
class LabelledVideos:
    """The videos of one part.

    Attributes:
        videos: M files, with their ids.
        labels: (M, C) bool.
        first: (M,) class index, the first of each video's labels in the file.
    """

    videos: tuple[SourceVideo, ...]
    labels: npt.NDArray[np.bool_]
    first: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.videos)


@dataclass(frozen=True)
class Collection:
    """A labelled collection, divided.

    Attributes:
        classes: names of the C classes, sorted: all that have a training video.
        multi_label: each class is a yes or no of its own; else each video has its first class.
        notes: what the user should know, a line each.
    """

    train: LabelledVideos
    validation: LabelledVideos
    classes: tuple[str, ...]
    multi_label: bool
    notes: tuple[str, ...]

    def digest(self) -> str:
        """SHA-256 of the ids, contents (by size) and labels of all videos, and of how they are divided."""
        parts = [
            [
                [video.id, _content(video), np.flatnonzero(row).tolist(), int(first)]
                for video, row, first in zip(part.videos, part.labels, part.first, strict=True)
            ]
            for part in (self.train, self.validation)
        ]
        return hashlib.sha256(json.dumps([self.classes, self.multi_label, parts]).encode()).hexdigest()


def divide(
    sources: Sources,
    labels: LabelSet,
    choices: Choices,
    *,
    skip_missing: bool = False,
    classes_present: bool = False,
) -> Collection:
    """Match labels and files, and divide them for training and validation.

    A label's video is looked for among the files by its id, then by its aliases. Videos of other subsets, and
    videos whose labels the benchmark keeps back, are passed over; anything else that lacks its counterpart is an
    error unless `skip_missing`, which leaves it out and says so in the notes. `classes_present` leaves out the
    classes that do not have a video both for training and for validation.

    Raises:
        LabelError: labels and files do not fit each other, or a part is empty.
    """
    several = labels.multi_label if choices.multi_label is None else choices.multi_label
    notes: list[str] = []
    files = {video.id: video for video in sources.videos}
    known = {name for video in labels.videos for name in (video.video_id, *video.aliases)}
    unlabelled = sorted(set(files) - known)
    if unlabelled:
        leave_out(f"{labels.source}: no label for {_some(unlabelled, 'videos')}", skip_missing, notes)

    train_subset = choices.train_subset or labels.usual_subset(TRAIN_SUBSETS)
    if train_subset is None:
        raise labels.no_subset(TRAIN_SUBSETS, "--train-subset")
    train = _found(files, labels, train_subset, skip_missing, notes)
    fraction, subset = choices.val_fraction, choices.val_subset
    if fraction is None and subset is None:
        # Not the test subset: what the epoch is chosen on must not be what is reported.
        subset = labels.usual_subset(VAL_SUBSETS)
        fraction = VAL_FRACTION if subset is None else None
    if fraction is not None:
        try:
            groups = _groups(train, labels)
            train, validation = _split_groups(train, groups, fraction) if groups else _split(train, fraction)
        except UserError as error:
            raise LabelError(f"{labels.source}, subset {train_subset!r}: {error}") from error
        notes.append(
            f"{len(validation)} of the {len(train) + len(validation)} videos of subset {train_subset!r} set aside "
            "for validation"
        )
        if not validation:
            raise LabelError(
                f"{labels.source}: {fraction:g} of the {len(train)} videos of subset {train_subset!r} leaves none "
                "to validate on; use a larger --val-fraction, or --val-subset"
            )
    else:
        assert subset is not None
        validation = _found(files, labels, subset, skip_missing, notes)
        notes.append(
            f"{count(len(train), 'videos')} of subset {train_subset!r} for training, {len(validation)} of "
            f"{subset!r} for validation"
        )
    both = {id_ for id_, _ in train} & {id_ for id_, _ in validation}
    if both:
        raise LabelError(
            f"{labels.source}: {_some(sorted(both), 'videos')} both for training and for validation; choose "
            "other subsets"
        )
    (_, first), (_, judged) = train[0], validation[0]
    groups, others = (_groups(part, labels) for part in (train, validation))
    warnings = (
        uninformative((*groups, *others) if fraction else groups, first.subset),
        "" if fraction else uninformative(others, judged.subset),
        in_both(groups, others, (first.subset, judged.subset)),
    )
    notes += filter(None, warnings)
    if classes_present:
        train, validation = _of_present_classes(train, validation, several, notes)
    return _collection(labels, files, train, validation, several, notes)


_Part = list[tuple[str, VideoLabel]]  # id of the file, and its label


def _of_present_classes(
    train: _Part, validation: _Part, several: bool, notes: list[str]
) -> tuple[_Part, _Part]:
    """The videos of the classes that have some in both parts, and no other classes of theirs."""
    learned, judged = (
        {name for _, video in part for name in (video.labels if several else video.labels[:1])}
        for part in (train, validation)
    )
    kept = learned & judged
    parts = []
    for part in (train, validation):
        of_kept = ((id_, video.of_classes(kept)) for id_, video in part)
        parts.append([(id_, video) for id_, video in of_kept if video.labels])
    if left_out := sorted((learned | judged) - kept):
        counts = [len(part) - len(rest) for part, rest in zip((train, validation), parts, strict=True)]
        notes.append(
            f"without a video in both parts, so not among the classes: {_some(left_out, 'classes')}; {counts[0]} "
            f"videos to train on and {counts[1]} to validate on left out"
        )
    return parts[0], parts[1]


def _collection(
    labels: LabelSet,
    files: Mapping[str, SourceVideo],
    train: _Part,
    validation: _Part,
    several: bool,
    notes: list[str],
) -> Collection:
    def shown(part: _Part) -> set[str]:
        return {name for _, video in part for name in (video.labels if several else video.labels[:1])}

    classes = tuple(sorted(shown(train)))
    untrained = sorted(shown(validation) - set(classes))
    if untrained:
        raise LabelError(
            f"{labels.source}: {_some(untrained, 'classes')} to validate, but not to train on; "
            "--classes-present leaves such classes out"
        )
    left_out = sorted(set(labels.classes) - set(classes))
    if left_out:
        notes.append(f"without a video to train on, so not among the classes: {_some(left_out, 'classes')}")
    if len(train) < 2:
        raise LabelError(f"{labels.source}: {len(train)} video to train on; two are the least")
    if len(classes) == 1 and not several:
        notes.append(f"only one class, {classes[0]!r}: there is nothing to tell apart")
    count = sum(len(video.labels) > 1 for _, video in train)
    if count:
        how = "a sigmoid for each class" if several else "each video's first class alone"
        notes.append(f"{count} of {len(train)} training videos have several classes: trained on {how}")
    place = {name: c for c, name in enumerate(classes)}
    return Collection(
        _labelled(files, train, place), _labelled(files, validation, place), classes, several, tuple(notes)
    )


def _labelled(files: Mapping[str, SourceVideo], part: _Part, place: Mapping[str, int]) -> LabelledVideos:
    labels = np.zeros((len(part), len(place)), np.bool_)
    for row, (_, video) in zip(labels, part, strict=True):
        row[[place[name] for name in video.labels if name in place]] = True
    first = [place.get(video.labels[0], -1) for _, video in part]
    return LabelledVideos(tuple(files[id_] for id_, _ in part), labels, np.array(first, np.int64))


def _found(
    files: Mapping[str, SourceVideo], labels: LabelSet, subset: str, skip_missing: bool, notes: list[str]
) -> _Part:
    """The videos of a subset whose files are there."""
    found: _Part = []
    missing = []
    for video in labels.subset(subset):
        name = next((n for n in (video.video_id, *video.aliases) if n in files), None)
        if name is None:
            missing.append(video.video_id)
        else:
            found.append((name, video))
    if missing and found:
        which = f"{count(len(missing), 'videos')} of {subset!r} ({some(missing)})"
        leave_out(f"{labels.source}: no file for {which}", skip_missing, notes)
    if not found:
        raise LabelError(f"{labels.source}: no video of subset {subset!r} is among the files given")
    return found


def _split(part: _Part, fraction: float) -> tuple[_Part, _Part]:
    """Set a share of the videos aside (`set_aside`)."""
    taken = set_aside(((id_, video.labels) for id_, video in part), fraction)
    return [p for p in part if p[0] not in taken], [p for p in part if p[0] in taken]


def _groups(part: _Part, labels: LabelSet) -> tuple[str, ...]:
    return groups_of([video for _, video in part], labels.source)


def _split_groups(part: _Part, groups: Sequence[str], fraction: float) -> tuple[_Part, _Part]:
    """The same by whole groups."""
    held = held_out_groups(groups, onehot([video for _, video in part]), fraction, seed=0)
    kept, taken = (
        [p for p, out in zip(part, held, strict=True) if out == is_held] for is_held in (False, True)
    )
    return kept, taken


def _content(video: SourceVideo) -> int | str:
    """A file's size; what tells a folder of frames from others."""
    try:
        if video.frames_fps is not None:
            return fingerprint(video.path, video.frames_fps)
        return video.path.stat().st_size
    except OSError:  # the decoder will meet the same trouble and say so
        return -1


def _some(names: Sequence[str], things: str) -> str:
    """ "3 videos ('a', 'b', 'c')": how many, and the first few of them."""
    return f"{count(len(names), things)} ({some(names)})"
