"""Frames of a video file: exactly those on screen at the instants asked for.

The file's packets are read once without decoding (`decode_index`): they say when each frame is shown, and
whether the container keeps its promise. Then what the wanted frames need is decoded, by PyAV or, where next to
nothing can be left out and its frame numbers, colours and checks can be relied on, by decord. Where decord fails
or its decoder reports damage, PyAV takes over and judges.

There are three verdicts:

- *right*: nothing is odd among what the rows need;
- *right, with a remark*: the file is odd, and its rows are those of a plain decoding of every frame: packed
  B-frames, a beginning cut out of an open group of pictures, recordings joined one behind the other, pauses,
  times that are not those of the pictures (`Video.remarks`);
- *refused*, with the reason (VideoError): no video; truncated, where the container promises a duration or a last
  packet is incomplete (MP4, Matroska, AVI, FLV, ASF; not MPEG-TS or bare streams, which promise none); damage
  that the demuxer of Matroska or AVI had to skip; timestamps in disorder; lost frames; and all damage that
  libav's parser or decoder notices, or conceals, in what has to be decoded for the rows.

Not detected: damage where no row looks; and damage that leaves a valid bitstream with another content; no
decoder can tell. How often that is depends on the codec (`python -m benchmarks.damage`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extract.decode_decord import DecordDoubt, decord_frames
from extract.decode_images import FrameFolder
from extract.decode_index import VideoIndex, read_index
from extract.decode_packets import Findings, VideoError
from extract.decode_pyav import left_out, pyav_frames
from extract.decode_video import Video
from extract.sampling import sample_times

__all__ = ["SampledVideo", "Video", "VideoError", "open_video", "read_video"]

CHUNK_BYTES = 64 << 20
# decord is the quicker where less than this part of the pictures need not be decoded (benchmarks.decoding).
_WORTH_LEAVING_OUT = 0.05


class VideoFile(Video):
    """A file whose packets have been read. `decoder` may decode it; once `frames` has begun, it does."""

    def __init__(self, index: VideoIndex, findings: Findings, decoder: str) -> None:
        super().__init__(
            index.frame_starts_s,
            duration_s=index.duration_s,
            tolerance_s=index.tolerance_s,
            findings=findings,
        )
        self._index = index
        self._choice = decoder
        self.decoder = "decord" if decoder != "pyav" and index.decord_objection is None else "pyav"

    def frames(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8] | None]:
        """As `Video.frames`."""
        done = 0
        if self._choice == "auto":
            self.decoder = "decord" if self._decord_is_as_quick(numbers) else "pyav"
        if self.decoder == "decord":
            try:
                for frame in decord_frames(self._index, numbers):
                    yield frame
                    done += 1
                return
            except DecordDoubt:
                self.decoder = "pyav"
        yield from pyav_frames(self._index, numbers[done:], self._findings)

    def _decord_is_as_quick(self, numbers: NDArray[np.int64]) -> bool:
        """decord decodes the pictures that nothing refers to, too, and else the same."""
        if self._index.decord_objection is not None:
            return False
        return left_out(self._index, numbers) < _WORTH_LEAVING_OUT


class SampledVideo(VideoFile):
    """A video and the instants at which it is to be seen. Made by `open_video`.

    times_s: (N,) float64, the instant of each row in seconds after the first frame shown; N >= 1.
    """

    def __init__(self, index: VideoIndex, findings: Findings, decoder: str, *, fps: float) -> None:
        super().__init__(index, findings, decoder)
        self.times_s = sample_times(duration_s=index.duration_s, fps=fps)

    def chunks(self, *, max_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (first row, frames): uint8 RGB, upright, (n, H, W, 3), in order, until every row was given.

        A chunk holds frames of one size, at most `max_bytes` of pixels, but at least one row. A frame that several
        rows show is decoded once. Raises VideoError as `frames` does.
        """
        distinct, repeats = np.unique(self.numbers_at(self.times_s), return_counts=True)
        first_row = 0
        chunk: list[NDArray[np.uint8]] = []
        for frame, count in zip(self.frames(distinct), repeats.tolist(), strict=True):
            if frame is None:
                raise VideoError(self.damage)
            if chunk and chunk[0].shape != frame.shape:
                yield first_row, np.stack(chunk)
                first_row += len(chunk)
                chunk = []
            for _ in range(count):
                chunk.append(frame)
                if (len(chunk) + 1) * frame.nbytes > max_bytes:
                    yield first_row, np.stack(chunk)
                    first_row += len(chunk)
                    chunk = []
        if chunk:
            yield first_row, np.stack(chunk)


def read_video(
    path: Path, *, decoder: str = "auto", keep_damaged: bool = False, frames_fps: float | None = None
) -> Video:
    """Open a video. Reads the file's packets, decodes nothing.

    `decoder`: "auto" takes the quicker of those that are right for this file, "decord" takes that wherever it is
    right, "pyav" never. `keep_damaged`: what can be had of a damaged file is wanted, see `Video.damage`. With
    `frames_fps` the path is a folder of frames, so many a second.
    Raises VideoError with the reason where the file cannot be read, holds no video or less of it than it promises.
    """
    findings = Findings(keep=keep_damaged)
    if frames_fps is not None:
        return FrameFolder(path, frames_fps=frames_fps, findings=findings)
    return VideoFile(read_index(path, findings), findings, decoder)


def open_video(path: Path, *, fps: float, decoder: str = "auto") -> SampledVideo:
    """Open a video to be sampled at `fps` rows per second (1: rows at 0, 1, 2 ... s, before its end).

    Raises as `read_video` does; ValueError for an `fps` that is not positive.
    """
    findings = Findings()
    return SampledVideo(read_index(path, findings), findings, decoder, fps=fps)
