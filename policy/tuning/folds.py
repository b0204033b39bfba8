"""The training videos in parts, each of which is held out once; all other videos keep an id and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cache_schema.annotations import LabelSet, VideoLabel
from cache_schema.annotations.groups import groups_of, held_out_groups, onehot
from cache_schema.errors import LabelError, UserError
from policy.data.batches import IntArray
from policy.data.groups import stratified_folds

BoolArray = npt.NDArray[np.bool_]

HELD_OUT = "held out"
"""The subset of the videos that a fold is judged on."""


def fold_labels(
    labels: LabelSet, subset: str, *, folds: int, validation: float | None, seed: int
) -> tuple[LabelSet, ...]:
    """The labels of each fold: some videos of a subset are of subset `HELD_OUT` there, the others as they were.

    Videos of other subsets lose labels and segments, so that nothing can depend on them. Classes are spread evenly
    over the folds, by each video's first class. Where videos have groups, these stay together.

    Args:
        folds: in how many parts the subset is divided, each held out once.
        validation: the share of the subset that is held out instead, in a single fold.

    Raises:
        LabelError: there are fewer videos, or groups, than folds, or a class has no video outside of a fold.
    """
    videos = [video for video in labels.subset(subset) if video.subset == subset]
    place = _places([video.labels[0] for video in videos], seed)
    groups = groups_of(videos, labels.source)
    if groups:
        held = _held_groups(labels, videos, groups, folds=folds, validation=validation, seed=seed)
    elif validation is None:
        if len(videos) < folds:
            raise LabelError(f"{labels.source}: {len(videos)} videos of subset {subset!r} for {folds} folds")
        held = [place % folds == fold for fold in range(folds)]
    else:
        held = [np.floor((place + 1) * validation) > np.floor(place * validation)]
        if not 0 < held[0].sum() < len(videos):
            raise LabelError(
                f"{labels.source}: {validation:g} of the {len(videos)} videos of subset {subset!r} leaves "
                f"{'none to train on' if held[0].any() else 'none to judge'}"
            )
    count = Counter(label for video in videos for label in video.labels)
    for part in held:
        kept = {label for video, out in zip(videos, part, strict=True) if not out for label in video.labels}
        if lacking := sorted(count.keys() - kept):
            only = "its only video" if count[lacking[0]] == 1 else f"all its {count[lacking[0]]} videos"
            of_class = {v.group for v in videos if lacking[0] in v.labels}
            only += ", of one group," if groups and count[lacking[0]] > len(of_class) == 1 else ""
            more = f" (and {len(lacking) - 1:,} more classes)" if len(lacking) > 1 else ""
            raise LabelError(
                f"{labels.source}: class {lacking[0]!r}{more} of subset {subset!r} cannot be learned where {only} "
                "would be held out; label more, or leave the class out"
            )
    return tuple(
        _relabelled(labels, {v.video_id for v, out in zip(videos, part, strict=True) if out}, subset)
        for part in held
    )


def _held_groups(
    labels: LabelSet,
    videos: Sequence[VideoLabel],
    groups: Sequence[str],
    *,
    folds: int,
    validation: float | None,
    seed: int,
) -> list[BoolArray]:
    """(M,) of each fold: which videos are held out."""
    try:
        if validation is not None:
            return [held_out_groups(groups, onehot(videos), validation, seed)]
        _, classes = np.unique([video.labels[0] for video in videos], return_inverse=True)
        fold = stratified_folds(groups, classes, folds, seed)
        return [fold == number for number in range(folds)]
    except UserError as error:
        raise LabelError(f"{labels.source}, subset {videos[0].subset!r}: {error}") from error


def _places(classes: Sequence[str], seed: int) -> IntArray:
    """(M,): the place of each video when they are ordered by class, and at random within a class."""
    random = np.random.default_rng(seed).permutation(len(classes))
    _, index = np.unique(np.array(classes), return_inverse=True)
    place = np.empty(len(classes), np.int64)
    place[np.lexsort((random, index))] = np.arange(len(classes))
    return place


def _relabelled(labels: LabelSet, held: set[str], subset: str) -> LabelSet:
    def video_of(video: VideoLabel) -> VideoLabel:
        if video.subset != subset:
            return VideoLabel(video.video_id, (), video.subset, aliases=video.aliases)
        return replace(video, subset=HELD_OUT) if video.video_id in held else video

    return replace(labels, videos=tuple(map(video_of, labels.videos)))
