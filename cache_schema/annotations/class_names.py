"""Which class each column of a network's scores stands for."""

from __future__ import annotations

import json
from pathlib import Path

from cache_schema.errors import LabelError

_LAYOUT = 'an object of classes and their columns, as in {"abseiling": 0, "air drumming": 1}'


def read_class_names(path: Path) -> tuple[str, ...]:
    """The class name of each column, in order.

    Args:
        path: a text file (UTF-8) with a name in each line, or a .json object from name to column, counted from 0.
            The quotes around names in PyTorchVideo's kinetics_classnames.json are taken off.

    Raises:
        LabelError: the file cannot be read, a name is missing or occurs twice, or the columns are not 0 to C - 1.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabelError(f"{path}: cannot read the class names: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not a text file in UTF-8") from error
    return _of_json(path, text) if path.suffix.lower() == ".json" else _of_lines(path, text)


def _of_lines(path: Path, text: str) -> tuple[str, ...]:
    lines: dict[str, int] = {}
    for number, line in enumerate(text.rstrip().split("\n"), 1):
        name = line.strip()
        if not name:
            raise LabelError(f"{path}, line {number}: empty; every line names the class of a column")
        if name in lines:
            raise LabelError(
                f"{path}, line {number}: class {name!r} occurs twice, first in line {lines[name]}"
            )
        lines[name] = number
    return tuple(lines)


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
