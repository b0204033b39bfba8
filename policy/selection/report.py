"""The details of a finished selector: its curve, and what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from policy.evaluation.metrics import Interval
from policy.selection.area import Comparison, Drawn, compare, draws_of
from policy.selection.config import SelectionConfig, SelectorConfig
from policy.selection.controls import (
    cascade,
    ensemble,
    oracle,
    random_mixtures,
    single_models,
    weighted_cascade,
)
from policy.selection.curve import SelectionCurve
from policy.selection.pool import PoolTable

MOST_RANKED = 2 * 10**9
"""Points · videos · classes for which mAP is computed, though at least five points of a curve: a minute or two."""
MOST_POINTS = 20
"""Of a curve with mAP."""


def describe(
    config: SelectionConfig,
    *,
    input_model: Mapping[str, Any],
    point: SelectionCurve,
    curve: SelectionCurve,
    calibrated: PoolTable,
    training: PoolTable,
    affinities: Tensor | None,
) -> Mapping[str, Any]:
    """Ready for JSON. Accuracies are in [0, 1], costs in mean GFLOPs per video of the evaluation subset.

    models: of the pool, the cheapest first, each by itself; `chosen` is the share of the videos it is chosen for.
    own: the model that always runs, and the selector's network.
    affinity: share of the training videos whose best model is each (Eq. 2; with soft affinities their mean).
    threshold: the threshold, or the price of a GFLOP, and the budget that set it; of a policy that was moved after
    training, "found_on" says on which videos.
    point: the selector at its threshold.
    curves: the selector at other thresholds, and its controls; with several classes per video with mAP, at fewer
    points where there is much to rank.
    comparisons: by metric, `top1` and with several classes per video `map`. `above_random`: area between a curve
    and random selection, `selector_above`: between the selector's and another, both over the `budgets`
    (`policy.selection.area`); `equal_cost`: the point above each curve at equal cost. All with bootstrap intervals
    over videos, null where these would have taken too long.
    groups: of these videos, how many; samples have whole ones. Not there where nothing is known of them.

    Args:
        input_model: shown as `own`.
        point: the selector at its threshold, on the evaluation subset.
        curve: the selector at other thresholds, on the same table.
        calibrated, training: the pool's predictions for the evaluation and the training videos, as
            `PoolMethod.calibrated`: of cascades and averages.
        affinities: (M, N) of the training videos; None where something else is learned.
    """
    table = point.table
    curves: dict[str, Drawn] = {
        "selector": curve,
        "random": single_models(table),
        "cascade": cascade(calibrated, training),
        "committee": cascade(calibrated, training, committee=True),
        "weighted": weighted_cascade(calibrated, training),
        "ensemble": ensemble(calibrated),
        "oracle": oracle(table),
    }
    comparisons = {"top1": _compared(compare(curves, at=point))}
    if table.multi_label:
        draws = max(1, min(3, 30_000 // len(table)))  # many videos are as good as many draws
        random = random_mixtures(table, draws=draws, seed=config.seed)
        curves = _thinned(curves, table) | {"random": random}
        comparisons["map"] = _compared(compare(curves, at=point, metric="map"))
    return {
        "models": _models(single_models(table), point),
        "own": input_model,
        "affinity": _affinity(config, affinities),
        "threshold": {"value": float(point.values[0]), "is_price": config.by_price, "budget": config.budget},
        "point": {name: values[0] for name, values in _points(point, ranked=True).items()},
        "curves": {name: _points(drawn, ranked=table.multi_label) for name, drawn in curves.items()},
        "comparisons": comparisons,
        **({"groups": len(set(table.groups))} if table.groups else {}),
    }


def _thinned(curves: Mapping[str, Drawn], table: PoolTable) -> dict[str, Drawn]:
    """The same with few enough points for all to have their mAP."""
    most = min(MOST_POINTS, max(5, MOST_RANKED // (len(curves) * table.labels.size)))
    return {name: curve.thinned(most) for name, curve in curves.items() if isinstance(curve, SelectionCurve)}


def _models(single: SelectionCurve, point: SelectionCurve) -> list[dict[str, Any]]:
    points = _points(single, ranked=True)
    del points["value"]
    return [
        {
            "name": name,
            **{key: values[n] for key, values in points.items()},
            "chosen": float(point.shares[0, n]),
        }
        for n, name in enumerate(single.table.models)
    ]


def _affinity(config: SelectionConfig, affinities: Tensor | None) -> dict[str, Any] | None:
    if affinities is None or not isinstance(config, SelectorConfig):
        return None
    shares = affinities.mean(dim=0).tolist()
    return {"alpha": config.alpha, "kind": config.affinity, "loss": config.affinity_loss, "shares": shares}


def _points(curve: Drawn, *, ranked: bool) -> dict[str, list[float]]:
    """By rising cost; means over draws.

    Args:
        ranked: with mAP.
    """
    draws = draws_of(curve)
    measured = {
        "value": [draw.values for draw in draws],
        "gflops": [draw.gflops for draw in draws],
        "top1": [draw.top1 for draw in draws],
    }
    if ranked:
        measured["mean_average_precision"] = [draw.mean_average_precision for draw in draws]
    return {name: np.mean(values, axis=0).tolist() for name, values in measured.items()}


def _compared(comparison: Comparison) -> dict[str, Any]:
    others = [name for name in comparison.curves if name != "selector"]
    return {
        "budgets": comparison.budgets,
        "above_random": {
            name: _interval(comparison.area_above(name, "random"))
            for name in comparison.curves
            if name != "random"
        },
        "selector_above": {name: _interval(comparison.area_above("selector", name)) for name in others},
        "equal_cost": {name: _interval(comparison.point_above(name)) for name in others},
    }


def _interval(figure: Interval | None) -> dict[str, float | None] | None:
    if figure is None:
        return None
    return {name: None if math.isnan(value) else value for name, value in vars(figure).items()}
