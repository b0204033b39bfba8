"""The training objective of LiteEval (Eq. 7)."""

from typing import NamedTuple

import torch
from torch import Tensor

from policy.losses import classification_loss


class LiteEvalLoss(NamedTuple):
    """Scalars; ``total`` = ``classification`` + λ · ``usage_penalty``."""

    total: Tensor
    classification: Tensor
    usage_penalty: Tensor


def liteeval_loss(
    logits: Tensor, usage: Tensor, targets: Tensor, *, gamma: float, lam: float = 2.0
) -> LiteEvalLoss:
    """Classification loss plus λ times the mean over videos of (usage − γ)² (Eq. 7; λ = 2, Sec. 4.1).

    Args:
        logits: (B, C).
        usage: (B,), mean of B_t over each video's own steps.
        targets: (B,) class indices or (B, C) floats, as `classification_loss` takes them.
        gamma: target usage, a fraction of the steps.
        lam: λ.

    Raises:
        ValueError: when the targets' shape or type is neither of the two.
    """
    classification = classification_loss(logits, targets)
    usage_penalty = torch.mean((usage - gamma) ** 2)
    return LiteEvalLoss(classification + lam * usage_penalty, classification, usage_penalty)
