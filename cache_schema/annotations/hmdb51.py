"""HMDB-51's splits: a file for each class and split, brush_hair_test_split1.txt, "VIDEO.avi 1" in a line.

https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database. 1 is a training video, 2 a test
video, and 0 one of neither, which becomes subset "unused". A video is looked for by its name and below its
class's folder.
"""

from __future__ import annotations

import re
from pathlib import Path

from cache_schema.annotations.labels import Entry, LabelSet, label_set
from cache_schema.annotations.published import lines, wrong
from cache_schema.errors import LabelError

_FILE = re.compile(r"(?P<class>.+)_test_split(?P<split>[1-9])\.txt")
_SUBSETS = {"0": "unused", "1": "train", "2": "test"}
_FOLDER = "testTrainMulti_7030_splits"
"""In which the files lie in some archives."""


def fits(path: Path) -> bool:
    """Whether this is one of the files, or a folder with one."""
    if path.is_dir():
        return any(_FILE.fullmatch(file.name) for file in _files(path).iterdir())
    return _FILE.fullmatch(path.name) is not None


def read(path: Path, *, split: int | None = None) -> LabelSet:
    """Read the files of a split from a folder; of a file, its folder and its split are taken.

    Args:
        split: 1 to 3; None: that of the file that is given, else 1.

    Raises:
        LabelError: there is no file of the split, or a line is wrong.
    """
    given = _FILE.fullmatch(path.name)
    folder = path.parent if given else _files(path)
    if split is None:
        split = int(given["split"] if given else 1)
    entries: list[Entry] = []
    for file in sorted(folder.iterdir()):
        named = _FILE.fullmatch(file.name)
        if named is None or int(named["split"]) != split:
            continue
        before = len(entries)
        for number, line in lines(file):
            video, *digit = line.rsplit(maxsplit=1)
            if not digit or digit[0] not in _SUBSETS:
                raise wrong(f"{file}, line {number}", line, "'VIDEO.avi 1', 'VIDEO.avi 2' or 'VIDEO.avi 0'")
            name = named["class"]
            entries.append(Entry(f"{name}/{video}", (name,), _SUBSETS[digit[0]], file, number))
        if len(entries) == before:
            raise LabelError(f"{file}: no videos in it")
    if not entries:
        raise LabelError(
            f"{path}: no files CLASS_test_split{split}.txt, which split {split} of HMDB-51 needs"
        )
    return label_set(path, entries)


def _files(path: Path) -> Path:
    return path / _FOLDER if (path / _FOLDER).is_dir() else path
