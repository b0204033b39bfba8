"""A selector at work: its input for a video, its network (Sec. 3.1), and the model that it chooses (Sec. 3.4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from policy.networks.perceptron import Perceptron
from policy.selection.config import SelectorConfig
from policy.selection.pool import LEAST, FloatArray, IntArray
from policy.selection.rule import choose, choose_at_price

_TOP = 5


# --- its input ---


def selector_inputs(
    config: SelectorConfig, scores: Tensor | None, features: Tensor | None, *, multi_label: bool
) -> Tensor:
    """(M, D): side by side what a configuration has the selector see.

    Args:
        scores: (M, C), class probabilities; None where `config.sees_scores` is not set.
        features: (M, E), mean features; None where `config.sees_features` is not set.
    """
    parts = []
    if scores is not None and config.selector_input != "features":
        parts.append(scores)
    if scores is not None and config.confidence_input and not config.is_logistic:
        clipped = scores.clamp(LEAST, 1 - LEAST)
        parts.append(confidence_features(clipped, _TOP, multi_label=multi_label))
    if features is not None and config.sees_features:
        parts.append(features)
    return torch.cat(parts, 1)


def confidence_features(probabilities: Tensor, top: int, *, multi_label: bool) -> Tensor:
    """(..., C) -> (..., top + 1): logarithms of the largest in order (0 for lack of classes), and entropy in nats.

    Args:
        probabilities: above 0 and below 1.
        multi_label: each class is a distribution of its own; their entropies are added up.
    """
    logs = probabilities.log()
    largest = logs.topk(min(top, logs.shape[-1]), dim=-1).values
    entropies = -probabilities * logs
    if multi_label:
        entropies = entropies - (1 - probabilities) * (-probabilities).log1p()
    missing = top - largest.shape[-1]
    return torch.cat([functional.pad(largest, (0, missing)), entropies.sum(-1, keepdim=True)], -1)


# --- its network ---


class SelectorNetwork(Perceptron):
    """Inputs -> a logit for each of N models.

    Attributes:
        threshold: () at which it decides; part of the state, because it may be found after training.
        gflops: (N,) that choosing each model costs beyond what is spent anyway; in the state for sessions, which
            have no pool.
    """

    threshold: Tensor
    gflops: Tensor

    def __init__(self, inputs: int, hidden: int, models: int) -> None:
        super().__init__(inputs, hidden, models)
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64))
        self.register_buffer("gflops", torch.zeros(models, dtype=torch.float64))


# --- the model that it chooses ---


@torch.no_grad()
def confidences_of(config: SelectorConfig, network: nn.Module, inputs: Tensor) -> FloatArray:
    """(M, N): P(M_k, x) of Sec. 3.4; with target "loss" the exp(−loss) expected of each model; of regressions the
    chance that the answer is right after each.

    Args:
        inputs: (M, D), on the network's device.
    """
    return np.asarray(as_confidences(config, network(inputs)).cpu().numpy(), np.float64)


def as_confidences(config: SelectorConfig, logits: Tensor) -> Tensor:
    """(M, N) float64."""
    independent = config.is_logistic or config.target == "loss"
    return logits.double().sigmoid() if independent else logits.double().softmax(1)


def decide(config: SelectorConfig, confidences: FloatArray, gflops: FloatArray, value: float) -> IntArray:
    """(M,): a model for each video, at a threshold or price.

    Args:
        confidences: (M, N), as `confidences_of` returns them.
        gflops: (N,), what choosing each model costs beyond what is spent anyway.
    """
    order = gflops.argsort(kind="stable")
    ordered = confidences[:, order]
    if config.by_price:
        return np.asarray(order[choose_at_price(ordered, gflops[order], value)])
    return np.asarray(order[choose(ordered, value, config.when_none)])
