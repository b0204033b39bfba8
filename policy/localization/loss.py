"""W-TALC's losses (Paul et al., ECCV 2018, Sec. 3.3 and 3.4), with the details of the authors' released code.

Clips of all videos of a batch stand in one list, in any order; `Clips` says which is whose. No loop goes over
videos, pairs or clips.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Clips(NamedTuple):
    """Which N clips of B videos stand in a list.

    Attributes:
        videos: (N,) int64, of which of the B.
        steps: (N,) int64, place in its video: each video has 0, 1, … T − 1 once.
        lengths: (B,) int64, T of each video, at least 1.
    """

    videos: Tensor
    steps: Tensor
    lengths: Tensor


def padded(logits: Tensor, clips: Clips) -> Tensor:
    """(N, C) -> (B, C, longest T), −∞ behind the end of a shorter video."""
    size = len(clips.lengths), int(clips.lengths.max()), logits.shape[1]
    spread = logits.new_full(size, -torch.inf).index_put((clips.videos, clips.steps), logits)
    return spread.transpose(1, 2)


def class_logits(padded_logits: Tensor, lengths: Tensor) -> Tensor:
    """(B, C): of each video and class the mean of the k = ⌈T / 8⌉ highest activations.

    Args:
        padded_logits: as `padded` gives them.
        lengths: (B,), T of each video.
    """
    counts = ((lengths + 7) // 8)[:, None, None]
    highest = padded_logits.topk(int(counts.max()), dim=2).values
    beyond = torch.arange(highest.shape[2], device=highest.device) >= counts
    return highest.masked_fill(beyond, 0.0).sum(2) / counts[:, :, 0]


def mil_loss(padded_logits: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """The multiple-instance loss, a scalar: mean over videos of −y · log softmax of `class_logits`, where y is the
    labels divided by their number.

    Args:
        padded_logits, lengths: as `class_logits` takes them.
        labels: (B, C) of 0 and 1, at least one 1 a video.
    """
    shares = labels / labels.sum(1, keepdim=True)
    return -(shares * class_logits(padded_logits, lengths).log_softmax(1)).sum(1).mean()


def co_activity_loss(
    hidden: Tensor, padded_logits: Tensor, clips: Clips, labels: Tensor, pairs: int, margin: float
) -> Tensor:
    """The co-activity similarity loss, a scalar: where two videos share a class, features of clips in which it is
    active should be alike, and unlike those of the other's clips in which it is not.

    For each video and class, a is the softmax of the activations over time, high the sum of the features weighted
    by a, and low that weighted by (1 − a) / (T − 1). A pair of videos 1 and 2 and a class of both give
    ½ max(0, d(high₁, high₂) − d(high₁, low₂) + margin) + ½ max(0, d(high₁, high₂) − d(low₁, high₂) + margin),
    with cosine distances d. The loss is the mean over pairs and their shared classes, 0 where there are none.

    Args:
        hidden: (N, H), of the clips.
        padded_logits: (B, C, longest T), `padded`.
        labels: (B, C) of 0 and 1.
        pairs: videos 0 and 1 are the first pair, 2 and 3 the second, and so on; later ones have no part.
    """
    first, second = labels[: 2 * pairs : 2], labels[1 : 2 * pairs : 2]
    pair, classes = (first * second).nonzero(as_tuple=True)
    if not len(pair):
        return hidden.new_zeros(())
    videos = torch.cat([2 * pair, 2 * pair + 1])
    active = padded_logits[videos, classes.repeat(2)].softmax(1)[:, clips.steps]
    inactive = (1 - active) / (clips.lengths[videos] - 1).clamp(min=1)[:, None]
    of_video = (videos[:, None] == clips.videos).repeat(2, 1)
    # One product, in which the clips of other videos have weight 0: the features are never copied.
    high_1, high_2, low_1, low_2 = (torch.cat([active, inactive]) * of_video @ hidden).chunk(4)
    alike = functional.cosine_similarity(high_1, high_2)
    unlike = functional.cosine_similarity(high_1, low_2), functional.cosine_similarity(low_1, high_2)
    # A difference of distances is that of the similarities the other way round.
    return sum(0.5 * (one - alike + margin).relu().mean() for one in unlike)  # type: ignore[return-value]
