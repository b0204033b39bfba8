"""Beyond the paper: one trained policy at many budgets, and what each way of training it is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy.evaluation.curves import FloatArray, common_budgets, hull_area
from policy.evaluation.metrics import percentile_interval, resampled_weights, weighted_mean
from policy.evaluation.operating import Curve
from policy.liteeval.budgets import oracle_curve, random_curve, threshold_curve
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.method import LiteEvalMethod
from policy.sheets.sheet import Column, Picture, Sheet, Value
from policy.tables.exhibits.curves import COLUMNS, Averaged, averaged
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.plots.curves import accuracy_against_cost

USAGES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
"""At which the gate's threshold is set, on the training videos."""

AREAS = (
    Column("method", "method"),
    Column("usage asked %", "gamma_percent"),
    Column("usage %", "usage_percent", 2),
    Column("GFLOPs", "gflops", 2),
    Column("top-1 %", "top1_percent"),
    Column("mAP %", "map_percent"),
    Column("area %", "area_percent", 2),
    Column("low", "area_percent_low", 2),
    Column("high", "area_percent_high", 2),
    Column("above random, points", "above_random", 2),
    Column("oracle's area %", "oracle_area_percent", 2),
)


def make(material: Material) -> Exhibit:
    """Rows it reads: all with LiteEval's gates; each is a way to train it."""
    lines: list[Averaged] = []
    curves: dict[str, list[Curve]] = {}
    rows: list[list[Value]] = []
    for one, row in zip(material.table.experiments, material.report.rows, strict=True):
        if one.method != "liteeval":
            continue
        material.say(f"{row.title}: {len(USAGES)} gate thresholds for each of {len(material.seeds)} seeds")
        found = [
            threshold_curve(
                trained.method_of(LiteEvalMethod),
                trained.evaluation,
                USAGES,
                trained.data.train,
                device=material.device,
            )
            for trained in material.trained(one.name)
        ]
        curves[one.name] = found
        lines.append(
            averaged(
                row.title,
                "proposed" if one.emphasised else "baseline",
                found,
                point=lambda threshold: f"threshold {threshold:.3g}",
                resamples=0,
            )
        )
    budgets = common_budgets(*(line.gflops for line in lines))
    controls: list[Averaged] = []
    for one, row in zip(material.table.experiments, material.report.rows, strict=True):
        if one.name not in curves:
            continue
        trained, config = material.trained(one.name), material.asked[one.name].config
        assert isinstance(config, LiteEvalConfig)  # the only rows that have curves
        drawn = [
            random_curve(
                one_run.method_of(LiteEvalMethod), one_run.evaluation, USAGES, device=material.device
            )
            for one_run in trained
        ]
        oracles = [oracle_curve(curve) for curve in curves[one.name]]
        results = [one_run.run.result for one_run in trained]
        area, low, high = _area(curves[one.name], budgets, material.resamples)
        rows.append(
            [
                row.title,
                100 * config.gamma,
                float(np.mean([100 * result.metrics["usage"] for result in results])),
                float(np.mean([result.gflops_mean for result in results])),
                float(np.mean([100 * result.metrics["top1"] for result in results])),
                float(np.mean([100 * result.metrics["mean_average_precision"] for result in results])),
                area,
                low,
                high,
                area - _area(drawn, budgets, 0)[0],
                _area(oracles, budgets, 0)[0],
            ]
        )
        if one.emphasised:
            controls = [
                averaged("random gates", "control", drawn, point=lambda u: f"usage {u:.0%}", resamples=0),
                averaged("oracle", "oracle", oracles[:1], point=lambda p: f"price {p:.3g}", resamples=0),
            ]
    title = material.table.title
    picture = accuracy_against_cost(
        [line.against_cost(hull=line.kind == "proposed") for line in [*lines, *controls]],
        title=title,
        subtitle=material.subtitle,
        accuracy="top-1 (%)",
    )
    every = [row for line in [*lines, *controls] for row in line.rows()]
    return Exhibit(
        material.report,
        (Sheet(material.heading, AREAS, rows), Sheet("One policy at many budgets", COLUMNS, every)),
        (
            Picture(
                picture,
                "Top-1 accuracy against GFLOPs per video, a curve of gate thresholds for each training",
            ),
        ),
        notes=(
            "Usage, GFLOPs and accuracies of the first table are at the policy's own threshold. A curve is one "
            "trained policy at gate thresholds chosen on the training videos.",
            f"Area: mean top-1 of the curve's convex hull over budgets from {budgets[0]:.2f} to {budgets[1]:.2f} "
            "GFLOPs, which all curves cover; low and high are the ends of its bootstrap interval over videos. "
            "Random: the same networks with gates opened at random. Oracle: for each video the cheapest threshold "
            "at which the policy is right, traded against cost.",
        ),
    )


def _area(
    curves: Sequence[Curve], budgets: tuple[float, float], resamples: int
) -> tuple[float, float | None, float | None]:
    """Mean over seeds of the area under the hull in percent, and its bootstrap interval over videos."""
    value = float(np.mean([_clipped_area(curve.gflops, 100 * curve.top1, budgets) for curve in curves]))
    if not resamples:
        return value, None, None
    videos = len(curves[0].points[0].predictions.video_ids)
    weights = resampled_weights(videos, resamples, 0)
    drawn = np.zeros(resamples)
    for curve in curves:
        said = [point.predictions for point in curve.points]
        costs = [weighted_mean(one.gflops.mean(axis=0), weights) for one in said]
        correct = [weighted_mean(100.0 * one.correct.mean(axis=0), weights) for one in said]
        samples = zip(np.array(costs, np.float64).T, np.array(correct, np.float64).T, strict=True)
        drawn += np.array([_clipped_area(*sample, budgets) for sample in samples]) / len(curves)
    interval = percentile_interval(value, drawn)
    return value, interval.low, interval.high


def _clipped_area(costs: FloatArray, accuracies: FloatArray, budgets: tuple[float, float]) -> float:
    """`hull_area`, from the cheapest point on where that is dearer than the least budget (as a sample of the
    videos, or an oracle, may have it)."""
    low, high = budgets
    return hull_area(costs, accuracies, min(max(low, float(costs.min())), np.nextafter(high, low)), high)
