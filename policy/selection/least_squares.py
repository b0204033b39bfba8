"""Linear classifiers by least squares, from sums that can be taken of any part of the data; and calibration.

Least squares rather than logistic regression, because heads for K folds, several strengths of the penalty and
thousands of classes then cost one pass over the features and some linear systems, without a tolerance to choose.
Where features are few (tens) logistic regression is better by some points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

FloatArray = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

_PART = 4096


@dataclass(frozen=True)
class Moments:
    """Sums over n examples of features x (D) and targets y (C): of x, y, x xᵀ and x yᵀ."""

    count: int
    x: FloatArray
    y: FloatArray
    xx: FloatArray
    xy: FloatArray

    @staticmethod
    def of(features: Floats, targets: npt.NDArray[np.bool_]) -> Moments:
        """From (n, D) and (n, C); the features should be about 1 in size, for products are in float32."""
        total = Moments.none(features.shape[1], targets.shape[1])
        for start in range(0, len(features), _PART):
            x, y = features[start : start + _PART], targets[start : start + _PART].astype(np.float32)
            total += Moments(
                len(x),
                x.sum(axis=0, dtype=np.float64),
                y.sum(axis=0, dtype=np.float64),
                (x.T @ x).astype(np.float64),
                (x.T @ y).astype(np.float64),
            )
        return total

    @staticmethod
    def none(features: int, targets: int) -> Moments:
        """Of no example."""
        return Moments(
            0,
            np.zeros(features),
            np.zeros(targets),
            np.zeros((features, features)),
            np.zeros((features, targets)),
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.x + other.x,
            self.y + other.y,
            self.xx + other.xx,
            self.xy + other.xy,
        )

    def __sub__(self, other: Moments) -> Moments:
        return Moments(
            self.count - other.count,
            self.x - other.x,
            self.y - other.y,
            self.xx - other.xx,
            self.xy - other.xy,
        )


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


def ridge_regression(moments: Moments, ridge: float) -> Linear:
    """The W and b of least mean ‖Wᵀx + b − y‖² + ridge · ‖W‖²."""
    n = moments.count
    x, y = moments.x / n, moments.y / n
    covariance = moments.xx / n - np.outer(x, x)
    covariance[np.diag_indices_from(covariance)] += ridge
    weights = solve(covariance, moments.xy / n - np.outer(x, y), assume_a="pos", overwrite_a=True)
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
    def fit(scores: Floats, targets: npt.NDArray[np.bool_], multi_label: bool) -> Calibration:
        """Of least cross-entropy on (n, C) scores; targets (n, C), one in each row without `multi_label`."""
        s, y = scores.astype(np.float64), targets
        if multi_label:
            rare = np.clip(y.mean(), 1e-6, 1 - 1e-6)
            start = [np.log(5.0), np.log(rare / (1 - rare))]
            found = minimize(_binary_loss, start, (s, y), jac=True, method="L-BFGS-B", bounds=_BOUNDS)
        else:
            found = minimize(_loss, [np.log(5.0)], (s, y), jac=True, method="L-BFGS-B", bounds=_BOUNDS[:1])
        shift = float(found.x[1]) if multi_label else 0.0
        return Calibration(float(np.exp(found.x[0])), shift, multi_label)

    def __call__(self, scores: Floats) -> Floats:
        """(M, C) -> (M, C)."""
        logits = np.float32(self.slope) * scores + np.float32(self.shift)
        return np.asarray(expit(logits) if self.multi_label else softmax(logits, axis=1), np.float32)


_BOUNDS = ((np.log(0.1), np.log(1000.0)), (-30.0, 30.0))
"""Of log(slope) and shift: scores that tell all apart, or nothing, have no best one."""


def _loss(at: FloatArray, scores: FloatArray, targets: npt.NDArray[np.bool_]) -> tuple[float, FloatArray]:
    slope = np.exp(at[0])
    logs = log_softmax(slope * scores, axis=1)
    by_slope = ((np.exp(logs) - targets) * scores).sum() / len(scores)
    return float(-logs[targets].sum() / len(scores)), np.array([by_slope * slope])


def _binary_loss(
    at: FloatArray, scores: FloatArray, targets: npt.NDArray[np.bool_]
) -> tuple[float, FloatArray]:
    slope = np.exp(at[0])
    logits = slope * scores + at[1]
    excess = expit(logits) - targets
    loss = float((np.logaddexp(0, logits) - targets * logits).mean())
    return loss, np.array([(excess * scores).mean() * slope, excess.mean()])
