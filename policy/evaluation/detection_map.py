"""Detection mAP of what `policy.evaluation.detection` has matched, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from policy.evaluation.detection import Detections, FloatArray, GroundTruth, Matching, match
from policy.evaluation.metrics import Interval, percentile_interval

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


def video_average_precision(
    detections: Detections, truth: GroundTruth, num_videos: int, thresholds: Sequence[float]
) -> FloatArray:
    """(M,): how well the detections of each video find its segments, in [0, 1]; NaN where it has none.

    Average precision by the rules of the THUMOS'14 kit of 2015, averaged over the thresholds of IoU, of one
    ranking of all detections in a video, whatever their class. A detection is correct where it is paired with a
    segment of its class, so that detections of what a video does not show lower its value. The mean over the
    classes of a video, as mAP has it, would not know of them.

    Args:
        num_videos: M.
        thresholds: of IoU, above 0.
    """
    num_classes = 1 + max(detections.classes.max(initial=0), truth.classes.max(initial=0))
    # Pairs are formed within a video and class, rankings within a class: a video takes the place of a class.
    every_class = np.arange(num_classes)
    matching = match(
        Detections(
            detections.videos * num_classes + detections.classes,
            detections.videos,
            detections.spans,
            detections.scores,
        ),
        GroundTruth(
            truth.videos * num_classes + truth.classes,
            truth.videos,
            truth.spans,
            (truth.ambiguous_videos[:, None] * num_classes + every_class).ravel(),
            truth.ambiguous_spans.repeat(num_classes, axis=0),
        ),
        thresholds,
        "thumos14",
    )
    return np.asarray(average_precision(matching, num_videos).mean(axis=1))


def bootstrap_interval(value: float, resampled: FloatArray) -> Interval:
    """The percentile interval of a mAP, moved so that the mean of the samples is the value.

    Average precision is higher where videos are repeated, because correct detections are retrieved together with
    their copies. With few segments per class (ActivityNet has 38) this is more than the interval is wide, and the
    value itself would lie outside.

    Args:
        value: of the videos as they are.
        resampled: (B,), of the bootstrap samples; NaN where it is not defined.
    """
    return percentile_interval(value, resampled + (value - np.nanmean(resampled)))


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
    precision = np.full((num_classes, matching.correct.shape[1], weights.shape[1]), np.nan)
    for c in np.unique(matching.truth_classes):
        positives = weights[matching.truth_videos[matching.truth_classes == c]].sum(axis=0)
        area = _areas(matching, slice(*np.searchsorted(matching.classes, [c, c + 1])), weights)
        np.divide(area, positives, out=precision[c], where=positives > 0)
    return precision


def _areas(matching: Matching, rows: slice, weights: Weights) -> FloatArray:
    """(I, B): the sum of weight times precision over the correct detections of a class."""
    videos, correct, clear = matching.videos[rows], matching.correct[rows], matching.clear[rows]
    hits = np.flatnonzero(correct.any(axis=1))
    # How much weight is clear, correct or not, from one hit to the next. The product is sparse: a dense one is far
    # slower where other programs use the same cores, because the threads of BLAS wait for each other.
    nearest = np.searchsorted(hits, np.flatnonzero(clear))
    is_counted = nearest < len(hits)
    between = csr_array(
        (np.ones(is_counted.sum(), weights.dtype), (nearest[is_counted], videos[clear][is_counted])),
        shape=(len(hits), len(weights)),
    )
    clear_so_far = (between @ weights).cumsum(axis=0)
    areas = np.zeros((correct.shape[1], weights.shape[1]))
    for area, is_correct in zip(areas, correct[hits].T, strict=True):
        found = weights[videos[hits[is_correct]]]
        others = found * ~clear[hits[is_correct], None]
        retrieved = clear_so_far[is_correct] + others.cumsum(axis=0)
        precision = found.cumsum(axis=0)
        np.divide(precision, retrieved, out=precision, where=retrieved > 0)
        if matching.interpolated:
            precision = np.maximum.accumulate(precision[::-1])[::-1]
        area[:] = (found * precision).sum(axis=0)
    return areas
