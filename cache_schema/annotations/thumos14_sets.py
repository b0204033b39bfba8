"""The sets of test videos that papers on THUMOS'14 evaluate; their results differ by points for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cache_schema.annotations.labels import LabelSet, VideoLabel
from cache_schema.errors import LabelError

_WRONG_TIMES = "wrong times: they run to 714 s, the video to 176 s"
_WRONG_CLASS = "CricketShot, where the benchmark's list of classes has FrisbeeCatch"
_ONLY_AMBIGUOUS = "ambiguous spans alone"
VIDEO_SETS: Mapping[str, Mapping[str, str]] = {
    "thumos14-213": {},
    "thumos14-212": {"video_test_0001292": _ONLY_AMBIGUOUS},
    "thumos14-211": {"video_test_0000270": _WRONG_TIMES, "video_test_0001496": _WRONG_CLASS},
    "thumos14-210": {
        "video_test_0000270": _WRONG_TIMES,
        "video_test_0001292": _ONLY_AMBIGUOUS,
        "video_test_0001496": _WRONG_CLASS,
    },
}
"""Sets of test videos that papers evaluate: which of the 213 are left out of each, and why.

W-TALC and ActionFormer evaluate 212 videos, BaS-Net and most others 210.
"""
USUAL_SET = "thumos14-210"
NOT_EVALUATED = ", not evaluated"
"""Ends the name of the subset of a video that a set leaves out."""


def of_set(labels: LabelSet, name: str) -> LabelSet:
    """The same videos, of which the subset "test" has those of a set; those left out have a subset of their own.

    Args:
        labels: of THUMOS'14 videos, of any set.
        name: a key of VIDEO_SETS.

    Raises:
        LabelError: it lacks a test video of the set.
    """
    left_out = VIDEO_SETS[name]
    missing = missing_of_set(labels, name)
    if missing:
        possible = [other for other in VIDEO_SETS if not missing_of_set(labels, other)]
        raise LabelError(
            f"{labels.source}: no annotations of {', '.join(missing)}, which the set {name} has; choose "
            f"{' or '.join(possible)}"
        )

    def subset(video: VideoLabel) -> str:
        return video.subset.removesuffix(NOT_EVALUATED) + NOT_EVALUATED * (video.video_id in left_out)

    videos = tuple(replace(video, subset=subset(video)) for video in labels.videos)
    notes = []
    if left_out and _has_test_videos(labels):
        why = ", ".join(f"{video_id} ({reason})" for video_id, reason in left_out.items())
        notes.append(f"{labels.source}: of the 213 annotated test videos the set {name} leaves out {why}")
    return replace(labels, videos=videos, notes=(*labels.notes, *notes))


def missing_of_set(labels: LabelSet, name: str) -> list[str]:
    """Which of the videos that sets differ by it lacks, if it has test videos."""
    if not _has_test_videos(labels):
        return []
    ids = {video.video_id for video in labels.videos}
    return [video for video in VIDEO_SETS[USUAL_SET] if video not in VIDEO_SETS[name] and video not in ids]


def _has_test_videos(labels: LabelSet) -> bool:
    return any(video.video_id.startswith("video_test_") for video in labels.videos)
