"""How good class scores are, row by row and averaged over each video. Tensors in, numbers out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional as F

BoolArray = npt.NDArray[np.bool_]


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each row, (B,), of logits (B, C).

    Targets (B,) int64 are classes: cross-entropy. Targets (B, C) of 0 and 1: binary cross-entropy, summed over the
    classes, so that the gradient of a logit is p − y for both, whatever C is (as in `policy.training.losses`).
    """
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)


def video_means(values: Tensor, owners: Tensor, videos: int) -> Tensor:
    """Means over the rows of each video: values (N, …), owners (N,) the video of each row, to (videos, …)."""
    sums = torch.zeros(videos, *values.shape[1:], dtype=torch.float64)
    sums.index_add_(0, owners, values.double())
    counts = torch.bincount(owners, minlength=videos).double()
    return sums / counts.view(-1, *(1,) * (values.ndim - 1))


def accuracy(logits: Tensor, labels: BoolArray, *, multi_label: bool) -> float:
    """mAP of several classes each, else top-1, in [0, 1]. logits or probabilities (M, C); labels (M, C)."""
    scores = logits.numpy()
    if not multi_label:
        return float(labels[np.arange(len(scores)), scores.argmax(axis=1)].mean())
    # Classes without a video that shows them have no average precision.
    shown = labels.any(axis=0)
    # Columns that a mask has chosen lie one after another in memory, and scikit-learn copies all of them for each.
    targets, ranked = (np.ascontiguousarray(each[:, shown]) for each in (labels, scores))
    return float(average_precision_score(targets, ranked, average="macro"))
