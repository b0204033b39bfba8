"""When imported rows are: the user's options as a Sampling, and as the seconds that each row saw."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cache_schema.errors import UserError
from cache_schema.importers.rows import Rows
from cache_schema.schema import Float64Array, Sampling, numbers_without

_MAX_FPS = 1000.0
# Of files' own seconds beside k / fps: half of what is between the frames of a fast camera.
TOLERANCE_S = 2e-3


@dataclass(frozen=True)
class Timing:
    """The user's options on when rows are.

    Attributes:
        fps: rows a second; with `clip_frames`, frames a second of the clips.
        clip_frames: rows are clips of so many frames.
        stride: frames from one clip's start to the next; None: clips are end to end.
        clips: rows a video.
        like: the sampling of a built-in stream, or the usual one of a published layout.
        fps_varies: the clips of each video are of its own frames a second.
    """

    fps: float | None = None
    clip_frames: int | None = None
    clips: int | None = None
    like: Sampling | None = None
    stride: int | None = None
    fps_varies: bool = False

    def sampling(self, first: Rows) -> Sampling:
        """The sampling that the options describe.

        Args:
            first: the first video, whose rows are counted where no option gives their number.

        Raises:
            UserError: the options contradict each other, or are not enough.
        """
        if self.fps is not None and not 0 < self.fps <= _MAX_FPS:
            raise UserError(f"--fps {self.fps:g}: the rate must be above 0 and at most {_MAX_FPS:g}")
        if self.clips is not None:
            if self.fps_varies or (self.fps, self.clip_frames, self.stride) != (None, None, None):
                raise UserError(
                    "--clips says that rows are spread over a video, --fps that they follow each other"
                )
            return self._clips(self.clips, known=True)
        is_dense = self.like is not None and self.like.kind == "dense"
        follow = first.features is not None or self.fps is not None  # scores may be those of a whole video
        if self.clip_frames is not None or self.fps_varies or (is_dense and follow):
            return self._dense()
        if self.stride is not None:
            raise UserError("--stride needs --clip-frames, the frames of a clip")
        if self.fps is not None:
            return self._at_rate(self.fps)
        if first.features is None or (self.like is not None and self.like.kind == "clips"):
            # One row may as well be the mean of many clips.
            count = len(first) + len(first.lost)
            return self._clips(count, known=count > 1)
        if self.like is None:
            raise UserError(
                "say where in a video its rows are: --fps 1 (a frame every second), --clip-frames 16 --fps 25 "
                "(clips of 16 frames, end to end, at 25 frames a second; --stride 4: one every 4 frames), --clips "
                "10 (10 rows a video), --like STREAM, or --format for the usual values of a published layout"
            )
        return self.like

    def _dense(self) -> Sampling:
        usual = self.like if self.like is not None and self.like.kind == "dense" else None
        fps = 0.0 if self.fps_varies else self.fps or (usual.fps if usual else None)
        if fps is None:
            raise UserError("--clip-frames needs --fps, the frames a second that the clips are of")
        window = self.clip_frames or (usual.window if usual else 1)
        stride = self.stride or (usual.stride if usual else 0)
        return dense(fps, window, stride)

    def _clips(self, clips: int, *, known: bool) -> Sampling:
        """`known`: whether the clips are certainly like those of `like`."""
        if known and self.like is not None and self.like.kind == "clips":
            return replace(self.like, clips=clips)
        return Sampling("clips", fps=0.0, frames=0, window=0, clips=clips)

    def _at_rate(self, fps: float) -> Sampling:
        if self.like is None or self.like.kind == "frames":
            return Sampling(fps=fps)
        return replace(self.like, kind="snippets", rows_per_s=fps, clips=0)


def dense(fps: float, window: int, stride: int = 0) -> Sampling:
    """Clips of `window` frames, every `stride` (0: end to end).

    Args:
        fps: frames a second; 0: each video's own.
    """
    return Sampling(
        "dense",
        fps=float(fps),  # in JSON 25 is not 25.0
        frames=window if fps else 0,
        window=window,
        stride=0 if stride == window else stride,
    )


def spans_of(rows: Rows, sampling: Sampling) -> Float64Array:
    """(T, 2) first and last second of each row: from the file, else from the sampling; NaN where neither has them.

    Raises:
        UserError: the file's spans contradict the sampling, or it has another number of clips.
    """
    count = len(rows) + len(rows.lost)
    if max(rows.lost, default=-1) >= count:
        raise UserError(f"{rows.place}: it has {len(rows)} rows and cannot lack row {rows.lost[-1]}")
    numbers = numbers_without(rows.lost, len(rows))
    expected_count = sampling.clips * sampling.crops
    if sampling.kind == "clips" and count != expected_count:
        raise UserError(
            f"{rows.place}: it has {count} rows, where {expected_count} a video are expected; if they follow each "
            "other in time, --fps says how"
        )
    if rows.spans is None or np.isnan(rows.spans).all():
        if sampling.kind == "dense" and not sampling.fps:
            raise UserError(
                f"{rows.place}: each video's clips are at its own rate, which its rows and its length say: give "
                "--lengths FILE (ActivityNet's JSON, or a CSV of video_id,duration_s) with this video, or --fps 30"
            )
        return usual_spans(numbers, sampling)
    if sampling.kind == "frames":
        expected = numbers / sampling.fps
        starts, ends = rows.spans.T
        off = (np.abs(starts - expected) > TOLERANCE_S) | (starts != ends)
        if off.any():
            row = int(np.flatnonzero(off)[0])
            first, last = rows.spans[row].tolist()
            raise UserError(
                f"{rows.place}: row {row} saw second {first:g} to {last:g} according to its spans, but a frame at "
                f"{expected[row]:g} according to the options: give the rate, or the clips, that it was made with"
            )
    return rows.spans


def usual_spans(rows: npt.NDArray[np.int64], sampling: Sampling) -> Float64Array:
    """Where extraction would place the rows, except that the end of the video is not known.

    Args:
        rows: (T,), their numbers.
    """
    if sampling.kind == "clips":
        return np.full((len(rows), 2), math.nan)
    if sampling.kind == "frames":
        starts = rows / sampling.fps
    elif sampling.kind == "dense":
        starts = rows * sampling.step / sampling.fps
    else:
        starts = rows / sampling.rows_per_s - (sampling.window // 2) / sampling.fps
    seen_s = (sampling.window - 1) / sampling.fps if sampling.frames > 1 else 0.0
    return np.stack([starts, starts + seen_s], axis=1).clip(0)
