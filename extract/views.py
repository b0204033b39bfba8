"""What a stream sees of a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache_schema import Preprocessing, Sampling

# uint8, or float16 where it is flow
PixelArray = npt.NDArray[Any]


@dataclass(frozen=True)
class View:
    """The part of a StreamSpec that a decoder must know. Streams with the same one share its pixels."""

    sampling: Sampling
    preprocessing: Preprocessing

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row's pixels.

        Frames (crop, crop, 3); clips (T, crop, crop, 3); flow computed here (T, crop, crop, 2); flow that the
        network's process computes: the T + 1 frames (T + 1, resize, resize, 3).
        """
        crop, frames = self.preprocessing.crop, self.sampling.frames
        if self.sampling.kind == "frames":
            return crop, crop, 3
        if self.flow_here:
            return frames, crop, crop, 2
        if self.preprocessing.flow is not None:
            return frames + 1, self.preprocessing.resize, self.preprocessing.resize, 3
        return frames, crop, crop, 3

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float16 if self.flow_here else np.uint8)

    @property
    def flow_here(self) -> bool:
        """Whether optical flow is computed while decoding, not by a network."""
        flow = self.preprocessing.flow
        return flow is not None and not flow.startswith("raft")
