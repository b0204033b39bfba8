"""The three protocols of detection mAP as plain loops over Python lists, to hold the vectorised ones to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from policy.evaluation.detection import Detections, GroundTruth


class Span(NamedTuple):
    video: int
    label: int
    start: float
    end: float
    score: float = 0.0


def average_precision(
    detections: Detections, truth: GroundTruth, threshold: float, protocol: str, label: int
) -> float:
    """Of one class at one threshold; NaN without segments."""
    found = [
        Span(int(video), int(number), float(start), float(end), float(score))
        for video, number, (start, end), score in zip(
            detections.videos, detections.classes, detections.spans, detections.scores, strict=True
        )
    ]
    segments = [
        Span(int(video), int(number), float(start), float(end))
        for video, number, (start, end) in zip(truth.videos, truth.classes, truth.spans, strict=True)
    ]
    ambiguous = [
        Span(int(video), -1, float(start), float(end))
        for video, (start, end) in zip(truth.ambiguous_videos, truth.ambiguous_spans, strict=True)
    ]
    annotated = {span.video for span in segments}

    found = [span for span in found if span.label == label]
    segments = [span for span in segments if span.label == label]
    if not segments:
        return math.nan
    # By video and then by score; the sort is stable.
    found.sort(key=lambda span: span.video)
    found.sort(key=lambda span: -span.score)
    judge = {"thumos14": thumos14, "activitynet": activitynet, "wtalc": wtalc}[protocol]
    if protocol == "wtalc":
        found = [span for span in found if span.video in annotated]
    verdicts = judge(found, segments, ambiguous, threshold)
    return area(verdicts, len(segments), interpolated=protocol == "activitynet")


def thumos14(
    found: Sequence[Span], segments: Sequence[Span], ambiguous: Sequence[Span], threshold: float
) -> list[bool]:
    """Of those that are ranked, whether they are correct."""
    correct: set[int] = set()
    for segment in segments:
        best, best_iou = -1, -1.0
        for place, span in enumerate(found):
            if span.video == segment.video and place not in correct:
                overlap = min(span.end, segment.end) - max(span.start, segment.start)
                hull = max(span.end, segment.end) - min(span.start, segment.start)
                iou = overlap / hull if overlap > 0 else 0.0
                if iou > best_iou:
                    best, best_iou = place, iou
        if best_iou > threshold:
            correct.add(best)
    verdicts = []
    for place, span in enumerate(found):
        forgiven = any(
            span.video == other.video and min(span.end, other.end) - max(span.start, other.start) > 0
            for other in ambiguous
        )
        if place in correct or not forgiven:
            verdicts.append(place in correct)
    return verdicts


def activitynet(
    found: Sequence[Span], segments: Sequence[Span], ambiguous: Sequence[Span], threshold: float
) -> list[bool]:
    free = [True] * len(segments)
    verdicts = []
    for span in found:
        best, best_iou = -1, 0.0
        for place, segment in enumerate(segments):
            if segment.video == span.video and free[place]:
                overlap = max(0.0, min(span.end, segment.end) - max(span.start, segment.start))
                union = (span.end - span.start) + (segment.end - segment.start) - overlap
                iou = overlap / union if overlap > 0 else 0.0
                if iou >= threshold and iou >= best_iou:  # the last of equals
                    best, best_iou = place, iou
        if best >= 0:
            free[best] = False
        verdicts.append(best >= 0)
    return verdicts


def clips(span: Span) -> set[int]:
    """Python rounds half to even."""
    return set(range(round(span.start * (25 / 16)), round(span.end * (25 / 16))))


def wtalc(
    found: Sequence[Span], segments: Sequence[Span], ambiguous: Sequence[Span], threshold: float
) -> list[bool]:
    left = list(segments)
    verdicts = []
    for span in found:
        if any(other.video == span.video and clips(other) & clips(span) for other in ambiguous):
            continue
        hit = None
        for segment in left:
            either = clips(segment) | clips(span)
            iou = len(clips(segment) & clips(span)) / max(len(either), 1)
            if segment.video == span.video and iou >= threshold:
                hit = segment
                break
        if hit is not None:
            # Not list.remove, which would take an equal one.
            left = [segment for segment in left if segment is not hit]
        verdicts.append(hit is not None)
    return verdicts


def area(verdicts: Sequence[bool], positives: int, *, interpolated: bool) -> float:
    """Under precision against recall, with or without the precision's envelope."""
    points = []
    hits = 0
    for count, correct in enumerate(verdicts, 1):
        hits += correct
        points.append((hits / positives, hits / count, correct))
    total = 0.0
    for place, (_, precision, correct) in enumerate(points):
        if correct:
            reached = max(p for _, p, _ in points[place:]) if interpolated else precision
            total += reached / positives
    return total
