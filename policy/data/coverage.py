"""How much of a video the cache has: is it as long as the benchmark's own list says, and which rows are missing?

A video is partial where the cache lacks rows of it; of two streams, the rows at the same instants go together.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cache_schema import Stream
from cache_schema.annotations import LabelSet, VideoLabel
from policy.data.batches import Segments

R = TypeVar("R")

# What counting differently makes of the same video: a last frame without a duration, 29.97 taken for 30, frames
# that an extraction at a constant rate doubles or drops. A video that was cut, or is another one, differs by more.
SHARE_ALLOWED = 0.02
FRAMES_ALLOWED = 3
# Segments are annotated to a tenth of a second at best, and the last clip of a video may not be full.
SECONDS_ALLOWED = 1.0


def differing_lengths(
    stream: Stream, labels: LabelSet, matched: Sequence[tuple[str, VideoLabel]]
) -> str | None:
    """A line for the user that says how many videos differ in length and which differs most; None: none does.

    A list gives frames at the video's own rate, or at a fixed one (VideoLabel.frames_per_s).

    Args:
        matched: ids in the cache, with the labels found for them.

    Raises:
        CacheError: a shard is damaged.
    """
    listed = [(video_id, video) for video_id, video in matched if video.frames is not None]
    if not listed:
        return None
    seconds, rates = stream.source_lengths([video_id for video_id, _ in listed]).T
    fixed = np.array([video.frames_per_s or np.nan for _, video in listed])
    cached = seconds * np.where(np.isnan(fixed), rates, fixed)
    expected = np.array([video.frames for _, video in listed], np.float64)
    # An imported feature may come without the length of its video: nothing to compare.
    known = np.isfinite(cached) & (cached > 0)
    off = np.where(known, np.abs(cached - expected), 0)
    differing = off > np.maximum(FRAMES_ALLOWED, SHARE_ALLOWED * expected)
    if not differing.any():
        return None
    count = int(differing.sum())
    # By share, or the longest videos would always be the worst.
    worst = int(np.argmax(np.where(differing, off / np.maximum(expected, 1), 0)))
    return (
        f"{labels.source}: {count:,} of {len(listed):,} videos {'is' if count == 1 else 'are'} not as long in the "
        f"cache as listed, most of all {listed[worst][0]!r}: {cached[worst]:.0f} frames, not {expected[worst]:.0f}"
    )


def segments_beyond_the_end(
    stream: Stream, video_ids: Sequence[str], segments: Sequence[Segments]
) -> str | None:
    """A line for the user that says how many segments end after their video does in the cache; None: none does.

    Args:
        video_ids: M, in the cache.
        segments: theirs.

    Raises:
        CacheError: a shard is damaged.
    """
    durations_s = stream.source_lengths(video_ids)[:, 0]
    # An imported feature may come without the length of its video: nothing to compare.
    durations_s = np.where(durations_s > 0, durations_s, np.inf)
    ends_s = np.array([one.spans[:, 1].max(initial=0.0) for one in segments])
    late = [
        int((one.spans[:, 1] > duration_s + SECONDS_ALLOWED).sum())
        for one, duration_s in zip(segments, durations_s, strict=True)
    ]
    if not any(late):
        return None
    worst = int(np.argmax(ends_s - durations_s))
    return (
        f"segments that end after their video does in the cache: {sum(late):,}, latest of all in "
        f"{video_ids[worst]!r}: at {ends_s[worst]:.1f} s of {durations_s[worst]:.1f}"
    )


def partial_videos(streams: Iterable[Stream]) -> frozenset[str]:
    """Ids of the videos of which some stream has a part."""
    return frozenset(video for stream in streams for video in stream.partial)


def paired_rows(
    streams: Mapping[R, Stream], videos: Iterable[str]
) -> dict[str, Mapping[R, npt.NDArray[np.int64]]]:
    """By id of a video of which one of several streams has a part, the rows of each that all of them have.

    Rows are told by their numbers in what the sampling gives, for the streams are sampled alike: position k of one
    that lacks a row is another instant than position k of one that does not.

    Raises:
        CacheError: a shard is damaged.
    """
    pairs: dict[str, Mapping[R, npt.NDArray[np.int64]]] = {}
    every = streams.values()
    for video in videos if len(streams) > 1 else ():
        if all(video in stream for stream in every) and any(video in stream.partial for stream in every):
            numbers = {role: stream[video].numbers for role, stream in streams.items()}
            common = functools.reduce(np.intersect1d, numbers.values())
            pairs[video] = {role: np.searchsorted(there, common) for role, there in numbers.items()}
    return pairs
