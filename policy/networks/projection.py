"""A learned layer in front of both recurrent networks, as in the code that LiteEval's authors released (2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from policy.config import Precision
from policy.networks.macs import linear_macs
from policy.networks.products import linear

LEAST_ROWS = 8
"""The smallest number of rows whose mean and variance are taken in training."""


class Projection(nn.Module):
    """Batch norm, linear, batch norm, ReLU: (N, D) -> (N, P).

    The released code has these layers inside its time loop, so that in training every step is normalised by the
    mean and variance of its own rows, one of each video. Here they are outside the loop, with the same
    statistics; for videos of different lengths see :func:`segments`.
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
        """Rows (N, D), packed -> (N, P); ``batch_sizes`` (rows of each step) matter in training only.

        A single row has no variance: even in training it is normalised as in evaluation.
        """
        if not self.training or len(rows) == 1:
            projected = batch_norm(self.linear(batch_norm(rows, self.norm)), self.output_norm)
            return projected.relu()
        blocks = [Block(size, len(list(equal))) for size, equal in groupby(segments(batch_sizes))]
        rows = torch.cat([side_by_side(part, block) for part, block in split(rows, blocks)])
        normalised = segment_norm(rows, self.norm, blocks)
        projected = linear(normalised, self.linear.weight, self.linear.bias, self.precision)
        outputs = segment_norm(projected, self.output_norm, blocks).relu()
        return torch.cat([in_turn(part, block) for part, block in split(outputs, blocks)])


class Block(NamedTuple):
    """Consecutive segments with the same number of rows."""

    size: int
    """Rows of a segment."""
    number: int
    """Segments."""


def split(rows: Tensor, blocks: Sequence[Block]) -> Iterator[tuple[Tensor, Block]]:
    """The rows of each block."""
    return zip(torch.split(rows, [block.size * block.number for block in blocks]), blocks, strict=True)


def side_by_side(rows: Tensor, block: Block) -> Tensor:
    """From segment after segment to: the first row of every segment, the second row of every segment, …"""
    return rows.view(block.number, block.size, -1).transpose(0, 1).flatten(0, 1)


def in_turn(rows: Tensor, block: Block) -> Tensor:
    """The inverse of `side_by_side`."""
    return rows.view(block.size, block.number, -1).transpose(0, 1).flatten(0, 1)


def segments(batch_sizes: Sequence[int], least: int = LEAST_ROWS) -> list[int]:
    """Numbers of rows that share their statistics: those of one step, or of as many steps as have enough rows.

    If videos have different lengths the last steps have few rows, which would be normalised to noise (one row: to
    zero). Steps left over at the end belong to the last segment.
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


def batch_norm(rows: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """At test time."""
    return functional.batch_norm(
        rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
    )


def segment_norm(rows: Tensor, norm: nn.BatchNorm1d, blocks: Sequence[Block]) -> Tensor:
    """Batch norm in training, as if called on one segment after another, but for the segments of a block at once.

    Args:
        rows: (N, D), each block :func:`side_by_side`: the columns of its segments are then the columns of a matrix
            (size, number · D), which batch norm normalises independently.
        norm: its running statistics move once per segment.
        blocks: of N rows in all.
    """
    normalised, means, variances = [], [], []
    for part, (size, number) in split(rows, blocks):
        mean, variance = rows.new_zeros(2, number * norm.num_features)
        out = functional.batch_norm(
            part.view(size, -1),
            mean,
            variance,
            norm.weight.repeat(number),
            norm.bias.repeat(number),
            training=True,
            momentum=1.0,  # which makes "running" statistics those of each segment
            eps=norm.eps,
        )
        normalised.append(out.view(part.shape))
        means.append(mean.view(number, -1))
        variances.append(variance.view(number, -1))
    _move(norm, torch.cat(means), torch.cat(variances))
    return torch.cat(normalised)


@torch.no_grad()
def _move(norm: nn.BatchNorm1d, means: Tensor, variances: Tensor) -> None:
    """Exponential averages over S segments, (S, D): the result of S steps r ← (1 − m) r + m x."""
    assert norm.momentum is not None and norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    decay = 1 - norm.momentum
    shares = norm.momentum * decay ** torch.arange(len(means) - 1, -1, -1).to(means)
    norm.running_mean.mul_(decay ** len(means)).add_(shares @ means)
    norm.running_var.mul_(decay ** len(means)).add_(shares @ variances)
    norm.num_batches_tracked += len(means)
