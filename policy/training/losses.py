"""Losses for methods that learn to classify or, by REINFORCE, to decide (Sutton and Barto, 1998)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over videos of `classification_losses`."""
    return classification_losses(logits, targets).mean()


def classification_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,): the first term of Eq. 7 for each video, −y·log p.

    Args:
        logits: (B, C).
        targets: single-label: (B,) integer class indices, cross-entropy. Multi-label: (B, C) floats in
            [0, 1], binary cross-entropy with logits, *summed* over classes as −y·log p is: the gradient per
            logit is then p − y as for cross-entropy, whatever C is.

    Raises:
        ValueError: when the targets' shape or type is neither of the two.
    """
    if targets.shape == logits.shape[:1] and not targets.is_floating_point():
        return F.cross_entropy(logits, targets.long(), reduction="none")
    if targets.shape == logits.shape and targets.is_floating_point():
        losses = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
        return losses.sum(1)
    raise ValueError(
        f"targets of shape {tuple(targets.shape)} and type {targets.dtype} fit logits of shape "
        f"{tuple(logits.shape)} neither as class indices (B,) nor as floats (B, C)"
    )


def policy_gradient(log_probability: Tensor, advantage: Tensor) -> Tensor:
    """A scalar to add to a loss: its value is zero, its gradient −advantage · ∇ log π, summed over decisions.

    As it is zero, it does not change the logged loss.

    Args:
        log_probability: (M,) of the decisions, differentiable.
        advantage: (M,) reward minus baseline; no gradient flows through it.
    """
    objective = (log_probability * advantage.detach()).sum()
    return objective.detach() - objective


@torch.no_grad()
def recognition_reward(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) in [0, 1]: the share of a video's class probabilities that its classes have.

    With one class per video it is the probability of that class, which is how often a class drawn from the softmax
    would be correct: smoother than the correctness of the highest score, and defined for both kinds of labels.

    Args:
        logits: (B, C).
        targets: (B,) class indices or (B, C) floats, as `classification_losses` takes them.
    """
    if targets.is_floating_point():
        probabilities = logits.sigmoid()
        total = probabilities.sum(1).clamp_min(torch.finfo(logits.dtype).tiny)
        return (probabilities * targets).sum(1) / total
    return logits.softmax(1).gather(1, targets[:, None]).squeeze(1)
