"""Ways to choose compared with each other: areas between their curves, with bootstrap intervals.

A curve is what its points make achievable, their upper hull (`policy.evaluation.curves`), level beyond the last: a
budget need not be spent. Curves are compared over the budgets from the dearest of their cheapest points, where all
of them begin, to the cost of the dearest single model. A selector whose input model is dear has no point at small
budgets, which is not held against it; one that never picks the dearest model is still compared at the budgets at
which others do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from policy.evaluation.curves import hull_area, hull_height
from policy.evaluation.metrics import (
    Interval,
    percentile_interval,
    resampled_weights,
    weighted_mean,
    weighted_mean_average_precision,
)
from policy.selection.curve import SelectionCurve
from policy.selection.pool import FloatArray, PoolTable

Metric = Literal["top1", "map"]
Drawn = SelectionCurve | Sequence[SelectionCurve]
"""A curve, or several draws of one, which are averaged point by point."""

RESAMPLES = 1000
FEWEST_RESAMPLES = 200
"""With fewer there is no interval: it would mean little."""
MOST_RANKED = 2 * 10**9
"""Points · videos · classes · resamples up to which mAP has an interval: some ten seconds of a core."""

_WEIGHTS_AT_A_TIME = 1 << 24
_AT = "the point at which curves are compared"


class Points(NamedTuple):
    """P points, for the videos themselves (the first row) and for B bootstrap samples of them.

    Attributes:
        gflops: (1 + B, P), mean per video.
        accuracies: (1 + B, P), in [0, 1].
    """

    gflops: FloatArray
    accuracies: FloatArray


@dataclass(frozen=True)
class Comparison:
    """Curves of the same videos and the same pool, under the same bootstrap samples.

    Attributes:
        curves: by name.
        at: one point, to be compared with the curves at equal cost.
        dearest: (1 + B,), GFLOPs of the dearest single model.
    """

    curves: Mapping[str, Points]
    at: Points | None
    dearest: FloatArray

    @property
    def budgets(self) -> tuple[float, float] | None:
        """GFLOPs per video over which areas are taken, the same for all curves; None: they have none in common."""
        low, high = float(self._low[0]), float(self.dearest[0])
        return (low, high) if low < high else None

    def area_above(self, a: str, b: str) -> Interval | None:
        """By how much the hull of `a` is above that of `b` on average over the budgets; negative where `b` is
        better.

        The interval is the 95 % percentile bootstrap over videos: curves and budgets are computed anew for each
        sample. NaN where there are no samples.

        Returns:
            In units of accuracy; None where the curves have no budgets in common.
        """
        return _interval(self._areas[a] - self._areas[b])

    def point_above(self, curve: str) -> Interval | None:
        """By how much the point `at` is above the hull of a curve at equal cost; otherwise as `area_above`.

        None where the curve has no point as cheap.
        """
        if self.at is None:
            raise ValueError("there is no point to compare")
        other = self.curves[curve]
        samples = zip(other.gflops, other.accuracies, self.at.gflops[:, 0], strict=True)
        return _interval(self.at.accuracies[:, 0] - [hull_height(*sample) for sample in samples])

    @cached_property
    def _low(self) -> FloatArray:
        """(1 + B,), GFLOPs: the dearest of the curves' cheapest points."""
        return np.asarray(np.max([points.gflops.min(axis=1) for points in self.curves.values()], axis=0))

    @cached_property
    def _areas(self) -> dict[str, FloatArray]:
        """(1 + B,) by curve, NaN where a sample leaves no budgets."""
        areas = {name: np.full(len(self.dearest), np.nan) for name in self.curves}
        for sample in np.flatnonzero(self._low < self.dearest):
            budgets = float(self._low[sample]), float(self.dearest[sample])
            for name, points in self.curves.items():
                areas[name][sample] = hull_area(points.gflops[sample], points.accuracies[sample], *budgets)
        return areas


def compare(
    curves: Mapping[str, Drawn],
    *,
    at: SelectionCurve | None = None,
    metric: Metric = "top1",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Points of curves for a table's videos and for bootstrap samples of them, of whole groups if they have any.

    Args:
        curves: on one table.
        at: of one point.
        metric: "top1" (HIT@1) or "map".
        resamples: with "map" there are fewer where points · videos · classes · resamples would exceed
            `MOST_RANKED`, and none where even `FEWEST_RESAMPLES` would.

    Raises:
        ValueError: `at` has not one point.
    """
    if at is not None and len(at.values) != 1:
        raise ValueError(f"one point is to be compared, not {len(at.values)} points")
    draws = {name: draws_of(curve) for name, curve in curves.items()}
    if at is not None:
        draws[_AT] = [at]
    table = next(iter(draws.values()))[0].table
    if metric == "map":
        points = sum(len(draw.values) for each in draws.values() for draw in each)
        affordable = MOST_RANKED // (points * table.labels.size)
        resamples = min(resamples, affordable) if affordable >= FEWEST_RESAMPLES else 0
    parts = {name: [_points(each, metric)] for name, each in draws.items()}
    dearest = [table.mean_macs.max(keepdims=True) / 1e9]
    for weights in _samples(table, resamples, seed):
        dearest.append(weighted_mean(table.macs.T / 1e9, weights).max(axis=0))
        for name, each in draws.items():
            parts[name].append(_resampled(each, metric, weights))
    joined = {
        name: Points(*(np.concatenate(rows) for rows in zip(*each, strict=True)))
        for name, each in parts.items()
    }
    return Comparison(joined, joined.pop(_AT, None), np.concatenate(dearest))


def draws_of(curve: Drawn) -> list[SelectionCurve]:
    """One or several."""
    return [curve] if isinstance(curve, SelectionCurve) else list(curve)


def _samples(table: PoolTable, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """Weights (M, ·) of all samples, in parts that fit into memory."""
    most = max(1, _WEIGHTS_AT_A_TIME // len(table))
    parts = [min(most, resamples - start) for start in range(0, resamples, most)]
    seeds = np.random.SeedSequence(seed).generate_state(len(parts)).tolist()
    for part, seed_of_part in zip(parts, seeds, strict=True):
        yield resampled_weights(len(table), part, seed_of_part, table.groups)


def _points(draws: Sequence[SelectionCurve], metric: Metric) -> Points:
    """(1, P), means over the draws."""
    gflops = np.mean([draw.gflops for draw in draws], axis=0)
    accuracies = [draw.top1 if metric == "top1" else draw.mean_average_precision for draw in draws]
    return Points(gflops[None], np.mean(accuracies, axis=0)[None])


def _resampled(draws: Sequence[SelectionCurve], metric: Metric, weights: npt.NDArray[np.float32]) -> Points:
    """(B, P), means over the draws, under each column of weights (M, B)."""
    gflops = np.mean([weighted_mean(draw.macs / 1e9, weights) for draw in draws], axis=0)
    accuracies = np.mean([_weighted_accuracies(draw, metric, weights) for draw in draws], axis=0)
    return Points(gflops.T, accuracies.T)


def _weighted_accuracies(
    curve: SelectionCurve, metric: Metric, weights: npt.NDArray[np.float32]
) -> npt.NDArray[np.floating]:
    """(P, B)."""
    if metric == "top1":
        return weighted_mean(curve.correct.astype(np.float64), weights)
    scores = (curve.scores(point) for point in range(len(curve.values)))
    return np.stack([weighted_mean_average_precision(each, curve.table.labels, weights) for each in scores])


def _interval(sampled: FloatArray) -> Interval | None:
    """Of a figure (1 + B,) of the videos themselves, then of the samples."""
    if np.isnan(sampled[0]):
        return None
    if np.isnan(sampled[1:]).all():  # also where there are none
        return Interval(float(sampled[0]), np.nan, np.nan)
    return percentile_interval(float(sampled[0]), sampled[1:])
