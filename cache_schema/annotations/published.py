"""What the readers of benchmarks' files share: finding and opening them, and reading numbered lines of them."""

from __future__ import annotations

import codecs
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TextIO

from cache_schema.errors import LabelError

_ORDER = ("train", "val", "test")
_SHOWN = 60  # characters of a wrong line in a message
_LARGEST = 1 << 29  # bytes; a zip of some kilobytes can hold gigabytes
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


class Listed(NamedTuple):
    """A video in a list: its number of frames if the list has that, and the numbers of its classes."""

    name: str
    frames: int | None
    numbers: tuple[int, ...]
    subset: str


def is_named(path: Path, pattern: re.Pattern[str]) -> bool:
    """Whether a file's name matches, or that of any file in a folder."""
    if path.is_dir():
        return any(pattern.fullmatch(entry.name) for entry in path.iterdir())
    return pattern.fullmatch(path.name) is not None


def by_subset(path: Path, pattern: re.Pattern[str], expected: str) -> dict[str, Path]:
    """The files of a folder whose names match, or the one file that is given, by subset: train, val, test.

    The pattern's group "subset" says which subset a file is.

    Args:
        expected: what the files are called, for the message.

    Raises:
        LabelError: there are none, or two for the same subset.
    """
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        matched = pattern.fullmatch(file.name)
        if matched is None:
            continue
        subset = matched["subset"]
        if subset in found:
            raise LabelError(
                f"{path}: both {found[subset].name} and {file.name} list the {subset} videos; name a folder "
                "with one of them"
            )
        found[subset] = file
    if not found:
        raise LabelError(f"{path}: expected {expected}")
    return {subset: found[subset] for subset in _ORDER if subset in found}


def start_of(path: Path, size: int = 4096) -> str:
    """The first bytes of a file as text; empty where it cannot be read, which is left to the reader to report."""
    try:
        with path.open("rb") as file:
            return file.read(size).decode(encoding_of(path), errors="ignore")
    except OSError:
        return ""


def first_line(path: Path) -> str:
    """The first line of a file, whatever its lines end with; empty where it cannot be read."""
    return re.split(r"[\r\n]", start_of(path), maxsplit=1)[0]


def encoding_of(path: Path) -> str:
    """UTF-8, or UTF-16 where a file begins as spreadsheets begin one. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        is_wide = file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
    return "utf-16" if is_wide else "utf-8-sig"


def open_zipped(path: Path, suffix: str) -> TextIO:
    """Open the one file with that ending in a zip, unpacked in memory, as UTF-8 text with its line ends unchanged.

    Raises:
        LabelError: it is not a zip, is damaged or encrypted, or does not hold exactly one such file of sane size.
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


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line that is not blank. Raises LabelError where the file is not UTF-8."""
    try:
        with path.open(encoding=encoding_of(path)) as file:
            for number, line in enumerate(file, 1):
                stripped = line.strip()
                if stripped:
                    yield number, stripped
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not a text file in UTF-8") from error


def wrong(place: str, line: str, expected: str) -> LabelError:
    """The error for a line that is not of the expected form."""
    return LabelError(f"{place}: {shortened(line)!r} is not {expected}")


def shortened(line: str) -> str:
    """A line as a message shows it."""
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def read_lists(
    files: Mapping[str, Path], *, frames: bool, separator: str | None = None, classes: int | None = None
) -> list[Listed]:
    """Read lists with a line for each video: name, number of frames if `frames`, numbers of its classes.

    Args:
        files: by subset.
        separator: None: any white space.
        classes: how many there are, if known; they are numbered from 0.

    Raises:
        LabelError: a line is not of that form, a video occurs twice, or there are none.
    """
    form = (separator or " ").join(["NAME", *(["FRAMES"] if frames else []), "LABEL"])
    expected = f"'{form}', with more labels where a video has them"
    listed: list[Listed] = []
    places: dict[str, tuple[Path, int]] = {}
    for subset, path in files.items():
        before = len(listed)
        for number, line in lines(path):
            name, *fields = line.split(separator)
            name = name.strip()
            try:
                values = [number_in(field) for field in fields]
            except ValueError:
                values = []
            if not name or len(values) < 1 + frames:
                raise wrong(f"{path}, line {number}", line, expected)
            numbers = tuple(dict.fromkeys(values[frames:]))
            if classes is not None and max(numbers) >= classes:
                raise LabelError(
                    f"{path}, line {number}: video {name!r} has class {max(numbers)}, but the {classes} classes "
                    f"are numbered from 0 to {classes - 1}"
                )
            if name in places:
                first, at = places[name]
                raise LabelError(
                    f"{path}, line {number}: video {name!r} occurs twice, first in {first.name}, line {at}"
                )
            places[name] = path, number
            listed.append(Listed(name, values[0] if frames else None, numbers, subset))
        if len(listed) == before:
            raise LabelError(f"{path}: no videos in it")
    return listed


def number_in(text: str) -> int:
    """The number, not negative and without sign, that a text is. Raises ValueError where it is none."""
    # int() alone is kind to "1_000", "-1" and "²", and slow with a million digits.
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdigit() and len(stripped) < 10):
        raise ValueError(text)
    return int(stripped)


def numbered(numbers: tuple[int, ...]) -> tuple[str, ...]:
    """Names for classes of which only numbers are published."""
    return tuple(f"class {number}" for number in numbers)
