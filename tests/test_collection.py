"""A budget that the videos of a collection share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from policy.evaluation.collection import Chances, Spent, extra_gflops, looks, spend
from policy.evaluation.ledger import Ledger
from policy.evaluation.predictions import Predictions

Floats = npt.NDArray[np.float64]


def test_what_an_answer_looks_like() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]])
    sure, certain = looks(scores)
    entropy = -sum(p * np.log(p) for p in scores[0])
    assert sure == pytest.approx([np.log(0.7 / 0.3), np.log(0.7 / 0.2), entropy])
    assert certain[0] > sure[0] and certain[1] > sure[1] and certain[2] < sure[2]


@given(
    arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(0, 1, width=32))
)
def test_every_answer_has_finite_looks(scores: npt.NDArray[np.float32]) -> None:
    assert np.isfinite(looks(scores)).all()


def drawn(
    random: np.random.Generator, points: int, videos: int
) -> tuple[list[Floats], npt.NDArray[np.bool_]]:
    """Looks, and answers that are right the oftener the surer they look, and the dearer the point."""
    looked = [random.normal(0, 2, (videos, 3)) + point for point in range(points)]
    right = np.stack([random.random(videos) < 1 / (1 + np.exp(-each[:, 0])) for each in looked])
    return looked, right


def test_chances_are_calibrated() -> None:
    random = np.random.default_rng(0)
    chances = Chances.fit(*drawn(random, 2, 4000))
    looked, right = drawn(random, 2, 4000)
    now, later = chances.at(0, looked[0])
    for low in (0.1, 0.4, 0.7):
        bin_of = (now > low) & (now < low + 0.2)
        assert right[0][bin_of].mean() == pytest.approx(now[bin_of].mean(), abs=0.05)
    assert later.mean() == pytest.approx(right[1].mean(), abs=0.03)


def test_a_point_that_is_always_right_has_a_chance_below_one() -> None:
    chances = Chances.fit([np.zeros((8, 3))] * 2, np.array([[False] * 8, [True] * 8]))
    assert chances.at(0, np.zeros((1, 3))).ravel() == pytest.approx([1 / 10, 9 / 10])


def naive(
    chances: Chances, looked: list[Floats], extra: Floats, further: bool
) -> list[tuple[int, int, float]]:
    """The greedy rule with plain loops: of all videos and points the step that pays most, again and again; without
    `further` by what the cheapest answers look like, and of costs beside them."""
    points, videos = len(looked), len(looked[0])
    at = [0] * videos
    steps: list[tuple[int, int, float]] = []
    while True:
        best: tuple[float, int, int] | None = None
        for video in range(videos):
            seen = at[video] if further else 0
            chance = chances.at(seen, looked[seen][video : video + 1])[:, 0]
            for point in range(at[video] + 1, points):
                gain = chance[point - seen] - chance[at[video] - seen]
                paid = extra[0, at[video], video] if not further and at[video] else 0
                pays = gain / (extra[seen, point, video] - paid)
                if pays > 0 and (best is None or pays > best[0]):
                    best = pays, video, point
        if best is None:
            return steps
        _, video, point = best
        seen = at[video] if further else 0
        paid = extra[0, at[video], video] if not further and at[video] else 0
        steps.append((video, point, float(extra[seen, point, video] - paid)))
        at[video] = point


@pytest.mark.parametrize("further", [True, False])
def test_the_step_that_pays_most_comes_first(further: bool) -> None:
    random = np.random.default_rng(1)
    chances = Chances.fit(*drawn(random, 3, 200))
    looked, _ = drawn(random, 3, 12)
    totals = np.cumsum(random.uniform(0.5, 2, (3, 12)), axis=0)
    extra = np.maximum(totals[None] - totals[:, None], 0)
    extra[0, 0] = totals[0]
    steps = naive(chances, looked, extra, further)
    spent = spend(chances, looked, extra, 7, further=further)
    whole = sum(cost for _, _, cost in steps)
    for row, most in enumerate(np.linspace(0, whole, 7)):
        at, costs, total = [0] * 12, list(totals[0]), 0.0
        for video, point, cost in steps:
            if total + cost > most * (1 + 1e-12):
                break
            at[video], costs[video], total = point, costs[video] + cost, total + cost
        assert spent.points[row].tolist() == at
        assert spent.costs[row] == pytest.approx(costs)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 5), st.booleans(), st.integers(0, 99))
def test_more_is_spent_on_the_same_videos(
    points: int, videos: int, budgets: int, further: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    chances = Chances.fit(*drawn(random, points, 30))
    looked, _ = drawn(random, points, videos)
    totals = np.cumsum(random.uniform(0, 2, (points, videos)), axis=0)
    extra = np.maximum(totals[None] - totals[:, None], 0)
    extra[0, 0] = totals[0]
    spent = spend(chances, looked, extra, budgets, further=further)
    assert spent.points.shape == spent.costs.shape == (budgets, videos)
    assert (spent.points[0] == 0).all() and (np.diff(spent.points, axis=0) >= 0).all()
    assert spent.costs[0] == pytest.approx(totals[0]) and (np.diff(spent.costs, axis=0) >= 0).all()


def test_what_is_unsure_gets_the_budget() -> None:
    """Half of the videos are right at once and look so; the others are right at the dear point alone."""
    looked = [np.repeat([[4.0, 3.0, 0.1], [-2.0, 0.1, 2.0]], 50, axis=0), np.full((100, 3), 3.0)]
    right = np.stack([np.repeat([True, False], 50), np.ones(100, np.bool_)])
    extra = np.array([[np.ones(100), np.full(100, 9.0)], [np.zeros(100), np.zeros(100)]])
    spent: Spent = spend(Chances.fit(looked, right), looked, extra, 5, further=True)
    top1 = np.take_along_axis(right, spent.points, axis=0).mean(axis=1)
    alike = 0.5 + 0.5 * (spent.costs.mean(axis=1) - 1) / 9  # the same budget, spent on videos at random
    assert top1[-1] == 1 and (top1[1:-1] > alike[1:-1] + 0.1).all()


def predictions(gates: Any, coarse: Any, network: int) -> Predictions:
    """Of two videos of two and three rows; a row of the fine stream costs 10⁹ MACs."""
    opened = np.array([gates], np.uint8)
    fine = np.add.reduceat(opened[0].astype(np.int64), [0, 2])[None] * 10**9
    macs = {
        "coarse_112": np.array([coarse]) * 10**9,
        "fine_224": fine,
        "a network": np.full((1, 2), network * 10**9),
    }
    labels, scores = np.ones((2, 1), np.bool_), np.ones((1, 2, 1), np.float32)
    return Predictions(
        ("a", "b"), labels, scores, np.array([0, 2, 5]), opened, np.array([2, 3]), Ledger(macs)
    )


def test_rows_that_are_there_are_not_computed_again() -> None:
    cheap, dear = predictions([1, 0, 0, 0, 1], [2, 3], 1), predictions([1, 1, 1, 1, 0], [2, 3], 1)
    extra = extra_gflops([cheap, dear], incremental=False, gated="fine_224", always=["coarse_112"])
    assert extra[0, 0] == pytest.approx([2 + 1 + 1, 3 + 1 + 1])
    assert extra[0, 1] == pytest.approx([1 + 1, 2 + 1])  # fine rows that are new, and the network again
    other_rows = predictions([1, 1, 1, 1, 0], [1, 3], 1)  # of the coarse stream, too, for the first video
    extra = extra_gflops([cheap, other_rows], incremental=False, gated="fine_224", always=["coarse_112"])
    assert extra[0, 1] == pytest.approx([1 + 1 + 1, 2 + 1])
    goes_on = extra_gflops([cheap, dear], incremental=True, gated="fine_224", always=["coarse_112"])
    assert goes_on[0, 1] == pytest.approx(dear.gflops[0] - cheap.gflops[0])
