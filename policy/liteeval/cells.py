"""A gated LSTM over packed sequences, with its gradient written by hand.

One recurrence serves both networks of LiteEval: with gates and the coarse states it is the fine LSTM
(Eq. 3-5); with every gate open it is an ordinary LSTM that returns its hidden and cell state at *every* step,
which ``nn.LSTM`` does not and Eq. 5 needs.

Batches are packed as :func:`torch.nn.utils.rnn.pack_sequence` packs them: time-major, longest video first, so
that the videos still running at step t are the first ``batch_sizes[t]`` and padding does not exist. N is the
number of rows, the sum of all lengths; H the hidden units; the four blocks of an LSTM are in torch's order i,
f, g, o.

Three things make it quick, all without changing a result:

- Whatever does not wait for the gates (the input projection) is one product over all steps.
- The gradients of the weights are one product over all steps, instead of one per step added up.
- Where B_t = 0 the candidate state h' of Eq. 3 does not reach the result, so its gradient is exactly zero and
  the backward pass skips it. (The forward pass may not: the gradient of the gate compares both ways.)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GateInput(NamedTuple):
    """All that decides B_t except the state. Either ``given`` decides, or the noisy log-odds do."""

    log_odds: Tensor
    """(N,): what the current input gives; h_{t−1} · ``state_weight`` is added to it."""
    state_weight: Tensor
    """(H,)."""
    cell_weight: Tensor | None = None
    """(H,): its product with c_{t−1} is added as well (the authors' code; Eq. 2 has no such term)."""
    noise: Tensor | None = None
    """(N,): added to the log-odds to make the decision. The difference of two Gumbel variables, to sample."""
    given: Tensor | None = None
    """(N,): gates to use whatever the log-odds are, 0 or 1 (anything between mixes, as Eq. 4 would)."""
    temperature: float = 1.0
    """τ of Eq. 9: the gradient of B_t is that of sigmoid((log-odds + noise) / τ)."""
    hard: bool = True
    """False: B_t *is* that sigmoid rather than 0 or 1 (Eq. 9 as it stands)."""


class GatedStates(NamedTuple):
    """What the recurrence returns, packed like its input."""

    h: Tensor
    """(N, H): hidden state after each step."""
    c: Tensor
    """(N, H): cell state after each step."""
    gates: Tensor
    """(N,): B_t."""
    log_odds: Tensor
    """(N,): of opening, without noise."""


def lstm(cell: nn.LSTMCell, inputs: Tensor, batch_sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Run an ordinary LSTM from a zero state: packed (N, D) -> hidden and cell state (N, H) of each step."""
    states = _apply(cell, inputs, batch_sizes, None, None)
    return states.h, states.c


def gated_lstm(
    cell: nn.LSTMCell,
    inputs: Tensor,
    batch_sizes: Sequence[int],
    gate: GateInput,
    sync: tuple[Tensor, Tensor] | None,
) -> GatedStates:
    """Run an LSTM that moves only where its gate opens (Eq. 3-5), from a zero state.

    Args:
        cell: the parameters.
        inputs: (N, D), packed; float32 or float64, like the parameters (no autocast).
        batch_sizes: videos that are still running, per step.
        gate: see :class:`GateInput`.
        sync: hidden and cell states (N, S) with S <= H whose row t replaces the first S entries of the state
            where the gate is closed (Eq. 5). None keeps the state as it was (Table 8, "without").
    """
    return _apply(cell, inputs, batch_sizes, gate, sync)


def closed_state(h: Tensor, c: Tensor, sync: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """The state after a step whose gate stayed closed (Eq. 5): (n, H) before, (n, S) to copy -> (n, H)."""
    if sync is None:
        return h, c
    sync_h, sync_c = sync
    width = sync_h.shape[1]
    return torch.cat([sync_h, h[:, width:]], 1), torch.cat([sync_c, c[:, width:]], 1)


def open_rows(
    cell: nn.LSTMCell,
    inputs: Tensor,
    rows: Tensor,
    before: tuple[Tensor, Tensor],
    closed: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """One step of Eq. 3-5 that computes the LSTM for the opened rows only.

    Args:
        cell: the parameters.
        inputs: (m, D), the inputs of the m opened rows; those of other rows need not exist.
        rows: (m,), which of the n rows they are.
        before: state (n, H) before the step.
        closed: state (n, H) of every row, were its gate closed (:func:`closed_state`).
    """
    if len(rows) == 0:
        return closed
    h, c = cell(inputs, (before[0][rows], before[1][rows]))
    return closed[0].index_copy(0, rows, h), closed[1].index_copy(0, rows, c)


def _apply(
    cell: nn.LSTMCell,
    inputs: Tensor,
    batch_sizes: Sequence[int],
    gate: GateInput | None,
    sync: tuple[Tensor, Tensor] | None,
) -> GatedStates:
    gate_fields = gate or (None, None, None, None, None, 1.0, True)
    return GatedStates(
        *_GatedLSTM.apply(
            inputs,
            cell.weight_ih,
            cell.weight_hh,
            cell.bias_ih + cell.bias_hh,
            *(sync or (None, None)),
            *gate_fields,
            tuple(batch_sizes),
        )
    )


def _steps(batch_sizes: Sequence[int]) -> list[tuple[slice, slice, int]]:
    """Per step: its rows, the rows of the same videos at the step before (empty at first), their number."""
    steps, start, before = [], 0, slice(0, 0)
    for n in batch_sizes:
        steps.append((slice(start, start + n), slice(before.start, before.start + n) if start else before, n))
        before = slice(start, start + n)
        start += n
    return steps


class _GatedLSTM(torch.autograd.Function):
    """Forward and backward of :func:`gated_lstm`.

    Weights are seen as four (H, D) blocks: with the few rows of one step, torch's matrix products are a third
    quicker so, and the four activations come out contiguous.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor,
        sync_h: Tensor | None,
        sync_c: Tensor | None,
        gate_log_odds: Tensor | None,
        state_weight: Tensor | None,
        cell_weight: Tensor | None,
        noise: Tensor | None,
        given: Tensor | None,
        temperature: float,
        hard: bool,
        batch_sizes: tuple[int, ...],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        total, hidden = len(inputs), weight_hh.shape[1]
        recurrent = weight_hh.view(4, hidden, hidden).transpose(1, 2)
        # Starts as the input projection of every step; each step turns its rows into i, f, g, o.
        activations = torch.baddbmm(
            bias.view(4, 1, hidden),
            inputs.expand(4, -1, -1),
            weight_ih.view(4, hidden, -1).transpose(1, 2),
        )
        all_h, all_c, candidate_c = (inputs.new_empty(total, hidden) for _ in range(3))
        gates = inputs.new_ones(total) if given is None else given.to(inputs.dtype).clone()
        log_odds = inputs.new_zeros(total) if gate_log_odds is None else gate_log_odds.clone()
        relaxed = inputs.new_zeros(total)  # B_t of Eq. 9, whose gradient the hard B_t borrows

        h = c = inputs.new_zeros(batch_sizes[0], hidden)
        for rows, _, n in _steps(batch_sizes):
            h, c = h[:n], c[:n]
            step = activations[:, rows]
            step.baddbmm_(h.expand(4, -1, -1), recurrent)
            i, f, g, o = step.unbind()
            i.sigmoid_(), f.sigmoid_(), g.tanh_(), o.sigmoid_()
            new_c = torch.mul(f, c, out=candidate_c[rows]).addcmul_(i, g)
            new_h = o * new_c.tanh()
            if state_weight is not None:
                log_odds[rows] += h @ state_weight
                if cell_weight is not None:
                    log_odds[rows] += c @ cell_weight
                if given is None:
                    decision = log_odds[rows] if noise is None else log_odds[rows] + noise[rows]
                    relaxed[rows] = torch.sigmoid(decision / temperature)
                    gates[rows] = (decision > 0).to(gates.dtype) if hard else relaxed[rows]
            opened = gates[rows, None]
            all_h[rows], all_c[rows] = h, c
            if sync_h is not None and sync_c is not None:
                all_h[rows, : sync_h.shape[1]] = sync_h[rows]
                all_c[rows, : sync_c.shape[1]] = sync_c[rows]
            h, c = all_h[rows].lerp_(new_h, opened), all_c[rows].lerp_(new_c, opened)

        ctx.save_for_backward(
            inputs, weight_ih, weight_hh, sync_h, sync_c, state_weight, cell_weight,
            activations, all_h, all_c, candidate_c, gates, relaxed,
        )  # fmt: skip
        ctx.batch_sizes = batch_sizes
        ctx.temperature = temperature
        ctx.learned_gates = given is None and state_weight is not None
        return all_h, all_c, gates, log_odds

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_h: Tensor, grad_c: Tensor, grad_gates: Tensor, grad_log_odds: Tensor
    ) -> tuple[Tensor | None, ...]:
        (
            inputs, weight_ih, weight_hh, sync_h, sync_c, state_weight, cell_weight,
            activations, all_h, all_c, candidate_c, gates, relaxed,
        ) = ctx.saved_tensors  # fmt: skip
        wants_given = ctx.needs_input_grad[10]
        recurrent = weight_hh.view(4, *all_h.shape[1:], -1)
        width = 0 if sync_h is None else sync_h.shape[1]
        steps = _steps(ctx.batch_sizes)

        # Only rows with B_t ≠ 0 send a gradient through the LSTM: that of other candidates is exactly zero.
        opened = gates.nonzero().squeeze(1)
        ends = torch.tensor([rows.stop for rows, _, _ in steps], device=opened.device)
        last_opened: list[int] = torch.searchsorted(opened, ends).tolist()
        grad_z = inputs.new_empty(4, len(opened), all_h.shape[1])  # of their pre-activations

        grad_sync_h, grad_sync_c = (inputs.new_zeros(len(inputs), width) for _ in range(2))
        grad_gates, grad_decision = grad_gates.clone(), grad_log_odds.clone()
        zero_state = torch.zeros_like(all_h[: ctx.batch_sizes[0]])
        # Of the states after the step at hand. A video that ended before it has not been reached: still zero.
        carry_h, carry_c = zero_state.clone(), zero_state.clone()

        for t in reversed(range(len(steps))):
            rows, before, n = steps[t]
            dh = carry_h[:n].add_(grad_h[rows])
            dc = carry_c[:n].add_(grad_c[rows])
            h, c = (all_h[before], all_c[before]) if t else (zero_state[:n], zero_state[:n])

            if ctx.learned_gates or wants_given:
                # Eq. 4 is closed + B (new − closed), for the hidden and for the cell state.
                new_h = activations[3, rows] * candidate_c[rows].tanh()
                grad_gates[rows] += _gain(dh, new_h, h, None if sync_h is None else sync_h[rows])
                grad_gates[rows] += _gain(dc, candidate_c[rows], c, None if sync_c is None else sync_c[rows])
            if ctx.learned_gates:
                slope = relaxed[rows] * (1 - relaxed[rows]) / ctx.temperature
                grad_decision[rows] += grad_gates[rows] * slope

            through = slice(last_opened[t - 1] if t else 0, last_opened[t])
            here = opened[through]
            local, share = here - rows.start, gates[here, None]
            dz, dc_through = grad_z[:, through], share * dc[local]
            _cell_backward(
                activations=activations[:, here],
                new_c=candidate_c[here],
                c=c[local],
                grad_h=share * dh[local],
                grad_c=dc_through,
                grad_z=dz,
            )

            dh.mul_(1 - gates[rows, None])
            dc.mul_(1 - gates[rows, None])
            grad_sync_h[rows], grad_sync_c[rows] = dh[:, :width], dc[:, :width]
            dh[:, :width] = dc[:, :width] = 0
            if t:
                dh.index_add_(0, local, torch.bmm(dz, recurrent).sum(0))
                dc.index_add_(0, local, dc_through)
                if state_weight is not None:
                    dh.addr_(grad_decision[rows], state_weight)
                if cell_weight is not None:
                    dc.addr_(grad_decision[rows], cell_weight)

        grad_weight_ih = _weight_gradient(grad_z, inputs[opened]).view_as(weight_ih)
        # The first step started from zero, so its rows add nothing to what h_{t−1} is multiplied with.
        first = ctx.batch_sizes[0]
        earlier = torch.cat([torch.arange(r.start, r.stop) for _, r, _ in steps])
        earlier_h = all_h[earlier]
        again = last_opened[0]
        grad_weight_hh = _weight_gradient(grad_z[:, again:], earlier_h[opened[again:] - first])
        grad_inputs = None
        if ctx.needs_input_grad[0]:
            flow = torch.bmm(grad_z, weight_ih.view(4, -1, weight_ih.shape[1])).sum(0)
            grad_inputs = torch.zeros_like(inputs).index_copy_(0, opened, flow)
        return (
            grad_inputs,
            grad_weight_ih,
            grad_weight_hh.view_as(weight_hh),
            grad_z.sum(1).view(-1),
            grad_sync_h if width else None,
            grad_sync_c if width else None,
            None if state_weight is None else grad_decision,
            None if state_weight is None else grad_decision[first:] @ earlier_h,
            None if cell_weight is None else grad_decision[first:] @ all_c[earlier],
            None,  # the noise is not learned
            grad_gates if wants_given else None,
            None,
            None,
            None,
        )


def _gain(grad: Tensor, new: Tensor, kept: Tensor, sync: Tensor | None) -> Tensor:
    """grad · (new − closed) per row, where closed is ``kept`` with ``sync`` copied over its first entries."""
    if sync is None:
        return (grad * (new - kept)).sum(1)
    width = sync.shape[1]
    copied = (grad[:, :width] * (new[:, :width] - sync)).sum(1)
    return copied + (grad[:, width:] * (new[:, width:] - kept[:, width:])).sum(1)


def _cell_backward(
    *, activations: Tensor, new_c: Tensor, c: Tensor, grad_h: Tensor, grad_c: Tensor, grad_z: Tensor
) -> None:
    """Backward of one LSTM step, elementwise part.

    ``activations`` (4, m, H) are i, f, g, o; ``new_c`` and ``c`` (m, H) the cell states after and before.
    Writes the gradient of the pre-activations into ``grad_z`` (4, m, H) and that of ``c`` into ``grad_c``.
    """
    i, f, g, o = activations.unbind()
    tanh_c = new_c.tanh()
    grad_c += grad_h * o * (1 - tanh_c * tanh_c)
    torch.mul(grad_c * g, i * (1 - i), out=grad_z[0])
    torch.mul(grad_c * c, f * (1 - f), out=grad_z[1])
    torch.mul(grad_c * i, 1 - g * g, out=grad_z[2])
    torch.mul(grad_h * tanh_c, o * (1 - o), out=grad_z[3])
    grad_c *= f


def _weight_gradient(grad_z: Tensor, rows: Tensor) -> Tensor:
    """(4, m, H) and (m, D) -> (4, H, D): the gradient of a weight from that of its products."""
    return torch.bmm(grad_z.transpose(1, 2), rows.expand(4, -1, -1))
