"""Class scores and features that people have already, as streams of a cache.

Each file format is a `Source` of videos (matrix.py, table.py, folder.py, hdf5.py); some published layouts have
several, as RGB and flow (layouts.py, parts.py). What files do not hold comes from the user: what a row costs
(stream.py), and when in a video it is (instants.py), which lists of lengths can contradict (lists.py, lengths.py).
"""

from __future__ import annotations

from pathlib import Path

from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.arrow import DATASET_DICT, PARQUET, SavedDataset, open_parquet
from cache_schema.importers.folder import KINDS, TEXT_KINDS, files_below
from cache_schema.importers.hdf5 import SUFFIXES as HDF5
from cache_schema.importers.importing import Imported, import_stream, looks_like
from cache_schema.importers.instants import Timing
from cache_schema.importers.layouts import LAYOUTS, Opened, open_folder, open_hdf5
from cache_schema.importers.lists import read_ids
from cache_schema.importers.matrix import open_npy, open_npz_file
from cache_schema.importers.planning import PlannedStream, StreamOptions, plan_streams
from cache_schema.importers.rows import Source, What
from cache_schema.importers.table import ScoreTable
from cache_schema.importers.wtalc import has_objects, open_wtalc
from cache_schema.tools.datasets import STATE, TABLES


def open_source(
    path: Path,
    *,
    stream: str | None,
    what: What | None = None,
    ids: tuple[str, ...] | None = None,
    array: str | None = None,
    layout: str | None = None,
) -> Opened:
    """Open a file or a folder of videos to import.

    Args:
        stream: its name, which an npz file's array may have.
        what: what the arrays are; None: scores in a file of all videos, in a folder whatever its files have.
        ids: the videos of an npy or npz file, in the order of its rows.
        array: name of an npz file's array, or of the one part that is wanted.
        layout: which of LAYOUTS the user says that it is.

    Raises:
        UserError: it cannot be imported, holds no videos, or an option does not apply to it.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError(f"{printable(path)}: no such file or folder")
    if array is not None and not (path.is_dir() or suffix in (".npz", PARQUET, *HDF5)):
        raise UserError(
            f"--array names an array of npz or HDF5 files, or a column of parquet, and {printable(path)} is none"
        )
    if ids is not None and (path.is_dir() or suffix not in (".npy", ".npz")):
        raise UserError(f"--ids is for npy and npz files; {printable(path)} says itself whose rows are whose")
    if path.is_dir() and (path / DATASET_DICT).exists():
        raise UserError(f"{printable(path)}: several data sets in one: give one of its folders, as train")
    if path.is_dir() and (path / STATE).exists():
        opened = Opened({"": SavedDataset(path, what, array=array)})
    elif table := next((file for file in (path / name for name in TABLES) if file.exists()), None):
        opened = Opened({"": open_parquet(table, what, array)})
    elif tables := _parquet_files(path):
        opened = Opened({"": SavedDataset(path, what, files=tables, array=array)})
    elif path.is_dir():
        opened = open_folder(path, what, array, layout)
    else:
        opened = _open_file(path, suffix, stream, what, ids, array)
    if not all(map(len, opened.parts.values())):
        raise UserError(f"{printable(path)}: no videos in it")
    return opened


def _parquet_files(path: Path) -> list[Path]:
    """Those below a folder, where it has no other files that are read, as of a data set that was downloaded."""
    files = sorted(files_below(path)) if path.is_dir() else []
    read = {file.suffix.lower() for file in files} & {PARQUET, *KINDS, *TEXT_KINDS, *HDF5}
    return [file for file in files if file.suffix.lower() == PARQUET] if read == {PARQUET} else []


def _open_file(
    path: Path,
    suffix: str,
    stream: str | None,
    what: What | None,
    ids: tuple[str, ...] | None,
    array: str | None,
) -> Opened:
    if suffix == ".npy" and has_objects(path):
        return open_wtalc(path, ids, what or "features")
    if suffix == ".npy":
        return Opened({"": open_npy(path, ids, what or "scores")})
    if suffix == ".npz":
        return Opened({"": open_npz_file(path, ids, what or "scores", array=array, stream=stream)})
    if suffix in HDF5:
        if what == "scores":
            raise UserError(f"{printable(path)}: HDF5 is read as features; save class scores as npz or CSV")
        return open_hdf5([path], array)
    if suffix == PARQUET:
        return Opened({"": open_parquet(path, what, array)})
    if suffix in (".csv", ".tsv", ".txt"):
        if what == "features":
            raise UserError(f"{printable(path)}: a CSV is read as class scores; save features as npy or npz")
        return Opened({"": ScoreTable(path)})
    raise UserError(
        f"{printable(path)}: neither npy, npz, HDF5, parquet nor csv, nor a folder of such files; other formats "
        "are not read: save the arrays with numpy"
    )


__all__ = [
    "LAYOUTS",
    "Imported",
    "Opened",
    "PlannedStream",
    "Source",
    "StreamOptions",
    "Timing",
    "What",
    "import_stream",
    "looks_like",
    "open_source",
    "plan_streams",
    "read_ids",
]
