"""Segments that a method found in videos, those that are there, and which of them match, by three protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

THUMOS14_IOUS = tuple(k / 10 for k in range(1, 8))
MULTITHUMOS_IOUS = THUMOS14_IOUS[:5]
ACTIVITYNET_IOUS = tuple(k / 20 for k in range(10, 20))
"""The thresholds of IoU at which papers judge detections of each benchmark, and over which they average."""


@dataclass(frozen=True, eq=False)
class Detections:
    """D segments that were found in M videos, in any order.

    Attributes:
        videos: (D,) int64, position of the video among the M.
        classes: (D,) int64 class index.
        spans: (D, 2) float64, start and end in seconds.
        scores: (D,) float64; higher is surer.
    """

    videos: IntArray
    classes: IntArray
    spans: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        return f"Detections({len(self):,} in {len(np.unique(self.videos)):,} videos)"


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """S annotated segments of M videos, in the order of the annotations.

    Attributes:
        videos: (S,) int64, position of the video among the M.
        classes: (S,) int64 class index.
        spans: (S, 2) float64, start and end in seconds.
        ambiguous_videos: (A,) int64, the same of A spans in which nothing can be judged, of no class.
        ambiguous_spans: (A, 2) float64, seconds.
    """

    videos: IntArray
    classes: IntArray
    spans: FloatArray
    ambiguous_videos: IntArray
    ambiguous_spans: FloatArray


@dataclass(frozen=True)
class Protocol:
    """How an evaluation kit decides which detections are correct, and how it computes average precision.

    In each video and class, segments (or detections) take turns. Each takes one of the detections (or segments)
    that are still free and overlap it enough. A detection that is paired in this way is correct.

    Attributes:
        title: for people.
        by_segment: segments choose, in the order of the annotations; of equal IoU the detection with the higher
            score. Otherwise detections choose, the highest score first; of equal IoU the segment annotated last.
        choice: the one with the highest IoU, or the first in the order of the annotations.
        strict: IoU must exceed the threshold; otherwise it may equal it.
        hull: the union is computed as last end minus first start; otherwise as the sum of the lengths minus the
            overlap. They differ by rounding, which counts where IoU equals the threshold.
        ambiguous: what becomes of a detection that overlaps an ambiguous span. "ignored": nothing; "forgives": it
            is left out of the ranking unless it is correct; "drops": it is left out before anything is paired.
        annotated_only: detections in videos without any segment are left out.
        interpolated: the precision at a recall is the highest at this or a higher recall (Pascal VOC 2011).
        clips_per_s: times are first rounded to whole clips (half to even); None: they are not.
    """

    title: str
    by_segment: bool = False
    choice: Literal["best", "first"] = "best"
    strict: bool = False
    hull: bool = False
    ambiguous: Literal["ignored", "forgives", "drops"] = "ignored"
    annotated_only: bool = False
    interpolated: bool = False
    clips_per_s: float | None = None


PROTOCOLS: Mapping[str, Protocol] = {
    "thumos14": Protocol(
        "THUMOS'14 kit of 2015", by_segment=True, strict=True, hull=True, ambiguous="forgives"
    ),
    "activitynet": Protocol("ActivityNet's kit", interpolated=True),
    "wtalc": Protocol(
        "W-TALC's code", choice="first", ambiguous="drops", annotated_only=True, clips_per_s=25 / 16
    ),
}
"""TH14evalDet_Updated.m of 2015, eval_detection.py of github.com/activitynet/ActivityNet and detectionMAP.py of
github.com/sujoyp/wtalc-pytorch, with two differences.

Detections with equal scores are ranked by video, and within a video in the order of the input. This is what the
first kit does; the other two leave it to an unstable sort. And a class that has segments but no detections has an
average precision of 0; in W-TALC's code the mean over all classes is 0 then.
"""


@dataclass(frozen=True, eq=False)
class Matching:
    """Which of D detections a protocol finds correct at each of I thresholds of IoU.

    Attributes:
        videos, classes: (D,), as in `Detections`, but by class, and the highest score first.
        correct: (D, I), whether it is paired with a segment.
        clear: (D,), whether it counts as false where it is not correct; otherwise it does not count there.
        truth_videos, truth_classes: (S,), as in `GroundTruth`.
        interpolated: as in `Protocol`.
    """

    videos: IntArray
    classes: IntArray
    correct: BoolArray
    clear: BoolArray
    truth_videos: IntArray
    truth_classes: IntArray
    interpolated: bool

    def of_videos(self, chosen: BoolArray) -> Matching:
        """The same of some of the M videos, which the others have no influence on.

        Args:
            chosen: (M,).
        """
        rows, truth_rows = chosen[self.videos], chosen[self.truth_videos]
        return Matching(
            self.videos[rows],
            self.classes[rows],
            self.correct[rows],
            self.clear[rows],
            self.truth_videos[truth_rows],
            self.truth_classes[truth_rows],
            self.interpolated,
        )


def match(detections: Detections, truth: GroundTruth, thresholds: Sequence[float], protocol: str) -> Matching:
    """Pair detections with segments as a protocol does.

    What ends before it starts overlaps nothing.

    Args:
        thresholds: I thresholds of IoU, above 0.
        protocol: a name in `PROTOCOLS`.

    Raises:
        ValueError: a threshold is not above 0, or a time or score is not finite.
    """
    rules = PROTOCOLS[protocol]
    numbers = (detections.scores, detections.spans, truth.spans, truth.ambiguous_spans)
    if not (min(thresholds) > 0 and all(np.isfinite(array).all() for array in numbers)):
        raise ValueError("thresholds must be above 0, times and scores finite")
    order = np.lexsort((detections.videos, -detections.scores, detections.classes))
    videos, classes = detections.videos[order], detections.classes[order]
    spans, truth_spans, ambiguous_spans = (
        seconds if rules.clips_per_s is None else np.rint(seconds * rules.clips_per_s)
        for seconds in (detections.spans[order], truth.spans, truth.ambiguous_spans)
    )

    videos_end = 1 + max(videos.max(initial=0), truth.videos.max(initial=0))
    rows, segments, overlap = _overlapping(
        classes * videos_end + videos, spans, truth.classes * videos_end + truth.videos, truth_spans
    )
    starts, ends = np.moveaxis(np.stack([spans[rows], truth_spans[segments]]), 2, 0)
    union = ends.max(axis=0) - starts.min(axis=0) if rules.hull else (ends - starts).sum(axis=0) - overlap
    iou = overlap / union
    clear = np.ones(len(videos), np.bool_)
    if rules.ambiguous != "ignored":
        clear[_overlapping(videos, spans, truth.ambiguous_videos, ambiguous_spans)[0]] = False

    takers, taken, ties = (segments, rows, rows) if rules.by_segment else (rows, segments, -segments)
    preference = np.lexsort((ties, -iou, takers) if rules.choice == "best" else (segments, takers))
    correct = np.zeros((len(videos), len(thresholds)), np.bool_)
    for place, threshold in enumerate(thresholds):
        enough = iou > threshold if rules.strict else iou >= threshold
        if rules.ambiguous == "drops":
            enough &= clear[rows]
        pairs = preference[enough[preference]]
        correct[rows[pairs[_take_turns(takers[pairs], taken[pairs])]], place] = True

    if rules.annotated_only:
        clear &= np.isin(videos, truth.videos)
    return Matching(videos, classes, correct, clear, truth.videos, truth.classes, rules.interpolated)


def _overlapping(
    groups: IntArray, spans: FloatArray, other_groups: IntArray, other_spans: FloatArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """The pairs of spans of a group that overlap: (P,) indices of either, and (P,) by how much, above 0."""
    order = np.argsort(other_groups, kind="stable")
    begin, end = (np.searchsorted(other_groups[order], groups, side) for side in ("left", "right"))
    counts = end - begin
    index = np.repeat(np.arange(len(groups)), counts)
    nth = np.arange(len(index)) - np.repeat(counts.cumsum() - counts, counts)
    other = order[np.repeat(begin, counts) + nth]
    overlap = shared_s(spans[index], other_spans[other])
    is_pair = overlap > 0
    return index[is_pair], other[is_pair], overlap[is_pair]


def shared_s(spans: FloatArray, others: FloatArray) -> FloatArray:
    """(...,): how long spans (..., 2) and others of the same shape overlap; below 0: how far apart they are."""
    return np.asarray(np.minimum(spans[..., 1], others[..., 1]) - np.maximum(spans[..., 0], others[..., 0]))


def _take_turns(takers: IntArray, taken: IntArray) -> IntArray:
    """The pairs that result when each taker in turn takes the first entry of its list that is still free.

    All takers ask at once for the first entry of their lists, and it goes to the earliest taker that asks. Those
    that get nothing, or lose it to an earlier taker, ask for the next entry. Because earlier takers are preferred
    everywhere, this ends with the same pairs as taking turns (Gale and Shapley, 1962), in few rounds.

    Args:
        takers, taken: (P,), the possible pairs, ordered by taker, then by the taker's preference.

    Returns:
        Indices of pairs.
    """
    pairs = len(takers)
    holders = np.full(taken.max(initial=-1) + 1, pairs)  # the pair by which each is taken, so far
    asking = np.flatnonzero(np.diff(takers, prepend=-1))
    while len(asking):
        wanted = taken[asking]
        before = holders[wanted]
        np.minimum.at(holders, wanted, asking)  # an earlier taker's pairs have smaller indices
        displaced = before[(before < pairs) & (before != holders[wanted])]
        following = 1 + np.union1d(asking[asking != holders[wanted]], displaced)
        following = following[following < pairs]
        asking = following[takers[following] == takers[following - 1]]
    return holders[holders < pairs]
