"""Curves of accuracy against computation (LiteEval, Fig. 2) and against the share watched (Fig. 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from policy.sheets.words import drawn
from policy.tables.plots.labels import Mark, write_labels
from policy.tables.plots.placement import Box
from policy.tables.plots.style import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    INDIGO,
    INK,
    LIGHT,
    OLIVE,
    ORANGE,
    PURPLE,
    SKY,
    SLATE,
    TAUPE,
    VERMILLION,
    WINE,
    YELLOW,
    Dash,
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

Kind = Literal["proposed", "baseline", "control", "random", "oracle", "models", "paper", "cited"]

COST = "GFLOPs per video (10⁹ multiply-accumulates)"
WATCHED = "share of the video watched (%)"


@dataclass(frozen=True)
class Line:
    """One method's curve.

    Attributes:
        kind: how it is drawn; lines of one name look alike in every panel. "models" and "cited" (of a paper) are
            points without a line, "random" is a line without points.
        xs, ys: (n,), in the units of the axes, in the order in which they are joined.
        low, high: (n,), an interval around each y, or empty.
        labels: (n,) short texts beside the points, such as K, or empty; an empty text is not written.
        hull: corners (x, y) of the curve's convex hull, or empty.
    """

    name: str
    kind: Kind
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    labels: Sequence[str] = ()
    hull: Sequence[tuple[float, float]] = ()

    def __post_init__(self) -> None:
        n = len(self.xs)
        if n == 0 or len(self.ys) != n:
            raise ValueError(f"{self.name}: {n} x for {len(self.ys)} y")
        if len(self.low) != len(self.high) or any(
            len(part) not in (0, n) for part in (self.low, self.high, self.labels)
        ):
            raise ValueError(f"{self.name}: bounds and labels must be as many as points, or none")
        if not all(map(math.isfinite, (*self.xs, *self.ys, *self.low, *self.high))):
            raise ValueError(f"{self.name}: not a finite number")


_COLOURS = (BLUE, PURPLE, ORANGE, SKY, INDIGO, OLIVE, WINE, BROWN, YELLOW)
_MARKERS = ("o", "s", "^", "v", "P", "X", "<", ">", "p", "H")
"""Of baselines: one more than colours, so that only the ninetieth looks like the first."""
_CONTROLS: Sequence[tuple[str, str]] = ((LIGHT, "D"), (INK, "v"), (SLATE, "^"), (TAUPE, "p"))
_CROSSES = ("x", "+", "1", "2", "3", "4")
_DASHES: Mapping[Kind, Dash] = {
    "proposed": "-",
    "baseline": "-",
    "control": "--",
    "random": ":",
    "oracle": "-.",
    "models": "",
    "paper": ":",
    "cited": "",
}
_MANY = 20  # points; markers of longer lines stand at equal distances along them
_SPACING = 0.07  # of the panel's diagonal
_HULL = (1, 1.5)  # dashes of hulls


def draw_against_cost(
    lines: Sequence[Line], *, title: str, subtitle: str = "", accuracy: str = "mAP (%)", cost: str = COST
) -> Drawing:
    """Draw Fig. 2.

    Args:
        lines: x in GFLOPs per video, y in percent; labels of the first are placed first.
        accuracy, cost: labels of the y and the x axis.

    Raises:
        ValueError: no line.
    """
    if not lines:
        raise ValueError(f"{title}: no line to draw")
    figure = new_figure(4.8)
    styles = _styles(lines)
    top = _heading(figure, styles, lines, title, subtitle)
    axes = _axes(figure, bottom_in=0.55, top_in=top)
    plain_axes(axes, cost, accuracy)
    xs = [x for line in lines for x in (*line.xs, *(corner[0] for corner in line.hull))]
    scale_cost(axes, min(xs), max(xs))
    scale_percent(axes, *_reach(lines))
    _lines(axes, lines, styles)
    return Drawing(figure, _label(figure, axes, lines, styles))


def draw_against_watched(
    cost: Sequence[Line],
    accuracy: Sequence[Line],
    *,
    title: str,
    subtitle: str = "",
    measure: str = "mAP (%)",
) -> Drawing:
    """Draw Fig. 3: computation so far, and below it the accuracy if the video ended here.

    Args:
        cost: x in percent of the video, y in GFLOPs per video.
        accuracy: the same x, y in percent.
        measure: label of the accuracy's axis.

    Raises:
        ValueError: no line in one of the panels.
    """
    if not cost or not accuracy:
        raise ValueError(f"{title}: no line to draw")
    figure = new_figure(6.6)
    lines = [*accuracy, *cost]
    styles = _styles(lines)
    top = _heading(figure, styles, lines, title, subtitle)
    panel = (6.6 - top - 0.55 - 0.2) / 2
    upper = _axes(figure, bottom_in=0.55 + panel + 0.2, top_in=top)
    lower = _axes(figure, bottom_in=0.55, top_in=top + panel + 0.2)
    plain_axes(upper, "", "GFLOPs per video")
    plain_axes(lower, WATCHED, measure)
    upper.tick_params(labelbottom=False)
    upper.set_ylim(0, 1.08 * (_reach(cost)[1] or 1.0))
    scale_percent(lower, *_reach(accuracy))
    boxes = []
    for axes, drawn_here in ((upper, cost), (lower, accuracy)):
        axes.set_xlim(0, 103)
        axes.xaxis.set_major_locator(MultipleLocator(20))
        _lines(axes, drawn_here, styles)
        boxes += _label(figure, axes, drawn_here, styles)
    return Drawing(figure, boxes)


def _styles(lines: Iterable[Line]) -> dict[tuple[str, Kind], Style]:
    """By name and kind: a colour for each kind, and a different marker for each line of most kinds."""
    styles: dict[tuple[str, Kind], Style] = {}
    for line in lines:
        if (line.name, line.kind) in styles:
            continue
        index = sum(kind == line.kind for _, kind in styles)
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
        control, control_marker = _CONTROLS[index % len(_CONTROLS)]
        styles[line.name, line.kind] = {
            "proposed": Style(line.name, VERMILLION, "*", 11, weight="bold"),
            "baseline": Style(line.name, colour, marker, 6),
            "control": Style(line.name, control, control_marker, 5, filled=False),
            "random": Style(line.name, "#000000", "", 0),
            "oracle": Style(line.name, GREEN, "h", 7, filled=False),
            "models": Style(line.name, "#000000", "o", 6, filled=False),
            "paper": Style(f"{line.name} (paper)", LIGHT, _CROSSES[index % len(_CROSSES)], 6),
            "cited": Style(f"{line.name} (paper)", LIGHT, "x", 6),
        }[line.kind]
    return styles


def _heading(
    figure: Figure,
    styles: Mapping[tuple[str, Kind], Style],
    lines: Sequence[Line],
    title: str,
    subtitle: str,
) -> float:
    heading(figure, title, subtitle)
    handles = [key(style, drawn(style.name, 40), dash=_DASHES[kind]) for (_, kind), style in styles.items()]
    if any(line.hull for line in lines):
        handles.append(Line2D([], [], color=GREY, linewidth=0.9, dashes=_HULL, label="convex hull"))
    return legend(figure, handles) + 0.06


def _axes(figure: Figure, *, bottom_in: float, top_in: float) -> Axes:
    """Axes from `bottom_in` inches above the lower edge to `top_in` inches below the upper one."""
    height = figure.get_size_inches()[1]
    return figure.add_axes((0.1, bottom_in / height, 0.87, 1 - (bottom_in + top_in) / height))


def _reach(lines: Sequence[Line]) -> tuple[float, float]:
    """Smallest and largest y of everything drawn."""
    ys = [y for line in lines for y in (*line.ys, *line.low, *line.high, *(at[1] for at in line.hull))]
    return min(ys), max(ys)


def _lines(axes: Axes, lines: Sequence[Line], styles: Mapping[tuple[str, Kind], Style]) -> None:
    for line in lines:
        style = styles[line.name, line.kind]
        above = 4 if line.kind == "proposed" else 3
        if line.hull:
            corners = zip(*line.hull, strict=True)
            axes.plot(*corners, color=style.colour, linewidth=0.9, dashes=_HULL, zorder=above - 1)
        if line.low and len(line.xs) > 1:
            axes.fill_between(
                line.xs, line.low, line.high, color=style.colour, alpha=0.16, linewidth=0, zorder=1
            )
        elif line.low:
            axes.vlines(line.xs, line.low, line.high, color=style.colour, linewidth=1.0, zorder=above)
        axes.plot(
            line.xs,
            line.ys,
            linestyle=_DASHES[line.kind] or "none",
            linewidth=1.7 if line.kind == "proposed" else 1.2,
            marker=style.marker,
            markevery=_SPACING if len(line.xs) > _MANY else None,
            markeredgewidth=1.2 if style.marker != "*" else 0.6,
            zorder=above,
            **style.marker_options(),
        )


def _label(
    figure: Figure, axes: Axes, lines: Sequence[Line], styles: Mapping[tuple[str, Kind], Style]
) -> list[Box]:
    settle(figure)
    marks, strokes = [], []
    for line in lines:
        labels = line.labels or [""] * len(line.xs)
        style = styles[line.name, line.kind]
        marks += [Mark(label, style, x, y) for label, x, y in zip(labels, line.xs, line.ys, strict=True)]
        strokes += _strokes(axes, line)
    return write_labels(figure, axes, marks, size=7, obstacles=strokes)


def _strokes(axes: Axes, line: Line) -> list[Box]:
    """Small boxes along a line, in pixels, closer together than labels are large, which keep labels off it."""
    points = axes.transData.transform(list(zip(line.xs, line.ys, strict=True)))
    boxes = []
    for (x0, y0), (x1, y1) in pairwise(points.tolist()) if _DASHES[line.kind] else ():
        steps = max(1, round(math.hypot(x1 - x0, y1 - y0) / 16))
        for step in range(1, steps):
            x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
            boxes.append(Box(x - 3, y - 3, x + 3, y + 3))
    return boxes
