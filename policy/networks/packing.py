"""Arithmetic on packed sequences: N rows, time-major, the longest of B videos first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def video_of_row(packed: PackedSequence) -> Tensor:
    """(N,) int64 on the CPU: which of the caller's B videos each row belongs to."""
    place, lengths = place_of_row(packed.batch_sizes)
    order = packed.sorted_indices
    return torch.arange(len(lengths))[place] if order is None else order.cpu()[place]


def place_of_row(batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) position of each row's video among the B sorted ones, and their lengths (B,) in steps."""
    place = torch.arange(int(batch_sizes[0]))
    return torch.cat([place[:n] for n in batch_sizes.tolist()]), (batch_sizes[:, None] > place).sum(0)


def last_rows(batch_sizes: Tensor) -> Tensor:
    """(B,) int64: the packed row of each sorted video's last step."""
    _, lengths = place_of_row(batch_sizes)
    starts = batch_sizes.cumsum(0) - batch_sizes
    return starts[lengths - 1] + torch.arange(len(lengths))


def split_steps(packed: Tensor, batch_sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """The rows of each step. (Not slices, because the gradient of each would be as large as the whole.)"""
    return torch.split(packed, list(batch_sizes))


def split_videos(packed: Tensor, batch_sizes: Tensor, unsorted_indices: Tensor | None) -> list[Tensor]:
    """Rows (N, ...) -> (T, ...) of each video, in the caller's order."""
    place, lengths = place_of_row(batch_sizes)
    # A stable sort by video keeps the steps of each in order.
    by_video = packed[torch.argsort(place, stable=True).to(packed.device)]
    parts = torch.tensor_split(by_video, lengths.cumsum(0)[:-1])
    order = range(len(parts)) if unsorted_indices is None else unsorted_indices.tolist()
    return [parts[k] for k in order]


def mean_per_video(rows: Tensor, packed: PackedSequence) -> Tensor:
    """(N, C) values of rows laid out as `packed` -> their means (B, C) in the caller's order."""
    video = video_of_row(packed).to(rows.device)
    count = int(packed.batch_sizes[0])
    sums = rows.new_zeros(count, rows.shape[1]).index_add(0, video, rows)
    return sums / torch.bincount(video, minlength=count)[:, None]


def lengths_of(packed: PackedSequence) -> Tensor:
    """(B,) int64: rows T of each video in the caller's order, on the device of the data."""
    _, lengths = place_of_row(packed.batch_sizes)
    lengths, order = lengths.to(packed.data.device), packed.unsorted_indices
    return lengths if order is None else lengths[order]


def packed_rows(packed: PackedSequence, videos: Tensor, rows: Tensor) -> Tensor:
    """(M,) int64: the positions in `packed.data` of rows (M,) of the caller's videos (M,)."""
    starts = (packed.batch_sizes.cumsum(0) - packed.batch_sizes).to(rows.device)
    order = packed.unsorted_indices
    return starts[rows] + (videos if order is None else order[videos])


def marked(lengths: Tensor, videos: Tensor, rows: Tensor) -> list[Tensor]:
    """Per video (T,) float32 that is 1 on the given rows (M,) of the given videos (M,) and 0 elsewhere."""
    marks = torch.zeros(int(lengths.sum()), device=rows.device)
    marks[(lengths.cumsum(0) - lengths)[videos] + rows] = 1.0
    return list(torch.split(marks, lengths.tolist()))
