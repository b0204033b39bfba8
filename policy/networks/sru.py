"""Simple recurrent units (Lei et al., "Training RNNs as Fast as CNNs", arXiv 1709.02755).

The version of 2017, which is the one the paper cites (Table 6). In 2018 the authors let both gates see the cell
state, too (vectors v_f and v_r); then two sigmoids of every step would wait for the step before. Here they do
not: everything but c_t is known before the time loop starts, for all steps at once.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from policy.networks.macs import sru_step_macs
from policy.networks.products import linear
from policy.networks.recurrent import State, Unrolled


class SRU(Unrolled):
    """With x̃ = W x, f = σ(W_f x + b_f), r = σ(W_r x + b_r):

    c' = f ⊙ c + (1 − f) ⊙ x̃, h' = r ⊙ tanh(c') + (1 − r) ⊙ x.

    The last x is a highway around the unit. Where D ≠ H it is W_x x. No product waits for the state.

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
        # The authors': products have about the variance of the inputs.
        nn.init.uniform_(self.weight, -math.sqrt(3 / input_size), math.sqrt(3 / input_size))

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        candidate, f, r, *other = torch.split(
            linear(inputs, self.weight, None, self.training_precision), self.hidden_size, 1
        )
        bias_f, bias_r = torch.split(self.bias, self.hidden_size)
        forget, output = torch.sigmoid(f + bias_f), torch.sigmoid(r + bias_r)
        highway = other[0] if other else inputs
        return forget, (1 - forget) * candidate, output, (1 - output) * highway

    def advance(self, projected: tuple[Tensor, ...], before: State) -> State:
        assert before.c is not None, "an SRU has a cell state"
        forget, added, output, around = projected
        c = torch.addcmul(added, forget, before.c)
        return State(torch.addcmul(around, output, c.tanh()), c)
