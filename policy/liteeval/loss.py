"""The training objective of LiteEval (Eq. 7), and what may be added to it."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from policy.networks.packing import mean_per_video, video_of_row
from policy.training.losses import classification_loss, classification_losses


class LiteEvalLoss(NamedTuple):
    """Scalars; ``total`` = ``classification`` + λ · ``usage_penalty``."""

    total: Tensor
    classification: Tensor
    usage_penalty: Tensor


def liteeval_loss(
    logits: Tensor,
    usage: Tensor,
    targets: Tensor,
    *,
    gamma: float,
    lam: float = 2.0,
    of_batch: bool = False,
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


def step_loss(logits: Tensor, targets: Tensor, packed: PackedSequence) -> Tensor:
    """Classification loss of the prediction after every step: mean over a video's steps, then over videos.

    Not in the paper, whose loss sees the last step only. It makes a prediction at any time worth reading.

    Args:
        logits: (N, C), laid out as ``packed``.
        targets: of the B videos, in the caller's order, as `classification_loss` takes them.
        packed: any features of the videos.
    """
    video = video_of_row(packed).to(targets.device)
    each = classification_losses(logits, targets[video])
    return mean_per_video(each[:, None], packed).mean()
