"""How sure a model is of what it says."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
