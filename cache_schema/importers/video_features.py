"""The output folder of v-iashin/video_features: VIDEO_KEY.npy, beside VIDEO_fps.npy and VIDEO_timestamps_ms.npy.

What is in the last two, according to its extractors: the frames a second of the video that was decoded (after
`extraction_fps`, if that was given), and an instant for each row. Of single frames it is the frame's; of stacks
(I3D's rgb and flow) that of the frame after the last, so that the first is as long as a stack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from cache_schema.command import count
from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.arrays import map_npy
from cache_schema.importers.folder import Folder, files_below
from cache_schema.importers.instants import TOLERANCE_S, dense
from cache_schema.importers.parts import Changed
from cache_schema.importers.rows import Rows, Source, some_of
from cache_schema.schema import Float64Array, Sampling

_FPS, _TIMESTAMPS = "_fps", "_timestamps_ms"
_WHOLE = 0.01  # of a frame, by which instants are rounded


def is_instants(path: Path) -> bool:
    """Whether a file is one of a row's instants, by its name."""
    return path.name.endswith(f"{_TIMESTAMPS}.npy")


def video_features_parts(folder: Path) -> tuple[dict[str, Source], Sampling | None]:
    """The videos' features by key (rgb, flow, resnet, …), and how their rows lie.

    Of some networks (r21d, s3d) it writes features alone; then how rows lie is None.

    Raises:
        UserError: a file of features has no instants, where others have them, or not as many as rows.
    """
    paths: dict[str, Path] = {}
    for path in sorted(path for path in files_below(folder) if path.suffix == ".npy"):
        if (other := paths.setdefault(path.stem, path)) is not path:
            raise UserError(
                f"{printable(path)}: also in {printable(other.parent)}: give one of these folders"
            )
    clocks = {
        stem.removesuffix(_TIMESTAMPS): _clock(path, paths.get(stem.removesuffix(_TIMESTAMPS) + _FPS))
        for stem, path in paths.items()
        if stem.endswith(_TIMESTAMPS)
    }
    ids: dict[str, dict[str, str]] = {}  # by key, and by the name of the file
    for stem, path in paths.items():
        if stem.endswith((_FPS, _TIMESTAMPS)):
            continue
        video_id, _, key = stem.rpartition("_")
        if not video_id:
            raise UserError(f"{printable(path)}: its name is not VIDEO_KEY.npy, as video_features writes")
        if clocks and video_id not in clocks:
            raise UserError(
                f"{printable(path)}: no {video_id}{_TIMESTAMPS}.npy beside it, as other videos have"
            )
        ids.setdefault(key, {})[stem] = video_id
    if not ids:
        raise UserError(f"{printable(folder)}: no features in it")
    if alone := sorted(clocks.keys() - {video_id for of_key in ids.values() for video_id in of_key.values()}):
        raise UserError(
            f"{printable(folder)}: instants of {some_of(alone)}, but no features: add them, or leave it out"
        )
    if short := [video_id for video_id, clock in clocks.items() if not len(clock.starts_s)]:
        raise UserError(
            f"{printable(folder)}: no rows of {count(len(short), 'videos')}, as of videos that are shorter than a "
            f"stack: leave their files out: {some_of(short)}"
        )

    def timed(rows: Rows) -> Rows:
        if not clocks:
            return rows
        clock = clocks[rows.id]
        if len(clock.starts_s) != len(rows):
            raise UserError(
                f"{rows.place}: {len(rows):,} rows, but {len(clock.starts_s):,} instants beside it"
            )
        return replace(rows, spans=clock.spans(), fps=clock.fps)

    parts: dict[str, Source] = {
        key: Changed(Folder(folder, "features", id_of=partial(_id_of, names)), timed)
        for key, names in sorted(ids.items())
    }
    return parts, _sampling([*clocks.values()]) if clocks else None


def _id_of(ids: Mapping[str, str], path: Path) -> str | None:
    return ids.get(path.stem)


@dataclass(frozen=True)
class _Clock:
    """When the rows of a video are.

    Attributes:
        starts_s: (T,), of their first frames.
        fps: frames a second.
        window: frames of a row; 1: single frames.
        stride: frames from one row to the next, perhaps not whole; NaN with one row.
    """

    starts_s: Float64Array
    fps: float
    window: int
    stride: float

    def spans(self) -> Float64Array:
        return np.stack([self.starts_s, self.starts_s + (self.window - 1) / self.fps], axis=1)


def _clock(timestamps: Path, rate: Path | None) -> _Clock:
    if rate is None:
        missing = timestamps.name.replace(_TIMESTAMPS, _FPS)
        raise UserError(f"{printable(timestamps)}: no {missing} beside it")
    instants_s, fps = _numbers(timestamps) / 1000, _numbers(rate)
    if fps.size != 1 or not fps.item() > 0:
        raise UserError(f"{printable(rate)}: {fps.tolist()!r:.40} is no rate in frames a second")
    if instants_s.ndim != 1 or (np.diff(instants_s, prepend=0.0) < 0).any():
        raise UserError(f"{printable(timestamps)}: not instants in order, of which a row each is expected")
    if not len(instants_s):
        return _Clock(instants_s, fps.item(), 0, math.nan)
    stride = float(np.median(np.diff(instants_s))) * fps.item() if len(instants_s) > 1 else math.nan
    frames_before_first = round(instants_s[0] * fps.item())
    # The first instant of stacks is where the first of them ends.
    window = frames_before_first if frames_before_first > 1 else round(stride) if stride > 1 else 1
    return _Clock(instants_s - instants_s[0], fps.item(), window, stride)


def _numbers(path: Path) -> Float64Array:
    values = map_npy(path)
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise UserError(f"{printable(path)}: finite numbers are expected, not {values.dtype}")
    return values.astype(np.float64)


def _sampling(clocks: Sequence[_Clock]) -> Sampling:
    """What all videos have in common."""
    windows, rates = {clock.window for clock in clocks}, {clock.fps for clock in clocks}
    strides = [clock.stride for clock in clocks if not math.isnan(clock.stride)]
    stride = round(strides[0]) if strides else 0
    if any(abs(other - stride) > _WHOLE for other in strides):
        stride = 0
    window = windows.pop() if len(windows) == 1 else 0
    if len(rates) > 1 or not window or (strides and not stride):
        return dense(0.0, window, stride)
    (fps,) = rates
    on_grid = all(
        np.allclose(clock.starts_s * fps, np.arange(len(clock.starts_s)), rtol=0, atol=TOLERANCE_S * fps)
        for clock in clocks
    )
    if window == 1 and on_grid:
        return Sampling(fps=fps)
    return dense(fps, window, stride)
