"""Distributions of one quantity in two kinds of clips (model selection, Fig. 5a)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Patch

from cache_schema.command import count
from policy.sheets.words import drawn
from policy.tables.plots.style import BLUE, ORANGE, Drawing, heading, legend, new_figure, plain_axes

_COLOURS = (BLUE, ORANGE)
_HEIGHT_IN = 3.6


def draw(
    counts: Mapping[str, Sequence[int]], *, title: str, x_label: str, subtitle: str = "", y_label: str
) -> Drawing:
    """Draw histograms over each other, each as percent of its own total; a vertical line marks its mean.

    Args:
        counts: by kind, at most two, how many are in each of n equal bins of [0, 1].

    Raises:
        ValueError: nothing is counted, or there are more kinds than colours.
    """
    if not counts or not all(map(sum, counts.values())):
        raise ValueError(f"{title}: nothing to draw")
    figure = new_figure(_HEIGHT_IN)
    heading(figure, title, subtitle)
    colours = dict(zip(counts, _COLOURS, strict=False))
    handles = [
        Patch(
            facecolor=colours[kind], alpha=0.5, edgecolor=colours[kind], label=drawn(_legend(kind, of_kind))
        )
        for kind, of_kind in counts.items()
    ]
    top = legend(figure, handles) + 0.12
    axes = figure.add_axes((0.1, 0.55 / _HEIGHT_IN, 0.87, 1 - (0.55 + top) / _HEIGHT_IN))
    plain_axes(axes, x_label, y_label)
    for kind, of_kind in counts.items():
        edges = np.linspace(0, 1, len(of_kind) + 1)
        percents = 100 * np.asarray(of_kind) / sum(of_kind)
        axes.stairs(percents, edges, fill=True, alpha=0.35, color=colours[kind])
        axes.stairs(percents, edges, color=colours[kind], linewidth=1.4)
        axes.axvline(mean_of(of_kind), color=colours[kind], linewidth=1.2, linestyle="--")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    return Drawing(figure)


def mean_of(counts: Sequence[int]) -> float:
    """The mean of a quantity in [0, 1], each value taken as the centre of its bin."""
    centres = (np.arange(len(counts)) + 0.5) / len(counts)
    return float(centres @ np.asarray(counts) / sum(counts))


def _legend(kind: str, counts: Sequence[int]) -> str:
    return f"{kind}: {count(sum(counts), 'clips')}, mean {mean_of(counts):.2f} (dashed)"
