"""Operating points: what a trained policy is to spend, and the predictions of one at each of several budgets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from cache_schema import UserError
from cache_schema.frames import table_of
from policy.evaluation.predictions import Predictions

if TYPE_CHECKING:
    import pandas as pd

TargetKind = Literal["usage", "threshold", "budget", "shared_budget"]


@dataclass(frozen=True)
class OperatingTarget:
    """The operating point that a trained policy is to be moved to (`Method.move_to`).

    Attributes:
        kind: usage: the share of rows, or of clips, on which the expensive backbone runs; budget: mean GFLOPs, all
            included, per video, or of a method that localizes per clip; threshold: what decides, directly: a
            threshold or a price; shared_budget: as budget, but each video gets what its own answers promise.
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
            "shared_budget": (self.value > 0, "must be positive"),
            "threshold": (True, ""),
        }
        holds, text = limits[self.kind]
        if not math.isfinite(self.value) or not holds:
            raise UserError(f"{self} is impossible: it {text or 'must be finite'}")

    def __str__(self) -> str:
        return f"--{self.kind.replace('_', '-')} {self.value:g}"

    @staticmethod
    def chosen(
        *,
        usage: float | None = None,
        budget: float | None = None,
        threshold: float | None = None,
        shared_budget: float | None = None,
        calibrate_subset: str | None = None,
    ) -> OperatingTarget | None:
        """The one that was given, if one was.

        Args:
            calibrate_subset: on which it is to be found.

        Raises:
            UserError: several were given; or there is nothing to find on the subset.
        """
        given: dict[TargetKind, float | None] = {
            "usage": usage,
            "budget": budget,
            "threshold": threshold,
            "shared_budget": shared_budget,
        }
        targets = [OperatingTarget(kind, value) for kind, value in given.items() if value is not None]
        if len(targets) > 1:
            raise UserError(f"give one of {' and '.join(map(str, targets))}: each sets the operating point")
        if calibrate_subset is not None and (not targets or targets[0].kind == "threshold"):
            raise UserError(
                "--calibrate-subset says on which videos --usage, --budget or --shared-budget is found: "
                "give one of them"
            )
        return targets[0] if targets else None


def whole_rows(value: float, target: OperatingTarget) -> int:
    """A number of rows. Raises UserError where it is none."""
    if value < 1 or value != int(value):
        raise UserError(f"{target}: K, the number of rows, is a whole number and at least 1")
    return int(value)


def most_rows(target: OperatingTarget, spent: npt.NDArray[np.float64]) -> float:
    """The most rows K that keep a usage or a budget.

    Args:
        spent: (K,), rising: mean usage, or GFLOPs, with 1, 2, … rows of each video.

    Raises:
        UserError: a single row is more.
    """
    within = int((spent <= target.value * (1 + 1e-9)).sum())
    if not within:
        unit = "of the rows" if target.kind == "usage" else "GFLOPs per video"
        raise UserError(
            f"{target}: the least that is possible is {spent[0]:.4g} {unit}, with one row of each video"
        )
    return float(within)


def doubled_up_to(most: int) -> list[int]:
    """1, 2, 4, … below a number, and the number: budgets of so many rows."""
    return [*(1 << power for power in range((most - 1).bit_length())), most]


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

    def by_cost(self) -> Curve:
        """The same points by rising mean cost."""
        return replace(
            self, points=tuple(sorted(self.points, key=lambda each: each.predictions.gflops.mean()))
        )

    def to_frame(self) -> pd.DataFrame:
        """As a table of pandas: by what sets the budget, gflops, top1 and mean_average_precision.

        Raises:
            UserError: pandas is not installed.
        """
        measures = ("gflops", "top1", "mean_average_precision")
        columns = {"value": [point.value for point in self.points]}
        return table_of(columns | {name: getattr(self, name) for name in measures}, index=("value",))

    def __repr__(self) -> str:
        lines = [
            f"  at {point.value:g}: {gflops:.3f} GFLOPs, top-1 {100 * top1:.1f} %, mAP {100 * mean_ap:.1f} %"
            for point, gflops, top1, mean_ap in zip(
                self.points, self.gflops, self.top1, self.mean_average_precision, strict=True
            )
        ]
        return "\n".join([f"Curve({self.name})", *lines])
