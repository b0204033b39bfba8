"""What the exhibits of model selection share: the curves of a row's seeds, their controls, lines, areas."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policy.evaluation.curves import FloatArray, upper_hull
from policy.evaluation.metrics import Interval
from policy.selection.area import Comparison, Drawn, Metric, compare
from policy.selection.controls import cascade, ensemble, oracle, random_mixtures, single_models
from policy.selection.curve import SelectionCurve
from policy.selection.pool import PoolTable
from policy.selection.pool_method import PoolMethod
from policy.sheets.sheet import Column, Value
from policy.tables.exhibits.exhibit import Material
from policy.tables.plots.curves import Kind, Line, accuracy_against_cost

RANDOM = "random selection"
MODELS = "models of the pool"
CASCADE = "confidence cascade"
ORACLE = "oracle"
_BETWEEN = 60
HIT = "HIT@1 (%)"

CONTROLS_NOTE = (
    "Random selection: the upper hull of the models by themselves, which choosing among them at random makes "
    "achievable (in mAP: what random draws come to). Ensemble: the mean of the cheapest 1, 2, … models. "
    "Confidence cascade: from the cheapest model up until one is sure enough; committee cascade: until the mean "
    "of those that ran is. Oracle: per video the cheapest model that is right, traded against cost. A selector is "
    "always charged for the model that it looks at."
)


@dataclass(frozen=True)
class Selected:
    """The selectors of a row, which choose once or again after each model.

    Attributes:
        curves: of each seed, with as many points as the others, on one table.
        points: of each seed, the one at which its threshold or price is.
        training: what the pool says of the training videos.
    """

    name: str
    kind: Kind
    curves: tuple[SelectionCurve, ...]
    points: tuple[SelectionCurve, ...]
    training: PoolTable

    @property
    def table(self) -> PoolTable:
        return self.curves[0].table


def select(material: Material, row: str) -> Selected:
    """Args:
    row: one whose method chooses from a pool.
    """
    material.say(
        f"{material.title(row)}: curves of {'prices' if material.selecting(row).by_price else 'thresholds'}"
    )
    curves, points = [], []
    for trained in material.trained(row):
        method = trained.method()
        assert isinstance(method, PoolMethod), "rows that choose from a pool are"
        curves.append(method.curve(trained.evaluation, material.device))
        points.append(method.at_threshold(trained.evaluation, material.device))
        training, _ = method.look(trained.data.train)
    emphasised = next(one.emphasised for one in material.table.experiments if one.name == row)
    fewest = min(len(curve.values) for curve in curves)
    # The pool says the same whatever the seed: one table is enough, and no small one.
    table = curves[0].table
    return Selected(
        material.title(row),
        "proposed" if emphasised else "baseline",
        tuple(_on(table, curve.thinned(fewest)) for curve in curves),
        tuple(_on(table, point) for point in points),
        training,
    )


def _on(table: PoolTable, curve: SelectionCurve) -> SelectionCurve:
    alike = np.array_equal(table.losses, curve.table.losses)
    return replace(curve, table=table) if alike else curve


def controls(selected: Selected, metric: Metric = "top1") -> dict[str, Drawn]:
    """What a selector is compared with, by name."""
    table = selected.table
    every: dict[str, SelectionCurve] = {
        "ensemble": ensemble(table),
        CASCADE: cascade(table, selected.training),
        "committee cascade": cascade(table, selected.training, committee=True),
        ORACLE: oracle(table),
    }
    if metric == "top1":
        return {RANDOM: single_models(table), **every}
    return {RANDOM: random_mixtures(table), **every}


def thinned(curve: Drawn, points: int) -> Drawn:
    """With at most so many points."""
    if isinstance(curve, SelectionCurve):
        return curve.thinned(points)
    return [one.thinned(points) for one in curve]


def beside(
    compared: Comparison, points: Sequence[SelectionCurve], metric: Metric, resamples: int
) -> Comparison:
    """The same with the mean of some curves of one point (`Comparison.at`), under the same bootstrap samples."""
    at = compare({"at": points}, metric=metric, resamples=resamples)
    return replace(compared, at=at.curves["at"])


def line(
    name: str, kind: Kind, compared: Comparison, *, band: bool = False, labels: Sequence[str] = ()
) -> Line:
    """A curve of a comparison, its accuracy in percent over its GFLOPs.

    Args:
        band: with the bootstrap interval of each point.
    """
    points = compared.curves[name]
    order = np.argsort(points.gflops[0], kind="stable")
    ys = 100 * points.accuracies[:, order]
    low, high = np.quantile(ys[1:], (0.025, 0.975), axis=0) if band and len(ys) > 1 else ((), ())
    return Line(
        name,
        kind,
        points.gflops[0, order].tolist(),
        ys[0].tolist(),
        low=list(map(float, low)),
        high=list(map(float, high)),
        labels=[labels[k] for k in order] if labels else (),
    )


def models_line(table: PoolTable, metric: Metric = "top1") -> Line:
    """The models by themselves, as points with their names."""
    single = single_models(table)
    accuracies = single.top1 if metric == "top1" else single.mean_average_precision
    return Line(MODELS, "models", single.gflops.tolist(), (100 * accuracies).tolist(), labels=table.models)


def control_lines(compared: Comparison) -> list[Line]:
    """Of all controls that are in a comparison."""
    kinds: Mapping[str, Kind] = {
        "ensemble": "control",
        CASCADE: "control",
        "committee cascade": "control",
        ORACLE: "oracle",
    }
    random = compared.curves[RANDOM]
    return [
        random_line(random.gflops[0], 100 * random.accuracies[0]),
        *(line(name, kind, compared) for name, kind in kinds.items()),
    ]


def beside_controls(
    chosen: Collection[Selected], compared: Comparison, *, title: str, subtitle: str
) -> bytes:
    """A PNG of selectors that choose from one pool, the models of it and the controls."""
    table = next(iter(chosen)).table
    return accuracy_against_cost(
        [
            *(line(one.name, one.kind, compared, band=one.kind == "proposed") for one in chosen),
            models_line(table),
            *control_lines(compared),
        ],
        title=title,
        subtitle=subtitle,
        accuracy=HIT,
    )


def random_line(costs: FloatArray, percents: FloatArray) -> Line:
    """What choosing at random among points makes achievable. Straight lines bend on logarithmic axes."""
    corners = upper_hull(costs, percents)
    between = np.geomspace(costs[corners[0]], costs[corners[-1]], _BETWEEN)[1:-1]
    xs = np.union1d(costs[corners], between)
    return Line(RANDOM, "random", xs.tolist(), np.interp(xs, costs[corners], percents[corners]).tolist())


CURVES = (
    Column("method", "method"),
    Column("point", "point"),
    Column("GFLOPs", "gflops", 2),
    Column("HIT@1 %", "top1_percent"),
    Column("low", "top1_percent_low"),
    Column("high", "top1_percent_high"),
)


ABOVE_RANDOM = (
    Column("above random, points", "above_random", 2),
    Column("low", "above_random_low", 2),
    Column("high", "above_random_high", 2),
)
"""Those of an area, by `in_points`."""


def curve_columns(table: PoolTable) -> tuple[Column, ...]:
    """Those of `curve_rows`: after the others the share of the videos that each model answers."""
    return (*CURVES, *(Column(f"{name} %", f"{name}_percent") for name in table.models))


def curve_rows(name: str, curve: Drawn, compared: Comparison, point: str) -> Iterator[list[Value]]:
    """A row for each point; means over seeds.

    Args:
        point: what sets its budget.
    """
    draws = [curve] if isinstance(curve, SelectionCurve) else list(curve)
    values = np.mean([one.values for one in draws], axis=0)
    shares = np.mean([one.shares for one in draws], axis=0)
    points = compared.curves[name]
    ends = np.quantile(points.accuracies[1:], (0.025, 0.975), axis=0) if len(points.accuracies) > 1 else None
    for k, value in enumerate(values):
        yield [
            name,
            f"{point} {value:.3g}",
            float(points.gflops[0, k]),
            float(100 * points.accuracies[0, k]),
            *([None, None] if ends is None else [float(100 * ends[0, k]), float(100 * ends[1, k])]),
            *(float(100 * share) for share in shares[k]),
        ]


def point_rows(
    curves: Mapping[str, Drawn], compared: Comparison, kinds: Mapping[str, str] | None = None
) -> list[list[Value]]:
    """`curve_rows` of several curves, one after another.

    Args:
        kinds: what sets the budget of a curve that is no control, where there is more to say than its value.
    """
    named = {**POINT, **(kinds or {})}
    return [
        row
        for name, curve in curves.items()
        for row in curve_rows(name, curve, compared, named.get(name, "at"))
    ]


def at_own_point(material: Material, row: str) -> list[Value]:
    """Mean GFLOPs and HIT@1 in percent of a row's runs, at the thresholds or prices that they decide at."""
    results = [run.result for run in material.runs[row]]
    return [
        float(np.mean([result.gflops_mean for result in results])),
        float(np.mean([100 * result.metrics["top1"] for result in results])),
    ]


POINT = {
    RANDOM: "model",
    "ensemble": "models",
    CASCADE: "threshold",
    "committee cascade": "threshold",
    ORACLE: "price",
}
"""What sets the budget of a control."""


def area_notes(compared: Comparison) -> list[str]:
    """Over which budgets areas are."""
    if compared.budgets is None:
        return ["No areas: there are no budgets that all curves cover."]
    low, high = compared.budgets
    return [
        f"Areas: mean height between the upper hulls of two curves over the budgets from {low:.2f} GFLOPs per "
        f"video, where all curves have a point, to {high:.2f}, which the dearest model costs."
    ]


def in_points(figure: Interval | None) -> list[Value]:
    """Value and ends of a difference, in percentage points; None where there are none."""
    if figure is None:
        return [None, None, None]
    return [None if math.isnan(v) else 100 * v for v in (figure.value, figure.low, figure.high)]
