"""ActivityNet v1.3's own JSON: {"version", "taxonomy", "database": {id: {"subset", "annotations", …}}}.

http://activity-net.org/download.html. The JSON calls a video by its YouTube id; the distributed files are
named v_ID.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cache_schema.annotations.labels import LabelSet, Segment, VideoLabel
from cache_schema.errors import LabelError


def read(path: Path) -> LabelSet:
    """Read the JSON; the testing subset has no labels, as published. Raises LabelError naming the video."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        raw = json.loads(text)
    except RecursionError as error:
        raise LabelError(f"{path}: nested too deeply for an ActivityNet annotation file") from error
    except ValueError as error:
        raise LabelError(f"{path}: not JSON ({error})") from error
    database = raw.get("database") if isinstance(raw, dict) else None
    if not isinstance(database, dict) or not database:
        raise LabelError(f'{path}: not an ActivityNet annotation file: it has no "database" of videos')
    return LabelSet(path, tuple(_video(path, video_id, entry) for video_id, entry in database.items()))


def _video(path: Path, video_id: str, entry: Any) -> VideoLabel:
    try:
        segments = tuple(
            Segment(str(a["label"]), *(float(second) for second in a["segment"]))
            for a in entry["annotations"]
        )
        subset = str(entry["subset"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise LabelError(
            f"{path}: video {video_id!r} is not annotated as in ActivityNet: {error!r}"
        ) from error
    return VideoLabel(
        video_id=f"v_{video_id}",
        aliases=(video_id,),
        labels=tuple(dict.fromkeys(segment.label for segment in segments)),
        subset=subset,
        segments=segments,
    )
