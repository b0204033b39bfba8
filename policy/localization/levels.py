"""Activations of two models on one scale, so that they can stand in one sequence.

Nothing in W-TALC's loss or in its class decision fixes the scale of a model's logits: background may be at −4
for one model and at −18 for the other. A sequence in which each clip is answered by one of them would then
tell, above all, which model answered. Proposals are made of a sequence's range in a video: the threshold lies
half-way between its lowest and its highest values, scores come from the top. So these two levels are brought
together, averaged over the training videos that have the class, which their labels alone tell:

    high_c   mean of the ⌊T/8⌋ highest activations of c, by which W-TALC decides whether a class counts
    low_c    mean of the ⌊T/8⌋ lowest ones

A model's activations of c are mapped by the straight line that takes its levels to those of a reference, whose
activations stay as they are. Such a line, rising, moves no proposal of `wtalc_proposals` in a class that
counts, nor the order of a class's; but the reference's zero decides whether a class counts.
`python -m benchmarks.localization_proposals` shows what happens without, and with other maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policy.evaluation.detection import FloatArray
from policy.localization.proposals import class_scores


@dataclass(frozen=True, eq=False)
class ActivationLevels:
    """Where a model's activations lie.

    Attributes:
        low, high: (C,) logits, of the module's docstring.
    """

    low: FloatArray
    high: FloatArray


def activation_levels(activations: Sequence[FloatArray], labels: npt.NDArray[np.bool_]) -> ActivationLevels:
    """The levels of one model.

    Args:
        activations: (T, C) logits of each of M training videos, T at least 1.
        labels: (M, C), whether a video has a class.

    Raises:
        ValueError: no video has some class.
    """
    videos = labels.sum(axis=0)
    if (videos == 0).any():
        raise ValueError(f"no training video has class {int(np.flatnonzero(videos == 0)[0])}")
    high = np.stack([class_scores(logits) for logits in activations])
    low = np.stack([-class_scores(-logits) for logits in activations])
    return ActivationLevels((low * labels).sum(axis=0) / videos, (high * labels).sum(axis=0) / videos)


def comparable(activations: FloatArray, levels: ActivationLevels, reference: ActivationLevels) -> FloatArray:
    """(T, C): a model's activations on the scale of another; where they are the same everywhere, only shifted.

    Args:
        activations: (T, C) logits of the model.
        levels: of the model.
        reference: of the model whose scale is wanted.
    """
    extent = levels.high - levels.low
    slope = np.where(extent > 0, (reference.high - reference.low) / np.where(extent > 0, extent, 1.0), 1.0)
    return np.asarray((activations - levels.low) * slope + reference.low)
