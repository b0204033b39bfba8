"""How often the fine backbone runs in the videos of each class (LiteEval, Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from policy.sheets.words import drawn, one_line
from policy.tables.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    YELLOW,
    Drawing,
    fit,
    heading,
    legend,
    new_figure,
    plain_axes,
)

FloatArray = npt.NDArray[np.float64]

CLASSES = 15
"""The largest number of classes that is drawn."""

_ROW_IN = 0.27
_NAMES_IN = 1.75
_BOX = 0.62  # of a row


def drawn_classes(usage: Mapping[str, FloatArray], limit: int = CLASSES) -> list[str]:
    """At most `limit` classes, by falling mean: a third with the highest means, a third with the lowest, and of
    the others those with the widest spread (distance of the quartiles, then standard deviation)."""
    means = {name: float(np.mean(values)) for name, values in usage.items() if len(values)}
    order = sorted(means, key=lambda name: (-means[name], name))
    if len(order) <= limit:
        return order
    third = limit // 3
    ends = {*order[:third], *order[len(order) - third :]}
    rest = sorted(
        (name for name in order if name not in ends), key=lambda name: (*_spread(usage[name]), name)
    )
    return [name for name in order if name in {*ends, *rest[: limit - len(ends)]}]


def _spread(values: FloatArray) -> tuple[float, float]:
    """Negative, so that the widest sorts first."""
    low, high = np.percentile(values, (25, 75))
    return -float(high - low), -float(np.std(values))


def draw(
    usage: Mapping[str, FloatArray],
    *,
    title: str,
    subtitle: str = "",
    x_label: str = "fine features per video",
    limit: int = CLASSES,
) -> Drawing:
    """Draw Fig. 4.

    Per class a box from the first quartile to the third with a line at the median and a yellow dot at the mean;
    whiskers reach to the last video within 1.5 times the box, and points are the videos beyond.

    Args:
        usage: per class a value (n,) for each of its videos, in the same order of magnitude; classes without
            videos are left out. The number of videos is written after the name.
        limit: of more classes, `drawn_classes` chooses.

    Raises:
        ValueError: no class has a video.
    """
    names = drawn_classes(usage, limit)
    if not names:
        raise ValueError(f"{title}: no video to draw")
    height = 1.75 + _ROW_IN * len(names)
    figure = new_figure(height)
    heading(figure, title, subtitle)
    top = legend(figure, _KEY) + 0.2
    bottom = 0.55
    axes = figure.add_axes(
        (_NAMES_IN / 7.0, bottom / height, 0.97 - _NAMES_IN / 7.0, 1 - (top + bottom) / height)
    )
    plain_axes(axes, x_label, "")
    for row, name in enumerate(names):
        _box(axes, row, usage[name])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks([])
    _name(figure, axes, -0.75, "class (videos)", GREY)
    for row, name in enumerate(names):
        _name(figure, axes, row, f"{one_line(name)} ({len(usage[name])})")
    most = max(float(np.max(usage[name])) for name in names)
    axes.set_xlim(-0.02 * (most or 1.0), 1.04 * (most or 1.0))
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    return Drawing(figure)


def _name(figure: Figure, axes: Axes, row: float, name: str, colour: str = "black") -> None:
    """Write a name left of the axes at a row. A tick's label would lose the text that `fit` has shortened."""
    artist = axes.text(-0.012, row, drawn(name, 200), ha="right", va="center", fontsize=8, color=colour)
    artist.set_transform(axes.get_yaxis_transform())
    fit(figure, artist, name, (_NAMES_IN - 0.15) * figure.dpi)


_MEAN = {"marker": "o", "color": YELLOW, "markeredgecolor": INK, "markeredgewidth": 0.8, "linestyle": "none"}
_KEY = (
    Patch(facecolor="#CFE3F1", edgecolor=BLUE, label="quartiles"),
    Line2D([], [], color=ORANGE, linewidth=2.0, label="median"),
    Line2D([], [], markersize=5.5, label="mean", **_MEAN),  # type: ignore[arg-type]
    Line2D(
        [], [], color=GREY, marker=".", linestyle="none", markersize=4, label="videos beyond the whiskers"
    ),
)


def _box(axes: Axes, row: int, values: FloatArray) -> None:
    # Drawn by hand: the argument of matplotlib's box plot that turns it sideways differs between versions.
    [stats] = boxplot_stats(np.asarray(values, np.float64))
    low, first, third, high = (stats[name] for name in ("whislo", "q1", "q3", "whishi"))
    half = _BOX / 2
    axes.hlines([row, row], [low, third], [first, high], color=BLUE, linewidth=1.0)
    axes.vlines([low, high], row - half / 2, row + half / 2, color=BLUE, linewidth=1.0)
    box = Rectangle((first, row - half), third - first, _BOX, facecolor="#CFE3F1", edgecolor=BLUE)
    box.set(linewidth=1.0, zorder=2)
    axes.add_patch(box)
    axes.vlines(stats["med"], row - half, row + half, color=ORANGE, linewidth=2.0, zorder=3)
    axes.plot(stats["fliers"], np.full(len(stats["fliers"]), row), ".", color=GREY, markersize=3.5, zorder=2)
    axes.plot(stats["mean"], row, markersize=5.5, zorder=4, **_MEAN)  # type: ignore[arg-type]
