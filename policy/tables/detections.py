"""Anybody's detections, judged by every protocol on every set of videos that papers evaluate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np

from cache_schema import UserError
from cache_schema.annotations import LabelSet, VideoLabel, thumos14
from cache_schema.annotations.thumos14_sets import (
    NOT_EVALUATED,
    VIDEO_SETS,
    missing_of_set,
    of_set,
)
from cache_schema.command import count
from policy.data.opening import segments_of
from policy.evaluation.annotated import ground_truth_of
from policy.evaluation.detection import (
    ACTIVITYNET_IOUS,
    MULTITHUMOS_IOUS,
    PROTOCOLS,
    THUMOS14_IOUS,
    BoolArray,
    Detections,
    FloatArray,
    GroundTruth,
    match,
)
from policy.evaluation.detection_map import (
    average_precision,
    bootstrap_interval,
    mean_over_classes,
    weighted_average_precision,
)
from policy.evaluation.metrics import resampled_weights
from policy.localization.detections import read
from policy.sheets.sheet import Spread

_SEED = 0


@dataclass(frozen=True)
class Score:
    """What a protocol makes of the detections in a set of videos, in percent.

    Attributes:
        precision: (C, I) average precision; NaN for a class without segments.
        resampled: (I, B) mAP in bootstrap samples of the videos.
    """

    precision: FloatArray
    resampled: FloatArray

    def mean(self, thresholds: BoolArray) -> Spread:
        """mAP averaged over some of the I thresholds, with its interval where there are samples."""
        value = float(mean_over_classes(self.precision)[thresholds].mean())
        if not self.resampled.size:
            return Spread(value, None)
        interval = bootstrap_interval(value, self.resampled[thresholds].mean(axis=0))
        return Spread(value, None, interval.low, interval.high)


@dataclass(frozen=True)
class Judgement:
    """Attributes:
    ious: (I,) thresholds of IoU.
    sets: by name, which of the M videos a set has: (M,).
    scores: by protocol, then by set.
    notes: what the user should know of what was judged, a line each.
    drawn: what bootstrap samples are of, in words.
    """

    path: Path
    labels: LabelSet
    subset: str
    ious: FloatArray
    sets: Mapping[str, BoolArray]
    detections: Detections
    truth: GroundTruth
    scores: Mapping[str, Mapping[str, Score]]
    resamples: int
    notes: Sequence[str]
    drawn: str


def parse_ious(text: str) -> tuple[float, ...]:
    """Thresholds of IoU from FIRST:LAST:STEP, or a single one.

    Raises:
        UserError: it is neither, or one is not above 0 and at most 1.
    """
    try:
        first, last, step = map(Decimal, text.split(":") if ":" in text else (text, text, "1"))
        steps = (last - first) / step
        if not 0 < first <= last <= 1 or steps != int(steps) or not 0 <= steps < 100:
            raise ValueError
    except (ValueError, ArithmeticError) as error:
        raise UserError(
            f"--ious {text}: neither FIRST:LAST:STEP such as 0.1:0.7:0.1, nor a single one, above 0 and at most 1"
        ) from error
    return tuple(float(first + k * step) for k in range(int(steps) + 1))


def judge(
    path: Path,
    labels: LabelSet,
    *,
    subset: str | None = None,
    ious: Sequence[float] | None = None,
    resamples: int = 1000,
) -> Judgement:
    """Read a file of detections and judge it.

    Args:
        subset: None: the one that the detections are of.
        ious: None: those of the benchmark that the videos are of; for other videos those of THUMOS'14.
        resamples: bootstrap samples; 0 gives no intervals.

    Raises:
        UserError: the file is wrong, it has detections in several subsets and none is chosen, or the subset has no
            segments to judge by.
    """
    # Some annotations lack test videos of THUMOS'14 that not all papers evaluate: detections there are no mistake.
    absent = [VideoLabel(name, (), f"test{NOT_EVALUATED}") for name in missing_of_set(labels, "thumos14-213")]
    # By id, as in the kit of THUMOS'14: of equal scores the earlier video comes first.
    videos = sorted((*labels.videos, *absent), key=lambda video: video.video_id)
    classes = labels.classes
    truth = ground_truth_of(segments_of(videos, classes))
    detections = read(path, videos, classes)
    subset = subset or _subset_of(path, videos, detections)
    ids = [video.video_id for video in videos]
    sets = {
        name: np.isin(ids, [video.video_id for video in chosen])
        for name, chosen in _sets(labels, subset).items()
    }
    judged = np.any([*sets.values()], axis=0)
    if not judged[truth.videos].any():
        raise UserError(f"{labels.source}: subset {subset!r} has no segments, by which detections are judged")
    thresholds = np.array(ious or _usual_ious(labels))
    groups = np.array([video.group for video in videos])
    weights = {name: np.zeros((len(videos), resamples), np.float32) for name in sets}
    for name, chosen in sets.items():
        drawn = groups[chosen].tolist() if labels.grouping else ()
        weights[name][chosen] = resampled_weights(int(chosen.sum()), resamples, _SEED, drawn)
    scores: dict[str, dict[str, Score]] = {}
    for protocol in PROTOCOLS:
        matching = match(detections, truth, thresholds.tolist(), protocol)
        scores[protocol] = {
            name: Score(
                100 * average_precision(matching.of_videos(chosen), len(classes)),
                100 * mean_over_classes(weighted_average_precision(matching, len(classes), weights[name])),
            )
            for name, chosen in sets.items()
        }
    notes = _notes(labels, subset, sets, detections, truth)
    drawn = "the evaluation videos"
    if labels.grouping:
        drawn = f"{count(len(np.unique(groups[judged])), 'groups')} of videos ({labels.grouping})"
    return Judgement(
        path, labels, subset, thresholds, sets, detections, truth, scores, resamples, notes, drawn
    )


def _usual_ious(labels: LabelSet) -> tuple[float, ...]:
    ids = [video.video_id for video in labels.videos]
    if all(name.startswith("v_") for name in ids):
        return ACTIVITYNET_IOUS
    of_thumos = all(name.startswith(("video_test_", "video_validation_")) for name in ids)
    return THUMOS14_IOUS if not of_thumos or {*labels.classes} <= {*thumos14.CLASSES} else MULTITHUMOS_IOUS


def _subset_of(path: Path, videos: Sequence[VideoLabel], detections: Detections) -> str:
    counts = Counter(_subset(videos[video]) for video in detections.videos.tolist())
    if len(counts) == 1:
        return next(iter(counts))
    found = " and ".join(f"{count:,} of subset {name!r}" for name, count in sorted(counts.items()))
    raise UserError(f"{path}: {found or 'no detections'}; say with --subset which subset is judged")


def _subset(video: VideoLabel) -> str:
    return video.subset.removesuffix(NOT_EVALUATED)


def _sets(labels: LabelSet, subset: str) -> dict[str, Sequence[VideoLabel]]:
    """The videos of a subset that are judged; of THUMOS'14's test videos all sets that the annotations have."""
    if any(_subset(video) == subset and video.video_id.startswith("video_test_") for video in labels.videos):
        possible = [name for name in VIDEO_SETS if not missing_of_set(labels, name)]
        return {name: of_set(labels, name).judged(subset) for name in possible}
    return {subset: labels.judged(subset)}


def _notes(
    labels: LabelSet,
    subset: str,
    sets: Mapping[str, BoolArray],
    detections: Detections,
    truth: GroundTruth,
) -> list[str]:
    judged = np.any([*sets.values()], axis=0)
    found, segments = judged[detections.videos], judged[truth.videos]
    notes = [
        f"Subset {subset!r}: {count(found.sum(), 'detections')}, {count(segments.sum(), 'segments')}, "
        f"{count(judged.sum(), 'videos')}; {len(np.unique(detections.videos[found])):,} of them with detections."
    ]
    if not found.all():
        others = count(len(np.unique(detections.videos[~found])), "videos")
        notes.append(
            f"Not judged: {count((~found).sum(), 'detections')} in {others} of other subsets, or without labels."
        )
    shown = np.unique(truth.classes[segments])
    missed = [labels.classes[c] for c in np.setdiff1d(shown, detections.classes[found])]
    if missed:
        notes.append(
            f"No detections of {len(missed)} of {len(shown)} classes, which count as 0: {', '.join(missed[:3])}"
            f"{', …' * (len(missed) > 3)}. W-TALC's code itself would print an mAP of 0."
        )
    if not {*sets} <= {*VIDEO_SETS}:
        return [*notes, *labels.notes]
    reasons = {video: why for name in sets for video, why in VIDEO_SETS[name].items()}
    left_out = [
        f"{chosen.sum()} without {', '.join(VIDEO_SETS[name])}"
        for name, chosen in sets.items()
        if VIDEO_SETS[name]
    ]
    about_set = {note for name in sets for note in of_set(replace(labels, notes=()), name).notes}
    return [
        *notes,
        f"Papers evaluate different sets of test videos: {'; '.join(left_out)}.",
        *(f"{video}: {why}." for video, why in reasons.items()),
        *(note for note in labels.notes if note not in about_set),
    ]
