"""What a decode worker does for fine-tuning: random pieces of a video to train on, its own rows to validate on."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from PIL import Image

from extract.cutting import CHUNK_BYTES, Cutter, centre
from extract.decode import VideoError, read_video
from extract.finetune import draws
from extract.transform import UInt8Array, resize_short_side
from extract.views import PixelArray, View
from extract.workers import DecodeJob, Finished, Frames, Message, Opened, serve

SERVE = "extract.finetune.cutting:serve_samples"

_PAUSE_S = 0.02


@dataclass(frozen=True)
class TrainingJob(DecodeJob):
    """`rows` random frames or clips of a video, as its one view has them but for crop and mirroring.

    What is drawn depends on seed, epoch and video_id. `index` is the caller's.
    """

    epoch: int = 0
    index: int = 0
    video_id: str = ""
    seed: int = 0
    rows: int = 1
    min_area: float = 1.0
    flip: bool = False


@dataclass(frozen=True)
class ValidationJob(DecodeJob):
    """A video's rows exactly as they are in a cache; of more than `rows` (0: none is) that many, evenly spaced."""

    epoch: int = 0
    index: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Pause(DecodeJob):
    """Nothing to decode for a moment."""


def serve_samples(pipe: Connection) -> None:
    """A worker's target, see `extract.workers.decode_all`."""
    serve(pipe, answer)


def answer(job: DecodeJob, alive: Callable[[], None] = lambda: None) -> Iterator[Message]:
    """Do one of the jobs above in this process, calling `alive` whenever it has got further."""
    try:
        if isinstance(job, Pause):
            time.sleep(_PAUSE_S)
        elif isinstance(job, TrainingJob):
            yield from _training(job, alive)
        else:
            assert isinstance(job, ValidationJob)
            yield from _validation(job, alive)
        yield Finished(job.key, None)
    except VideoError as error:
        yield Finished(job.key, " ".join(str(error).split()))
    except MemoryError:
        yield Finished(job.key, "not enough memory to decode it")
    except Exception as error:
        # Ours, not the video's: the run goes on, but the traceback must not be lost.
        traceback.print_exc()
        yield Finished(job.key, f"unexpected {type(error).__name__}: {' '.join(str(error).split())}")


def _training(job: TrainingJob, alive: Callable[[], None]) -> Iterator[Message]:
    (view,) = job.views
    video = read_video(job.path, decoder=job.decoder, frames_fps=job.frames_fps)
    chance = draws.generator(job.seed, job.epoch, job.video_id)
    times_s = draws.random_times(
        chance, view.sampling, duration_s=video.duration_s, rows=job.rows, flow=view.flow_here
    )
    numbers = video.numbers_at(times_s)
    distinct, places = np.unique(numbers, return_inverse=True)
    spans = times_s[:, [0, -1]]
    yield Opened(job.key, video.duration_s, video.fps, (spans,), len(distinct))
    pieces = [_Piece(view, job, chance) for _ in range(job.rows)]
    places = places.reshape(numbers.shape)
    for at, frame in enumerate(video.frames(distinct)):
        assert frame is not None
        alive()
        for piece, wanted in zip(pieces, places, strict=True):
            piece.add(frame, int((wanted == at).sum()))
    for row, piece in enumerate(pieces):
        alive()  # flow takes its time
        yield Frames(job.key, 0, row, piece.pixels()[None], len(distinct))


class _Piece:
    """One training row: its frames, all cropped alike, in the order in which they are shown."""

    def __init__(self, view: View, job: TrainingJob, chance: np.random.Generator) -> None:
        self._view, self._job = view, job
        # Its own, so that what it draws does not depend on which piece meets its first frame when.
        self._chance = chance.spawn(1)[0]
        self._crop: draws.Crop | None = None
        self._shape = (0, 0)
        self._frames: list[UInt8Array] = []

    def add(self, frame: UInt8Array, times: int) -> None:
        if times:
            self._frames += [self._transformed(frame)] * times

    def pixels(self) -> PixelArray:
        if self._view.sampling.kind == "frames":
            return self._frames[0]
        if self._view.flow_here:
            return self._flow(self._frames)
        return np.stack(self._frames)

    def _transformed(self, frame: UInt8Array) -> UInt8Array:
        preprocessing = self._view.preprocessing
        if self._view.flow_here:
            return resize_short_side(frame, preprocessing)
        height, width = frame.shape[:2]
        if self._crop is None:
            self._shape = height, width
            self._crop = draws.random_crop(
                self._chance, width=width, height=height, min_area=self._job.min_area, flip=self._job.flip
            )
        left, top, cut_width, cut_height, mirrored = self._crop
        if (height, width) != self._shape:  # the picture changes size: the same part of it
            down, right = height / self._shape[0], width / self._shape[1]
            left, top = int(left * right), int(top * down)
            cut_width, cut_height = max(1, int(cut_width * right)), max(1, int(cut_height * down))
        part = Image.fromarray(np.ascontiguousarray(frame[top : top + cut_height, left : left + cut_width]))
        size = preprocessing.crop, preprocessing.crop
        pixels = np.asarray(part.resize(size, Image.Resampling[preprocessing.interpolation.upper()]))
        return pixels[:, ::-1] if mirrored else pixels

    def _flow(self, frames: Sequence[UInt8Array]) -> PixelArray:
        """Flow is cropped, not scaled, as I3D was trained: its lengths are in pixels of the resized picture."""
        from extract.flow import BOUND_PX, clip_flow

        preprocessing = self._view.preprocessing
        if len({frame.shape for frame in frames}) > 1:
            # The picture changes size: what all have is their middle.
            frames = [centre(frame, preprocessing.resize) for frame in frames]
        height, width = frames[0].shape[:2]
        left, top, size, _, mirrored = draws.random_place(
            self._chance, width=width, height=height, size=preprocessing.crop, flip=self._job.flip
        )
        flow = clip_flow(frames, "dis" if preprocessing.flow == "dis" else "tvl1")
        flow = flow[:, top : top + size, left : left + size]
        if mirrored:  # what moved to the right moves to the left
            flow = flow[:, :, ::-1] * np.array([-1, 1], np.float32)
        return np.clip(flow, -BOUND_PX, BOUND_PX).astype(np.float16)


def _validation(job: ValidationJob, alive: Callable[[], None]) -> Iterator[Message]:
    video = read_video(job.path, decoder=job.decoder, frames_fps=job.frames_fps)
    # The middles of equal parts are what the Uniform of LiteEval's Table 1 looks at.
    cutter = Cutter(video, job.views, alive, most=job.rows)
    yield Opened(job.key, video.duration_s, video.fps, tuple(cutter.spans), cutter.frames)
    for chunk in cutter.chunks(max_bytes=CHUNK_BYTES):
        yield Frames(job.key, *chunk, cutter.decoded)
