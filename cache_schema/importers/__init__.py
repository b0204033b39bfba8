"""Class scores and features that people have already, as streams of a cache.

Each file format is a `Source` of videos (matrix.py, table.py, folder.py). What files do not hold comes from the
user: what a row costs (stream.py), and when in a video it is (instants.py).
"""

from __future__ import annotations

from pathlib import Path

from cache_schema.errors import UserError
from cache_schema.importers.folder import Folder
from cache_schema.importers.importing import Imported, import_stream, looks_like
from cache_schema.importers.instants import Timing
from cache_schema.importers.matrix import open_npy, open_npz_file
from cache_schema.importers.rows import Source, What, printable
from cache_schema.importers.stream import like_stream, macs_per_row, make_spec
from cache_schema.importers.table import ScoreTable


def open_source(
    path: Path,
    *,
    stream: str,
    what: What | None = None,
    ids: tuple[str, ...] | None = None,
    array: str | None = None,
) -> Source:
    """Open a file or a folder of videos to import.

    Args:
        what: what the arrays are; None: scores in a file of all videos, in a folder whatever its files have.
        ids: the videos of an npy or npz file, in the order of its rows.
        array: name of an npz file's array.

    Raises:
        UserError: it cannot be imported, holds no videos, or an option does not apply to it.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError(f"{printable(path)}: no such file or folder")
    if array is not None and (path.is_dir() or suffix != ".npz"):
        raise UserError(f"--array names an array of an npz file, and {printable(path)} is none")
    if ids is not None and (path.is_dir() or suffix not in (".npy", ".npz")):
        raise UserError(f"--ids is for npy and npz files; {printable(path)} says itself whose rows are whose")
    source: Source
    if path.is_dir():
        source = Folder(path, what)
    elif suffix == ".npy":
        source = open_npy(path, ids, what or "scores")
    elif suffix == ".npz":
        source = open_npz_file(path, ids, what or "scores", array=array, stream=stream)
    elif suffix == ".csv":
        if what == "features":
            raise UserError(f"{printable(path)}: a CSV is read as class scores; save features as npy or npz")
        source = ScoreTable(path)
    else:
        raise UserError(
            f"{printable(path)}: neither npy, npz nor csv, nor a folder of npy or npz files; other formats "
            "are not read: save the arrays with numpy"
        )
    if not len(source):
        raise UserError(f"{printable(path)}: no videos in it")
    return source


__all__ = [
    "Imported",
    "Source",
    "Timing",
    "What",
    "import_stream",
    "like_stream",
    "looks_like",
    "macs_per_row",
    "make_spec",
    "open_source",
]
