"""The annotated segments of videos, as detections are compared with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cache_schema.errors import LabelError
from policy.data.batches import Segments, VideoSet
from policy.evaluation.detection import GroundTruth


def ground_truth(videos: VideoSet) -> GroundTruth:
    """The segments and ambiguous spans of a set of M videos, in the order of its ids and of the annotations.

    Raises:
        LabelError: none of them has a segment, so that nothing could be judged.
    """
    if not any(map(len, videos.segments)):
        raise LabelError(
            f"subset {videos.subset!r}: its labels say which classes its videos show, but not when, by which "
            "localization is judged; choose annotations with segments (docs/labels.md)"
        )
    return ground_truth_of(videos.segments)


def ground_truth_of(segments: Sequence[Segments]) -> GroundTruth:
    """The same of M videos whose segments are given, by their position."""
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
