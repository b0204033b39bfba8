"""A learned layer in front of both recurrent networks, as in the code that LiteEval's authors released (2022)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from policy.accounting import linear_macs
from policy.config import Precision
from policy.liteeval.products import linear

LEAST_ROWS = 8
"""Of which mean and variance are taken in training."""


class Projection(nn.Module):
    """Batch norm, linear, batch norm, ReLU: (N, D) -> (N, P).

    The released code has these layers inside its time loop, so that in training every step is normalised with
    the mean and variance of its own rows, one of each video. Here they are outside of the loop, and the
    statistics are the same: see :func:`segments` for videos of different lengths.
    """

    def __init__(self, input_size: int, output_size: int, precision: Precision = "float32") -> None:
        super().__init__()
        self.precision = precision
        self.norm = nn.BatchNorm1d(input_size)
        self.linear = nn.Linear(input_size, output_size)
        self.output_norm = nn.BatchNorm1d(output_size)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one row; a batch norm at test time is no matrix product."""
        return linear_macs(self.linear.in_features, self.linear.out_features)

    def forward(self, rows: Tensor, batch_sizes: Sequence[int]) -> Tensor:
        """Of rows (N, D), packed; ``batch_sizes`` (rows of each step) matter in training only."""
        if not self.training:
            seen: Tensor = self.output_norm(self.linear(self.norm(rows)))
            return seen.relu()
        sizes = segments(batch_sizes)
        normalised = segment_norm(self.norm, rows, sizes)
        projected = linear(normalised, self.linear.weight, self.linear.bias, self.precision)
        return segment_norm(self.output_norm, projected, sizes).relu()


def segments(batch_sizes: Sequence[int], least: int = LEAST_ROWS) -> list[int]:
    """Rows that share their statistics: those of a step, or of as many steps as it takes to have enough.

    Where videos have different lengths the last steps have few rows, which would be normalised to noise (one
    row: to zero). Steps that are left over at the end belong to the last segment.
    """
    sizes, rows = [], 0
    for n in batch_sizes:
        rows += n
        if rows >= least:
            sizes.append(rows)
            rows = 0
    if rows and sizes:
        sizes[-1] += rows
    return sizes or [rows]


def segment_norm(norm: nn.BatchNorm1d, rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Call a batch norm in training on one segment of the rows after another, but on equal ones at once.

    Args:
        norm: its running statistics move once per segment.
        rows: (N, D).
        sizes: of the segments, N in all.
    """
    weight, bias = norm.weight, norm.bias
    blocks = [(size, len(list(equal))) for size, equal in groupby(sizes)]
    normalised, means, variances = [], [], []
    parts = torch.split(rows, [size * count for size, count in blocks])
    for (size, count), block in zip(blocks, parts, strict=True):
        x = block.view(count, size, -1)
        mean = x.mean(1, keepdim=True)
        centred = x - mean
        variance = centred.square().mean(1, keepdim=True)  # torch.var_mean takes several times as long
        scale = weight * torch.rsqrt(variance + norm.eps)
        normalised.append(torch.addcmul(bias, centred, scale).flatten(0, 1))
        means.append(mean.detach().squeeze(1))
        variances.append(variance.detach().squeeze(1) * (size / max(1, size - 1)))  # without bias, as torch's
    _move(norm, torch.cat(means), torch.cat(variances))
    return torch.cat(normalised)


@torch.no_grad()
def _move(norm: nn.BatchNorm1d, means: Tensor, variances: Tensor) -> None:
    """Exponential averages over S segments: what S steps r ← (1 − m) r + m x of (S, D) come to."""
    assert norm.momentum is not None and norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    kept = 1 - norm.momentum
    shares = norm.momentum * kept ** torch.arange(len(means) - 1, -1, -1).to(means)
    norm.running_mean.mul_(kept ** len(means)).add_(shares @ means)
    norm.running_var.mul_(kept ** len(means)).add_(shares @ variances)
    norm.num_batches_tracked += len(means)
