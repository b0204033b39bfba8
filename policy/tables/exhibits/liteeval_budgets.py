"""Beyond the paper: one trained policy at many budgets, and how each way of training it compares."""

from __future__ import annotations

from policy.evaluation.curves import common_budgets
from policy.evaluation.operating import Curve
from policy.liteeval.budgets import USAGES, oracle_curves, random_curve, threshold_curve
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.method import LiteEvalMethod
from policy.sheets.sheet import Column, Picture, Sheet, Value, with_ends
from policy.tables.exhibits.areas import Outcomes, area, as_values
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
            by_seed.append(threshold_curve(method, one.evaluation, USAGES, videos, device=device))
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
        found, of_random, of_oracle = (
            area([*map(Outcomes.of, curves_of)], budgets, resamples)
            for curves_of, resamples in ((by_seed, material.resamples), (random, 0), (oracles, 0))
        )
        means = material.means(row.name, "usage_percent", "gflops", "top1_percent", "map_percent")
        above_random = found.value - of_random.value
        rows.append([row.title, 100 * config.gamma, *means, *as_values(found), above_random, of_oracle.value])
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
