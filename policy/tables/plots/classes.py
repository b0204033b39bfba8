"""Accuracy against cost of the videos of each class (model selection, Fig. 3c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policy.tables.plots.curves import COST
from policy.tables.plots.labels import Mark, write_labels
from policy.tables.plots.style import (
    GREEN,
    SKY,
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

NAMED = 4
"""How many of the cheapest classes, and of the most expensive ones, are named."""
_ALIKE = 0.01
"""Relative difference in cost up to which no class counts as cheap or expensive."""

_CLASS = Style("other classes", SKY, "o", 4)
_CHEAPEST = Style("cheapest classes", GREEN, "v", 7)
_DEAREST = Style("dearest classes", VERMILLION, "^", 7)


@dataclass(frozen=True)
class ClassPoint:
    """A class, the mean GFLOPs of its videos and the percentage that is recognised."""

    name: str
    gflops: float
    percent: float


def draw(classes: Sequence[ClassPoint], *, title: str, subtitle: str = "", accuracy: str) -> Drawing:
    """Draw Fig. 3c.

    Args:
        accuracy: label of the y axis.

    Raises:
        ValueError: no class.
    """
    if not classes:
        raise ValueError(f"{title}: no class to draw")
    order = sorted(classes, key=lambda one: (one.gflops, one.name))
    differ = order[-1].gflops > (1 + _ALIKE) * order[0].gflops
    named = min(NAMED, len(order) // 2) if differ else 0
    groups = {
        _CHEAPEST: order[:named],
        _DEAREST: order[len(order) - named :],
        _CLASS: order[named : len(order) - named],
    }
    figure = new_figure(4.8)
    heading(figure, title, subtitle)
    present = [key(style, style.name, scale=1.0) for style, members in groups.items() if members]
    top = legend(figure, present) + 0.06
    axes = figure.add_axes((0.1, 0.55 / 4.8, 0.87, 1 - (0.55 + top) / 4.8))
    plain_axes(axes, COST, accuracy)
    scale_cost(axes, order[0].gflops, order[-1].gflops)
    scale_percent(axes, min(one.percent for one in order), max(one.percent for one in order))
    marks = []
    for style, members in groups.items():
        axes.plot(
            [one.gflops for one in members],
            [one.percent for one in members],
            style.marker,
            color=style.colour,
            markersize=style.size,
            alpha=0.7 if style is _CLASS else 1.0,
            markeredgewidth=0,
            zorder=3 if style is _CLASS else 4,
        )
        for point in members:
            marks.append(Mark("" if style is _CLASS else point.name, style, point.gflops, point.percent))
    settle(figure)
    return Drawing(figure, write_labels(figure, axes, marks, size=7.5))
