"""Detections in files, as ActivityNet's JSON or as a CSV, and what they are judged by as arrays.

The JSON is {"version", "results": {video: [{"label", "score", "segment": [start, end]}, …]}, "external_data"}.
ActivityNet's kit reads it, and most code writes it for other benchmarks, too. Only "results" is read here. The CSV
has the header video_id,label,start_s,end_s,score. Times are in seconds.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache_schema.annotations import VideoLabel
from cache_schema.errors import LabelError, UserError
from cache_schema.run_folder import write_atomically
from policy.evaluation.detection import Detections, GroundTruth

COLUMNS = ("video_id", "label", "start_s", "end_s", "score")
_FORM = '{"results": {video: [{"label": …, "score": …, "segment": [start, end]}, …]}}'


class _Entry(NamedTuple):
    """A detection as it stands in a file; `place` says where. Of a JSON file the values may be of any type."""

    place: str
    video: str
    label: Any
    start: Any
    end: Any
    score: Any


def ground_truth(videos: Sequence[VideoLabel], classes: Sequence[str]) -> GroundTruth:
    """The segments and ambiguous spans of M videos.

    Args:
        videos: numbered in this order.
        classes: names of the C classes, numbered in this order.

    Raises:
        LabelError: a segment is of no class.
    """
    numbers = {label: number for number, label in enumerate(classes)}
    segments = [(position, segment) for position, video in enumerate(videos) for segment in video.segments]
    for position, segment in segments:
        if segment.label not in numbers:
            raise LabelError(
                f"video {videos[position].video_id!r}: the label {segment.label!r} of a segment is not a class"
            )
    ambiguous = [(position, span) for position, video in enumerate(videos) for span in video.ambiguous]
    return GroundTruth(
        np.array([position for position, _ in segments], np.int64),
        np.array([numbers[segment.label] for _, segment in segments], np.int64),
        np.array([(segment.start_s, segment.end_s) for _, segment in segments], np.float64).reshape(-1, 2),
        np.array([position for position, _ in ambiguous], np.int64),
        np.array([span for _, span in ambiguous], np.float64).reshape(-1, 2),
    )


def read(path: Path, videos: Sequence[VideoLabel], classes: Sequence[str]) -> Detections:
    """Read a .json or .csv file of detections, which are kept in its order.

    Args:
        videos: the M videos, numbered in this order; the file has their ids or aliases.
        classes: names of the C classes, numbered in this order.

    Raises:
        UserError: the file cannot be read or is of another form, a video or class is unknown, a number is missing
            or not finite, or an end is before its start. The message names the line or entry.
    """
    entries = {".json": _json_entries, ".csv": _csv_entries}.get(path.suffix.lower())
    if entries is None:
        raise UserError(
            f"{path}: detections are read from a .json file, in ActivityNet's form, or from a .csv"
        )
    positions = {alias: position for position, video in enumerate(videos) for alias in video.aliases}
    positions |= {video.video_id: position for position, video in enumerate(videos)}
    numbers = {label: number for number, label in enumerate(classes)}
    unknown: dict[str, str] = {}
    rows, values = [], []
    try:
        for entry in entries(path):
            at = f"{path}, {entry.place}"
            start, end, score = (
                _finite(at, name, getattr(entry, name)) for name in ("start", "end", "score")
            )
            if end < start:
                raise UserError(f"{at}: the end, {end:g} s, is before the start, {start:g} s")
            if not isinstance(entry.label, str) or entry.label not in numbers:
                known = ", ".join(map(repr, classes[:3]))
                raise UserError(
                    f"{at}: {entry.label!r} is not one of the {len(classes)} classes ({known}, …)"
                )
            if entry.video not in positions:
                unknown.setdefault(entry.video, entry.place)
                continue
            rows.append((positions[entry.video], numbers[entry.label]))
            values.append((start, end, score))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8") from error
    if unknown:
        video, place = next(iter(unknown.items()))
        others = f", nor are {len(unknown) - 1} others" if len(unknown) > 1 else ""
        known = f"whose ids are such as {videos[0].video_id!r}" if videos else "which has no videos"
        raise UserError(f"{path}, {place}: video {video!r} is not in the annotations, {known}{others}")
    indices, columns = np.array(rows, np.int64).reshape(-1, 2), np.array(values).reshape(-1, 3)
    return Detections(indices[:, 0], indices[:, 1], columns[:, :2], columns[:, 2])


def write_json(path: Path, detections: Detections, video_ids: Sequence[str], classes: Sequence[str]) -> None:
    """Write ActivityNet's JSON, with every video of the M. Raises UserError where the file cannot be written."""
    results: dict[str, list[dict[str, Any]]] = {video_id: [] for video_id in video_ids}
    for video_id, label, start, end, score in _rows(detections, video_ids, classes):
        results[video_id].append({"label": label, "score": score, "segment": [start, end]})
    content = {"version": "VERSION 1.3", "results": results, "external_data": {}}
    write_atomically(path, (json.dumps(content, ensure_ascii=False) + "\n").encode())


def write_csv(path: Path, detections: Detections, video_ids: Sequence[str], classes: Sequence[str]) -> None:
    """Write the CSV. Raises UserError where the file cannot be written."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_rows(detections, video_ids, classes))
    write_atomically(path, text.getvalue().encode())


def _rows(
    detections: Detections, video_ids: Sequence[str], classes: Sequence[str]
) -> Iterator[tuple[str, str, float, float, float]]:
    for video, number, (start, end), score in zip(
        detections.videos.tolist(),
        detections.classes.tolist(),
        detections.spans.tolist(),
        detections.scores.tolist(),
        strict=True,
    ):
        yield video_ids[video], classes[number], start, end, score


def _json_entries(path: Path) -> Iterator[_Entry]:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """The standard library would keep the last of equal keys in silence: half of a video's detections."""
        content = dict(pairs)
        if len(content) < len(pairs):
            key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise UserError(f"{path}: {key!r} occurs twice in the same place")
        return content

    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text, object_pairs_hook=distinct)
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply for a file of detections") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise UserError(f"{path}: no detections in ActivityNet's form, {_FORM}")
    for video, found in results.items():
        if not isinstance(found, list):
            raise UserError(f"{path}, video {video!r}: not a list of detections as in {_FORM}")
        for number, detection in enumerate(found, 1):
            place = f"video {video!r}, detection {number}"
            try:
                start, end = detection["segment"]
                label, score = detection["label"], detection["score"]
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}, {place}: not as in {_FORM} ({error!r})") from error
            yield _Entry(place, video, label, start, end, score)


def _csv_entries(path: Path) -> Iterator[_Entry]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Strict, or a quote that is never closed would swallow the lines after it.
        reader = csv.DictReader(file, strict=True)
        try:
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise UserError(
                    f"{path}: no column {missing[0]!r}; the first line must be {','.join(COLUMNS)}"
                )
            for row in reader:
                if any(row.get(None) or ()):
                    raise UserError(
                        f"{path}, line {reader.line_num}: more values than columns in the first line"
                    )
                yield _Entry(f"line {reader.line_num}", *((row[column] or "").strip() for column in COLUMNS))
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num + 1}: not CSV ({error})") from error


def _finite(at: str, name: str, value: Any) -> float:
    """The number, which JSON may have as a text, too. Raises UserError."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{at}: the {name} is {value!r}, which is not a finite number")
    return number
