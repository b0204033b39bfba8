"""What every decoder gives: a video whose frames can be asked for by number, and numbers by instant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from extract.decode_packets import Findings
from extract.sampling import frames_on_screen


class Video(ABC):
    """A video that has been opened and of which no frame has been decoded. Made by `extract.decode.read_video`.

    frame_starts_s: (F,) float64, not decreasing, seconds after the first frame shown; F >= 1.
    duration_s: seconds from the first frame shown to the end of the last.
    tolerance_s: how far a start may have been rounded.
    fps: average frames per second of the video itself.
    decoder: "decord", "pyav", or "images" for a folder of frames: what decodes it.
    remarks: what is odd about it and harmless, a line each; complete once `frames` has ended.
    damage: where damaged videos are kept, why rows may be missing; complete once `frames` has ended.
    """

    decoder: str

    def __init__(
        self,
        frame_starts_s: NDArray[np.float64],
        *,
        duration_s: float,
        tolerance_s: float = 1e-6,
        findings: Findings,
    ) -> None:
        self.frame_starts_s = frame_starts_s
        self.duration_s = duration_s
        self.tolerance_s = tolerance_s
        self.fps = len(frame_starts_s) / duration_s
        self._findings = findings

    @property
    def remarks(self) -> list[str]:
        return self._findings.remarks

    @property
    def damage(self) -> str | None:
        return self._findings.damage

    def numbers_at(self, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """The number of the frame on screen at each instant (seconds after the first frame shown), any shape.

        Before the first frame it is the first, after the end the last.
        """
        numbers = frames_on_screen(
            frame_starts_s=self.frame_starts_s, times_s=times_s.reshape(-1), tolerance_s=self.tolerance_s
        )
        return numbers.reshape(times_s.shape)

    @abstractmethod
    def frames(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8] | None]:
        """Yield the frames with these numbers (strictly increasing): uint8 RGB, upright, (H, W, 3).

        Each has its own size, where that changes. Where damaged videos are kept, None stands for a frame that
        cannot be decoded right.

        Raises VideoError where the video turns out to be damaged: only when the iterator ends without one is
        the video whole, so frames already given must then be dropped.
        """
