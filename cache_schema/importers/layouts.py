"""Layouts in which features for localization are published: how they are told, and what is usual of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.folder import KINDS, Folder, files_below
from cache_schema.importers.hdf5 import SUFFIXES as HDF5
from cache_schema.importers.hdf5 import hdf5_parts
from cache_schema.importers.instants import dense
from cache_schema.importers.parts import RGB_AND_FLOW
from cache_schema.importers.rows import Source, What
from cache_schema.importers.video_features import is_instants, video_features_parts
from cache_schema.schema import Sampling


@dataclass(frozen=True)
class Layout:
    """What is usual of features as somebody publishes them; no file says it.

    Attributes:
        title: what they are, for people.
        sampling: how their rows lie; None: their files say it.
        streams: the built-in streams that they are of, RGB and flow.
    """

    title: str
    sampling: Sampling | None
    streams: tuple[str, ...] = ()


_I3D = ("i3d_rgb_dense16", "i3d_flow_dense16")
# Sources: the publishers' READMEs and configurations.
LAYOUTS: Mapping[str, Layout] = {
    "w-talc": Layout("W-TALC's array of (T, 2048) a video, RGB and flow", dense(25, 16), _I3D),
    "bas-net": Layout("BaS-Net's folders rgb and flow", dense(25, 16), _I3D),
    "actionformer": Layout("ActionFormer's I3D features of Thumos'14", dense(30, 16, stride=4)),
    "actionformer-epic": Layout(
        "ActionFormer's SlowFast features of EPIC-Kitchens", dense(30, 32, stride=16)
    ),
    "tsp": Layout("TSP's R(2+1)D features", dense(15, 16)),
    "activitynet-c3d": Layout("ActivityNet's C3D features", dense(0, 16, stride=8)),
    "g-tad": Layout("G-TAD's TSN features of every frame", dense(0, 1)),
    "video-features": Layout("the output of video_features", None),
}


@dataclass(frozen=True)
class Opened:
    """What a file or folder holds.

    Attributes:
        parts: sources by name, as rgb and flow; "" for the only one.
        layout: which of LAYOUTS its files are recognised as, if any.
        sampling: how rows lie, if files say it.
        lengths: a list of the videos' lengths that lies beside it, if there is one.
    """

    parts: Mapping[str, Source]
    layout: str | None = None
    sampling: Sampling | None = None
    lengths: Path | None = None


def open_hdf5(paths: Sequence[Path], array: str | None) -> Opened:
    """HDF5 files with a dataset for each video. Raises UserError as `hdf5_parts` does."""
    parts = hdf5_parts(paths)
    return Opened(
        _chosen(parts, array, paths[0]), "activitynet-c3d" if set(parts) == {"c3d_features"} else None
    )


def open_folder(path: Path, what: What | None, array: str | None, layout: str | None) -> Opened:
    """A folder in one of the layouts, or with a file for each video.

    Args:
        array: the part that is wanted, or the name of arrays in npz files.
        layout: what the user says that it is.

    Raises:
        UserError: there is nothing to import, or files contradict each other.
    """
    files = sorted(files_below(path))
    hdf5 = [file for file in files if file.suffix.lower() in HDF5]
    if hdf5 and not any(file.suffix.lower() in KINDS for file in files):
        return open_hdf5(hdf5, array)
    if layout == "video-features" or any(map(is_instants, files)):
        parts, sampling = video_features_parts(path)
        return Opened(_chosen(parts, array, path), "video-features", sampling)
    parts_of = {file: _part(file.relative_to(path)) for file in files if file.suffix.lower() in KINDS}
    if set(RGB_AND_FLOW) <= set(parts_of.values()):
        if None in parts_of.values():
            other = next(file for file, part in parts_of.items() if part is None)
            raise UserError(f"{printable(other)}: in no folder rgb or flow, as others are: give one of these")
        by_part = {part: Folder(path, what, id_of=partial(_id_in, part)) for part in RGB_AND_FLOW}
        return Opened(_chosen(by_part, array, path), "bas-net")
    return Opened({"": Folder(path, what, array=array)})


def _part(below: Path) -> str | None:
    """Whether a file is of rgb or flow, by the folders that it is in."""
    folders = {folder.lower() for folder in below.parts[:-1]}
    return next((part for part in RGB_AND_FLOW if part in folders), None)


def _id_in(part: str, below: Path) -> str | None:
    return printable(Path(below.stem)) if _part(below) == part else None


def _chosen(parts: Mapping[str, Source], part: str | None, path: Path) -> Mapping[str, Source]:
    if part is None:
        return parts
    if part not in parts:
        raise UserError(
            f"{printable(path)}: no {part!r} in it; --array may be: {', '.join(filter(None, parts))}"
        )
    return {part: parts[part]}
