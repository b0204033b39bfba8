"""Detection mAP of what `policy.evaluation.detection` has matched, and how sure it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from policy.evaluation.detection import BoolArray, FloatArray, IntArray, Matching

Weights = npt.NDArray[np.floating]


def average_precision(matching: Matching, num_classes: int) -> FloatArray:
    """(C, I) average precision in [0, 1] of each class at each threshold of IoU; NaN where it has no segments."""
    videos = 1 + max(matching.videos.max(initial=-1), matching.truth_videos.max(initial=-1))
    return weighted_average_precision(matching, num_classes, np.ones((videos, 1)))[:, :, 0]


def mean_over_classes(precision: FloatArray) -> FloatArray:
    """mAP: the mean of average precision (C, …) over the classes where it is not NaN: (…), NaN where all are."""
    present = ~np.isnan(precision)
    total, count = np.where(present, precision, 0).sum(axis=0), present.sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def weighted_average_precision(matching: Matching, num_classes: int, weights: Weights) -> FloatArray:
    """`average_precision` under many sets of weights of the videos at once.

    A detection of weight w counts as w equal ones, which are retrieved together, as equal scores are in
    `policy.evaluation.metrics`: each has the precision after the last of them.

    Args:
        weights: (M, B), not negative, such as `policy.evaluation.metrics.resampled_weights`. Sums are taken in
            their type: float32 is exact for counts below 2²⁴.

    Returns:
        (C, I, B), NaN where the segments of a class have no weight.
    """
    thresholds = matching.correct.shape[1]
    precision = np.full((num_classes, thresholds, weights.shape[1]), np.nan)
    for c in np.unique(matching.truth_classes):
        positives = weights[matching.truth_videos[matching.truth_classes == c]].sum(axis=0)
        rows = slice(*np.searchsorted(matching.classes, [c, c + 1]))
        for i in range(thresholds):
            ranked = matching.ranked[rows, i]
            videos, correct = matching.videos[rows][ranked], matching.correct[rows, i][ranked]
            area = _area(videos, correct, weights, interpolated=matching.interpolated)
            precision[c, i] = np.divide(area, positives, out=precision[c, i], where=positives > 0)
    return precision


def _area(videos: IntArray, correct: BoolArray, weights: Weights, *, interpolated: bool) -> FloatArray:
    """(B,): the sum over the correct ones of a ranking (n,) of their weight times the precision there."""
    hits = np.flatnonzero(correct)
    # How many of each video lie between a hit and the one before it. All after the last hit do not matter.
    rows = np.searchsorted(hits, np.arange(len(videos)))
    present, columns = np.unique(videos, return_inverse=True)
    shape = len(hits) + 1, len(present)
    counts = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)[:-1]
    retrieved = (counts.astype(weights.dtype) @ weights[present]).cumsum(axis=0)
    found = weights[videos[hits]]
    precision = np.divide(found.cumsum(axis=0), retrieved, out=np.zeros_like(retrieved), where=retrieved > 0)
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return np.asarray((found * precision).sum(axis=0), np.float64)
