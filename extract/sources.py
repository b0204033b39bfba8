"""Which videos a request means, under which ids, and what tells one file's content from another's."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cache_schema.errors import UserError

Ids = Literal["stem", "path"]

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on
LIST_SUFFIXES = frozenset({".txt", ".lst", ".list"})
_FINGERPRINT_BYTES = 64 * 1024


@dataclass(frozen=True)
class SourceVideo:
    """A file to extract and the id it has in the cache."""

    id: str
    path: Path


@dataclass(frozen=True)
class Sources:
    """What a request names.

    Attributes:
        videos: in order of id, each id once.
        refused: (file, reason) of those that cannot be extracted as they were named.
        ignored: number of files in folders whose names do not end like a video's.
    """

    videos: tuple[SourceVideo, ...]
    refused: tuple[tuple[str, str], ...]
    ignored: int

    def absolute(self) -> Sources:
        """The same by paths that do not depend on where a process was started."""
        return replace(self, videos=tuple(replace(v, path=v.path.absolute()) for v in self.videos))


def find_videos(arguments: Sequence[Path], *, ids: Ids = "stem") -> Sources:
    """Expand files, folders (recursively) and list files (a path per line, relative to the list).

    Args:
        ids: "stem" calls a video by its file name without ending; "path" by its path below the folder
            or list that was given, without ending.

    Raises:
        UserError: an argument that does not exist, or nothing to extract.
    """
    found: dict[str, tuple[Path, str]] = {}
    refused: list[tuple[str, str]] = []
    ignored = 0
    for argument in arguments:
        if argument.is_dir():
            root = argument
            files = sorted(_files(argument))
            videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
            ignored += len(files) - len(videos)
        elif not argument.exists():
            raise UserError(f"{printable(argument)}: no such file or folder")
        elif argument.suffix.lower() in LIST_SUFFIXES:
            root, videos = argument.parent, _read_list(argument)
        else:
            root, videos = argument.parent, [argument]
        for path in videos:
            if path.is_file():
                # A file may be named twice: by its folder and by a list, with and without "./".
                found.setdefault(os.path.abspath(path), (path, video_id(path, root, ids)))  # noqa: PTH100
            else:
                refused.append((printable(path), "not a file" if path.exists() else "no such file"))
    if not found and not refused:
        raise UserError(f"no videos in {', '.join(map(printable, arguments))}")
    unique, ambiguous = _split_ambiguous(found.values(), ids)
    return Sources(tuple(unique), (*refused, *ambiguous), ignored)


def video_id(path: Path, root: Path, ids: Ids) -> str:
    """The id of a file; bytes of its name that are not UTF-8 become \\xNN."""
    if ids == "path" and path.is_relative_to(root):
        return printable(path.relative_to(root).with_suffix(""))
    return printable(Path(path.stem))


def printable(path: Path) -> str:
    """A path as one line of text that can be printed and stored, whatever bytes it is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace("\n", "\\n").replace("\r", "\\r")


def fingerprint(path: Path) -> str:
    """Size and a digest of the beginning and the end: tells two videos apart without reading them whole."""
    size = path.stat().st_size
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        digest.update(file.read(_FINGERPRINT_BYTES))
        if size > 2 * _FINGERPRINT_BYTES:
            file.seek(-_FINGERPRINT_BYTES, os.SEEK_END)
        digest.update(file.read(_FINGERPRINT_BYTES))
    return f"{size}-{digest.hexdigest()}"


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, through links to folders too, each folder once; hidden ones are left out."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # links may lead back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _read_list(path: Path) -> list[Path]:
    # File names are bytes: read as the file system gives them, and split only where a byte says so (as text,
    # a name with U+2028 would be two).
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError as error:
        raise UserError(f"{printable(path)}: cannot read the list: {error.strerror or error}") from error
    names = [os.fsdecode(line.strip()) for line in lines]
    if any("\0" in name for name in names):
        raise UserError(f"{printable(path)}: not a list of paths: it has bytes that no name has")
    return [path.parent / name for name in names if name]


def _split_ambiguous(
    found: Iterable[tuple[Path, str]], ids: Ids
) -> tuple[list[SourceVideo], list[tuple[str, str]]]:
    """Files that share an id are refused all: which one a label means cannot be known."""
    by_id: dict[str, list[Path]] = {}
    for path, name in found:
        by_id.setdefault(name, []).append(path)
    unique = [SourceVideo(name, paths[0]) for name, paths in sorted(by_id.items()) if len(paths) == 1]
    remedy = "rename one, or use --ids path" if ids == "stem" else "rename one"
    ambiguous = [
        (
            printable(path),
            f"its id {name!r} is also that of {printable(next(p for p in paths if p != path))}; {remedy}",
        )
        for name, paths in sorted(by_id.items())
        if len(paths) > 1
        for path in paths
    ]
    return unique, ambiguous
