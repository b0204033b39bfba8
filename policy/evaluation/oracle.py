"""The best that choosing video by video could do, knowing the labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def oracle_choices(
    costs: FloatArray, correct: npt.NDArray[np.bool_], points: int
) -> tuple[FloatArray, IntArray]:
    """At a price λ, each video is given the option that maximises correct − λ · cost; of equal ones the cheapest.

    That is the cheapest option that is right, where it costs less than 1/λ more than the cheapest of all; else the
    cheapest of all. At λ = 0: each video's cheapest right option (where none is right, the cheapest).

    No choice of an option per video, made in whatever way, random ones included, is above the upper hull
    (`policy.evaluation.curves`) of all these trade-offs, for each maximises accuracy − λ · mean cost at its λ.

    Args:
        costs: (P, M) of P options for M videos.
        correct: (P, M), whether an option is right.
        points: how many trade-offs at most, at least 2: so that equally many videos change from one to the next.

    Returns:
        (K,) prices, rising from 0, in videos per unit of cost; (K, M), what each video is given.
    """
    everyone = np.arange(costs.shape[1])
    # Where two options cost the same, one that is right is better at every price.
    right = np.where(correct, costs, np.inf).argmin(axis=0)
    solvable = correct[right, everyone]
    extra = np.where(solvable, costs[right, everyone] - costs.min(axis=0), np.inf)
    cheapest = np.where(extra == 0, right, costs.argmin(axis=0))
    paid = np.sort(extra[solvable & (extra > 0)])
    sampled = paid[np.linspace(len(paid) - 1, 0, points - 1).round().astype(np.int64)] if len(paid) else paid
    prices, chosen = [], []
    for limit in np.unique(np.concatenate([[0.0], sampled]))[::-1]:
        dearer = paid[paid > limit]
        prices.append(1 / float(dearer[0]) if len(dearer) else 0.0)
        chosen.append(np.where(extra <= limit, right, cheapest))
    return np.array(prices), np.stack(chosen)
