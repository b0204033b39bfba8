"""Rows of a video on demand: a process decodes it once, keeps the latest frames, and cuts out what is wanted.

A video that a policy looks at is served by a process of its own, so that one whose decoder crashes or hangs ends
no other. This module is imported there and needs no torch.

The frames that any stream may show are decoded in order, once for all streams, as far as rows are wanted and as
many frames further as rows are cut out at once. A frame is resized for a stream when a row of that stream is
wanted. The latest frames are kept, in `max_bytes`; a row that shows one which is not there any more begins another
pass, over what is wanted alone. No more rows are cut out at once than those whose frames stay: a policy may want
rows of another stream next, of the same frames.
"""

from __future__ import annotations

import bisect
import contextlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from extract.cutting import ViewRows, pictures_of, rows_of
from extract.decode import Video, VideoError, read_video
from extract.views import PixelArray, View
from extract.workers import start_process

Frame = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

_AHEAD = 4  # at least, frames decoded before they are wanted: what a policy that stops has decoded in vain
_ALIVE_S = 1.0


class Open(NamedTuple):
    """To the process: open a video. What it did for the video before is dropped.

    Attributes:
        views: by stream, what its rows show.
        decoder: as in `extract.decode.read_video`.
        frames_fps: rate of a folder of frames; None for a file.
        max_bytes: of decoded frames to keep, if that is more than one frame.
        keep_damaged: what comes before the damage of a video is wanted.
    """

    path: Path
    views: Mapping[str, View]
    decoder: str
    frames_fps: float | None
    max_bytes: int
    keep_damaged: bool = False


class Want(NamedTuple):
    """To the process: cut out rows.

    Attributes:
        rows: (n,) increasing, what is wanted of the stream, or the first few thousands of it.
        limit: how many of them, the first, are to be cut out now, at most.
    """

    stream: str
    rows: IntArray
    limit: int


class Opened(NamedTuple):
    """From the process: the video can be read.

    Attributes:
        spans_s: by stream (T, 2), first and last second of each row.
        cpu_s: of the process, since its last message or its start.
    """

    duration_s: float
    spans_s: Mapping[str, npt.NDArray[np.float64]]
    cpu_s: float


class Pixels(NamedTuple):
    """From the process: (n, *View.row_shape), the first of the rows that were wanted, from 1 to `limit`.

    Attributes:
        decoded: frames of the video that were decoded so far, those of further passes too.
        held: the most decoded frames that were kept at once.
        damage: what was found damaged so far; these rows are not. Empty: nothing.
        cpu_s: as in Opened.
    """

    pixels: PixelArray
    decoded: int
    held: int
    damage: str
    cpu_s: float


class Failed(NamedTuple):
    """From the process: the video cannot be read, or no further. cpu_s: as in Opened."""

    reason: str
    cpu_s: float


Message = Opened | Pixels | Failed


class VideoProcess:
    """A process that serves one video at a time, at the caller's end.

    Attributes:
        ready: it has imported the decoders: what it does from now on is the video's time.
    """

    def __init__(self, target: str = "policy.deploy.videos:serve") -> None:
        self.ready = False
        self.process, self.pipe = start_process(target)

    def send(self, message: Open | Want) -> None:
        with contextlib.suppress(OSError):  # it has died: found when its answer is received
            self.pipe.send(message)

    def receive(self) -> Message | None:
        """The next message; None: it is at work. Raises EOFError where the process has ended."""
        try:
            message: Message | None = self.pipe.recv()
        except OSError as error:
            raise EOFError from error
        self.ready = True
        return message

    def kill(self) -> int:
        """End it. Returns its exit code."""
        self.process.kill()
        self.pipe.close()
        return self.process.wait()


class Frames:
    """The frames of a video that its rows may show, in order and by number.

    Attributes:
        decoded: how many were decoded so far.
        damage: where a damaged video is read all the same, what was found so far; empty: nothing.
        held: the most that were kept at once.
        most_ahead: how many are decoded before they are wanted, where half of what is kept has room for them.

    Args:
        reopen: opens the video once more.
        numbers: of the frames, increasing.
        further: called for every frame that is decoded.
    """

    def __init__(
        self,
        video: Video,
        reopen: Callable[[str], Video],
        numbers: IntArray,
        *,
        max_bytes: int,
        further: Callable[[], None] = lambda: None,
    ) -> None:
        self._video, self._reopen, self._max_bytes, self._further = video, reopen, max_bytes, further
        self.decoded = self.held = 0
        self.most_ahead = _AHEAD
        self._numbers = numbers
        self.damage = ""
        self._kept: dict[int, Frame] = {}
        self._begin(video, numbers)

    def _begin(self, video: Video, numbers: IntArray) -> None:
        self._reading = video
        self._left = numbers.tolist()[::-1]  # of this pass, the next one last
        self._pass = video.frames(numbers)
        self._latest = -1  # of those that were wanted
        self._error: VideoError | None = None

    def get(self, number: int, wanted: Callable[[], IntArray]) -> Frame:
        """A frame.

        Args:
            wanted: gives the numbers, increasing, of this one and all others that are wanted now: another pass, if
                it takes one, goes over those.

        Raises:
            VideoError: it, or one before it, is damaged.
        """
        if number not in self._kept and not self._comes(number):
            # As in the first pass: two decoders may differ in the last bits of a pixel.
            video = self._reopen(self._video.decoder)
            numbers = wanted()
            self._begin(video, numbers[numbers >= number])
        while number not in self._kept:
            if self._error is not None:
                raise self._error
            self._decode()
        self._latest = max(self._latest, number)
        return self._kept[number]

    def stay(self, first: int, last: int) -> bool:
        """Whether all frames from one number to another are kept until the latter, and some ahead, are decoded."""
        count = np.searchsorted(self._numbers, last, "right") - np.searchsorted(self._numbers, first)
        return int(count) + self._room_ahead <= self._room

    @property
    def _room(self) -> int:
        """How many frames, of the size of the latest one, are kept."""
        latest = next(reversed(self._kept.values()), None)
        return 1 if latest is None else max(1, self._max_bytes // latest.nbytes)

    @property
    def _room_ahead(self) -> int:
        return min(self.most_ahead, self._room // 2)

    def decode_ahead(self) -> bool:
        """Decode the next frame, which nobody wants yet. Returns False where that would be too far ahead."""
        if not self._kept or self._error is not None or not self._left or self._left[-1] <= self._latest:
            return False
        if sum(kept > self._latest for kept in self._kept) >= self._room_ahead:
            return False
        self._decode()
        return True

    def _comes(self, number: int) -> bool:
        """Whether this pass still has to decode a frame."""
        at = bisect.bisect_left(self._left, -number, key=lambda left: -left)
        return at < len(self._left) and self._left[at] == number

    def _decode(self) -> None:
        try:
            frame = next(self._pass)
            number = self._left.pop()
            if not self._left or frame is None:
                # Only where the pass ends without an error is the video whole, and only then is all damage known.
                for _ in self._pass:
                    self._further()
            self.damage = self._reading.damage or self.damage
            if frame is None:
                raise VideoError(self.damage)
        except VideoError as error:
            self._error = error
            return
        self._kept[number] = frame
        self.decoded += 1
        self._further()
        used = sum(kept.nbytes for kept in self._kept.values())
        while used > self._max_bytes and len(self._kept) > 1:
            used -= self._kept.pop(next(iter(self._kept))).nbytes
        self.held = max(self.held, len(self._kept))


class RawVideo:
    """A video that has been opened, and its rows.

    Raises:
        VideoError: it cannot be read.
    """

    def __init__(self, order: Open, further: Callable[[], None] = lambda: None) -> None:
        def read(decoder: str) -> Video:
            return read_video(
                order.path,
                decoder=decoder,
                keep_damaged=order.keep_damaged,
                frames_fps=order.frames_fps,
            )

        video = read(order.decoder)
        self.duration_s = video.duration_s
        self._views = {name: ViewRows(view, video, further) for name, view in order.views.items()}
        numbers = np.unique(np.concatenate([rows.numbers.ravel() for rows in self._views.values()]))
        self.frames = Frames(video, read, numbers, max_bytes=order.max_bytes, further=further)

    @property
    def spans_s(self) -> dict[str, npt.NDArray[np.float64]]:
        return {name: rows.spans for name, rows in self._views.items()}

    def cut(self, want: Want) -> PixelArray:
        """The rows that are to be cut out, or the first of them: those whose frames stay, and are not damaged.

        Raises:
            VideoError: a frame of the first row is damaged.
        """
        view = self._views[want.stream]
        crops = view.view.sampling.crops
        self.frames.most_ahead = max(self.frames.most_ahead, want.limit)
        kept: dict[int, Sequence[Frame]] = {}
        clips: dict[int, list[PixelArray]] = {}  # the last one
        pixels: list[PixelArray] = []

        def wanted() -> IntArray:
            return np.unique(view.numbers[want.rows // crops])

        for row in want.rows[: want.limit].tolist():
            clip = row // crops
            if clip not in clips:
                numbers = view.numbers[clip].tolist()
                if not pixels:
                    first = numbers[0]
                elif not self.frames.stay(first, numbers[-1]):
                    break
                kept = {number: part for number, part in kept.items() if number >= numbers[0]}
                try:
                    for number in sorted(set(numbers) - kept.keys()):
                        kept[number] = pictures_of(self.frames.get(number, wanted), view.view)
                except VideoError:
                    if pixels:
                        break  # who wants this row next is told
                    raise
                clips = {clip: rows_of([kept[number] for number in numbers], view.view, view.further)}
            pixels.append(clips[clip][row % crops])
        return np.stack(pixels)


def serve(pipe: Connection) -> None:
    """What the process runs: one video after another, until the other end is closed. None says: still at work."""
    alive_s = float("-inf")

    def alive() -> None:
        nonlocal alive_s
        if time.monotonic() - alive_s > _ALIVE_S:
            pipe.send(None)
            alive_s = time.monotonic()

    counted_s = time.process_time()

    def cpu_s() -> float:
        nonlocal counted_s
        before_s, counted_s = counted_s, time.process_time()
        return counted_s - before_s

    video: RawVideo | None = None
    with contextlib.suppress(EOFError, OSError):
        alive()
        while True:
            while video is not None and not pipe.poll() and video.frames.decode_ahead():
                pass
            order: Open | Want = pipe.recv()
            try:
                if isinstance(order, Open):
                    video = None  # its frames, before the next one's
                    video = RawVideo(order, alive)
                    pipe.send(Opened(video.duration_s, video.spans_s, cpu_s()))
                else:
                    assert video is not None
                    pixels = video.cut(order)
                    frames = video.frames
                    pipe.send(Pixels(pixels, frames.decoded, frames.held, _line(frames.damage), cpu_s()))
            except VideoError as error:
                pipe.send(Failed(_line(error), cpu_s()))
            except MemoryError:
                pipe.send(Failed("not enough memory to decode it", cpu_s()))
            except OSError:
                raise
            except Exception as error:
                # Ours, not the video's: the run goes on, but the traceback must not be lost.
                traceback.print_exc()
                pipe.send(Failed(f"unexpected {type(error).__name__}: {_line(error)}", cpu_s()))


def _line(reason: Exception | str) -> str:
    return " ".join(str(reason).split())
