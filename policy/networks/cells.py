"""The cells that LiteEval can be built from: LSTM (Sec. 3.1), GRU and SRU (Table 6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from policy.config import Cell
from policy.networks.gated import GatedRun, GateInput, Prepared, Recurrent, State, Unrolled
from policy.networks.gated_lstm import gated_lstm
from policy.networks.macs import gru_step_macs, lstm_step_macs, sru_step_macs
from policy.networks.products import Product, linear


class LSTM(nn.LSTMCell, Recurrent):
    """Parameters and ``forward`` are those of ``nn.LSTMCell``."""

    has_cell_state: ClassVar[bool] = True
    step_macs = staticmethod(lstm_step_macs)

    def run(self, inputs: Tensor, batch_sizes: Sequence[int]) -> State:
        return gated_lstm(self, inputs, batch_sizes, None, None, self.training_precision).states

    def run_gated(
        self, inputs: Tensor, batch_sizes: Sequence[int], gate: GateInput, sync: State | None
    ) -> GatedRun:
        return gated_lstm(self, inputs, batch_sizes, gate, sync, self.training_precision)

    def step(self, inputs: Tensor, before: State) -> State:
        assert before.c is not None, "an LSTM has a cell state"
        return State(*self(inputs, (before.h, before.c)))

    def prepared(self) -> Prepared:
        from_input, from_state = Product(self.weight_ih), Product(self.weight_hh)
        bias = self.bias_ih + self.bias_hh

        def project(inputs: Tensor) -> tuple[Tensor, ...]:
            return (from_input(inputs).add_(bias),)

        def advance(projected: tuple[Tensor, ...], before: State) -> State:
            assert before.c is not None, "an LSTM has a cell state"
            i, f, g, o = (from_state(before.h) + projected[0]).chunk(4, 1)
            c = (f.sigmoid() * before.c).addcmul_(i.sigmoid(), g.tanh())
            return State(o.sigmoid() * c.tanh(), c)

        return Prepared(project, advance)


class GRU(nn.GRUCell, Unrolled):
    """Gated recurrent units (Cho et al., 2014), which have no cell state.

    Parameters and ``forward`` are those of ``nn.GRUCell``, whose blocks are in the order r, z, n:

    r = σ(W_ir x + W_hr h), z = σ(W_iz x + W_hz h), n = tanh(W_in x + r ⊙ W_hn h), h' = (1 − z) ⊙ n + z ⊙ h,
    each product with a bias. Products with the input are computed outside the time loop.
    """

    has_cell_state: ClassVar[bool] = False
    step_macs = staticmethod(gru_step_macs)

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return (linear(inputs, self.weight_ih, self.bias_ih, self.training_precision),)

    def advance(self, projected: tuple[Tensor, ...], before: State) -> State:
        (from_input,) = projected
        from_state = linear(before.h, self.weight_hh, self.bias_hh, self.training_precision)
        gates, width = 2 * self.hidden_size, self.hidden_size
        r, z = torch.split(torch.sigmoid(from_input[:, :gates] + from_state[:, :gates]), width, 1)
        new = torch.tanh(torch.addcmul(from_input[:, gates:], r, from_state[:, gates:]))
        return State(new.lerp(before.h, z), None)


class SRU(Unrolled):
    """Simple recurrent units (Lei et al., "Training RNNs as Fast as CNNs", arXiv 1709.02755).

    With x̃ = W x, f = σ(W_f x + b_f), r = σ(W_r x + b_r):

    c' = f ⊙ c + (1 − f) ⊙ x̃, h' = r ⊙ tanh(c') + (1 − r) ⊙ x.

    The last x is a highway around the unit; if D ≠ H it is W_x x. No product depends on the state.

    This is the version of 2017, which the paper cites. In 2018 the authors made both gates depend on the cell
    state, too (vectors v_f and v_r); then two sigmoids of every step would wait for the step before. Here
    everything but c_t is computed before the time loop, for all steps at once.

    Attributes:
        weight: (3H, D) or (4H, D), blocks in the order W, W_f, W_r, W_x.
        bias: (2H,), b_f and b_r.
    """

    has_cell_state: ClassVar[bool] = True
    step_macs = staticmethod(sru_step_macs)

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        blocks = 3 if input_size == hidden_size else 4
        self.weight = nn.Parameter(torch.empty(blocks * hidden_size, input_size))
        self.bias = nn.Parameter(torch.zeros(2 * hidden_size))
        # As the authors initialise it: products have about the variance of the inputs.
        nn.init.uniform_(self.weight, -math.sqrt(3 / input_size), math.sqrt(3 / input_size))

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        candidate, f, r, *highways = torch.split(
            linear(inputs, self.weight, None, self.training_precision), self.hidden_size, 1
        )
        bias_f, bias_r = torch.split(self.bias, self.hidden_size)
        forget, output = torch.sigmoid(f + bias_f), torch.sigmoid(r + bias_r)
        highway = highways[0] if highways else inputs
        return forget, (1 - forget) * candidate, output, (1 - output) * highway

    def advance(self, projected: tuple[Tensor, ...], before: State) -> State:
        assert before.c is not None, "an SRU has a cell state"
        forget, added, output, around = projected
        c = torch.addcmul(added, forget, before.c)
        return State(torch.addcmul(around, output, c.tanh()), c)


NETWORKS: Mapping[Cell, type[Recurrent]] = {"lstm": LSTM, "gru": GRU, "sru": SRU}
"""The recurrent networks by the name of their cell."""
