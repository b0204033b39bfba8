"""Frames of many videos through one backbone, in batches that are always full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from extract.backbones.timm2d import Backbone
from extract.transform import UInt8Array


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one video, computed: features (n, D) and scores (n, C) or None, float32."""

    owner: Any
    first_row: int
    features: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32] | None


class Batcher:
    """Collects frames until a batch is full, then computes it.

    The last batch of a run is filled up with black frames: a forward pass of another size may take another
    path through the libraries and differ in the last bit, and an interrupted run must end with the same rows.
    """

    def __init__(self, backbone: Backbone, size: int) -> None:
        self._backbone = backbone
        crop = backbone.spec.preprocessing.crop
        pinned = backbone.device.type == "cuda"
        self._pixels = torch.zeros((size, crop, crop, 3), dtype=torch.uint8, pin_memory=pinned)
        self._filled = 0
        self._segments: list[tuple[Any, int, int]] = []

    def add(self, owner: Any, first_row: int, pixels: UInt8Array) -> Iterator[Rows]:
        """Take in frames (n, crop, crop, 3) of one video; yield the rows of batches that became full."""
        taken = 0
        while taken < len(pixels):
            count = min(len(self._pixels) - self._filled, len(pixels) - taken)
            frames = torch.from_numpy(pixels[taken : taken + count])
            self._pixels[self._filled : self._filled + count] = frames
            self._segments.append((owner, first_row + taken, count))
            self._filled += count
            taken += count
            if self._filled == len(self._pixels):
                yield from self.flush()

    def flush(self) -> Iterator[Rows]:
        """Compute what has been taken in and yield its rows, video by video."""
        if not self._segments:
            return
        segments, self._segments = self._segments, []
        self._pixels[self._filled :] = 0
        self._filled = 0
        features, scores = self._backbone(self._pixels)
        features_np = features.cpu().numpy()
        scores_np = None if scores is None else scores.cpu().numpy()
        start = 0
        for owner, first_row, count in segments:
            at = slice(start, start + count)
            start += count
            yield Rows(owner, first_row, features_np[at], None if scores_np is None else scores_np[at])
