"""Operating points: what a trained policy is to spend, and the predictions of one at each of several budgets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cache_schema import UserError
from policy.evaluation.predictions import Predictions

TargetKind = Literal["usage", "threshold", "budget"]


@dataclass(frozen=True)
class OperatingTarget:
    """The operating point that a trained policy is to be moved to (`Method.move_to`).

    Attributes:
        kind: usage: the share of rows, or of clips, on which the expensive backbone runs; budget: mean GFLOPs, all
            included, per video, or of a method that localizes per clip; threshold: what decides, directly: a
            threshold or a price.
        value: of it.

    Raises:
        UserError: the value is impossible for any policy.
    """

    kind: TargetKind
    value: float

    def __post_init__(self) -> None:
        limits = {
            "usage": (0 <= self.value <= 1, "must be between 0 and 1"),
            "budget": (self.value > 0, "must be positive"),
            "threshold": (True, ""),
        }
        holds, text = limits[self.kind]
        if not math.isfinite(self.value) or not holds:
            raise UserError(f"{self} is impossible: it {text or 'must be finite'}")

    def __str__(self) -> str:
        return f"--{self.kind} {self.value:g}"


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
