"""Accuracy against computation as a PNG: each row a point with its spread over seeds."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from policy.tables.datasets import dataset_title
from policy.tables.experiment import CONTROLS_GROUP, MEASURES
from policy.tables.placement import Box, place
from policy.tables.report import MARK, Report, Row

_DPI = 200
_LOG_FROM = 5  # times the smallest cost: from here on a linear axis would crowd the cheap methods
_MARGIN = 3.5  # between a marker and its label, in units of 1/72 inch


@dataclass(frozen=True)
class Style:
    """Of a kind of row. Colours are Okabe and Ito's, told apart by colour-blind eyes."""

    name: str
    colour: str
    marker: str
    size: float
    filled: bool = True
    weight: str = "normal"


EMPHASIS = Style("proposed", "#D55E00", "*", 15, weight="bold")
METHOD = Style("methods compared", "#0072B2", "o", 7)
CONTROL = Style("null controls", "#666666", "D", 6, filled=False)
PAPER = Style("paper", "#999999", "x", 6)


@dataclass(frozen=True)
class Mark:
    """A point of the figure. x: GFLOPs per video, y: mAP or top-1 in percent."""

    label: str
    style: Style
    x: float
    y: float
    x_error: float = 0.0
    y_error: float = 0.0


def render(report: Report) -> bytes:
    """The PNG.

    Raises:
        ValueError: no row is built.
    """
    figure, _ = draw(report)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI, metadata={"Software": None})
    return content.getvalue()


def draw(report: Report) -> tuple[Figure, list[Box]]:
    """The figure and the boxes of its labels, in pixels."""
    marks = _marks(report)
    if not marks:
        raise ValueError(f"{report.table.name}: no row to draw")
    figure = Figure(figsize=(7.0, 4.8), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.115, 0.87, 0.705))
    _axes(axes, marks, MEASURES[report.table.accuracy])
    for mark in marks:
        _mark(axes, mark)
    _heading(figure, report, marks)
    canvas.draw()  # type: ignore[no-untyped-call]
    return figure, _label(figure, axes, marks)


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
    axes.set_xlabel("GFLOPs per video (10⁹ multiply-accumulates)")
    axes.set_ylabel(f"{accuracy.removesuffix(' %')} (%)")
    # A spread that reaches zero or below does not, on a logarithmic axis.
    low = min(mark.x - mark.x_error if mark.x_error < mark.x else mark.x for mark in marks)
    high = max(mark.x + mark.x_error for mark in marks)
    if low > 0 and high > _LOG_FROM * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        room = (high / low) ** 0.12
        axes.set_xlim(low / room, high * room)
    else:
        room = 0.15 * (high - low) or 0.2 * high
        axes.set_xlim(max(0.0, low - room), high + room)
    bottom = min(mark.y - mark.y_error for mark in marks)
    top = max(mark.y + mark.y_error for mark in marks)
    room = max(0.12 * (top - bottom), 2.0)
    # No higher above 100 % than a marker there takes.
    axes.set_ylim(max(bottom - room, -1.0), min(top + room, 100 + 0.06 * (top - bottom + room)))
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.grid(color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


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
    figure.text(0.014, 0.957, report.table.title, fontsize=11, fontweight="bold", va="center")
    replaced = f"; {MARK} streams replaced" if any(row.marked for row in report.rows) else ""
    figure.text(
        0.014, 0.908, f"{report.labels_name}{spread}{replaced}", fontsize=8.5, color="#444444", va="center"
    )
    present = dict.fromkeys(mark.style for mark in marks)
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=style.marker,
            markersize=style.size * 0.8,
            color=style.colour,
            markerfacecolor=style.colour if style.filled else "white",
            label=_legend(style, report),
        )
        for style in present
    ]
    figure.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(0.0, 0.858),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        handletextpad=0.2,
        columnspacing=1.2,
    )


def _legend(style: Style, report: Report) -> str:
    if style is EMPHASIS:
        rows = [row for row in report.rows if row.built and row.experiment.emphasised]
        return rows[0].experiment.title if len(rows) == 1 else rows[0].runs[0].result.title
    return f"paper, {dataset_title(report.dataset)}" if style is PAPER and report.dataset else style.name


def _label(figure: Figure, axes: Axes, marks: Sequence[Mark]) -> list[Box]:
    """Write each label where there is room, with a line to its point where it is not beside it."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    pixel = figure.dpi / 72
    named = [mark for mark in marks if mark.label]
    points = [(float(x), float(y)) for x, y in (axes.transData.transform((m.x, m.y)) for m in named)]
    texts = [
        axes.text(0, 0, m.label, fontsize=8, color=m.style.colour, fontweight=m.style.weight, zorder=5)
        for m in named
    ]
    extents = [text.get_window_extent(renderer) for text in texts]
    # A pixel or two around each, so that labels do not touch.
    sizes = [(extent.width + 3 * pixel, extent.height + 1.5 * pixel) for extent in extents]
    gaps = [(mark.style.size / 2 + _MARGIN) * pixel for mark in named]
    window = axes.get_window_extent(renderer)
    frame = Box(window.x0, window.y0, window.x1, window.y1)
    obstacles = [box for mark in marks for box in _obstacles(axes, mark, pixel)]
    boxes = place(points, sizes, gaps, obstacles, frame)
    to_data = axes.transData.inverted()
    for mark, point, text, box, gap in zip(named, points, texts, boxes, gaps, strict=True):
        text.set_position(tuple(to_data.transform(((box.left + box.right) / 2, (box.bottom + box.top) / 2))))
        text.set_horizontalalignment("center")
        text.set_verticalalignment("center")
        near = box.nearest(point)
        if math.dist(near, point) > 1.6 * gap:
            x, y = zip(*(to_data.transform(at) for at in (point, near)), strict=True)
            axes.plot(x, y, color=mark.style.colour, linewidth=0.6, alpha=0.7, zorder=2)
    return boxes


def _obstacles(axes: Axes, mark: Mark, pixel: float) -> list[Box]:
    """The marker and its two error bars, in pixels."""
    x, y = axes.transData.transform((mark.x, mark.y))
    half = mark.style.size / 2 * pixel
    left, bottom = axes.transData.transform((max(mark.x - mark.x_error, mark.x / 10), mark.y - mark.y_error))
    right, top = axes.transData.transform((mark.x + mark.x_error, mark.y + mark.y_error))
    cap = 2.0 * pixel
    return [
        Box(x - half, y - half, x + half, y + half),
        Box(x - cap, bottom, x + cap, top),
        Box(left, y - cap, right, y + cap),
    ]
