"""Mini-Kinetics' lists, mini_kinetics_train.txt and mini_kinetics_val.txt: "YOUTUBE_ID FRAMES LABEL".

200 classes of Kinetics-400, of which only numbers, from 0, are published: they are called "class 7". The lists do
not say which seconds a clip was cut from, so the cache must hold it under its YouTube id alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from cache_schema.annotations.labels import LabelSet, VideoLabel
from cache_schema.annotations.published import by_subset, is_named, numbered, read_lists

# Ten-second clips have 300 frames in the lists, give or take two, hardly ever 250 or 240: they were counted after
# the clips had been brought to one rate.
_FRAMES_PER_S = 30.0
_LIST = re.compile(r"mini_kinetics_(?P<subset>train|val)\.txt")


def fits(path: Path) -> bool:
    """Whether this is one of the lists, or a folder with one."""
    return is_named(path, _LIST)


def read(path: Path) -> LabelSet:
    """Read the lists of a folder, or a single one. Raises LabelError naming the line that is wrong."""
    files = by_subset(path, _LIST, "mini_kinetics_train.txt and mini_kinetics_val.txt")
    return LabelSet(
        path,
        tuple(
            VideoLabel(
                video_id=video.name,
                labels=numbered(video.numbers),
                subset=video.subset,
                frames=video.frames,
                frames_per_s=_FRAMES_PER_S,
            )
            for video in read_lists(files, frames=True)
        ),
    )
