"""Accuracy against cost: the curve that a set of operating points makes achievable, and its area.

Two operating points can be mixed by tossing a coin for each video; cost and accuracy are then between the two. So
every point on a straight line between two operating points is achievable, and the best achievable curve is their
upper convex hull. As a budget need not be used up, it goes on level beyond the best point.

Areas are taken over a linear cost axis, because mixing is linear in cost: on a logarithmic axis the hull would
bulge between its points, and most of the area would be that of small budgets, where few points lie.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Points = Sequence[float] | FloatArray
"""(P,): costs or accuracies of P operating points."""


def upper_hull(costs: Points, accuracies: Points) -> list[int]:
    """Indices of the points that are corners of the achievable curve, by cost.

    From the cheapest point (of several, the most accurate) to the most accurate (of several, the cheapest); each
    costs more and is more accurate than the one before, with falling slope. Of equal points the first counts.

    Raises:
        ValueError: there is no point, the lengths differ, or a value is not finite.
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


def hull_area(costs: Points, accuracies: Points, low: float, high: float) -> float:
    """Mean height of the upper hull over the budgets from `low` to `high`: the area, divided by the range.

    Returns:
        In the unit of the accuracies, between the smallest and the largest of them.

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


def hull_height(costs: Points, accuracies: Points, budget: float) -> float:
    """The best achievable accuracy at a budget; NaN below the cheapest point, where nothing is achievable.

    Raises:
        ValueError: as `upper_hull`.
    """
    cost, accuracy = _points(costs, accuracies)
    hull = upper_hull(cost, accuracy)
    return float(np.interp(budget, cost[hull], accuracy[hull], left=np.nan))


def common_budgets(*costs: Points) -> tuple[float, float]:
    """The range of costs that all curves cover, from lowest to highest.

    Raises:
        ValueError: the curves have no range of costs in common.
    """
    low, high = max(float(np.min(c)) for c in costs), min(float(np.max(c)) for c in costs)
    if not low < high:
        raise ValueError("the curves have no range of costs in common")
    return low, high


def area_between(a: tuple[Points, Points], b: tuple[Points, Points]) -> float:
    """How far the hull of `a` is above that of `b`, averaged over the costs that both curves cover.

    Args:
        a, b: costs and accuracies of the points of each.

    Returns:
        In the unit of the accuracies; negative where `b` is better.

    Raises:
        ValueError: as `upper_hull` and `common_budgets`.
    """
    low, high = common_budgets(a[0], b[0])
    return hull_area(*a, low, high) - hull_area(*b, low, high)


def oracle_choices(
    costs: FloatArray, correct: npt.NDArray[np.bool_], points: int
) -> tuple[FloatArray, IntArray]:
    """The best possible choice of an option for each video, made with the labels known, at several prices.

    At a price λ, each video gets the option that maximises correct − λ · cost; of equal ones the cheapest. That
    is the cheapest correct option if it costs less than 1/λ more than the cheapest of all, else the cheapest of
    all. At λ = 0 it is each video's cheapest correct option (if none is correct, the cheapest).

    No way to choose an option for each video, at random or not, is above the upper hull of all these trade-offs,
    as each maximises accuracy − λ · mean cost at its λ.

    Args:
        costs: (P, M) of P options for M videos.
        correct: (P, M), whether an option is correct.
        points: the largest number of trade-offs, at least 2; equally many videos change from one to the next.

    Returns:
        (K,) prices, rising from 0, in videos per unit of cost; (K, M), the option of each video.
    """
    videos = np.arange(costs.shape[1])
    # Where two options cost the same, a correct one is better at every price.
    right = np.where(correct, costs, np.inf).argmin(axis=0)
    solvable = correct[right, videos]
    extra = np.where(solvable, costs[right, videos] - costs.min(axis=0), np.inf)
    cheapest = np.where(extra == 0, right, costs.argmin(axis=0))
    paid = np.sort(extra[solvable & (extra > 0)])
    sampled = paid[np.linspace(len(paid) - 1, 0, points - 1).round().astype(np.int64)] if len(paid) else paid
    prices, choices = [], []
    for limit in np.unique(np.concatenate([[0.0], sampled]))[::-1]:
        beyond = paid[paid > limit]
        prices.append(1 / float(beyond[0]) if len(beyond) else 0.0)
        choices.append(np.where(extra <= limit, right, cheapest))
    return np.array(prices), np.stack(choices)


def _points(costs: Points, accuracies: Points) -> tuple[FloatArray, FloatArray]:
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
