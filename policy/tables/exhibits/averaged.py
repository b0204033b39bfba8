"""A curve averaged over seeds, as a line of a figure and as rows of a sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from policy.evaluation.curves import upper_hull
from policy.evaluation.operating import Curve
from policy.evaluation.predictions import Predictions, intervals
from policy.sheets.sheet import Column, Value, with_ends
from policy.tables.plots.curves import Kind, Line

FloatArray = npt.NDArray[np.float64]

COLUMNS = (
    Column("method", "method"),
    Column("point", "point"),
    Column("GFLOPs", "gflops", 2),
    *with_ends(Column("top-1 %", "top1_percent")),
    Column("mAP %", "map_percent"),
    Column("fine features", "fine_features", 2),
    Column("rows looked at %", "looked_at_percent"),
)

_MEASURES: Mapping[str, Callable[[Predictions], float]] = {
    "gflops": lambda predictions: float(predictions.gflops.mean()),
    "top1_percent": lambda predictions: 100 * predictions.top1(),
    "map_percent": lambda predictions: 100 * predictions.mean_average_precision(),
    "fine_features": lambda predictions: float(predictions.fine_rows.mean()),
    "looked_at_percent": lambda predictions: float(
        100 * np.mean(predictions.row_counts / predictions.lengths)
    ),
}


@dataclass(frozen=True)
class Averaged:
    """One curve; every number is a mean over seeds, videos and draws.

    Attributes:
        points: names of the P points.
        values: (P,) by the keys of COLUMNS; the ends of the bootstrap intervals may be missing.
    """

    name: str
    kind: Kind
    points: tuple[str, ...]
    values: Mapping[str, FloatArray]

    @property
    def gflops(self) -> FloatArray:
        return self.values["gflops"]

    def against_cost(self, *, labels: Sequence[str] = (), hull: bool = False) -> Line:
        """Top-1 over GFLOPs; `labels` is (P,) or empty."""
        order = np.argsort(self.gflops, kind="stable").tolist()
        line = self.top1_over(self.gflops, order)
        top1 = self.values["top1_percent"]
        corners = upper_hull(self.gflops, top1) if hull else []
        return replace(
            line,
            labels=[labels[k] for k in order] if labels else (),
            hull=[(float(self.gflops[k]), float(top1[k])) for k in corners],
        )

    def top1_over(self, xs: Sequence[float] | FloatArray, order: Sequence[int] | None = None) -> Line:
        """Top-1 over the values `xs` (P,), joined in `order`."""
        order = range(len(self.points)) if order is None else order
        # Only one curve has a band: several bands on top of each other cannot be read.
        band = self.kind == "proposed" and "top1_percent_low" in self.values
        ys, low, high = (
            [float(self.values[key][k]) for k in order] if key in self.values else ()
            for key in ("top1_percent", "top1_percent_low", "top1_percent_high")
        )
        x = [float(xs[k]) for k in order]
        return Line(self.name, self.kind, x, ys, low=low if band else (), high=high if band else ())

    def gflops_over(self, xs: Sequence[float]) -> Line:
        """GFLOPs over the values `xs` (P,)."""
        return Line(self.name, self.kind, list(xs), self.gflops.tolist())

    def rows(self) -> list[list[Value]]:
        """A row per point, for COLUMNS."""
        columns = [self.values.get(column.key, [None] * len(self.points)) for column in COLUMNS[2:]]
        numbers = zip(*columns, strict=True)
        return [
            [self.name, point, *(None if value is None else float(value) for value in values)]
            for point, values in zip(self.points, numbers, strict=True)
        ]


def averaged(
    name: str, kind: Kind, curves: Sequence[Curve], *, point: Callable[[float], str], resamples: int = 0
) -> Averaged:
    """Average the curves of several seeds, point by point.

    Args:
        curves: all with the same number of points.
        point: names a point by its value.
        resamples: bootstrap samples of the intervals; 0 gives none.
    """
    points = [[curve.points[k].predictions for curve in curves] for k in range(len(curves[0].points))]
    values = {
        key: np.array([np.mean([*map(of, seeds)]) for seeds in points]) for key, of in _MEASURES.items()
    }
    if resamples:
        ends = [intervals(seeds, resamples=resamples)["top1"] for seeds in points]
        values["top1_percent_low"] = np.array([100 * interval.low for interval in ends])
        values["top1_percent_high"] = np.array([100 * interval.high for interval in ends])
    return Averaged(name, kind, tuple(point(one.value) for one in curves[0].points), values)
