"""How far a student is from its teacher (Hinton et al., 2015)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST = 1e-7
"""Probabilities this close to 0 (or, of a sigmoid, to 1) are taken for it: float32 tells no finer from 1."""


def distillation_loss(logits: Tensor, probabilities: Tensor, *, tau: float, multi_label: bool) -> Tensor:
    """τ² times the Kullback-Leibler divergence of the student's classes from the teacher's, mean over videos.

    Both are softened by τ first: the logits of either are divided by it. For a teacher of which only probabilities
    are known log p does, which differs from its logits by a constant that the softmax cancels. The factor τ² keeps
    the gradient's scale (Hinton et al., "Distilling the Knowledge in a Neural Network", Sec. 2.1).

    Args:
        logits: of the student, (B, C).
        probabilities: of the teacher, (B, C).
        tau: τ.
        multi_label: each class is a distribution of its own; their divergences are summed. The gradient is that of
            binary cross-entropy with soft targets.
    """
    student = logits / tau
    if multi_label:
        soft = torch.sigmoid(probabilities.clamp(LEAST, 1 - LEAST).logit() / tau)
        cross_entropy = F.binary_cross_entropy_with_logits(student, soft, reduction="none")
        each = (cross_entropy - F.binary_cross_entropy(soft, soft, reduction="none")).sum(1)
    else:
        soft = (probabilities.clamp_min(LEAST).log() / tau).log_softmax(1)
        each = F.kl_div(student.log_softmax(1), soft, reduction="none", log_target=True).sum(1)
    return tau**2 * each.mean()
