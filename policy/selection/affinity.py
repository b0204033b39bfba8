"""Model affinity: which model of a pool suits a video best, weighing its loss against its cost (Eq. 1 and 2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

FloatArray = npt.NDArray[np.float64]

_VIDEOS_AT_A_TIME = 1024

LEAST = 1e-7
"""Probabilities below are taken for it, and above 1 minus it for that: what float32 tells from 0 and 1."""


def model_losses(
    probabilities: npt.NDArray[np.float32], targets: npt.NDArray[np.int64] | npt.NDArray[np.bool_]
) -> FloatArray:
    """L_cls of Eq. 2 (Sec. 3.2).

    Args:
        probabilities: (M, N, C) of N models.
        targets: (M,) class indices: cross-entropy. (M, C) bool: binary cross-entropy, the mean over the classes.

    Returns:
        (M, N), in nats.
    """
    if targets.ndim == 1:
        own = probabilities[np.arange(len(targets)), :, targets]
        return np.asarray(-np.log(own.astype(np.float64).clip(LEAST, None)))
    losses = np.empty(probabilities.shape[:2])
    for start in range(0, len(losses), _VIDEOS_AT_A_TIME):
        part = slice(start, start + _VIDEOS_AT_A_TIME)
        p = probabilities[part].astype(np.float64).clip(LEAST, 1 - LEAST)
        losses[part] = -np.where(targets[part, None], np.log(p), np.log1p(-p)).mean(axis=2)
    return losses


def normalised_costs(macs: npt.NDArray[np.float64]) -> FloatArray:
    """F of Eq. 2: (N,) mean costs of the models, divided by their sum; zeros where nothing costs anything."""
    return np.asarray(macs / (macs.sum() or 1.0))


def hard_affinity(losses: FloatArray, costs: FloatArray, alpha: float) -> FloatArray:
    """G of Eq. 2: (M, N), 1 for the model of least loss + α·F, else 0; of equal ones the first, the cheapest.

    Args:
        losses: (M, N).
        costs: (N,), F.
    """
    chosen = (losses + alpha * costs).argmin(axis=1)
    return np.asarray(np.eye(losses.shape[1])[chosen])


def soft_affinity(losses: FloatArray, costs: FloatArray, alpha: float, tau: float) -> FloatArray:
    """G for Eq. 1 as a distribution over the models: (M, N), softmax of −(loss + α·F) / τ.

    Eq. 1 leaves open where G is not binary; this becomes Eq. 2 as τ, in nats, goes to 0.
    """
    return np.asarray(softmax(-(losses + alpha * costs) / tau, axis=1))


def model_errors(correct: npt.NDArray[np.bool_]) -> FloatArray:
    """The 0-1 loss in place of L_cls (our addition): (M, N), 1 where a model's best-scored class is wrong."""
    return np.asarray(1.0 - correct, np.float64)
