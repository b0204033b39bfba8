"""Beyond the paper: ways to choose among the models of a pool, each at many budgets."""

from __future__ import annotations

import numpy as np

from policy.selection.area import Comparison, compare
from policy.sheets.sheet import Column, Picture, Sheet, Value
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.exhibits.selection import (
    ABOVE_RANDOM,
    CASCADE,
    CONTROLS_NOTE,
    POINT,
    RANDOM,
    Selected,
    area_notes,
    at_own_point,
    beside_controls,
    controls,
    curve_columns,
    in_points,
    point_rows,
    select,
)

WAYS = (
    Column("method", "method"),
    Column("at", "at"),
    Column("GFLOPs", "gflops", 2),
    Column("HIT@1 %", "top1_percent"),
    *ABOVE_RANDOM,
    Column("above the cascade, points", "above_cascade", 2),
    Column("low", "above_cascade_low", 2),
    Column("high", "above_cascade_high", 2),
)


def make(material: Material) -> Exhibit:
    """Rows it reads: all, each a way to choose; what the models say, and what it costs, is the same for all."""
    names = [one.name for one in material.table.experiments]
    ways = {name: select(material, name) for name in names}
    first = ways[names[0]]
    curves = {**{one.name: one.curves for one in ways.values()}, **controls(first)}
    compared = compare(curves, resamples=material.resamples)
    rows = [[way.name, *_at(material, name, way), *_areas(compared, way.name)] for name, way in ways.items()]
    rows += [[name, None, None, None, *_areas(compared, name)] for name in POINT]
    points = point_rows(curves, compared, {way.name: _kind(material, name) for name, way in ways.items()})
    picture = beside_controls(ways.values(), compared, title=material.table.title, subtitle=material.subtitle)
    return Exhibit(
        material.report,
        (
            Sheet(material.heading, WAYS, rows),
            Sheet("Curves", curve_columns(first.table), points, detail=True),
        ),
        (Picture(picture, "HIT@1 against GFLOPs per video, a curve for each way to choose"),),
        notes=(
            "GFLOPs and HIT@1 of the first table are at the run's own threshold on the confidence in a model, or "
            "price of a GFLOP. A curve is one trained selector at others; all look at the same model first.",
            "The cascade is the confidence cascade; low, high and bands are 95 % bootstrap intervals over videos, "
            "those of differences from the same samples.",
            _epochs(material),
            "Selection and cascade answers with what it learned from the class scores of all models that ran, "
            "which may be right where no model is: the oracle is no bound for it. Largest: the answer is that of "
            "the largest of them.",
            *area_notes(compared),
            CONTROLS_NOTE,
        ),
    )


def _at(material: Material, row: str, way: Selected) -> list[Value]:
    value = np.mean([point.values[0] for point in way.points])
    return [f"{_kind(material, row)} {value:.3g}", *at_own_point(material, row)]


def _kind(material: Material, row: str) -> str:
    """Of what sets a row's budget."""
    return "price" if material.selecting(row).by_price else "threshold"


def _epochs(material: Material) -> str:
    by_method = {one.config.method: one.config.epochs for one in material.asked.values()}
    said = ", ".join(f"{epochs} ({method})" for method, epochs in by_method.items())
    return f"Epochs of training: {said}; --epochs gives all the same number."


def _areas(compared: Comparison, name: str) -> list[Value]:
    """Above random selection, and above the confidence cascade."""
    above = (compared.area_above(name, other) if name != other else None for other in (RANDOM, CASCADE))
    return [value for figure in above for value in in_points(figure)]
