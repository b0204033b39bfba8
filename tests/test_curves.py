"""Hulls and areas against brute force and figures worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.evaluation.curves import area_between, common_budgets, hull_area, upper_hull

# Integers, so that three points on one line are exactly that.
clouds = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), min_size=1, max_size=12)


def best_mix(points: list[tuple[int, int]], budget: float) -> float:
    """The best accuracy of any one point or mix of two that costs at most the budget."""
    best = max((a for c, a in points if c <= budget), default=-np.inf)
    for c0, a0 in points:
        for c1, a1 in points:
            if c0 <= budget < c1:
                best = max(best, a0 + (a1 - a0) * (budget - c0) / (c1 - c0))
    return best


@given(points=clouds, over=st.integers(1, 40))
def test_hull_is_the_best_mix(points: list[tuple[int, int]], over: int) -> None:
    cost, accuracy = np.array(points, np.float64).T
    hull = upper_hull(cost, accuracy)
    for budget in np.unique([*cost, *(cost + 0.37)]):
        height = np.interp(budget, cost[hull], accuracy[hull])
        assert height == pytest.approx(best_mix(points, budget))
    # Only corners: without any of them the hull is lower somewhere.
    corners = [points[p] for p in hull]
    assert all(c0 < c1 and a0 < a1 for (c0, a0), (c1, a1) in pairwise(corners))
    slopes = [(a1 - a0) / (c1 - c0) for (c0, a0), (c1, a1) in pairwise(corners)]
    assert all(s0 > s1 for s0, s1 in pairwise(slopes))

    low = float(cost.min())
    area = hull_area(cost, accuracy, low, low + over)
    ends = np.unique([low, low + over, *cost[cost < low + over]])  # straight between these
    heights = np.array([best_mix(points, budget) for budget in ends])
    assert area * over == pytest.approx(np.sum(np.diff(ends) * (heights[:-1] + heights[1:]) / 2))


def test_by_hand() -> None:
    costs, accuracies = [30.0, 10.0, 20.0, 20.0, 40.0], [80.0, 50.0, 70.0, 60.0, 75.0]
    assert upper_hull(costs, accuracies) == [1, 2, 0]
    # 50..70 over 10, 70..80 over 10, then level for 20: (60·10 + 75·10 + 80·20) / 40
    assert hull_area(costs, accuracies, 10, 50) == pytest.approx(73.75)
    assert hull_area(costs, accuracies, 15, 25) == pytest.approx((65 * 5 + 72.5 * 5) / 10)
    assert hull_area([5.0], [42.0], 5, 6) == 42


def test_area_between() -> None:
    ours = [10.0, 20.0, 40.0], [60.0, 70.0, 72.0]
    theirs = [5.0, 30.0], [50.0, 70.0]
    assert common_budgets(ours[0], theirs[0]) == (10, 30)
    # Ours 60..70..71 over 10..20..30: (65 + 70.5)/2. Theirs 54..70: 62.
    assert area_between(ours, theirs) == pytest.approx(67.75 - 62)
    assert area_between(theirs, ours) == pytest.approx(62 - 67.75)
    assert area_between(ours, ours) == 0


def test_what_is_no_curve() -> None:
    with pytest.raises(ValueError, match="not two equal"):
        upper_hull([], [])
    with pytest.raises(ValueError, match="not two equal"):
        upper_hull([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="finite"):
        upper_hull([1.0, np.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match="no point costs as little as 1; the cheapest costs 2"):
        hull_area([2.0], [1.0], 1, 3)
    with pytest.raises(ValueError, match="no budgets between 3 and 3"):
        hull_area([2.0], [1.0], 3, 3)
    with pytest.raises(ValueError, match="no range of costs in common"):
        common_budgets([1.0, 2.0], [2.0, 3.0])
