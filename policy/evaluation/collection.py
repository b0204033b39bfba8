"""One budget for a whole collection of videos, spent where it pays most.

Every video is answered at a policy's cheapest operating point. From what that answer looks like follow the chance
that it is right, and the chance that the answer of a dearer point would be (`Chances`, fitted on videos with
labels). The greedy rule goes on with the video and the point of the largest expected gain per cost, until the
budget is spent or nothing more is expected. No labels of the collection are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from policy.evaluation.predictions import Predictions

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LEAST = 1e-6  # probabilities are kept this far from 0 and 1


def looks(scores: npt.NDArray[np.floating]) -> FloatArray:
    """(M, 3) of class probabilities (M, C): log-odds of the largest, by how many nats it leads, entropy."""
    chances = np.clip(scores.astype(np.float64), _LEAST, 1 - _LEAST)
    ranked = np.sort(chances, axis=1)
    largest, second = ranked[:, -1], ranked[:, -min(2, chances.shape[1])]
    entropy = -(chances * np.log(chances)).sum(axis=1)
    return np.stack([np.log(largest / (1 - largest)), np.log(largest / second), entropy], axis=1)


@dataclass(frozen=True)
class Chances:
    """Of being right at each of P points, from the looks of the answer at one of them.

    Attributes:
        models: by the point whose answer is known, then by point from that one on: a regression, or one chance for
            all videos.
    """

    models: tuple[tuple[Pipeline | float, ...], ...]

    @staticmethod
    def fit(looked: Sequence[FloatArray], correct: BoolArray) -> Chances:
        """Logistic regressions, with scikit-learn's penalty.

        Args:
            looked: P of (M, 3), of the answers at each point.
            correct: (P, M), whether they are right.
        """
        points = range(len(looked))
        return Chances(tuple(tuple(_fit(looked[p], correct[q]) for q in points[p:]) for p in points))

    def at(self, point: int, looked: FloatArray) -> FloatArray:
        """(P − point, M): chances of being right at `point`, whose answers look so (M, 3), and at all after it."""
        return np.stack([_chance(model, looked) for model in self.models[point]])


def _fit(looked: FloatArray, correct: BoolArray) -> Pipeline | float:
    right = int(correct.sum())
    if right in (0, len(correct)):
        return (right + 1) / (len(correct) + 2)  # Laplace's rule of succession
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(looked, correct)


def _chance(model: Pipeline | float, looked: FloatArray) -> FloatArray:
    if isinstance(model, float):
        return np.full(len(looked), model)
    return np.asarray(model.predict_proba(looked)[:, 1])


@dataclass(frozen=True)
class Spent:
    """What a collection has at B budgets.

    Attributes:
        points: (B, M), the point at which each video is answered.
        costs: (B, M), what was spent on it.
    """

    points: IntArray
    costs: FloatArray


def spend(
    chances: Chances, looked: Sequence[FloatArray], extra: FloatArray, budgets: int, *, further: bool
) -> Spent:
    """Spend on M videos by the greedy rule.

    Args:
        looked: P of (M, 3), of the answers at each point; those of points that are not reached are not looked at.
        extra: (P, P, M), what it costs to go from point p to q; of the cheapest, [0, 0], to be there.
        budgets: how many, evenly spread between the cheapest and all that the rule would spend.
        further: whether a video goes on from point to point, each new answer deciding; if not, the cheapest answer
            decides, and only the last point is computed beside it.
    """
    points, videos = len(looked), looked[0].shape[0]
    chance = [chances.at(point, looked[point]) for point in range(points)]

    def costs_of(video: int, point: int) -> FloatArray:
        """(P,): what it costs to come to another point from this one."""
        if further or not point:
            return np.asarray(extra[point, :, video])
        return np.asarray(extra[0, :, video] - extra[0, point, video])

    def best(video: int, point: int) -> tuple[float, int, int] | None:
        """The step of a video that pays most: minus its gain per cost, so that the smallest comes first."""
        observed = point if further else 0
        gains = chance[observed][point - observed + 1 :, video] - chance[observed][point - observed, video]
        if not len(gains):
            return None
        pays = gains / np.maximum(costs_of(video, point)[point + 1 :], np.finfo(np.float64).tiny)
        step = int(pays.argmax())
        return (-float(pays[step]), video, point + 1 + step) if pays[step] > 0 else None

    waiting = [step for video in range(videos) if (step := best(video, 0)) is not None]
    heapify(waiting)
    at, costs = np.zeros(videos, np.int64), extra[0, 0].copy()
    steps: list[tuple[int, int, float]] = []
    while waiting:
        _, video, point = heappop(waiting)
        steps.append((video, point, float(costs_of(video, int(at[video]))[point])))
        at[video] = point
        if (step := best(video, point)) is not None:
            heappush(waiting, step)
    at[:] = 0
    total = np.cumsum([0.0, *(cost for _, _, cost in steps)])
    reached, spent, done = [], [], 0
    for most in np.linspace(0, total[-1], budgets):
        while done < len(steps) and total[done + 1] <= most * (1 + 1e-12):
            video, point, cost = steps[done]
            at[video], costs[video], done = point, costs[video] + cost, done + 1
        reached.append(at.copy())
        spent.append(costs.copy())
    return Spent(np.stack(reached), np.stack(spent))


def extra_gflops(
    points: Sequence[Predictions], *, incremental: bool, gated: str | None, always: Sequence[str]
) -> FloatArray:
    """(P, P, M): what it costs to go from one point to a dearer one, for `spend`.

    Where a dearer point does not go on from the cheaper one, it is computed beside it: networks again, and of
    streams the rows that are not there yet.

    Args:
        points: of one draw each.
        incremental: a dearer point contains the cheaper (`Method.is_incremental`).
        gated: the stream whose backbone ran where gates are open, if there is one.
        always: the streams whose backbones run on all rows that are looked at.
    """
    totals = np.stack([one.gflops[0] for one in points])
    if incremental:
        extra = np.maximum(totals[None] - totals[:, None], 0)
    else:
        extra = np.stack([[_beside(a, b, gated, always) for b in points] for a in points])
    extra[0, 0] = totals[0]
    return np.asarray(extra, np.float64)


def _beside(there: Predictions, more: Predictions, gated: str | None, always: Sequence[str]) -> FloatArray:
    """(M,) GFLOPs of the second, where the first was computed."""
    extra = np.zeros(len(more.video_ids))
    for name, spent in more.ledger.items():
        macs, before = spent[0], there.ledger.get(name, np.zeros_like(spent))[0]
        if name == gated:
            rows, kept = more.fine_rows[0], (more.gates[0] > 0) & (there.gates[0] > 0)
            common = np.add.reduceat(kept.astype(np.int64), more.offsets[:-1])
            macs = macs * (1 - common / np.maximum(rows, 1))
        elif name in always:
            macs = np.where(macs == before, 0, macs)  # the same rows
        extra += macs / 1e9
    return extra
