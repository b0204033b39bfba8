"""Files that are called after a subset, and often a split: train.csv, ucf101_train_split_1_videos.txt."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cache_schema.annotations.published import start_of
from cache_schema.errors import LabelError
from cache_schema.names import LIST_SUFFIXES, ending

_SUBSET = re.compile(
    r"(?<![a-z])(?P<subset>train(ing)?|val(id(ation)?)?|dev|test(ing)?)(?=(list|split|set|data)?(?![a-z]))",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"(?:split|list|fold)[_-]?0*(?P<split>\d{1,3})(?!\d)", re.IGNORECASE)
_USUAL = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
_ORDER = ("train", "val", "test")


def subset_of(name: str) -> str:
    """The subset that a file is called after, train, val or test; empty where it is called after none."""
    found = {_usual(match) for match in _SUBSET.finditer(name)}
    return found.pop() if len(found) == 1 else ""


def folder_subset(name: str) -> str:
    """The subset that a folder is called, and nothing else; empty where it is called otherwise."""
    match = _SUBSET.fullmatch(name)
    return _usual(match) if match else ""


def subset_files(path: Path, fits: Callable[[Path], bool], split: int | None = None) -> dict[str, Path]:
    """The files of a folder that are called after a subset, by subset; or the file that is given and its siblings.

    A file's siblings have its name, but for that of the subset. A file that is called after none stands alone,
    under the empty name.

    Args:
        fits: whether a file of a folder is one of those that are wanted; empty ones are, to be reported.
        split: of several, the one that is meant; None: there is one, or the first.

    Raises:
        LabelError: there are none, none of that split, or two for the same subset.
    """
    if not path.is_dir():
        subset = subset_of(path.name)
        if not subset:
            return {"": path}
        return {subset: path, **_siblings(path, fits)}
    named = [file for file in sorted(path.iterdir()) if subset_of(file.name) and _is_wanted(file, fits)]
    if split is None and len(splits := {number for file in named if (number := _split(file))}) > 1:
        split = min(splits)
    found: dict[str, Path] = {}
    for file in named:
        if split is not None and _split(file) not in {split, None}:
            continue
        subset = subset_of(file.name)
        if subset in found:
            raise LabelError(
                f"{path}: both {found[subset].name} and {file.name} list the {subset} videos; name one of them, "
                "and those called alike are read with it"
            )
        found[subset] = file
    if not found:
        raise LabelError(
            f"{path}: no lists of split {split}"
            if named
            else f"{path}: no files called after train, val or test"
        )
    return _ordered(found)


def siblings_note(path: Path, files: Mapping[str, Path]) -> tuple[str, ...]:
    """What to tell where files were read that are called as the given one (`subset_files`)."""
    others = ", ".join(file.name for file in files.values() if file != path)
    return (f"{path}: read with {others} beside it",) if others and not path.is_dir() else ()


def _siblings(path: Path, fits: Callable[[Path], bool]) -> dict[str, Path]:
    subset = subset_of(path.name)
    form = _SUBSET.sub("*", path.name)
    siblings: dict[str, Path] = {}
    for file in sorted(path.parent.iterdir()):
        other = subset_of(file.name)
        is_new = other not in {"", subset} and other not in siblings
        if is_new and _SUBSET.sub("*", file.name) == form and _is_wanted(file, fits):
            siblings[other] = file
    return siblings


def _is_wanted(file: Path, fits: Callable[[Path], bool]) -> bool:
    return file.is_file() and (
        fits(file) or (ending(file.name) in LIST_SUFFIXES and not start_of(file).strip())
    )


def _split(file: Path) -> int | None:
    found = _SPLIT.search(file.name)
    return int(found["split"]) if found else None


def _usual(match: re.Match[str]) -> str:
    subset = match["subset"].lower()
    return _USUAL.get(subset, subset)


def _ordered(files: dict[str, Path]) -> dict[str, Path]:
    return {subset: files[subset] for subset in _ORDER if subset in files}
