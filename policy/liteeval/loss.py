"""What LiteEval is trained on: Eq. 7, two losses that may be added to it, and a budget that is kept.

Eq. 7 comes to γ only where recognition has nothing to gain from more usage, for its price vanishes at γ. To keep
the budget instead, the classification loss is minimised subject to mean usage ≤ γ. The price is then a Lagrange
multiplier μ ≥ 0, which is found by gradient ascent (`ascend`) on

    L(θ, μ) = classification + μ (mean usage − γ) + λ (mean usage − γ)²

The last term is the damping of the differential multiplier method (Platt and Barr, "Constrained Differential
Optimization", NIPS 1987): without it descent in θ and ascent in μ circle around their saddle point.

It is an inequality: γ is what may be spent, and a multiplier that could fall below 0 would reward opening gates
that help nobody. What is left over is given out at the end, by the threshold at which the training videos use γ
(:mod:`.calibration`): the gates drawn in training do not open as often as those taken at test.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from policy.networks.packing import mean_per_video, video_of_row
from policy.training.losses import classification_loss, classification_losses

LEAST_PROBABILITY = 1e-7
"""Probabilities this close to 0 (or, of a sigmoid, to 1) are taken for it: float32 tells no finer from 1."""


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
        of_batch: (mean usage of the batch − γ)² instead, as in the authors' released code, which says the same of
            the steps that are skipped. Videos may then differ in how much they need.

    Raises:
        ValueError: when the targets' shape or type is neither of the two.
    """
    classification = classification_loss(logits, targets)
    gaps = (usage.mean() if of_batch else usage) - gamma
    usage_penalty = torch.mean(gaps**2)
    return LiteEvalLoss(classification + lam * usage_penalty, classification, usage_penalty)


def ascend(multiplier: Tensor, gap: Tensor | float, *, rate: Tensor | float) -> None:
    """Take a step up the gradient of L in μ, which is the gap, in place; not below 0.

    Args:
        multiplier: μ, a scalar. Not a parameter: the size of Adam's steps says nothing of the gap, and weight
            decay and clipping would pull at it.
        gap: mean usage − γ of a batch.
        rate: of the step.
    """
    multiplier.add_(rate * gap).clamp_(min=0)


def step_loss(logits: Tensor, targets: Tensor, packed: PackedSequence) -> Tensor:
    """Classification loss of the prediction after every step: mean over a video's steps, then over videos.

    Not in the paper, whose loss sees the last step only. It makes a prediction at any time worth reading.

    Args:
        logits: (N, C), laid out as ``packed``.
        targets: of the B videos, in the caller's order, as `classification_loss` takes them.
        packed: any features of the videos.
    """
    video = video_of_row(packed).to(targets.device)
    losses = classification_losses(logits, targets[video])
    return mean_per_video(losses[:, None], packed).mean()


def distillation_loss(logits: Tensor, probabilities: Tensor, *, tau: float, multi_label: bool) -> Tensor:
    """τ² times the Kullback-Leibler divergence of the student's classes from the teacher's, mean over videos.

    Both are softened by τ first: the logits of either are divided by it. For a teacher of which only probabilities
    are known log p does, which differs from its logits by a constant that the softmax cancels. The factor τ² keeps
    the gradient's scale (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, Sec. 2.1).

    Args:
        logits: of the student, (B, C).
        probabilities: of the teacher, (B, C).
        tau: τ.
        multi_label: each class is a distribution of its own; their divergences are summed. The gradient is that of
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
