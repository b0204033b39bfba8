"""A text file that a publisher ships alone in a zip, read without unpacking it."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TextIO

from cache_schema.errors import LabelError

_LARGEST = 1 << 29  # bytes; a zip of some kilobytes can hold gigabytes
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


def open_zipped(path: Path, suffix: str) -> TextIO:
    """The one file with that ending in a zip, in memory, as UTF-8 text with its line ends as they are.

    Raises:
        LabelError: it is no zip, is damaged or encrypted, holds no or several such files, or a huge one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # Beside it, a Mac's archiver puts "__MACOSX/._NAME".
            members = [
                member
                for member in archive.infolist()
                if member.filename.lower().endswith(suffix)
                and not PurePosixPath(member.filename).name.startswith("._")
            ]
            if len(members) != 1:
                names = ", ".join(sorted(member.filename for member in members)[:3])
                held = f"several {suffix} files, such as {names}" if members else f"no {suffix} file"
                raise LabelError(f"{path}: holds {held}; unpack the one with the labels")
            (member,) = members
            if member.file_size > _LARGEST:
                raise LabelError(
                    f"{path}: {member.filename} has {member.file_size / 1e9:.1f} GB unpacked, too much for a "
                    "file of labels; if it is one, unpack it"
                )
            # No more than file_size is unpacked, whatever the zip holds.
            content = archive.read(member)
    except _DAMAGE as error:
        raise LabelError(f"{path}: not a zip that can be read ({error}); get it again") from error
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
