"""Labels without subsets, divided into videos to train on and videos to judge on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cache_schema.annotations.groups import groups_of, held_out_groups, onehot
from cache_schema.annotations.labels import TRAIN, VAL, LabelSet
from cache_schema.errors import LabelError


def divided(labels: LabelSet, fraction: float, seed: int) -> LabelSet:
    """The same videos as subsets "train" and "val", which has a share of each class, and of whole groups.

    Raises:
        UserError: the videos are divided already, or no video would be in "val".
    """
    if not labels.undivided:
        raise LabelError(
            f"{labels.source}: has subsets already ({', '.join(labels.subsets)}); leave --val-fraction out, which "
            "divides labels without"
        )
    videos = [video for video in labels.videos if video.labels]
    if groups := groups_of(videos, labels.source):
        held = held_out_groups(groups, onehot(videos), fraction, seed)
        aside = {video.video_id for video, is_held in zip(videos, held, strict=True) if is_held}
    else:
        aside = set_aside(((video.video_id, video.labels) for video in videos), fraction, seed)
    if not aside:
        raise LabelError(
            f"{labels.source}: --val-fraction {fraction:g} sets none of {len(videos):,} videos aside without "
            "taking the last one of a class; use a larger one"
        )
    note = (
        f"{labels.source}: {len(aside):,} of {len(videos):,} videos, {fraction:g} of each class"
        f"{' as nearly as groups allow' * bool(groups)}, are set aside as subset {VAL!r}, drawn with seed {seed} "
        "(--split N draws others)"
    )
    divided_videos = tuple(
        replace(video, subset=VAL if video.video_id in aside else TRAIN) for video in labels.videos
    )
    return replace(labels, videos=divided_videos, notes=(*labels.notes, note))


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
