"""The LSTM that LiteEval mainly uses (Sec. 3.1), by the recurrence of :mod:`.cells`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from policy.networks.cells import GateInput, gated_lstm, lstm
from policy.networks.macs import lstm_step_macs
from policy.networks.products import Product
from policy.networks.recurrent import GatedRun, Recurrent, State


class LSTM(nn.LSTMCell, Recurrent):
    """Parameters and ``forward`` are those of ``nn.LSTMCell``."""

    has_cell_state: ClassVar[bool] = True
    step_macs = staticmethod(lstm_step_macs)

    def run(self, inputs: Tensor, batch_sizes: Sequence[int]) -> State:
        return State(*lstm(self, inputs, batch_sizes, self.training_precision))

    def run_gated(
        self, inputs: Tensor, batch_sizes: Sequence[int], gate: GateInput, sync: State | None
    ) -> GatedRun:
        copied = None if sync is None else _pair(sync)
        h, c, gates, log_odds = gated_lstm(self, inputs, batch_sizes, gate, copied, self.training_precision)
        return GatedRun(State(h, c), gates, log_odds)

    def step(self, inputs: Tensor, before: State) -> State:
        return State(*self(inputs, _pair(before)))

    def repeated_step(self) -> Callable[[Tensor, State], State]:
        if torch.is_grad_enabled():
            return self.step
        of_input, of_state = Product(self.weight_ih), Product(self.weight_hh)
        bias = self.bias_ih + self.bias_hh

        def step(inputs: Tensor, before: State) -> State:
            h, c = _pair(before)
            i, f, g, o = of_input(inputs).add_(of_state(h)).add_(bias).chunk(4, 1)
            after_c = (f.sigmoid() * c).addcmul_(i.sigmoid(), g.tanh())
            return State(o.sigmoid() * after_c.tanh(), after_c)

        return step


def _pair(state: State) -> tuple[Tensor, Tensor]:
    assert state.c is not None, "an LSTM has a cell state"
    return state.h, state.c
