"""One budget for a whole collection of videos, spent where it pays most.

Every video is answered at one of a policy's operating points, the start. From what that answer looks like follows
the chance that it is right, and the chance that the answer of a dearer point would be (`Chances`); from the length
of the video, what that point would cost (`Costs`). Both are fitted on videos with labels; the collection needs
none. The greedy rule goes on with the video and the point of the largest expected gain per cost, until the budget
is spent or nothing more is expected.

That order is the one in which steps are taken at a falling price: a video goes on as long as a step promises at
least the price per GFLOP. So a price keeps a budget, and no video need know of the others (`Sharing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LEAST = 1e-6  # probabilities are kept this far from 0 and 1
_FLOOR = 0.01  # of the mean cost of a step: no video is expected to pay less


def looks(scores: npt.NDArray[np.floating]) -> FloatArray:
    """(M, 3) of class probabilities (M, C): log-odds of the largest, by how many nats it leads, entropy."""
    chances = np.clip(scores.astype(np.float64), _LEAST, 1 - _LEAST)
    ranked = np.sort(chances, axis=1)
    largest, second = ranked[:, -1], ranked[:, -min(2, chances.shape[1])]
    entropy = -(chances * np.log(chances)).sum(axis=1)
    return np.stack([np.log(largest / (1 - largest)), np.log(largest / second), entropy], axis=1)


@dataclass(frozen=True, eq=False)
class Chances:
    """Of being right at each of P points, from the looks of the answer at one of them: logistic regressions.

    Attributes:
        weights: (P, P, 3), by the point whose answer is known, then by the point in question, which is the same or
            a dearer one; and biases (P, P).
    """

    weights: FloatArray
    biases: FloatArray

    @staticmethod
    def fit(looked: Sequence[FloatArray], correct: BoolArray) -> Chances:
        """With scikit-learn's penalty.

        Args:
            looked: P of (M, 3), of the answers at each point.
            correct: (P, M), whether they are right.
        """
        points = len(looked)
        chances = Chances(np.zeros((points, points, 3)), np.zeros((points, points)))
        for p, q in combinations_with_replacement(range(points), 2):
            chances.weights[p, q], chances.biases[p, q] = _fit(looked[p], correct[q])
        return chances

    def at(self, point: int, looked: FloatArray) -> FloatArray:
        """(P − point, M): chances of being right at `point`, whose answers look so (M, 3), and at all after it."""
        odds = self.weights[point, point:] @ looked.T + self.biases[point, point:, None]
        return np.asarray(np.exp(-np.logaddexp(0, -odds)))


def _fit(looked: FloatArray, correct: BoolArray) -> tuple[FloatArray, float]:
    """Weights (3,) and bias of log-odds."""
    right, videos = int(correct.sum()), len(correct)
    if right in (0, videos):  # Laplace's rule of succession: the same for all videos
        return np.zeros(looked.shape[1]), float(np.log((right + 1) / (videos - right + 1)))
    scaler = StandardScaler().fit(looked)
    fitted = LogisticRegression(solver="newton-cholesky", max_iter=1000).fit(
        scaler.transform(looked), correct
    )
    weights = fitted.coef_[0] / scaler.scale_
    return weights, float(fitted.intercept_[0] - weights @ scaler.mean_)


@dataclass(frozen=True, eq=False)
class Costs:
    """What a video will have to pay to go from one point to a dearer one, as far as its length tells.

    Attributes:
        by_length: (P, P, 2), a constant and a slope, GFLOPs by rows; least: (P, P), where that would be less.
    """

    by_length: FloatArray
    least: FloatArray

    @staticmethod
    def fit(extra: FloatArray, lengths: IntArray) -> Costs:
        """Least squares; of videos of one length in proportion to it.

        Args:
            extra: (P, P, M), as `Reuse.extra_gflops` gives it.
            lengths: (M,), rows of each video.
        """
        inputs = np.stack([np.ones(len(lengths)), lengths], axis=1)
        flat = extra.reshape(-1, len(lengths))
        found = np.linalg.lstsq(inputs, flat.T)[0].T
        return Costs(found.reshape(*extra.shape[:2], 2), _FLOOR * extra.mean(axis=2))

    def of(self, lengths: IntArray) -> FloatArray:
        """(P, P, M), as `extra`."""
        expected = self.by_length[..., :1] + self.by_length[..., 1:] * lengths
        return np.asarray(np.maximum(expected, self.least[..., None]))


class Step(NamedTuple):
    """A step that a video would take.

    Attributes:
        pays: expected gain per GFLOP.
        point: where it leads.
    """

    pays: float
    point: int


@dataclass(frozen=True)
class Rule:
    """How a video goes on from its start.

    Attributes:
        start: the point at which all are answered.
        further: whether it goes on from point to point, each new answer deciding; if not, the answer at the start
            decides, and only the last point is computed beside it.
    """

    start: int
    further: bool

    def known(self, point: int) -> int:
        """The point whose answer decides."""
        return point if self.further else self.start

    def step(self, point: int, chance: FloatArray, expected: FloatArray) -> Step | None:
        """The one that pays most; None where none is expected to pay.

        Args:
            chance: `Chances.at` of the answer that is known, for this video.
            expected: (P, P), as `Costs.of` gives it for this video.
        """
        known = self.known(point)
        gains = chance[point - known + 1 :] - chance[point - known]
        if not len(gains):
            return None
        paid = expected[known, point] if point > known else 0.0
        pays = gains / np.maximum(expected[known, point + 1 :] - paid, np.finfo(np.float64).tiny)
        best = int(pays.argmax())
        return Step(float(pays[best]), point + 1 + best) if pays[best] > 0 else None

    def steps(self, chance: Sequence[FloatArray], expected: FloatArray, extra: FloatArray) -> Steps:
        """All steps of M videos, as far as any gain is expected, in the order of the greedy rule.

        Args:
            chance: P of (P − p, M), `Chances.at` the answers at each point.
            expected: (P, P, M), what is expected to be paid from point to point; steps are chosen by it.
            extra: (P, P, M), what is paid indeed (`Reuse.extra_gflops`).
        """
        found: list[tuple[float, int, int, float]] = []
        for video in range(extra.shape[2]):
            point, price = self.start, np.inf
            while step := self.step(point, chance[self.known(point)][:, video], expected[:, :, video]):
                known = self.known(point)
                paid = extra[known, point, video] if point > known else 0.0
                price = min(price, step.pays)  # what comes after a step that pays less follows it at once
                found.append((price, video, step.point, extra[known, step.point, video] - paid))
                point = step.point
        found.sort(key=lambda each: -each[0])  # stable: steps of a video stay in order
        prices, videos, points, costs = zip(*found, strict=True) if found else ((), (), (), ())
        return Steps(
            np.array(prices), np.array(videos, np.int64), np.array(points, np.int64), np.array(costs)
        )


class Steps(NamedTuple):
    """S steps of videos of a collection, by falling price.

    Attributes:
        prices: (S,), the highest at which each is taken.
        videos, points: (S,), whose they are, and where they lead.
        costs: (S,), in GFLOPs.
    """

    prices: FloatArray
    videos: IntArray
    points: IntArray
    costs: FloatArray

    def within(self, budget: float) -> int:
        """How many of them are taken, at most, for so many GFLOPs in all; those of one price together."""
        taken = int((np.cumsum(self.costs) <= budget).sum())
        if taken < len(self.costs):
            taken = min(taken, int((self.prices > self.prices[taken]).sum()))
        return taken

    def ends(self, taken: int, start: int, videos: int) -> IntArray:
        """(M,), where M videos are after so many steps."""
        ends = np.full(videos, start)
        ends[self.videos[:taken]] = self.points[:taken]
        return ends


@dataclass(frozen=True, eq=False)
class Sharing:
    """A policy whose videos share a budget: each goes on as long as that promises at least a price.

    Attributes:
        values: P, what the policy decides by at each point, by rising cost.
        price: chance of being right per GFLOP.
    """

    values: tuple[float, ...]
    chances: Chances
    costs: Costs
    rule: Rule
    price: float

    def next_point(self, point: int, looked: FloatArray, length: int) -> int | None:
        """To which point a video goes on; None: it is done.

        Args:
            point: where it is; `looked` (3,) is of the answer that decides (`Rule.known`).
            length: rows of the video.
        """
        chance = self.chances.at(self.rule.known(point), looked[None])[:, 0]
        step = self.rule.step(point, chance, self.costs.of(np.array([length]))[:, :, 0])
        return step.point if step is not None and step.pays >= self.price else None

    def last_points(self, looked: Sequence[FloatArray], lengths: IntArray) -> IntArray:
        """(M,), where each of M videos ends.

        Args:
            looked: P of (M, 3), of the answers at each point; only those that are reached are looked at.
            lengths: (M,), rows of each.
        """
        ends = np.full(len(lengths), self.rule.start)
        for video, length in enumerate(lengths.tolist()):
            point: int | None = self.rule.start
            while point is not None:
                ends[video] = point
                point = self.next_point(point, looked[self.rule.known(point)][video], length)
        return ends

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "values": list(self.values),
            "weights": self.chances.weights.tolist(),
            "biases": self.chances.biases.tolist(),
            "costs": self.costs.by_length.tolist(),
            "least_costs": self.costs.least.tolist(),
            "start": self.rule.start,
            "further": self.rule.further,
            "price": self.price,
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Sharing:
        """Raises KeyError, TypeError or ValueError where something is missing or of another kind."""
        values = tuple(map(float, content["values"]))
        points = len(values)

        def array(name: str, *shape: int) -> FloatArray:
            found = np.array(content[name], np.float64)
            if found.shape != shape or not np.isfinite(found).all():
                raise ValueError(f"{name} is not {shape} finite numbers")
            return found

        chances = Chances(array("weights", points, points, 3), array("biases", points, points))
        costs = Costs(array("costs", points, points, 2), array("least_costs", points, points))
        start = int(content["start"])
        if not 0 <= start < points:
            raise ValueError(f"there is no point {start} to start from")
        return Sharing(values, chances, costs, Rule(start, bool(content["further"])), float(content["price"]))
