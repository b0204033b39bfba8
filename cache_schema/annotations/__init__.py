"""Labels, splits and temporal segments: one reader per benchmark's own file format.

A reader takes a path and returns a LabelSet; adding a format is adding a file here and a line to READERS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cache_schema.annotations import activitynet, table
from cache_schema.annotations.labels import LabelSet, Segment, VideoLabel
from cache_schema.errors import LabelError

READERS: Mapping[str, Callable[[Path], LabelSet]] = {
    "csv": table.read,
    "activitynet": activitynet.read,
}
_BY_SUFFIX = {".csv": "csv", ".json": "activitynet"}


def read_labels(path: Path, format_name: str | None = None) -> LabelSet:
    """Read an annotation file.

    Args:
        format_name: a key of READERS; by default what the file's ending says.

    Raises:
        LabelError: the file cannot be read, is not in that format, or contradicts itself.
    """
    chosen = format_name or _BY_SUFFIX.get(path.suffix.lower())
    if chosen is None:
        raise LabelError(f"{path}: cannot tell its format from its name; say one of {', '.join(READERS)}")
    try:
        return READERS[chosen](path)
    except OSError as error:
        raise LabelError(f"{path}: cannot read the labels: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not a text file in UTF-8") from error


__all__ = ["READERS", "LabelSet", "Segment", "VideoLabel", "read_labels"]
