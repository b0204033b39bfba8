"""A folder of numbered pictures as a video: which of its files are the frames, and in which order."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from cache_schema.files import printable
from cache_schema.names import PICTURE_SUFFIXES, split_ending
from extract.decode_packets import VideoError

_DIGITS = re.compile(r"[0-9]+")
_FLOW = re.compile(r"(?:^|[^a-z])flow(?:[^a-z]|$)")
# What frames are called. Another series beside one of these is of masks, depth, thumbnails.
_USUAL_NAMES = frozenset({"", "img", "image", "frame", "rgb", "color", "colour"})
_TOLD = 3  # series in a message


def is_numbered_picture(name: str) -> bool:
    """Whether a file of this name may be a frame."""
    stem, ending = split_ending(name)
    return ending in PICTURE_SUFFIXES and _DIGITS.search(stem) is not None


def numbered_pictures(folder: Path) -> list[str]:
    """The names of a folder's files that may be frames. Raises OSError where it cannot be read."""
    names = (path.name for path in folder.iterdir())
    return [name for name in names if not name.startswith(".") and is_numbered_picture(name)]


def frame_names(folder: Path) -> dict[int, str]:
    """The names of a folder's frames by number, in order; numbers may be missing, and need no leading zeros.

    Other files may lie beside them: optical flow (`flow_x_00001.jpg` beside `img_00001.jpg`), pictures without a
    number or alone in their series, and other series than the one with a usual name (img, image, frame, rgb,
    color, or the number alone).

    Raises:
        VideoError: there are none, or it cannot be told which pictures are the frames.
        OSError: the folder cannot be read.
    """
    names = numbered_pictures(folder)
    if not names:
        raise VideoError("no numbered pictures in it")
    series: dict[str, list[str]] = {}
    for name in names:
        series.setdefault(_DIGITS.sub("#", name.lower()), []).append(name)
    return _by_number(_shown(series))


def gaps(numbers: list[int]) -> list[int]:
    """The numbers after which others are missing. Every fifth frame of a video has no gaps."""
    steps = [after - before for before, after in pairwise(numbers)]
    return [number for number, step in zip(numbers, steps, strict=False) if step > min(steps)]


def _shown(series: dict[str, list[str]]) -> list[str]:
    """The one of several series, by pattern, that shows the video."""
    pictures = {pattern: names for pattern, names in series.items() if not _FLOW.search(pattern)}
    if not pictures:
        raise VideoError("only optical flow in it, no pictures")
    # One picture beside others that are several is a thumbnail.
    pictures = {pattern: names for pattern, names in pictures.items() if len(names) > 1} or pictures
    usual = {
        pattern: names
        for pattern, names in pictures.items()
        if re.sub("[#_. -]", "", split_ending(pattern)[0]) in _USUAL_NAMES
    }
    candidates = list((usual or pictures).values())
    if len(candidates) > 1:
        listed = ", ".join(f"{len(names)} like {printable(min(names))}" for names in candidates[:_TOLD])
        raise VideoError(
            f"{len(candidates)} series of pictures in it ({listed}): give each a folder of its own"
        )
    return candidates[0]


def _by_number(names: list[str]) -> dict[int, str]:
    """Sort by the numbers in the names; of several in a name the first counts that alone gives the same order."""
    ordered = sorted((tuple(map(int, _DIGITS.findall(split_ending(name)[0]))), name) for name in names)
    for column in zip(*(numbers for numbers, _ in ordered), strict=True):
        if all(before < after for before, after in pairwise(column)):
            return dict(zip(column, (name for _, name in ordered), strict=True))
    for (numbers, name), (next_numbers, next_name) in pairwise(ordered):
        if numbers == next_numbers:
            raise VideoError(
                f"two pictures with one number in it: {printable(name)} and {printable(next_name)}"
            )
    first, last = (printable(ordered[at][1]) for at in (0, -1))
    raise VideoError(f"pictures of several videos in it ({first} to {last}): give each a folder of its own")
