"""How good class scores are. Arrays in, numbers out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]


def mean_average_precision(scores: FloatArray, labels: BoolArray) -> float:
    """mAP: average precision of each class against the others, averaged over the classes that have a positive.

    Average precision is the area under the uninterpolated precision-recall curve (scikit-learn's). It is the
    metric of ActivityNet and FCVID in the LiteEval paper, Sec. 4.1.

    Args:
        scores: (M, C), higher is more likely; comparable within a class.
        labels: (M, C), whether video m has class c.

    Returns:
        In [0, 1].

    Raises:
        ValueError: shapes differ, or no class has a positive.
    """
    _check(scores, labels)
    present = labels.any(axis=0)
    if not present.any():
        raise ValueError("no video has a class")
    return float(average_precision_score(labels[:, present], scores[:, present], average="macro"))


def top1(scores: FloatArray, labels: BoolArray) -> float:
    """Share of the videos whose best-scored class is one of theirs (with several classes: hit@1).

    Args and raises as `mean_average_precision`; of equal scores the first class counts.
    """
    _check(scores, labels)
    return float(labels[np.arange(len(scores)), scores.argmax(axis=1)].mean())


def _check(scores: FloatArray, labels: BoolArray) -> None:
    if scores.shape != labels.shape or scores.ndim != 2 or not len(scores):
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} are not two equal (M, C) arrays")
