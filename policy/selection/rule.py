"""From a selector's confidences to a model, at one threshold (Sec. 3.4) or price, or at every one.

The threshold looks at a probability that models share. Where several suit a video equally well, each gets a part
of it, none clears even a low threshold, and the easiest videos are the first for which the largest model runs.
Weighing the same probabilities against what the models cost (our addition) compares models with each other, and
equal ones are decided by their price. On planted pools (tests/test_selector_learning.py) it gains over 0.9 of what
can be gained over random selection at equal cost, and the threshold 0.6 to 0.75, also where it is given the true
probabilities.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cache_schema import UserError
from policy.selection.config import WhenNone

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def choose(confidences: FloatArray, threshold: float, when_none: WhenNone) -> IntArray:
    """(M,): the cheapest model whose confidence is at least the threshold.

    Where none is, which the paper leaves open: the largest model ("largest"), for a video of which the selector is
    unsure is one to spend on; or the one of most confidence ("most-confident"), as if the threshold were lowered
    until one cleared it. Either way a higher threshold never chooses a cheaper model.

    Args:
        confidences: (M, N), models by cost, the cheapest first.
    """
    clears = confidences >= threshold
    return np.asarray(
        np.where(clears.any(axis=1), clears.argmax(axis=1), _fallback(confidences, when_none)), np.int64
    )


def thresholds(confidences: FloatArray, when_none: WhenNone, points: int | None) -> FloatArray:
    """(≤ points,), ascending: between which equally many of the videos' choices change.

    From 0, where all videos get the cheapest model, to one that gives them the dearest that any threshold does. A
    choice changes only where the threshold passes a confidence that is larger than those of all cheaper models.

    Args:
        points: 2 or more; None: one for each change.
    """
    best = np.maximum.accumulate(confidences, axis=1)
    passing = confidences > np.concatenate([np.full((len(best), 1), -np.inf), best[:, :-1]], axis=1)
    # Of the model that is chosen when none clears there is nothing behind.
    passing[np.arange(len(passing)), _fallback(confidences, when_none)] = False
    # Just above a confidence, or it would still clear.
    changes = np.nextafter(np.sort(confidences[passing]), np.inf)
    return np.unique(np.concatenate([[0.0], _spread(changes, points)]))


def choose_at_price(qualities: FloatArray, gflops: FloatArray, price: float) -> IntArray:
    """(M,): the model of largest quality − price · GFLOPs; of equal ones the first.

    Args:
        qualities: (M, N), what is expected of each model, or confidence in it.
        gflops: (N,), what choosing it costs.
        price: quality that a GFLOP must bring.
    """
    return np.asarray((qualities - price * gflops).argmax(axis=1), np.int64)


def prices(qualities: FloatArray, gflops: FloatArray, points: int | None) -> FloatArray:
    """(≤ points,), descending to 0: between which equally many comparisons of two models turn out otherwise.

    From one at which all videos get the cheapest model to none at all, where each gets the one of most quality.

    Args:
        points: 2 or more; None: one between every two prices at which some comparison turns.
    """
    turning = [
        (qualities[:, a] - qualities[:, b]) / (gflops[a] - gflops[b])
        for a in range(len(gflops))
        for b in range(a)
        if gflops[a] != gflops[b]
    ]
    return prices_between(np.concatenate([np.zeros(0), *turning]), points)


def prices_between(turning: FloatArray, points: int | None) -> FloatArray:
    """(≤ points,), descending to 0: prices between those at which something turns out otherwise, one above all.

    Args:
        turning: those that are not positive do not count.
        points: 2 or more; None: all.
    """
    ordered = np.sort(turning[turning > 0])
    # Not at a price that leaves the choice to rounding, but half way to the next.
    between = (ordered + np.append(ordered[1:], 3 * ordered[-1:])) / 2
    return np.unique(np.concatenate([[0.0], _spread(between, points)]))[::-1]


def within_budget(budget: float, values: FloatArray, cost: Callable[[float], float]) -> float:
    """The value that spends most of a budget.

    Args:
        budget: mean GFLOPs per video.
        values: thresholds or prices, by rising cost.
        cost: from a value to mean GFLOPs per video, all included.

    Raises:
        UserError: not even the first is within the budget.
    """
    affordable = bisect_right(values, budget, key=cost)
    if not affordable:
        check_budget(budget, cost(float(values[0])))
    return float(values[affordable - 1])


def check_budget(budget: float, least: float) -> None:
    """Raises UserError where a budget is below the least GFLOPs that are possible."""
    if budget < least:
        raise UserError(
            f"--budget {budget:g}: the least that is possible are {least:.4g} GFLOPs per video, for the selector "
            "and the model that it looks at"
        )


def _fallback(confidences: FloatArray, when_none: WhenNone) -> IntArray:
    """(M,): which model runs where none clears the threshold."""
    if when_none == "largest":
        return np.full(len(confidences), confidences.shape[1] - 1)
    return np.asarray(confidences.argmax(axis=1))


def _spread(values: FloatArray, points: int | None) -> FloatArray:
    """At most points − 1 of ascending values, evenly by rank; the last is among them."""
    if points is None or len(values) < points:
        return values
    return np.asarray(values[np.linspace(len(values) - 1, 0, points - 1).round().astype(np.int64)])
