"""Gated recurrent units (Cho et al., 2014), which have no cell state (Table 6)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from policy.networks.macs import gru_step_macs
from policy.networks.products import linear
from policy.networks.recurrent import State, Unrolled


class GRU(nn.GRUCell, Unrolled):
    """Parameters and ``forward`` are those of ``nn.GRUCell``, whose blocks are in the order r, z, n:

    r = σ(W_ir x + W_hr h), z = σ(W_iz x + W_hz h), n = tanh(W_in x + r ⊙ W_hn h), h' = (1 − z) ⊙ n + z ⊙ h,
    each product with a bias. What is done to the input leaves the time loop.
    """

    has_cell_state: ClassVar[bool] = False
    step_macs = staticmethod(gru_step_macs)

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return (linear(inputs, self.weight_ih, self.bias_ih, self.training_precision),)

    def advance(self, projected: tuple[Tensor, ...], before: State) -> State:
        (of_input,) = projected
        of_state = linear(before.h, self.weight_hh, self.bias_hh, self.training_precision)
        gates, width = 2 * self.hidden_size, self.hidden_size
        r, z = torch.split(torch.sigmoid(of_input[:, :gates] + of_state[:, :gates]), width, 1)
        new = torch.tanh(torch.addcmul(of_input[:, gates:], r, of_state[:, gates:]))
        return State(new.lerp(before.h, z), None)
