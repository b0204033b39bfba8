"""Segments that a method found in videos, those that are there, and how well the two agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Detections:
    """D segments that were found in M videos, in any order.

    Attributes:
        videos: (D,) int64, position of the video among the M.
        classes: (D,) int64 class index.
        spans: (D, 2) float64, start and end in seconds.
        scores: (D,) float64; higher is surer.
    """

    videos: IntArray
    classes: IntArray
    spans: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.videos)


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """S annotated segments of M videos, in the order of the annotations.

    Attributes:
        videos: (S,) int64, position of the video among the M.
        classes: (S,) int64 class index.
        spans: (S, 2) float64, start and end in seconds.
        ambiguous_videos: (A,) int64, the same of A spans in which nothing can be judged, of no class.
        ambiguous_spans: (A, 2) float64, seconds.
    """

    videos: IntArray
    classes: IntArray
    spans: FloatArray
    ambiguous_videos: IntArray
    ambiguous_spans: FloatArray
