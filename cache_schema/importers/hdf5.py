"""HDF5 files with a dataset for each video, at the top or alone in a group of the video's name.

ActivityNet's C3D features are groups with a dataset `c3d_features`, those of TSP are datasets; G-TAD has files for
subsets, and those of RGB apart from those of flow.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.parts import RGB_AND_FLOW
from cache_schema.importers.rows import Rows, Source, check_ids, place_of, rows_of
from cache_schema.schema import Array

SUFFIXES = frozenset({".h5", ".hdf5", ".hdf"})


class Hdf5(Source):
    """The videos of HDF5 files, in order of id.

    Attributes `duration` (seconds) and `fps` of a dataset, or of its group, are read.

    Args:
        part: the name of the dataset in each video's group; "" where videos are datasets themselves.
    """

    def __init__(self, paths: Sequence[Path], part: str) -> None:
        self._part = part
        found: dict[str, Path] = {}
        for path in paths:
            with _readable(path), h5py.File(path, "r") as file:
                for video_id in file:
                    if (other := found.setdefault(video_id, path)) is not path:
                        raise UserError(
                            f"{printable(path)}: video {video_id!r} is in {printable(other)}, too"
                        )
        self._videos = sorted(found.items(), key=lambda video: (paths.index(video[1]), video[0]))
        self.ids = check_ids([video_id for video_id, _ in self._videos], paths[0])

    def __iter__(self) -> Iterator[Rows]:
        return self._rows(read=True)

    def outlines(self) -> Iterator[Rows]:
        return self._rows(read=False)

    def _rows(self, *, read: bool) -> Iterator[Rows]:
        for path, videos in groupby(self._videos, key=lambda video: video[1]):
            with _readable(path), h5py.File(path, "r") as file:
                for video_id, _ in videos:
                    with _readable(path, video_id):
                        rows = self._video(file, video_id, path, read=read)
                    yield rows

    def _video(self, file: h5py.File, video_id: str, path: Path, *, read: bool) -> Rows:
        place = place_of(video_id, path)
        parent = _linked(file, video_id, place)
        dataset = parent
        if self._part:
            if not isinstance(parent, h5py.Group) or self._part not in parent:
                raise UserError(f"{place}: no dataset {self._part!r}, which other videos have")
            dataset = _linked(parent, self._part, place)
        if not isinstance(dataset, h5py.Dataset):
            raise UserError(f"{place}: a group, where other videos are datasets")
        if dataset.is_virtual or dataset.external:
            raise UserError(f"{place}: its rows are in another file: give that one")
        values: Array = dataset[()] if read else np.broadcast_to(np.zeros((), dataset.dtype), dataset.shape)
        return Rows(
            video_id,
            place,
            features=rows_of(values, "features", place),
            duration_s=_number((dataset, parent), ("duration", "duration_s"), place),
            fps=_number((dataset, parent), ("fps",), place),
            source=printable(Path(path.name)),
        )


def hdf5_parts(paths: Sequence[Path]) -> dict[str, Source]:
    """The parts of HDF5 files: datasets in each video's group by name; "" where videos are datasets themselves.

    Files whose names begin with rgb and flow are these parts.

    Raises:
        UserError: a file cannot be read, or holds no datasets.
    """
    by_part = {part: [path for path in paths if path.stem.lower().startswith(part)] for part in RGB_AND_FLOW}
    if all(by_part.values()) and sum(map(len, by_part.values())) == len(paths):
        return {part: Hdf5(files, _only_name(files[0])) for part, files in by_part.items()}
    return {name: Hdf5(paths, name) for name in _names(paths[0])}


def _names(path: Path) -> list[str]:
    """The datasets in the first video's group; [""] where it is a dataset itself."""
    with _readable(path), h5py.File(path, "r") as file:
        first = next(iter(file), None)
        if first is None:
            raise UserError(f"{printable(path)}: no videos in it")
        place = place_of(first, path)
        member = _linked(file, first, place)
        if isinstance(member, h5py.Dataset):
            return [""]
        names = [name for name in member if isinstance(_linked(member, name, place), h5py.Dataset)]
        if not names:
            raise UserError(f"{place}: a group without datasets; one for each video is expected")
        return names


def _only_name(path: Path) -> str:
    name, *others = _names(path)
    if others:
        raise UserError(
            f"{printable(path)}: videos of several datasets ({name}, {others[0]}), where one is expected"
        )
    return name


def _linked(group: h5py.Group, name: str, place: str) -> Any:
    """A member that is in this file: links could lead anywhere."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise UserError(f"{place}: {name!r} is a link to elsewhere, which is not followed")
    return group[name]


def _number(owners: Sequence[Any], names: Sequence[str], place: str) -> float:
    """The first of some attributes that there is."""
    found = (owner.attrs[name] for owner in owners for name in names if name in owner.attrs)
    value = next(found, math.nan)
    try:
        return float(np.squeeze(value))
    except (TypeError, ValueError) as error:
        raise UserError(f"{place}: its duration or rate is not a number: {value!r:.60}") from error


@contextmanager
def _readable(path: Path, video_id: str | None = None) -> Iterator[None]:
    place = printable(path) if video_id is None else place_of(video_id, path)
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise UserError(f"{place}: cannot be read: {os.strerror(error.errno)}") from error
        raise UserError(f"{place}: not readable HDF5, cut or damaged: {_one_line(error)}") from error
    except Exception as error:  # h5py turns damage into many kinds
        raise UserError(f"{place}: not readable HDF5: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
