"""What readers of published segments share: ActivityNet's JSON, times, and notes on times that are wrong."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache_schema.annotations.labels import Segment, VideoLabel
from cache_schema.errors import LabelError

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What reading an entry raises that is not laid out as expected."""

_NAMED = 3  # how many videos a note names


def read_object(path: Path, benchmark: str) -> dict[str, Any]:
    """The object in a JSON file. Raises LabelError where there is none."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise LabelError(f"{path}: nested too deeply for an annotation file of {benchmark}") from error
    except ValueError as error:
        raise LabelError(f"{path}: not JSON ({error})") from error
    return content if isinstance(content, dict) else {}


def read_database(path: Path, benchmark: str) -> dict[str, Any]:
    """The entries by video of a JSON in ActivityNet's layout, {"database": {id: …}}.

    Raises:
        LabelError: it is another JSON, or none.
    """
    database = read_object(path, benchmark).get("database")
    if not isinstance(database, dict) or not database:
        raise LabelError(f'{path}: not an annotation file of {benchmark}: it has no "database" of videos')
    return database


def segments_of(entry: Any) -> tuple[Segment, ...]:
    """The segments of an entry in ActivityNet's layout; times may be strings. Raises one of MALFORMED."""
    return tuple(
        Segment(str(one["label"]), *(finite(time) for time in one["segment"])) for one in entry["annotations"]
    )


def finite(value: str | float) -> float:
    """A time in seconds. Raises ValueError where it is infinite or NaN, and as float does."""
    time_s = float(value)
    if not math.isfinite(time_s):
        raise ValueError(f"{value!r} is no time")
    return time_s


def classes_of(segments: Sequence[Segment]) -> tuple[str, ...]:
    """Their classes without repeats, in order."""
    return tuple(dict.fromkeys(one.label for one in segments))


def check_classes(path: Path, video_id: str, labels: Iterable[str], classes: Container[str]) -> None:
    """Raise LabelError where a label is none of the classes of the benchmark."""
    for label in labels:
        if label not in classes:
            raise LabelError(
                f"{path}: video {video_id!r} has class {label!r}, which is none of the benchmark's"
            )


def without_empty_segments(
    source: Path, videos: Sequence[VideoLabel], durations_s: Mapping[str, float]
) -> tuple[tuple[VideoLabel, ...], tuple[str, ...]]:
    """The videos without segments of no length, which nothing could match, and notes on times that are wrong.

    Segments that start before their video or end after it are named and kept: papers evaluate with them.

    Args:
        durations_s: by video id, where they are known.
    """
    empty, early, late = (defaultdict[str, list[tuple[float, str]]](list) for _ in range(3))
    kept = []
    for video in videos:
        duration_s = durations_s.get(video.video_id, math.inf)
        segments = []
        for one in video.segments:
            times = f"{one.label} from {one.start_s:g} to {one.end_s:g} s"
            if one.end_s <= one.start_s:
                empty[video.video_id].append((one.start_s - one.end_s, times))
                continue
            segments.append(one)
            if one.start_s < 0:
                early[video.video_id].append((-one.start_s, times))
            if one.end_s > duration_s:
                late[video.video_id].append((one.end_s - duration_s, f"{times}, of {duration_s:.5g}"))
        kept.append(replace(video, segments=tuple(segments)))
    notes = (
        _note(source, "that end no later than they start, left out", empty),
        _note(source, "that start before their video", early),
        _note(source, "that end after their video", late),
    )
    return tuple(kept), tuple(filter(None, notes))


def _note(source: Path, what: str, found: Mapping[str, Sequence[tuple[float, str]]]) -> str:
    """Names the worst segments of some videos; empty where there are none.

    Args:
        found: by video id, how many seconds is wrong with each segment, and the segment.
    """
    if not found:
        return ""
    worst = sorted(found, key=lambda video: (max(found[video]), len(found[video])), reverse=True)
    named = [f"{len(found[video])} of {video!r} ({max(found[video])[1]})" for video in worst[:_NAMED]]
    total = sum(map(len, found.values()))
    return f"{source}: segments {what}, {total:,} in all: {', '.join(named)}{', …' * (len(worst) > _NAMED)}"
