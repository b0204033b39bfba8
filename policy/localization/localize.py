"""From the activations of clips to what is said of videos: class probabilities, and detections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from policy.evaluation.detection import Detections, FloatArray
from policy.localization.action_bytes import Propose, action_byte_proposals
from policy.localization.config import Proposals, ProposalsConfig
from policy.localization.loss import class_logits
from policy.localization.proposals import (
    class_scores,
    contrast_candidates,
    contrast_proposals,
    wtalc_proposals,
)

Activations = Sequence[npt.NDArray[np.floating[Any]]]
"""Of each video (T, C) class logits of its clips."""

_PROPOSE: Mapping[Proposals, Propose] = {"wtalc": wtalc_proposals, "contrast": contrast_proposals}
_BEFORE_SUPPRESSION: Mapping[Proposals, Propose] = {**_PROPOSE, "contrast": contrast_candidates}


def localize(
    config: ProposalsConfig,
    activations: Activations,
    spans: Sequence[FloatArray],
    features: Iterable[npt.NDArray[np.float16]],
) -> Detections:
    """Detections in M videos.

    Args:
        spans: (T, 2) of each, first and last second that each clip saw.
        features: (T, D) of each; only ActionBytes looks at them, at one video after the other.
    """
    logits = [clips.astype(np.float64) for clips in activations]
    scores = np.stack([class_scores(clips) for clips in logits])
    if config.action_bytes:
        exact = (rows.astype(np.float64) for rows in features)
        return action_byte_proposals(_BEFORE_SUPPRESSION[config.proposals], logits, spans, scores, exact)
    return _PROPOSE[config.proposals](logits, spans, scores)


def video_probabilities(logits: Tensor) -> Tensor:
    """(C,): probabilities of the classes in a video whose clips have logits (T, C), as they are trained; without
    clips the same for all."""
    if not len(logits):
        return torch.full(logits.shape[1:], 1 / logits.shape[1])
    return class_logits(logits.T[None], torch.tensor([len(logits)]))[0].softmax(0)
