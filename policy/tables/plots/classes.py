"""What the videos of each class cost against how many of them are recognised (model selection, Fig. 3c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from policy.tables.placement import Box
from policy.tables.plots.curves import COST
from policy.tables.plots.labels import Mark, write_labels
from policy.tables.plots.style import (
    GREEN,
    SKY,
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

NAMED = 4
"""Of the cheapest classes, and of the dearest, so many are named."""
_ALIKE = 0.01
"""Where costs differ by no more than this share, no class is cheap or dear."""

_CLASS = Style("other classes", SKY, "o", 4)
_CHEAPEST = Style("cheapest classes", GREEN, "v", 7)
_DEAREST = Style("dearest classes", VERMILLION, "^", 7)


@dataclass(frozen=True)
class ClassPoint:
    """A class: mean GFLOPs of its videos, and the percentage of them that are recognised."""

    name: str
    gflops: float
    percent: float


def render(classes: Sequence[ClassPoint], *, title: str, subtitle: str = "", accuracy: str) -> bytes:
    """Fig. 3c as a PNG.

    Args:
        accuracy: what y is.

    Raises:
        ValueError: no class.
    """
    return png(draw(classes, title=title, subtitle=subtitle, accuracy=accuracy)[0])


def draw(
    classes: Sequence[ClassPoint], *, title: str, subtitle: str = "", accuracy: str
) -> tuple[Figure, list[Box]]:
    """The figure and the boxes of its labels, in pixels."""
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
        for one in members:
            marks.append(Mark("" if style is _CLASS else one.name, style, one.gflops, one.percent))
    settle(figure)
    return figure, write_labels(figure, axes, marks, size=7.5)
