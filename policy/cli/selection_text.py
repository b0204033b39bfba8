"""What model selection says in a terminal: a finished selector, and the affinities before it is trained."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from policy.runs import Result
from policy.selection.affinity import PAPER, LabelDistribution, label_distributions, relabelled
from policy.selection.config import SelectorConfig
from policy.selection.pool import PoolTable
from policy.sheets.sheet import NO_VALUE, Column, Sheet, Value
from policy.sheets.terminal import LONGEST_LINE, print_sheets, terminal_width, wrapped

_METRICS = {"top1": "HIT@1", "map": "mAP"}
_FIELDS = {"top1": "top1", "map": "mean_average_precision"}
_CONTROLS = {
    "random": "random selection",
    "cascade": "confidence cascade",
    "committee": "committee cascade",
    "oracle": "oracle",
}
_OPPONENTS = {
    "random": "random selection",
    "cascade": "the confidence cascade",
    "committee": "the committee cascade",
}
_OFF = 0.05
"""Cost beyond the budget, as a share of it, that is worth a word."""
_HARDLY = 0.01
"""Share of labels that change over the paper's range of α, below which that is said."""


def render(result: Result, details: Mapping[str, Any], folder: Path, *, width: int | None = None) -> str:
    """A selector's result beside the models of its pool and its controls, and which is better.

    Args:
        details: as `policy.selection.report.describe` gives them.
        width: of the terminal in characters, by default as it is.
    """
    width = width or terminal_width()
    table, _ = print_sheets([_sheet(details)], width=width)
    lines = [result.title, *_facts(result, details, folder, width), "", *table, ""]
    return "\n".join([*lines, *wrapped(list(_sentences(details)), width)])


def _facts(result: Result, details: Mapping[str, Any], folder: Path, width: int) -> Iterator[str]:
    own, threshold, affinity = details["own"], details["threshold"], details["affinity"]
    names = [model["name"] for model in details["models"]]
    where = "" if own["in_pool"] else ", not in the pool,"
    answering = "models that ran" if result.method == "selector-cascade" else "models answering"
    kind = "price of a GFLOP" if threshold["is_price"] else "threshold"
    others = sum(gflops for name, gflops in result.gflops.items() if name in names and name != own["model"])
    set_by = ""
    if threshold["budget"] is not None:
        more = result.gflops_mean / threshold["budget"] - 1
        off = f"; these cost {100 * more:.0f} % more" if more > _OFF else ""
        set_by = f", for {threshold['budget']:g} GFLOPs on the training videos{off}"
    facts = {
        "videos": f"{result.videos} of {result.classes} classes",
        "HIT@1": _percent(result.metrics["top1"]),
        "mAP": _percent(result.metrics["mean_average_precision"]),
        "GFLOPs per video": f"{_gflops(result.gflops_mean)} ± {_gflops(result.gflops_std)}  (the model that "
        f"always runs, {own['model']}{where} {_gflops(own['gflops'])}, others {_gflops(others)}, its "
        f"network {own['network_gflops']:.2g}; 10⁹ multiply-accumulates)",
        answering: _shares(names, [model["chosen"] for model in details["models"]]),
    }
    if affinity:
        shares = _shares(names, affinity["shares"])
        facts["affinity"] = f"{shares} of the training videos (α {affinity['alpha']:g})"
    facts[kind] = f"{threshold['value']:.4g}{set_by}"
    wide = max(map(len, facts))
    for name, value in facts.items():
        start = f"  {name:<{wide}}  "
        yield from textwrap.wrap(
            value,
            min(width, LONGEST_LINE),
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_on_hyphens=False,
        )
    yield f"  {'folder':<{wide}}  {folder}"  # in one line for the clipboard


def _sheet(details: Mapping[str, Any]) -> Sheet:
    """The selector, then the models by themselves, then the controls at the selector's cost."""
    compared, main, point, models = (
        details["comparisons"],
        _main(details),
        details["point"],
        details["models"],
    )
    columns = [
        Column(""),
        Column("GFLOPs\nper video", numeric=True),
        *(Column(f"{_METRICS[metric]} %", numeric=True) for metric in compared),
        Column(f"area above random,\npoints of {_METRICS[main]}", numeric=True),
    ]

    def row(name: str, at: Mapping[str, float], area: str = "") -> list[Value]:
        return _row(name, at["gflops"], [at[_FIELDS[metric]] for metric in compared], area)

    areas = {name: _area(figure) for name, figure in compared[main]["above_random"].items()}
    last = {name: values[-1] for name, values in details["curves"]["ensemble"].items()}
    rows = [
        row("selector", point, areas["selector"]),
        *(row(model["name"], model) for model in models),
        row(f"all {len(models)}, averaged", last),
    ]
    groups = {1: "", len(rows): ""}
    for name, title in _CONTROLS.items():
        behind = {metric: said["equal_cost"][name] for metric, said in compared.items()}
        heights = [
            point[_FIELDS[metric]] - figure["value"] if figure else None for metric, figure in behind.items()
        ]
        rows.append(_row(title, point["gflops"], heights, areas.get(name, "")))
    return Sheet("", columns, rows, groups=groups)


def _row(name: str, gflops: float, accuracies: Sequence[float | None], area: str) -> list[Value]:
    percents = [None if value is None else float(100 * value) for value in accuracies]
    return [name, _gflops(gflops), *percents, area]


def _sentences(details: Mapping[str, Any]) -> Iterator[str]:
    main = _main(details)
    made, metric = details["comparisons"][main], _METRICS[main]
    cost = _gflops(details["point"]["gflops"])
    for name, other in _OPPONENTS.items():
        if made["equal_cost"][name] is not None:
            yield f"At {cost} GFLOPs {_verdict(made['equal_cost'][name], other, metric)}."
    if made["budgets"] is None:
        yield "No areas: at no budget below the dearest model's cost have all curves a point."
        return
    low, high = map(_gflops, made["budgets"])
    for name, other in _OPPONENTS.items():
        if name == "random":  # the table has it
            continue
        verdict = _verdict(made["selector_above"][name], other, metric)
        yield f"On average from {low} to {high} GFLOPs {verdict}."
    if main == "map":
        yield "The oracle takes the cheapest model whose best-scored class is right, which need not raise mAP."
    yield (
        "Controls are shown at the selector's cost, on the line between their points around it. Area: mean height "
        "above random selection over those budgets. In brackets: 95 % intervals, bootstrap over videos."
    )


def _verdict(figure: Mapping[str, float | None], other: str, metric: str) -> str:
    """Which of the two is better, and whether that is more than chance."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    assert value is not None
    ahead, behind, sign = ("the selector", other, 100) if value >= 0 else (other, "the selector", -100)
    said = f"{ahead} is better than {behind} by {sign * value:.1f} points of {metric}"
    if low is None or high is None:
        return f"{said} (no interval: it would have taken too long)"
    low, high = sorted((sign * low, sign * high))
    if round(low, 1) == round(high, 1) == 0:
        return f"the selector is level with {other}"
    return f"{said} [{_number(low)}, {_number(high)}]{', which may be chance' if low <= 0 else ''}"


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


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _shares(names: Sequence[str], shares: Sequence[float]) -> str:
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(names, shares, strict=True))


def _gflops(value: float) -> str:
    """Two decimals, of small networks more."""
    return f"{value:.2f}" if value >= 0.1 or not value else f"{value:.3g}"


def render_affinities(
    table: PoolTable,
    config: SelectorConfig,
    alphas: Sequence[float],
    *,
    colour: bool = False,
    width: int | None = None,
) -> str:
    """Args:
    width: of the terminal in characters, by default as it is; no table is narrower than its numbers.
    """
    width = width or shutil.get_terminal_size().columns
    kind = "soft affinity" if config.affinity == "soft" else "model affinity"
    titles = ("α", *table.models, "GFLOPs", "top-1 %")
    rows: list[list[Value]] = [_cells(row) for row in label_distributions(table, config, alphas)]
    models = {
        "GFLOPs": [f"{value:.2f}" for value in table.mean_macs / 1e9],
        "top-1 %": [f"{value:.1f}" for value in 100 * table.correct.mean(axis=0)],
    }
    sheet = Sheet(
        f"Of {len(table):,} training videos, % with each {kind}",
        [Column(title, numeric=True) for title in titles],
        [*rows, *([title, *values, "", ""] for title, values in models.items())],
        groups={len(rows): ""},
    )
    lines, _ = print_sheets([sheet], colour=colour, width=width)
    return "\n".join([*lines, "", *wrapped(_state(table, config), width)]) + "\n"


def _cells(row: LabelDistribution) -> list[Value]:
    shares = [f"{100 * share:.1f}" for share in row.shares]
    return [f"{row.alpha:g}", *shares, f"{row.gflops:.2f}", f"{100 * row.top1:.1f}"]


def _state(table: PoolTable, config: SelectorConfig) -> list[str]:
    drawn = ", drawn by its affinities" if config.affinity == "soft" else ""
    lines = [
        f"GFLOPs and top-1: were each video judged by the model that it is labelled with{drawn}. The labels know "
        "the answers, a selector does not.",
    ]
    moved = relabelled(table, config, *PAPER)
    if moved < _HARDLY:
        low, high = PAPER
        lines.append(
            f"Between α = {low:g} and {high:g}, the paper's range, {100 * moved:.2g} % of the labels change: α "
            "hardly matters there, and it is the threshold that trades accuracy for computation."
        )
    return lines
