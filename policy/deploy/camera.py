"""A session that takes frames: from a camera, or from any loop that decodes a video."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from cache_schema import UserError
from policy.deploy.network import Backbones, FloatRows
from policy.deploy.session import spans_of
from policy.liteeval.session import LiteEvalSession
from policy.session import IntArray, Session

Frame = npt.NDArray[np.uint8]
Pixels = npt.NDArray[Any]

_CLOCK_S = 1e-6
"""A frame that starts this little after an instant starts at it, as in `extract.sampling.frames_on_screen`."""


class Camera:
    """Frames in, an answer at any time::

        camera = policy.open_run("runs/liteeval").camera()
        for at_s, frame in frames:
            camera.push(frame, at_s)
            print(camera.answer)
        camera.end()
        camera.begin()  # before the next video

    A row of a stream shows what was on screen at its instant, as in a cache: the last frame that had come. So a
    row is computed when the first frame after its instant comes, at the latest when the video ends. Time counts
    from the first frame. A backbone is built when the policy first wants a row of it.

    LiteEval on streams of frames takes videos of any length, and keeps one frame. All else needs to know how long
    the video will be, and keeps each frame that any stream may want of it, cut to that stream's input.

    Attributes:
        session: what the policy has taken so far, and what that cost.

    Args:
        weights, duration_s: as `TrainedPolicy.camera` takes them.
        device: of the backbones.
    """

    def __init__(
        self,
        session: Session,
        weights: Mapping[str, Path | str],
        duration_s: float | None,
        device: torch.device,
    ) -> None:
        self.session, self._duration_s = session, duration_s
        self._backbones = Backbones(session.streams, weights=weights, device=device)
        self.begin()

    def begin(self, video_id: str = "") -> None:
        """Drop the last video and begin another, whose id matters to a policy alone that decides at random."""
        self._rows = _rows(self.session, self._backbones, self._duration_s, video_id)
        self._start_s = self._last_s = -math.inf
        self._frame: Frame | None = None

    def push(self, frame: Frame, at_s: float) -> None:
        """Take the next frame. After the policy is `done` it changes nothing.

        Args:
            frame: (H, W, 3) uint8 RGB, of any size, the same throughout a video. It is copied.
            at_s: its instant in seconds, on any clock that does not go back.

        Raises:
            ValueError: the frame is of another type or shape than this, or of another size than the one before; or
                its instant is not finite, or not after that of the one before. Nothing has changed then.
            UserError: a backbone that is wanted now cannot be built, or its weights are others than the stream's.
        """
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
            kind = f"an array of {frame.dtype}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise ValueError(f"a frame is an array (H, W, 3) of uint8, not {kind}")
        if frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(f"a frame has the shape (H, W, 3), RGB, not {frame.shape}")
        if self._frame is not None and frame.shape != self._frame.shape:
            (h, w), (height, width) = frame.shape[:2], self._frame.shape[:2]
            raise ValueError(
                f"a frame of {w}×{h} pixels after frames of {width}×{height}: begin() a new video"
            )
        if not math.isfinite(at_s):
            raise ValueError(f"a frame's instant is a number of seconds, not {at_s}")
        if at_s <= self._last_s:
            raise ValueError(
                f"a frame of second {at_s:g} after that of second {self._last_s:g}: frames come in order, each "
                "at a later instant"
            )
        if self._frame is None:
            self._start_s = at_s
        else:
            self._show_until(at_s - self._start_s - _CLOCK_S)
        self._frame, self._last_s = frame.copy(), at_s
        self._show_until(math.nextafter(at_s - self._start_s, math.inf))

    def end(self, at_s: float | None = None) -> None:
        """The video is over: what is left of it shows the last frame.

        Args:
            at_s: when it ended, on the clock of the frames; by default with the last frame. It has no meaning
                where the duration was given.

        Raises:
            ValueError: no frame has come, or the instant is not finite or before the last frame.
        """
        from extract.sampling import CLOCK_TOLERANCE_S

        if self._frame is None:
            raise ValueError("no frame has come yet")
        if at_s is not None and not (math.isfinite(at_s) and at_s >= self._last_s):
            raise ValueError(f"a video cannot end at second {at_s:g}: its last frame is of {self._last_s:g}")
        if self._duration_s is not None:
            self._show_until(math.inf)
        elif at_s is not None:  # an instant this close to the end is at the end, as in a cache
            self._show_until(at_s - self._start_s - CLOCK_TOLERANCE_S)

    @property
    def done(self) -> bool:
        """Whether further frames change nothing. A policy that does not know the duration never is."""
        return math.isinf(self._rows.next_s)

    @property
    def answer(self) -> dict[str, float]:
        """The probability of each class, the most likely first, from what was computed so far."""
        return self.session.answer

    def _show_until(self, before_s: float) -> None:
        """The last frame is on screen at all instants before this that were not shown yet."""
        assert self._frame is not None
        while self._rows.next_s < before_s:
            self._rows.show(self._frame)


# --- rows ---


class _Rows(Protocol):
    """The rows of a video while its frames pass by."""

    @property
    def next_s(self) -> float:
        """The next instant of which the frame on screen is needed; infinite where there is none."""

    def show(self, frame: Frame) -> None:
        """The frame on screen at that instant."""


def _rows(session: Session, backbones: Backbones, duration_s: float | None, video_id: str) -> _Rows:
    if duration_s is not None:
        if not (math.isfinite(duration_s) and duration_s > 0):
            raise ValueError(f"duration_s is a positive number of seconds, not {duration_s}")
        return _WholeVideo(session, backbones, duration_s, video_id)
    samplings = {spec.sampling for spec in session.streams.values()}
    if not isinstance(session, LiteEvalSession) or {sampling.kind for sampling in samplings} != {"frames"}:
        raise UserError(
            "this policy looks at a whole video before it chooses: give duration_s, how long each will be"
        )
    (sampling,) = samplings
    return _FrameByFrame(session, backbones, sampling.fps, video_id)


class _FrameByFrame:
    """LiteEval on a video of unknown length."""

    def __init__(self, session: LiteEvalSession, backbones: Backbones, fps: float, video_id: str) -> None:
        self._session, self._backbones, self._fps = session, backbones, fps
        session.begin(video_id=video_id)

    @property
    def next_s(self) -> float:
        return self._session.frames / self._fps

    def show(self, frame: Frame) -> None:
        session = self._session
        if session.look(self._features(session.coarse_stream, frame)):
            session.fine(self._features(session.fine_stream, frame))

    def _features(self, stream: str, frame: Frame) -> FloatRows:
        from extract.transform import resize_and_crop

        pixels = resize_and_crop(frame, self._session.streams[stream].preprocessing)
        [(features, _)] = self._backbones(stream, [pixels[None]])
        row: FloatRows = features[0]
        return row


class _WholeVideo:
    """Any policy on a video whose duration is known."""

    def __init__(self, session: Session, backbones: Backbones, duration_s: float, video_id: str) -> None:
        from extract.sampling import clip_times
        from extract.views import View

        self._session, self._backbones = session, backbones
        self._views = {
            name: View(spec.sampling, spec.preprocessing) for name, spec in session.streams.items()
        }
        self._times_s = {
            name: clip_times(view.sampling, duration_s=duration_s, flow=view.preprocessing.flow is not None)
            for name, view in self._views.items()
        }
        self._pictures: dict[str, dict[float, Sequence[Frame]]] = {
            name: dict.fromkeys(times_s.ravel().tolist(), ()) for name, times_s in self._times_s.items()
        }
        instants_s = np.concatenate([times_s.ravel() for times_s in self._times_s.values()])
        self._instants_s, self._shown = np.unique(instants_s).tolist(), 0
        spans_s = {name: spans_of(spec, duration_s) for name, spec in session.streams.items()}
        session.begin(spans_s, video_id=video_id)

    @property
    def next_s(self) -> float:
        done = self._shown == len(self._instants_s) or self._session.wanted() is None
        return math.inf if done else self._instants_s[self._shown]

    def show(self, frame: Frame) -> None:
        from extract.cutting import pictures_of

        for name, pictures in self._pictures.items():
            if self.next_s in pictures:
                pictures[self.next_s] = pictures_of(frame, self._views[name])
        self._shown += 1
        while (wanted := self._session.wanted()) is not None:
            stream = wanted.stream
            rows = self._complete(stream, wanted.rows)[: self._backbones.batch_rows(stream)]
            if not len(rows):
                break
            [taken] = self._backbones(stream, [np.stack([self._pixels(stream, row) for row in rows])])
            self._session.take(*taken)

    def _complete(self, stream: str, rows: IntArray) -> IntArray:
        """Those of which all frames were shown."""
        last_s = self._times_s[stream][rows // self._views[stream].sampling.crops, -1]
        return np.asarray(rows[last_s <= self._instants_s[self._shown - 1]])

    def _pixels(self, stream: str, row: int) -> Pixels:
        from extract.cutting import rows_of

        clip, crop = divmod(row, self._views[stream].sampling.crops)
        shown = [self._pictures[stream][at_s] for at_s in self._times_s[stream][clip].tolist()]
        return rows_of(shown, self._views[stream])[crop]
