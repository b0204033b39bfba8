"""A gated LSTM over packed sequences.

One recurrence serves both networks of LiteEval: with gates and the coarse states it is the fine LSTM
(Eq. 3-5); with every gate open it is an ordinary LSTM that returns its hidden and cell state at *every* step,
which ``nn.LSTM`` does not and Eq. 5 needs.

Batches are packed as :func:`torch.nn.utils.rnn.pack_sequence` packs them: time-major, longest video first, so
that the videos still running at step t are the first ``batch_sizes[t]`` and padding does not exist. N is the
number of rows, the sum of all lengths; H the hidden units; the four blocks of an LSTM are in torch's order i,
f, g, o.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from policy.config import Precision
from policy.networks.recurrence import GatedLSTM


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


def lstm(
    cell: nn.LSTMCell, inputs: Tensor, batch_sizes: Sequence[int], precision: Precision = "float32"
) -> tuple[Tensor, Tensor]:
    """Run an ordinary LSTM from a zero state: packed (N, D) -> hidden and cell state (N, H) of each step."""
    states = _apply(cell, inputs, batch_sizes, None, None, precision)
    return states.h, states.c


def gated_lstm(
    cell: nn.LSTMCell,
    inputs: Tensor,
    batch_sizes: Sequence[int],
    gate: GateInput,
    sync: tuple[Tensor, Tensor] | None,
    precision: Precision = "float32",
) -> GatedStates:
    """Run an LSTM that moves only where its gate opens (Eq. 3-5), from a zero state.

    Args:
        cell: the parameters.
        inputs: (N, D), packed; float32 or float64, like the parameters (no autocast).
        batch_sizes: videos that are still running, per step.
        gate: see :class:`GateInput`.
        sync: hidden and cell states (N, S) with S <= H whose row t replaces the first S entries of the state
            where the gate is closed (Eq. 5). None keeps the state as it was (Table 8, "without").
        precision: of the matrix products; states and sums have the type of the parameters.
    """
    return _apply(cell, inputs, batch_sizes, gate, sync, precision)


def _apply(
    cell: nn.LSTMCell,
    inputs: Tensor,
    batch_sizes: Sequence[int],
    gate: GateInput | None,
    sync: tuple[Tensor, Tensor] | None,
    precision: Precision,
) -> GatedStates:
    gate_fields = gate or (None, None, None, None, None, 1.0, True)
    return GatedStates(
        *GatedLSTM.apply(
            inputs,
            cell.weight_ih,
            cell.weight_hh,
            cell.bias_ih + cell.bias_hh,
            *(sync or (None, None)),
            *gate_fields,
            tuple(batch_sizes),
            precision,
        )
    )
