"""Model selection in a terminal: a finished selector, and the affinities before it is trained."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache_schema.command import count
from cache_schema.costs import gflops_digits
from policy.runs import Result
from policy.selection.affinity import PAPER, label_distributions, relabelled
from policy.selection.config import SelectorConfig
from policy.selection.pool import PoolTable
from policy.sheets.sheet import NO_VALUE, Column, Sheet, Value
from policy.sheets.terminal import LONGEST_LINE, print_sheets, terminal_width, wrapped
from policy.sheets.words import gflops_text

_METRICS = {"top1": "HIT@1", "map": "mAP"}
_FIELDS = {"top1": "top1", "map": "mean_average_precision"}
_CONTROLS = {
    "random": "random selection",
    "cascade": "confidence cascade",
    "committee": "committee cascade",
    "weighted": "committee cascade, weighted",
    "oracle": "oracle",
}
_OPPONENTS = {
    "random": "random selection",
    "cascade": "the confidence cascade",
    "committee": "the committee cascade",
}
_OVERRUN = 0.05
"""Cost beyond the budget, as a share of it, from which it is mentioned."""
_HARDLY = 0.01
"""Share of labels that change over the paper's range of α, below which a sentence says so."""


def render(result: Result, details: Mapping[str, Any], folder: Path, *, width: int | None = None) -> str:
    """A selector's result beside the models of its pool and its controls, and which is better.

    Args:
        details: as `policy.selection.report.describe` gives them.
        width: characters of a line; by default as the terminal has.
    """
    width = width or terminal_width()
    table, _ = print_sheets([_sheet(details)], width=width)
    lines = [result.title, *_facts(result, details, folder, width), "", *table, ""]
    return "\n".join([*lines, *wrapped(list(_sentences(details)), width)])


def _facts(result: Result, details: Mapping[str, Any], folder: Path, width: int) -> Iterator[str]:
    first, threshold, affinity = details["own"], details["threshold"], details["affinity"]
    models = {model["name"]: model["chosen"] for model in details["models"]}
    where = "" if first["in_pool"] else ", not in the pool,"
    answering = "models that ran" if result.method == "selector-cascade" else "models answering"
    kind = "price of a GFLOP" if threshold["is_price"] else "threshold"
    others = sum(spent for name, spent in result.gflops.items() if name in models and name != first["model"])
    set_by = ""
    if threshold["budget"] is not None:
        more = result.gflops_mean / threshold["budget"] - 1
        overrun = f"; these cost {100 * more:.0f} % more" if more > _OVERRUN else ""
        videos = threshold.get("found_on", "the training videos")
        set_by = f", for {threshold['budget']:g} GFLOPs on {videos}{overrun}"
    facts = {
        "videos": f"{result.videos} of {count(result.classes, 'classes')}",
        "HIT@1": f"{100 * result.metrics['top1']:.1f} %",
        "mAP": f"{100 * result.metrics['mean_average_precision']:.1f} %",
        "GFLOPs per video": f"{gflops_text(result.gflops_mean)} ± {gflops_text(result.gflops_std)}  (the model "
        f"that always runs, {first['model']}{where} {gflops_text(first['gflops'])}, others {gflops_text(others)}, "
        f"its network {gflops_digits(first['network_gflops'], 2)}; 10⁹ multiply-accumulates)",
        answering: _shares(models, models.values()),
    }
    if affinity:
        shares = _shares(models, affinity["shares"])
        facts["affinity"] = f"{shares} of the training videos (α {affinity['alpha']:g})"
    facts[kind] = f"{threshold['value']:.4g}{set_by}"
    longest = max(map(len, facts))
    for name, value in facts.items():
        start = f"  {name:<{longest}}  "
        yield from textwrap.wrap(
            value,
            min(width, LONGEST_LINE),
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_on_hyphens=False,
        )
    yield f"  {'folder':<{longest}}  {folder}"  # in one line for the clipboard


def _sheet(details: Mapping[str, Any]) -> Sheet:
    """The selector, then the models by themselves, then the controls at the selector's cost."""
    comparisons, point, models = details["comparisons"], details["point"], details["models"]
    main = _main(details)
    columns = [
        Column(""),
        Column("GFLOPs\nper video", numeric=True),
        *(Column(f"{_METRICS[metric]} %", numeric=True) for metric in comparisons),
        Column(f"area above random,\npoints of {_METRICS[main]}", numeric=True),
    ]
    areas = {name: _area(figure) for name, figure in comparisons[main]["above_random"].items()}

    def row(name: str, at: Mapping[str, Any], area: str = "") -> list[Value]:
        shares = (at[_FIELDS[metric]] for metric in comparisons)
        percents = (None if share is None else float(100 * share) for share in shares)
        return [name, gflops_text(at["gflops"]), *percents, area]

    ensemble = {name: values[-1] for name, values in details["curves"]["ensemble"].items()}
    rows = [
        row("selector", point, areas["selector"]),
        *(row(model["name"], model) for model in models),
        row(f"all {len(models)}, averaged", ensemble),
    ]
    groups = {1: "", len(rows): ""}
    for name, title in _CONTROLS.items():
        if name not in areas and name != "random":  # of a run of an earlier version
            continue
        at = {"gflops": point["gflops"]}
        for metric, comparison in comparisons.items():
            figure, field = comparison["equal_cost"][name], _FIELDS[metric]
            at[field] = point[field] - figure["value"] if figure else None
        rows.append(row(title, at, areas.get(name, "")))
    return Sheet("", columns, rows, groups=groups)


def _sentences(details: Mapping[str, Any]) -> Iterator[str]:
    main = _main(details)
    comparison, metric = details["comparisons"][main], _METRICS[main]
    cost = gflops_text(details["point"]["gflops"])
    for name, other in _OPPONENTS.items():
        if comparison["equal_cost"][name] is not None:
            yield f"At {cost} GFLOPs {_verdict(comparison['equal_cost'][name], other, metric)}."
    if comparison["budgets"] is None:
        yield "No areas: at no budget below the dearest model's cost have all curves a point."
        return
    low, high = map(gflops_text, comparison["budgets"])
    for name in ("cascade", "committee"):  # the table has that above random selection
        verdict = _verdict(comparison["selector_above"][name], _OPPONENTS[name], metric)
        yield f"On average from {low} to {high} GFLOPs {verdict}."
    if main == "map":
        yield "The oracle takes the cheapest model whose best-scored class is right, which need not raise mAP."
    drawn = f"{details['groups']:,} groups of videos" if "groups" in details else "videos"
    yield (
        "Controls are shown at the selector's cost, on the line between their points around it. Area: mean height "
        f"above random selection over those budgets. In brackets: 95 % intervals, bootstrap over {drawn}."
    )


def _verdict(figure: Mapping[str, Any], other: str, metric: str) -> str:
    """Which of the two is better, and whether that is more than chance."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    ahead, behind, sign = ("the selector", other, 100) if value >= 0 else (other, "the selector", -100)
    points = round(sign * value, 1)
    if points:
        verdict = f"{ahead} is better than {behind} by {points:.1f} points of {metric}"
    else:
        verdict, sign = f"the selector is level with {other}, to a tenth of a point of {metric}", 100
    if low is None or high is None:
        return f"{verdict} (no interval: it would have taken too long)"
    low, high = sorted((sign * low, sign * high))
    chance = ", which may be chance" if points and low <= 0 else ""
    return f"{verdict} [{_number(low)}, {_number(high)}]{chance}"


def _main(details: Mapping[str, Any]) -> str:
    return "map" if "map" in details["comparisons"] else "top1"


def _area(figure: Mapping[str, float | None] | None) -> str:
    if figure is None or figure["value"] is None:
        return NO_VALUE
    value, low, high = _number(100 * figure["value"]), figure["low"], figure["high"]
    if low is None or high is None:
        return value
    return f"{value} [{_number(100 * low)}, {_number(100 * high)}]"


def _number(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")  # no minus before zero


def _shares(names: Iterable[str], shares: Iterable[float]) -> str:
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(names, shares, strict=True))


def render_affinities(
    table: PoolTable,
    config: SelectorConfig,
    alphas: Sequence[float],
    *,
    colour: bool = False,
    width: int | None = None,
) -> str:
    """How the training videos are labelled at each α, beside the models by themselves.

    Args:
        width: characters of a line; by default as the terminal has. No table is narrower than its numbers.
    """
    width = width or shutil.get_terminal_size().columns
    kind = "soft affinity" if config.affinity == "soft" else "model affinity"
    rows: list[list[Value]] = [
        [
            f"{row.alpha:g}",
            *(f"{100 * share:.1f}" for share in row.shares),
            f"{row.gflops:.2f}",
            f"{100 * row.top1:.1f}",
        ]
        for row in label_distributions(table, config, alphas)
    ]
    models = {
        "GFLOPs": [f"{value:.2f}" for value in table.mean_macs / 1e9],
        "top-1 %": [f"{value:.1f}" for value in 100 * table.correct.mean(axis=0)],
    }
    sheet = Sheet(
        f"Of {len(table):,} training videos, % with each {kind}",
        [Column(title, numeric=True) for title in ("α", *table.models, *models)],
        [*rows, *([title, *values, "", ""] for title, values in models.items())],
        groups={len(rows): ""},
    )
    drawn = ", drawn by its affinities" if config.affinity == "soft" else ""
    sentences = [
        f"GFLOPs and top-1: were each video judged by the model that it is labelled with{drawn}. The labels know "
        "the answers, a selector does not."
    ]
    moved = relabelled(table, config, *PAPER)
    if moved < _HARDLY:
        low, high = PAPER
        sentences.append(
            f"Between α = {low:g} and {high:g}, the paper's range, {100 * moved:.2g} % of the labels change: α "
            "hardly matters there, and it is the threshold that trades accuracy for computation."
        )
    lines, _ = print_sheets([sheet], colour=colour, width=width)
    return "\n".join([*lines, "", *wrapped(sentences, width)]) + "\n"
