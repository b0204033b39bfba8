"""Ways to choose among the models of a pool, each at many budgets: who ran, who answered, what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from policy.evaluation.metrics import mean_average_precision
from policy.selection.pool import (
    AnswerWeights,
    BoolArray,
    FloatArray,
    Floats,
    IntArray,
    Masks,
    PoolTable,
    contains,
)


@dataclass(frozen=True)
class SelectionCurve:
    """One way to choose, at P budgets, for the M videos of a table.

    Attributes:
        name: of the way to choose.
        values: (P,), what sets the budget: a threshold, a price, a number of models.
        ran: (P, M), the models that were run for a video.
        answering: (P, M), those of them that answer together.
        weights: by set of models, of their answer; None: it is their mean.
        overhead: (M,) MACs beside those of the pool's models: the selector's network and, where its input model is
            outside the pool, this model.
    """

    name: str
    table: PoolTable
    values: FloatArray
    ran: Masks
    answering: Masks
    overhead: IntArray
    weights: AnswerWeights | None = field(default=None, kw_only=True)

    @cached_property
    def macs(self) -> IntArray:
        """(P, M)."""
        return np.asarray(self.table.spent(self.ran) + self.overhead)

    @cached_property
    def correct(self) -> BoolArray:
        """(P, M): hit@1."""
        return self.table.correct_of(self.answering, self.weights)

    @cached_property
    def gflops(self) -> FloatArray:
        """(P,): mean over videos, in 10⁹ MACs."""
        return np.asarray(self.macs.mean(axis=1) / 1e9)

    @cached_property
    def top1(self) -> FloatArray:
        """(P,), in [0, 1]: HIT@1."""
        return np.asarray(self.correct.mean(axis=1))

    @cached_property
    def mean_average_precision(self) -> FloatArray:
        """(P,), in [0, 1]."""
        return np.array(
            [mean_average_precision(self.scores(p), self.table.labels) for p in range(len(self.values))]
        )

    def thinned(self, points: int) -> SelectionCurve:
        """At most so many of its points (≥ 2), evenly spread, the first and the last among them."""
        count = len(self.values)
        kept = np.linspace(0, count - 1, min(points, count)).round().astype(np.int64)
        return replace(self, values=self.values[kept], ran=self.ran[kept], answering=self.answering[kept])

    def scores(self, point: int) -> Floats:
        """(M, C): class probabilities at a point."""
        return self.table.scores_of(self.answering[point], self.weights)

    @cached_property
    def shares(self) -> FloatArray:
        """(P, N): share of the videos for which each model is among those that answer."""
        models = range(len(self.table.models))
        return np.stack([contains(self.answering, n).mean(axis=1) for n in models], axis=1)
