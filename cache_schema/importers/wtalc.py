"""W-TALC's features: an array of objects, (T, D) for each video, beside a folder of annotations.

They are called Thumos14reduced-I3D-JOINTFeatures.npy and Thumos14reduced-Annotations/, which names the videos; a
row is RGB, then flow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.layouts import Opened
from cache_schema.importers.lists import DURATIONS, NAMES, read_ids
from cache_schema.importers.rows import Rows, Source, What, place_of, rows_of
from cache_schema.object_arrays import read_object_array

_OBJECTS = re.compile(rb"'descr': *'\|?O\d?'")
_NAME = re.compile(r"(?P<dataset>.+)-(?P<network>[^-]+)-JOINTFeatures", re.IGNORECASE)


class ObjectArray(Source):
    """The videos of an array of objects. Their rows stay on disk until they are used.

    Raises:
        UserError: the file cannot be read, its pickle calls what no array needs, or it is of other videos.
    """

    def __init__(self, path: Path, ids: tuple[str, ...], what: What) -> None:
        values = read_object_array(path)
        if values.shape != (len(ids),):
            raise UserError(
                f"{printable(path)}: objects of shape {values.shape}, where an array for each of {len(ids):,} "
                "videos is expected"
            )
        self._path, self.ids, self._what, self._values = path, ids, what, values

    def __iter__(self) -> Iterator[Rows]:
        source = printable(Path(self._path.name))
        for video_id, values in zip(self.ids, self._values, strict=True):
            place = place_of(video_id, self._path)
            if not isinstance(values, np.ndarray):
                raise UserError(f"{place}: a {type(values).__name__}, where an array is expected")
            rows: dict[str, Any] = {self._what: rows_of(values, self._what, place)}
            yield Rows(video_id, place, **rows, source=source)


def has_objects(path: Path) -> bool:
    """Whether an npy file has Python objects, by its header."""
    try:
        with path.open("rb") as file:
            return _OBJECTS.search(file.read(256)) is not None
    except OSError:
        return False  # left to the reader to report


def open_wtalc(path: Path, ids: tuple[str, ...] | None, what: What) -> Opened:
    """An array of objects, as of W-TALC: the videos' names and lengths are beside it.

    Args:
        ids: of its videos; None: in the folder of annotations.

    Raises:
        UserError: the videos are not named, or as `ObjectArray` does.
    """
    named = _NAME.fullmatch(path.stem)
    folder = path.with_name(f"{named['dataset']}-Annotations") if named else None
    if ids is None:
        if folder is None or not (folder / NAMES).exists():
            beside = f": {printable(folder / NAMES)} is not there" if folder else ""
            raise UserError(
                f"{printable(path)}: which videos its arrays are of is in W-TALC's {NAMES}{beside}; give it, or a "
                "list with an id a line, with --ids"
            )
        ids = read_ids(folder / NAMES)
    lengths = None if folder is None or not (folder / DURATIONS).exists() else folder / DURATIONS
    is_i3d = named is not None and named["network"].lower() == "i3d"
    return Opened({"": ObjectArray(path, ids, what)}, "w-talc" if is_i3d else None, lengths=lengths)
