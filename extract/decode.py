"""Sampled frames of a video file: row k is exactly the frame on screen k / fps seconds after the first.

The file's packets are read once without decoding (`decode_index`): they say when each frame is shown, whether
the container keeps its promise, and whether decord would count its frames right. Then decord decodes, or, for
the rest, PyAV; where decord fails or its decoder reports damage, PyAV takes over and judges.

What is detected: files that are no video; truncation, where the container promises a duration or a last
packet is incomplete (MP4, Matroska, AVI, FLV, ASF; not MPEG-TS or bare streams, which promise none); lost
frames; and all damage that libav's decoder notices in what it has to decode for the rows.

What is not: damage that leaves a valid bitstream with another content; no decoder can tell. How often that is
depends on the codec (`python -m benchmarks.damage`). Of 60 files in which 200 bytes were overwritten at random,
wrong rows passed for right in 0 of H.264, HEVC and MPEG-4, and in 19 of VP9, whose decoder checks next to nothing;
of 60 files in which one bit was flipped, in 0 of H.264 (1 of its Baseline profile, invisible), 15 of MPEG-4
(invisible, off by at most 0.25 grey levels on average), 13 of HEVC and 18 of VP9.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extract.decode_decord import DecordDoubt, decord_frames
from extract.decode_index import VideoError, VideoIndex, read_index
from extract.decode_pyav import pyav_frames
from extract.sampling import frames_on_screen, sample_times

__all__ = ["SampledVideo", "VideoError", "open_video"]

CHUNK_BYTES = 64 << 20


class SampledVideo:
    """A video and the instants at which it is to be seen. Made by `open_video`.

    times_s: (N,) float64, the instant of each row in seconds after the first frame shown; N >= 1.
    duration_s: seconds from the first frame shown to the end of the last.
    fps: average frames per second of the video itself.
    decoder: "decord" or "pyav"; "pyav" also once it has had to take over.
    """

    def __init__(self, index: VideoIndex, *, fps: float) -> None:
        self._index = index
        self.duration_s = index.duration_s
        self.fps = len(index.frame_pts) / index.duration_s
        self.times_s = sample_times(duration_s=index.duration_s, fps=fps)
        self.decoder = "decord" if index.decord_objection is None else "pyav"

    def chunks(self, *, max_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (first row, frames): uint8 RGB, upright, (n, H, W, 3), in order, until every row was given.

        A chunk holds at most `max_bytes` of pixels, but at least one row. A frame that several rows show is
        decoded once. Raises VideoError where the video turns out to be damaged: only when the iterator ends
        without one is the video whole, so rows already given must then be dropped.
        """
        shown = frames_on_screen(
            frame_starts_s=self._index.frame_starts_s,
            times_s=self.times_s,
            tolerance_s=self._index.tolerance_s,
        )
        distinct, repeats = np.unique(shown, return_counts=True)
        first_row = 0
        chunk: list[NDArray[np.uint8]] = []
        for frame, count in zip(self._frames(distinct), repeats.tolist(), strict=True):
            for _ in range(count):
                chunk.append(frame)
                if (len(chunk) + 1) * frame.nbytes > max_bytes:
                    yield first_row, np.stack(chunk)
                    first_row += len(chunk)
                    chunk = []
        if chunk:
            yield first_row, np.stack(chunk)

    def _frames(self, wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        done = 0
        if self.decoder == "decord":
            try:
                for frame in decord_frames(self._index, wanted):
                    yield frame
                    done += 1
                return
            except DecordDoubt:
                self.decoder = "pyav"
        yield from pyav_frames(self._index, wanted[done:])


def open_video(path: Path, *, fps: float) -> SampledVideo:
    """Open a video to be sampled at `fps` rows per second (1: rows at 0, 1, 2 ... s, before its end).

    Reads the file's packets, decodes nothing. Raises VideoError with the reason where the file cannot be
    read, holds no video or less of it than it promises; ValueError for an `fps` that is not positive.
    """
    return SampledVideo(read_index(path), fps=fps)
