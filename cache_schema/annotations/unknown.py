"""What is said of labels in no format that is known: what the file looks like, and what may have been meant."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from cache_schema.annotations.published import shortened, start_of
from cache_schema.errors import LabelError
from cache_schema.names import VIDEO_SUFFIXES, ending

_ALIKE = 0.75  # of names, by difflib's ratio
_NAMED = 3


def unknown(path: Path, examples: Mapping[str, str]) -> LabelError:
    """The error for a file or folder in no known format.

    Args:
        examples: by format, what a file of it is called, or looks like.
    """
    looks = _folder(path) if path.is_dir() else _file(path)
    alike = _alike(path, examples)
    return LabelError(
        f"{path}: labels in no format that is known: {looks}{alike}; docs/labels.md shows all formats"
    )


def _file(path: Path) -> str:
    start = start_of(path)
    lines = [line.strip() for line in start.split("\n") if line.strip()]
    with path.open("rb") as file:
        head = file.read(4096)
    if (b"\0" in head and not start.strip("\0").isprintable()) or "\0" in start:
        return f"it is no text, but begins with the bytes {head[:12]!r}"
    if not lines:
        return "it is empty"
    shown = f"its first line is {shortened(lines[0])!r}"
    if lines[0][0] in "{[":
        return f'{shown}; of JSON, \'[{{"filename": …, "label": …}}, …]\' and files of benchmarks are known'
    if ending(lines[0].strip('"')) in VIDEO_SUFFIXES or len(lines[0].split()) == 1:
        return f"{shown}, which names a video and no class; a list has 'PATH LABEL' in each line"
    return (
        f"{shown}; a table's first line must name its columns, as in video_id,label,subset, and lines of a list "
        "be 'PATH LABEL' or 'PATH FRAMES LABEL'"
    )


def _folder(path: Path) -> str:
    files = [entry.name for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_file()]
    if not files:
        return "a folder without files, and without videos in folders of classes, CLASS/VIDEO.mp4"
    kinds = Counter(ending(name) or "without ending" for name in files).most_common(_NAMED)
    held = ", ".join(f"{count:,} {kind}" for kind, count in kinds)
    return (
        f"a folder with {held} ({', '.join(sorted(files)[:_NAMED])}{', …' * (len(files) > _NAMED)}), of which "
        "none is a known file of labels; name the file that is, or call lists after their subset, train.csv and "
        "val.csv"
    )


def _alike(path: Path, examples: Mapping[str, str]) -> str:
    """The known names that are the most like the file's, or like those in the folder; empty where none is."""
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else [path.name]
    found = []
    for name, example in examples.items():
        if " " not in example and (close := difflib.get_close_matches(example, names, 1, _ALIKE)):
            found.append(f"{close[0]} is nearly {example} (--format {name})")
    return f"; {'; '.join(found[:2])}" if found else ""
