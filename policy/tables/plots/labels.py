"""Write labels beside the points that they name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from policy.sheets.words import drawn
from policy.tables.plots.placement import Box, place
from policy.tables.plots.style import Style, missing_glyphs_allowed, renderer_of

_MARGIN = 3.5  # between a marker and its label, in units of 1/72 inch


@dataclass(frozen=True)
class Mark:
    """A point of a figure, in the units of its axes; an empty label is not written."""

    label: str
    style: Style
    x: float
    y: float
    x_error: float = 0.0
    y_error: float = 0.0


def write_labels(
    figure: Figure, axes: Axes, marks: Sequence[Mark], *, size: float = 8, obstacles: Sequence[Box] = ()
) -> list[Box]:
    """Write each label where there is room, with a line to its point where that is further away.

    The first mark has the first choice. Limits and layout must be final (`settle`).

    Args:
        size: of the letters, in points.
        obstacles: further boxes, in pixels, that no label may cover.

    Returns:
        The boxes of the labels, in pixels.
    """
    renderer = renderer_of(figure)
    pixel = figure.dpi / 72
    named = [mark for mark in marks if mark.label]
    points = [(float(x), float(y)) for x, y in (axes.transData.transform((m.x, m.y)) for m in named)]
    texts = [
        axes.text(
            0, 0, drawn(m.label), fontsize=size, color=m.style.colour, fontweight=m.style.weight, zorder=5
        )
        for m in named
    ]
    with missing_glyphs_allowed():
        extents = [text.get_window_extent(renderer) for text in texts]
    # Room for a pixel or two around each, so that labels do not touch.
    sizes = [(extent.width + 3 * pixel, extent.height + 1.5 * pixel) for extent in extents]
    gaps = [(mark.style.size / 2 + _MARGIN) * pixel for mark in named]
    window = axes.get_window_extent(renderer)
    frame = Box(window.x0, window.y0, window.x1, window.y1)
    covered = [*obstacles, *(box for mark in marks for box in _boxes(axes, mark, pixel))]
    boxes = place(points, sizes, gaps, covered, frame)
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


def _boxes(axes: Axes, mark: Mark, pixel: float) -> list[Box]:
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
