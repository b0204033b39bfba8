"""Which class each column of a network's scores stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache_schema.errors import LabelError

_NUMBER = re.compile(r"(\d{1,6})[\s,;]+(?=\S)")
_HEADER = re.compile(
    r"\W*(class_?)?(id|index|number|label)\W*[,;\t]\W*(class_?)?(name|label|class)\W*", re.IGNORECASE
)
_LAYOUT = 'an object of classes and their columns, as in {"abseiling": 0, "air drumming": 1}'


CLASS_FILES = re.compile(
    r"(label_?map\w*|class_?ind|class_?(list|names|ids)|classes|categor(y|ies)|\w*classnames)\.(txt|csv|json)",
    re.IGNORECASE,
)
"""What files that name numbered classes are called."""


@dataclass(frozen=True)
class NumberedClasses:
    """The names of classes that a list of videos gives by number.

    Attributes:
        file: where the names are from; None: there are none, and 7 is "class 7".
        notes: a line on what was taken for what.
    """

    file: Path | None
    by_number: Mapping[int, str]
    notes: tuple[str, ...]

    @staticmethod
    def of(source: Path, class_file: Path | None, numbers: Iterable[int]) -> NumberedClasses:
        """The classes of a list, or of a folder of them.

        Args:
            class_file: names the classes (`read_class_names`); None: a file in the same folder that is called as
                one of CLASS_FILES, if there is one.
            numbers: all that occur. Where 0 is not among them, but the number of classes is, they count from 1.

        Raises:
            LabelError: the file cannot be read, or there are two.
        """
        used = {*numbers}
        if class_file is None:
            folder = source if source.is_dir() else source.parent
            files = [file for file in sorted(folder.iterdir()) if CLASS_FILES.fullmatch(file.name)]
            if len(files) > 1:
                raise LabelError(
                    f"{folder}: both {files[0].name} and {files[1].name} name classes; say which with --class-file"
                )
            if not files:
                note = (
                    f"{source}: classes have numbers alone, 'class {min(used)}'; --class-file FILE names them"
                )
                return NumberedClasses(None, {number: f"class {number}" for number in used}, (note,))
            (class_file,) = files
        names, _ = read_numbered_names(class_file)
        first = int(0 not in used and len(names) in used)
        note = f"{source}: the names of classes are from {class_file}, counted from {first}"
        return NumberedClasses(class_file, dict(enumerate(names, first)), (note,))

    def names(self, numbers: tuple[int, ...], place: str) -> tuple[str, ...]:
        """The names without repeats.

        Args:
            place: file and line, for the error.

        Raises:
            LabelError: a class has no name.
        """
        try:
            return tuple(dict.fromkeys([self.by_number[number] for number in numbers]))
        except KeyError as error:
            first, count = min(self.by_number), len(self.by_number)
            raise LabelError(
                f"{place}: has class {error}, but {self.file} names {count} classes, numbered from {first} to "
                f"{first + count - 1}"
            ) from error


def check_unused(class_file: Path | None, source: Path) -> None:
    """Raise LabelError where names are given to classes that have names."""
    if class_file is not None:
        raise LabelError(f"{source}: its classes have names; --class-file names those that have numbers")


def read_class_names(path: Path) -> tuple[str, ...]:
    """The class name of each column, in order.

    Args:
        path: a text file (UTF-8) with a name in each line, or a .json object from name to column, counted from 0.
            The quotes around names in PyTorchVideo's kinetics_classnames.json are taken off. Where all lines of a
            text file begin with a number ("1 ApplyEyeMakeup", "0,abseiling"), these say the order.

    Raises:
        LabelError: the file cannot be read, a name is missing or occurs twice, or the columns are not 0 to C - 1.
    """
    return read_numbered_names(path)[0]


def read_numbered_names(path: Path) -> tuple[tuple[str, ...], int]:
    """`read_class_names`, and the number of the first class in the file: 1 where it counts from 1, else 0."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabelError(f"{path}: cannot read the class names: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not a text file in UTF-8") from error
    return (_of_json(path, text), 0) if path.suffix.lower() == ".json" else _of_lines(path, text)


def _of_lines(path: Path, text: str) -> tuple[tuple[str, ...], int]:
    named = [(number, line.strip()) for number, line in enumerate(text.rstrip().split("\n"), 1)]
    if len(named) > 1 and len(named[0][1]) < 100 and _HEADER.fullmatch(named[0][1]):
        del named[0]
    matches = [_NUMBER.match(line) for _, line in named]
    order = {
        int(match[1]): (number, line[match.end() :])
        for match, (number, line) in zip(matches, named, strict=True)
        if match
    }
    first = min(order, default=0)
    if len(order) == len(named) and first < 2 and max(order) == first + len(order) - 1:
        named = [order[number] for number in sorted(order)]
    else:
        first = 0
    places: dict[str, int] = {}
    for number, line in named:
        name = _unquoted(line)
        if not name:
            raise LabelError(f"{path}, line {number}: empty; every line names the class of a column")
        if name in places:
            raise LabelError(
                f"{path}, line {number}: class {name!r} occurs twice, first in line {places[name]}"
            )
        places[name] = number
    return tuple(places), first


def _of_json(path: Path, text: str) -> tuple[str, ...]:
    try:
        # Pairs, or a name that occurs twice would silently be what it is the last time.
        entries = json.loads(text, object_pairs_hook=tuple)
    except RecursionError as error:
        raise LabelError(f"{path}: nested too deeply for a file of class names") from error
    except ValueError as error:
        raise LabelError(f"{path}: not JSON ({error})") from error
    if not isinstance(entries, tuple) or not entries:
        raise LabelError(f"{path}: expected {_LAYOUT}")
    columns: dict[int, str] = {}
    names: set[str] = set()
    for quoted, column in entries:
        name = _unquoted(quoted)
        if not name or name in names:
            raise LabelError(
                f"{path}: {f'class {name!r} occurs twice' if name else 'a class without a name'}"
            )
        if type(column) is not int or not 0 <= column < len(entries):
            raise LabelError(
                f"{path}: class {name!r} has column {column!r}, but the {len(entries)} columns are numbered from "
                f"0 to {len(entries) - 1}; expected {_LAYOUT}"
            )
        if column in columns:
            raise LabelError(f"{path}: classes {columns[column]!r} and {name!r} both have column {column}")
        columns[column] = name
        names.add(name)
    return tuple(columns[column] for column in range(len(columns)))


def _unquoted(name: str) -> str:
    name = name.strip()
    return name[1:-1].strip() if len(name) > 1 and name[0] == name[-1] == '"' else name
