"""Beyond the paper: one trained policy at many budgets, and how each way of training it compares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy.evaluation.curves import FloatArray, common_budgets, hull_area
from policy.evaluation.metrics import percentile_interval, resampled_weights, weighted_mean
from policy.evaluation.operating import Curve
from policy.liteeval.budgets import USAGES, oracle_curves, random_curve
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.method import LiteEvalMethod
from policy.sheets.sheet import Column, Picture, Sheet, Value, with_ends
from policy.tables.exhibits.averaged import COLUMNS, Averaged, averaged
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.plots.curves import Kind, draw_against_cost
from policy.training.validation import calibration_videos

AREAS = (
    Column("method", "method"),
    Column("usage asked %", "gamma_percent"),
    Column("usage %", "usage_percent", 2),
    Column("GFLOPs", "gflops", 2),
    Column("top-1 %", "top1_percent"),
    Column("mAP %", "map_percent"),
    *with_ends(Column("area %", "area_percent", 2)),
    Column("above random, points", "above_random", 2),
    Column("oracle's area %", "oracle_area_percent", 2),
)


def make(material: Material) -> Exhibit:
    """From all rows of the method `liteeval`, each a way to train it."""
    device = material.device
    liteevals = [row for row in material.report.rows if row.experiment.method == "liteeval"]
    lines: list[Averaged] = []
    curves: list[list[Curve]] = []
    for row in liteevals:
        by_seed = []
        for one in material.trained(row.name):
            material.say(f"{row.title}, seed {one.config.seed}: evaluating {len(USAGES)} gate thresholds")
            method = one.method_of(LiteEvalMethod)
            videos = calibration_videos(method, one.data)
            by_seed.append(method.operating_curve(one.evaluation, videos, device=device))
        curves.append(by_seed)
        kind: Kind = "proposed" if row.experiment.emphasised else "baseline"
        lines.append(averaged(row.title, kind, by_seed, point="threshold {:.3g}".format))
    budgets = common_budgets(*(line.gflops for line in lines))
    rows: list[list[Value]] = []
    controls: list[Averaged] = []
    for row, by_seed in zip(liteevals, curves, strict=True):
        config = material.order.requests[row.name].config
        assert isinstance(config, LiteEvalConfig)
        random = []
        for one in material.trained(row.name):
            material.say(f"{row.title}, seed {one.config.seed}: evaluating random gates")
            random.append(random_curve(one.method_of(LiteEvalMethod), one.evaluation, USAGES, device=device))
        resampled = f", and its interval from {material.resamples:,} samples" if material.resamples else ""
        material.say(f"{row.title}: oracle and area{resampled}")
        oracles = oracle_curves(by_seed)
        area, low, high = _area(by_seed, budgets, material.resamples)
        means = material.means(row.name, "usage_percent", "gflops", "top1_percent", "map_percent")
        above_random = area - _area(random, budgets, 0)[0]
        oracle_area = _area(oracles, budgets, 0)[0]
        rows.append([row.title, 100 * config.gamma, *means, area, low, high, above_random, oracle_area])
        if row.experiment.emphasised:
            controls = [
                averaged("random gates", "control", random, point="usage {:.0%}".format),
                averaged("oracle", "oracle", oracles, point="price {:.3g}".format),
            ]
    drawing = draw_against_cost(
        [line.against_cost(hull=line.kind == "proposed") for line in [*lines, *controls]],
        **material.titles(),
        accuracy="top-1 (%)",
    )
    points = [row for line in [*lines, *controls] for row in line.rows()]
    alt = "Top-1 accuracy against GFLOPs per video, a curve of gate thresholds for each training"
    return Exhibit(
        material.report,
        (Sheet(material.report.heading, AREAS, rows), Sheet("One policy at many budgets", COLUMNS, points)),
        (Picture(drawing.png, alt),),
        notes=(
            "Usage, GFLOPs and accuracies of the first table are at the policy's own threshold. A curve is one "
            "trained policy at gate thresholds chosen on the training videos.",
            f"Area: mean top-1 of the curve's convex hull over budgets from {budgets[0]:.2f} to {budgets[1]:.2f} "
            "GFLOPs, which all curves cover; low and high are the ends of its bootstrap interval over "
            f"{material.drawn}. "
            "Random: the same networks with gates opened at random. Oracle: for each video the cheapest threshold "
            "at which the policy is right, traded against cost, at the same prices for all seeds.",
        ),
    )


def _area(
    curves: Sequence[Curve], budgets: tuple[float, float], resamples: int
) -> tuple[float, float | None, float | None]:
    """Mean over seeds of the area under the hull in percent, and its bootstrap interval."""
    value = float(np.mean([_clipped_area(curve.gflops, 100 * curve.top1, budgets) for curve in curves]))
    if not resamples:
        return value, None, None
    of_first = curves[0].points[0].predictions
    weights = resampled_weights(len(of_first.video_ids), resamples, 0, of_first.groups)
    areas = np.zeros(resamples)
    for curve in curves:
        predictions = [point.predictions for point in curve.points]
        costs = [weighted_mean(one.gflops.mean(axis=0), weights) for one in predictions]
        correct = [weighted_mean(100.0 * one.correct.mean(axis=0), weights) for one in predictions]
        samples = zip(np.array(costs, np.float64).T, np.array(correct, np.float64).T, strict=True)
        areas += np.array([_clipped_area(*sample, budgets) for sample in samples]) / len(curves)
    interval = percentile_interval(value, areas)
    return value, interval.low, interval.high


def _clipped_area(costs: FloatArray, accuracies: FloatArray, budgets: tuple[float, float]) -> float:
    """`hull_area`, starting at the cheapest point if that costs more than the least budget, which may happen in a
    sample of the videos, or with an oracle."""
    low, high = budgets
    return hull_area(costs, accuracies, min(max(low, float(costs.min())), np.nextafter(high, low)), high)
