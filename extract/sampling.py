"""Which instants of a video are sampled, and which frame is on screen at each. Pure arithmetic: no files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cache_schema import Sampling

# Containers round their clocks: Matroska to whole milliseconds, so off by up to 0.5 ms; decord's float32
# seconds are off by 1.2e-4 after an hour. An instant less than this from the end of the video is at the end:
# a video of 10.0000001 s has ten rows at 1 fps. It is half of what the shortest usual remainder needs: 24
# frames at 24000/1001 last 1.001 s and do show something at second 1.
CLOCK_TOLERANCE_S = 5e-4


def sample_times(*, duration_s: float, fps: float) -> NDArray[np.float64]:
    """Return the instants k / fps in seconds, k = 0, 1, ..., that lie in [0, duration_s).

    The result has shape (N,), N >= 1: a video shorter than one period still shows its first frame at 0.
    Instants within `CLOCK_TOLERANCE_S` (or a quarter of a period, if that is less) of the end are at the
    end, and left out. Raises ValueError where `duration_s` is negative, `fps` not positive or either infinite.
    """
    if not (np.isfinite(duration_s) and duration_s >= 0):
        raise ValueError(f"duration_s must be finite and not negative, got {duration_s}")
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be finite and positive, got {fps}")
    end_s = duration_s - min(CLOCK_TOLERANCE_S, 0.25 / fps)
    # One instant too many, then cut by the definition itself: no rounding of duration * fps can matter.
    times_s = np.arange(int(duration_s * fps) + 2) / fps
    return times_s[: max(1, int(np.searchsorted(times_s, end_s, side="left")))]


def clip_times(sampling: Sampling, *, duration_s: float, flow: bool = False) -> NDArray[np.float64]:
    """Return the instants in seconds that each row sees: (N, T), N >= 1, not decreasing along either axis.

    T is `sampling.frames`, one more with `flow`. With several crops a clip is here once. Instants outside the
    video are moved to its start or its end. Raises ValueError for an unknown kind, and as `sample_times` does.
    """
    if sampling.kind == "frames":
        return sample_times(duration_s=duration_s, fps=sampling.fps)[:, None]
    window_s = sampling.window / sampling.fps
    if sampling.kind == "snippets":
        centres_s = sample_times(duration_s=duration_s, fps=sampling.rows_per_s)
        starts_s = centres_s - (sampling.window // 2) / sampling.fps
    elif sampling.kind == "clips":
        places = np.linspace(0, 1, sampling.clips) if sampling.clips > 1 else np.array([0.5])
        starts_s = places * max(0.0, duration_s - window_s)
    elif sampling.kind == "dense":
        ticks = len(sample_times(duration_s=duration_s, fps=sampling.fps))
        count = max(1, (ticks - sampling.window) // sampling.step + 1)
        starts_s = np.arange(count, dtype=np.float64) * (sampling.step / sampling.fps)
    else:
        raise ValueError(f"unknown kind of sampling {sampling.kind!r}")
    last = max(sampling.frames - 1, 1)
    ticks_seen = np.arange(sampling.frames) * (sampling.window - 1) // last
    if flow:
        ticks_seen = np.append(ticks_seen, ticks_seen[-1] + 1)
    return np.clip(starts_s[:, None] + ticks_seen / sampling.fps, 0, duration_s)


def frames_on_screen(
    *, frame_starts_s: NDArray[np.float64], times_s: NDArray[np.float64], tolerance_s: float = 1e-6
) -> NDArray[np.int64]:
    """Return, for each instant, the index of the frame on screen: the last whose start is not after it.

    `frame_starts_s` (F,) must not decrease and is relative to the first frame shown, `times_s` is (N,); the
    result is (N,). A start up to `tolerance_s` after an instant counts as at the instant (a rounded clock);
    an instant before the first start gets frame 0. Raises ValueError without frames or for decreasing starts.
    """
    if len(frame_starts_s) == 0:
        raise ValueError("no frames")
    if np.any(np.diff(frame_starts_s) < 0):
        raise ValueError("frame_starts_s decreases")
    last_started = np.searchsorted(frame_starts_s, times_s + tolerance_s, side="right") - 1
    return np.maximum(last_started, 0)
