"""What chance decides in training, from (seed, epoch, video) alone. Pure arithmetic: no files, no torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache_schema import Sampling
from extract.sampling import clip_times

_ASPECTS = 3 / 4, 4 / 3  # of a random crop, width to height: torchvision's, and Inception's before


def generator(seed: int, epoch: int, video_id: str = "") -> np.random.Generator:
    """Randomness of a video in an epoch; without a video, of the epoch."""
    digest = hashlib.sha256(video_id.encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng([seed, epoch, *np.frombuffer(digest[:16], "<u4").tolist()])


def order(seed: int, epoch: int, video_ids: Sequence[str]) -> list[int]:
    """The videos of an epoch, by position in `video_ids`, in random order."""
    return generator(seed, epoch).permutation(len(video_ids)).tolist()  # type: ignore[no-any-return]


def random_times(
    chance: np.random.Generator, sampling: Sampling, *, duration_s: float, rows: int, flow: bool = False
) -> NDArray[np.float64]:
    """The instants in seconds that each of `rows` frames or clips sees: (rows, T), as `clip_times` has them.

    The places where a clip can start are divided into as many equal parts, and one is drawn in each (TSN,
    https://arxiv.org/abs/1608.00859, Sec. 3.1). A video shorter than a clip is seen from its start.
    """
    window_s = 0.0 if sampling.kind == "frames" else sampling.window / sampling.fps
    starts_s = (np.arange(rows) + chance.random(rows)) / rows * max(0.0, duration_s - window_s)
    if sampling.kind == "frames":
        return starts_s[:, None]
    # The ticks of a clip are those of the only one in a video as long as it.
    ticks_s = clip_times(replace(sampling, kind="clips", clips=1, crops=1), duration_s=window_s, flow=flow)
    return np.clip(starts_s[:, None] + ticks_s, 0, duration_s)


class Crop(NamedTuple):
    """A part of a picture, in its pixels, and whether it is mirrored."""

    left: int
    top: int
    width: int
    height: int
    mirrored: bool


def random_crop(chance: np.random.Generator, *, width: int, height: int, min_area: float, flip: bool) -> Crop:
    """A part of random size and aspect, of at least `min_area` of the picture where its shape admits it."""
    mirrored = bool(chance.random() < 0.5) and flip
    low, high = (math.log(aspect) for aspect in _ASPECTS)
    for _ in range(10):
        area = width * height * chance.uniform(min_area, 1.0)
        aspect = math.exp(chance.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = chance.integers(0, [width - w + 1, height - h + 1]).tolist()
            return Crop(left, top, w, h, mirrored)
    # A picture so long that no such part fits: a square from its middle.
    side = min(width, height)
    return Crop((width - side) // 2, (height - side) // 2, side, side, mirrored)


def random_place(chance: np.random.Generator, *, width: int, height: int, size: int, flip: bool) -> Crop:
    """A square of `size` pixels anywhere in the picture, which is at least as large."""
    mirrored = bool(chance.random() < 0.5) and flip
    left, top = chance.integers(0, [width - size + 1, height - size + 1]).tolist()
    return Crop(left, top, size, size, mirrored)
