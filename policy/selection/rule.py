"""At a threshold (Sec. 3.4) or price: which model is chosen, which runs next, and where that changes.

The threshold is on a probability that models share. Where several suit a video equally well, each gets a part of
it, none clears even a low threshold, and the easiest videos are the first for which the largest model runs.
Weighing the same probabilities against what the models cost (our addition) compares models with each other, and
between equal ones the price decides. On planted pools (tests/test_selector_learning.py) it gains over 0.9 of what
can be gained over random selection at equal cost, and the threshold 0.6 to 0.75, even with the true probabilities.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np

from cache_schema import UserError
from cache_schema.costs import gflops_digits
from policy.selection.config import WhenNone
from policy.selection.pool import FloatArray, IntArray, Masks, all_of, contains

Look = Callable[[int, IntArray], tuple[FloatArray, FloatArray]]
"""From a set of models that have run, and (m,) videos, to (m,) the chance that the answer is right and (m, N) that
it would be after one more model."""
_TRIED = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Quantiles of the prices that decide first: walks at these prices show which prices decide later."""


# --- one model, chosen at once ---


def choose(confidences: FloatArray, threshold: float, when_none: WhenNone) -> IntArray:
    """(M,): the cheapest model whose confidence is at least the threshold.

    Where none is, which the paper leaves open: the largest model ("largest"), because a video of which the
    selector is unsure is one to spend on; or the one of most confidence ("most-confident"), as if the threshold
    were lowered until one cleared it. Either way a higher threshold never chooses a cheaper model.

    Args:
        confidences: (M, N), models by cost, the cheapest first.
    """
    clears = confidences >= threshold
    return np.asarray(
        np.where(clears.any(axis=1), clears.argmax(axis=1), _fallback(confidences, when_none)), np.int64
    )


def thresholds(confidences: FloatArray, when_none: WhenNone, points: int | None) -> FloatArray:
    """(≤ points,) thresholds, ascending; equally many of the videos' choices change from one to the next.

    From 0, where all videos get the cheapest model, to one that gives them the dearest that any threshold does. A
    choice changes only where the threshold passes a confidence that is larger than those of all cheaper models.

    Args:
        points: 2 or more; None: one for each change.
    """
    best = np.maximum.accumulate(confidences, axis=1)
    passing = confidences > np.concatenate([np.full((len(best), 1), -np.inf), best[:, :-1]], axis=1)
    # Behind the model that is chosen when none clears there is no other.
    passing[np.arange(len(passing)), _fallback(confidences, when_none)] = False
    # Just above a confidence, which would still clear a threshold equal to it.
    changes = np.nextafter(np.sort(confidences[passing]), np.inf)
    return np.unique(np.concatenate([[0.0], _spread(changes, points)]))


def choose_at_price(qualities: FloatArray, gflops: FloatArray, price: float) -> IntArray:
    """(M,): the model of largest quality − price · GFLOPs; of equal ones the first.

    Args:
        qualities: (M, N), the expected quality of each model, or confidence in it.
        gflops: (N,), what choosing it costs.
        price: quality that a GFLOP must bring.
    """
    return np.asarray((qualities - price * gflops).argmax(axis=1), np.int64)


def prices(qualities: FloatArray, gflops: FloatArray, points: int | None) -> FloatArray:
    """(≤ points,) prices, descending to 0; equally many comparisons of two models turn from one to the next.

    From one at which all videos get the cheapest model to 0, where each gets the one of most quality.

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
    """(≤ points,) prices, descending to 0: one between every two at which a decision turns, and one above all.

    Args:
        turning: prices at which some decision turns; those that are not positive are left out.
        points: 2 or more; None: all.
    """
    ordered = np.sort(turning[turning > 0])
    # Half way to the next one: at the turning price itself rounding would decide.
    between = (ordered + np.append(ordered[1:], 3 * ordered[-1:])) / 2
    return np.unique(np.concatenate([[0.0], _spread(between, points)]))[::-1]


def _fallback(confidences: FloatArray, when_none: WhenNone) -> IntArray:
    """(M,): which model runs where none clears the threshold."""
    if when_none == "largest":
        return np.full(len(confidences), confidences.shape[1] - 1)
    return np.asarray(confidences.argmax(axis=1))


def _spread(values: FloatArray, points: int | None) -> FloatArray:
    """At most points − 1 of ascending values, evenly by rank, with the last."""
    if points is None or len(values) < points:
        return values
    return np.asarray(values[np.linspace(len(values) - 1, 0, points - 1).round().astype(np.int64)])


# --- one model after another, as long as the next is worth its price ---


def walk(look: Look, count: int, start: int, gflops: FloatArray, price: float) -> Masks:
    """(count,): the models that run for each of so many videos.

    After each model runs that of `next_models`. Models may be skipped, and run later.

    Args:
        start: the set that has run before the first decision.
        gflops: (N,), cost of each model.
        price: chance of a right answer that a GFLOP must bring.
    """
    ran = np.full(count, start, np.uint32)
    live = np.arange(count) if start != all_of(len(gflops)) else np.arange(0)
    while len(live):
        goes_on = np.zeros(count, np.bool_)
        for mask in np.unique(ran[live]):
            videos = live[ran[live] == mask]
            sure, chances = look(int(mask), videos)
            following = next_models(int(mask), sure, chances, gflops, price)
            goes_on[videos] = further = following >= 0
            ran[videos[further]] |= np.uint32(1) << following[further].astype(np.uint32)
        live = np.flatnonzero(goes_on & (ran != all_of(len(gflops))))
    return ran


def next_models(
    mask: int, sure: FloatArray, chances: FloatArray, gflops: FloatArray, price: float
) -> IntArray:
    """(m,): the model that runs next for each of m videos, after a set of models; −1: none is worth its price.

    It is the one of largest chance − price · GFLOPs, of equal ones the first; none if that is no more than the
    chance that the answer is right already.

    Args:
        sure, chances: as `Look` gives them.
        gflops, price: as `walk` has them.
    """
    worth = np.where(contains(mask, np.arange(len(gflops))), -np.inf, chances - price * gflops)
    return np.where(worth.max(axis=1) > sure, worth.argmax(axis=1), -1)


def rates(look: Look, count: int, start: int, gflops: FloatArray) -> FloatArray:
    """Ascending: prices at which some video would just run a model, after the sets found on walks at a few prices.

    The prices that decide on any other walk are among these or close to them.
    """

    def sets_at(*prices: float) -> set[int]:
        return {start}.union(*(walk(look, count, start, gflops, price).tolist() for price in prices))

    free = _rates_at(look, count, gflops, sets_at(0.0))
    more = np.quantile(free, _TRIED).tolist() if len(free) else []
    return _rates_at(look, count, gflops, sets_at(0.0, *more))


def _rates_at(look: Look, count: int, gflops: FloatArray, sets: set[int]) -> FloatArray:
    rates_of_sets = []
    for mask in sorted(sets - {all_of(len(gflops))}):
        sure, chances = look(mask, np.arange(count))
        left = ~contains(mask, np.arange(len(gflops))) & (gflops > 0)
        rates_of_sets.append(((chances - sure[:, None])[:, left] / gflops[left]).ravel())
    every = np.concatenate([np.zeros(0), *rates_of_sets])
    return np.unique(every[every > 0])


# --- a budget ---


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
            f"--budget {budget:g}: the least that is possible is {gflops_digits(least)} GFLOPs per video, for "
            "the selector and the model that it looks at"
        )
