"""From a selector's confidences to a model (Sec. 3.4), at one threshold or at every one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cache_schema import UserError
from policy.config import WhenNone

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
    fallback = confidences.shape[1] - 1 if when_none == "largest" else confidences.argmax(axis=1)
    return np.asarray(np.where(clears.any(axis=1), clears.argmax(axis=1), fallback), np.int64)


def thresholds(confidences: FloatArray, when_none: WhenNone, points: int | None) -> FloatArray:
    """(≤ points,), ascending: between which equally many of the videos' choices change.

    From 0, where all videos get the cheapest model, to one that gives them the dearest that any threshold does. A
    choice changes only where the threshold passes a confidence that is larger than those of all cheaper models.

    Args:
        points: None: one for each change.
    """
    best = np.maximum.accumulate(confidences, axis=1)
    passing = confidences > np.concatenate([np.full((len(best), 1), -np.inf), best[:, :-1]], axis=1)
    # Of the model that is chosen when none clears there is nothing behind.
    final = confidences.shape[1] - 1 if when_none == "largest" else confidences.argmax(axis=1)
    passing[np.arange(len(passing)), final] = False
    changes = np.sort(confidences[passing])
    if not len(changes):
        return np.zeros(1)
    if points is not None and len(changes) > points - 1:
        changes = changes[np.linspace(0, len(changes) - 1, max(1, points - 1)).round().astype(np.int64)]
    # Just above a confidence, or it would still clear.
    return np.unique(np.concatenate([[0.0], np.nextafter(changes, np.inf)]))


def choose_at_price(qualities: FloatArray, gflops: FloatArray, price: float) -> IntArray:
    """(M,): the model of largest quality − price · GFLOPs; of equal ones the first.

    Args:
        qualities: (M, N), what is expected of each model.
        gflops: (N,), what choosing it costs.
        price: quality that a GFLOP must bring.
    """
    return np.asarray((qualities - price * gflops).argmax(axis=1), np.int64)


def prices(qualities: FloatArray, gflops: FloatArray, points: int | None) -> FloatArray:
    """(≤ points,), descending to 0: between which equally many comparisons of two models turn out otherwise.

    Args:
        points: None: every price at which some comparison does.
    """
    turning: list[FloatArray] = []
    for a in range(len(gflops)):
        for b in range(a):
            dearer = gflops[a] - gflops[b]
            if dearer:
                turning.append((qualities[:, a] - qualities[:, b]) / dearer)
    every = np.concatenate(turning) if turning else np.zeros(0)
    ordered = np.unique(every[every > 0])
    if points is not None and len(ordered) > points - 1:
        ordered = ordered[np.linspace(0, len(ordered) - 1, max(1, points - 1)).round().astype(np.int64)]
    # Just above the last, where all videos get the cheapest that is worth anything, down to no price at all.
    return np.unique(np.concatenate([[0.0], np.nextafter(ordered, np.inf)]))[::-1]


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
        raise UserError(
            f"--budget {budget:g}: the least that is possible are {cost(float(values[0])):.4g} GFLOPs per video, "
            "for the selector's own model and the cheapest of the pool"
        )
    return float(values[affordable - 1])
