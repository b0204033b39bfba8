"""What one way to choose is worth against another: areas between curves, and how sure they are.

A curve is what its points make achievable, their upper hull (`policy.evaluation.curves`), level beyond the last: a
budget need not be spent. Curves are compared over the budgets from which on all have a point (the dearest of their
cheapest points) to the cost of the dearest single model. A selector whose own model is dear has no point at small
budgets, which is not held against it; one that never picks the dearest model is not spared the budgets at which
others do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

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
from policy.selection.pool import FloatArray

Metric = Literal["top1", "map"]
Drawn = SelectionCurve | Sequence[SelectionCurve]
"""A curve, or several draws of one, which are averaged point by point."""

RESAMPLES = 1000
FEWEST_RESAMPLES = 200
"""With fewer there is no interval: it would say little."""
MOST_RANKED = 2 * 10**9
"""Points · videos · classes · resamples up to which mAP has an interval: some ten seconds of a core."""

_WEIGHTS_AT_A_TIME = 1 << 24


@dataclass(frozen=True)
class Points:
    """P points, of the videos as they are (the first row) and of B bootstrap samples of them.

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
        """GFLOPs per video over which areas are taken, the same for all curves. None: there are none in common."""
        low, high = float(self._low[0]), float(self.dearest[0])
        return (low, high) if low < high else None

    def area_above(self, a: str, b: str) -> Interval | None:
        """By how much the hull of `a` is above that of `b` on average over the budgets; negative where `b` is
        better.

        The interval is the percentile bootstrap's over videos, 95 %: curves and budgets are taken anew from each
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
        heights = [
            hull_height(costs, accuracies, budget)
            for costs, accuracies, [budget] in zip(
                other.gflops, other.accuracies, self.at.gflops, strict=True
            )
        ]
        return _interval(self.at.accuracies[:, 0] - heights)

    @cached_property
    def _low(self) -> FloatArray:
        """(1 + B,)."""
        return np.asarray(np.max([points.gflops.min(axis=1) for points in self.curves.values()], axis=0))

    @cached_property
    def _areas(self) -> dict[str, FloatArray]:
        """(1 + B,) of each, NaN where a sample leaves no budgets."""
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
    """Points of curves for a table's videos and for bootstrap samples of them.

    Args:
        curves: on one table.
        at: of one point.
        metric: "top1" (HIT@1) or "map".
        resamples: with "map" they are fewer where all points, videos, classes and resamples are more than
            `MOST_RANKED`, and none where `FEWEST_RESAMPLES` would still be too many.

    Raises:
        ValueError: `at` has not one point.
    """
    if at is not None and len(at.values) != 1:
        raise ValueError(f"one point is to be compared, not {len(at.values)} points")
    drawn = {name: _draws(curve) for name, curve in curves.items()}
    table = next(iter(drawn.values()))[0].table
    if metric == "map":
        points = sum(len(one.values) for draws in drawn.values() for one in draws) + (at is not None)
        affordable = MOST_RANKED // (points * table.labels.size)
        resamples = min(resamples, affordable) if affordable >= FEWEST_RESAMPLES else 0
    found = {name: [_as_they_are(draws, metric)] for name, draws in drawn.items()}
    found_at = [_as_they_are([at], metric)] if at is not None else []
    dearest = [table.mean_macs.max(keepdims=True) / 1e9]
    for weights in _samples(len(table), resamples, seed):
        dearest.append(weighted_mean(table.macs.T / 1e9, weights).max(axis=0))
        for name, draws in drawn.items():
            found[name].append(_resampled(draws, metric, weights))
        if at is not None:
            found_at.append(_resampled([at], metric, weights))
    return Comparison(
        {name: _joined(parts) for name, parts in found.items()},
        _joined(found_at) if at is not None else None,
        np.concatenate(dearest),
    )


def area_above(
    curve: Drawn, other: Drawn, *, metric: Metric = "top1", resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """`Comparison.area_above` of two curves alone: over the budgets that these two have in common.

    With `single_models` as the other one it is HIT@1 above random selection; of two selections, their paired
    difference.
    """
    compared = compare({"a": curve, "b": other}, metric=metric, resamples=resamples, seed=seed)
    return compared.area_above("a", "b")


def _draws(curve: Drawn) -> list[SelectionCurve]:
    return [curve] if isinstance(curve, SelectionCurve) else list(curve)


def _samples(videos: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """Weights (M, ·) of all samples, so many at a time that memory suffices."""
    most = max(1, _WEIGHTS_AT_A_TIME // videos)
    parts = [min(most, resamples - start) for start in range(0, resamples, most)]
    for part, own_seed in zip(parts, np.random.SeedSequence(seed).generate_state(len(parts)), strict=True):
        yield resampled_weights(videos, part, int(own_seed))


def _as_they_are(draws: Sequence[SelectionCurve], metric: Metric) -> Points:
    """(1, P), means over the draws."""
    accuracies = [one.top1 if metric == "top1" else one.mean_average_precision for one in draws]
    gflops = np.mean([one.gflops for one in draws], axis=0)
    return Points(gflops[None], np.mean(accuracies, axis=0)[None])


def _resampled(draws: Sequence[SelectionCurve], metric: Metric, weights: npt.NDArray[np.float32]) -> Points:
    """(B, P), means over the draws, under each column of weights (M, B)."""
    gflops = np.mean([weighted_mean(one.macs / 1e9, weights) for one in draws], axis=0)
    accuracy = _hits if metric == "top1" else _mean_average_precision
    return Points(gflops.T, np.mean([accuracy(one, weights) for one in draws], axis=0).T)


def _hits(curve: SelectionCurve, weights: npt.NDArray[np.float32]) -> FloatArray:
    return np.asarray(weighted_mean(curve.correct.astype(np.float64), weights), np.float64)


def _mean_average_precision(curve: SelectionCurve, weights: npt.NDArray[np.float32]) -> FloatArray:
    labels = curve.table.labels
    each = [
        weighted_mean_average_precision(curve.scores(point), labels, weights)
        for point in range(len(curve.values))
    ]
    return np.stack(each).astype(np.float64)


def _joined(parts: Sequence[Points]) -> Points:
    return Points(
        np.concatenate([part.gflops for part in parts]), np.concatenate([part.accuracies for part in parts])
    )


def _interval(sampled: FloatArray) -> Interval | None:
    """Of a figure of the videos as they are, followed by those of the samples."""
    if np.isnan(sampled[0]):
        return None
    if np.isnan(sampled[1:]).all():  # also where there are none
        return Interval(float(sampled[0]), np.nan, np.nan)
    return percentile_interval(float(sampled[0]), sampled[1:])
