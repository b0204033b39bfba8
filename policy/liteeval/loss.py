"""LiteEval's losses: Eq. 7, two losses that may be added to it, and a constraint that keeps a budget.

Eq. 7 reaches γ only if recognition gains nothing from more usage, because its penalty has no slope at γ. To keep
the budget instead, the classification loss is minimised subject to mean usage ≤ γ. The price of usage is then a
Lagrange multiplier μ ≥ 0, found by gradient ascent (`ascend`) on

    L(θ, μ) = classification + μ (mean usage − γ) + λ (mean usage − γ)²

The last term is the damping of the differential multiplier method (Platt and Barr, "Constrained Differential
Optimization", NIPS 1987): without it descent in θ and ascent in μ circle around their saddle point.

It is an inequality: γ is a limit, and a multiplier below 0 would reward opening gates that do not help. At the end
the rest of the budget is used up by the threshold at which the training videos use γ (:mod:`.calibration`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from policy.method import LEAST_PROBABILITY
from policy.training.losses import classification_loss


class LiteEvalLoss(NamedTuple):
    """Scalars; ``total`` = ``classification`` + λ · ``usage_penalty``."""

    total: Tensor
    classification: Tensor
    usage_penalty: Tensor


def liteeval_loss(
    logits: Tensor, usage: Tensor, targets: Tensor, *, gamma: float, lam: float = 2.0, of_batch: bool = False
) -> LiteEvalLoss:
    """Classification loss plus λ times the mean over videos of (usage − γ)² (Eq. 7; λ = 2, Sec. 4.1).

    Args:
        logits: (B, C).
        usage: (B,), mean of B_t over each video's own steps.
        targets: (B,) class indices or (B, C) floats, as `classification_loss` takes them.
        gamma: target usage, a fraction of the steps.
        lam: λ.
        of_batch: (mean usage of the batch − γ)² instead, as the authors' released code has it, in terms of skipped
            steps. Videos may then differ in usage.

    Raises:
        ValueError: the targets' shape or type is neither of the two.
    """
    classification = classification_loss(logits, targets)
    gaps = (usage.mean() if of_batch else usage) - gamma
    usage_penalty = torch.mean(gaps**2)
    return LiteEvalLoss(classification + lam * usage_penalty, classification, usage_penalty)


def ascend(multiplier: Tensor, gap: Tensor | float, *, rate: Tensor | float) -> None:
    """Take a step up the gradient of L in μ, which is the gap, in place; not below 0.

    Args:
        multiplier: μ, a scalar. Not a parameter: the size of Adam's steps does not depend on the gap, and weight
            decay and clipping would change it.
        gap: mean usage − γ of a batch.
        rate: of the step.
    """
    multiplier.add_(rate * gap).clamp_(min=0)


def distillation_loss(logits: Tensor, probabilities: Tensor, *, tau: float, multi_label: bool) -> Tensor:
    """τ² times the Kullback-Leibler divergence of the student's classes from the teacher's, mean over videos.

    Both are softened by τ first: their logits are divided by it. For the teacher log p is used, which differs
    from its logits by a constant that the softmax cancels. The factor τ² keeps the gradient's scale (Hinton et
    al., "Distilling the Knowledge in a Neural Network", 2015, Sec. 2.1).

    Args:
        logits: of the student, (B, C).
        probabilities: of the teacher, (B, C).
        tau: τ.
        multi_label: each class is a separate distribution; their divergences are summed. The gradient is that of
            binary cross-entropy with soft targets.
    """
    student = logits / tau
    if multi_label:
        clamped = probabilities.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        soft = torch.sigmoid(clamped.logit() / tau)
        cross_entropy = F.binary_cross_entropy_with_logits(student, soft, reduction="none")
        divergences = (cross_entropy - F.binary_cross_entropy(soft, soft, reduction="none")).sum(1)
    else:
        soft = (probabilities.clamp_min(LEAST_PROBABILITY).log() / tau).log_softmax(1)
        divergences = F.kl_div(student.log_softmax(1), soft, reduction="none", log_target=True).sum(1)
    return tau**2 * divergences.mean()
