"""Files that are replaced as a whole, in folders that several machines may share.

Also what that needs: which writers have ended, told by the names of the temporary files that they left.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py

# Writing a file takes seconds.
_OLD_S = 24 * 3600.0


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write a file to, which takes the place of `path` when the block ends well.

    Somebody who reads, or a machine that fails, sees the old file or the complete new one: close, fsync, rename,
    fsync of the folder. What a failure leaves half-written is deleted.

    Raises:
        OSError: from the system, as it is.
    """
    # The thread, because two of one process may be at the same file; the process, to tell who has died.
    writer = f"{threading.get_ident()}.{_mark()}-{os.getpid()}"
    temporary = path.with_name(f".{path.name[:120]}.{writer}.tmp")
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(temporary.unlink, missing_ok=True)
        yield temporary
        fsync(temporary)
        temporary.replace(path)
        on_failure.pop_all()
    fsync(path.parent)


@contextlib.contextmanager
def replacing_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to fill, which takes the place of `path` when the block ends well, as `replacing` does.

    It is made in memory: where a disk is full, HDF5 itself raises what it likes, prints, and may crash.

    Raises:
        OSError: from the system, as it is.
    """
    content = io.BytesIO()
    # Not the library's default format: this one checksums its own metadata and takes attributes above 64 KiB (the
    # names of many classes).
    with h5py.File(content, "w", libver=("v110", "v110")) as file:
        yield file
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def remove_stale_temporaries(folder: Path) -> None:
    """Delete what writers have left half-written that can be seen to have ended, or that began a day ago."""
    mine = f".{_mark()}-"
    for path in folder.glob(".*.tmp"):
        _, found, pid = path.name.removesuffix(".tmp").rpartition(mine)
        is_dead = found and machine() and pid.isdigit() and not started(int(pid))
        if is_dead or (not found and _is_old(path)):
            path.unlink(missing_ok=True)


def _mark() -> str:
    """Short for the machine and the space of process numbers that a writer's number is of."""
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
    """When a process began, in ticks since the boot; empty for none. A number alone may have been given again."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def fsync(path: Path) -> None:
    """Make a file's content last, or what was renamed, linked or deleted in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
