"""Which videos and clips a training step of W-TALC sees, and whether rows are clips that follow one another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache_schema import Stream
from cache_schema.errors import CacheError
from policy.data.batches import VideoSet
from policy.localization.loss import Clips


def draw_batches(
    labels: npt.NDArray[np.bool_], steps: int, batch: int, pairs: int, generator: torch.Generator
) -> Tensor:
    """(steps · batch,) int64: positions of videos, a batch after the other, as W-TALC's released code draws them.

    A batch begins with its pairs: for each a class is drawn, and two videos that have it, independently, so that a
    video can meet itself. The others are drawn from all videos. All draws are with replacement.

    Args:
        labels: (M, C), what the M videos are trained on. Classes without a video are not drawn.
        generator: on the CPU.
    """
    classes, videos = labels.T.nonzero()  # by class
    counts = torch.from_numpy(np.bincount(classes, minlength=labels.shape[1]))
    counts = counts[counts > 0]
    firsts = counts.cumsum(0) - counts
    drawn = torch.randint(len(counts), (steps, pairs, 1), generator=generator)
    shares = torch.rand(steps, pairs, 2, generator=generator, dtype=torch.float64)
    paired = torch.from_numpy(videos)[firsts[drawn] + (shares * counts[drawn]).long()]
    others = torch.randint(len(labels), (steps, batch - 2 * pairs), generator=generator)
    return torch.cat([paired.flatten(1), others], 1).flatten()


def crop(clips: Clips, most: int, generator: torch.Generator) -> tuple[Clips, Tensor]:
    """A random stretch of `most` clips of each video that is longer, and all clips of the others.

    Every stretch of a video is as likely; the released code never draws the last one.

    Returns:
        What is left, and (N,) bool, which clips those are.
    """
    spare = (clips.lengths - most).clamp(min=0)
    shares = torch.rand(len(spare), generator=generator, dtype=torch.float64).to(spare.device)
    starts = (shares * (spare + 1)).long()
    steps = clips.steps - starts[clips.videos]
    kept = (steps >= 0) & (steps < most)
    return Clips(clips.videos[kept], steps[kept], clips.lengths.clamp(max=most)), kept


def check_clips(videos: VideoSet) -> None:
    """Whether the rows of all videos follow one another, and those of several streams are at the same instants.

    Raises:
        CacheError: they do not; the message names stream and video.
    """
    for index, video_id in enumerate(videos.ids):
        first, *others = ((stream, videos.spans(role, index)) for role, stream in videos.streams.items())
        for stream, spans in (first, *others):
            problem = _problem(stream, spans)
            if problem:
                raise CacheError(
                    f"stream {stream.name!r}, video {video_id!r}: {problem}; localization needs clips that follow "
                    "one another, such as those of x3d_m_dense16, i3d_rgb_dense16 and i3d_flow_dense16"
                )
        for stream, spans in others:
            _check_alike(video_id, first, (stream, spans))


def _problem(stream: Stream, spans: npt.NDArray[np.float64]) -> str:
    """Why the rows of a video (T, 2) are no clips that follow one another; empty where they are."""
    starts, ends = spans.T
    if not np.isfinite(spans).all():
        return "when its rows are is not known"
    if (np.diff(starts) <= 0).any():
        row = int(np.argmax(np.diff(starts) <= 0)) + 1
        return f"row {row} does not begin after row {row - 1}, at {starts[row - 1]:.2f} s"
    if stream.spec.sampling.kind == "clips":
        # Spread over the video: in a long one most of it is between them.
        gaps = starts[1:] - ends[:-1]
        if len(gaps) == 0 or (gaps > ends[:-1] - starts[:-1]).any():
            return f"its {len(spans)} clips are spread over the video, with gaps longer than a clip"
    return ""


def _check_alike(
    video_id: str,
    first: tuple[Stream, npt.NDArray[np.float64]],
    other: tuple[Stream, npt.NDArray[np.float64]],
) -> None:
    centres, others = (spans.mean(axis=1) for _, spans in (first, other))
    step = np.diff(centres).min() if len(centres) > 1 else np.inf
    apart = np.abs(centres - others)
    if (apart > step / 2).any():
        row = int(apart.argmax())
        raise CacheError(
            f"video {video_id!r}: row {row} is around {centres[row]:.2f} s in stream {first[0].name!r}, but "
            f"around {others[row]:.2f} s in {other[0].name!r}: choose two that see the same instants"
        )
