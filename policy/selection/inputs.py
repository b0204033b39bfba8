"""What a selector sees of the model that it is mounted on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from policy.data.batches import VideoSet
from policy.selection.affinity import LEAST
from policy.selection.config import SelectorConfig
from policy.selection.linear_head import check_features
from policy.selection.opening import Member
from policy.selection.sureness import how_sure

_TOP = 5

Floats = npt.NDArray[np.float32]


def selector_input(config: SelectorConfig, own: Member, videos: VideoSet, scores: Floats | None) -> Floats:
    """(M, D): per video, by `config.selector_input`, class scores, mean features, or both.

    Args:
        own: the model.
        scores: (M, C), its class probabilities; None where it is not asked for them.
    """
    features = None if config.selector_input == "scores" else mean_features(own, videos)
    return assembled(config, scores, features, multi_label=videos.multi_label)


def assembled(
    config: SelectorConfig, scores: Floats | None, features: Floats | None, *, multi_label: bool
) -> Floats:
    """(M, D): the parts side by side that a configuration asks for.

    Args:
        scores: (M, C), class probabilities.
        features: (M, E), mean features.
    """
    parts = []
    if config.selector_input != "features":
        assert scores is not None
        parts.append(scores)
    if config.confidence_input:
        assert scores is not None
        kept = torch.from_numpy(scores).clamp(LEAST, 1 - LEAST)
        parts.append(how_sure(kept, _TOP, multi_label=multi_label).numpy())
    if config.selector_input != "scores":
        assert features is not None
        parts.append(features)
    return np.concatenate(parts, axis=1)


def mean_features(own: Member, videos: VideoSet) -> Floats:
    """(M, D): of each video, over the rows that the model looks at.

    Raises:
        CacheError: there are none, or they are not finite.
    """
    check_features(own.stream, "--selector-input features")
    return np.stack(
        [
            videos.features_of(own.stream, video, own.rows).astype(np.float32).mean(axis=0)
            for video in range(len(videos))
        ]
    )
