"""Labels, splits and temporal segments: one reader for each published file format.

A reader takes the path of a file, or of a folder with a benchmark's files, and returns a LabelSet; adding a format
is adding a file here and a line to READERS, and to SNIFFED where names or first lines tell its files from others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from cache_schema.annotations import (
    activitynet,
    breakfast,
    fcvid,
    groups,
    hvu,
    kinetics,
    labels,
    mini_kinetics,
    multithumos,
    segments_csv,
    thumos14,
    thumos14_sets,
    wtalc,
)
from cache_schema.annotations.labels import Grouping, LabelSet, Segment, VideoLabel
from cache_schema.errors import LabelError

READERS: Mapping[str, Callable[[Path], LabelSet]] = {
    "csv": labels.read_csv,
    "segments-csv": segments_csv.read,
    "activitynet": activitynet.read_json,
    "activitynet-lists": activitynet.read_txt,
    "mini-kinetics": mini_kinetics.read,
    "kinetics": kinetics.read,
    "fcvid": fcvid.read,
    "breakfast": breakfast.read,
    **{f"breakfast-s{split}": partial(breakfast.read, split=split) for split in (1, 2, 3, 4)},
    "hvu": hvu.read,
    **{f"hvu-{category}": partial(hvu.read, category=category) for category in hvu.CATEGORIES},
    "thumos14": thumos14.read,
    **{name: partial(thumos14.read, video_set=name) for name in thumos14_sets.VIDEO_SETS},
    "wtalc": wtalc.read,
    "wtalc-212": partial(wtalc.read, video_set="thumos14-212"),
    "multithumos": multithumos.read,
}
SNIFFED: Mapping[str, Callable[[Path], bool]] = {
    "activitynet-lists": activitynet.fits_txt,
    "mini-kinetics": mini_kinetics.fits,
    "kinetics": kinetics.fits,
    "fcvid": fcvid.fits,
    "breakfast": breakfast.fits,
    "hvu": hvu.fits,
    "thumos14": thumos14.fits,
    "wtalc": wtalc.fits,
    "multithumos": multithumos.fits,
    "segments-csv": segments_csv.fits,
}
_BY_SUFFIX = {".csv": "csv", ".json": "activitynet"}


def read_labels(path: Path, format_name: str | None = None, grouping: Grouping | None = None) -> LabelSet:
    """Read an annotation file, or a folder of a benchmark's published files.

    Args:
        format_name: a key of READERS; None: told from file names and first lines.
        grouping: which videos belong together; None: nothing is known of that.

    Raises:
        LabelError: a file cannot be read, is not in that format, or contradicts itself; a video has no group.
    """
    try:
        read = READERS[format_name or _format_of(path)](path)
        return groups.grouped(read, grouping) if grouping else read
    except OSError as error:
        raise LabelError(
            f"{error.filename or path}: cannot read the labels: {error.strerror or error}"
        ) from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not a text file in UTF-8") from error


def _format_of(path: Path) -> str:
    fitting = [name for name, fits in SNIFFED.items() if fits(path)]
    if len(fitting) > 1:
        raise LabelError(f"{path}: holds labels of {' and of '.join(fitting)}; say which with --format")
    if fitting:
        return fitting[0]
    if path.is_dir():
        raise LabelError(f"{path}: a folder without the label files of {', '.join(SNIFFED)}; name a file")
    try:
        return _BY_SUFFIX[path.suffix.lower()]
    except KeyError:
        raise LabelError(
            f"{path}: cannot tell its format from its name; say one of {', '.join(READERS)}"
        ) from None


__all__ = ["READERS", "Grouping", "LabelSet", "Segment", "VideoLabel", "read_labels"]
