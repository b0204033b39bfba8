"""Beyond the paper: ways to choose among the models of a pool, each at many budgets."""

from __future__ import annotations

import numpy as np

from policy.selection.area import Comparison
from policy.sheets.sheet import Column, Picture, Sheet, Value, with_ends
from policy.tables.exhibits import selection_parts as parts
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.plots.curves import draw_against_cost

WAYS = (
    Column("method", "method"),
    Column("at", "at"),
    Column("GFLOPs", "gflops", 2),
    Column("HIT@1 %", "top1_percent"),
    *parts.ABOVE_RANDOM,
    *with_ends(Column("above the cascade, points", "above_cascade", 2)),
)


def make(material: Material) -> Exhibit:
    """From all rows, each a way to choose; the models' outputs and costs are the same for all."""
    ways = {one.name: parts.select(material, one.name) for one in material.table.experiments}
    first = next(iter(ways.values()))
    curves, compared = parts.with_controls(material, ways.values(), first)
    rows: list[list[Value]] = []
    budgets = {}
    for name, way in ways.items():
        budgets[way.name] = budget = parts.budget_of(material, name)
        at = f"{budget} {np.mean([point.values[0] for point in way.points]):.3g}"
        means = material.means(name, "gflops", "top1_percent")
        rows.append([way.name, at, *means, *_areas(compared, way.name)])
    rows += [[name, None, None, None, *_areas(compared, name)] for name in parts.BUDGET_OF_CONTROL]
    points = parts.point_rows(curves, compared, budgets)
    drawing = draw_against_cost(
        parts.lines_with_controls(ways.values(), compared), **material.titles(), accuracy=parts.HIT
    )
    return Exhibit(
        material.report,
        (
            Sheet(material.report.heading, WAYS, rows),
            Sheet("Curves", parts.curve_columns(first.table), points, detail=True),
        ),
        (Picture(drawing.png, "HIT@1 against GFLOPs per video, a curve for each way to choose"),),
        notes=(
            "GFLOPs and HIT@1 of the first table are at the run's own threshold on the confidence in a model, or "
            "price of a GFLOP. A curve is one trained selector at others; all look at the same model first.",
            "The cascade is the confidence cascade; low, high and bands are 95 % bootstrap intervals over "
            f"{material.drawn}, those of differences from the same samples.",
            _epochs(material),
            "Selector and selection and cascade answer with a weighted sum of the log-probabilities of all models "
            "that ran, which may be right where no model is: the oracle is no bound for them. Mean: with their "
            "mean; largest: with those of the largest of them.",
            *parts.area_notes(compared),
            parts.CONTROLS_NOTE,
        ),
    )


def _epochs(material: Material) -> str:
    by_method = {one.config.method: one.config.epochs for one in material.order.requests.values()}
    epochs = ", ".join(f"{epochs} ({method})" for method, epochs in by_method.items())
    return f"Epochs of training: {epochs}; --epochs gives all the same number."


def _areas(compared: Comparison, name: str) -> list[Value]:
    """Above random selection, and above the confidence cascade."""
    others = parts.RANDOM, parts.CASCADE
    above = (compared.area_above(name, other) if name != other else None for other in others)
    return [value for difference in above for value in parts.in_points(difference)]
