"""How a policy is to share a budget, found on videos with labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupKFold, KFold

from policy.evaluation.collection import Chances, Costs, FloatArray, IntArray, Rule, Sharing, looks
from policy.evaluation.predictions import Predictions
from policy.evaluation.reuse import Reuse

_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Videos with labels at P operating points of a policy, on which it is found how others share a budget.

    Attributes:
        chances, costs: fitted to all of them.
        unseen: P of (P − p, M): chances of each video by regressions that were not fitted to it.
        extra: (P, P, M), as `Reuse.extra_gflops` gives it.
        further: as in `Rule`.
    """

    points: Sequence[Predictions]
    chances: Chances
    costs: Costs
    unseen: Sequence[FloatArray]
    extra: FloatArray
    further: bool

    @staticmethod
    def of(points: Sequence[Predictions], reuse: Reuse) -> Rehearsal:
        """What is to be expected, and what would have been of videos not seen before.

        Args:
            points: of one draw each, by rising cost.
        """
        extra, first = reuse.extra_gflops(points), points[0]
        looked = [looks(each.class_probabilities) for each in points]
        correct = np.stack([each.correct[0] for each in points])
        unseen = [np.zeros((len(points) - p, len(first.video_ids))) for p in range(len(points))]
        for rest, part in _parts(len(first.video_ids), first.groups):
            chances = Chances.fit([each[rest] for each in looked], correct[:, rest])
            for p, each in enumerate(looked):
                unseen[p][:, part] = chances.at(p, each[part])
        return Rehearsal(
            points,
            Chances.fit(looked, correct),
            Costs.fit(extra, first.lengths),
            unseen,
            extra,
            reuse.incremental,
        )

    def sharing(self, budget: float, values: Sequence[float]) -> Sharing:
        """How a budget is shared.

        It starts at the dearest point within the budget, which leaves least to the regressions; at another from
        which more of these videos are answered rightly, each judged by regressions that have not seen it, if the
        difference is more than its standard error.

        Args:
            budget: mean GFLOPs per video, at least those of the cheapest point.
            values: P, what the policy decides by.
        """
        totals = np.array([each.gflops[0].mean() for each in self.points])
        affordable = np.flatnonzero(totals <= budget * (1 + 1e-9)).tolist()
        lengths = self.points[0].lengths
        expected = self.costs.of(lengths)
        correct = np.stack([each.correct[0] for each in self.points])
        left = {start: (budget * (1 + 1e-9) - totals[start]) * len(lengths) for start in affordable}

        def right(start: int) -> FloatArray:
            steps = Rule(start, self.further).steps(self.unseen, expected, self.extra)
            ends = steps.ends(steps.within(left[start]), start, len(lengths))
            return correct[ends, np.arange(len(lengths))].astype(np.float64)

        usual = right(affordable[-1])

        def pays(start: int) -> float:
            """By how much more than one standard error it is better than the dearest start."""
            difference = right(start) - usual
            return float(difference.mean() - difference.std() / np.sqrt(len(difference)))

        best = max(affordable, key=lambda start: (pays(start), start))
        rule = Rule(best, self.further)
        looked = [looks(each.class_probabilities) for each in self.points]
        chance = [self.chances.at(point, each) for point, each in enumerate(looked)]
        steps = rule.steps(chance, expected, self.extra)
        taken = steps.within(left[rule.start])
        if taken == len(steps.prices):
            price = 0.0  # of all that promises anything
        elif taken:
            price = float(steps.prices[taken - 1 : taken + 1].mean())
        else:
            price = float(2 * steps.prices[0])
        return Sharing(tuple(values), self.chances, self.costs, rule, price)


def _parts(videos: int, groups: Sequence[str]) -> Iterator[tuple[IntArray, IntArray]]:
    """Of several parts of the videos, with whole groups: all but its own (n,), and its own (m,)."""
    independent = len(set(groups)) if groups else videos
    if independent < 2:
        yield np.arange(videos), np.arange(videos)
        return
    folds = min(_FOLDS, independent)
    split = GroupKFold(folds) if groups else KFold(folds, shuffle=True, random_state=0)
    yield from split.split(np.zeros(videos), groups=groups or None)
