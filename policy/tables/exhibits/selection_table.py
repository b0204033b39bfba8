"""Table 1 of the model selection paper: the selector at a given cost beside everything else at that cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from policy.evaluation.curves import hull_height
from policy.selection.area import Comparison, Drawn, Metric, compare
from policy.selection.config import threshold_of
from policy.selection.controls import single_models
from policy.selection.curve import SelectionCurve
from policy.sheets.sheet import Column, Picture, Sheet, Value, with_ends
from policy.tables.datasets import dataset_title
from policy.tables.exhibits import selection_parts as parts
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.experiment import MEASURES, Experiment, Measure
from policy.tables.plots.curves import Line, draw_against_cost

RANKED = 10
"""Points of a curve for which mAP is computed, which takes a sort for each class and point."""
PAPER_MODELS = {"x3d-m": "x3d_m"}
"""Rows that cite a single model, and its stream."""

METRICS: Mapping[Metric, Measure] = {"top1": "top1_percent", "map": "map_percent"}
"""Metrics of `policy.selection.area`, and their names in tables."""

SHOWN: tuple[Measure, ...] = ("gflops", "top1_percent", "map_percent")
LEAD = with_ends(Column("lead, points", "lead", 2))
OURS = (
    Column("method", "method"),
    Column("GFLOPs", "gflops", 2),
    Column("HIT@1 %", "top1_percent"),
    Column("mAP %", "map_percent"),
    *LEAD,
)
AREAS = (Column("method", "method"), *parts.ABOVE_RANDOM, *LEAD)


def make(material: Material) -> Exhibit:
    """From the only row that chooses from a pool; the others look at rows, or cite."""
    [ours] = [one for one in material.table.experiments if one.models]
    selected = parts.select(material, ours.name)
    metric: Metric = "map" if selected.table.multi_label else "top1"
    compared = {name: _compared(selected, name, material) for name in METRICS}
    columns = (*OURS, *_paper_columns(material))
    first = Sheet(material.report.heading, columns, [*_rows(material, ours, selected, metric, compared)])
    areas = [_area(compared[metric], name, selected.name) for name in compared[metric].curves]
    curves = {selected.name: selected.curves, **parts.controls(selected)}
    points = parts.point_rows(curves, compared["top1"])
    accuracy = MEASURES[METRICS[metric]].removesuffix(" %") if metric == "map" else "HIT@1"
    drawing = draw_against_cost(
        [
            parts.line(selected.name, "proposed", compared[metric], band=True),
            parts.models_line(selected.table, metric),
            *parts.control_lines(compared[metric]),
            *_cited(material, METRICS[metric]),
        ],
        **material.titles(),
        accuracy=f"{accuracy} (%)",
    )
    return Exhibit(
        material.report,
        (
            first,
            Sheet("Areas between curves", AREAS, areas),
            Sheet("Curves", parts.curve_columns(selected.table), points, detail=True),
        ),
        (Picture(drawing.png, f"{accuracy} against GFLOPs per video, a curve for each method"),),
        notes=(
            _operating_point(material, ours, len(selected.table.models)),
            f"Controls are shown at the cost of {selected.name}. Its lead: by how much it is above them there "
            f"or, of areas, over all budgets, in {accuracy}. Low, high: the ends of 95 % bootstrap intervals over "
            "videos.",
            *parts.area_notes(compared[metric]),
            parts.CONTROLS_NOTE,
        ),
    )


def _rows(
    material: Material,
    ours: Experiment,
    selected: parts.Selected,
    metric: Metric,
    compared: Mapping[Metric, Comparison],
) -> Iterator[list[Value]]:
    columns = _paper_columns(material)
    published = {one.name: _published(one, columns) for one in material.table.experiments}
    means = material.means(ours.name, *SHOWN)
    cost = float(np.mean([run.result.gflops_mean for run in material.runs(ours.name)]))
    yield [selected.name, *means, *parts.in_points(None), *published.pop(ours.name)]
    single = single_models(selected.table)
    substituted = material.report.row(ours.name).substituted
    names = {substituted.get(stream, stream): name for name, stream in PAPER_MODELS.items()}
    for n, stream in enumerate(selected.table.models):
        accuracies = 100 * single.top1[n], 100 * single.mean_average_precision[n]
        yield [
            f"{stream} alone",
            float(single.gflops[n]),
            *map(float, accuracies),
            *parts.in_points(None),
            *published.pop(names.get(stream, ""), [None] * len(columns)),
        ]
    for name in parts.BUDGET_OF_CONTROL:
        heights = [_height(compared[of], name, cost) for of in METRICS]
        above = parts.in_points(compared[metric].point_above(name))
        yield [name, cost, *heights, *above, *[None] * len(columns)]
    for row in material.report.rows:
        if row.name in published:
            trained = material.means(row.name, *SHOWN) if row.built else [None] * len(SHOWN)
            yield [row.title, *trained, *parts.in_points(None), *published[row.name]]


def _compared(selected: parts.Selected, metric: Metric, material: Material) -> Comparison:
    curves = {selected.name: selected.curves, **parts.controls(selected, metric)}
    resamples = material.resamples
    if metric == "map":
        curves = {name: _thinned(curve) for name, curve in curves.items()}
        # With single labels, mAP has no interval: it is only shown beside HIT@1.
        resamples = resamples if selected.table.multi_label else 0
    # The point at which the selector decides has a comparison of its own, under the same bootstrap samples.
    at = compare({"at": selected.points}, metric=metric, resamples=resamples).curves["at"]
    return replace(compare(curves, metric=metric, resamples=resamples), at=at)


def _thinned(curve: Drawn) -> Drawn:
    """At most RANKED points of a curve."""
    return curve.thinned(RANKED) if isinstance(curve, SelectionCurve) else [c.thinned(RANKED) for c in curve]


def _height(compared: Comparison, name: str, budget: float) -> float | None:
    """Accuracy in percent at a cost; None where a curve has no point as cheap."""
    points = compared.curves[name]
    height = hull_height(points.gflops[0], points.accuracies[0], budget)
    return None if np.isnan(height) else 100 * height


def _area(compared: Comparison, name: str, ours: str) -> list[Value]:
    above = compared.area_above(name, parts.RANDOM) if name != parts.RANDOM else None
    beaten = compared.area_above(ours, name) if name != ours else None
    return [name, *parts.in_points(above), *parts.in_points(beaten)]


def _paper_columns(material: Material) -> tuple[Column, ...]:
    """A column for each measure that the paper prints for a data set."""
    columns = []
    for dataset in material.table.datasets:
        printed = {m for one in material.table.experiments for m in one.published.get(dataset, {})}
        columns += [
            Column(f"{dataset_title(dataset)} {MEASURES[measure]}, paper", f"paper_{dataset}_{measure}", 2)
            for measure in MEASURES
            if measure in printed
        ]
    return tuple(columns)


def _published(one: Experiment, columns: tuple[Column, ...]) -> list[Value]:
    values: dict[str, Value] = {
        f"paper_{dataset}_{measure}": printed.value
        for dataset, values in one.published.items()
        for measure, printed in values.items()
    }
    return [values.get(column.key) for column in columns]


def _cited(material: Material, measure: Measure) -> list[Line]:
    """The paper's points for the data set of the cache, where that is known."""
    dataset = material.report.dataset or ""
    points = {
        one.title: (values["gflops"].value, values[measure].value)
        for one in material.table.experiments
        if {"gflops", measure} <= (values := one.published.get(dataset, {})).keys()
    }
    if not points:
        return []
    xs, ys = zip(*points.values(), strict=True)
    return [Line(dataset_title(dataset), "cited", xs, ys, labels=[*points])]


def _operating_point(material: Material, ours: Experiment, models: int) -> str:
    config = material.selecting(ours.name)
    if config.budget is None:
        return f"Operating point: --threshold {threshold_of(config, models):g}."
    printed = " as the paper prints it" if "budget" in ours.settings else ""
    return (
        f"Operating point: the threshold at which the training videos cost at most {config.budget:g} GFLOPs per "
        f"video{printed}."
    )
