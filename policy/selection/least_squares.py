"""Linear classifiers by least squares, from sums that can be taken of any part of the data; and calibration.

Least squares rather than logistic regression, because heads for K folds, several strengths of the penalty and
thousands of classes then cost one pass over the features and some linear systems, without a tolerance to choose.
Where features are few (tens) logistic regression is better by some points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from policy.selection.pool import BoolArray, FloatArray, Floats

_PART = 4096
_BOUNDS = ((np.log(0.1), np.log(1000.0)), (-30.0, 30.0))
"""Of log(slope) and shift: scores that tell all apart, or nothing, have no best one."""


def moments(features: Floats, targets: BoolArray) -> FloatArray:
    """(1 + D, 1 + D + C): [1, x]ᵀ [1, x, y] summed over n examples of features x (n, D) and targets y (n, C).

    The features should be about 1 in size, for products are in float32.
    """
    dim = features.shape[1]
    total = np.zeros((1 + dim, 1 + dim + targets.shape[1]))
    for start in range(0, len(features), _PART):
        x, y = features[start : start + _PART], targets[start : start + _PART].astype(np.float32)
        total[0, 0] += len(x)
        total[0, 1 : 1 + dim] += x.sum(axis=0, dtype=np.float64)
        total[0, 1 + dim :] += y.sum(axis=0, dtype=np.float64)
        total[1:, 1 : 1 + dim] += x.T @ x
        total[1:, 1 + dim :] += x.T @ y
    total[1:, 0] = total[0, 1 : 1 + dim]
    return total


@dataclass(frozen=True)
class Linear:
    """Attributes:
    weights: (D, C).
    bias: (C,).
    """

    weights: Floats
    bias: Floats

    def __call__(self, features: Floats) -> Floats:
        """(M, D) -> (M, C)."""
        return features @ self.weights + self.bias


def ridge_regression(moments: FloatArray, ridge: float) -> Linear:
    """The W and b of least mean ‖Wᵀx + b − y‖² + ridge · ‖W‖², from the `moments` of the examples."""
    dim = len(moments) - 1
    means, products = moments[0] / moments[0, 0], moments[1:] / moments[0, 0]
    x, y = means[1 : 1 + dim], means[1 + dim :]
    covariance = products[:, 1 : 1 + dim] - np.outer(x, x)
    covariance[np.diag_indices(dim)] += ridge
    weights = solve(covariance, products[:, 1 + dim :] - np.outer(x, y), assume_a="pos", overwrite_a=True)
    return Linear(weights.astype(np.float32), (y - x @ weights).astype(np.float32))


@dataclass(frozen=True)
class Calibration:
    """From the scores of least squares to probabilities: softmax(slope · s), sigmoid(slope · s + shift).

    One temperature (Guo et al., 2017) or, for multi-label, one sigmoid (Platt, 1999) for all classes.
    """

    slope: float
    shift: float
    multi_label: bool

    @staticmethod
    def fit(scores: Floats, targets: BoolArray, multi_label: bool) -> Calibration:
        """Of least cross-entropy on (n, C) scores; targets (n, C), one in each row without `multi_label`."""
        start = [np.log(5.0)]
        if multi_label:
            share = np.clip(targets.mean(), 1e-6, 1 - 1e-6)
            start.append(np.log(share / (1 - share)))
        optimum = minimize(
            _binary_loss if multi_label else _loss,
            start,
            (scores.astype(np.float64), targets),
            jac=True,
            method="L-BFGS-B",
            bounds=_BOUNDS[: len(start)],
        )
        shift = float(optimum.x[1]) if multi_label else 0.0
        return Calibration(float(np.exp(optimum.x[0])), shift, multi_label)

    def __call__(self, scores: Floats) -> Floats:
        """(M, C) -> (M, C)."""
        logits = np.float32(self.slope) * scores + np.float32(self.shift)
        return np.asarray(expit(logits) if self.multi_label else softmax(logits, axis=1), np.float32)


def _loss(at: FloatArray, scores: FloatArray, targets: BoolArray) -> tuple[float, FloatArray]:
    """Cross-entropy at log(slope), and its gradient."""
    slope = np.exp(at[0])
    logs = log_softmax(slope * scores, axis=1)
    by_slope = ((np.exp(logs) - targets) * scores).sum() / len(scores)
    return float(-logs[targets].sum() / len(scores)), np.array([by_slope * slope])


def _binary_loss(at: FloatArray, scores: FloatArray, targets: BoolArray) -> tuple[float, FloatArray]:
    """Binary cross-entropy at log(slope) and shift, and its gradient."""
    slope = np.exp(at[0])
    logits = slope * scores + at[1]
    excess = expit(logits) - targets
    loss = float((np.logaddexp(0, logits) - targets * logits).mean())
    return loss, np.array([(excess * scores).mean() * slope, excess.mean()])
