"""Metrics of class scores, and bootstrap intervals of them. Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]


def average_precision(scores: FloatArray, positive: BoolArray) -> float:
    """Area under the uninterpolated precision-recall curve of one class (scikit-learn's average precision).

    The mean over the positives of the precision among all that score at least as high: of equal scores all or none
    are retrieved.

    Args:
        scores: (M,), higher is more likely.
        positive: (M,), at least one of them true.

    Returns:
        In [0, 1].

    Raises:
        ValueError: no positive, or scores that are not finite.
    """
    # Not scikit-learn's average_precision_score, with which the tests compare this: for 31,000 videos and HVU's
    # 3,142 classes that takes 25 s of a core, against 4 s. With average="macro" and columns selected by a mask,
    # which NumPy lays out column by column, it copies all of them for each: 2.3 s for 160 classes, 16.7 s for
    # 480.
    ranked = np.sort(scores)
    if not np.isfinite(ranked[[0, -1]]).all():  # only the ends, as NaN is sorted last
        raise ValueError("scores are not finite")
    if not positive.any():
        raise ValueError("no positive")
    hits = np.sort(scores[positive])
    true_positives = len(hits) - np.searchsorted(hits, hits)
    retrieved = len(ranked) - np.searchsorted(ranked, hits)
    return float((true_positives / retrieved).mean())


def mean_average_precision(scores: FloatArray, labels: BoolArray) -> float:
    """mAP: average precision of each class against the others, averaged over the classes that have a positive.

    It is the metric of ActivityNet and FCVID in the LiteEval paper, Sec. 4.1.

    Args:
        scores: (M, C), higher is more likely; comparable within a class.
        labels: (M, C), whether video m has class c.

    Returns:
        In [0, 1].

    Raises:
        ValueError: shapes differ, no class has a positive, or scores of one that has are not finite.
    """
    _check(scores, labels)
    present = np.flatnonzero(labels.any(axis=0))
    if not len(present):
        raise ValueError("no video has a class")
    return float(np.mean([average_precision(scores[:, c], labels[:, c]) for c in present]))


def top1(scores: FloatArray, labels: BoolArray) -> float:
    """Share of the videos whose best-scored class is one of theirs (with several classes: hit@1).

    Args and raises as `mean_average_precision`; of equal scores the first class counts.
    """
    _check(scores, labels)
    return float(labels[np.arange(len(scores)), scores.argmax(axis=1)].mean())


@dataclass(frozen=True)
class Interval:
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float


def resampled_weights(
    videos: int, resamples: int, seed: int, groups: Sequence[str] = ()
) -> npt.NDArray[np.float32]:
    """(M, B): how often each of M videos is in each of B bootstrap samples of M, drawn with replacement.

    Of videos that belong together a sample has all, or none: as many groups are drawn as there are (the cluster
    bootstrap: Davison and Hinkley, 1997, Sec. 3.8). A sample then has more videos than there are, or fewer.

    The functions below take samples as weights, because then scores need not be sorted again for every sample.
    `scipy.stats.bootstrap` passes the observations themselves to its statistic instead (and refuses a single one):
    for mAP that is a sort per class and sample, a hundred times slower.

    Args:
        groups: M, equal for videos that belong together; empty where each is on its own.
    """
    group = np.unique(groups, return_inverse=True)[1] if len(groups) else np.arange(videos)
    drawn = int(group.max()) + 1
    counts = np.random.default_rng(seed).multinomial(drawn, np.full(drawn, 1 / drawn), size=resamples)
    return np.ascontiguousarray(counts.T[group], np.float32)


def weighted_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """(B,): means of values (M,) under each column of weights (M, B)."""
    return np.asarray(values @ weights.astype(np.float64) / weights.sum(axis=0, dtype=np.float64))


def weighted_average_precision(scores: FloatArray, positive: BoolArray, weights: FloatArray) -> FloatArray:
    """scikit-learn's average precision of one class under many sets of sample weights at once.

    Sum over the distinct scores of positives of (their weight · precision among all that score at least as
    much), divided by the weight of all positives. One sort serves all the sets.

    Args:
        scores: (M,).
        positive: (M,), at least one of them true.
        weights: (M, B), not negative. Sums are taken in their type: float32 is exact for counts below 2²⁴.

    Returns:
        (B,), NaN where no positive has weight.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    hits = np.flatnonzero(positive[order])
    # Of equal scores all or none are retrieved: a group of positives per distinct score.
    groups = [0, *np.flatnonzero(np.diff(ranked[hits])) + 1, len(hits)]
    ends = [0, *np.searchsorted(-ranked, -ranked[hits[groups[:-1]]], side="right")]
    # Slice by slice: np.add.reduceat does the same several times slower along this axis.
    positives = np.stack([weights[order[hits[a:b]]].sum(axis=0) for a, b in pairwise(groups)])
    true_positives = positives.cumsum(axis=0)
    retrieved = np.stack([weights[order[a:b]].sum(axis=0) for a, b in pairwise(ends)]).cumsum(axis=0)
    precision = np.divide(true_positives, retrieved, out=np.zeros_like(positives), where=retrieved > 0)
    total = true_positives[-1]
    area = (positives * precision).sum(axis=0)
    return np.asarray(np.divide(area, total, out=np.full_like(total, np.nan), where=total > 0))


def weighted_mean_average_precision(scores: FloatArray, labels: BoolArray, weights: FloatArray) -> FloatArray:
    """`mean_average_precision` under each column of weights (M, B): (B,).

    A class without a positive of positive weight is left out; NaN if there is no other.
    5,000 videos, 200 classes and 1,000 samples take about 2 s of a core.

    Raises:
        ValueError: the shapes of scores and labels differ.
    """
    _check(scores, labels)
    total = np.zeros(weights.shape[1])
    classes = np.zeros(weights.shape[1])
    for c in np.flatnonzero(labels.any(axis=0)):
        precision = weighted_average_precision(scores[:, c], labels[:, c], weights)
        total += np.nan_to_num(precision)
        classes += ~np.isnan(precision)
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)


def percentile_interval(value: float, resampled: FloatArray, confidence: float = 0.95) -> Interval:
    """The percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    Args:
        value: of the videos as they are.
        resampled: (B,), of the bootstrap samples; those where it is not defined (NaN) are left out.
        confidence: the share of the samples between the ends.
    """
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _check(scores: FloatArray, labels: BoolArray) -> None:
    if scores.shape != labels.shape or scores.ndim != 2 or not len(scores):
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} are not two equal (M, C) arrays")
