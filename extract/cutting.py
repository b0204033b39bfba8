"""The rows of several views, cut out of one pass over a video's frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from extract.decode import Video
from extract.flow import BOUND_PX, clip_flow
from extract.sampling import clip_times
from extract.transform import UInt8Array, resize_and_crop, resize_short_side
from extract.views import PixelArray, View

CHUNK_BYTES = 1 << 20


class Chunk(NamedTuple):
    """Rows first_row, first_row + 1, … of one view, those that are lost not counted: pixels (n, *row_shape)."""

    view: int
    first_row: int
    pixels: PixelArray


class Cutter:
    """Cuts a video into the rows of several views, decoding every frame that any of them needs once.

    spans: for each view (N, 2) float64, the first and last instant that each row sees, in seconds.
    frames: how many frames will be decoded; `decoded` of them have been.
    lost: for each view, the numbers of the rows that cannot be given, because a frame that they show does not
        decode right; complete when `chunks` has ended.
    further: called for every frame, and for every pair of frames between which flow was computed.
    most: of more clips, or frames, than this, only the middles of as many equal parts of a video are rows; 0: all.
    """

    def __init__(
        self,
        video: Video,
        views: Sequence[View],
        further: Callable[[], None] = lambda: None,
        *,
        most: int = 0,
    ) -> None:
        self._video = video
        self._further = further
        self._cuts = [_Cut(number, view, video, further, most) for number, view in enumerate(views)]
        self._wanted = np.unique(np.concatenate([cut.numbers.ravel() for cut in self._cuts]))
        self.spans = [cut.spans for cut in self._cuts]
        self.frames, self.decoded = len(self._wanted), 0

    @property
    def lost(self) -> list[tuple[int, ...]]:
        return [tuple(cut.lost) for cut in self._cuts]

    def chunks(self, *, max_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
        """Yield the rows of each view in order, at most `max_bytes` (or one clip) at a time.

        Raises VideoError as `Video.frames` does: rows already given must then be dropped.
        """
        for number, frame in zip(self._wanted.tolist(), self._video.frames(self._wanted), strict=True):
            self.decoded += 1
            self._further()
            for cut in self._cuts:
                yield from cut.add(number, frame, max_bytes)
        for cut in self._cuts:
            yield from cut.rest()


class ViewRows:
    """Which frames of a video the rows of one view show.

    numbers: (clips, T), the frames that each clip shows, not decreasing.
    spans: (N, 2) float64, the first and last instant that each row sees, in seconds; N = clips · crops.
    further, most: as in Cutter.
    """

    def __init__(
        self, view: View, video: Video, further: Callable[[], None] = lambda: None, *, most: int = 0
    ) -> None:
        self.view, self.further = view, further
        sampling = view.sampling
        flow = view.preprocessing.flow is not None
        times_s = clip_times(sampling, duration_s=video.duration_s, flow=flow)
        if 0 < most < len(times_s):
            times_s = times_s[(2 * np.arange(most) + 1) * len(times_s) // (2 * most)]
        self.numbers: npt.NDArray[np.int64] = video.numbers_at(times_s)
        self.spans: npt.NDArray[np.float64] = np.repeat(times_s[:, [0, -1]], sampling.crops, axis=0)


class _Cut(ViewRows):
    """One view of one video while its frames pass by."""

    def __init__(self, number: int, view: View, video: Video, further: Callable[[], None], most: int) -> None:
        super().__init__(view, video, further, most=most)
        self.number = number
        self._needed = frozenset(self.numbers.ravel().tolist())
        self._kept: dict[int, Sequence[UInt8Array]] = {}  # by number, what clips that are not full yet show
        self._clip = 0
        self.lost: list[int] = []
        self._rows: list[PixelArray] = []
        self._first_row = 0

    def add(self, number: int, frame: UInt8Array | None, max_bytes: int) -> Iterator[Chunk]:
        """Take the next frame, None where it does not decode right."""
        if number not in self._needed:
            return
        if frame is not None:
            self._kept[number] = pictures_of(frame, self.view)
        while self._clip < len(self.numbers) and self.numbers[self._clip, -1] <= number:
            shown = self.numbers[self._clip].tolist()
            whole = self._kept.keys() >= set(shown)
            rows = rows_of([self._kept[each] for each in shown], self.view, self.further) if whole else []
            if not rows:
                crops = self.view.sampling.crops
                self.lost += range(self._clip * crops, (self._clip + 1) * crops)
            self._clip += 1
            self._forget()
            if rows and self._rows and (len(self._rows) + len(rows)) * rows[0].nbytes > max_bytes:
                yield self._chunk()
            self._rows += rows

    def rest(self) -> Iterator[Chunk]:
        assert self._clip == len(self.numbers)
        if self._rows:
            yield self._chunk()

    def _chunk(self) -> Chunk:
        chunk = Chunk(self.number, self._first_row, np.stack(self._rows))
        self._first_row += len(self._rows)
        self._rows = []
        return chunk

    def _forget(self) -> None:
        """Drop what no later clip shows."""
        oldest = int(self.numbers[self._clip, 0]) if self._clip < len(self.numbers) else None
        for number in list(self._kept):
            if oldest is None or number < oldest:
                del self._kept[number]


def pictures_of(frame: UInt8Array, view: View) -> Sequence[UInt8Array]:
    """What clips keep of a frame (H, W, 3): one picture for each crop, or for flow the frame itself, smaller."""
    preprocessing, crops = view.preprocessing, view.sampling.crops
    if view.flow_here:
        return [resize_short_side(frame, preprocessing)]
    if preprocessing.flow is not None:
        preprocessing = replace(preprocessing, crop=preprocessing.resize)
    return [resize_and_crop(frame, preprocessing, place) for place in ((1,) if crops == 1 else range(crops))]


def rows_of(
    shown: Sequence[Sequence[UInt8Array]], view: View, further: Callable[[], None] = lambda: None
) -> list[PixelArray]:
    """The rows (*view.row_shape) of a frame or clip, one for each crop.

    Args:
        shown: `pictures_of` each frame that it shows, in order.
        further: called for every pair of frames between which flow was computed.
    """
    if view.sampling.kind == "frames":
        return list(shown[0])
    if view.flow_here:
        return [_flow([pictures[0] for pictures in shown], view, further)]
    return [np.stack([pictures[crop] for pictures in shown]) for crop in range(view.sampling.crops)]


def _flow(frames: Sequence[UInt8Array], view: View, further: Callable[[], None]) -> PixelArray:
    crop = view.preprocessing.crop
    top, left = (round((side - crop) / 2) for side in frames[0].shape[:2])
    pairs = []
    for before, after in itertools.pairwise(frames):
        if before.shape == after.shape == frames[0].shape:
            [flow] = clip_flow((before, after), str(view.preprocessing.flow))
            flow = flow[top : top + crop, left : left + crop]
        else:  # the picture changes size: what both have in common is their centre
            centres = tuple(centre(frame, crop) for frame in (before, after))
            [flow] = clip_flow(centres, str(view.preprocessing.flow))
        further()
        pairs.append(np.clip(flow, -BOUND_PX, BOUND_PX))
    return np.stack(pairs).astype(np.float16)


def centre(frame: UInt8Array, crop: int) -> UInt8Array:
    """The square of `crop` pixels in the middle of a frame (H, W, 3)."""
    top, left = (round((side - crop) / 2) for side in frame.shape[:2])
    return np.ascontiguousarray(frame[top : top + crop, left : left + crop])
