"""Thumbnails of the frames from which rows of a cache were computed (LiteEval, Fig. 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache_schema import UserError

Picture = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

HEIGHT = 90  # pixels
_SPARE_S = 1.0  # two containers of the same video may differ this much in length


def find_videos(places: Sequence[Path], video_ids: Iterable[str]) -> dict[str, Path]:
    """The files of these videos, or folders of their frames, by either kind of batch-extract's ids.

    Videos that are not found are left out.

    Args:
        places: files, folders (recursively) and lists of paths.

    Raises:
        UserError: no such place, or none of the videos is there.
    """
    from cache_schema.files import printable
    from extract.sources import find_videos as find_sources

    requested = list(video_ids)
    paths: dict[str, Path] = {}
    for ids in ("path", "stem"):  # if both name a file, the stem takes precedence
        paths |= {video.id: video.path for video in find_sources(places, ids=ids, frames_fps=1.0).videos}
    matches = {video: paths[video] for video in requested if video in paths}
    if requested and not matches:
        raise UserError(
            f"{', '.join(map(printable, places))}: none of the {len(requested)} videos is there, "
            f"{requested[0]!r} for example"
        )
    return matches


def thumbnails(
    path: Path,
    instants_s: FloatArray,
    *,
    frames_fps: float = float("nan"),
    height: int = HEIGHT,
    whose: str = "the cache",
) -> list[Picture]:
    """The frames on screen at instants of a video, decoded as by batch-extract, in this process.

    Args:
        instants_s: (N,) seconds after the first frame shown; or (N, 2) spans of a cache's rows, whose middles are
            used. In any order.
        frames_fps: rate of a folder of frames, as the cache has it for the video.
        height: of the thumbnails in pixels; they keep the picture's aspect ratio.
        whose: the rows are that see these instants, in messages.

    Returns:
        N RGB pictures (height, W, 3).

    Raises:
        UserError: the file cannot be read, is damaged, or is too short to be the video that was extracted.
    """
    from cache_schema.files import printable
    from extract.decode import VideoError, read_video

    times_s = instants_s.mean(axis=1) if instants_s.ndim == 2 else instants_s
    if not len(times_s):
        return []
    try:
        # Only frames of rows are requested, which decode even in a partial video.
        video = read_video(path, keep_damaged=True, frames_fps=frames_fps if path.is_dir() else None)
        if times_s.max() > video.duration_s + _SPARE_S:
            raise VideoError(
                f"lasts {video.duration_s:.1f} s, but a row of {whose} is of second {times_s.max():.1f}: "
                "not the video that it was computed from"
            )
        numbers, places = np.unique(video.numbers_at(times_s), return_inverse=True)
        pictures = []
        for frame in video.frames(numbers):
            if frame is None:
                raise VideoError(f"a frame that {whose} has a row of does not decode right")
            pictures.append(_resized(frame, height))
    except (VideoError, OSError) as error:
        raise UserError(f"{printable(path)}: {error}") from error
    return [pictures[place] for place in places.tolist()]


def _resized(frame: Picture, height: int) -> Picture:
    from PIL import Image

    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    image = Image.fromarray(np.ascontiguousarray(frame))
    # Sizes beyond a few times the target are averaged first: quicker, and the eye sees no difference.
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))
