"""Accuracy against computation as a PNG: each row a point with its spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from policy.sheets.words import drawn
from policy.tables.datasets import dataset_title
from policy.tables.experiment import CONTROLS_GROUP, MEASURES
from policy.tables.placement import Box
from policy.tables.plots.labels import Mark, write_labels
from policy.tables.plots.style import (
    BLUE,
    GREY,
    LIGHT,
    VERMILLION,
    Style,
    heading,
    key,
    legend,
    new_figure,
    plain_axes,
    png,
    scale_cost,
    scale_percent,
    settle,
)
from policy.tables.report import MARK, Report, Row

EMPHASIS = Style("proposed", VERMILLION, "*", 15, weight="bold")
METHOD = Style("methods compared", BLUE, "o", 7)
CONTROL = Style("null controls", GREY, "D", 6, filled=False)
PAPER = Style("paper", LIGHT, "x", 6)


def render(report: Report) -> bytes:
    """The PNG.

    Raises:
        ValueError: no row is built.
    """
    figure, _ = draw(report)
    return png(figure)


def draw(report: Report) -> tuple[Figure, list[Box]]:
    """The figure and the boxes of its labels, in pixels."""
    marks = _marks(report)
    if not marks:
        raise ValueError(f"{report.table.name}: no row to draw")
    figure = new_figure(4.8)
    axes = figure.add_axes((0.1, 0.115, 0.87, 0.705))
    _axes(axes, marks, MEASURES[report.table.accuracy])
    for mark in marks:
        _mark(axes, mark)
    _heading(figure, report, marks)
    settle(figure)
    return figure, write_labels(figure, axes, marks)


def _marks(report: Report) -> list[Mark]:
    """The proposed method first: where there is little room, the first label is the nearest to its point."""
    built = [row for row in report.rows if row.built]
    ours = [_ours(row, _style(row), report) for row in built]
    ours.sort(key=lambda mark: mark.style is not EMPHASIS)
    if report.dataset is None:
        return ours
    paper = [
        Mark(_paper_label(row), PAPER, values["gflops"].value, values[report.table.accuracy].value)
        for row in report.rows
        if {"gflops", report.table.accuracy}
        <= (values := row.experiment.published.get(report.dataset, {})).keys()
    ]
    return [*ours, *paper]


def _paper_label(row: Row) -> str:
    """Of the methods that we have, only the proposed one: the others are where the paper's crosses crowd."""
    wanted = not row.built or row.experiment.emphasised
    return f"{row.experiment.title} (paper)" if wanted else ""


def _style(row: Row) -> Style:
    if row.experiment.emphasised:
        return EMPHASIS
    return CONTROL if row.experiment.group == CONTROLS_GROUP else METHOD


def _ours(row: Row, style: Style, report: Report) -> Mark:
    cost, accuracy = row.measures["gflops"], row.measures[report.table.accuracy]
    return Mark(row.title, style, cost.mean, accuracy.mean, cost.std or 0.0, accuracy.std or 0.0)


def _axes(axes: Axes, marks: Sequence[Mark], accuracy: str) -> None:
    plain_axes(axes, "GFLOPs per video (10⁹ multiply-accumulates)", f"{accuracy.removesuffix(' %')} (%)")
    # A spread that reaches zero or below does not, on a logarithmic axis.
    low = min(mark.x - mark.x_error if mark.x_error < mark.x else mark.x for mark in marks)
    scale_cost(axes, low, max(mark.x + mark.x_error for mark in marks))
    scale_percent(
        axes, min(mark.y - mark.y_error for mark in marks), max(mark.y + mark.y_error for mark in marks)
    )


def _mark(axes: Axes, mark: Mark) -> None:
    style = mark.style
    axes.errorbar(
        mark.x,
        mark.y,
        xerr=mark.x_error or None,
        yerr=mark.y_error or None,
        fmt=style.marker,
        markersize=style.size,
        color=style.colour,
        markerfacecolor=style.colour if style.filled else "white",
        markeredgewidth=1.2 if style.marker != "*" else 0.6,
        elinewidth=1.0,
        capsize=2.0,
        zorder=4 if style is EMPHASIS else 3,
    )


def _heading(figure: Figure, report: Report, marks: Sequence[Mark]) -> None:
    seeds = len(report.seeds)
    spread = f", mean and standard deviation of {seeds} seeds" if seeds > 1 else ""
    replaced = f"; {MARK} streams replaced" if any(row.marked for row in report.rows) else ""
    heading(figure, report.table.title, f"{report.labels_name}{spread}{replaced}")
    present = dict.fromkeys(mark.style for mark in marks)
    legend(figure, [key(style, drawn(_legend(style, report))) for style in present])


def _legend(style: Style, report: Report) -> str:
    if style is EMPHASIS:
        rows = [row for row in report.rows if row.built and row.experiment.emphasised]
        return rows[0].experiment.title if len(rows) == 1 else rows[0].runs[0].result.title
    return f"paper, {dataset_title(report.dataset)}" if style is PAPER and report.dataset else style.name
