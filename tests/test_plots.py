"""Drawings of figures 2 to 5: what is on them, by their artists; that nothing overlaps or is cut off."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from policy.sheets.words import one_line, shorten
from policy.tables.plots import curves, distribution, filmstrip
from policy.tables.plots.curves import Line
from policy.tables.plots.filmstrip import Strip
from policy.tables.plots.placement import Box
from policy.tables.plots.style import GREEN, VERMILLION, YELLOW

PNG = b"\x89PNG\r\n\x1a\n"
ODD = ["$\\frac{1}{", "a_b^c $5 $6", "キャンプ", "مرحبا", "name " * 60, "two\nlines\x00", "\udcff"]

COSTS = [k * 7.8 for k in (2, 4, 6, 10)]
LINES = [
    Line(
        "LiteEval",
        "proposed",
        [31, 40, 70, 94],
        [66, 70, 77, 80],
        [64, 69, 76, 79],
        [68, 71, 78, 81],
        labels=["K=2", "K=4", "K=8", "K=10"],
        hull=[(31, 66), (70, 77), (94, 80)],
    ),
    Line("UNIFORM-K", "baseline", COSTS, [62, 66, 69, 74], labels=["2", "4", "6", "10"]),
    Line("SEQ-K", "baseline", COSTS, [50, 55, 60, 67], labels=["2", "4", "", "10"]),
    Line("Random gating", "control", [31, 94], [60, 73]),
    Line("oracle", "oracle", [25], [84], [83], [85]),
    Line("LiteEval", "paper", [94.3], [80.0]),
]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """matplotlib warns of what is drawn badly."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text().strip()]


def cut_off(figure: Figure) -> list[str]:
    """Texts that reach over the edge of the figure."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        canvas.draw()  # type: ignore[no-untyped-call]
        extents = [(text, text.get_window_extent()) for text in texts(figure)]
    beyond = set()  # labels of ticks outside the limits, which are not drawn
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        beyond |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    width, height = figure.bbox.width, figure.bbox.height
    return [
        text.get_text()
        for text, at in extents
        if text not in beyond
        and (at.x0 < -0.5 or at.y0 < -0.5 or at.x1 > width + 0.5 or at.y1 > height + 0.5)
    ]


def plain(figure: Figure) -> list[str]:
    return [text.get_text().replace(r"\$", "$") for text in texts(figure)]


@pytest.mark.slow
def test_figure_2_has_every_curve() -> None:
    figure, boxes = curves.draw_against_cost(LINES, title="Fig. 2", subtitle="labels.csv")
    (axes,) = figure.axes
    drawn = [line for line in axes.lines if line.get_marker() not in ("None", None, "")]
    assert [list(map(float, np.asarray(line.get_xdata()))) for line in drawn] == [
        list(map(float, line.xs)) for line in LINES
    ]
    assert [list(map(float, np.asarray(line.get_ydata()))) for line in drawn] == [
        list(map(float, line.ys)) for line in LINES
    ]
    looks = {(to_hex(line.get_color()), line.get_marker(), line.get_linestyle()) for line in drawn}
    assert len(looks) == len(LINES)
    assert to_hex(drawn[0].get_color()) == VERMILLION.lower()
    assert axes.get_xscale() == "log"
    assert len(axes.collections) == 2  # the band of the first, the bar of the single point
    names = {"LiteEval", "UNIFORM-K", "SEQ-K", "Random gating", "oracle", "LiteEval (paper)", "convex hull"}
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == names
    assert len(boxes) == 11
    assert {"K=2", "K=10", "6"} <= set(plain(figure))
    assert cut_off(figure) == []
    # The labels of points cover nothing.
    assert all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])
    window = figure.axes[0].get_window_extent()
    frame = Box(window.x0, window.y0, window.x1, window.y1)
    assert all(box.outside(frame) == 0 for box in boxes)
    points = [at for line in LINES for at in zip(line.xs, line.ys, strict=True)]
    pixels = figure.axes[0].transData.transform(points)
    assert not any(box.contains((x, y)) for box in boxes for x, y in pixels.tolist())


def test_figure_3_has_two_panels_of_one_look() -> None:
    watched = [10, 50, 100]
    cost = [
        Line("LiteEval", "proposed", watched, [9, 47, 94]),
        Line("UNIFORM-10", "baseline", watched, [8, 40, 78]),
    ]
    accuracy = [
        Line("UNIFORM-10", "baseline", watched, [40, 70, 72]),
        Line("LiteEval", "proposed", watched, [50, 72, 75], [49, 71, 74], [51, 73, 76]),
    ]
    figure, _ = curves.draw_against_watched(cost, accuracy, title="Fig. 3")
    upper, lower = figure.axes
    assert upper.get_position().y0 > lower.get_position().y1
    assert upper.get_xlim() == lower.get_xlim() and upper.get_ylim()[0] == 0
    assert [to_hex(line.get_color()) for line in upper.lines] == [
        to_hex(line.get_color()) for line in reversed(lower.lines)
    ]
    assert len(figure.legends[0].get_texts()) == 2
    assert cut_off(figure) == []


def test_curves_that_are_none() -> None:
    with pytest.raises(ValueError, match="no line to draw"):
        curves.draw_against_cost([], title="t")
    with pytest.raises(ValueError, match="no line to draw"):
        curves.draw_against_watched(LINES, [], title="t")
    more: list[dict[str, object]] = [
        {"xs": [1, 2]},
        {"xs": []},
        {"labels": ["a", "b"]},
        {"low": [0.5]},
        {"ys": [float("nan")]},
    ]
    for broken in more:
        with pytest.raises(ValueError, match="curve: "):
            Line(**{"name": "curve", "kind": "baseline", "xs": [1], "ys": [1], **broken})  # type: ignore[arg-type]


def usage(classes: int = 5) -> dict[str, npt.NDArray[np.float64]]:
    random = np.random.default_rng(0)
    return {f"class {i}": random.integers(0, 3 * i + 3, 9 + i).astype(float) for i in range(classes)}


def test_figure_4_draws_quartiles_median_and_mean() -> None:
    values = usage()
    figure = distribution.draw(values, title="Fig. 4", subtitle="", x_label="fine features").figure
    (axes,) = figure.axes
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    names = distribution.drawn_classes(values)
    assert len(boxes) == len(names) == 5
    dots = [line for line in axes.lines if to_hex(line.get_markerfacecolor()) == YELLOW.lower()]
    for row, (name, box, dot) in enumerate(zip(names, boxes, dots, strict=True)):
        low, high = np.percentile(values[name], [25, 75])
        assert (box.get_x(), box.get_x() + box.get_width()) == pytest.approx((low, high))
        assert box.get_y() < row < box.get_y() + box.get_height()
        assert np.asarray(dot.get_xydata()).tolist() == [[pytest.approx(values[name].mean()), row]]
    medians = [
        float(np.asarray(lines.get_segments())[0, 0, 0])
        for lines in axes.collections
        if isinstance(lines, LineCollection) and np.ravel(lines.get_linewidth())[0] == 2.0
    ]
    assert medians == pytest.approx([np.median(values[name]) for name in names])
    assert [f"{name} ({len(values[name])})" for name in names] == [
        said for said in plain(figure) if said.startswith("class ") and said != "class (videos)"
    ]
    assert cut_off(figure) == []


def test_of_many_classes_the_telling_ones_are_drawn() -> None:
    values = {f"{mean}": np.array([mean - 0.1, mean + 0.1]) for mean in range(20)}
    values["wide"] = np.array([2.0, 18.0])
    values["none"] = np.array([])
    names = distribution.drawn_classes(values, limit=7)
    assert names[:2] == ["19", "18"] and names[-2:] == ["1", "0"] and "wide" in names
    assert len(names) == 7
    means = [values[name].mean() for name in names]
    assert means == sorted(means, reverse=True)
    with pytest.raises(ValueError, match="no video"):
        distribution.draw({"none": np.array([])}, title="t")
    assert distribution.draw({"zero": np.zeros(1)}, title="t").png.startswith(PNG)


def frames(count: int, height: int = 36, width: int = 64) -> list[npt.NDArray[np.uint8]]:
    return [np.full((height, width, 3), 10 + i, np.uint8) for i in range(count)]


def strip(count: int, opened: set[int], title: str = "video") -> Strip:
    return Strip(title, frames(count), [i in opened for i in range(count)], list(range(count)))


def test_figure_5_frames_the_opened_ones_in_green() -> None:
    figure = filmstrip.draw([strip(40, {3, 39}), strip(2, set(), "other")], title="Fig. 5").figure
    first, second = (np.asarray(image.get_array()) for image in figure.images)
    green = np.array([round(255 * part) for part in to_rgb(GREEN)])
    border = (2 * 36 + 2 * 64) * 5 + 4 * 5 * 5  # five pixels wide
    assert (first == green).all(axis=2).sum() == 2 * border
    assert not (second == green).all(axis=2).any()
    for shown, count in ((first, 40), (second, 2)):  # the frames as they are, each once
        levels, pixels = np.unique(shown[..., 0][(shown == shown[..., :1]).all(axis=2)], return_counts=True)
        frames_only = dict(zip(levels.tolist(), pixels.tolist(), strict=True))
        assert [frames_only.get(10 + i) for i in range(count)] == [36 * 64] * count
    bold = [text.get_text() for text in texts(figure) if to_hex(text.get_color()) == GREEN.lower()]
    assert bold == ["3 s", "39 s"]
    assert cut_off(figure) == []
    for image in figure.images:
        extent = image.get_window_extent()
        assert extent.x0 >= 0 and extent.y0 >= 0 and extent.x1 <= figure.bbox.width


def test_film_strips_in_a_page() -> None:
    block = filmstrip.block(Strip("v", frames(2), [False, True], [0.0, 1.5], "note"))
    assert (block.title, block.note) == ("v", "note")
    assert [(image.alt, image.caption, image.marked) for image in block.images] == [
        ("frame at 0 s", "0 s", False),
        ("frame at 1.5 s, fine features computed", "1.5 s", True),
    ]
    assert all(image.image.startswith(b"\xff\xd8\xff") for image in block.images)


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.integers(1, 40))
def test_thinning_keeps_what_was_opened(opened: list[bool], limit: int) -> None:
    rows = filmstrip.shown_rows(opened, limit).tolist()
    assert rows == sorted(set(rows)) and len(rows) == min(limit, len(opened))
    looked = [i for i, flag in enumerate(opened) if flag]
    kept = [i for i in rows if opened[i]]
    assert len(kept) == min(len(looked), limit)
    if 0 < len(looked) <= limit < len(opened):  # none left out is nearer to an opened one

        def away(row: int) -> int:
            return min(abs(row - i) for i in looked)

        assert max(map(away, rows)) <= min(map(away, set(range(len(opened))) - set(rows)))
    said = filmstrip.thinned(rows, opened)
    assert (said == "") == (len(rows) == len(opened))


def test_what_is_said_of_a_thinned_video() -> None:
    opened = [i in (4, 7) for i in range(90)]
    assert filmstrip.thinned([3, 4, 7], opened) == "3 of 90 frames shown, with all 2 green ones"
    assert filmstrip.thinned([4], opened) == "1 of 90 frames shown, with 1 of 2 green ones"


def test_film_strips_that_are_none() -> None:
    with pytest.raises(ValueError, match="no video"):
        filmstrip.draw([], title="t")
    with pytest.raises(ValueError, match="2 frames, 1 decisions"):
        Strip("v", frames(2), [True], [0.0, 1.0])
    with pytest.raises(ValueError, match="several sizes"):
        Strip("v", [*frames(1), *frames(1, height=20)], [True, True], [0.0, 1.0])


def test_the_same_bytes_again() -> None:
    def draw() -> list[bytes]:
        return [
            curves.draw_against_cost(LINES[3:], title="t").png,
            distribution.draw(usage(2), title="t").png,
            filmstrip.draw([strip(3, {1})], title="t").png,
        ]

    drawn = draw()
    assert all(content.startswith(PNG) for content in drawn)
    assert draw() == drawn


def test_every_line_has_a_colour_of_its_own() -> None:
    """As many as the widest table has: apart from one another by more than a shade."""
    kinds = {"proposed": 1, "baseline": 8, "control": 4, "random": 1, "oracle": 1}
    lines = [
        Line(f"{kind} {n}", kind, [1, 2], [50 + n, 60 + n])  # type: ignore[arg-type]
        for kind, count in kinds.items()
        for n in range(count)
    ]
    figure, _ = curves.draw_against_cost(lines, title="t")
    colours = np.array([to_rgb(line.get_color()) for line in figure.axes[0].get_lines()])
    assert len(colours) == len(lines)
    apart = np.abs(colours[:, None] - colours).max(axis=2)
    assert apart[np.triu_indices(len(colours), 1)].min() > 0.12


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_drawn_as_they_are(name: str) -> None:
    lines = [Line(name, "baseline", [1, 2], [50, 60], labels=[name, "K"]), Line("b", "oracle", [1], [70])]
    drawings = [
        curves.draw_against_cost(lines, title=name, subtitle=name),
        distribution.draw({name: np.arange(4.0)}, title=name, subtitle=name, x_label="x"),
        filmstrip.draw([strip(2, {0}, name)], title=name),
    ]
    for figure, _ in drawings:
        assert cut_off(figure) == []
        if len(name) < 20:
            assert any(one_line(name) in said for said in plain(figure))


@given(st.text(max_size=80), st.integers(2, 50))
@settings(max_examples=50)
def test_names_are_shortened_in_the_middle(name: str, limit: int) -> None:
    short = shorten(name, limit)
    assert len(short) == min(len(name), limit)
    head, _, tail = short.partition("…") if len(name) > limit else (name, "", "")
    assert name.startswith(head) and name.endswith(tail)
    assert len(one_line(name).splitlines()) <= 1
