"""What a selector of clips is compared with: (T,) which clips of a video use motion, chosen in other ways.

RGB only, motion only and both averaged need no choice. The cost of a choice is its number of clips, so each of
these takes the share of clips that the selector uses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from policy.evaluation.detection import FloatArray
from policy.localization.action_bytes import neighbour_changes
from policy.localization.motion_affinity import BoolArray, top_clips


def random_clips(clips: int, share: float, generator: np.random.Generator) -> BoolArray:
    """round(share · T) clips at random, without replacement."""
    return top_clips(generator.random(clips), share)


def regular_clips(clips: int, share: float) -> BoolArray:
    """round(share · T) clips at regular distances: every n-th where share is 1/n, the middle one of each n."""
    count = round(share * clips)
    chosen = np.zeros(clips, np.bool_)
    chosen[((np.arange(count) + 0.5) * clips / max(count, 1)).astype(np.int64)] = True
    return chosen


def frame_motion(rows: FloatArray) -> FloatArray:
    """(T,): how much the cheap stream changes at each clip, which needs no training; `top_clips` chooses by it.

    It is the mean change (`neighbour_changes`) from the row before and to the one after, at the ends of the
    only one, and 0 for a single row.

    Args:
        rows: (T, D) of the cheap stream.
    """
    changes = neighbour_changes(rows)
    if not len(changes):
        return np.zeros(len(rows))
    return np.asarray((np.concatenate([changes[:1], changes]) + np.concatenate([changes, changes[-1:]])) / 2)


def clip_truth(
    spans: FloatArray, segments: FloatArray, classes: npt.NDArray[np.int64], count: int
) -> BoolArray:
    """(T, C): whether the centre of a clip lies in a segment of a class.

    Args:
        spans: (T, 2) seconds of the clips.
        segments: (S, 2) seconds of the video's segments, half-open.
        classes: (S,) class of each.
        count: C.
    """
    centres = spans.mean(axis=1)
    inside = (segments[:, 0] <= centres[:, None]) & (centres[:, None] < segments[:, 1])
    return np.asarray(inside @ (classes[:, None] == np.arange(count)), np.bool_)


def oracle_clips(rgb: FloatArray, motion: FloatArray, truth: BoolArray, share: float) -> BoolArray:
    """At most round(share · T) clips, those at which motion is better than RGB by most, knowing the segments.

    Better is a smaller cross-entropy of the logits as log-odds of each class, summed over classes. A clip that
    motion makes no better is never chosen. This is no bound: mAP is not a sum over clips.

    Args:
        rgb, motion: (T, C) activations, comparable.
        truth: (T, C), of `clip_truth`.
        share: in [0, 1].
    """
    gain = (_cross_entropy(rgb, truth) - _cross_entropy(motion, truth)).sum(axis=1)
    return np.asarray(top_clips(gain, share) & (gain > 0))


def _cross_entropy(logits: FloatArray, truth: BoolArray) -> FloatArray:
    """(T, C) nats, of the logistic function of the logits."""
    return np.asarray(np.logaddexp(0.0, np.where(truth, -logits, logits)))
