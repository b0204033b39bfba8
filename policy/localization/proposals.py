"""Proposals: the stretches of a video in which a class is active, with scores.

Two ways to make them of the same activations: :func:`wtalc_proposals`, one threshold per video and class, and
:func:`contrast_proposals`, many thresholds, scored by how much more active a class is inside than around.
A class counts in a video when its score there (:func:`class_scores`) is above zero; clips are a video's rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from policy.evaluation.detection import Detections, FloatArray, IntArray
from policy.localization.suppression import soft_nms

MIN_CLIPS = 2
"""The shortest proposal of either way; W-TALC's code drops what is shorter."""
CLASS_WEIGHT = 0.7
"""Of the class's score in a proposal's; W-TALC's code."""
THRESHOLDS = tuple(np.linspace(0.1, 0.9, 10).tolist())
"""Shares of a class's range in the video, those of HAM-Net and CO2-Net."""
INFLATION = 0.25
"""How far around a proposal lies, as a share of its length, at either end: AutoLoc and BaS-Net."""
CONTRAST_CLASS_WEIGHT = 0.2
"""Of the class's score in a proposal's, beside its contrast; BaS-Net's γ."""


def class_scores(activations: FloatArray) -> FloatArray:
    """(C,): the mean of each class's ⌊T/8⌋ highest activations, as W-TALC's code localizes (it trains with ⌈T/8⌉).

    With fewer than 8 clips W-TALC's mean is of nothing, and no class ever counts; here it is of the highest one.
    Without clips it is −∞.

    Args:
        activations: (T, C) logits of one video.
    """
    if not len(activations):
        return np.full(activations.shape[1], -np.inf)
    count = max(1, len(activations) // 8)
    return np.asarray(np.partition(activations, -count, axis=0)[-count:].mean(axis=0), np.float64)


def clip_edges(spans: FloatArray) -> FloatArray:
    """(T + 1,) seconds: where each clip begins, and where the last one ends.

    Neighbours part half-way between their centres, whether they overlap, touch, or leave a gap, so that a
    proposal of several clips has one start and one end, and proposals that follow one another do not overlap.

    Args:
        spans: (T, 2) seconds, first and last instant that each row saw, in order of time; T at least 1.
    """
    centres = spans.mean(axis=1)
    return np.concatenate([spans[:1, 0], (centres[1:] + centres[:-1]) / 2, spans[-1:, 1]])


def wtalc_proposals(
    activations: Sequence[FloatArray], spans: Sequence[FloatArray], scores: FloatArray
) -> Detections:
    """As W-TALC localizes: runs of at least two clips above the middle of a class's range in the video, scored by
    their highest activation plus 0.7 times the class's score (Paul et al., ECCV 2018, released code).

    Args:
        activations: (T, C) logits of each of M videos.
        spans: (T, 2) seconds of each, as `clip_edges` takes them.
        scores: (M, C) of the classes, `class_scores`; classes at or below zero are left out.
    """
    found = []
    for video, (logits, seconds) in enumerate(zip(activations, spans, strict=True)):
        counted = np.flatnonzero(scores[video] > 0) if len(logits) else np.arange(0)
        if not len(counted):
            continue
        sequences = np.asarray(logits[:, counted].T, np.float64)
        highest, lowest = sequences.max(axis=1), sequences.min(axis=1)
        runs = _runs(sequences > (highest - 0.5 * (highest - lowest))[:, None])
        classes = counted[runs.rows]
        of_run = _peaks(sequences, runs) + CLASS_WEIGHT * scores[video, classes]
        found.append(_detections(video, classes, runs, of_run, seconds))
    return joined(found)


def contrast_proposals(
    activations: Sequence[FloatArray],
    spans: Sequence[FloatArray],
    scores: FloatArray,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Detections:
    """Runs of at least two clips above each of many thresholds, scored by inner minus outer contrast.

    Of those that overlap, soft-NMS scores the worse ones down. Arguments as `contrast_candidates` takes them.
    """
    return soft_nms(contrast_candidates(activations, spans, scores, thresholds))


def contrast_candidates(
    activations: Sequence[FloatArray],
    spans: Sequence[FloatArray],
    scores: FloatArray,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Detections:
    """What `contrast_proposals` are before soft-NMS: the same action at many thresholds.

    The contrast is the mean inside a run minus the mean around it, which is a quarter of its length, in whole
    clips, at either end (AutoLoc, Shou et al., ECCV 2018); 0.2 times the class's score in the video is added
    (BaS-Net, Lee et al., AAAI 2020, released code). BaS-Net takes activations to [0, 1] in each video first. Here
    only thresholds follow the range, and contrasts stay logits, as W-TALC's scores do: else faint traces of a
    class in one video would weigh as much as its clearest action in another.

    Args:
        activations, spans, scores: as `wtalc_proposals` takes them.
        thresholds: shares of a class's range in the video.
    """
    levels = np.asarray(thresholds, np.float64)
    found = []
    for video, (logits, seconds) in enumerate(zip(activations, spans, strict=True)):
        counted = np.flatnonzero(scores[video] > 0) if len(logits) else np.arange(0)
        if not len(counted):
            continue
        sequences = np.asarray(logits[:, counted].T, np.float64)
        lowest = sequences.min(axis=1, keepdims=True)
        extent = sequences.max(axis=1, keepdims=True) - lowest
        above = sequences > lowest + levels[:, None, None] * extent
        at_levels = _runs(above.reshape(-1, len(logits)))
        # The same run is there at several thresholds.
        distinct = np.unique(
            np.stack([at_levels.rows % len(counted), at_levels.starts, at_levels.ends], axis=1), axis=0
        )
        runs = _Runs(*distinct.T)
        classes = counted[runs.rows]
        of_run = contrasts(sequences, runs.rows, runs.starts, runs.ends)
        of_run += CONTRAST_CLASS_WEIGHT * scores[video, classes]
        found.append(_detections(video, classes, runs, of_run, seconds))
    return joined(found)


def contrasts(sequences: FloatArray, rows: IntArray, starts: IntArray, ends: IntArray) -> FloatArray:
    """(R,): the mean inside each of R runs minus the mean around it, or 0 where it is the whole video.

    Args:
        sequences: (C, T).
        rows: (R,), which of the C a run is of.
        starts, ends: (R,), its first clip and the one after its last.
    """
    length = sequences.shape[1]
    total = np.concatenate([np.zeros((len(sequences), 1)), sequences.cumsum(axis=1)], axis=1)
    margin = np.ceil(INFLATION * (ends - starts)).astype(np.int64)
    left, right = np.maximum(starts - margin, 0), np.minimum(ends + margin, length)
    inside = total[rows, ends] - total[rows, starts]
    around = total[rows, right] - total[rows, left] - inside
    clips = ends - starts
    clips_around = right - left - clips
    return np.asarray(inside / clips - around / np.maximum(clips_around, 1))


def joined(parts: Sequence[Detections]) -> Detections:
    """All of several, one after the other."""
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Detections(nothing, nothing, np.zeros((0, 2)), np.zeros(0))
    return Detections(
        np.concatenate([part.videos for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.spans for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


class _Runs(NamedTuple):
    """R runs of clips, (R,) each: the row of a matrix, the first clip, the one after the last."""

    rows: IntArray
    starts: IntArray
    ends: IntArray


def _runs(above: npt.NDArray[np.bool_]) -> _Runs:
    """Of (N, T): where at least `MIN_CLIPS` neighbours of a row are true, row by row."""
    change = np.diff(np.pad(above, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    long = ends - starts >= MIN_CLIPS
    return _Runs(rows[long], starts[long], ends[long])


def _peaks(sequences: FloatArray, runs: _Runs) -> FloatArray:
    """(R,): the maximum of a row within each run."""
    if not len(runs.rows):
        return np.zeros(0)
    width = sequences.shape[1] + 1  # a column more, for a run may end with the row
    flat = np.pad(sequences, ((0, 0), (0, 1))).ravel()
    bounds = np.stack([runs.rows * width + runs.starts, runs.rows * width + runs.ends], axis=1)
    return np.asarray(np.maximum.reduceat(flat, bounds.ravel())[::2])


def _detections(
    video: int, classes: IntArray, runs: _Runs, scores: FloatArray, spans: FloatArray
) -> Detections:
    edges = clip_edges(spans)
    seconds = np.stack([edges[runs.starts], edges[runs.ends]], axis=1)
    return Detections(np.full(len(classes), video), classes, seconds, scores)
