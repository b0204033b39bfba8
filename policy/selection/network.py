"""A selector at work: what it sees of a video, its network (Sec. 3.1), and the model that it names (Sec. 3.4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from policy.data.batches import VideoSet
from policy.networks.perceptron import Perceptron
from policy.selection.config import SelectorConfig
from policy.selection.linear_head import check_features
from policy.selection.opening import Member
from policy.selection.pool import LEAST, FloatArray, Floats, IntArray
from policy.selection.rule import choose, choose_at_price

_TOP = 5


# --- what it sees ---


def selector_input(config: SelectorConfig, member: Member, videos: VideoSet, scores: Floats | None) -> Floats:
    """(M, D): per video, by `config.selector_input`, class scores, mean features, or both.

    Args:
        member: the model.
        scores: (M, C), its class probabilities; None where they are not part of the input.
    """
    features = None if config.selector_input == "scores" else mean_features(member, videos)
    return assembled(config, scores, features, multi_label=videos.multi_label)


def assembled(
    config: SelectorConfig, scores: Floats | None, features: Floats | None, *, multi_label: bool
) -> Floats:
    """(M, D): the parts side by side that a configuration asks for.

    Args:
        scores: (M, C), class probabilities.
        features: (M, E), mean features.
    """
    parts = []
    if config.selector_input != "features":
        assert scores is not None
        parts.append(scores)
    if config.confidence_input:
        assert scores is not None
        kept = torch.from_numpy(scores).clamp(LEAST, 1 - LEAST)
        parts.append(how_sure(kept, _TOP, multi_label=multi_label).numpy())
    if config.selector_input != "scores":
        assert features is not None
        parts.append(features)
    return np.concatenate(parts, axis=1)


def mean_features(member: Member, videos: VideoSet) -> Floats:
    """(M, D): of each video, over the rows that the model looks at.

    Raises:
        CacheError: there are none, or they are not finite.
    """
    check_features(member.stream, "--selector-input features")
    return np.stack(
        [
            videos.features_of(member.stream, video, member.rows).astype(np.float32).mean(axis=0)
            for video in range(len(videos))
        ]
    )


def how_sure(probabilities: Tensor, top: int, *, multi_label: bool) -> Tensor:
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
        gflops: (N,) that choosing each model costs beyond what is spent anyway; in the state, for those who decide
            without the pool.
    """

    threshold: Tensor
    gflops: Tensor

    def __init__(self, inputs: int, hidden: int, models: int) -> None:
        super().__init__(inputs, hidden, models)
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64))
        self.register_buffer("gflops", torch.zeros(models, dtype=torch.float64))


# --- the model that it names ---


@torch.no_grad()
def confidences_of(config: SelectorConfig, network: SelectorNetwork, inputs: Tensor) -> FloatArray:
    """(M, N): P(M_k, x) of Sec. 3.4 or, with target "loss", the exp(−loss) expected of each model.

    Args:
        inputs: (M, D), on the network's device.
    """
    logits = network(inputs).double()
    confidences: Tensor = logits.sigmoid() if config.target == "loss" else logits.softmax(1)
    return np.asarray(confidences.cpu().numpy(), np.float64)


def decide(config: SelectorConfig, confidences: FloatArray, gflops: FloatArray, value: float) -> IntArray:
    """(M,): a model for each video, at a threshold or price.

    Args:
        confidences: (M, N), as `confidences_of` returns them.
        gflops: (N,), what choosing each model costs beyond what is spent anyway; the cheapest is met first.
    """
    order = gflops.argsort(kind="stable")
    ordered = confidences[:, order]
    if config.by_price:
        return np.asarray(order[choose_at_price(ordered, gflops[order], value)])
    return np.asarray(order[choose(ordered, value, config.when_none)])
