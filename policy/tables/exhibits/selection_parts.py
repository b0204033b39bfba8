"""Shared by the exhibits of model selection: curves of a row's seeds, their controls, lines of figures, areas."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policy.evaluation.curves import FloatArray, upper_hull
from policy.evaluation.metrics import Interval
from policy.selection.area import Comparison, Drawn, Metric, Points, compare
from policy.selection.controls import cascade, ensemble, oracle, random_mixtures, single_models
from policy.selection.curve import SelectionCurve
from policy.selection.pool import PoolTable
from policy.selection.pool_method import PoolMethod
from policy.sheets.sheet import Column, Picture, Value, with_ends
from policy.tables.exhibits.areas import as_values
from policy.tables.exhibits.exhibit import Material
from policy.tables.plots.curves import Kind, Line, draw_against_cost

RANDOM = "random selection"
MODELS = "models of the pool"
ENSEMBLE, CASCADE, COMMITTEE, ORACLE = "ensemble", "confidence cascade", "committee cascade", "oracle"
BUDGET_OF_CONTROL = {
    RANDOM: "model",
    ENSEMBLE: "models",
    CASCADE: "threshold",
    COMMITTEE: "threshold",
    ORACLE: "price",
}
"""The controls, and the quantity that sets the budget of each."""
HIT = "HIT@1 (%)"
_BETWEEN = 60

CURVES = (
    Column("method", "method"),
    Column("point", "point"),
    Column("GFLOPs", "gflops", 2),
    *with_ends(Column("HIT@1 %", "top1_percent")),
)
ABOVE_RANDOM = with_ends(Column("above random, points", "above_random", 2))
"""The columns of an area, by `in_points`."""
CONTROLS_NOTE = (
    "Random selection: the upper hull of the models by themselves, which choosing among them at random makes "
    "achievable (in mAP: what random draws come to). Ensemble: the mean of the cheapest 1, 2, … models. "
    "Confidence cascade: from the cheapest model up until one is sure enough; committee cascade: until the mean "
    "of those that ran is. The class scores of all three have fitted temperatures, whatever a selector looks at. "
    "Oracle: per video the cheapest model that is right, traded against cost. A selector is always charged for "
    "the model that it looks at."
)


@dataclass(frozen=True)
class Selected:
    """The selectors of a row, which choose once or again after each model.

    Attributes:
        curves: one per seed, with equally many points, on one table where the seeds' tables are equal.
        points: per seed, the curve of one point at its threshold or price.
        calibrated, training: the models' outputs for these and for the training videos, as
            `PoolMethod.calibrated`.
    """

    name: str
    kind: Kind
    curves: tuple[SelectionCurve, ...]
    points: tuple[SelectionCurve, ...]
    calibrated: PoolTable
    training: PoolTable

    @property
    def table(self) -> PoolTable:
        return self.curves[0].table


def select(material: Material, row: str) -> Selected:
    """The selectors of a row whose method chooses from a pool."""
    material.say(f"{material.title(row)}: curves of {budget_of(material, row)}s")
    curves, points = [], []
    calibrated: list[PoolTable] = []
    for trained in material.trained(row):
        method = trained.method()
        assert isinstance(method, PoolMethod), "rows that choose from a pool are"
        curves.append(method.curve(trained.evaluation, material.device))
        points.append(method.at_threshold(trained.evaluation, material.device))
        if not calibrated:
            calibrated = [method.calibrated(videos) for videos in (trained.evaluation, trained.data.train)]
    fewest = min(len(curve.values) for curve in curves)
    # The models' outputs do not depend on the seed, and the tables are large: all seeds share one.
    table = curves[0].table
    return Selected(
        material.title(row),
        "proposed" if material.report.row(row).experiment.emphasised else "baseline",
        tuple(_on(table, curve.thinned(fewest)) for curve in curves),
        tuple(_on(table, point) for point in points),
        *calibrated,
    )


def _on(table: PoolTable, curve: SelectionCurve) -> SelectionCurve:
    return replace(curve, table=table) if np.array_equal(table.losses, curve.table.losses) else curve


def budget_of(material: Material, row: str) -> str:
    """The quantity that sets a row's budget: "price" or "threshold"."""
    return "price" if material.selecting(row).by_price else "threshold"


def controls(selected: Selected, metric: Metric = "top1") -> dict[str, Drawn]:
    """The controls that a selector is compared with, by name."""
    table, calibrated, training = selected.table, selected.calibrated, selected.training
    return {
        RANDOM: single_models(table) if metric == "top1" else random_mixtures(table),
        ENSEMBLE: ensemble(calibrated),
        CASCADE: cascade(calibrated, training),
        COMMITTEE: cascade(calibrated, training, committee=True),
        ORACLE: oracle(table),
    }


def with_controls(
    material: Material, selectors: Collection[Selected], main: Selected
) -> tuple[dict[str, Drawn], Comparison]:
    """The curves of selectors and of the controls of one of them, by name, and the comparison of all."""
    curves = {**{one.name: one.curves for one in selectors}, **controls(main)}
    return curves, compare(curves, resamples=material.resamples)


def emphasised(material: Material) -> str:
    """The name of the only emphasised row."""
    [name] = [one.name for one in material.table.experiments if one.emphasised]
    return name


def line(
    name: str, kind: Kind, compared: Comparison, *, band: bool = False, labels: Sequence[str] = ()
) -> Line:
    """A curve of a comparison, its accuracy in percent over its GFLOPs.

    Args:
        band: with the bootstrap interval of each point.
    """
    points = compared.curves[name]
    order = np.argsort(points.gflops[0], kind="stable")
    low, high = (100 * _ends(points)[:, order]).tolist() if band and len(points.gflops) > 1 else ((), ())
    return Line(
        name,
        kind,
        points.gflops[0, order].tolist(),
        (100 * points.accuracies[0, order]).tolist(),
        low=low,
        high=high,
        labels=[labels[k] for k in order] if labels else (),
    )


def _ends(points: Points) -> FloatArray:
    """(2, P): the ends of the bootstrap intervals of the accuracies."""
    return np.asarray(np.quantile(points.accuracies[1:], (0.025, 0.975), axis=0))


def models_line(table: PoolTable, metric: Metric = "top1") -> Line:
    """The models by themselves, as points with their names."""
    single = single_models(table)
    accuracies = single.top1 if metric == "top1" else single.mean_average_precision
    return Line(MODELS, "models", single.gflops.tolist(), (100 * accuracies).tolist(), labels=table.models)


def control_lines(compared: Comparison) -> list[Line]:
    """The lines of all controls in a comparison."""
    random = compared.curves[RANDOM]
    return [
        random_line(random.gflops[0], 100 * random.accuracies[0]),
        *(line(name, "control", compared) for name in (ENSEMBLE, CASCADE, COMMITTEE)),
        line(ORACLE, "oracle", compared),
    ]


def random_line(costs: FloatArray, percents: FloatArray) -> Line:
    """The accuracies that choosing at random among points achieves. Straight lines bend on logarithmic axes."""
    corners = upper_hull(costs, percents)
    between = np.geomspace(costs[corners[0]], costs[corners[-1]], _BETWEEN)[1:-1]
    xs = np.union1d(costs[corners], between)
    return Line(RANDOM, "random", xs.tolist(), np.interp(xs, costs[corners], percents[corners]).tolist())


def hit_picture(
    material: Material, lines: Sequence[Line], panel: str, what: str, alt: str, **labels: str
) -> Picture:
    """HIT@1 as one panel of several, such as "(a)".

    Args:
        what: what the panel shows, for its caption.
        alt: what is drawn, after "HIT@1 against".
        labels: of the axes, as `draw_against_cost` takes them.
    """
    drawing = draw_against_cost(lines, **material.titles(f" {panel}"), accuracy=HIT, **labels)
    return Picture(drawing.png, f"HIT@1 against {alt}", f"{panel} {material.table.title}: {what}")


def lines_with_controls(selectors: Collection[Selected], compared: Comparison) -> list[Line]:
    """Selectors that choose from one pool, the models of it and the controls."""
    return [
        *(line(one.name, one.kind, compared, band=one.kind == "proposed") for one in selectors),
        models_line(next(iter(selectors)).table),
        *control_lines(compared),
    ]


def curve_columns(table: PoolTable) -> tuple[Column, ...]:
    """The columns of `curve_rows`: the last ones are the share of the videos that each model answers."""
    return (*CURVES, *(Column(f"{name} %", f"{name}_percent") for name in table.models))


def curve_rows(name: str, curve: Drawn, compared: Comparison, budget: str) -> Iterator[list[Value]]:
    """A row for each point; means over seeds.

    Args:
        budget: the quantity that sets the budget of a point.
    """
    draws = [curve] if isinstance(curve, SelectionCurve) else list(curve)
    values = np.mean([one.values for one in draws], axis=0)
    shares = np.mean([one.shares for one in draws], axis=0)
    points = compared.curves[name]
    ends = 100 * _ends(points) if len(points.accuracies) > 1 else None
    for k, value in enumerate(values):
        yield [
            name,
            f"{budget} {value:.3g}",
            float(points.gflops[0, k]),
            float(100 * points.accuracies[0, k]),
            *([None, None] if ends is None else ends[:, k].tolist()),
            *(100 * shares[k]).tolist(),
        ]


def point_rows(
    curves: Mapping[str, Drawn], compared: Comparison, budgets: Mapping[str, str] | None = None
) -> list[list[Value]]:
    """`curve_rows` of several curves, one after another.

    Args:
        budgets: for curves that are no control, the quantity that sets their budget; by default "at".
    """
    named = {**BUDGET_OF_CONTROL, **(budgets or {})}
    rows = (curve_rows(name, curve, compared, named.get(name, "at")) for name, curve in curves.items())
    return [row for each in rows for row in each]


def area_notes(compared: Comparison) -> list[str]:
    """A sentence on the budgets over which areas are taken."""
    if compared.budgets is None:
        return ["No areas: there are no budgets that all curves cover."]
    low, high = compared.budgets
    return [
        f"Areas: mean height between the upper hulls of two curves over the budgets from {low:.2f} GFLOPs per "
        f"video, where all curves have a point, to {high:.2f}, which the dearest model costs."
    ]


def in_points(difference: Interval | None) -> list[Value]:
    """Value and ends of a difference, in percentage points; None where there are none."""
    return as_values(difference, 100)
