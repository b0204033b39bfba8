"""Accuracy against computation: each row of a table is a point with its spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from policy.sheets.words import drawn
from policy.tables.datasets import dataset_title
from policy.tables.experiment import CONTROLS_GROUP, MEASURES
from policy.tables.plots.labels import Mark, write_labels
from policy.tables.plots.style import (
    BLUE,
    GREY,
    LIGHT,
    VERMILLION,
    Drawing,
    Style,
    heading,
    key,
    legend,
    new_figure,
    plain_axes,
    scale_cost,
    scale_percent,
    settle,
)
from policy.tables.report import Report, Row

EMPHASIS = Style("proposed", VERMILLION, "*", 15, weight="bold")
METHOD = Style("methods compared", BLUE, "o", 7)
CONTROL = Style("null controls", GREY, "D", 6, filled=False)
PAPER = Style("paper", LIGHT, "x", 6)


def draw(report: Report) -> Drawing:
    """Draw the rows with runs and, where the data set is known, the paper's values.

    Raises:
        ValueError: no row is built.
    """
    marks = _marks(report)
    if not marks:
        raise ValueError(f"{report.table.name}: no row to draw")
    figure = new_figure(4.8)
    axes = figure.add_axes((0.1, 0.115, 0.87, 0.705))
    _axes(axes, marks, MEASURES[report.table.accuracy])
    for mark in marks:
        _mark(axes, mark)
    heading(figure, report.table.title, report.subtitle("mean and standard deviation"))
    styles = dict.fromkeys(mark.style for mark in marks)
    legend(figure, [key(style, drawn(_legend(style, report))) for style in styles])
    settle(figure)
    return Drawing(figure, write_labels(figure, axes, marks))


def _marks(report: Report) -> list[Mark]:
    """The proposed method first, so that its label is near its point even where there is little room."""
    ours = [_ours(row, report) for row in report.rows if report.table.accuracy in row.measures]
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
    """Of the methods with runs, only the proposed one is labelled: the paper's crosses crowd near the others."""
    wanted = not row.built or row.experiment.emphasised
    return f"{row.experiment.title} (paper)" if wanted else ""


def _style(row: Row) -> Style:
    if row.experiment.emphasised:
        return EMPHASIS
    return CONTROL if row.experiment.group == CONTROLS_GROUP else METHOD


def _ours(row: Row, report: Report) -> Mark:
    cost, accuracy = row.measures["gflops"], row.measures[report.table.accuracy]
    return Mark(row.title, _style(row), cost.mean, accuracy.mean, cost.std or 0.0, accuracy.std or 0.0)


def _axes(axes: Axes, marks: Sequence[Mark], accuracy: str) -> None:
    plain_axes(axes, "GFLOPs per video (10⁹ multiply-accumulates)", f"{accuracy.removesuffix(' %')} (%)")
    # On a logarithmic axis a spread that reaches zero is not drawn in full.
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
        markeredgewidth=1.2 if style.marker != "*" else 0.6,
        elinewidth=1.0,
        capsize=2.0,
        zorder=4 if style is EMPHASIS else 3,
        **style.marker_options(),
    )


def _legend(style: Style, report: Report) -> str:
    if style is EMPHASIS:
        rows = [row for row in report.rows if row.built and row.experiment.emphasised]
        return rows[0].experiment.title if len(rows) == 1 else rows[0].runs[0].result.title
    return f"paper, {dataset_title(report.dataset)}" if style is PAPER and report.dataset else style.name
