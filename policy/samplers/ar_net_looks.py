"""An LSTM that says after each row how many rows on it looks next; rows between leave its state as it was.

Only rows that it looks at are computed. What does not depend on the choices is one product of all rows: the
inputs' part of the gates, and the gradient of each weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from policy.networks.packing import split_steps


class Looks(NamedTuple):
    """The M looks at N packed rows.

    Attributes:
        rows: (M,) int64, where they are.
        choices: (M,) int64, what is chosen there.
        hidden: (M, H), the LSTM's state after each, differentiable.
        of_row: (N,) int64, the latest look at each row or before it.
    """

    rows: Tensor
    choices: Tensor
    hidden: Tensor
    of_row: Tensor


def look(
    cell: nn.LSTMCell,
    inputs: Tensor,
    batch_sizes: Sequence[int],
    choose: Callable[[Tensor, Tensor], Tensor],
    strides: Tensor,
) -> Looks:
    """Look at rows of B videos, at the first one of each and where the choices lead.

    Args:
        cell: the parameters.
        inputs: (N, D), packed. They get no gradient.
        batch_sizes: videos that are still running, per step.
        choose: from hidden states (m, H) and rows (m,) to choices (m,); called without gradient.
        strides: (A,) int64, from a row at which a choice is made to the next that is looked at, of each choice.
    """
    earlier: list[tuple[Tensor, Tensor]] = []
    biases = cell.bias_ih + cell.bias_hh
    projected = _Projection.apply(inputs, cell.weight_ih, cell.weight_hh, biases, earlier)
    weight_hh = cell.weight_hh.detach()  # its gradient is that of the projection
    packed = torch.arange(len(inputs), device=inputs.device)
    h = c = inputs.new_zeros(batch_sizes[0], cell.hidden_size)
    waits = torch.zeros_like(packed[: batch_sizes[0]])  # rows until a video's next look
    latest = torch.zeros_like(waits)
    looks, of_row, count = [], [], 0
    steps = zip(split_steps(packed, batch_sizes), split_steps(projected, batch_sizes), strict=True)
    for step, from_inputs in steps:
        h, c, waits, latest = (of_videos[: len(step)] for of_videos in (h, c, waits, latest))
        videos = (waits == 0).nonzero().squeeze(1)
        before_h, before_c, gates = (values.index_select(0, videos) for values in (h, c, from_inputs))
        i, f, g, o = (gates + F.linear(before_h, weight_hh)).chunk(4, 1)
        new_c = f.sigmoid() * before_c + i.sigmoid() * g.tanh()
        new_h = o.sigmoid() * new_c.tanh()
        h, c = h.index_copy(0, videos, new_h), c.index_copy(0, videos, new_c)
        rows = step[videos]
        with torch.no_grad():
            choices = choose(new_h, rows)
        waits = waits.index_copy(0, videos, strides[choices]) - 1
        latest = latest.index_copy(0, videos, packed[count : count + len(videos)])
        count += len(videos)
        earlier.append((rows, before_h.detach()))
        looks.append((rows, choices, new_h))
        of_row.append(latest)
    rows, choices, hidden = (torch.cat(part) for part in zip(*looks, strict=True))
    return Looks(rows, choices, hidden, torch.cat(of_row))


class _Projection(Function):
    """W_ih x + b, (N, 4H), to which a loop adds W_hh h. The gradient of W_hh is computed here, not in the loop.

    The loop fills `earlier`, for each step the rows (m,) to which it adds, and h (m, H). Others have no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        biases: Tensor,
        earlier: list[tuple[Tensor, Tensor]],
    ) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.earlier = earlier
        return F.linear(inputs, weight_ih, biases)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (inputs,) = ctx.saved_tensors
        rows, h = (torch.cat(part) for part in zip(*ctx.earlier, strict=True))
        flow = grad[rows].t()
        return None, flow @ inputs[rows], flow @ h, flow.sum(1), None
