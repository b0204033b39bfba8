"""What a method found in a video, when it is there, and which model answered each clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cache_schema.command import count
from policy.sheets.words import drawn, one_line
from policy.tables.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    VERMILLION,
    WIDTH_IN,
    Drawing,
    fit,
    heading,
    legend,
    missing_glyphs_allowed,
    new_figure,
    renderer_of,
)

Floats = npt.NDArray[np.float64]
Verdict = Literal["correct", "false", "not judged"]

CORRECT_IOU = 0.5
"""Which a correct detection exceeds."""
LANES = 3
"""Detections of a class that overlap are drawn in so many lanes; the best-scored ones find a place first."""

_LEFT_IN, _RIGHT_IN, _BOTTOM_IN = 1.12, 0.14, 0.42
_STRIP_IN, _LANE_IN, _CURVES_IN = 0.15, 0.17, 0.62
_NAME_IN, _GAP_IN, _OMITTED_IN = 0.27, 0.05, 0.2
_BAR, _LOWEST = (
    0.84,
    0.4,
)  # heights of bars, as a share of a lane's: of the best score in a video and of the worst
_TINT = "#E9E9E9"
_TOLD = 8  # spans of each kind, in words
_APART = 150  # clips, up to which one sees where each ends
_FILL = {"correct": GREEN, "false": VERMILLION, "not judged": LIGHT}
_HATCH = {"correct": "", "false": "//////", "not judged": ""}


@dataclass(frozen=True, eq=False)
class Found:
    """D detections of a class in a video.

    Attributes:
        spans: (D, 2) seconds.
        scores: (D,).
        verdicts: D.
    """

    spans: Floats
    scores: Floats
    verdicts: Sequence[Verdict]


@dataclass(frozen=True, eq=False)
class Track:
    """A class in a video of T clips.

    Attributes:
        has_label: whether the video shows it, by the labels.
        truth: (S, 2) seconds of its segments.
        found: its detections.
        alone: those of the appearance model by itself; None: not known.
        appearance, motion: (T,) activations of two models; of motion NaN where it did not run.
        answer: (T,) activations from which detections are made; None: not known.
        threshold: above which clips are in a detection, if there is one such value.
    """

    name: str
    has_label: bool
    truth: Floats
    found: Found
    alone: Found | None = None
    appearance: Floats | None = None
    motion: Floats | None = None
    answer: Floats | None = None
    threshold: float | None = None


@dataclass(frozen=True, eq=False)
class Timeline:
    """A video.

    Attributes:
        end_s: where the time axis ends.
        tracks: at least one.
        ambiguous: (A, 2) seconds, in which nothing is judged.
        edges: (T + 1,) seconds, between which the clips lie; None: not known.
        uses_motion: (T,), which clips motion was chosen for, by a method that chooses.
        omitted: says which classes are left out.
    """

    title: str
    subtitle: str
    end_s: float
    tracks: Sequence[Track]
    ambiguous: Floats
    edges: Floats | None = None
    uses_motion: npt.NDArray[np.bool_] | None = None
    omitted: str = ""


def draw(timeline: Timeline) -> Drawing:
    """Draw a video: a strip of its clips, and of each class the segments, the detections and the activations.

    Raises:
        ValueError: no class.
    """
    if not timeline.tracks:
        raise ValueError(f"{timeline.title}: no class to draw")
    lanes = [[lanes_of(found) for found in _rows(track).values()] for track in timeline.tracks]
    has_curves = timeline.edges is not None and timeline.tracks[0].answer is not None
    heights = [(1 + sum(1 + max(one, default=0) for one in of_track)) * _LANE_IN for of_track in lanes]
    strip_in = _STRIP_IN if timeline.uses_motion is not None else 0.0
    block_in = _NAME_IN + has_curves * (_GAP_IN + _CURVES_IN)
    handles = _handles(timeline)
    top_in = _legend_end(handles) + 0.1
    body_in = strip_in + sum(heights) + len(heights) * block_in
    figure = new_figure(top_in + body_in + _BOTTOM_IN + (_OMITTED_IN if timeline.omitted else 0))
    heading(figure, timeline.title, timeline.subtitle)
    legend(figure, handles)
    below_in = top_in
    if timeline.uses_motion is not None:
        _strip(_panel(figure, timeline, below_in, strip_in), timeline)
        below_in += strip_in
    for track, of_track, height_in in zip(timeline.tracks, lanes, heights, strict=True):
        _name(figure, track, of_track, below_in + 0.6 * _NAME_IN)
        below_in += _NAME_IN
        axes = _panel(figure, timeline, below_in, height_in)
        _bands(axes, timeline, track, of_track)
        below_in += height_in
        if has_curves:
            axes = _panel(figure, timeline, below_in + _GAP_IN, _CURVES_IN)
            _curves(axes, timeline, track)
            below_in += _GAP_IN + _CURVES_IN
    axes.tick_params(labelbottom=True, bottom=True)
    axes.set_xlabel("seconds", fontsize=8)
    if timeline.omitted:
        _written(figure, timeline.omitted, below_in + _BOTTOM_IN + _OMITTED_IN / 2, INK)
    return Drawing(figure)


def describe(timeline: Timeline) -> str:
    """The drawing in words, for readers who cannot see it."""
    sentences = [f"{timeline.title}. {timeline.subtitle}. {timeline.end_s:.1f} seconds."]
    if timeline.uses_motion is not None and timeline.edges is not None:
        sentences.append(f"Clips with motion: {_in_words(_stretches(timeline.uses_motion, timeline.edges))}.")
    for track in timeline.tracks:
        shown = f"true from {_in_words(track.truth)}" if track.has_label else "not in this video"
        parts = [f"{name} {_in_words(found.spans, found.verdicts)}" for name, found in _rows(track).items()]
        sentences.append(f"{track.name}: {'; '.join((shown, *parts))}.")
    if len(timeline.ambiguous):
        sentences.append(f"Ambiguous: {_in_words(timeline.ambiguous)}.")
    return one_line(" ".join((*sentences, timeline.omitted)))


def _stretches(flags: npt.NDArray[np.bool_], edges: Floats) -> Floats:
    """(R, 2) seconds of the runs of clips with a flag."""
    changes = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return edges[changes].reshape(-1, 2)


def _in_words(spans: Floats, verdicts: Sequence[str] = ()) -> str:
    words = [f"{start:.1f} to {end:.1f} s" for start, end in spans[:_TOLD]]
    words = [f"{one} ({verdict})" for one, verdict in zip(words, verdicts, strict=False)] or words
    more = [f"{len(spans) - _TOLD} more"] if len(spans) > _TOLD else []
    return ", ".join([*words, *more]) or "nowhere"


def lanes_of(found: Found) -> list[int]:
    """The lane of each detection, from 0; -1 of those that are not drawn, for which no lane has room."""
    lanes = [-1] * len(found.scores)
    taken: list[list[tuple[float, float]]] = [[] for _ in range(LANES)]
    for place in np.argsort(-found.scores, kind="stable").tolist():
        start, end = found.spans[place].tolist()
        for lane, spans in enumerate(taken):
            if all(end <= other_start or other_end <= start for other_start, other_end in spans):
                spans.append((start, end))
                lanes[place] = lane
                break
    return lanes


def _rows(track: Track) -> dict[str, Found]:
    return {"found": track.found} | ({"appearance alone": track.alone} if track.alone is not None else {})


def _handles(timeline: Timeline) -> list[Artist]:
    tracks = timeline.tracks
    rows = [found for track in tracks for found in _rows(track).values()]
    handles: list[Artist] = [Patch(color=INK, label="true segment")]
    if len(timeline.ambiguous):
        handles.append(Patch(facecolor="white", edgecolor=LIGHT, hatch="....", label="ambiguous"))
    for verdict in _FILL:
        if any(verdict in found.verdicts for found in rows):
            handles.append(Patch(**_bar_options(verdict), label=_TITLES[verdict]))
    if any(track.appearance is not None for track in tracks):
        handles.append(Line2D([], [], color=ORANGE, linewidth=1.3, label="appearance model"))
        handles.append(Line2D([], [], color=BLUE, linewidth=1.3, label="motion model, where it ran"))
    if timeline.edges is not None and any(track.answer is not None for track in tracks):
        label = "activation" if tracks[0].appearance is None else "activation that counts"
        handles.append(Line2D([], [], label=label, **_answer_line(tracks[0])))
        if any(track.threshold is not None for track in tracks):
            label = "found above this: middle of the range"
            handles.append(Line2D([], [], color=INK, linewidth=0.9, linestyle="--", label=label))
    return handles


_TITLES = {
    "correct": f"correct detection (IoU above {CORRECT_IOU:g})",
    "false": "false detection",
    "not judged": "detection that nothing judges",
}


def _legend_end(handles: Sequence[Artist]) -> float:
    """Inches below the upper edge; the height of the figure depends on it."""
    return legend(new_figure(4.0), handles)


def _bar_options(verdict: str) -> dict[str, Any]:
    hatch = _HATCH[verdict]
    return {
        "facecolor": "white" if hatch else _FILL[verdict],
        "edgecolor": _FILL[verdict] if hatch else INK,
        "hatch": hatch,
        "linewidth": 0.7,
    }


def _panel(figure: Figure, timeline: Timeline, below_in: float, height_in: float) -> Axes:
    """Axes over the time of the video, from so many inches below the upper edge."""
    total = figure.get_size_inches()[1]
    width = WIDTH_IN - _LEFT_IN - _RIGHT_IN
    axes = figure.add_axes(
        (_LEFT_IN / WIDTH_IN, 1 - (below_in + height_in) / total, width / WIDTH_IN, height_in / total)
    )
    axes.set_xlim(0, timeline.end_s)
    axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 3, 5, 10]))
    axes.tick_params(labelbottom=False, bottom=False, left=False, labelsize=7.5)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    return axes


def _strip(axes: Axes, timeline: Timeline) -> None:
    """The model of each clip."""
    assert timeline.edges is not None and timeline.uses_motion is not None
    starts, widths = timeline.edges[:-1], np.diff(timeline.edges)
    apart = len(widths) <= _APART
    for uses, colour, name in ((False, ORANGE, "appearance"), (True, BLUE, "motion")):
        clips = timeline.uses_motion == uses
        axes.broken_barh(
            list(zip(starts[clips], widths[clips], strict=True)),
            (0, 1),
            facecolor=colour,
            edgecolor="white" if apart else colour,
            linewidth=0.5 if apart else 0.2,
            alpha=1.0 if uses else 0.45,
            label=name,
        )
    axes.set_ylim(0, 1)
    axes.set_yticks([0.5], ["model of a clip"])


def _name(figure: Figure, track: Track, lanes: Sequence[Sequence[int]], below_in: float) -> None:
    truth = count(len(track.truth), "true segments")
    parts = [truth if track.has_label else "not in this video", count(len(track.found.scores), "detections")]
    for of_row, what in zip(lanes, ("", " of appearance alone"), strict=False):
        if left_out := of_row.count(-1):
            parts.append(f"{left_out}{what} not drawn, which overlap better ones")
    artist = _written(figure, track.name, below_in, "black", weight="bold", limit=0.45)
    with missing_glyphs_allowed():
        end = artist.get_window_extent(renderer_of(figure)).x1 / figure.dpi
    _written(figure, ", ".join(parts), below_in, GREY, left_in=end + 0.12)


def _written(
    figure: Figure,
    text: str,
    below_in: float,
    colour: str,
    *,
    weight: str = "normal",
    left_in: float = 0.1,
    limit: float = 1.0,
) -> Artist:
    """A line of text, shortened to `limit` of the width to the right of `left_in`."""
    height = figure.get_size_inches()[1]
    artist = figure.text(left_in / WIDTH_IN, 1 - below_in / height, drawn(text, 200), va="center")
    artist.set(fontsize=8, color=colour, fontweight=weight)
    fit(figure, artist, one_line(text), limit * (WIDTH_IN - left_in - 0.05) * figure.dpi)
    return artist


def _bands(axes: Axes, timeline: Timeline, track: Track, lanes: Sequence[Sequence[int]]) -> None:
    """Segments, and below them each kind of detections in lanes; a lane is 1 high, counted downwards."""
    for start, end in timeline.ambiguous:
        axes.broken_barh(
            [(start, end - start)],
            _bar_at(0),
            facecolor="white",
            edgecolor=LIGHT,
            hatch="....",
            linewidth=0.5,
            label="ambiguous",
        )
    spans = [(start, end - start) for start, end in track.truth]
    axes.broken_barh(spans, _bar_at(0), facecolor=INK, edgecolor="white", linewidth=0.4, label="truth")
    places, names, row = [0.5], ["true"], 1
    for (name, found), of_row in zip(_rows(track).items(), lanes, strict=True):
        height = 1 + max(of_row, default=0)
        places.append(row + height / 2)
        names.append(name)
        for place, lane in enumerate(of_row):
            if lane >= 0:
                _bar(axes, found, place, row + lane, name, _height(timeline, found.scores[place]))
        if not of_row:
            axes.text(0.004 * timeline.end_s, row + 0.5, "nothing", fontsize=6.5, color=GREY, va="center")
        row += height
    axes.set_ylim(row, 0)
    axes.set_yticks(places, names)


def _height(timeline: Timeline, score: float) -> float:
    """Of a bar, from `_LOWEST` for the worst score in the video to `_BAR` for the best."""
    scores = np.concatenate([found.scores for track in timeline.tracks for found in _rows(track).values()])
    low, high = float(scores.min()), float(scores.max())
    return _LOWEST + (_BAR - _LOWEST) * ((score - low) / (high - low) if high > low else 1.0)


def _bar(axes: Axes, found: Found, place: int, row: int, name: str, height: float) -> None:
    start, end = found.spans[place].tolist()
    axes.broken_barh(
        [(start, end - start)], _bar_at(row, height), **_bar_options(found.verdicts[place]), label=name
    )
    text = axes.text(
        (start + end) / 2,
        row + 0.52,
        f"{found.scores[place]:.3g}".replace("-", "−"),
        fontsize=6,
        ha="center",
        va="center",
    )
    text.set_bbox({"facecolor": "white", "alpha": 0.8, "pad": 0.5, "linewidth": 0})
    width = axes.transData.transform((end, 0))[0] - axes.transData.transform((start, 0))[0]
    if text.get_window_extent().width > 0.95 * width:
        text.remove()


def _bar_at(row: int, height: float = _BAR) -> tuple[float, float]:
    """Top and height; all bars of a lane stand on one line."""
    return row + (1 + _BAR) / 2 - height, height


def _curves(axes: Axes, timeline: Timeline, track: Track) -> None:
    edges, answer = timeline.edges, track.answer
    assert edges is not None and answer is not None
    for start, end in track.truth:
        axes.axvspan(start, end, color=_TINT, linewidth=0, zorder=0)
    axes.stairs(answer, edges, baseline=None, label="answer", **_answer_line(track))
    for values, colour, name in ((track.appearance, ORANGE, "appearance"), (track.motion, BLUE, "motion")):
        if values is not None and not np.isnan(values).all():
            axes.stairs(values, edges, baseline=None, color=colour, linewidth=1.3, label=name)
    if track.threshold is not None:
        axes.axhline(track.threshold, color=INK, linewidth=0.9, linestyle="--", label="threshold")
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axes.margins(y=0.12)
    axes.spines[["left", "bottom"]].set_visible(True)
    axes.spines[["left", "bottom"]].set_color(LIGHT)
    axes.tick_params(left=True, labelsize=7)
    axes.set_ylabel("activation", fontsize=7)
    axes.yaxis.set_label_coords(-0.36 / (WIDTH_IN - _LEFT_IN - _RIGHT_IN), 0.5)


def _answer_line(track: Track) -> dict[str, Any]:
    """Broad and pale below the lines of the models, if these are drawn."""
    if track.appearance is None:
        return {"color": INK, "linewidth": 1.3}
    return {"color": LIGHT, "linewidth": 4, "alpha": 0.6}
