"""Annotations in W-TALC's layout: a folder of arrays with an element for each video.

https://github.com/sujoyp/wtalc-pytorch, Thumos14reduced-Annotations. videoname; subset; labels_all, the classes
that are trained on; segments and their labels; duration in seconds. classlist has the classes, and
Ambiguous_test.txt is THUMOS'14's. Arrays of lists are pickled: they are read without executing anything
(`cache_schema.object_arrays`).

THUMOS'14's validation videos are those to train on, and their subset is called "train" here. Their labels_all
come from the benchmark's own list of each video's classes; in 28 of 412 videos they are not the classes of the
segments. The arrays of fps are not read: they contradict the features that are published with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache_schema.annotations import thumos14
from cache_schema.annotations.labels import LabelSet, Segment, VideoLabel
from cache_schema.annotations.published_segments import (
    MALFORMED,
    check_classes,
    classes_of,
    finite,
    without_empty_segments,
)
from cache_schema.annotations.thumos14_sets import USUAL_SET, of_set
from cache_schema.errors import LabelError, UserError
from cache_schema.object_arrays import read_object_array

_NAMES = ("videoname", "subset", "labels_all", "labels", "segments", "duration")
_AMBIGUOUS = "Ambiguous_test.txt"
_TRAINED = "video_validation_"


def fits(path: Path) -> bool:
    """Whether this is a folder with these arrays."""
    return path.is_dir() and all((path / f"{name}.npy").is_file() for name in ("videoname", "labels_all"))


def read(path: Path, video_set: str = USUAL_SET) -> LabelSet:
    """Read the arrays of a folder.

    Args:
        video_set: for THUMOS'14 videos, a key of `thumos14_sets.VIDEO_SETS`.

    Raises:
        LabelError: an array is missing, cannot be read or calls a function, is of another length or has other
            elements than the others need, or a class is not in the list.
    """
    if not fits(path):
        raise LabelError(f"{path}: expected W-TALC's annotations: a folder with {', '.join(_NAMES)} as .npy")
    classes = {_text(name) for name in _array(path, "classlist")}
    arrays = [_array(path, name) for name in _NAMES]
    lengths = {name: len(array) for name, array in zip(_NAMES, arrays, strict=True)}
    for name, length in lengths.items():
        if length != lengths["videoname"]:
            raise LabelError(
                f"{path / name}.npy: of {length} videos, where videoname.npy has {lengths['videoname']}"
            )
    ambiguous = thumos14.read_ambiguous(path / _AMBIGUOUS) if (path / _AMBIGUOUS).is_file() else {}
    videos: list[VideoLabel] = []
    durations_s: dict[str, float] = {}
    differing = 0
    without: list[str] = []
    for place, (name, subset, labels_all, labels, times, duration) in enumerate(zip(*arrays, strict=True)):
        try:
            video_id, trained = _text(name), tuple(dict.fromkeys(map(_text, labels_all)))
            segments = tuple(
                Segment(_text(label), finite(start), finite(end))
                for label, (start, end) in zip(labels, times, strict=True)
            )
            subset_name = _text(subset)
            durations_s[video_id] = finite(np.asarray(duration).item())
        except MALFORMED as error:
            raise LabelError(
                f"{path}: video {place} (counted from 0) is not annotated as in W-TALC's layout: {error}"
            ) from error
        shown = classes_of(segments)
        check_classes(path, video_id, (*trained, *shown), classes)
        differing += set(trained) != set(shown)
        if shown and not trained:
            without.append(video_id)
        videos.append(
            VideoLabel(
                video_id=video_id,
                labels=trained or shown,
                subset="train" if video_id.startswith(_TRAINED) else subset_name,
                segments=segments,
                ambiguous=tuple(ambiguous.get(video_id, ())),
            )
        )
    kept, notes = without_empty_segments(path, videos, durations_s)
    if differing:
        why = f"; where it has none, the segments' are taken: {', '.join(without)}" if without else ""
        notes = (
            f"{path}: labels_all.npy, whose classes are trained on, has other classes than the segments for "
            f"{differing} of {len(videos)} videos{why}",
            *notes,
        )
    return of_set(LabelSet(path, kept, notes), video_set)


def _array(folder: Path, name: str) -> npt.NDArray[Any]:
    """The elements, in one dimension."""
    path = folder / f"{name}.npy"
    try:
        array = read_object_array(path)
    except UserError as error:
        raise LabelError(str(error)) from error
    if not array.ndim:
        raise LabelError(f"{path}: a single value, where each video should have one")
    return array


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a name should be")
    return str(value)
