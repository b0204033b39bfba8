"""Whether the cached videos are as long as the benchmark's own list says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cache_schema import Stream
from cache_schema.annotations import LabelSet, VideoLabel

# What counting differently makes of the same video: a last frame without a duration, 29.97 taken for 30, frames
# that an extraction at a constant rate doubles or drops. A video that was cut, or is another one, differs by more.
SHARE_ALLOWED = 0.02
FRAMES_ALLOWED = 3


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
    said = np.array([video.frames for _, video in listed], np.float64)
    # An imported feature may come without the length of its video: nothing to compare.
    known = np.isfinite(cached) & (cached > 0)
    off = np.where(known, np.abs(cached - said), 0)
    differing = off > np.maximum(FRAMES_ALLOWED, SHARE_ALLOWED * said)
    if not differing.any():
        return None
    count = int(differing.sum())
    # By share, or the longest videos would always be the worst.
    worst = int(np.argmax(np.where(differing, off / np.maximum(said, 1), 0)))
    return (
        f"{labels.source}: {count:,} of {len(listed):,} videos {'is' if count == 1 else 'are'} not as long in the "
        f"cache as listed, most of all {listed[worst][0]!r}: {cached[worst]:.0f} frames, not {said[worst]:.0f}"
    )
