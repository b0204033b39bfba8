"""ActivityNet v1.3: the publisher's JSON, mmaction2's, and the lists of whole videos that papers pass on.

The JSON is {"version", "taxonomy", "database": {id: {"subset", "annotations", …}}}, see
http://activity-net.org/download.html. It calls a video by its YouTube id; the distributed files are named v_ID.

mmaction2's JSONs, anet_anno_train.json and anet_anno_val.json, are {v_ID: {"duration_second", "annotations", …}}.

The lists are anet_train_video.txt, anet_val_video.txt and action_name.csv, as mmaction's tools write them and
efficient-recognition papers pass them on (the validation list also as anet_val_video_multi_label.txt, with all
classes of the few videos that have two). A line is "v_ID FRAMES LABEL", frames counted at the video's own rate,
labels numbered from 0 in the order of action_name.csv, whose first line is a header. The subsets are called as in
the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache_schema.annotations.labels import LabelSet, VideoLabel
from cache_schema.annotations.list_files import subset_files, subset_of
from cache_schema.annotations.published import by_subset, is_named, lines, read_lists, start_of
from cache_schema.annotations.published_segments import (
    MALFORMED,
    classes_of,
    finite,
    read_database,
    read_object,
    segments_of,
    without_empty_segments,
)
from cache_schema.errors import LabelError

NAMES = "action_name.csv"
_LIST = re.compile(r"anet_(?P<subset>train|val)_video(_multi_label)?\.txt")
_MMACTION2 = re.compile(r'\s*\{\s*"[^"]{1,99}"\s*:\s*\{[^{}\[\]]*"duration_second"')
_SUBSETS = {"train": "training", "val": "validation"}


def fits_json(path: Path) -> bool:
    """Whether this is a JSON in mmaction2's layout, or a folder with one that is called after a subset."""
    if path.is_dir():
        return any(subset_of(file.name) and fits_json(file) for file in path.iterdir())
    return path.suffix.lower() == ".json" and _MMACTION2.match(start_of(path)) is not None


def read_json(path: Path) -> LabelSet:
    """Read the JSON, or those of mmaction2. The testing subset has no labels, as published.

    Segments that end no later than they start are left out; notes name them, and those beyond a video's end.

    Raises:
        LabelError: an entry is wrong.
    """
    if not fits_json(path):
        return _read_entries(path, [("", read_database(path, "ActivityNet"))])
    files = subset_files(path, fits_json)
    return _read_entries(path, [(subset, read_object(file, "ActivityNet")) for subset, file in files.items()])


def _read_entries(path: Path, databases: Sequence[tuple[str, dict[str, Any]]]) -> LabelSet:
    """Args:
    databases: subset of all entries, where they do not say it, and entries by video.
    """
    videos: list[VideoLabel] = []
    durations_s: dict[str, float] = {}
    for subset, video_id, entry in (
        (name, *item) for name, database in databases for item in database.items()
    ):
        try:
            segments = segments_of(entry)
            youtube_id = video_id.removeprefix("v_") if subset else video_id
            video = VideoLabel(
                video_id=f"v_{youtube_id}",
                aliases=(youtube_id,),
                labels=classes_of(segments),
                subset=subset or str(entry["subset"]),
                segments=segments,
            )
            if duration := entry.get("duration", entry.get("duration_second")):
                durations_s[video.video_id] = finite(duration)
        except MALFORMED as error:
            raise LabelError(
                f"{path}: video {video_id!r} is not annotated as in ActivityNet: {error!r}"
            ) from error
        videos.append(video)
    return LabelSet(path, *without_empty_segments(path, videos, durations_s))


def fits_txt(path: Path) -> bool:
    """Whether this is one of the lists, or a folder with one."""
    return is_named(path, _LIST)


def read_txt(path: Path) -> LabelSet:
    """Read the lists of a folder, or a single one; action_name.csv lies beside them.

    Raises:
        LabelError: a file is missing or a line is wrong.
    """
    files = by_subset(
        path, _LIST, "ActivityNet's anet_train_video.txt and anet_val_video.txt (or _multi_label)"
    )
    classes = _classes(next(iter(files.values())).with_name(NAMES))
    listed = read_lists(
        {_SUBSETS[subset]: file for subset, file in files.items()}, frames=True, classes=len(classes)
    )
    return LabelSet(
        path,
        tuple(
            VideoLabel(
                video_id=video.name,
                labels=tuple(classes[number] for number in video.numbers),
                subset=video.subset,
                aliases=(video.name[2:],) if video.name.startswith("v_") else (),
                frames=video.frames,
            )
            for video in listed
        ),
    )


def _classes(path: Path) -> list[str]:
    if not path.is_file():
        raise LabelError(f"{path}: no such file; it names the classes, and is published with the lists")
    names: dict[str, None] = {}
    for expected, (number, line) in enumerate(lines(path), 1):
        if number != expected:
            raise LabelError(f"{path}, line {expected}: empty, where a class should be named")
        if number == 1 and line != "action":
            raise LabelError(f"{path}, line 1: {line!r} is not the header 'action'")
        if line in names:
            raise LabelError(f"{path}, line {number}: class {line!r} occurs twice")
        if number > 1:
            names[line] = None
    if not names:
        raise LabelError(f"{path}: no classes in it")
    return list(names)
