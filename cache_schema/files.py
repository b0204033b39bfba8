"""Replace files atomically, in folders that several machines may share; delete what dead writers left."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shutil
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py

# Writing a file takes seconds.
_OLD_S = 24 * 3600.0

StrPath = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to; the file there replaces `path` when the block ends without an error.

    Readers see the old file or the complete new one, even after a crash: close, fsync, rename, fsync of the
    folder. After an error the temporary file is deleted. OSError is passed on.
    """
    temporary = _temporary(path)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(temporary.unlink, missing_ok=True)
        yield temporary
        fsync(temporary)
        temporary.replace(path)
        on_failure.pop_all()
    fsync(path.parent)


@contextlib.contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder to fill; it becomes `path` when the block ends without an error.

    As `replacing`, of a folder that is not there yet, or is empty: OSError where it is neither.
    """
    temporary = _temporary(path)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(shutil.rmtree, temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        for part in (*temporary.rglob("*"), temporary):
            fsync(part)
        temporary.replace(path)
        on_failure.pop_all()
    fsync(path.parent)


def _temporary(path: Path) -> Path:
    """The thread is in its name, because two of one process may be at the same file; the process, to tell who has
    died."""
    writer = f"{threading.get_ident()}.{_mark()}-{os.getpid()}"
    return path.with_name(f".{path.name[:120]}.{writer}.tmp")


@contextlib.contextmanager
def replacing_hdf5(path: Path) -> Iterator[h5py.File]:
    """Yields an HDF5 file to fill; it replaces `path` when the block ends without an error, as in `replacing`.

    It is built in memory: on a full disk HDF5 raises errors of many kinds, prints, and may crash.
    """
    content = io.BytesIO()
    # Not the library's default format: this one checksums its own metadata and takes attributes above 64 KiB (the
    # names of many classes).
    with h5py.File(content, "w", libver=("v110", "v110")) as file:
        yield file
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def check_writable(folder: Path) -> None:
    """Raise OSError where a folder takes no files or, as long as it is missing, where the one above it takes none.

    It is not made for that: to remove it again would take it from another program that has just found it.
    """
    there = next(one for one in (folder, *folder.parents) if one.exists())
    with tempfile.TemporaryFile(dir=there):
        pass


def missing_folders(folder: Path) -> tuple[Path, ...]:
    """A folder and those above it as far as they are not there, the deepest first; none where that cannot be told,
    as of a name that is too long."""
    try:
        return tuple(itertools.takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    except OSError:
        return ()


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, the deepest first, up to one that something is in."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def remove_stale_temporaries(folder: Path) -> None:
    """Delete temporary files and folders of writers that have ended, or a day old where that cannot be told."""
    mine = f".{_mark()}-"
    for path in folder.glob(".*.tmp"):
        _, found, pid = path.name.removesuffix(".tmp").rpartition(mine)
        is_dead = found and machine() and pid.isdigit() and not started(int(pid))
        if is_dead or (not found and _is_old(path)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _mark() -> str:
    """Eight digits for this machine and its space of process numbers."""
    return f"{zlib.crc32((machine() or socket.gethostname()).encode()):08x}"


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _OLD_S
    except OSError:
        return False  # gone meanwhile


def machine() -> str:
    """This boot of this machine and this space of process numbers; empty where that cannot be told.

    A host's name is not enough: containers may share one, and each has a process 1.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def started(process: int) -> str:
    """When a process began, in ticks since the boot; empty if it has ended. Process numbers are used again."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def fsync(path: Path) -> None:
    """Flush a file's content to disk, or a folder's renamed, linked and deleted entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def printable(name: str | Path) -> str:
    """A name or path as one line of text that can be printed and stored, whatever bytes it is made of."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace("\n", "\\n").replace("\r", "\\r")
