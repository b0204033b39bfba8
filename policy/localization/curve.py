"""Accuracy against cost of a selector of clips, beside other ways to choose as many clips (Fig. 5 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policy.data.batches import Role, Segments
from policy.evaluation.detection import FloatArray, GroundTruth
from policy.localization.clip_selector import answers
from policy.localization.config import LocalizationSelectorConfig
from policy.localization.controls import (
    clip_truth,
    frame_motion,
    oracle_clips,
    random_clips,
    regular_clips,
)
from policy.localization.judged import detection_metrics, metric_name
from policy.localization.localize import localize
from policy.localization.motion_affinity import BoolArray, disparity, top_clips

SHARES = tuple(k / 10 for k in range(1, 10))
"""Of all clips; selectors are compared where they choose so many, and where the run's threshold is."""
DRAWS = 5
"""How often clips are drawn at random, for each share."""
BINS = 20
"""Of the histograms of disparity, in [0, 1]."""

SELECTOR, RANDOM, REGULAR, FRAME_MOTION, ORACLE = "selector", "random", "every n-th", "frame motion", "oracle"
RGB_ONLY, MOTION_ONLY, AVERAGED = "RGB only", "motion only", "both averaged"
_SHOWN = {"0.1:0.5": "thumos14", "0.1:0.7": "thumos14", "0.5:0.95": "activitynet"}
"""Averages that are printed, each by the protocol that papers take for it."""


@dataclass(frozen=True, eq=False)
class JudgedClips:
    """All that is known of all clips of M videos, with what they are judged by.

    Attributes:
        appearance, motion: (T, C) of each, comparable activations.
        motion_alone: (T, C) of each, the motion model's on its own scale.
        confidences: (T,) of each, the selector's in motion.
        rows: (T, D) of each by role.
        spans: (T, 2) seconds of each.
        labels: (M, C) bool.
    """

    appearance: Sequence[FloatArray]
    motion: Sequence[FloatArray]
    motion_alone: Sequence[FloatArray]
    confidences: Sequence[FloatArray]
    rows: Mapping[Role, Sequence[npt.NDArray[np.float16]]]
    spans: Sequence[FloatArray]
    truth: GroundTruth
    segments: Sequence[Segments]
    labels: npt.NDArray[np.bool_]

    def split(self, values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """(N, …) of all clips, video by video."""
        return np.split(values, np.cumsum([len(spans) for spans in self.spans])[:-1])


def curve(
    config: LocalizationSelectorConfig,
    clips: JudgedClips,
    operating_share: float,
    gflops: float,
    gflops_more: float,
    gflops_selector: float,
) -> list[dict[str, Any]]:
    """Points, ready for JSON: "choice", "at" (the share of clips that may use motion), "share" (of those that do),
    "gflops_per_clip", and detection mAP averaged over thresholds of IoU, by each protocol (`metric_name`).

    All choices at a share use the same number of clips in all videos together. The selector has the most confident
    ones, which is a threshold; frame motion and the oracle are free to prefer a video likewise.

    Args:
        operating_share: at the run's threshold.
        gflops, gflops_more: of any clip, and more of one that uses motion.
        gflops_selector: of these, the selector's, without which both models do.
    """

    def point(
        choice: str,
        at: float,
        share: float,
        cost: float,
        sequences: Sequence[FloatArray],
        role: Role = "appearance",
    ) -> dict[str, Any]:
        found = localize(config, sequences, clips.spans, clips.rows[role])
        metrics = detection_metrics(found, clips.truth, clips.labels.shape[1])
        averages = {name: value for name, value in metrics.items() if ":" in name}
        return {"choice": choice, "at": at, "share": share, "gflops_per_clip": cost, **averages}

    total = sum(map(len, clips.spans))
    averaged = [(one + other) / 2 for one, other in zip(clips.appearance, clips.motion, strict=True)]
    points = [
        point(RGB_ONLY, 0.0, 0.0, gflops - gflops_selector, clips.appearance),
        point(MOTION_ONLY, 1.0, 1.0, gflops_more, clips.motion_alone, "motion"),
        point(AVERAGED, 1.0, 1.0, gflops + gflops_more - gflops_selector, averaged),
    ]
    choosers = _choosers(clips, np.random.default_rng(config.seed))
    for share in sorted({*SHARES, operating_share}):
        for name, choose in choosers.items():
            draws = []
            for _ in range(DRAWS if name == RANDOM else 1):
                chosen = choose(share)
                sequences = [
                    answers(config.answer, *of_video)
                    for of_video in zip(clips.appearance, clips.motion, clips.split(chosen), strict=True)
                ]
                used = float(chosen.sum() / total)
                draws.append(point(name, share, used, gflops + used * gflops_more, sequences))
            numbers = draws[0].keys() - {"choice", "at"}
            points.append(draws[0] | {key: float(np.mean([one[key] for one in draws])) for key in numbers})
    return points


def curve_lines(details: Mapping[str, Any]) -> list[str]:
    """Of a run's details: the choices at its cost, and what runs one model or both everywhere."""
    points = details.get("points")
    if not points:
        return []
    share = details["share"]
    titles = [f"mAP {over}" for over in _SHOWN]
    lines = [
        f"motion in {100 * share:.1f} % of the clips, from a confidence of {details['threshold']:.3f}",
        f"  {'':<14}  GFLOPs/clip  {'  '.join(titles)}",
    ]
    for one in points:
        if one["at"] == share or one["choice"] in (RGB_ONLY, MOTION_ONLY, AVERAGED):
            values = [100 * one[metric_name(protocol, over)] for over, protocol in _SHOWN.items()]
            shown = "  ".join(f"{value:{len(title)}.1f}" for value, title in zip(values, titles, strict=True))
            lines.append(f"  {one['choice']:<14}  {one['gflops_per_clip']:11.2f}  {shown}")
    return lines


def disparity_by_ground(clips: JudgedClips) -> dict[str, list[int]]:
    """Fig. 5-a: clips by D_motion (Eq. 3) in `BINS` equal bins of [0, 1], those in a segment of one of the video's
    classes ("foreground") and the others ("background"); of videos with a label."""
    counts = {True: np.zeros(BINS, np.int64), False: np.zeros(BINS, np.int64)}
    for appearance, motion, spans, segments, classes in zip(
        clips.appearance, clips.motion, clips.spans, clips.segments, clips.labels, strict=True
    ):
        if not classes.any():
            continue
        values = disparity(appearance, motion, classes)
        inside = clip_truth(spans, segments.spans, segments.classes, len(classes)).any(axis=1)
        for ground in counts:
            counts[ground] += np.histogram(values[inside == ground], BINS, (0, 1))[0]
    return {"foreground": counts[True].tolist(), "background": counts[False].tolist()}


def _choosers(
    clips: JudgedClips, generator: np.random.Generator
) -> Mapping[str, Callable[[float], BoolArray]]:
    """By name: from a share to (N,), which of all clips use motion."""
    confidences = np.concatenate(clips.confidences)
    changes = np.concatenate([frame_motion(rows.astype(np.float64)) for rows in clips.rows["appearance"]])
    appearance, motion = np.concatenate(clips.appearance), np.concatenate(clips.motion)
    truth = np.concatenate(
        [
            clip_truth(spans, one.spans, one.classes, appearance.shape[1])
            for spans, one in zip(clips.spans, clips.segments, strict=True)
        ]
    )
    return {
        SELECTOR: lambda share: top_clips(confidences, share),
        RANDOM: lambda share: random_clips(len(confidences), share, generator),
        REGULAR: lambda share: np.concatenate([regular_clips(len(one), share) for one in clips.spans]),
        FRAME_MOTION: lambda share: top_clips(changes, share),
        ORACLE: lambda share: oracle_clips(appearance, motion, truth, share),
    }
