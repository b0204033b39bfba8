"""The gated network of :mod:`.gated` for LSTMs, its gradient written by hand.

One recurrence serves both networks of LiteEval: with gates and the coarse states it is the fine LSTM (Eq. 3-5);
with every gate open it is an ordinary LSTM (Eq. 1) that returns its hidden and cell state at *every* step, which
``nn.LSTM`` does not and Eq. 5 needs.

Four things make it fast, all without changing a result:

- What does not depend on the gates (the input projection) is one product over all steps.
- The gradient of each weight is one product over all steps, instead of a sum of one per step.
- The weights with which every step multiplies are laid out once (:mod:`.products`).
- Where B_t = 0 the candidate state h' of Eq. 3 does not affect the result, so its gradient is exactly zero and
  the backward pass skips it. (The forward pass may not: the gate's gradient compares the open and the closed
  state.)

N, H and S are those of :mod:`.gated`; the four blocks of an LSTM are in torch's order i, f, g, o.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from policy.config import Precision
from policy.networks.gated import GatedRun, GateInput, State
from policy.networks.products import Product, rounded


def gated_lstm(
    cell: nn.LSTMCell,
    inputs: Tensor,
    batch_sizes: Sequence[int],
    gate: GateInput | None,
    sync: State | None,
    precision: Precision = "float32",
) -> GatedRun:
    """Run an LSTM whose state changes only where its gate opens (Eq. 3-5), from a zero state.

    Args:
        cell: the parameters.
        inputs: (N, D), packed; float32 or float64, like the parameters (no autocast).
        batch_sizes: videos that are still running, per step.
        gate: see :class:`GateInput`. None: every gate is open, as in an ordinary LSTM (Eq. 1).
        sync: states (N, S) with S <= H whose row t replaces the first S entries of the state where the gate is
            closed (Eq. 5). None leaves the state as it was (Table 8, "without").
        precision: of the matrix products; states and sums have the type of the parameters.
    """
    assert sync is None or sync.c is not None, "an LSTM has a cell state"
    h, c, gates, log_odds = _GatedLSTM.apply(
        inputs,
        cell.weight_ih,
        cell.weight_hh,
        cell.bias_ih + cell.bias_hh,
        *(sync or (None, None)),
        *(gate or (None, None, None, None, None, 1.0, True)),
        tuple(batch_sizes),
        precision,
    )
    return GatedRun(State(h, c), gates, log_odds)


class _Step(NamedTuple):
    """One time step of a packed batch."""

    rows: slice
    before: slice
    """The rows of the same videos at the step before; empty at the first."""
    videos: int


def _steps(batch_sizes: tuple[int, ...]) -> list[_Step]:
    steps, start, before = [], 0, 0
    for n in batch_sizes:
        steps.append(_Step(slice(start, start + n), slice(before, before + (n if start else 0)), n))
        before, start = start, start + n
    return steps


class _GatedLSTM(torch.autograd.Function):
    """Forward and backward of :func:`gated_lstm`."""

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
        fixed: Tensor | None,
        temperature: float,
        hard: bool,
        batch_sizes: tuple[int, ...],
        precision: Precision,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        total, hidden = len(inputs), weight_hh.shape[1]
        factors, weight_ih, weight_hh = (rounded(x, precision) for x in (inputs, weight_ih, weight_hh))
        recurrent = Product(weight_hh)
        # At first the input projection of every step; each step turns its rows into i, f, g, o.
        activations = Product(weight_ih)(factors).to(inputs.dtype).add_(bias)
        all_h, all_c = inputs.new_empty(total, hidden), inputs.new_empty(total, hidden)
        # new − closed, of h and c: what opening the gate changes.
        gain_h, gain_c = torch.empty_like(all_h), torch.empty_like(all_c)
        gates = inputs.new_ones(total) if fixed is None else fixed.to(inputs.dtype).clone()
        log_odds = inputs.new_zeros(total) if gate_log_odds is None else gate_log_odds.clone()
        relaxed = inputs.new_zeros(total)  # B_t of Eq. 9, whose gradient the hard B_t has

        h = c = inputs.new_zeros(batch_sizes[0], hidden)
        for rows, _, n in _steps(batch_sizes):
            h, c = h[:n], c[:n]
            i, f, g, o = activations[rows].add_(recurrent(h)).chunk(4, 1)
            i.sigmoid_(), f.sigmoid_(), g.tanh_(), o.sigmoid_()
            new_c = (f * c).addcmul_(i, g)  # Eq. 3
            new_h = o * new_c.tanh()
            if state_weight is not None:
                log_odds[rows] += h @ state_weight  # Eq. 2
                if cell_weight is not None:
                    log_odds[rows] += c @ cell_weight
                if fixed is None:
                    decision = log_odds[rows] if noise is None else log_odds[rows] + noise[rows]
                    relaxed[rows] = torch.sigmoid(decision / temperature)
                    gates[rows] = (decision > 0).to(gates.dtype) if hard else relaxed[rows]
            all_h[rows], all_c[rows] = h, c  # where the gate is closed, Eq. 5:
            if sync_h is not None and sync_c is not None:
                all_h[rows, : sync_h.shape[1]] = sync_h[rows]
                all_c[rows, : sync_c.shape[1]] = sync_c[rows]
            h, c, opened = all_h[rows], all_c[rows], gates[rows, None]
            torch.sub(new_h, h, out=gain_h[rows])
            torch.sub(new_c, c, out=gain_c[rows])
            h.lerp_(new_h, opened), c.lerp_(new_c, opened)  # Eq. 4

        ctx.save_for_backward(
            factors, weight_ih, weight_hh, state_weight, cell_weight,
            activations, all_h, all_c, gain_h, gain_c, gates, relaxed,
        )  # fmt: skip
        ctx.batch_sizes = batch_sizes
        ctx.precision = precision
        ctx.temperature = temperature
        ctx.width = 0 if sync_h is None else sync_h.shape[1]
        ctx.learned_gates = fixed is None and state_weight is not None
        return all_h, all_c, gates, log_odds

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_h: Tensor, grad_c: Tensor, grad_gates: Tensor, grad_log_odds: Tensor
    ) -> tuple[Tensor | None, ...]:
        (
            factors, weight_ih, weight_hh, state_weight, cell_weight,
            activations, all_h, all_c, gain_h, gain_c, gates, relaxed,
        ) = ctx.saved_tensors  # fmt: skip
        wants_fixed = ctx.needs_input_grad[10]
        recurrent = Product(weight_hh.t())
        width = ctx.width
        steps = _steps(ctx.batch_sizes)

        # Only rows with B_t ≠ 0 have a gradient through the LSTM: that of other candidates is exactly zero.
        opened = gates.nonzero().squeeze(1)
        ends = torch.tensor([step.rows.stop for step in steps], device=opened.device)
        last_opened: list[int] = torch.searchsorted(opened, ends).tolist()
        grad_z = all_h.new_empty(len(opened), weight_hh.shape[0])  # of their pre-activations

        grad_sync_h, grad_sync_c = (all_h.new_zeros(len(all_h), width) for _ in range(2))
        grad_gates, grad_decision = grad_gates.clone(), grad_log_odds.clone()
        slope = relaxed * (1 - relaxed) / ctx.temperature
        zero_state = torch.zeros_like(all_h[: ctx.batch_sizes[0]])
        # Of the states after the current step; zero for videos that ended before it.
        carry_h, carry_c = zero_state.clone(), zero_state.clone()

        for t in reversed(range(len(steps))):
            rows, before, n = steps[t]
            dh = carry_h[:n].add_(grad_h[rows])
            dc = carry_c[:n].add_(grad_c[rows])
            if ctx.learned_gates or wants_fixed:
                # Eq. 4 is closed + B (new − closed), for the hidden and for the cell state.
                grad_gates[rows] += (dh * gain_h[rows]).addcmul_(dc, gain_c[rows]).sum(1)
            if ctx.learned_gates:
                grad_decision[rows] += grad_gates[rows] * slope[rows]

            through = slice(last_opened[t - 1] if t else 0, last_opened[t])
            here = opened[through]
            local, share = here - rows.start, gates[here, None]
            dz, dc_through = grad_z[through], share * dc[local]
            _cell_backward(
                activations=activations[here],
                c=(all_c[before] if t else zero_state)[local],
                grad_h=share * dh[local],
                grad_c=dc_through,
                grad_z=dz,
            )

            dh.mul_(1 - gates[rows, None])
            dc.mul_(1 - gates[rows, None])
            grad_sync_h[rows], grad_sync_c[rows] = dh[:, :width], dc[:, :width]
            dh[:, :width] = dc[:, :width] = 0
            if t:
                dh.index_add_(0, local, recurrent(dz))
                dc.index_add_(0, local, dc_through)
                if state_weight is not None:
                    dh.addr_(grad_decision[rows], state_weight)
                if cell_weight is not None:
                    dc.addr_(grad_decision[rows], cell_weight)

        # The first step started from zero, so its rows add nothing to what h_{t−1} is multiplied with.
        first, again = ctx.batch_sizes[0], last_opened[0]
        earlier = torch.cat([torch.arange(step.before.start, step.before.stop) for step in steps])
        earlier_h = all_h[earlier]
        flow = rounded(grad_z, ctx.precision)
        recurring_h = rounded(earlier_h[opened[again:] - first], ctx.precision)
        grad_inputs = None
        if ctx.needs_input_grad[0]:
            grad_inputs = all_h.new_zeros(factors.shape).index_copy_(
                0, opened, (flow @ weight_ih).to(all_h.dtype)
            )
        return (
            grad_inputs,
            (flow.t() @ factors[opened]).to(all_h.dtype),
            (flow[again:].t() @ recurring_h).to(all_h.dtype),
            grad_z.sum(0),
            grad_sync_h if width else None,
            grad_sync_c if width else None,
            None if state_weight is None else grad_decision,
            None if state_weight is None else grad_decision[first:] @ earlier_h,
            None if cell_weight is None else grad_decision[first:] @ all_c[earlier],
            None,  # the noise is not learned
            grad_gates if wants_fixed else None,
            None,
            None,
            None,
            None,
        )


def _cell_backward(*, activations: Tensor, c: Tensor, grad_h: Tensor, grad_c: Tensor, grad_z: Tensor) -> None:
    """Backward of one LSTM step, elementwise part.

    ``activations`` (m, 4H) are i, f, g, o; ``c`` (m, H) the cell state before. Writes the gradient of the
    pre-activations into ``grad_z`` (m, 4H) and that of ``c`` into ``grad_c``.
    """
    i, f, g, o = activations.chunk(4, 1)
    grad_i, grad_f, grad_g, grad_o = grad_z.chunk(4, 1)
    tanh_c = (f * c).addcmul_(i, g).tanh_()
    grad_c += grad_h * o * (1 - tanh_c * tanh_c)
    torch.mul(grad_c * g, i * (1 - i), out=grad_i)
    torch.mul(grad_c * c, f * (1 - f), out=grad_f)
    torch.mul(grad_c * i, 1 - g * g, out=grad_g)
    torch.mul(grad_h * tanh_c, o * (1 - o), out=grad_o)
    grad_c *= f
