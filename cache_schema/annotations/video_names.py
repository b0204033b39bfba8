"""Ids that a video may have in a cache, from the name that a list gives it: a path, with folder and ending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from cache_schema.names import VIDEO_SUFFIXES, split_ending

_FOLDERS = 8  # above a file, of which a collection's folders are part of an id


def without_ending(name: str) -> str:
    """A path with "/" between its folders, without the ending of a video: "walk.in.the.park" has none."""
    path = name.replace("\\", "/")
    return listed_id(path.removeprefix("./") or path)


def ids_of(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """For each listed name the ids to look for, the most telling first; no id stands for two of the videos.

    batch-extract calls CLASS/walk.avi "walk", or with --ids path "CLASS/walk", or with more folders where it was
    given one further up. All of these are ids of "data/CLASS/walk.avi", and so is the name as it is listed.

    Args:
        names: no two of them equal without the ending of a video.
    """
    paths = [without_ending(name) for name in names]
    # Where a file's name is there once, so is every path that ends in it.
    of_stem = Counter(path.rpartition("/")[2] for path in paths)
    of_tail = Counter(tail for path in paths if of_stem[path.rpartition("/")[2]] > 1 for tail in tails(path))
    for name, path in zip(names, paths, strict=True):
        unique = (tail for tail in tails(path) if of_tail[tail] <= 1)
        yield tuple(dict.fromkeys((listed_id(name), *unique, name)))


def listed_id(path: str) -> str:
    """A name as it is listed, without the ending of a video: the first of its ids."""
    stem, ending = split_ending(path)
    return stem if ending in VIDEO_SUFFIXES and stem[-1:] not in {"", "/", "\\"} else path


def tails(path: str) -> list[str]:
    """A path, and what remains of it without its first folders, the longest first."""
    parts = path.rsplit("/", _FOLDERS)
    return [path, *("/".join(parts[at:]) for at in range(1, len(parts)) if parts[at])]
