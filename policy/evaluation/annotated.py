"""The annotated segments of videos, as detections are compared with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy.data.batches import Segments
from policy.evaluation.detection import GroundTruth


def ground_truth_of(segments: Sequence[Segments]) -> GroundTruth:
    """Those of M videos, in the order of the videos and of the annotations; a video is named by its position."""
    of_videos = np.arange(len(segments))
    none = Segments(np.zeros(0, np.int64), np.zeros((0, 2)))  # of no videos there is nothing to concatenate
    every = [none, *segments]
    return GroundTruth(
        videos=np.repeat(of_videos, [len(one) for one in segments]),
        classes=np.concatenate([one.classes for one in every]),
        spans=np.concatenate([one.spans for one in every]),
        ambiguous_videos=np.repeat(of_videos, [len(one.ambiguous) for one in segments]),
        ambiguous_spans=np.concatenate([one.ambiguous for one in every]),
    )
