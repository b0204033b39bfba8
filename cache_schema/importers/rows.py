"""What every file format comes down to: videos with rows, one after another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from cache_schema.errors import UserError
from cache_schema.schema import Array, Float64Array

What = Literal["features", "scores"]


@dataclass(frozen=True)
class Rows:
    """A video as a file has it.

    Attributes:
        place: the video and its file, for messages.
        features: (T, D) numbers of any type, or None.
        scores: (T, C), or None; not both are None.
        spans: (T, 2) seconds that each row saw, where the file tells.
        damage, lost: of a partial video, as in `VideoRecord`.
    """

    id: str
    place: str
    features: Array | None = None
    scores: Array | None = None
    spans: Float64Array | None = None
    duration_s: float = float("nan")
    fps: float = float("nan")
    source: str = ""
    fingerprint: str = ""
    damage: str | None = None
    lost: tuple[int, ...] = ()

    def __len__(self) -> int:
        values = self.scores if self.features is None else self.features
        assert values is not None
        return len(values)


class Source(Protocol):
    """Videos to import: read from the start whenever they are iterated over, never all in memory at once.

    Attributes:
        classes: names of the scores' columns, where the file has them.
        ignored: how many files in a folder are none of the kinds that are read.
    """

    @property
    def classes(self) -> tuple[str, ...] | None: ...

    @property
    def ignored(self) -> int: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Rows]: ...


def rows_of(values: Array, what: str, place: str) -> Array:
    """A video's array as (T, D): a vector is one row.

    Raises:
        UserError: it has other dimensions, nothing in it, or no numbers.
    """
    if values.dtype.kind not in "iuf":
        raise UserError(f"{place}: its {what} are of type {values.dtype}, which is no type of numbers")
    if values.ndim not in (1, 2) or not values.size:
        raise UserError(f"{place}: its {what} have shape {values.shape}; (rows, columns) is expected")
    return values if values.ndim == 2 else values[None]


def place_of(video_id: str, path: Path) -> str:
    """A video and its file, for messages."""
    return f"{printable(path)}: video {video_id!r}"


def printable(path: Path) -> str:
    """A path as text that can be printed and stored: bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
