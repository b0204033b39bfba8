"""Lists that lie beside features: whose the rows are, and how long the videos are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema.annotations.published import shortened
from cache_schema.annotations.table import VIDEO_COLUMNS, columns_of, number_in_cell, open_table, plain
from cache_schema.annotations.video_names import listed_id
from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.arrays import map_npy
from cache_schema.importers.rows import ID_COLUMN, check_ids, texts_of

# Of W-TALC's folder of annotations.
NAMES, DURATIONS, RATES = "videoname.npy", "duration.npy", "extracted_fps.npy"

_TABLES = (".csv", ".tsv")
_LENGTH_KEYS = ("duration_s", "duration", "duration_second")


@dataclass(frozen=True)
class Lengths:
    """How long videos are according to a list.

    Attributes:
        path: the list; None: there is none.
        seconds: by video id.
        fps: the frames a second that a list claims of the features, or of the videos.
        fps_path: that list.
    """

    path: Path | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    fps: Mapping[str, float] = field(default_factory=dict)
    fps_path: Path | None = None

    def of(self, video_id: str) -> float:
        """Seconds; NaN if the list does not have the video."""
        return _listed(self.seconds, video_id)

    def claimed_fps(self, video_id: str) -> float:
        """Frames a second; NaN if the list claims none."""
        return _listed(self.fps, video_id)


def _listed(values: Mapping[str, float], video_id: str) -> float:
    # ActivityNet's lists leave out the v_ of its files.
    names = video_id, listed_id(video_id), video_id.removeprefix("v_"), f"v_{video_id}"
    return next((values[name] for name in names if name in values), math.nan)


def read_ids(path: Path) -> tuple[str, ...]:
    """Video ids from a text file, one a line, a table's column of videos (as of labels), or an npy file of text.

    Raises:
        UserError: the file cannot be read, or an id is refused by `check_ids`.
    """
    if path.suffix.lower() == ".npy":
        return check_ids(texts_of(map_npy(path), "ids", path), path)
    with _readable(path, "ids"):
        named = columns_of(path).keys()
        if path.suffix.lower() in _TABLES or (len(named) > 1 and not named.isdisjoint(VIDEO_COLUMNS)):
            ids = [line[0] for line, _ in _table(path, VIDEO_COLUMNS)]
        else:
            text = path.read_text(encoding="utf-8-sig").rstrip()
            # Not splitlines: a name with U+2028 would be two.
            ids = text.split("\n") if text else []
    return check_ids([video_id.strip() for video_id in ids], path)


def read_lengths(path: Path) -> Lengths:
    """How long videos are, from a list as people have them.

    - A table: video_id (or called alike) and duration_s (or duration), as `feature-cache export` writes it.
    - JSON: ActivityNet's {"database": {id: {"duration": seconds, …}}}, or such entries without "database".
    - W-TALC's folder of annotations, or the `duration.npy` in it: `videoname.npy` lies beside it.

    Raises:
        UserError: it cannot be read, is none of these, or a length is not a positive number of seconds.
    """
    if path.is_dir() or path.suffix.lower() == ".npy":
        return _read_wtalc(path if path.is_dir() else path.parent)
    with _readable(path, "lengths"):
        if path.suffix.lower() in _TABLES:
            entries: Iterable[tuple[str, Mapping[str, Any]]] = [
                (video_id, {_LENGTH_KEYS[0]: _decimal(seconds, delimiter)})
                for (video_id, seconds), delimiter in _table(path, VIDEO_COLUMNS, _LENGTH_KEYS)
            ]
        else:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            entries = content.get("database", content).items()
        seconds, fps = {}, {}
        for video_id, entry in entries:
            found = next((entry[key] for key in _LENGTH_KEYS if key in entry), None)
            if found is not None:
                seconds[video_id] = _seconds(found, video_id, path)
                seconds.setdefault(listed_id(video_id), seconds[video_id])
            if isinstance(entry.get("fps"), float | int):
                fps[video_id] = float(entry["fps"])
                fps.setdefault(listed_id(video_id), fps[video_id])
    if not seconds:
        raise UserError(f"{printable(path)}: no lengths in it: {' or '.join(_LENGTH_KEYS[:2])} of videos")
    return Lengths(path, seconds, fps, path)


def _read_wtalc(folder: Path) -> Lengths:
    path = folder / DURATIONS
    ids = read_ids(folder / NAMES)
    durations = _column_of(path, len(ids))
    claimed = _column_of(folder / RATES, len(ids)) if (folder / RATES).exists() else []
    return Lengths(
        path,
        {video_id: _seconds(value, video_id, path) for video_id, value in zip(ids, durations, strict=True)},
        dict(zip(ids, map(float, claimed), strict=False)),
        folder / RATES,
    )


def _column_of(path: Path, count: int) -> list[Any]:
    values = map_npy(path)
    if values.size != count or values.dtype.kind not in "iuf":
        raise UserError(
            f"{printable(path)}: {values.dtype} of shape {values.shape}, where a number for each of the "
            f"{count:,} videos of {NAMES} is expected"
        )
    return list(np.ravel(values).tolist())


def _seconds(value: object, video_id: str, path: Path) -> float:
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise UserError(f"{printable(path)}: video {video_id!r}: {value!r:.40} is no length in seconds")
    return seconds


def _table(path: Path, *columns: tuple[str, ...]) -> Iterator[tuple[list[str], str]]:
    """Of each line of a table its values in a column of each group, and what divides its columns."""
    with open_table(path) as table:
        places = []
        for group, expected in zip(columns, (ID_COLUMN, _LENGTH_KEYS[0]), strict=False):
            place = table.column([plain(name) for name in group])
            if place is None:
                found = shortened(", ".join(filter(None, table.columns))) or "nothing"
                raise UserError(
                    f"{printable(path)}: no column {expected!r} in its first line, which has: {found}"
                )
            places.append(place)
        for _, values in table.rows:
            yield [values[place] for place in places], table.delimiter


def _decimal(text: str, delimiter: str) -> float | str:
    """A number; what is none as it stands, for a message."""
    try:
        return number_in_cell(text, delimiter)
    except ValueError:
        return text


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        kind = "text in UTF-8" if isinstance(error, UnicodeDecodeError) else f"such a list ({error})"
        reason = getattr(error, "strerror", None) or f"not {kind}"
        raise UserError(f"{printable(path)}: cannot be read as a list of {what}: {reason}") from error
