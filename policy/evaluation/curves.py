"""Accuracy against cost: the curve that a set of operating points makes achievable, and its area.

Two operating points can be mixed: tossing a coin for each video costs, and is right, as often as the coin says
between the two. So every point on a straight line between two operating points is achievable, and the best
achievable is their upper convex hull; a budget need not be spent, so beyond the best point it goes on level.

Areas are taken over a linear cost axis. Mixing is linear in cost: on a logarithmic axis the hull would bulge
between its points, and the area would say most of budgets so small that few points lie there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def upper_hull(costs: Sequence[float] | FloatArray, accuracies: Sequence[float] | FloatArray) -> list[int]:
    """Which of P points are corners of the achievable curve, by cost.

    From the cheapest point (of several, the most accurate) to the most accurate (of several, the cheapest), each
    step dearer, more accurate, and less steep than the one before. Of equal points the first counts.

    Raises:
        ValueError: there is no point, the two are not as long as each other, or a value is not finite.
    """
    cost, accuracy = _points(costs, accuracies)
    hull: list[int] = []
    for point in sorted(range(len(cost)), key=lambda p: (cost[p], -accuracy[p])):
        if hull and accuracy[point] <= accuracy[hull[-1]]:
            continue
        while len(hull) > 1 and _below(hull[-1], hull[-2], point, cost, accuracy):
            hull.pop()
        hull.append(point)
    return hull


def hull_area(
    costs: Sequence[float] | FloatArray, accuracies: Sequence[float] | FloatArray, low: float, high: float
) -> float:
    """Mean height of the upper hull over the budgets from `low` to `high`: the area, divided by the range.

    Returns:
        In the unit of the accuracies, between the least and the largest of them.

    Raises:
        ValueError: as `upper_hull`; `low` is not below `high`, or is below the cheapest point, where nothing is
            achievable.
    """
    cost, accuracy = _points(costs, accuracies)
    hull = upper_hull(cost, accuracy)
    corners, heights = cost[hull], accuracy[hull]
    if not low < high:
        raise ValueError(f"no budgets between {low:g} and {high:g}")
    if low < corners[0]:
        raise ValueError(f"no point costs as little as {low:g}; the cheapest costs {corners[0]:g}")
    inside = corners[(corners > low) & (corners < high)]
    budgets = np.concatenate([[low], inside, [high]])
    height = np.interp(budgets, corners, heights)  # level beyond the last corner
    return float(np.sum(np.diff(budgets) * (height[:-1] + height[1:]) / 2) / (high - low))


def hull_height(
    costs: Sequence[float] | FloatArray, accuracies: Sequence[float] | FloatArray, budget: float
) -> float:
    """The best achievable accuracy at a budget; NaN below the cheapest point, where nothing is achievable.

    Raises:
        ValueError: as `upper_hull`.
    """
    cost, accuracy = _points(costs, accuracies)
    hull = upper_hull(cost, accuracy)
    return float(np.interp(budget, cost[hull], accuracy[hull], left=np.nan))


def common_budgets(*costs: Sequence[float] | FloatArray) -> tuple[float, float]:
    """From the dearest of the curves' cheapest points to the cheapest of their dearest.

    Raises:
        ValueError: the curves have no range of costs in common.
    """
    low, high = max(float(np.min(c)) for c in costs), min(float(np.max(c)) for c in costs)
    if not low < high:
        raise ValueError("the curves have no range of costs in common")
    return low, high


def area_between(
    a: tuple[Sequence[float] | FloatArray, Sequence[float] | FloatArray],
    b: tuple[Sequence[float] | FloatArray, Sequence[float] | FloatArray],
) -> float:
    """By how much the hull of `a` is above that of `b`, averaged over the costs that both curves cover.

    Args:
        a, b: costs and accuracies of the points of each.

    Returns:
        In the unit of the accuracies; negative where `b` is better.

    Raises:
        ValueError: as `upper_hull` and `common_budgets`.
    """
    low, high = common_budgets(a[0], b[0])
    return hull_area(*a, low, high) - hull_area(*b, low, high)


def _points(
    costs: Sequence[float] | FloatArray, accuracies: Sequence[float] | FloatArray
) -> tuple[FloatArray, FloatArray]:
    cost, accuracy = np.asarray(costs, np.float64), np.asarray(accuracies, np.float64)
    if cost.ndim != 1 or cost.shape != accuracy.shape or not len(cost):
        raise ValueError(f"costs {cost.shape} and accuracies {accuracy.shape} are not two equal (P,) arrays")
    if not (np.isfinite(cost).all() and np.isfinite(accuracy).all()):
        raise ValueError("costs and accuracies must be finite")
    return cost, accuracy


def _below(middle: int, left: int, right: int, cost: FloatArray, accuracy: FloatArray) -> bool:
    """Whether the middle point is on or below the line between the two others."""
    rise, run = accuracy[right] - accuracy[left], cost[right] - cost[left]
    return bool((accuracy[middle] - accuracy[left]) * run <= rise * (cost[middle] - cost[left]))
