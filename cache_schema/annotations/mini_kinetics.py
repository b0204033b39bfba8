"""Mini-Kinetics' lists, mini_kinetics_train.txt and mini_kinetics_val.txt: "YOUTUBE_ID FRAMES LABEL".

200 classes of Kinetics-400, of which only numbers, from 0, are published, and not which seconds a clip was cut
from. From the lists alone the classes are called "class 7", and the cache must hold a clip under its YouTube id.

Where Kinetics-400's own files lie in the same folder, they say both: a number's class is that which Kinetics gives
the videos of that number, and a clip is also looked for under Kinetics' name for it, ID_000123_000133. Models that
were trained on all of Kinetics-400 need these names: the 200 are looked for among those of their 400 class scores.
Since such a folder holds labels of two benchmarks, say --format mini-kinetics, or name one of the lists.

The numbers are in the order of the sorted names of their classes. That is found, not published: HVU's validation
CSV has videos of 192 of the numbers, those of a number have an action in common, and these 192 actions are classes
of Kinetics-400 and in order. Nothing here relies on it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache_schema.annotations import kinetics
from cache_schema.annotations.labels import LabelSet, VideoLabel
from cache_schema.annotations.published import Listed, by_subset, is_named, numbered, read_lists
from cache_schema.errors import LabelError

# Ten-second clips have 300 frames in the lists, give or take two, hardly ever 250 or 240: they were counted after
# the clips had been brought to one rate.
_FRAMES_PER_S = 30.0
_LIST = re.compile(r"mini_kinetics_(?P<subset>train|val)\.txt")
# Of the videos of a number, how many must have its class in Kinetics' files: labels have changed between releases.
# In HVU's, which are later ones, 95 % or more have it.
_AGREEING = 0.8


def fits(path: Path) -> bool:
    """Whether this is one of the lists, or a folder with one."""
    return is_named(path, _LIST)


def read(path: Path) -> LabelSet:
    """Read the lists of a folder, or a single one, and Kinetics' files where they lie beside them.

    With the 266,000 lines of Kinetics-400 that takes 5 s of a core, without them 1 s.

    Raises:
        LabelError: a line is wrong, or Kinetics' files do not tell the class of every number.
    """
    listed = read_lists(
        by_subset(path, _LIST, "mini_kinetics_train.txt and mini_kinetics_val.txt"), frames=True
    )
    folder = path if path.is_dir() else path.parent
    clips: defaultdict[str, list[kinetics.Clip]] = defaultdict(list)
    names: Mapping[int, str] = {}
    if kinetics.fits(folder):
        for clip in kinetics.read_clips(folder):
            clips[clip.youtube_id].append(clip)
        names = _names(folder, listed, clips)
    return LabelSet(path, tuple(_video(video, names, clips.get(video.name, ())) for video in listed))


def _names(
    folder: Path, listed: Sequence[Listed], clips: Mapping[str, Sequence[kinetics.Clip]]
) -> dict[int, str]:
    """The class of each number."""
    votes: dict[int, Counter[str]] = {number: Counter() for video in listed for number in video.numbers}
    for video in listed:
        for number in video.numbers:
            votes[number].update({clip.label for clip in clips.get(video.name, ()) if clip.label is not None})
    unknown = sorted(number for number, labels in votes.items() if not labels)
    if unknown:
        raise LabelError(
            f"{folder}: Kinetics' files beside the lists have none of the videos of {len(unknown)} of the "
            f"{len(votes)} classes: {_shown(unknown)}; put all of Kinetics-400's there, or none"
        )
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for number, labels in sorted(votes.items()):
        (name, agreeing), *others = labels.most_common(2)
        if agreeing < _AGREEING * labels.total():
            raise LabelError(
                f"{folder}: the videos of class {number} are of several classes in Kinetics' files: {agreeing} of "
                f"{name!r}, {others[0][1]} of {others[0][0]!r}, …; are these Kinetics-400's?"
            )
        if name in numbers:
            raise LabelError(
                f"{folder}: the videos of class {numbers[name]} and of class {number} are both {name!r} in "
                "Kinetics' files; are these Kinetics-400's?"
            )
        names[number], numbers[name] = name, number
    return names


def _video(video: Listed, names: Mapping[int, str], clips: Sequence[kinetics.Clip]) -> VideoLabel:
    labels = tuple(names[number] for number in video.numbers) if names else numbered(video.numbers)
    # Kinetics-400 has one clip of a video; of several, in a later release, the one that shows the class is meant.
    meant = clips if len(clips) == 1 else [clip for clip in clips if clip.label in labels]
    return VideoLabel(
        video_id=video.name,
        labels=labels,
        subset=video.subset,
        aliases=(meant[0].name,) if len(meant) == 1 else (),
        frames=video.frames,
        frames_per_s=_FRAMES_PER_S,
    )


def _shown(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
