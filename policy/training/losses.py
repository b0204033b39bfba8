"""The classification loss that every trained method shares."""

from __future__ import annotations

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
        each = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
        return each.sum(1)
    raise ValueError(
        f"targets of shape {tuple(targets.shape)} and type {targets.dtype} fit logits of shape "
        f"{tuple(logits.shape)} neither as class indices (B,) nor as floats (B, C)"
    )
