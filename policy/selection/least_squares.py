"""Linear classifiers by least squares, from sums that can be taken of any part of the data.

Least squares rather than logistic regression, because heads for K folds, several strengths of the penalty and
thousands of classes then cost one pass over the features and some linear systems, without a tolerance to choose.
Where features are few (tens) logistic regression is better by some points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve

from policy.selection.pool import BoolArray, FloatArray, Floats

_PART = 4096


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
