"""What the methods that learn their decisions by REINFORCE share (Sutton and Barto, 1998)."""

from __future__ import annotations

import torch
from torch import Tensor

from policy.method import class_probabilities


def policy_gradient(log_probability: Tensor, advantage: Tensor) -> Tensor:
    """A scalar to add to a loss: its value is zero, its gradient −advantage · ∇ log π, summed over decisions.

    Without a value of its own it leaves the loss that is logged legible.

    Args:
        log_probability: (M,) of the decisions taken, differentiable.
        advantage: (M,) reward minus baseline; no gradient flows through it.
    """
    wanted = (log_probability * advantage.detach()).sum()
    return wanted.detach() - wanted


@torch.no_grad()
def recognition_reward(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) in [0, 1]: the share of a video's class probabilities that is on its own classes.

    With one class per video it is the probability of that class, that is how often an answer drawn from the
    softmax would be correct: smoother than whether the highest score is, and the same for both kinds of labels.

    Args:
        logits: (B, C).
        targets: (B,) class indices or (B, C) floats, as `policy.training.losses.classification_loss` takes them.
    """
    if targets.is_floating_point():
        probabilities = class_probabilities(logits, multi_label=True)
        total = probabilities.sum(1).clamp_min(torch.finfo(logits.dtype).tiny)
        return (probabilities * targets).sum(1) / total
    return class_probabilities(logits, multi_label=False).gather(1, targets[:, None]).squeeze(1)
