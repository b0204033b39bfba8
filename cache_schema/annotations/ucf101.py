"""UCF-101's splits: trainlist01.txt and testlist01.txt, to 03, with classInd.txt.

https://www.crcv.ucf.edu/data/UCF101.php. A line of a training list is "CLASS/v_CLASS_g08_c01.avi NUMBER", of a
test list the path alone; the folder says the class. classInd.txt, "NUMBER CLASS" from 1, need not be there:
where it is, all classes must be in it under their numbers.
"""

from __future__ import annotations

import re
from pathlib import Path

from cache_schema.annotations.class_names import read_numbered_names
from cache_schema.annotations.labels import Entry, LabelSet, label_set
from cache_schema.annotations.published import is_named, lines, wrong
from cache_schema.errors import LabelError

CLASSES = "classInd.txt"
_LIST = re.compile(r"(?P<subset>train|test)list0(?P<split>[1-9])\.txt")
_FOLDER = "ucfTrainTestlist"
"""In which the lists lie in the archive of the splits."""


def fits(path: Path) -> bool:
    """Whether this is one of the lists, or a folder with one."""
    return is_named(_lists(path), _LIST)


def read(path: Path, *, split: int | None = None) -> LabelSet:
    """Read both lists of a split from a folder; of a list, its folder and its split are taken.

    Args:
        split: 1 to 3; None: that of the list that is given, else 1.

    Raises:
        LabelError: a list is missing, or a line is wrong.
    """
    named = _LIST.fullmatch(path.name)
    folder = path.parent if named else _lists(path)
    if split is None:
        split = int(named["split"] if named else 1)
    numbers = _numbers(folder / CLASSES)
    entries: list[Entry] = []
    for subset in ("train", "test"):
        file = folder / f"{subset}list0{split}.txt"
        if not file.is_file():
            raise LabelError(
                f"{file}: no such file; split {split} of UCF-101 is this list and that of the other subset"
            )
        before = len(entries)
        for number, line in lines(file):
            place = f"{file}, line {number}"
            video, *given = line.replace("\\", "/").rsplit(maxsplit=1)
            name, _, rest = video.partition("/")
            if not name or not rest or not all(map(str.isdecimal, given)):
                raise wrong(place, line, "'CLASS/VIDEO.avi' or 'CLASS/VIDEO.avi NUMBER'")
            if numbers and name not in numbers:
                raise LabelError(f"{place}: class {name!r} is not in {CLASSES}")
            if numbers and given and given[0] != str(numbers[name]):
                raise LabelError(f"{place}: class {given[0]}, but {name!r} is {numbers[name]} in {CLASSES}")
            entries.append(Entry(video, (name,), subset, file, number))
        if len(entries) == before:
            raise LabelError(f"{file}: no videos in it")
    return label_set(path, entries)


def _lists(path: Path) -> Path:
    return path / _FOLDER if (path / _FOLDER).is_dir() else path


def _numbers(path: Path) -> dict[str, int]:
    if not path.is_file():
        return {}
    names, first = read_numbered_names(path)
    return {name: number for number, name in enumerate(names, first)}
