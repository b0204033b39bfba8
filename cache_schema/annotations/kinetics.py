"""Kinetics' own files: CSVs label,youtube_id,time_start,time_end,split[,is_cc], or the JSON of the same release.

https://deepmind.com/research/open-source/kinetics. The JSON is {id: {"annotations": {"label", "segment"},
"subset", …}}. A clip's file is called YOUTUBEID_000123_000133, after the seconds it was cut from, or by the id
alone; both are looked for, the id alone only where it means one clip. The subset that some releases call
"validate" is "val" here, as in the others. The seconds become no segment: the clip is the whole video.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache_schema.annotations.labels import LabelSet, VideoLabel
from cache_schema.annotations.published import start_of
from cache_schema.annotations.table import columns_of, open_table, plain
from cache_schema.errors import LabelError

COLUMNS = ("youtube_id", "time_start", "time_end", "split")
"""Columns that are always there; "label" is missing where the benchmark withholds the labels."""

_ENTRY = re.compile(r'"annotations"\s*:\s*\{\s*"(label|segment)"')  # ActivityNet has a list here
_LONGEST_S = 1e6  # more is no time in a video, and would not fit the file names' six digits


@dataclass(frozen=True)
class Clip:
    """A clip: one line of a CSV, or one entry of a JSON.

    Attributes:
        name: YOUTUBEID_000123_000133.
        label: None where the benchmark withholds it.
        place: its file and line, for messages.
    """

    youtube_id: str
    name: str
    label: str | None
    subset: str
    place: str


def fits(path: Path) -> bool:
    """Whether this is one of the files, by its first line, or a folder with one."""
    return bool(_files(path))


def read(path: Path) -> LabelSet:
    """Read a file, or the files of a folder. Raises LabelError as `read_clips` does."""
    clips = read_clips(path)
    of_id = Counter(clip.youtube_id for clip in clips)
    return LabelSet(
        path,
        tuple(
            VideoLabel(
                video_id=clip.name,
                labels=() if clip.label is None else (clip.label,),
                subset=clip.subset,
                aliases=(clip.youtube_id,) if of_id[clip.youtube_id] == 1 else (),
            )
            for clip in clips
        ),
    )


def read_clips(path: Path) -> tuple[Clip, ...]:
    """The clips of a file, or of those of a folder: its CSVs, or where there are none its JSONs.

    Raises:
        LabelError: a line or an entry is wrong, or a clip occurs twice.
    """
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise LabelError(
            f"{path}: expected Kinetics' train.csv and val.csv, with the columns {','.join(COLUMNS)}"
        )
    clips: dict[str, Clip] = {}
    for file in files:
        for clip in _json(file) if file.suffix.lower() == ".json" else _csv(file):
            if clip.name in clips:
                raise LabelError(
                    f"{clip.place}: clip {clip.name!r} occurs twice, first at {clips[clip.name].place}"
                )
            clips[clip.name] = clip
    return tuple(clips.values())


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if _is_csv(path) or _is_json(path) else []
    entries = sorted(path.iterdir())
    return [e for e in entries if _is_csv(e)] or [e for e in entries if _is_json(e)]


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and columns_of(path).keys() >= {*map(plain, COLUMNS)}


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json" and _ENTRY.search(start_of(path)) is not None


def _csv(path: Path) -> Iterator[Clip]:
    with open_table(path) as table:
        places = {name: table.column([plain(name)]) for name in ("label", *COLUMNS)}
        if missing := next((name for name in COLUMNS if places[name] is None), None):
            raise LabelError(
                f"{path}: not a CSV of Kinetics: no column {missing!r} in the first line; expected "
                f"label,{','.join(COLUMNS)}"
            )
        clips = 0
        for line, row in table.rows:
            values = {name: row[place] for name, place in places.items() if place is not None}
            yield _row(f"{path}, line {line}", values)
            clips += 1
    if not clips:
        raise LabelError(f"{path}: no clips in it")


def _row(place: str, values: dict[str, str]) -> Clip:
    if lacking := next((name for name, value in values.items() if not value), None):
        raise LabelError(f"{place}: no {lacking} for clip {values['youtube_id'] or '(unnamed)'!r}")
    times = values["time_start"], values["time_end"]
    return _clip(place, values["youtube_id"], times, values.get("label"), values["split"])


def _json(path: Path) -> Iterator[Clip]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not a text file in UTF-8") from error
    except RecursionError as error:
        raise LabelError(f"{path}: nested too deeply for a Kinetics annotation file") from error
    except ValueError as error:
        raise LabelError(f"{path}: not JSON ({error})") from error
    if not isinstance(raw, dict) or not raw:
        raise LabelError(
            f"{path}: not a Kinetics annotation file: it is no object of clips by their YouTube ids"
        )
    for youtube_id, entry in raw.items():
        yield _entry(path, youtube_id, entry)


def _entry(path: Path, youtube_id: str, entry: Any) -> Clip:
    try:
        annotation = entry["annotations"]
        start, end = annotation["segment"]
        label = annotation.get("label")
        subset = str(entry["subset"])
        if not (label is None or isinstance(label, str)):
            raise TypeError("the label is no text")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LabelError(f"{path}: clip {youtube_id!r} is not annotated as in Kinetics: {error!r}") from error
    return _clip(f"{path}, clip {youtube_id!r}", youtube_id, (start, end), label, subset)


def _clip(place: str, youtube_id: str, times: tuple[Any, Any], label: str | None, subset: str) -> Clip:
    try:
        start_s, end_s = (float(time) for time in times)
    except (TypeError, ValueError, OverflowError):
        start_s = end_s = -1.0
    if not 0 <= start_s < end_s < _LONGEST_S:
        raise LabelError(f"{place}: from {times[0]!r} to {times[1]!r} is no stretch of seconds")
    name = f"{youtube_id}_{int(start_s):06d}_{int(end_s):06d}"
    return Clip(youtube_id, name, label, "val" if subset == "validate" else subset, place)
