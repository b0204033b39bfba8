"""Soft non-maximum suppression: of detections that overlap, the worse ones lose score, and none of its place."""

from __future__ import annotations

import numpy as np

from policy.evaluation.detection import Detections, FloatArray, IntArray, shared_s

SIGMA = 0.3
"""Of the Gaussian; CO2-Net's (Hong et al., ACM MM 2021). Bodla et al. take 0.5 for boxes in pictures."""
LEAST_SCORE = 1e-3
"""What falls below is dropped; Bodla et al. and ActionFormer."""


def soft_nms(detections: Detections, *, sigma: float = SIGMA, least: float = LEAST_SCORE) -> Detections:
    """Gaussian soft-NMS within each video and class (Bodla et al., ICCV 2017).

    Again and again, the best detection that is left is kept, and every other one's score is multiplied by
    exp(−IoU² / σ) of the two. What has a score below `least`, from the start or by then, is dropped: scores at or
    below zero say nothing of how much worse one is than another.

    Detections that no overlap connects do not touch each other's scores: the best of every such cluster is taken
    at once, and there are as many steps as the largest cluster has detections.

    Returns:
        Those kept, by video, class and start.
    """
    order = np.lexsort(
        (detections.spans[:, 1], detections.spans[:, 0], detections.classes, detections.videos)
    )
    left = order[detections.scores[order] >= least]
    clusters = _clusters(detections, left)
    current = detections.scores[left]
    kept, kept_scores = [], []
    while len(left):
        firsts = np.flatnonzero(np.diff(clusters, prepend=-1))
        sizes = np.diff(firsts, append=len(left))
        is_best = current == np.repeat(np.maximum.reduceat(current, firsts), sizes)
        at_best = np.flatnonzero(is_best)
        best = at_best[np.unique(clusters[at_best], return_index=True)[1]]  # one of equal ones
        kept.append(left[best])
        kept_scores.append(current[best])
        overlap = span_iou(detections.spans[left], detections.spans[np.repeat(left[best], sizes)])
        current = current * np.exp(-(overlap**2) / sigma)
        stays = current >= least
        stays[best] = False
        left, clusters, current = left[stays], clusters[stays], current[stays]
    scores = np.zeros(len(detections))
    for chosen, of_chosen in zip(kept, kept_scores, strict=True):
        scores[chosen] = of_chosen
    order = order[scores[order] > 0]
    return Detections(
        detections.videos[order], detections.classes[order], detections.spans[order], scores[order]
    )


def span_iou(spans: FloatArray, others: FloatArray) -> FloatArray:
    """(...,): intersection over union of spans (..., 2) with others of the same shape; 0 where both are empty."""
    shared = np.maximum(shared_s(spans, others), 0.0)
    union = (spans[..., 1] - spans[..., 0]) + (others[..., 1] - others[..., 0]) - shared
    return np.asarray(shared / np.where(union > 0, union, 1.0))


def _clusters(detections: Detections, ordered: IntArray) -> IntArray:
    """(D,): a number for each cluster of overlapping detections, rising; `ordered` by video, class and start."""
    if not len(ordered):
        return np.zeros(0, np.int64)
    videos, classes = detections.videos[ordered], detections.classes[ordered]
    new_group = np.diff(videos, prepend=-1).astype(bool) | np.diff(classes, prepend=-1).astype(bool)
    starts, ends = detections.spans[ordered].T
    # Each group on a stretch of time of its own, so that one running maximum does for all of them.
    shift = np.cumsum(new_group) * (ends.max() - starts.min() + 1)
    reached = np.maximum.accumulate(ends + shift)
    apart = np.ones(len(ordered), np.bool_)
    apart[1:] = (starts + shift)[1:] >= reached[:-1]
    return np.cumsum(apart | new_group)
