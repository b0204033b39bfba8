"""Operating points: the predictions of one trained policy at each of several budgets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policy.evaluation.predictions import Predictions


@dataclass(frozen=True)
class OperatingPoint:
    """One budget.

    Attributes:
        value: what sets the budget: K, the share of the video, a gate threshold, a usage, a price.
        predictions: of all videos at this budget.
    """

    value: float
    predictions: Predictions


@dataclass(frozen=True)
class Curve:
    """The same videos at several budgets.

    Attributes:
        name: of the method or control.
        points: in the order of the requested budgets.
    """

    name: str
    points: tuple[OperatingPoint, ...]

    @property
    def gflops(self) -> npt.NDArray[np.float64]:
        """(P,): mean over videos and draws, per point."""
        return np.array([point.predictions.gflops.mean() for point in self.points])

    @property
    def top1(self) -> npt.NDArray[np.float64]:
        """(P,), in [0, 1]."""
        return np.array([point.predictions.top1() for point in self.points])

    @property
    def mean_average_precision(self) -> npt.NDArray[np.float64]:
        """(P,), in [0, 1]."""
        return np.array([point.predictions.mean_average_precision() for point in self.points])
