"""Shared by all drawings: size, colours, heading, legend, axes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from policy.sheets.words import drawn, one_line
from policy.tables.plots.placement import Box

Dash = Literal["-", "--", "-.", ":", ""]
"""Of a line; the empty string draws only its points."""

DPI = 200
WIDTH_IN = 7.0
_LEFT = 0.014  # of the width

# Okabe and Ito's colours, which colour-blind people can tell apart.
VERMILLION, BLUE, SKY, PURPLE = "#D55E00", "#0072B2", "#56B4E9", "#CC79A7"
ORANGE, GREEN, YELLOW = "#E69F00", "#009E73", "#F0E442"
# Where those are not enough.
INDIGO, OLIVE, WINE, BROWN = "#332288", "#7A8B1F", "#882255", "#8C5A14"
INK, GREY, LIGHT, SLATE, TAUPE = "#444444", "#666666", "#999999", "#6B8EA3", "#A58A6F"

BY_COST = (LIGHT, GREEN, BLUE, VERMILLION, PURPLE, ORANGE, SKY)
"""Of streams from the cheapest to the dearest."""

_LOG_FROM = 5  # times the smallest value: from here on a linear axis would crowd the small ones
_TITLE_IN, _SUBTITLE_IN, _LEGEND_IN = 0.206, 0.442, 0.61  # below the upper edge


@dataclass(frozen=True)
class Style:
    """How a kind of mark is drawn."""

    name: str
    colour: str
    marker: str
    size: float
    filled: bool = True
    weight: str = "normal"

    def marker_options(self, scale: float = 1.0) -> dict[str, Any]:
        """Arguments of matplotlib's lines for a marker of this style."""
        return {
            "color": self.colour,
            "markersize": self.size * scale,
            "markerfacecolor": self.colour if self.filled else "white",
        }


class Drawing(NamedTuple):
    """A finished figure, and the boxes of its labels in pixels."""

    figure: Figure
    labels: Sequence[Box] = ()

    @property
    def png(self) -> bytes:
        """The same bytes for the same figure and version of matplotlib."""
        content = io.BytesIO()
        with missing_glyphs_allowed():
            self.figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
        return content.getvalue()


def new_figure(height_in: float) -> Figure:
    """A figure with its own canvas, independent of pyplot and its global state."""
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def missing_glyphs_allowed() -> Iterator[None]:
    """Names may be in any script: characters that the font lacks are drawn as boxes, without warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        yield


def heading(figure: Figure, title: str, subtitle: str = "") -> None:
    height = figure.get_size_inches()[1]
    for text, below, size, weight, colour in (
        (title, _TITLE_IN, 11, "bold", "black"),
        (subtitle, _SUBTITLE_IN, 8.5, "normal", INK),
    ):
        artist = figure.text(_LEFT, 1 - below / height, drawn(text, 200), va="center", color=colour)
        artist.set(fontsize=size, fontweight=weight)
        fit(figure, artist, one_line(text), 0.98 * figure.bbox.width)


def fit(figure: Figure, artist: Text, text: str, width: float) -> None:
    """Shorten the text of an artist that is wider than `width` pixels."""
    renderer = renderer_of(figure)
    limit = len(text)
    with missing_glyphs_allowed():
        while (extent := artist.get_window_extent(renderer).width) > width and limit > 4:
            limit = max(4, min(limit - 1, int(limit * width / extent)))
            artist.set_text(drawn(text, limit))


def renderer_of(figure: Figure) -> RendererAgg:
    """The renderer, which measures texts."""
    assert isinstance(figure.canvas, FigureCanvasAgg)
    renderer: RendererAgg = figure.canvas.get_renderer()  # type: ignore[no-untyped-call]
    return renderer


def legend(figure: Figure, handles: Sequence[Artist]) -> float:
    """A legend below the heading, in as many rows as needed; returns its end in inches below the upper edge."""
    height = figure.get_size_inches()[1]
    renderer = renderer_of(figure)
    for rows in range(1, len(handles) + 1):
        box = figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(_LEFT, 1 - _LEGEND_IN / height),
            ncols=-(-len(handles) // rows),
            frameon=False,
            fontsize=8,
            borderaxespad=0.0,
            borderpad=0.0,
            handletextpad=0.4,
            columnspacing=1.2,
        )
        with missing_glyphs_allowed():
            extent = box.get_window_extent(renderer)
        if extent.x1 <= figure.bbox.width or rows == len(handles):
            return float(height - extent.y0 / figure.dpi)
        box.remove()
    return _LEGEND_IN


def key(style: Style, label: str, *, dash: Dash = "", scale: float = 0.8) -> Line2D:
    """The legend's entry for a style."""
    options = style.marker_options(scale)
    return Line2D([], [], linestyle=dash or "none", marker=style.marker, label=label, **options)


def settle(figure: Figure) -> None:
    """Finalise the limits and the layout, as labels beside points require."""
    assert isinstance(figure.canvas, FigureCanvasAgg)
    figure.canvas.draw()  # type: ignore[no-untyped-call]


def plain_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def scale_cost(axes: Axes, low: float, high: float) -> None:
    """Scale the x axis for costs from `low` to `high`: logarithmic where they are far apart."""
    if low > 0 and high > _LOG_FROM * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        room = (high / low) ** 0.12
        axes.set_xlim(low / room, high * room)
    else:
        # Nearly equal costs are shown as such, not magnified.
        room = 0.15 * (high - low) if high - low > 0.01 * high else 0.2 * high
        axes.set_xlim(max(0.0, low - room), high + room)


def scale_percent(axes: Axes, bottom: float, top: float) -> None:
    """Scale the y axis for percentages from `bottom` to `top`."""
    room = max(0.12 * (top - bottom), 2.0)
    # Above 100 % only the room that a marker needs.
    axes.set_ylim(max(bottom - room, -1.0), min(top + room, 100 + 0.06 * (top - bottom + room)))
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
