"""Which clips need the motion model: disparity, threshold and affinity of Sec. 3.3 (Eq. 3 and 4), per video."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from policy.evaluation.detection import FloatArray

BoolArray = npt.NDArray[np.bool_]

RGB, MOTION = 0, 1
"""Columns of an affinity, the cheaper model first."""


def disparity(rgb: FloatArray, motion: FloatArray, classes: BoolArray) -> FloatArray:
    """D_motion of Eq. 3 for the clips of one video: (T,), in [0, 1]; 1 where the models differ most.

    The class c of Eq. 3 is the video's label, known of training videos. Of several labels, a clip's difference is
    the largest over them: motion is wanted where it matters to any. Γ_v is the maximum over the video of that, so
    that with one label this is Eq. 3 as it stands. Where the models agree throughout, all is 0.

    Args:
        rgb, motion: (T, C) activations of the two models, made comparable first (`policy.localization.levels`):
            else D_motion shows by how much their scales differ, in actions as in background.
        classes: (C,), the video's labels, at least one.
    """
    difference = np.abs(np.asarray(rgb[:, classes], np.float64) - motion[:, classes]).max(axis=1)
    largest = difference.max(initial=0.0)
    return difference / largest if largest > 0 else np.zeros(len(difference))


def top_clips(values: FloatArray, share: float) -> BoolArray:
    """(T,): whether a clip is among the round(share · T) of highest value; of equal ones the earlier are.

    Args:
        values: (T,).
        share: in [0, 1], the paper's β.
    """
    chosen = np.zeros(len(values), np.bool_)
    chosen[np.argsort(-values, kind="stable")[: round(share * len(values))]] = True
    return chosen


def threshold(disparities: FloatArray, chosen: BoolArray) -> float:
    """τ_v: the largest disparity among the clips that are not chosen, 0 where all are.

    So D > τ_v holds for the chosen ones alone, but for those that are level with one that is not.
    """
    return float(disparities[~chosen].max(initial=0.0))


def pseudo_labels(chosen: BoolArray) -> FloatArray:
    """Q of Sec. 3.3: (T, 2), one for the model that a clip is assigned to, RGB and motion, else zero."""
    return np.stack([~chosen, chosen], axis=1).astype(np.float64)


def affinity(disparities: FloatArray, beta: float) -> FloatArray:
    """G of Eq. 4: (T, 2), Q · (|D_motion − τ_v| + 1), for the top β of a video's clips the motion model.

    Args:
        disparities: (T,), D_motion.
        beta: in [0, 1]; 0.7 in the paper's main results.
    """
    chosen = top_clips(disparities, beta)
    distance = np.abs(disparities - threshold(disparities, chosen))
    return np.asarray(pseudo_labels(chosen) * (distance + 1)[:, None])
