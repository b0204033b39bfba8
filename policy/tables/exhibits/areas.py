"""Areas between the curves of trained policies, averaged over seeds, with intervals over videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policy.evaluation.curves import FloatArray, hull_area, hull_height
from policy.evaluation.metrics import Interval, percentile_interval, resampled_weights, weighted_mean
from policy.evaluation.operating import Curve
from policy.sheets.sheet import Value


@dataclass(frozen=True)
class Outcomes:
    """What a curve of P points says of each of M videos.

    Attributes:
        gflops, correct: (P, M), means over draws.
        groups: as in `Predictions`.
    """

    gflops: FloatArray
    correct: FloatArray
    groups: tuple[str, ...] = ()

    @staticmethod
    def of(curve: Curve) -> Outcomes:
        predictions = [point.predictions for point in curve.points]
        return Outcomes(
            np.stack([one.gflops.mean(axis=0) for one in predictions]),
            np.stack([one.correct.mean(axis=0) for one in predictions]),
            predictions[0].groups,
        )

    def from_nothing(self, correct: FloatArray) -> Outcomes:
        """With a point before all others that costs nothing.

        Args:
            correct: (M,), of it.
        """
        nothing = np.zeros_like(self.gflops[:1])
        return Outcomes(
            np.concatenate([nothing, self.gflops]), np.concatenate([correct[None], self.correct]), self.groups
        )

    @property
    def costs(self) -> FloatArray:
        """(P,), GFLOPs per video."""
        return np.asarray(self.gflops.mean(axis=1))

    @property
    def top1(self) -> FloatArray:
        """(P,), in percent."""
        return np.asarray(100 * self.correct.mean(axis=1))

    def area(self, budgets: tuple[float, float]) -> float:
        """Mean top-1 in percent of the curve's hull over the budgets."""
        return _area(self.costs, self.top1, budgets)

    def resampled_areas(self, budgets: tuple[float, float], resamples: int) -> FloatArray:
        """(B,) of bootstrap samples of the videos, the same ones for every curve."""
        weights = resampled_weights(self.gflops.shape[1], resamples, 0, self.groups)
        costs, top1 = (weighted_mean(each, weights).T for each in (self.gflops, 100 * self.correct))
        return np.array([_area(*sample, budgets) for sample in zip(costs, top1, strict=True)])

    def height(self, budget: float) -> float:
        """The best top-1 in percent at a budget; NaN where nothing is as cheap."""
        return hull_height(self.costs, self.top1, budget)


def area(curves: Sequence[Outcomes], budgets: tuple[float, float], resamples: int) -> Interval:
    """Mean over seeds of the area under the hull, in percent; without samples the interval is NaN."""
    value = float(np.mean([curve.area(budgets) for curve in curves]))
    sampled = curves if resamples else ()
    return _interval(value, [curve.resampled_areas(budgets, resamples) for curve in sampled])


def gain(pairs: Sequence[tuple[Outcomes, Outcomes]], resamples: int) -> Interval:
    """By how much the hulls of the first of each pair are above those of the second, over the costs of both; as
    `area`."""

    values, samples = [], []
    for pair in pairs:
        low, high = (float(max(limit(one.costs) for one in pair)) for limit in (np.min, np.max))
        one, other = pair
        values.append(one.area((low, high)) - other.area((low, high)))
        if resamples:
            areas, others = (each.resampled_areas((low, high), resamples) for each in pair)
            samples.append(areas - others)
    return _interval(float(np.mean(values)), samples)


def as_values(interval: Interval | None, factor: float = 1.0) -> list[Value]:
    """A figure and its ends, as in columns of `with_ends`, times a factor; what is NaN, or None, is left empty."""
    if interval is None:
        return [None] * 3
    ends = interval.value, interval.low, interval.high
    return [None if np.isnan(value) else factor * float(value) for value in ends]


def _interval(value: float, samples: Sequence[FloatArray]) -> Interval:
    """Of a mean over seeds, from the samples (B,) of each; NaN without any."""
    if not samples:
        return Interval(value, np.nan, np.nan)
    return percentile_interval(value, np.mean(samples, axis=0))


def _area(costs: FloatArray, accuracies: FloatArray, budgets: tuple[float, float]) -> float:
    """`hull_area`, starting at the cheapest point if that costs more than the least budget, which may happen in a
    sample of the videos, or with an oracle."""
    low, high = budgets
    return hull_area(costs, accuracies, min(max(low, float(costs.min())), np.nextafter(high, low)), high)
