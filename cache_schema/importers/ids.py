"""Which videos the rows of a matrix are."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy.typing as npt

from cache_schema.errors import UserError
from cache_schema.importers.rows import printable

ID_COLUMN = "video_id"
_LONGEST = 4096


def read_ids(path: Path) -> tuple[str, ...]:
    """The ids of a text file, one a line, or of the column video_id of a CSV, in order.

    Raises:
        UserError: it cannot be read, or `check_ids` refuses them.
    """
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                ids = _column(path, file)
        else:
            ids = text_lines(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or f"not text in UTF-8 ({error})"
        raise UserError(f"{printable(path)}: cannot be read as a list of ids: {reason}") from error
    return check_ids([video_id.strip() for video_id in ids], path)


def text_lines(path: Path) -> list[str]:
    """The lines of a text file up to the last that is not blank. Raises OSError and UnicodeDecodeError."""
    text = path.read_text(encoding="utf-8-sig").rstrip()
    # Not splitlines: a name with U+2028 would be two.
    return text.split("\n") if text else []


def _column(path: Path, file: TextIO) -> list[str]:
    reader = csv.DictReader(file, strict=True)
    if ID_COLUMN not in (reader.fieldnames or ()):
        raise UserError(f"{printable(path)}: no column {ID_COLUMN!r} in its first line")
    return [row[ID_COLUMN] or "" for row in reader]


def texts_of(array: npt.NDArray[Any], name: str, path: Path) -> tuple[str, ...]:
    """The texts in an array (M,), as Unicode or bytes of UTF-8. Raises UserError: it is something else."""
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise UserError(
            f"{printable(path)}: its {name} are {array.dtype} of shape {array.shape}; a row of text is expected: "
            f"np.array({name}, dtype=str)"
        )
    try:
        return tuple(text.decode() if isinstance(text, bytes) else text for text in array.tolist())
    except UnicodeDecodeError as error:
        raise UserError(f"{printable(path)}: one of its {name} is not UTF-8: {error.object!r}") from error


def check_ids(ids: Sequence[str], path: Path) -> tuple[str, ...]:
    """The ids, each one that a shard can keep, none twice.

    Raises:
        UserError: naming the first that is not.
    """
    seen: dict[str, int] = {}
    for number, video_id in enumerate(ids, 1):
        if reason := _refused(video_id):
            raise UserError(f"{printable(path)}: id {number} of {len(ids)} {reason}")
        if seen.setdefault(video_id, number) != number:
            raise UserError(
                f"{printable(path)}: video {video_id!r} occurs twice, as id {seen[video_id]} and as id {number}"
            )
    return tuple(ids)


def _refused(video_id: str) -> str | None:
    if not video_id.strip():
        return "is empty"
    if "\0" in video_id:
        return f"has a zero byte: {video_id!r:.60}"
    try:
        encoded = video_id.encode()
    except UnicodeEncodeError:
        return f"is not Unicode text: {video_id!r:.60}"
    return f"has {len(encoded):,} bytes: {video_id!r:.60}…" if len(encoded) > _LONGEST else None
