"""Class scores (or features) of all videos in one npy or npz file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema.command import count
from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.arrays import map_npy, open_npz
from cache_schema.importers.rows import Rows, Source, What, check_ids, place_of, rows_of, texts_of
from cache_schema.schema import Array

IDS, CLASSES = "ids", "classes"
# Videos read at once: an array in Fortran order has the values of one far apart.
_AT_ONCE = 256
_EXPORTED = frozenset({"spans", "duration_s"})


class Matrix(Source):
    """All videos in one array: (M, C) with one row a video, or (M, K, C) with K; `ids` are M."""

    def __init__(
        self,
        path: Path,
        values: Array,
        ids: tuple[str, ...],
        what: What,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        if values.ndim not in (2, 3):
            raise UserError(
                f"{printable(path)}: an array of shape {values.shape}; (videos, columns) or (videos, clips, "
                "columns) is expected"
            )
        if len(values) != len(ids):
            raise UserError(
                f"{printable(path)}: {count(len(values), 'videos')}, but {count(len(ids), 'ids')}"
            )
        self.classes = classes
        self._path, self._values, self.ids, self._what = path, values, ids, what

    def __iter__(self) -> Iterator[Rows]:
        source = printable(Path(self._path.name))
        for start in range(0, len(self.ids), _AT_ONCE):
            block = np.array(self._values[start : start + _AT_ONCE])
            for video_id, values in zip(self.ids[start : start + _AT_ONCE], block, strict=True):
                place = place_of(video_id, self._path)
                rows: dict[str, Any] = {self._what: rows_of(values, self._what, place)}
                yield Rows(video_id, place, **rows, source=source)


class ArrayPerVideo(Source):
    """An npz file with an array for each video under its id: (C,), or (K, C)."""

    def __init__(self, path: Path, ids: tuple[str, ...], what: What) -> None:
        self._path, self.ids, self._what = path, ids, what

    def __iter__(self) -> Iterator[Rows]:
        source = printable(Path(self._path.name))
        with open_npz(self._path) as file:
            for video_id in self.ids:
                place = place_of(video_id, self._path)
                rows: dict[str, Any] = {self._what: rows_of(file[video_id], self._what, place)}
                yield Rows(video_id, place, **rows, source=source)


def open_npy(path: Path, ids: tuple[str, ...] | None, what: What) -> Matrix:
    """The array of an npy file, with ids from elsewhere.

    Raises:
        UserError: no ids are given, or not as many as the array has videos.
    """
    if ids is None:
        raise UserError(
            f"{printable(path)}: which videos its rows are is not in an npy file: give --ids FILE"
        )
    return Matrix(path, map_npy(path), ids, what)


def open_npz_file(
    path: Path, ids: tuple[str, ...] | None, what: What, *, array: str | None, stream: str | None
) -> Matrix | ArrayPerVideo:
    """The videos of an npz file, which has either `ids` and one array, or an array for each video.

    Args:
        array: the array's name; None: "scores" (or "features"), or the stream's name.

    Raises:
        UserError: there is no such array, or the ids are missing or do not fit it.
    """
    with open_npz(path) as file:
        names = set(file.names)
        if IDS in names and ids is not None:
            raise UserError(f"{printable(path)}: has ids of its own: leave out --ids")
        if IDS not in names and ids is None and array is None:
            if names >= _EXPORTED:
                raise UserError(f"{printable(path)}: one video's file: give the folder that it is in")
            return ArrayPerVideo(path, check_ids(file.names, path), what)
        found = next((n for n in ([array] if array else [what, stream]) if n in names), None)
        if found is None:
            others = ", ".join(sorted(names - {IDS, CLASSES})) or "none"
            raise UserError(
                f"{printable(path)}: no array {array or what!r}; say which with --array: {others}"
            )
        if ids is None:
            if IDS not in names:
                raise UserError(
                    f"{printable(path)}: no array 'ids', which says whose rows {found!r} has: give --ids"
                )
            ids = check_ids(texts_of(file[IDS], IDS, path), path)
        classes = texts_of(file[CLASSES], CLASSES, path) if CLASSES in names and what == "scores" else None
        return Matrix(path, file[found], ids, what, classes)
