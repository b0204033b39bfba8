"""The frames that rows of a cache were computed from, as thumbnails (LiteEval, Fig. 5)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache_schema import UserError

Picture = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

HEIGHT = 90  # pixels
_SPARE_S = 1.0  # by how much two containers of the same video may differ in length


def find_videos(folder: Path, video_ids: Iterable[str]) -> dict[str, Path]:
    """The files of these videos below a folder, or folders of their frames, by batch-extract's ids of either kind.

    Videos that are not there are left out.

    Raises:
        UserError: no such folder, or none of the videos is in it.
    """
    from extract.names import printable
    from extract.sources import find_videos as taken

    wanted = list(video_ids)
    shown = printable(folder)
    if not folder.is_dir():
        raise UserError(f"{shown}: no such folder of videos")
    known: dict[str, Path] = {}
    for ids in ("path", "stem"):  # where both name a file the file's own name goes first
        known |= {video.id: video.path for video in taken([folder], ids=ids, frames_fps=1.0).videos}
    found = {video: known[video] for video in wanted if video in known}
    if wanted and not found:
        raise UserError(f"{shown}: none of the {len(wanted)} videos is there, {wanted[0]!r} for example")
    return found


def thumbnails(
    path: Path, instants_s: FloatArray, *, frames_fps: float = float("nan"), height: int = HEIGHT
) -> list[Picture]:
    """The frames on screen at instants of a video, decoded as batch-extract does it, in this process.

    Args:
        instants_s: (N,) seconds after the first frame shown; or (N, 2) spans of a cache's rows, of which the
            middle is taken. In any order.
        frames_fps: of a folder of frames, how many it has a second: what the cache says of the video.
        height: pixels of the thumbnails, which keep the shape of the picture.

    Returns:
        N RGB pictures (height, W, 3).

    Raises:
        UserError: the file cannot be read, is damaged, or is too short to be the video that was extracted.
    """
    from extract.decode import VideoError, read_video
    from extract.names import printable

    times_s = instants_s.mean(axis=1) if instants_s.ndim == 2 else instants_s
    if not len(times_s):
        return []
    try:
        # Of a partial video the rows' own frames are asked for, which decode.
        video = read_video(path, keep_damaged=True, frames_fps=frames_fps if path.is_dir() else None)
        if times_s.max() > video.duration_s + _SPARE_S:
            raise VideoError(
                f"lasts {video.duration_s:.1f} s, but a row of the cache is of second {times_s.max():.1f}: "
                "not the video that was extracted"
            )
        numbers, places = np.unique(video.numbers_at(times_s), return_inverse=True)
        small = []
        for frame in video.frames(numbers):
            if frame is None:
                raise VideoError("a frame that the cache has a row of does not decode right")
            small.append(_resized(frame, height))
    except (VideoError, OSError) as error:
        raise UserError(f"{printable(path)}: {error}") from error
    return [small[place] for place in places.tolist()]


def _resized(frame: Picture, height: int) -> Picture:
    from PIL import Image

    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    image = Image.fromarray(np.ascontiguousarray(frame))
    # What is beyond a few times the size is averaged first: quicker, and the eye sees no difference.
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))
