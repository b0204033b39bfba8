"""What a policy looked at in a video: the rows of each stream along time, and the frames that they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cache_schema.costs import gflops_digits
from policy.sheets.words import drawn, one_line
from policy.tables.plots.filmstrip import EDGE, Picture, Tiles
from policy.tables.plots.style import (
    BY_COST,
    DPI,
    INK,
    LIGHT,
    WIDTH_IN,
    Drawing,
    fit,
    heading,
    new_figure,
)

Floats = npt.NDArray[np.float64]

_TOP_IN, _LANE_IN, _AXIS_IN, _NOTE_IN, _BOTTOM_IN = 0.66, 0.2, 0.44, 0.2, 0.06
_NAME_IN, _COUNT_IN = 1.62, 1.5  # to the left and to the right of the rows
_THIN = 1 / 150  # of the time that is drawn: the width of a row that sees an instant
_ROOM = 152  # pixels, in which "12,345 GFLOPs" fits below a frame


@dataclass(frozen=True, eq=False)
class Lane:
    """A stream in a video.

    Attributes:
        spans_s: (n, 2) of the rows that were computed, n ≥ 0.
        note: how many they are, and what they cost.
    """

    name: str
    spans_s: Floats
    note: str


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame.

    Attributes:
        lane: the number of the dearest stream that was computed there.
        gflops: of the video when that was done.
    """

    picture: Picture
    at_s: float
    lane: int
    gflops: float


@dataclass(frozen=True, eq=False)
class Steps:
    """A video.

    Attributes:
        end_s: where the time axis ends.
        lanes: the streams, the cheapest first.
        frames: in the order of time, at least one.
        note: above the frames.
    """

    title: str
    subtitle: str
    end_s: float
    lanes: Sequence[Lane]
    frames: Sequence[Shown]
    note: str


def colour_of(lane: int) -> str:
    """Of a stream; where there are more of them than colours, those after the first again."""
    return BY_COST[lane] if lane < len(BY_COST) else BY_COST[1 + (lane - 1) % (len(BY_COST) - 1)]


def draw(steps: Steps) -> Drawing:
    """Draw a video. Frames of all streams but the cheapest have a border in the colour of theirs."""
    tiles = Tiles(
        [one.picture for one in steps.frames],
        [colour_of(one.lane) if one.lane else None for one in steps.frames],
        [f"{one.at_s:.1f} s\n{gflops_text(one.gflops)}" for one in steps.frames],
        room=_ROOM,
    )
    tall = tiles.height(round(WIDTH_IN * DPI) - 2 * EDGE)
    lanes_in = len(steps.lanes) * _LANE_IN
    above_in = _TOP_IN + lanes_in + _AXIS_IN + _NOTE_IN
    figure = new_figure((round((above_in + _BOTTOM_IN) * DPI) + tall) / DPI)
    heading(figure, steps.title, steps.subtitle)
    _rows(figure, steps, lanes_in)
    _text(figure, steps.note, EDGE / DPI, above_in - _NOTE_IN / 2, WIDTH_IN - 2 * EDGE / DPI)
    tiles.draw(figure, round(above_in * DPI))
    return Drawing(figure)


def describe(steps: Steps) -> str:
    """The drawing in words, for readers who cannot see it."""
    lanes = (f"{lane.name}: {lane.note}" for lane in steps.lanes)
    return one_line(f"{steps.title}. {steps.subtitle}. {'; '.join(lanes)}.")


def _rows(figure: Figure, steps: Steps, height_in: float) -> None:
    """A lane for each stream, the cheapest on top."""
    total_in = figure.get_size_inches()[1]
    width_in = WIDTH_IN - _NAME_IN - _COUNT_IN
    axes: Axes = figure.add_axes(
        (
            _NAME_IN / WIDTH_IN,
            1 - (_TOP_IN + height_in) / total_in,
            width_in / WIDTH_IN,
            height_in / total_in,
        )
    )
    middles_s = [lane.spans_s.mean(axis=1) for lane in steps.lanes]
    apart_s = min(spacing(at_s, steps.end_s) for at_s in middles_s)
    least_s = min(_THIN * steps.end_s, 0.8 * apart_s)
    for number, (lane, at_s) in enumerate(zip(steps.lanes, middles_s, strict=True)):
        widths_s = np.maximum(
            0.94 * (lane.spans_s[:, 1] - lane.spans_s[:, 0]), least_s
        )  # a gap between clips
        bars = list(zip(at_s - widths_s / 2, widths_s, strict=True))
        axes.broken_barh(bars, (number + 0.12, 0.76), facecolor=colour_of(number), linewidth=0)
        axes.axhline(number + 0.5, color=LIGHT, linewidth=0.4, zorder=0)
        middle_in = _TOP_IN + (number + 0.5) * _LANE_IN
        _text(figure, lane.name, EDGE / DPI, middle_in, _NAME_IN - EDGE / DPI - 0.1)
        _text(figure, lane.note, WIDTH_IN - _COUNT_IN + 0.12, middle_in, _COUNT_IN - 0.16)
    axes.set_ylim(len(steps.lanes), 0)
    axes.set_xlim(-least_s, steps.end_s + least_s)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 3, 5, 10]))
    axes.tick_params(labelsize=7.5, length=2.5)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT)
    axes.set_xlabel("seconds", fontsize=8, labelpad=1)


def gflops_text(gflops: float) -> str:
    """With three digits, or all that stand before the point."""
    if gflops >= 99.95:
        return f"{gflops:,.0f} GFLOPs"
    digits = f"{gflops:#.3g}"
    return f"{gflops_digits(gflops, 3) if 'e' in digits else digits} GFLOPs"


def spacing(at_s: Floats, alone_s: float) -> float:
    """The usual distance of instants, in seconds; `alone_s` where there are fewer than two."""
    steps_s = np.diff(np.unique(at_s))
    return float(np.median(steps_s)) if len(steps_s) else alone_s


def _text(figure: Figure, text: str, left_in: float, below_in: float, width_in: float) -> None:
    """A line of text, `below_in` below the upper edge, shortened to a width."""
    artist = figure.text(
        left_in / WIDTH_IN, 1 - below_in / figure.get_size_inches()[1], drawn(text, 200), va="center"
    )
    artist.set(fontsize=8, color=INK)
    fit(figure, artist, one_line(text), width_in * DPI)
