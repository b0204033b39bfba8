"""Videos with planted actions: activations of one model or two, features, where actions are; and a plain mAP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from policy.evaluation.detection import Detections, FloatArray, GroundTruth
from policy.localization.proposals import class_scores, contrast_proposals

CLIP_S = 0.64
HIGH, LOW = 4.0, -4.0
"""Logits in actions of usual strength and elsewhere."""


@dataclass(frozen=True, eq=False)
class PlantedVideos:
    """M videos; each has one or two of C classes.

    Attributes:
        activations: (T, C) logits of each.
        features: (T, D) of each.
        spans: (T, 2) seconds of each.
        truth: the actions.
    """

    activations: list[FloatArray]
    features: list[FloatArray]
    spans: list[FloatArray]
    truth: GroundTruth

    @property
    def scores(self) -> FloatArray:
        """(M, C)."""
        return np.stack([class_scores(logits) for logits in self.activations])


@dataclass(frozen=True, eq=False)
class PlantedModels:
    """The same M videos as two models see them.

    Attributes:
        rgb: (T, C) logits of each: high in actions, and in the place where one is just over.
        motion: (T, C) logits of each: high in actions only, on a scale of its own.
        spans: (T, 2) seconds of each.
        labels: (M, C), whether a video has a class.
        truth: the actions.
    """

    rgb: list[FloatArray]
    motion: list[FloatArray]
    spans: list[FloatArray]
    labels: npt.NDArray[np.bool_]
    truth: GroundTruth

    def truth_of(self, videos: range) -> GroundTruth:
        """The actions of some of the videos, which keep their positions."""
        mine = np.isin(self.truth.videos, videos)
        return replace(
            self.truth,
            videos=self.truth.videos[mine],
            classes=self.truth.classes[mine],
            spans=self.truth.spans[mine],
        )


def plant_activations(
    seed: int,
    *,
    videos: int = 40,
    classes: int = 5,
    blur: float = 0.0,
    noise: float = 1.0,
    feature_changes: bool = True,
    feature_noise: float = 0.3,
    dim: int = 32,
) -> PlantedVideos:
    """Actions of 4 to 24 clips, of different strengths, with 4 to 40 clips between them.

    Args:
        blur: of the activations in time, the σ of a Gaussian in clips.
        noise: standard deviation of the activations.
        feature_changes: whether features change where an action begins or ends, or nowhere.
        feature_noise: standard deviation of each feature; those of different stretches differ by √2.
    """
    random = np.random.default_rng(seed)
    activations, features, spans = [], [], []
    truth: list[tuple[int, int, float, float]] = []
    for video in range(videos):
        stretches = _stretches(random, classes)
        clips = sum(count for count, _, _ in stretches)
        logits = np.full((clips, classes), LOW)
        rows = np.empty((clips, dim))
        at = 0
        for count, label, strength in stretches:
            rows[at : at + count] = random.normal(size=dim) if feature_changes or not at else rows[0]
            if label >= 0:
                logits[at : at + count, label] += strength * (HIGH - LOW)
                truth.append((video, label, at * CLIP_S, (at + count) * CLIP_S))
            at += count
        if blur:
            logits = gaussian_filter1d(logits, blur, axis=0, mode="nearest")
        activations.append(logits + random.normal(0, noise, logits.shape))
        features.append(rows + random.normal(0, feature_noise, rows.shape))
        spans.append(_spans(clips))
    return PlantedVideos(activations, features, spans, _ground_truth(truth))


def plant_models(
    seed: int,
    *,
    videos: int = 60,
    classes: int = 5,
    scale: float = 3.0,
    shift: float = -6.0,
    noise: float = 1.0,
) -> PlantedModels:
    """As `plant_activations`; RGB stays high for up to 11 clips after an action.

    Args:
        scale, shift: of the motion model's logits; each class differs from them a little.
        noise: standard deviation of both, before scale and shift.
    """
    random = np.random.default_rng(seed)
    scales, shifts = scale * np.exp(random.normal(0, 0.4, classes)), shift + random.normal(0, 1.5, classes)
    rgb, motion, spans = [], [], []
    labels = np.zeros((videos, classes), np.bool_)
    truth: list[tuple[int, int, float, float]] = []
    for video in range(videos):
        stretches = _stretches(random, classes)
        clips = sum(count for count, _, _ in stretches)
        appearance, movement = np.full((2, clips, classes), LOW)
        at = 0
        for count, label, strength in stretches:
            if label >= 0:
                rise = strength * (HIGH - LOW)
                lingers = at + count + int(random.integers(12))
                appearance[at:lingers, label] = LOW + rise
                movement[at : at + count, label] = LOW + rise
                labels[video, label] = True
                truth.append((video, label, at * CLIP_S, (at + count) * CLIP_S))
            at += count
        rgb.append(appearance + random.normal(0, noise, appearance.shape))
        motion.append(scales * (movement + random.normal(0, noise, movement.shape)) + shifts)
        spans.append(_spans(clips))
    return PlantedModels(rgb, motion, spans, labels, _ground_truth(truth))


def selected_map(
    models: PlantedModels,
    motion: Sequence[FloatArray],
    chosen: Sequence[npt.NDArray[np.bool_]],
    videos: range | None = None,
    iou: float = 0.5,
) -> float:
    """mAP of contrast proposals of sequences in which the chosen clips are answered by motion, the others by RGB.

    Args:
        motion: (T, C) of each video, as it is to stand beside RGB's.
        chosen: (T,) of each video.
        videos: those that are judged; without, all.
    """
    sequences = [
        np.where(each[:, None], of_motion, of_rgb)
        for each, of_motion, of_rgb in zip(chosen, motion, models.rgb, strict=True)
    ]
    scores = np.stack([class_scores(logits) for logits in sequences])
    found = contrast_proposals(sequences, models.spans, scores)
    judged = range(len(sequences)) if videos is None else videos
    mine = np.isin(found.videos, judged)
    return plain_map(
        Detections(found.videos[mine], found.classes[mine], found.spans[mine], found.scores[mine]),
        models.truth_of(judged),
        iou,
    )


def plain_map(detections: Detections, truth: GroundTruth, iou: float) -> float:
    """Mean over classes of the average precision, not interpolated.

    By score over all videos, a detection takes the free action of best IoU, which must reach the threshold.
    """
    precisions = []
    for c in np.unique(truth.classes).tolist():
        free = {
            video: truth.spans[(truth.videos == video) & (truth.classes == c)].tolist()
            for video in np.unique(truth.videos).tolist()
        }
        actions = sum(map(len, free.values()))
        hits, total = 0, 0.0
        mine = np.flatnonzero(detections.classes == c)
        ranked = mine[np.argsort(-detections.scores[mine], kind="stable")]
        for rank, d in enumerate(ranked.tolist(), start=1):
            start, end = detections.spans[d].tolist()
            left = free.get(int(detections.videos[d]), [])
            overlaps = [_iou(start, end, s, e) for s, e in left]
            if overlaps and max(overlaps) >= iou:
                del left[overlaps.index(max(overlaps))]
                hits += 1
                total += hits / rank
        precisions.append(total / actions)
    return sum(precisions) / len(precisions)


def _stretches(random: np.random.Generator, classes: int) -> list[tuple[int, int, float]]:
    """Clips, class (or -1) and strength of what follows one another in a video."""
    present = random.choice(classes, size=int(random.integers(1, 3)), replace=False)
    stretches: list[tuple[int, int, float]] = []
    for _ in range(int(random.integers(4, 10))):
        stretches.append((int(random.integers(4, 41)), -1, 0.0))
        stretches.append((int(random.integers(4, 25)), int(random.choice(present)), random.uniform(0.6, 1.4)))
    return [*stretches, (int(random.integers(4, 41)), -1, 0.0)]


def _spans(clips: int) -> FloatArray:
    starts = np.arange(clips) * CLIP_S
    return np.stack([starts, starts + CLIP_S], axis=1)


def _iou(start: float, end: float, other_start: float, other_end: float) -> float:
    shared = max(0.0, min(end, other_end) - max(start, other_start))
    return shared / (end - start + other_end - other_start - shared)


def _ground_truth(rows: Sequence[tuple[int, int, float, float]]) -> GroundTruth:
    table = np.array(rows)
    nothing = np.zeros(0, np.int64)
    return GroundTruth(
        videos=table[:, 0].astype(np.int64),
        classes=table[:, 1].astype(np.int64),
        spans=table[:, 2:],
        ambiguous_videos=nothing,
        ambiguous_spans=np.zeros((0, 2)),
    )
