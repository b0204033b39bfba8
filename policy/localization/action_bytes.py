"""ActionBytes: a video cut where its features change abruptly, and proposals that begin and end there.

"Conditional Model Selection" (Sec. 5.1) improves its proposals "by ActionBytes post-processing" and says no more;
ActionBytes (Jain et al., CVPR 2020) has no public code. **This is our reading**, of what is known: a byte lies
between abrupt changes of neighbouring clips' features, and bytes are proposals, alone and merged. What we chose:

- a change is the distance between neighbouring rows of length one, and abrupt where it is a local maximum and an
  outlier among the changes of its video (:func:`neighbour_changes`, :func:`change_boundaries`);
- bytes alone and merged are the proposals that a method makes of activations averaged in each byte
  (:func:`byte_means`): neighbours above a threshold merge, and how many do is not set beforehand;
- the method's usual proposals stay, each end moved to a boundary that is near (:func:`to_boundaries`), so that a
  video without abrupt changes keeps what it had;
- soft-NMS decides between the two (:func:`action_byte_proposals`).

`python -m benchmarks.localization_proposals` measures what each of these adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from policy.evaluation.detection import Detections, FloatArray, IntArray
from policy.localization.proposals import INFLATION, clip_edges, joined
from policy.localization.suppression import soft_nms

OUTLIER = 3.0
"""Robust standard deviations above the median from which a change is abrupt: Hampel's usual rule for outliers.

Median and deviation are of the video's ordinary changes as long as fewer than half are abrupt. Of changes that are
all alike about one in a thousand is taken for abrupt; a quantile would find as many in every video.
"""
_MAD_OF_A_NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

Propose = Callable[[Sequence[FloatArray], Sequence[FloatArray], FloatArray], Detections]
"""A way to make proposals: of activations, spans and class scores, as `policy.localization.proposals` has them."""


def neighbour_changes(features: FloatArray) -> FloatArray:
    """(T − 1,), in [0, 2]: the distance from each row to the next, both of length one; of none where T is 0.

    Args:
        features: (T, D) rows of one video.
    """
    rows = np.asarray(features, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    steps = np.diff(rows / np.where(lengths > 0, lengths, 1.0), axis=0)
    return np.asarray(np.linalg.norm(steps, axis=1))


def change_boundaries(features: FloatArray) -> IntArray:
    """(B,): the clips that begin a byte, rising, without the first; none where nothing changes abruptly.

    Args:
        features: (T, D) rows of one video, of whichever stream is at hand for every clip.
    """
    changes = neighbour_changes(features)
    if not len(changes):
        return np.zeros(0, np.int64)
    median = np.median(changes)
    deviation = _MAD_OF_A_NORMAL * np.median(np.abs(changes - median))
    before, after = np.pad(changes, (1, 0))[:-1], np.pad(changes, (0, 1))[1:]
    abrupt = (changes > median + OUTLIER * deviation) & (changes >= before) & (changes >= after)
    return np.flatnonzero(abrupt) + 1


def byte_means(activations: FloatArray, boundaries: IntArray) -> FloatArray:
    """(T, C): each clip's activations replaced by the mean over its byte.

    Args:
        activations: (T, C) logits of one video; T at least 1.
        boundaries: (B,), of `change_boundaries`.
    """
    starts = np.concatenate([[0], boundaries])
    clips = np.diff(starts, append=len(activations))
    means = np.add.reduceat(activations, starts, axis=0, dtype=np.float64) / clips[:, None]
    return np.repeat(means, clips, axis=0)


def to_boundaries(
    detections: Detections, spans: Sequence[FloatArray], boundaries: Sequence[IntArray]
) -> Detections:
    """Each end of each detection moved to the nearest boundary within a quarter of the detection's length.

    That is as far as what lies around a proposal reaches (`INFLATION`); whichever way both ends move, old and new
    have an IoU of at least 1/2, so that they stand for the same action. Ends that no boundary is near stay.

    Args:
        spans: (T, 2) seconds of each video's clips.
        boundaries: (B,) of each video.
    """
    moved = detections.spans.copy()
    for video, (seconds, first_clips) in enumerate(zip(spans, boundaries, strict=True)):
        mine = np.flatnonzero(detections.videos == video)
        if len(mine) and len(first_clips):
            moved[mine] = _to_nearest(detections.spans[mine], clip_edges(seconds)[first_clips])
    return Detections(detections.videos, detections.classes, moved, detections.scores)


def action_byte_proposals(
    propose: Propose,
    activations: Sequence[FloatArray],
    spans: Sequence[FloatArray],
    scores: FloatArray,
    features: Iterable[FloatArray],
) -> Detections:
    """A method's proposals with ActionBytes post-processing; soft-NMS drops those with scores at or below zero.

    Args:
        propose: `wtalc_proposals`, or `contrast_candidates`: soft-NMS follows once, here.
        activations, spans, scores: as `propose` takes them.
        features: (T, D) rows of each video, of the clips that the activations are of.
    """
    boundaries = [change_boundaries(rows) for rows in features]
    averaged = [
        byte_means(logits, starts) if len(logits) else logits
        for logits, starts in zip(activations, boundaries, strict=True)
    ]
    of_bytes = propose(averaged, spans, scores)
    usual = to_boundaries(propose(activations, spans, scores), spans, boundaries)
    return soft_nms(joined([of_bytes, usual]))


def _to_nearest(ends: FloatArray, boundaries: FloatArray) -> FloatArray:
    """(R, 2) starts and ends, each at the nearest of (B,) rising boundaries, at least one, if that is near."""
    after = np.searchsorted(boundaries, ends)
    previous = boundaries[np.maximum(after - 1, 0)]
    following = boundaries[np.minimum(after, len(boundaries) - 1)]
    nearest = np.where(np.abs(previous - ends) <= np.abs(following - ends), previous, following)
    reach = INFLATION * (ends[:, 1:] - ends[:, :1])
    return np.where(np.abs(nearest - ends) <= reach, nearest, ends)
