"""What a selector sees of the model that it is mounted on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from policy.config import RunConfig
from policy.data import VideoSet
from policy.selector.opening import Member

_TOP = 5
LEAST = 1e-7

Floats = npt.NDArray[np.float32]


def selector_input(config: RunConfig, own: Member, videos: VideoSet, scores: Floats | None) -> Floats:
    """(M, D): per video, by `config.selector_input`, class scores, mean features, or both.

    Args:
        own: the model.
        scores: (M, C), its class probabilities; None where it is not asked for them.
    """
    parts = []
    if config.selector_input != "features":
        assert scores is not None
        parts.append(scores)
    if config.confidence_input:
        assert scores is not None
        parts.append(how_sure(scores))
    if config.selector_input != "scores":
        parts.append(mean_features(own, videos))
    return np.concatenate(parts, axis=1)


def how_sure(probabilities: Floats) -> Floats:
    """(M, 6 or fewer): logarithms of the largest probabilities in order, and the entropy in nats."""
    logs = np.log(probabilities.clip(LEAST, None))
    largest = -np.sort(-logs, axis=1)[:, :_TOP]
    entropy = -(probabilities * logs).sum(axis=1, keepdims=True)
    return np.concatenate([largest, entropy], axis=1).astype(np.float32)


def mean_features(own: Member, videos: VideoSet) -> Floats:
    return np.stack(
        [
            videos.features_of(own.stream, video, own.rows).astype(np.float32).mean(axis=0)
            for video in range(len(videos))
        ]
    )
