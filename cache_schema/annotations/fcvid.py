"""FCVID: the pair of files in its package, or lists made from them.

FCVID's annotation comes with its videos, on request (https://fvl.fudan.edu.cn/dataset/fcvid/list.htm), and may not
be passed on; no file of it was at hand when this was written. What is read is what programs for it read:

- FCVID_VideoName_TrainTestSplit.txt, "FOLDER/NAME.ENDING train" or "… test" in a line, and beside it
  FCVID_Label.txt, a line of 239 zeros and ones for each of those videos;
- fcvid_train_split.txt and fcvid_val_split.txt, "NAME,FRAMES,LABEL[,LABEL…]";
- fcvid_train.txt and fcvid_test.txt (or _val), "NAME LABEL [LABEL…]".

Labels are numbered from 0, and called "class 7". A video is looked for by its file name and by its path, both
without ending. A video without a class in FCVID_Label.txt has no labels.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from cache_schema.annotations.labels import LabelSet, VideoLabel
from cache_schema.annotations.published import by_subset, is_named, lines, numbered, read_lists, wrong
from cache_schema.errors import LabelError

VIDEOS = "FCVID_VideoName_TrainTestSplit.txt"
MATRIX = "FCVID_Label.txt"
_PACKAGE = re.compile(f"{re.escape(VIDEOS)}|{re.escape(MATRIX)}")
_WITH_FRAMES = re.compile(r"fcvid_(?P<subset>train|val|test)_split\.txt")
_PLAIN = re.compile(r"fcvid_(?P<subset>train|val|test)\.txt")


def fits(path: Path) -> bool:
    """Whether this is one of the files, or a folder with one."""
    return any(is_named(path, pattern) for pattern in (_PACKAGE, _WITH_FRAMES, _PLAIN))


def read(path: Path) -> LabelSet:
    """Read the files of a folder, the package's before lists, or a single list.

    Raises:
        LabelError: a file is missing or a line is wrong.
    """
    if is_named(path, _PACKAGE):
        return _package(path, path if path.is_dir() else path.parent)
    frames = is_named(path, _WITH_FRAMES)
    files = by_subset(
        path,
        _WITH_FRAMES if frames else _PLAIN,
        f"FCVID's {VIDEOS} and {MATRIX}, or fcvid_train.txt and fcvid_test.txt",
    )
    listed = read_lists(files, frames=frames, separator="," if frames else None)
    of_name = Counter(_names(video.name)[0] for video in listed)
    return LabelSet(
        path,
        tuple(
            _video(video.name, numbered(video.numbers), video.subset, of_name, frames=video.frames)
            for video in listed
        ),
    )


def _package(path: Path, folder: Path) -> LabelSet:
    for name in (VIDEOS, MATRIX):
        if not (folder / name).is_file():
            raise LabelError(f"{folder / name}: no such file; {VIDEOS} and {MATRIX} belong together")
    split = folder / VIDEOS
    videos: dict[str, tuple[str, int, tuple[int, ...]]] = {}
    width = 0
    for entry, row in zip_longest(lines(split), lines(folder / MATRIX)):
        if entry is None or row is None:
            longer, shorter = (MATRIX, VIDEOS) if entry is None else (VIDEOS, MATRIX)
            raise LabelError(
                f"{folder}: {longer} has more lines than {shorter}; they belong together line by line"
            )
        number, line = entry
        name, _, subset = (part.strip() for part in _last_gap(line))
        if not name or subset not in {"train", "test"}:
            raise wrong(f"{split}, line {number}", line, "'NAME train' or 'NAME test'")
        if name in videos:
            raise LabelError(
                f"{split}, line {number}: video {name!r} occurs twice, first in line {videos[name][1]}"
            )
        place = f"{folder / MATRIX}, line {row[0]}"
        values = row[1].split()
        width = width or len(values)
        if len(values) != width:
            raise LabelError(f"{place}: {len(values)} values, where the lines before have {width}")
        videos[name] = subset, number, _ones(place, values)
    if not videos:
        raise LabelError(f"{split}: no videos in it")
    of_name = Counter(_names(name)[0] for name in videos)
    return LabelSet(
        path,
        tuple(_video(name, numbered(ones), subset, of_name) for name, (subset, _, ones) in videos.items()),
    )


def _last_gap(line: str) -> tuple[str, str, str]:
    """The line divided at its last white space: names may have some of their own."""
    parts = line.rsplit(maxsplit=1)
    return (parts[0], " ", parts[1]) if len(parts) == 2 else (line, "", "")


def _ones(place: str, values: list[str]) -> tuple[int, ...]:
    # A file has tens of millions of values, of a few kinds, and one in a hundred is 1: no loop over all of them.
    places: list[int] = []
    for value in set(values):
        try:
            known = {0.0: False, 1.0: True}[float(value)]
        except (KeyError, ValueError):
            raise wrong(place, value, "0 or 1") from None
        if known:
            at = -1
            for _ in range(values.count(value)):
                at = values.index(value, at + 1)
                places.append(at)
    return tuple(sorted(places))


def _names(name: str) -> tuple[str, str]:
    """File name and path of a video, both without ending."""
    path = PurePosixPath(name.replace("\\", "/"))
    # Only what is no more than an ending: "walk.in.the.park" is a name.
    whole = (
        str(path.with_suffix(""))
        if re.fullmatch(r"\.(avi|flv|mp4|mkv|webm)", path.suffix.lower())
        else str(path)
    )
    return PurePosixPath(whole).name, whole


def _video(
    name: str, labels: tuple[str, ...], subset: str, of_name: Counter[str], frames: int | None = None
) -> VideoLabel:
    stem, whole = _names(name)
    names = dict.fromkeys([stem, whole] if of_name[stem] == 1 else [whole])
    video_id, *aliases = names
    return VideoLabel(video_id=video_id, labels=labels, subset=subset, aliases=tuple(aliases), frames=frames)
