"""Lists of videos: a path a line, the published lists of paths with labels, and tables with a column of paths."""

from __future__ import annotations

import codecs
import csv
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache_schema.annotations.table import plain
from cache_schema.files import printable
from cache_schema.names import VIDEO_SUFFIXES, ending, split_ending

# What a table may call its column of paths (`plain`), the likeliest first.
_PATH_COLUMNS = (
    "path",
    "filepath",
    "videopath",
    "file",
    "filename",
    "videofile",
    "video",
    "videoname",
    "videoid",
)
_DELIMITERS = "\t;,"
_QUOTED = re.compile(r'"((?:[^"]|"")+)"')
_NUMBER_BEHIND = re.compile(r"[\s,;]+[-+]?[0-9]+(?:\.[0-9]+)?$")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")  # not of one letter: "C:/" is no address


@dataclass(frozen=True)
class PathList:
    """What a list names.

    Attributes:
        found: files, and folders of frames.
        missing: (path, why there is none) of the other lines.
        labelled: whether something stands behind the path in some line.
    """

    found: tuple[Path, ...]
    missing: tuple[tuple[str, str], ...]
    labelled: bool


def parse_list(content: bytes, root: Path, *, folders: bool) -> PathList:
    """Read a list of paths, which are relative to `root`.

    A line is a path; or, where nothing of that name is there, a path with numbers behind it ("path label", "path
    frames label"), or with anything behind a comma, semicolon or tab. A table is read by the column that its first
    line calls "path", "video" or the like. A path without a video's ending also means the only video that has one
    and is called so otherwise.

    Args:
        folders: whether a path may be a folder, of frames.

    Raises:
        ValueError: it has bytes that no name has.
    """
    if b"\0" in content:
        raise ValueError("not a list of paths: it has bytes that no name has")
    # File names are bytes: read as the file system gives them, and split only where a byte says so (as text,
    # a name with U+2028 would be two).
    lines = [os.fsdecode(line.strip()) for line in content.removeprefix(codecs.BOM_UTF8).splitlines()]
    lines = [line for line in lines if line]
    places = _Places(root, folders=folders)
    column = None if not lines or places.find(lines[0]) else _path_column(lines[0])
    rows = map(_readings, lines) if column is None else _cells(lines[1:], *column)
    found: list[Path] = []
    missing: list[tuple[str, str]] = []
    labelled = column is not None and column[1] in lines[0]
    for readings in rows:
        meant = next(((text, path) for text in readings if (path := places.find(text))), None)
        if meant is None:
            text = next(filter(places.is_likely, readings), readings[0])
            missing.append((places.shown(text), places.why_not(text)))
        else:
            text, path = meant
            found.append(path)
        labelled |= text != readings[0]
    return PathList(tuple(found), tuple(missing), labelled)


def why_not(path: Path) -> str:
    """Why a path names no file to read."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    if stat.S_ISDIR(mode):
        return "a folder; if it holds the frames of a video, --frames-fps RATE says how many a second"
    return "not a file"


def address(text: str) -> str | None:
    """The address that a text is instead of a path; as a path it may have lost a slash. None: it is none."""
    return _ADDRESS.sub(r"\1://", text, count=1) if _ADDRESS.match(text) else None


def _readings(line: str) -> list[str]:
    """What may be the path in a line, the line itself first."""
    readings = [line]
    if quoted := _QUOTED.match(line):
        readings.append(quoted[1].replace('""', '"'))
    while (shorter := _NUMBER_BEHIND.sub("", readings[-1])) != readings[-1]:
        readings.append(shorter)
    readings += [line[:at].rstrip() for at in range(len(line) - 1, 0, -1) if line[at] in _DELIMITERS]
    return readings


def _path_column(header: str) -> tuple[int, str] | None:
    """Which column of a table holds paths, and what divides its columns; None where the line is no such header."""
    for delimiter in _DELIMITERS:
        names = [plain(name) for name in next(csv.reader([header], delimiter=delimiter))]
        for name in _PATH_COLUMNS:
            if name in names:
                return names.index(name), delimiter
    return None


def _cells(lines: list[str], column: int, delimiter: str) -> Iterator[list[str]]:
    """The path of each row; of a row without one the row."""
    for row in csv.reader(lines, delimiter=delimiter):
        yield [(row[column].strip() if column < len(row) else "") or delimiter.join(row)]


class _Places:
    """What lies where a list's paths point. A folder is read, once, where a path names no file as it stands."""

    def __init__(self, root: Path, *, folders: bool) -> None:
        self._root = root
        self._folders = folders
        self._names: dict[Path, tuple[dict[str, list[str]], dict[str, str]]] = {}

    def find(self, text: str) -> Path | None:
        """The file (or folder) of this name, or the only video that is called so but for its ending."""
        path = self._root / text
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError):
            mode = 0
        if stat.S_ISREG(mode) or (self._folders and stat.S_ISDIR(mode)):
            return path
        videos = self._videos(path)
        return path.with_name(videos[0]) if len(videos) == 1 else None

    def is_likely(self, text: str) -> bool:
        """Whether a reading that `find` finds nothing for is what was meant all the same."""
        path = self._root / text
        return ending(text) in VIDEO_SUFFIXES or os.path.lexists(path) or bool(self._videos(path))

    def why_not(self, text: str) -> str:
        """Why `find` found nothing."""
        if address(text):
            return "an address, and only files are read: download it first"
        path = self._root / text
        if len(videos := self._videos(path)) > 1:
            return f"several videos are called so: {', '.join(map(printable, videos))}"
        reason = why_not(path)
        alike = self._read(path.parent)[1].get(path.name.lower())
        if alike is not None and alike != path.name:
            reason += f" (but {printable(alike)}: capitals count)"
        return reason

    def shown(self, text: str) -> str:
        return printable(address(text) or self._root / text)

    def _videos(self, path: Path) -> list[str]:
        if ending(path.name) in VIDEO_SUFFIXES:
            return []
        return self._read(path.parent)[0].get(path.name, [])

    def _read(self, folder: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
        """A folder's videos by their names without ending, and all that is in it by its name in small letters."""
        if folder not in self._names:
            try:
                names = sorted(path.name for path in folder.iterdir())
            except (OSError, ValueError):  # of a path that is none
                names = []
            videos: dict[str, list[str]] = {}
            for name in names:
                stem, suffix = split_ending(name)
                if suffix in VIDEO_SUFFIXES:
                    videos.setdefault(stem, []).append(name)
            self._names[folder] = videos, {name.lower(): name for name in names}
        return self._names[folder]
