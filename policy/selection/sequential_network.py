"""The network of a sequential selector: the models that ran predict together; would another one be right?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from policy.method import class_probabilities
from policy.networks.macs import linear_macs
from policy.networks.standardize import Standardize
from policy.selection.config import SelectorAnswer
from policy.selection.network import confidence_features
from policy.selection.pool import combined, contains, mean_weights

LEAST = 1e-4
"""Probabilities are clipped to [LEAST, 1 − LEAST]: beyond is only noise to learn."""
_TOP = 3
_FURTHEST = 5.0
"""Standard deviations from the mean to which scaled inputs are clipped."""
_DROPPED = 0.3
"""Share of hidden units that are left out in training. A few thousand videos are soon known by heart."""


class Look(NamedTuple):
    """What is known of B videos after a set of models.

    Attributes:
        answer: (B, C), class probabilities.
        sure: (B,) float64, the chance that the answer is right.
        chances: (B, N) float64, that it would be after one more model; without meaning for those that have run.
    """

    answer: Tensor
    sure: Tensor
    chances: Tensor


@dataclass(frozen=True)
class Evidence:
    """Predictions of N models for B videos, whether or not they have run: `SequentialNetwork` hides what has not.

    Attributes:
        probabilities: (B, N, C), of the classes.
        scores: (B, N, C), their logarithms; with several classes per video their log-odds.
        inputs: (B, N·(C + 4) + E): the scores, how sure each model is, and features of the first model.
        agreement: (B, N, N), the probability that model a gives to the best-scored class of model b.
    """

    probabilities: Tensor
    scores: Tensor
    inputs: Tensor
    agreement: Tensor

    @staticmethod
    def of(probabilities: Tensor, features: Tensor, *, multi_label: bool) -> Evidence:
        """From probabilities (B, N, C), and features (B, E) of the first model."""
        clipped = probabilities.clamp(LEAST, 1 - LEAST)
        scores = clipped.logit() if multi_label else clipped.log()
        sure = confidence_features(clipped, _TOP, multi_label=multi_label)
        inputs = torch.cat([scores, sure], 2).flatten(1)
        best = probabilities.argmax(2)
        agreement = probabilities.gather(2, best[:, None].expand(-1, best.shape[1], -1))
        return Evidence(probabilities, scores, torch.cat([inputs, features], 1), agreement)


def answered(kind: SelectorAnswer, evidence: Evidence, answer: Tensor, ran: Tensor) -> Tensor:
    """(..., B): the predicted class.

    Args:
        kind: as `config.answer`.
        answer: (..., B, C) of the network.
        ran: (..., B, N).
    """
    if kind == "learned":
        return answer.argmax(-1)
    if kind == "largest":
        largest = (ran * torch.arange(ran.shape[-1], device=ran.device)).amax(-1)
        best = evidence.probabilities.argmax(2).expand(ran.shape)
        return best.gather(-1, largest[..., None])[..., 0]
    return (evidence.scores * ran[..., None]).sum(-2).argmax(-1)


def expected(answer: Tensor, chances: Tensor, best: Tensor, *, multi_label: bool) -> tuple[Tensor, Tensor]:
    """(B,) float64, the chance that an answer is right, and (B, N) that it would be after one more model.

    Args:
        answer, chances: of the network.
        best: (B,), the predicted class.
    """
    sure = class_probabilities(answer.double(), multi_label).gather(1, best[:, None])[:, 0]
    return sure, chances.double().sigmoid()


class SequentialNetwork(nn.Module):
    """From the predictions of a set of models to an answer, and to the chance of a right one after one more model.

    The answer is stacked (Wolpert, 1992): a weighted sum of the models' scores, with weights that depend on which
    have run, plus a learned correction. It begins as their mean. Two perceptrons with one hidden layer, one for
    the correction and one for the chances, see the same inputs; those of models that have not run are their mean.

    Attributes:
        price: () of a GFLOP, in chances of a right answer; in the state, because it may be found after training.
        macs: of one look, at any set.
    """

    price: Tensor

    def __init__(
        self,
        classes: int,
        models: int,
        features: int,
        hidden: int,
        *,
        answer: SelectorAnswer = "learned",
        multi_label: bool = False,
    ) -> None:
        """Args:
        features: E, of the first model.
        answer: which one `look` gives.
        """
        super().__init__()
        self.classes, self.models, self.answer, self.multi_label = classes, models, answer, multi_label
        self.block = classes + _TOP + 1
        inputs = models * self.block + features + models + models * models
        self.scale = Standardize(models * self.block + features)
        self.weigh = nn.Linear(models, models, bias=False)
        self.evidence = nn.Linear(inputs, hidden)
        self.correct = nn.Linear(hidden, classes)
        self.prospect = nn.Linear(inputs, hidden)
        self.chances = nn.Linear(hidden, models)
        for layer in (self.weigh, self.correct):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.correct.bias)
        self.register_buffer("price", torch.zeros((), dtype=torch.float64))
        self.macs = (
            linear_macs(models, models)
            + models * classes
            + 2 * linear_macs(inputs, hidden)
            + linear_macs(hidden, classes)
            + linear_macs(hidden, models)
        )

    def forward(
        self, evidence: Evidence, ran: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Args:
            evidence: of B videos.
            ran: (..., B, N) bool, the models that have run, at least one for each video.
            generator: on the CPU, in training: draws the hidden units that are dropped.

        Returns:
            (..., B, C) logits of the answer; (..., B, N) logits of the chance that it would be right after one
            more model, without meaning for those that have run.
        """
        on = ran.to(self.weigh.weight.dtype)
        weights = on * (1 / on.sum(-1, keepdim=True) + self.weigh(on))
        inputs = self._inputs(evidence, on)
        answer = (weights[..., None] * evidence.scores).sum(-2)
        answer = answer + self.correct(self._drop(self.evidence(inputs).relu(), generator))
        chances = self.chances(self._drop(self.prospect(inputs).relu(), generator))
        return answer, chances

    def look(self, probabilities: Tensor, features: Tensor, mask: int) -> Look:
        """After a set of models.

        Args:
            probabilities: (B, N, C), of which those of the set are looked at.
            features: (B, E).
        """
        evidence = Evidence.of(probabilities, features, multi_label=self.multi_label)
        members = contains(mask, np.arange(self.models))
        ran = torch.from_numpy(members).to(probabilities.device).expand(len(probabilities), -1)
        logits, chances = self(evidence, ran)
        best = answered(self.answer, evidence, logits, ran)
        sure, chances = expected(logits, chances, best, multi_label=self.multi_label)
        if self.answer == "learned":
            return Look(class_probabilities(logits, self.multi_label), sure, chances)
        if self.answer == "largest":
            return Look(probabilities[:, mask.bit_length() - 1], sure, chances)
        weights = torch.from_numpy(mean_weights(members)).to(probabilities.device)
        return Look(combined(evidence.scores, weights, self.multi_label), sure, chances)

    def _inputs(self, evidence: Evidence, on: Tensor) -> Tensor:
        """(..., B, D)."""
        scaled = self.scale(evidence.inputs).clamp(-_FURTHEST, _FURTHEST)
        of_models, features = scaled.tensor_split([self.models * self.block], 1)
        blocks = of_models.unflatten(1, (self.models, self.block)) * on[..., None]
        both = evidence.agreement * on[..., None] * on[..., None, :]
        features = features.expand(*on.shape[:-1], -1)
        return torch.cat([blocks.flatten(-2), features, on, both.flatten(-2)], -1)

    def _drop(self, units: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            return units
        noise = torch.rand(units.shape, generator=generator).to(units.device)
        return units * (noise >= _DROPPED) / (1 - _DROPPED)
