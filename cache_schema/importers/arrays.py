"""npy and npz files of unknown origin: mapped where that can be, and never unpickled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache_schema.errors import UserError
from cache_schema.files import printable

_NPY, _ZIP, _PICKLE = b"\x93NUMPY", b"PK", b"\x80"
_REFUSED = (
    "holds pickled Python objects, which can run any program when they are read; save plain numbers instead: "
    "an npy file for each video, or an npz of arrays whose dtype is not object"
)


def map_npy(path: Path) -> npt.NDArray[Any]:
    """The array of an npy file, memory-mapped.

    Raises:
        UserError: it cannot be read, is cut, is something else, or holds Python objects.
    """
    with _readable(path, "npy"):
        _check_start(path, _NPY, "npy")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        assert isinstance(array, np.ndarray)
        return array


class Npz:
    """The arrays of an npz file by name, each read on access, which raises UserError as `map_npy` does."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file
        self.names: tuple[str, ...] = tuple(file.files)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        with _readable(self.path, "npz"):
            array: npt.NDArray[Any] = self._file[name]
            if not isinstance(array, np.ndarray):  # numpy gives the bytes of a member that is no array
                raise ValueError(f"{name!r} is not an array")
            return array


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """Open an npz file. Raises UserError as `map_npy` does."""
    with _readable(path, "npz"):
        _check_start(path, _ZIP, "npz")
        file = np.load(path, allow_pickle=False)
    with file:
        yield Npz(path, file)


def _check_start(path: Path, magic: bytes, kind: str) -> None:
    """numpy takes whatever it does not know for a pickle."""
    with path.open("rb") as file:
        start = file.read(len(_NPY))
    if start.startswith(_PICKLE):
        raise UserError(f"{printable(path)}: {_REFUSED}")
    if not start.startswith(magic):
        raise UserError(f"{printable(path)}: {f'not an {kind} file' if start else 'an empty file'}")


@contextlib.contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{printable(path)}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zip, zlib and numpy raise many kinds
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise UserError(f"{printable(path)}: {_REFUSED}") from error
        raise UserError(f"{printable(path)}: not a readable {kind} file: {error}") from error
