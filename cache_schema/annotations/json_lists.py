"""Lists of videos in JSON: mmaction2's, an array of objects, or a line for each (metadata.jsonl of Hugging Face).

An object has the path, as "filename" or "frame_dir" (mmaction2), "file_name" (Hugging Face), "video" or "path";
"label", a number, a name, or an array of them; and perhaps "total_frames". mmaction2's HVU has labels by
category, {"action": [180], "object": [15]}, which become classes "action 180" and "object 15". OpenMMLab's newer
files are an object, {"metainfo": {"classes": […]}, "data_list": […]}. Files are called after their subset, as
`video_lists`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cache_schema.annotations.class_names import NumberedClasses, check_unused
from cache_schema.annotations.labels import Entry, LabelSet, label_set
from cache_schema.annotations.list_files import siblings_note, subset_files, subset_of
from cache_schema.annotations.published import lines, start_of
from cache_schema.annotations.table import plain
from cache_schema.errors import LabelError

PATH_KEYS = ("filename", "framedir", "videopath", "video", "path", "filepath", "videoid", "id")
_LABEL_KEYS = ("label", "labels", "gtlabel", "class", "category", "action")
_START = re.compile(r'\s*(\[\s*\{|\{.{0,4000}"data_list"\s*:\s*\[)', re.DOTALL)
_FORM = 'an object with "filename" or "frame_dir", and "label"'


class Listed(NamedTuple):
    """A video as an object has it; its labels are all numbers, or all names."""

    name: str
    labels: tuple[int | str, ...]
    subset: str
    file: Path
    line: int
    frames: int | None


def fits(path: Path) -> bool:
    """Whether this is such a file, by its beginning, or a folder with one that is called after a subset."""
    if path.is_dir():
        return any(subset_of(file.name) and file.is_file() and fits(file) for file in path.iterdir())
    return path.suffix.lower() == ".json" and _START.match(start_of(path)) is not None


def read(path: Path, *, split: int | None = None, class_file: Path | None = None) -> LabelSet:
    """Read a file and those beside it that are called alike, or the files of a folder.

    Args:
        split, class_file: as in `video_lists.read`.

    Raises:
        LabelError: an object is of another form, a class has no name, or a video occurs twice.
    """
    listed: list[Listed] = []
    files = subset_files(path, fits, split)
    for subset, file in files.items():
        before = len(listed)
        listed += _objects(file, subset)
        if len(listed) == before:
            raise LabelError(f"{file}: no videos in it")
    return named_set(path, listed, class_file, siblings_note(path, files))


def named_set(
    path: Path, listed: Sequence[Listed], class_file: Path | None, notes: Sequence[str] = ()
) -> LabelSet:
    """The listed videos with names for their classes. Raises LabelError as `read` does."""
    kinds = {type(label) for one in listed for label in one.labels}
    if len(kinds) > 1:
        raise LabelError(f"{path}: has classes by number and classes by name")
    if kinds == {str}:
        check_unused(class_file, path)
        return label_set(path, [Entry(*one) for one in listed], notes)  # type: ignore[arg-type]
    classes = NumberedClasses.of(path, class_file, (int(label) for one in listed for label in one.labels))
    entries = []
    for one in listed:
        place = f"{one.file}, line {one.line}" if one.line else f"{one.file}, video {one.name!r}"
        names = classes.names(tuple(map(int, one.labels)), place)
        entries.append(Entry(one.name, names, one.subset, one.file, one.line, one.frames))
    return label_set(path, entries, (*notes, *classes.notes))


def read_json_lines(file: Path, subset: str, folder: str = "") -> Iterator[Listed]:
    """The videos of a file with an object in each line.

    Args:
        folder: what its paths are relative to, with a "/" behind it.
    """
    for number, line in lines(file):
        yield _listed(
            _parsed(f"{file}, line {number}", line), f"{file}, line {number}", subset, file, number, folder
        )


def listed_in(
    file: Path, entries: Iterable[Mapping[str, Any]], subset: str, folder: str = ""
) -> Iterator[Listed]:
    """The videos of a table whose lines are such objects.

    Args:
        folder: as of `read_json_lines`.
    """
    for number, entry in enumerate(entries, 1):
        yield _listed(entry, f"{file}, row {number}", subset, file, 0, folder)


def _objects(file: Path, subset: str) -> Iterator[Listed]:
    content = _parsed(str(file), file.read_text(encoding="utf-8-sig"))
    classes: Sequence[Any] = ()
    if isinstance(content, dict):
        meta = content.get("metainfo")
        classes = meta.get("classes", ()) if isinstance(meta, dict) else ()
        content = content.get("data_list")
    if not isinstance(content, list):
        raise LabelError(f"{file}: expected an array of objects, each {_FORM}")
    for number, entry in enumerate(content, 1):
        place = f"{file}, video {number} of {len(content)}"
        listed = _listed(entry, place, subset, file, 0)
        if classes:
            try:
                named = tuple(
                    str(classes[label]) if isinstance(label, int) else label for label in listed.labels
                )
            except IndexError as error:
                raise LabelError(
                    f"{place}: has class {max(listed.labels)}, but metainfo names {len(classes)}"
                ) from error
            listed = listed._replace(labels=named)
        yield listed


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise LabelError(f"{place}: nested too deeply for a list of videos") from error
    except ValueError as error:
        raise LabelError(f"{place}: not JSON ({error})") from error


def _listed(entry: Any, place: str, subset: str, file: Path, line: int, folder: str = "") -> Listed:
    if not isinstance(entry, dict):
        raise LabelError(f"{place}: is not {_FORM}")
    values = {plain(key): value for key, value in entry.items()}
    name = next((values[key] for key in PATH_KEYS if key in values), None)
    label = next((values[key] for key in _LABEL_KEYS if key in values), None)
    if not isinstance(name, str) or not name:
        raise LabelError(f"{place}: has no path; expected {_FORM}")
    if isinstance(label, dict):  # mmaction2's HVU
        label = [f"{category} {number}" for category, numbers in label.items() for number in _array(numbers)]
    labels = tuple(dict.fromkeys(_array(label)))
    if not labels or not all(_is_class(one) for one in labels):
        raise LabelError(f"{place}: video {name!r} has the label {label!r}, which is no class, nor several")
    frames = values.get("totalframes")
    frames = frames if type(frames) is int and frames > 0 else None
    return Listed(folder + name, labels, subset or str(values.get("split", "")), file, line, frames)


def _array(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_class(label: Any) -> bool:
    return bool(label.strip()) if isinstance(label, str) else type(label) is int and label >= 0
