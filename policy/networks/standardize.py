"""Fixed input normalisation: (x − mean) / std per feature, from training data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policy.data.batches import Role, RowChoice, VideoSet, every_row


class Standardize(nn.Module):
    """Bring the features of one stream to zero mean and unit variance; the identity until fitted.

    Our addition, not in the paper (its released code L2-normalises each frame and learns BatchNorm layers).
    The gate and the fine LSTM take features of two backbones side by side, whose scales may differ by orders
    of magnitude. The constants are buffers: saved with the weights, never trained, and the same in training and
    deployment.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., D) of any float type (float16 in the cache) -> (..., D) in the model's own type.

        Raises:
            ValueError: D is not that of the module (the features might otherwise broadcast).
        """
        if features.shape[-1] != len(self.mean):
            raise ValueError(f"features have {features.shape[-1]} columns, the model takes {len(self.mean)}")
        return (features.to(self.mean.dtype) - self.mean) / self.std

    @torch.no_grad()
    def fit(self, features: Iterable[Tensor | NDArray[Any]]) -> None:
        """Set mean and std from the rows of many (T, D) arrays, in one pass and in float64.

        A feature that never varies gets std 1, so that it becomes 0 rather than NaN.

        Raises:
            ValueError: there is no row, or the statistics are not finite.
        """
        count = 0
        mean = torch.zeros_like(self.mean, dtype=torch.float64)
        deviation = torch.zeros_like(mean)  # sum of squared distances from the mean so far
        for rows in features:
            if len(rows) == 0:
                continue
            # A copy of an array, because torch has no read-only tensors for memory maps.
            tensor = rows if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows, np.float64))
            block = tensor.to(device=mean.device, dtype=torch.float64)
            # Chan's pairwise update: no cancellation, unlike E[x²] − E[x]².
            block_mean = block.mean(0)
            shift = block_mean - mean
            total = count + len(block)
            deviation += (block - block_mean).square().sum(0) + shift.square() * (count * len(block) / total)
            mean += shift * (len(block) / total)
            count = total
        if count == 0:
            raise ValueError("no feature row to take mean and std from")
        std = (deviation / count).sqrt()
        # Relative to the mean: rounding of a large constant is no variation.
        std[std <= 1e-6 * mean.abs()] = 1.0
        if not (mean.isfinite().all() and std.isfinite().all()):
            raise ValueError("features hold NaN or infinity: their mean and std are not finite")
        self.mean.copy_(mean)
        self.std.copy_(std)


def unit_rows(features: Tensor) -> Tensor:
    """`policy.data.batches.unit_length` of rows (N, D), in a network that is exported."""
    exact = features.half().float()
    unit: Tensor = exact / torch.linalg.vector_norm(exact, dim=1, keepdim=True).clamp_min(1e-12)
    return unit.half()


def unit_parts(features: Tensor, dims: Sequence[int]) -> Tensor:
    """`unit_rows` of each of several streams, of D features each, side by side in rows (N, ΣD)."""
    return torch.cat([unit_rows(part) for part in torch.split(features, list(dims), 1)], 1)


def fit_scale(scale: Standardize, videos: VideoSet, role: Role, rows: RowChoice = every_row) -> None:
    """Fit mean and std to the rows of the training videos that a method looks at."""
    arrays = (videos.features(role, i) for i in range(len(videos)))
    scale.fit(torch.from_numpy(a[rows(len(a))].astype(np.float32)) for a in arrays)
