"""Names: what a file is by its ending, which known one a misspelt one may stand for, and the first of many."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable

# Of files with moving pictures: what libav's muxers and demuxers of video call theirs, and recorders do. Not of
# what mostly holds something else (.ogg and .m4a sound, .avif and .webp single pictures, .dat anything), nor of
# bare pixels, whose size nothing says (.yuv).
# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".266", ".3g2", ".3gp", ".3gp2", ".3gpp", ".amv", ".apng", ".apv", ".asf", ".av1", ".avc",
    ".avi", ".avs2", ".avs3", ".bik", ".bmv", ".cavs", ".cdxl", ".cine", ".cpk", ".dav", ".dif", ".divx",
    ".dnxhd", ".dnxhr", ".drc", ".dv", ".dvr-ms", ".evc", ".evo", ".f4v", ".flc", ".fli", ".flv", ".gif",
    ".gxf", ".h261", ".h263", ".h264", ".h265", ".h266", ".h26l", ".hevc", ".ifv", ".ismv", ".ivf", ".ivr",
    ".kux", ".lvf", ".lxf", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mj2", ".mjpeg", ".mjpg",
    ".mk3d", ".mkv", ".moflex", ".mov", ".mp2v", ".mp4", ".mp4v", ".mpe", ".mpeg", ".mpegts", ".mpg", ".mpv",
    ".mpv2", ".mts", ".mve", ".mvi", ".mxf", ".mxg", ".nsv", ".nut", ".nuv", ".obu", ".ogm", ".ogv", ".ogx",
    ".psp", ".pva", ".qt", ".r3d", ".rcv", ".rm", ".rmvb", ".roq", ".ser", ".smk", ".swf", ".thp", ".tod",
    ".tp", ".trp", ".ts", ".ty", ".usm", ".vc1", ".vc2", ".viv", ".vob", ".vro", ".vvc", ".webm", ".wm",
    ".wmv", ".wtv", ".xmv", ".xvid", ".y4m",
})
# Of single pictures that Pillow reads wherever it is installed.
PICTURE_SUFFIXES = frozenset({
    ".bmp", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
})
LIST_SUFFIXES = frozenset({".csv", ".list", ".lst", ".tsv", ".txt"})
ARCHIVE_SUFFIXES = frozenset({
    ".7z", ".bz2", ".gz", ".rar", ".tar", ".tbz", ".tgz", ".txz", ".xz", ".zip", ".zst",
})
# fmt: on


def split_ending(name: str) -> tuple[str, str]:
    """A file's name without its ending, and the ending in small letters with its dot, or nothing."""
    stem, dot, end = name.rpartition(".")
    return (stem, dot + end.lower()) if dot else (name, "")


def ending(name: str) -> str:
    """The ending of a file's name in small letters, with its dot; empty where there is none."""
    return split_ending(name)[1]


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The known names that are the most like a wrong one, as the end of a message: "; did you mean lstm?".

    Args:
        cutoff: how alike they must be, by difflib's ratio, whatever their capitals.

    Returns:
        Empty where none is alike.
    """
    by_small = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), by_small, cutoff=cutoff)
    return f"; did you mean {' or '.join(by_small[one] for one in close)}?" if close else ""


def some(names: Iterable[str], shown: Callable[[str], str] = repr) -> str:
    """The first three names, and that there are more: "'a', 'b', 'c', …".

    Args:
        shown: how each is written; by default in quotes.
    """
    first = list(itertools.islice(names, 4))
    return ", ".join(map(shown, first[:3])) + (", …" if len(first) > 3 else "")
