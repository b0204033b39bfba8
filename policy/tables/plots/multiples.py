"""Many curves of accuracy against computation: a small panel for each, the others behind it in grey."""

from __future__ import annotations

from collections.abc import Sequence

from policy.sheets.words import drawn
from policy.tables.plots.curves import COST, Line
from policy.tables.plots.style import (
    BLUE,
    GREY,
    INK,
    LIGHT,
    VERMILLION,
    WIDTH_IN,
    Drawing,
    heading,
    new_figure,
    plain_axes,
    scale_cost,
    scale_percent,
)

_ACROSS = 4
_PANEL_IN, _TOP_IN, _BOTTOM_IN = 1.45, 0.75, 0.55
_COLOURS = {"proposed": VERMILLION, "control": GREY}


def draw_multiples(
    lines: Sequence[Line], reference: Line, *, title: str, subtitle: str = "", accuracy: str = "top-1 (%)"
) -> Drawing:
    """A panel for each line, on common axes.

    Args:
        lines: x in GFLOPs per video, y in percent, joined in their order; "hull" is drawn, the points on it.
        reference: dotted in all panels, such as an oracle.

    Raises:
        ValueError: no line.
    """
    if not lines:
        raise ValueError(f"{title}: no line to draw")
    down = -(-len(lines) // _ACROSS)
    height = _TOP_IN + _BOTTOM_IN + _PANEL_IN * down
    figure = new_figure(height)
    heading(figure, title, subtitle)
    grid = figure.subplots(down, _ACROSS, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.6 / WIDTH_IN,
        right=0.985,
        top=1 - _TOP_IN / height,
        bottom=_BOTTOM_IN / height,
        hspace=0.32,
        wspace=0.08,
    )
    xs = [x for line in (*lines, reference) for x in line.xs]
    ys = [y for line in (*lines, reference) for y in line.ys]
    for place, axes in enumerate(grid.flat):
        if place >= len(lines):
            axes.set_visible(False)
            continue
        line = lines[place]
        plain_axes(axes, "", "")
        scale_cost(axes, min(xs), max(xs))
        scale_percent(axes, min(ys), max(ys))
        for other in lines:
            axes.plot(*_hull(other), color=LIGHT, linewidth=0.6, alpha=0.6, zorder=1)
        axes.plot(*_hull(reference), color=INK, linewidth=0.9, linestyle=":", zorder=2)
        colour = _COLOURS.get(line.kind, BLUE)
        axes.plot(*_hull(line), color=colour, linewidth=1.4, zorder=3)
        axes.plot(line.xs, line.ys, color=colour, linestyle="none", marker="o", markersize=2.6, zorder=4)
        axes.set_title(drawn(line.name, 28), fontsize=8, loc="left", pad=3, color=colour)
        axes.tick_params(labelsize=7, labelbottom=place + _ACROSS >= len(lines))
    figure.supxlabel(f"{COST}; dotted: {reference.name}", fontsize=8, y=0.08 / height)
    figure.supylabel(accuracy, fontsize=8, x=0.008)
    return Drawing(figure)


def _hull(line: Line) -> tuple[list[float], list[float]]:
    """What is drawn as a line: its hull, or the line itself where it has none."""
    corners = line.hull or list(zip(line.xs, line.ys, strict=True))
    return [x for x, _ in corners], [y for _, y in corners]
