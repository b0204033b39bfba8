"""Shared by the exhibits of localization: curves of clip selection over shares of clips, with their controls.

All is in the runs' details (`policy.localization.curve`): each selector is judged where 10, 20, … 90 % of the
clips use motion, beside other ways to choose as many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policy.evaluation.detection import PROTOCOLS
from policy.localization.curve import (
    AVERAGED,
    FRAME_MOTION,
    MOTION_ONLY,
    ORACLE,
    RANDOM,
    REGULAR,
    RGB_ONLY,
    SELECTOR,
    SHARES,
)
from policy.localization.judged import AVERAGES, metric_name
from policy.runs import Run
from policy.sheets.sheet import Column, Picture, Sheet, Spread, Value
from policy.tables.clip_rows import clip_costs
from policy.tables.exhibits.exhibit import Material
from policy.tables.plots.curves import Kind, Line, draw_against_cost

FloatArray = npt.NDArray[np.float64]

COST = "GFLOPs per clip (10⁹ multiply-accumulates)"
FIXED = (RGB_ONLY, MOTION_ONLY, AVERAGED)
"""What needs no choice."""
CONTROLS = (RANDOM, REGULAR, FRAME_MOTION, ORACLE)
_KINDS: Mapping[str, Kind] = {
    RANDOM: "random",
    REGULAR: "control",
    FRAME_MOTION: "control",
    ORACLE: "oracle",
    **dict.fromkeys(FIXED, "models"),
}
_TITLES = {RANDOM: "random clips", REGULAR: "every n-th clip", ORACLE: "oracle"}

# In the order of CONTROLS. Brief, so that means and deviations of several seeds fit a terminal.
SUMMARY = (
    Column("method", "method"),
    Column("mean mAP %", "mean_map_percent"),
    Column("random", "above_random", heading="points above"),
    Column("n-th clip", "above_every_nth", heading="points above"),
    Column("change", "above_frame_motion", heading="points above"),
    Column("oracle", "above_oracle", heading="points above"),
)
ALONE = (
    Column("without a choice", "choice"),
    Column("GFLOPs", "gflops", 2),
    Column("as the paper counts", "paper_gflops", 2),
    Column("mAP %", "map_percent"),
)
CURVES = (
    Column("method", "method"),
    Column("choice", "choice"),
    Column("clips with motion %", "motion_percent"),
    Column("GFLOPs", "gflops", 2),
    Column("as the paper counts", "paper_gflops", 2),
    *(
        Column(f"{protocol} {over}", f"{metric_name(protocol, over)}_percent")
        for protocol in PROTOCOLS
        for over in AVERAGES
    ),
)
NOTES = (
    "A curve is one trained selector where 10, 20, … 90 % of the clips use motion. Random clips, every n-th clip "
    "and those at which the appearance stream changes most (frame motion) are as many, the oracle, which knows "
    "the segments, at most as many. A band is ± the standard deviation over seeds.",
    "Mean mAP: over the points of a curve. Beside it: by how many points that is above each other way to choose "
    "as many clips (change: frame motion).",
    "GFLOPs are per clip, without optical flow, in multiply-accumulates. As the paper counts, I3D has two for "
    "each, and our small networks are left out.",
)


@dataclass(frozen=True)
class Measured:
    """How detections are judged for a data set: by a protocol, averaged over thresholds of IoU."""

    protocol: str
    over: str

    @staticmethod
    def on(dataset: str | None) -> Measured:
        return (
            Measured("activitynet", "0.1:0.5")
            if dataset == "multithumos"
            else Measured("thumos14", "0.1:0.7")
        )

    @property
    def metric(self) -> str:
        return metric_name(self.protocol, self.over)

    @property
    def title(self) -> str:
        return f"mAP@{self.over} (%)"

    @property
    def note(self) -> str:
        return f"mAP: averaged over IoU {self.over}; judged as by {PROTOCOLS[self.protocol].title}."


@dataclass(frozen=True)
class Curve:
    """One way to choose, by the runs of S seeds at P points.

    Attributes:
        shares: (S, P) of the clips that use motion.
        gflops: (S, P) per clip, everything included.
        paper_gflops: (S, P) as the paper counts.
        percents: (S, P) by the name of a metric.
    """

    choice: str
    shares: FloatArray
    gflops: FloatArray
    paper_gflops: FloatArray
    percents: Mapping[str, FloatArray]

    def line(self, name: str, kind: Kind, measured: Measured, *, labels: Sequence[str] = ()) -> Line:
        """Its means over the seeds; of the proposed one and several seeds ± their standard deviation."""
        percents = self.percents[measured.metric]
        ys = percents.mean(axis=0)
        spread = percents.std(axis=0, ddof=1) if kind == "proposed" and len(percents) > 1 else None
        low, high = ((), ()) if spread is None else ((ys - spread).tolist(), (ys + spread).tolist())
        return Line(
            name, kind, self.gflops.mean(axis=0).tolist(), ys.tolist(), low=low, high=high, labels=labels
        )

    def means(self, measured: Measured) -> FloatArray:
        """(S,): mAP in percent of each seed, averaged over the points."""
        return np.asarray(self.percents[measured.metric].mean(axis=1))

    def rows(self, name: str) -> list[list[Value]]:
        """A row for each point, for CURVES."""
        columns: list[list[Value]] = [
            [float(value) for value in array.mean(axis=0)]
            for array in (100 * self.shares, self.gflops, self.paper_gflops)
        ]
        columns += [
            [Spread.of(of_seeds) for of_seeds in self.percents[metric].T.tolist()] for metric in self.percents
        ]
        return [[name, self.choice, *values] for values in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Selected:
    """A row of clip selection: its curve and those of its controls, by choice."""

    name: str
    curves: Mapping[str, Curve]

    @property
    def selector(self) -> Curve:
        return self.curves[SELECTOR]

    def summary(self, measured: Measured) -> list[Value]:
        """For SUMMARY: differences of the same seed."""
        ours = self.selector.means(measured)
        above = (Spread.of((ours - self.curves[name].means(measured)).tolist()) for name in CONTROLS)
        return [self.name, Spread.of(ours.tolist()), *above]

    def alone(self, measured: Measured, what: str = "") -> list[list[Value]]:
        """For ALONE; `what` follows each name."""
        rows: list[list[Value]] = []
        for choice in FIXED:
            curve = self.curves[choice]
            percents = curve.percents[measured.metric][:, 0].tolist()
            costs = (float(array.mean()) for array in (curve.gflops, curve.paper_gflops))
            rows.append([f"{choice}{what}", *costs, Spread.of(percents)])
        return rows

    def points(self) -> list[list[Value]]:
        """For CURVES, of all choices."""
        return [row for curve in self.curves.values() for row in curve.rows(self.name)]

    def control_lines(self, measured: Measured) -> list[Line]:
        lines = [self.curves[name].line(_TITLES.get(name, name), _KINDS[name], measured) for name in CONTROLS]
        alone = [self.curves[name].line(name, "models", measured) for name in FIXED]
        xs, ys = ([value for line in alone for value in getattr(line, axis)] for axis in ("xs", "ys"))
        return [*lines, Line("one model, or both", "models", xs, ys, labels=FIXED)]


def select(material: Material, row: str) -> Selected:
    """The curves of a row of clip selection, from what its runs found."""
    experiment = material.report.row(row).experiment
    order = material.order
    costs = clip_costs(experiment, order.streams, order.source.cache)
    runs = [_points(run) for run in material.runs(row)]
    curves = {}
    for choice in (SELECTOR, *CONTROLS, *FIXED):
        of_seeds = [
            [one for one in points if one["choice"] == choice and (choice in FIXED or one["at"] in SHARES)]
            for points in runs
        ]

        def array(key: str) -> FloatArray:
            return np.array([[one[key] for one in points] for points in of_seeds], np.float64)  # noqa: B023

        shares = array("share")
        has_appearance = 0.0 if choice == MOTION_ONLY else 1.0
        paper = has_appearance * costs["appearance"][1] + shares * costs["motion"][1]
        metrics = [metric_name(protocol, over) for protocol in PROTOCOLS for over in AVERAGES]
        curves[choice] = Curve(
            choice,
            shares,
            array("gflops_per_clip"),
            paper,
            {metric: 100 * array(metric) for metric in metrics},
        )
    return Selected(material.title(row), curves)


def _points(run: Run) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = run.details()["points"]
    return points


def picture(
    material: Material,
    lines: Sequence[Line],
    panel: str,
    what: str,
    measured: Measured,
) -> Picture:
    """mAP against cost as one panel of several, such as "(b)"."""
    drawing = draw_against_cost(lines, **material.titles(f" {panel}"), accuracy=measured.title, cost=COST)
    caption = f"{panel} {material.table.title}: {what}"
    return Picture(drawing.png, f"Average mAP against GFLOPs per clip: {what}", caption)


def summary_sheet(material: Material, selected: Iterable[Selected], measured: Measured) -> Sheet:
    """How far each selector is above its controls."""
    return Sheet(material.report.heading, SUMMARY, [one.summary(measured) for one in selected])


def alone_sheet(selected: Mapping[str, Selected], measured: Measured) -> Sheet:
    """What runs one model or both on all clips.

    Args:
        selected: by what distinguishes them.
    """
    rows: list[list[Value]] = []
    for what, one in selected.items():
        for row in one.alone(measured, f", {what}" if len(selected) > 1 else ""):
            # The motion model alone is the same beside any cheap one.
            if row[1:] not in [other[1:] for other in rows]:
                rows.append(row)
    return Sheet("Without a choice", ALONE, rows)


def curves_sheet(selected: Iterable[Selected]) -> Sheet:
    """All points of all curves."""
    return Sheet("Curves", CURVES, [row for one in selected for row in one.points()], detail=True)
