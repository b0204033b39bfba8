"""Curves of several seeds as lines of a figure and rows of a sheet: what Figs. 2 and 3 and the budgets share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from policy.evaluation.curves import upper_hull
from policy.evaluation.metrics import Interval
from policy.evaluation.operating import Curve
from policy.evaluation.predictions import Predictions, intervals
from policy.sheets.sheet import Column, Value
from policy.tables.plots.curves import Kind, Line

FloatArray = npt.NDArray[np.float64]

COLUMNS = (
    Column("method", "method"),
    Column("point", "point"),
    Column("GFLOPs", "gflops", 2),
    Column("top-1 %", "top1_percent"),
    Column("low", "top1_percent_low"),
    Column("high", "top1_percent_high"),
    Column("mAP %", "map_percent"),
    Column("fine features", "fine_features", 2),
    Column("rows looked at %", "looked_at_percent"),
)


@dataclass(frozen=True)
class Averaged:
    """One curve, every number the mean over seeds (and videos, and draws).

    Attributes:
        points: names of the P points.
        gflops, top1, mean_average_precision, fine_features, watched: (P,); accuracies and shares in percent.
        top1_intervals: per point the bootstrap interval in percent, or none.
    """

    name: str
    kind: Kind
    points: tuple[str, ...]
    gflops: FloatArray
    top1: FloatArray
    mean_average_precision: FloatArray
    fine_features: FloatArray
    watched: FloatArray
    top1_intervals: tuple[Interval, ...]

    def against_cost(self, *, labels: Sequence[str] = (), hull: bool = False) -> Line:
        """Its top-1 over GFLOPs, with a text beside each point where there are any."""
        order = np.argsort(self.gflops, kind="stable").tolist()
        line = self.top1_over(self.gflops, order)
        corners = upper_hull(self.gflops, self.top1) if hull else []
        return replace(
            line,
            labels=[labels[k] for k in order] if labels else (),
            hull=[(float(self.gflops[k]), float(self.top1[k])) for k in corners],
        )

    def top1_over(self, xs: Sequence[float] | FloatArray, order: Sequence[int] | None = None) -> Line:
        """Its top-1 over values (P,), joined in some order."""
        order = range(len(self.points)) if order is None else order
        # Of one curve only: several bands on top of each other say nothing.
        found = self.top1_intervals if self.kind == "proposed" else ()
        return Line(
            self.name,
            self.kind,
            [float(xs[k]) for k in order],
            [float(self.top1[k]) for k in order],
            low=[100 * found[k].low for k in order] if found else (),
            high=[100 * found[k].high for k in order] if found else (),
        )

    def gflops_over(self, xs: Sequence[float]) -> Line:
        """Its GFLOPs over values (P,)."""
        return Line(self.name, self.kind, list(xs), self.gflops.tolist())

    def rows(self) -> list[list[Value]]:
        """A row per point, for COLUMNS."""
        return [
            [
                self.name,
                point,
                float(self.gflops[k]),
                float(self.top1[k]),
                100 * self.top1_intervals[k].low if self.top1_intervals else None,
                100 * self.top1_intervals[k].high if self.top1_intervals else None,
                float(self.mean_average_precision[k]),
                float(self.fine_features[k]),
                float(self.watched[k]),
            ]
            for k, point in enumerate(self.points)
        ]


def averaged(
    name: str,
    kind: Kind,
    curves: Sequence[Curve],
    *,
    point: Callable[[float], str],
    resamples: int,
) -> Averaged:
    """Average the curves of several seeds, point by point.

    Args:
        curves: with as many points each.
        point: from the value of a point to its name.
        resamples: bootstrap samples of the intervals; 0 gives none.
    """
    columns = [[curve.points[k].predictions for curve in curves] for k in range(len(curves[0].points))]

    def means(of: Callable[[Predictions], float]) -> FloatArray:
        return np.array([np.mean([of(said) for said in column]) for column in columns])

    return Averaged(
        name=name,
        kind=kind,
        points=tuple(point(one.value) for one in curves[0].points),
        gflops=means(lambda said: float(said.gflops.mean())),
        top1=means(lambda said: 100 * said.top1()),
        mean_average_precision=means(lambda said: 100 * said.mean_average_precision()),
        fine_features=means(lambda said: float(said.fine_rows.mean())),
        watched=means(lambda said: float(100 * np.mean(said.seen / said.lengths))),
        top1_intervals=tuple(
            intervals(column, resamples=resamples)["top1"] for column in columns if resamples
        ),
    )
