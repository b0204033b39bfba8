"""What decides by logistic regressions: after each model (selector-cascade), or once (selector).

Both keep the answers' weights, the regressions, and what each price costs on held-out predictions of the training
videos (`spending`), by which a budget is found later without these videos.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from policy.selection.config import SelectorCascadeConfig, SelectorConfig
from policy.selection.logistic import StageHeads, feature_count, stage_features
from policy.selection.network import SelectorNetwork
from policy.selection.pool import FloatArray, combined, log_scores
from policy.selection.rule import check_budget
from policy.selection.sequential_network import Look, SequentialNetwork

SPENDING_POINTS = 256


class CascadeHeads(nn.Module):
    """The answer of each set of models, and regressions on it.

    Attributes:
        answers: (2^N, N + 1), weights of the answer of each set (`policy.selection.combining`).
        price: () of a GFLOP, in chances of a right answer.
        spending: (2, P), as `spending` returns it.
        macs: of one look, at any set.
    """

    answers: Tensor
    price: Tensor
    spending: Tensor

    def __init__(self, classes: int, models: int, first: int, *, multi_label: bool) -> None:
        """Args:
        first: the model that always runs.
        """
        super().__init__()
        self.classes, self.models, self.first, self.multi_label = classes, models, first, multi_label
        self.heads = StageHeads(1 << models, models, feature_count(models), classes)
        self.register_buffer("answers", torch.zeros(1 << models, models + 1))
        self.register_buffer("price", torch.zeros((), dtype=torch.float64))
        self.register_buffer("spending", torch.zeros(2, SPENDING_POINTS, dtype=torch.float64))
        self.macs = self.heads.macs + models * classes

    def seen(self, probabilities: Tensor, mask: int) -> tuple[Tensor, Tensor, Tensor]:
        """The answer (B, C) of a set of models, and its `stage_features`, from probabilities (B, N, C)."""
        members = [n for n in range(self.models) if mask >> n & 1]
        of_set, weights = probabilities[:, members], self.answers[mask, [*members, -1]]
        answer = combined(log_scores(of_set, self.multi_label), weights, self.multi_label)
        return answer, *stage_features(answer, of_set, multi_label=self.multi_label)

    def look(self, probabilities: Tensor, features: Tensor, mask: int) -> Look:
        """After a set of models.

        Args:
            probabilities: (B, N, C), of which those of the set are looked at.
            features: of the first model; not looked at.
        """
        answer, seen, best = self.seen(probabilities, mask)
        chances = self.heads(mask, seen, best).double().sigmoid()
        return Look(answer, chances[:, self.first], chances)


class SelectorHeads(nn.Module):
    """Regressions on what one model says: would the answer be right after each model of a pool?

    Attributes:
        answers: (N, N + 1), weights of the answer after each model.
        gflops: (N,) that choosing each model costs beyond what is spent anyway.
        threshold: (), the price of a GFLOP. spending: (2, P), as `spending` returns it.
    """

    answers: Tensor
    gflops: Tensor
    threshold: Tensor
    spending: Tensor

    def __init__(self, classes: int, models: int, *, multi_label: bool) -> None:
        """Args:
        classes: of the model that is looked at.
        """
        super().__init__()
        self.multi_label = multi_label
        self.heads = StageHeads(1, models, feature_count(1), classes)
        self.register_buffer("answers", torch.zeros(models, models + 1))
        self.register_buffer("gflops", torch.zeros(models, dtype=torch.float64))
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64))
        self.register_buffer("spending", torch.zeros(2, SPENDING_POINTS, dtype=torch.float64))
        self.macs = self.heads.macs

    def seen(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """`stage_features` of (B, C)."""
        return stage_features(probabilities, probabilities[:, None], multi_label=self.multi_label)

    def forward(self, probabilities: Tensor) -> Tensor:
        """(B, C) class probabilities -> (B, N) logits."""
        logits: Tensor = self.heads(0, *self.seen(probabilities))
        return logits


def cascade_network(
    config: SelectorCascadeConfig, classes: int, models: int, features: int, first: int, *, multi_label: bool
) -> SequentialNetwork | CascadeHeads:
    """What decides for a cascade, whose first model has so many features that are looked at."""
    if config.is_logistic:
        return CascadeHeads(classes, models, first, multi_label=multi_label)
    hidden, answer = config.selector_hidden, config.answers_by
    return SequentialNetwork(classes, models, features, hidden, answer=answer, multi_label=multi_label)


def selector_network(
    config: SelectorConfig, inputs: int, models: int, *, multi_label: bool
) -> SelectorNetwork | SelectorHeads:
    """What decides for a selector that sees so many numbers of a video."""
    if config.is_logistic:
        return SelectorHeads(inputs, models, multi_label=multi_label)
    return SelectorNetwork(inputs, config.selector_hidden, models)


def spending(prices: FloatArray, cost: Callable[[float], float]) -> Tensor:
    """(2, SPENDING_POINTS): prices, by rising cost, and the mean GFLOPs per video at each; then the last again."""
    costs = np.maximum.accumulate([cost(float(price)) for price in prices])
    points = np.minimum(np.arange(SPENDING_POINTS), len(prices) - 1)
    return torch.from_numpy(np.stack([prices, costs])[:, points])


def price_within(spent: Tensor, budget: float) -> float:
    """The price at which a budget is spent, between those of `spending`.

    Raises:
        UserError: none keeps it.
    """
    prices, costs = spent.cpu().numpy()
    check_budget(budget, float(costs[0]))
    return float(np.interp(budget, costs, prices))
