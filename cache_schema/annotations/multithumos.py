"""MultiTHUMOS: the 413 annotated videos of THUMOS'14 with 65 classes, as the JSON that public code passes on.

http://ai.stanford.edu/~syyeung/everymoment.html. The JSON, in github.com/piergiaj/tgm-icml19 and elsewhere, is
{id: {"subset", "duration", "actions": [[class, start, end], …]}}, in seconds, with classes numbered from 1.
Their names are not in it: the order is that of the publisher's class_list.txt, in which THUMOS'14's 20 classes
come first. The numbers of segments of each class, of which no two are equal, agree with those of the
publisher's files.
"""

from __future__ import annotations

import re
from pathlib import Path

from cache_schema.annotations import thumos14
from cache_schema.annotations.labels import LabelSet, Segment, VideoLabel
from cache_schema.annotations.published import start_of
from cache_schema.annotations.published_segments import (
    MALFORMED,
    classes_of,
    finite,
    read_object,
    without_empty_segments,
)
from cache_schema.errors import LabelError

CLASSES = (
    *thumos14.CLASSES,
    "Walk", "Sit", "StandUp", "Stand", "Run", "Jump", "Fall", "PickUp", "Hug", "PatPerson", "HighFive",
    "FistPump", "ClapHands", "OneRaisedArmCelebrate", "TwoRaisedArmCelebrate", "Throw", "Drop",
    "OneHandedCatch", "TwoHandedCatch", "BodyRoll", "BodyTurn", "BodyBend", "BodyContract", "Squat",
    "BasketballDribble", "BasketballPass", "BasketballBlock", "BasketballShot", "BasketballGuard",
    "VolleyballSet", "VolleyballBump", "VolleyballBlock", "VolleyballServe", "WeightliftingClean",
    "WeightliftingJerk", "HammerThrowWindUp", "HammerThrowSpin", "HammerThrowRelease",
    "PoleVaultPlantPole", "ShotPutBend", "DiscusWindUp", "DiscusRelease", "TalkToCamera",
    "CloseUpTalkToCamera", "NoHuman",
)  # fmt: skip

_START = re.compile(r'\{\s*"video_(validation|test)_\d{7}"\s*:\s*\{[^{}]*"actions"\s*:')


def fits(path: Path) -> bool:
    """Whether this is such a JSON, or a folder with one that is called multithumos.json."""
    file = path / "multithumos.json" if path.is_dir() else path
    return file.suffix == ".json" and _START.match(start_of(file)) is not None


def read(path: Path) -> LabelSet:
    """Read the JSON, or that of a folder. Subsets are called as in it, "training" and "testing".

    Raises:
        LabelError: an entry is wrong, or of another benchmark.
    """
    file = path / "multithumos.json" if path.is_dir() else path
    videos: list[VideoLabel] = []
    durations_s: dict[str, float] = {}
    for video_id, entry in read_object(file, "MultiTHUMOS").items():
        try:
            rows = [(number, finite(start), finite(end)) for number, start, end in entry["actions"]]
            subset = str(entry["subset"])
            durations_s[video_id] = finite(entry["duration"])
        except MALFORMED as error:
            raise LabelError(
                f"{file}: video {video_id!r} is not annotated as in MultiTHUMOS: {error!r}"
            ) from error
        for number, _, _ in rows:
            if type(number) is not int or not 1 <= number <= len(CLASSES):
                raise LabelError(
                    f"{file}: video {video_id!r} has class {number!r}, but MultiTHUMOS numbers classes from 1 to "
                    f"{len(CLASSES)}"
                )
        segments = tuple(Segment(CLASSES[number - 1], start_s, end_s) for number, start_s, end_s in rows)
        videos.append(VideoLabel(video_id, classes_of(segments), subset, segments))
    if not videos:
        raise LabelError(f"{file}: not an annotation file of MultiTHUMOS: no JSON object of videos")
    return LabelSet(path, *without_empty_segments(file, videos, durations_s))
