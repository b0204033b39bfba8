"""What the model selection paper's figures draw that LiteEval's do not: points that nothing joins, and classes."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from policy.tables.exhibits.selection_parts import random_line
from policy.tables.plots import classes, curves
from policy.tables.plots.classes import NAMED, ClassPoint
from policy.tables.plots.curves import Line
from policy.tables.plots.placement import Box


def test_points_that_nothing_joins_and_lines_without_points() -> None:
    xs = np.geomspace(0.6, 20, 40)
    lines = [
        Line("selection", "proposed", xs.tolist(), (60 + xs).tolist()),
        Line("models", "models", [0.6, 2, 20], [50, 60, 75], labels=["xs", "s", "l"]),
        Line("random", "random", [0.6, 20], [50, 75]),
        *(Line(f"control {n}", "control", [1, 20], [50 + n, 75 + n]) for n in range(3)),
        Line("Mini-Kinetics", "cited", [8, 14], [83, 81], labels=["ours", "X3D-M"]),
    ]
    figure, boxes = curves.draw_against_cost(lines, title="Fig. 3")
    by_points = {tuple(map(float, np.asarray(line.get_xdata()))): line for line in figure.axes[0].lines}
    drawn = [by_points[tuple(map(float, line.xs))] for line in lines[:3] + lines[-1:]]
    assert [line.get_linestyle() for line in drawn] == ["-", "None", ":", "None"]
    assert [line.get_marker() for line in drawn] == ["*", "o", "", "x"]
    assert drawn[0].get_markevery() is not None, "forty stars would be a hedge"
    looks = {(to_hex(line.get_color()), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) >= len(lines)
    assert len(boxes) == 5 and all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])
    (legend,) = figure.legends
    assert "Mini-Kinetics (paper)" in [text.get_text() for text in legend.get_texts()]


def test_random_selection_is_straight_between_the_corners_of_the_hull() -> None:
    line = random_line(
        np.array([1.0, 4.0, 9.0]), np.array([40.0, 45.0, 80.0])
    )  # the second is below the hull
    np.testing.assert_allclose(line.ys, 40 + 5 * (np.array(line.xs) - 1))
    assert (line.xs[0], line.xs[-1]) == (1, 9) and len(line.xs) > 20


def test_the_cheapest_and_the_dearest_classes_are_named() -> None:
    random = np.random.default_rng(0)
    points = [
        ClassPoint(f"class {n}", float(gflops), float(percent))
        for n, (gflops, percent) in enumerate(
            zip(np.linspace(1, 15, 60), random.uniform(30, 99, 60), strict=True)
        )
    ]
    figure, boxes = classes.draw(points[::-1], title="Fig. 3c", accuracy="HIT@1 (%)")
    (axes,) = figure.axes
    named = {text.get_text() for text in axes.texts}
    assert named == {point.name for point in [*points[:NAMED], *points[-NAMED:]]}
    lines = [line for line in axes.lines if str(line.get_marker()) in "ov^"]
    xs = np.concatenate([np.asarray(line.get_xdata(), np.float64) for line in lines])
    ys = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in lines])
    np.testing.assert_allclose(np.sort(xs), [point.gflops for point in points])
    np.testing.assert_allclose(ys[np.argsort(xs)], [point.percent for point in points])
    window = axes.get_window_extent()
    assert all(box.outside(Box(window.x0, window.y0, window.x1, window.y1)) == 0 for box in boxes)
    assert all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_classes(count: int) -> None:
    points = [ClassPoint("$x$" * n, 2.0, 50.0) for n in range(1, count + 1)]
    assert classes.draw(points, title="t", accuracy="HIT@1 (%)").png.startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no class to draw"):
        classes.draw([], title="t", accuracy="HIT@1 (%)")
