"""A folder for each class: ROOT/CLASS/VIDEO.mp4, or with a folder for each subset ROOT/train/CLASS/VIDEO.mp4.

So lay out torchvision's and Keras's loaders, and videos without metadata in Hugging Face's `datasets`. A folder of
numbered pictures is a video, too (batch-extract --frames-fps). A video's class is the first folder, whatever lies
between; hidden files and folders are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cache_schema.annotations.labels import Entry, LabelSet, label_set
from cache_schema.annotations.list_files import folder_subset
from cache_schema.errors import LabelError
from cache_schema.names import PICTURE_SUFFIXES, VIDEO_SUFFIXES, split_ending


def fits(path: Path) -> bool:
    """Whether some video lies in a folder of this folder."""
    return path.is_dir() and any("/" in name for name in _videos(path))


def read(path: Path) -> LabelSet:
    """Read the folders' names. Videos that lie in no folder of a class have none, and a note counts them.

    Raises:
        LabelError: there are no videos in folders, or classes and subsets lie side by side.
    """
    names = [*_videos(path)]
    in_folders = [name for name in names if "/" in name]
    if not in_folders:
        raise LabelError(
            f"{path}: no videos in folders of this folder; expected CLASS/VIDEO.mp4, or train/CLASS/VIDEO.mp4"
        )
    tops = dict.fromkeys(name.partition("/")[0] for name in in_folders)
    subsets = {top: subset for top in tops if (subset := folder_subset(top))}
    if subsets and len(subsets) < len(tops):
        other = next(top for top in tops if top not in subsets)
        raise LabelError(
            f"{path}: folder {next(iter(subsets))!r} is called after a subset, {other!r} beside it is not; "
            "expected CLASS/VIDEO.mp4, or train/CLASS/VIDEO.mp4 and so on"
        )
    depth = 2 if subsets else 1
    entries = []
    for name in in_folders:
        folders = name.split("/")[:-1]
        if len(folders) >= depth:
            entries.append(Entry(name, (folders[depth - 1],), subsets.get(folders[0], ""), path, 0))
    if not entries:
        raise LabelError(
            f"{path}: no videos in folders of classes; expected {next(iter(tops))}/CLASS/VIDEO.mp4"
        )
    without = len(names) - len(entries)
    notes = [f"{path}: {without:,} videos lie in no folder of a class"] if without else []
    return label_set(path, entries, notes)


def _videos(root: Path) -> Iterator[str]:
    """Paths below the folder, with "/", of files that end like a video, and of folders of numbered pictures."""
    visited = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in visited:  # links may lead back
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        start = "" if below == "." else f"{below}/"
        videos = sorted(name for name in files if split_ending(name)[1] in VIDEO_SUFFIXES and name[0] != ".")
        yield from (start + name for name in videos)
        if start and not videos and any(map(_is_numbered, files)):
            yield below


def _is_numbered(name: str) -> bool:
    stem, suffix = split_ending(name)
    return suffix in PICTURE_SUFFIXES and stem[-1:].isdecimal()
