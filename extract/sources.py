"""Which videos a request means, under which ids, and what tells one's content from another's."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from cache_schema.command import count
from cache_schema.errors import UserError
from cache_schema.files import StrPath, printable
from cache_schema.names import ARCHIVE_SUFFIXES, LIST_SUFFIXES, PICTURE_SUFFIXES, VIDEO_SUFFIXES, ending
from extract.decode_packets import VideoError
from extract.frame_folders import frame_names, is_numbered_picture, numbered_pictures
from extract.path_lists import address, parse_list, why_not

Ids = Literal["stem", "path"]

_FINGERPRINT_BYTES = 64 * 1024
_FINGERPRINT_PICTURES = 8
# Of folders or files, and of endings, in a message.
_TOLD, _TOLD_ENDINGS = 3, 12


@dataclass(frozen=True)
class SourceVideo:
    """A video to extract and the id it has in the cache.

    path: a file, or where `frames_fps` says how many frames a second it has, a folder of numbered pictures.
    """

    id: str
    path: Path
    frames_fps: float | None = None


@dataclass(frozen=True)
class Sources:
    """What a request names.

    Attributes:
        videos: in order of id, each id once.
        refused: (file, reason) of those that cannot be extracted as they were named.
        left_out: how many files in folders were not taken, by ending (in small letters, with its dot; or empty).
        notes: what the user should know, a line each.
    """

    videos: tuple[SourceVideo, ...]
    refused: tuple[tuple[str, str], ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def absolute(self) -> Sources:
        """The same by paths that do not depend on where a process was started."""
        return replace(self, videos=tuple(replace(v, path=v.path.absolute()) for v in self.videos))


def find_videos(
    arguments: StrPath | Sequence[StrPath],
    *,
    ids: Ids = "stem",
    frames_fps: float | None = None,
    root: StrPath | None = None,
) -> Sources:
    """Expand files, folders (recursively) and lists of paths (`path_lists.parse_list`).

    A folder that holds numbered pictures, and no video, is a video where `frames_fps` says at which rate.

    Args:
        ids: "stem" calls a video by its file name without ending; "path" by its path below the folder
            or list that was given, without ending.
        root: what paths in lists are relative to; None: to the list's own folder.

    Raises:
        UserError: an argument that does not exist or is nothing that holds videos, or nothing to extract.
    """
    if frames_fps is not None and not (math.isfinite(frames_fps) and frames_fps > 0):
        raise UserError(f"--frames-fps {frames_fps:g}: must be positive and finite")
    search = _Search(ids, frames_fps)
    named = [arguments] if isinstance(arguments, (str, os.PathLike)) else arguments
    paths = [Path(name) for name in named]
    for argument in paths:
        if os.path.isdir(argument):  # noqa: PTH112 - Path.is_dir raises where a name is too long
            search.add_folder(argument)
        elif not os.path.lexists(argument):
            raise UserError(_nothing_there(argument))
        elif ending(argument.name) in LIST_SUFFIXES:
            search.add_list(argument, argument.parent if root is None else Path(root))
        else:
            search.add(argument, argument.parent)
    return search.result(paths)


class _Search:
    """What has been found so far."""

    def __init__(self, ids: Ids, frames_fps: float | None) -> None:
        self._ids = ids
        self._frames_fps = frames_fps
        self._found: dict[str, SourceVideo] = {}  # by absolute path
        self._refused: list[tuple[str, str]] = []
        self._left_out: Counter[str] = Counter()
        self._notes: list[str] = []
        self._searched: list[Path] = []
        self._unrated: list[Path] = []  # folders of pictures that nothing says the rate of

    def add(self, path: Path, root: Path) -> None:
        """Take a file that was named, or refuse it."""
        if ending(path.name) in ARCHIVE_SUFFIXES:
            self._refused.append((printable(path), "an archive: unpack it, and give the folder"))
        elif not path.is_file():
            self._refused.append((printable(path), why_not(path)))
        else:
            self._take(path, root)

    def add_list(self, path: Path, root: Path) -> None:
        """Take what a list names. Raises UserError where it is none, or nothing of it is there."""
        try:
            named = parse_list(path.read_bytes(), root, folders=self._frames_fps is not None)
        except OSError as error:
            raise UserError(f"{printable(path)}: cannot read the list: {error.strerror or error}") from error
        except ValueError as error:
            raise UserError(f"{printable(path)}: {error}") from error
        if named.missing:
            (first, reason), missing = named.missing[0], len(named.missing)
            lacking = f"nothing there of the {missing:,} it names"
            if named.found:
                lacking = f"missing: {missing:,} of the {missing + len(named.found):,} it names"
            problem = f"{printable(path)}: {lacking}, the first: {first}: {reason}{_about_root(first, root)}"
            if not named.found:
                raise UserError(problem)
            self._notes.append(problem)
        if not named.found:
            self._notes.append(f"{printable(path)}: an empty list")
        if named.labelled:
            self._notes.append(f"{printable(path)}: only its paths are read, not what stands beside them")
        self._refused += named.missing
        for video in named.found:
            self._take(video, root, folder=video.is_dir())

    def add_folder(self, root: Path) -> None:
        """Take the videos below a folder, and count the other files."""
        self._searched.append(root)
        for folder, entries in _walk(root, self._refused):
            videos: list[os.DirEntry[str]] = []
            others: list[str] = []
            for entry in entries:
                if ending(entry.name) in VIDEO_SUFFIXES:
                    videos.append(entry)
                else:
                    others.append(entry.name)
            for video in videos:
                if video.is_symlink() or not video.is_file():
                    self.add(Path(video.path), root)
                else:
                    self._take(Path(video.path), root)
            if not videos and any(map(is_numbered_picture, others)):
                if self._frames_fps is None:
                    self._unrated.append(folder)
                else:
                    self._take(folder, root, folder=True)
                    others = [name for name in others if ending(name) not in PICTURE_SUFFIXES]
            self._left_out.update(map(ending, others))

    def result(self, arguments: Sequence[Path]) -> Sources:
        """All of it. Raises UserError where it is nothing."""
        if not self._found:
            raise UserError(
                "; ".join([f"no videos in {_some(map(printable, arguments))}", *self._why_none()])
            )
        unique, ambiguous = _split_ambiguous(self._found.values(), self._ids)
        return Sources(
            tuple(unique),
            (*self._refused, *ambiguous),
            dict(self._left_out),
            (*self._notes, *self._about_folders(), *self._unused()),
        )

    def _take(self, path: Path, root: Path, *, folder: bool = False) -> None:
        # A video may be named twice: by its folder and by a list, with and without "./".
        video = SourceVideo(
            video_id(path, root, self._ids, folder=folder), path, self._frames_fps if folder else None
        )
        self._found.setdefault(os.path.abspath(path), video)  # noqa: PTH100

    def _about_folders(self) -> Iterator[str]:
        if self._left_out:
            counts = sorted(self._left_out.items(), key=lambda counted: (-counted[1], counted[0]))
            endings = [f"{count} {suffix or 'without ending'}" for suffix, count in counts[:_TOLD_ENDINGS]]
            if rest := sum(count for _, count in counts[_TOLD_ENDINGS:]):
                endings.append(f"{rest} with other endings")
            yield f"left out of {_some(map(printable, self._searched))}: {', '.join(endings)}"
        if self._unrated:
            yield (
                f"{_folders(len(self._unrated))} of numbered pictures ({_some(map(printable, self._unrated))}): "
                "to take each as a video, say with --frames-fps RATE how many a second"
            )

    def _unused(self) -> Iterator[str]:
        if self._frames_fps is not None and all(video.frames_fps is None for video in self._found.values()):
            yield f"--frames-fps {self._frames_fps:g}: there is no folder of numbered pictures"

    def _why_none(self) -> Iterator[str]:
        yield from (f"{file}: {reason}" for file, reason in self._refused[:_TOLD])
        yield from self._about_folders()
        if ARCHIVE_SUFFIXES & self._left_out.keys():
            yield "archives must be unpacked first"


def video_id(path: Path, root: Path, ids: Ids, *, folder: bool = False) -> str:
    """The id of a file or of a folder of frames, without ending; bytes that are not UTF-8 become \\xNN."""
    if folder:
        path, root = Path(os.path.abspath(path)), Path(os.path.abspath(root))  # noqa: PTH100 - "." has no name
    named = (
        path.relative_to(root)
        if ids == "path" and path.is_relative_to(root) and path != root
        else Path(path.name)
    )
    if folder and ending(named.name) not in VIDEO_SUFFIXES:
        return printable(named)
    return printable(named.with_suffix(""))


def fingerprint(path: Path, frames_fps: float | None = None) -> str:
    """What tells two videos apart without reading them whole.

    Of a file its size and a digest of its beginning and end. Of a folder of frames how many they are, their rate,
    and a digest of the names and sizes of all and the contents of a few.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    if frames_fps is None:
        size = path.stat().st_size
        _add_ends(digest, path, size)
        return f"{size}-{digest.hexdigest()}"
    try:
        names = list(frame_names(path).values())
    except VideoError:  # it cannot be extracted as it is: the decoder will say so
        names = sorted(numbered_pictures(path))
    files = [path / name for name in names]
    sizes = [file.stat().st_size for file in files]
    for name, size in zip(names, sizes, strict=True):
        digest.update(b"%d %s\0" % (size, os.fsencode(name)))
    for at in range(0, len(files), max(1, len(files) // _FINGERPRINT_PICTURES)):
        _add_ends(digest, files[at], sizes[at])
    return f"{len(files)}-{digest.hexdigest()}@{frames_fps!r}"


def _add_ends(digest: hashlib.blake2b, path: Path, size: int) -> None:
    with path.open("rb") as file:
        digest.update(file.read(_FINGERPRINT_BYTES))
        if size > 2 * _FINGERPRINT_BYTES:
            file.seek(-_FINGERPRINT_BYTES, os.SEEK_END)
        digest.update(file.read(_FINGERPRINT_BYTES))


def _walk(top: Path, refused: list[tuple[str, str]]) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """Each folder below `top` with what lies in it and is none, through links, each folder once; nothing hidden.

    The names alone are read, as the file system lists them: 10^6 files are not looked at one by one. A folder that
    cannot be read is added to `refused`.
    """
    waiting = [os.fspath(top)]
    visited: set[tuple[int, int]] = set()
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in visited:  # links may lead back
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(".")]
        except OSError as error:
            refused.append((printable(folder), f"cannot be read: {error.strerror or error}"))
            continue
        folders = list(filter(_is_folder, entries))
        waiting += sorted((entry.path for entry in folders), reverse=True)
        yield Path(folder), [entry for entry in entries if not _is_folder(entry)] if folders else entries


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # of a link that leads nowhere
        return False


def _nothing_there(path: Path) -> str:
    text = os.fspath(path)
    if url := address(text):
        return f"{printable(url)}: an address, and only files are read: download it first"
    if any(sign in text for sign in "*?["):
        return (
            f"{printable(path)}: no such file; a pattern is the shell's to expand: leave the quotes away, or give "
            "the folder"
        )
    return f"{printable(path)}: no such file or folder"


def _about_root(missing: str, root: Path) -> str:
    """What a list's paths are relative to, and the folder that they may be meant from.

    Args:
        missing: a path of the list, below `root` unless it is an absolute one, or an address.
    """
    taken = f"; its paths are taken to be relative to {printable(root.absolute())} (--root FOLDER)"
    if not Path(missing).is_relative_to(root):
        return ""
    text = Path(missing).relative_to(root)
    for folder in (Path(), *root.absolute().parents):
        if os.path.lexists(folder / text):
            return f"{taken}; it is there with --root {printable(folder)}"
    return taken


def _split_ambiguous(
    found: Iterable[SourceVideo], ids: Ids
) -> tuple[list[SourceVideo], list[tuple[str, str]]]:
    """Videos that share an id are refused all: which one a label means cannot be known."""
    by_id: dict[str, list[SourceVideo]] = {}
    for video in found:
        by_id.setdefault(video.id, []).append(video)
    unique = [videos[0] for _, videos in sorted(by_id.items()) if len(videos) == 1]
    remedy = "rename one, or use --ids path" if ids == "stem" else "rename one"
    ambiguous = [
        (
            printable(video.path),
            f"its id {name!r} is also that of {printable(next(v.path for v in videos if v != video))}; {remedy}",
        )
        for name, videos in sorted(by_id.items())
        if len(videos) > 1
        for video in videos
    ]
    return unique, ambiguous


def _some(names: Iterable[str]) -> str:
    """The first few of them, and that there are more."""
    first = list(itertools.islice(names, _TOLD + 1))
    return ", ".join(first[:_TOLD]) + (", …" if len(first) > _TOLD else "")


def _folders(number: int) -> str:
    return count(number, "folders")
