"""The gated recurrent network of LiteEval (Sec. 3.1), whatever its cell; s = (h, c) is a :class:`State`.

    Eq. 1   coarse network         s^c_t = cell(v^c_t, s^c_{t−1})                      `Recurrent.run`
    Eq. 3   fine network           candidate = cell([v^c_t, v^f_t], s^f_{t−1})         `Recurrent.step`
    Eq. 4   gate                   s^f_t = B_t · candidate + (1 − B_t) · closed        `mixed`
    Eq. 5   where it is closed     closed = [s^c_t, the further entries of s^f_{t−1}]  `closed_state`

B_t comes from the log-odds of Eq. 2 (`state_log_odds` is the state's part, :mod:`policy.liteeval.gate` has the
rest) by `decide`, with the gradient of Eq. 9. The loop of `Unrolled.run_gated` has a whole step. For LSTMs
:mod:`.gated_lstm` computes the same with a gradient written by hand; in evaluation :mod:`.sparse` computes only
opened steps.

Batches are packed as :func:`torch.nn.utils.rnn.pack_sequence` packs them: time-major, longest video first, so
that the videos still running at step t are the first ``batch_sizes[t]`` and there is no padding. N is the number
of rows, the sum of all lengths; D the inputs of a network, H its hidden units, S <= H those of the network with
which it is synchronised.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from policy.config import Precision
from policy.networks.packing import split_steps


class State(NamedTuple):
    """The state of a recurrent network for n videos, or (N rows) after every step."""

    h: Tensor
    """(n, H): hidden state, the output."""
    c: Tensor | None
    """(n, H): cell state. None where the network has none (GRU)."""


class GateInput(NamedTuple):
    """What decides B_t, except for the state: either ``fixed``, or the noisy log-odds."""

    log_odds: Tensor
    """(N,): the part of the current input, to which h_{t−1} · ``state_weight`` is added."""
    state_weight: Tensor
    """(H,)."""
    cell_weight: Tensor | None = None
    """(H,): its product with c_{t−1} is added as well (the authors' code; Eq. 2 has no such term)."""
    noise: Tensor | None = None
    """(N,): added to the log-odds to make the decision. The difference of two Gumbel variables, to sample."""
    fixed: Tensor | None = None
    """(N,): gates to use instead of the log-odds, 0 or 1 (values between mix, as in Eq. 4)."""
    temperature: float = 1.0
    """τ of Eq. 9: the gradient of B_t is that of sigmoid((log-odds + noise) / τ)."""
    hard: bool = True
    """False: B_t *is* that sigmoid rather than 0 or 1 (Eq. 9 as it stands)."""


class GatedRun(NamedTuple):
    """The states and gates of a gated network, packed like its inputs."""

    states: State
    """(N, H): after each step."""
    gates: Tensor
    """(N,): B_t."""
    log_odds: Tensor
    """(N,): of opening, without noise."""


# --- one step ---


def state_log_odds(gate: GateInput, before: State) -> Tensor:
    """(n,): the part of the log-odds of opening that depends on the state (n, H) before the step (Eq. 2)."""
    log_odds = before.h @ gate.state_weight
    if gate.cell_weight is None or before.c is None:
        return log_odds
    return log_odds + before.c @ gate.cell_weight


def decide(log_odds: Tensor, noise: Tensor | None, gate: GateInput) -> Tensor:
    """B_t (n,) from the log-odds, with the gradient of Eq. 9 (straight-through if hard)."""
    decision = log_odds if noise is None else log_odds + noise
    relaxed = torch.sigmoid(decision / gate.temperature)
    # In this order the sum is exactly 0 or 1.
    return (decision > 0).to(relaxed.dtype) + (relaxed - relaxed.detach()) if gate.hard else relaxed


def closed_state(before: State, sync: State | None) -> State:
    """The state after a step whose gate stays closed: ``sync`` (n, S) over the first S entries (Eq. 5).

    None keeps the state as it was (Table 8, "without").
    """
    if sync is None:
        return before
    return each(lambda old, copied: torch.cat([copied, old[:, copied.shape[1] :]], 1), before, sync)


def mixed(closed: State, candidate: State, opened: Tensor) -> State:
    """Eq. 4, for B_t (n,)."""
    return each(lambda old, new: old.lerp(new, opened[:, None]), closed, candidate)


# --- networks ---


class Prepared(NamedTuple):
    """A step in two parts."""

    project: Callable[[Tensor], tuple[Tensor, ...]]
    """All that does not depend on the state, for any number of rows (n, D) at once."""
    advance: Callable[[tuple[Tensor, ...], State], State]
    """One step of n videos, from the result of `project` and the state before it."""

    def step(self, inputs: Tensor, before: State) -> State:
        """As `Recurrent.step`."""
        return self.advance(self.project(inputs), before)

    def run(self, inputs: Tensor, batch_sizes: Sequence[int], before: State) -> State:
        """Every step from a state (n, H) of the n videos: packed (N, D) -> state after each step, (N, H)."""
        states = []
        parts = zip(*(split_steps(part, batch_sizes) for part in self.project(inputs)), strict=True)
        for n, projected in zip(batch_sizes, parts, strict=True):
            before = self.advance(projected, rows_of(before, slice(n)))  # Eq. 1
            states.append(before)
        return join_steps(states)


class Recurrent(nn.Module, ABC):
    """A recurrent network: the coarse one, or with a gate the fine one."""

    has_cell_state: ClassVar[bool]
    input_size: int
    hidden_size: int
    precision: Precision = "float32"
    """Of the matrix products of `run` and `run_gated` in training."""

    @property
    def training_precision(self) -> Precision:
        """`precision`; in evaluation mode float32."""
        return self.precision if self.training else "float32"

    @staticmethod
    @abstractmethod
    def step_macs(input_dim: int, hidden: int) -> int:
        """Multiply-accumulates of one step of one video."""

    @abstractmethod
    def run(self, inputs: Tensor, batch_sizes: Sequence[int]) -> State:
        """Every step from a zero state: packed (N, D) -> state after each step, (N, H) (Eq. 1)."""

    @abstractmethod
    def run_gated(
        self, inputs: Tensor, batch_sizes: Sequence[int], gate: GateInput, sync: State | None
    ) -> GatedRun:
        """Steps from a zero state that update it only where the gate opens (Eq. 3-5).

        Args:
            inputs: (N, D) packed, of all steps: the gate's gradient compares the open and the closed state.
            batch_sizes: videos still running, per step.
            gate: may use the cell state if there is one.
            sync: (N, S), see :func:`closed_state`.
        """

    @abstractmethod
    def step(self, inputs: Tensor, before: State) -> State:
        """One step of n videos: (n, D) and the state before it -> the state after it (Eq. 3)."""

    @abstractmethod
    def prepared(self) -> Prepared:
        """`step` for many calls with the same weights, without gradient."""

    def zero_state(self, like: Tensor, videos: int) -> State:
        """(videos, H) zeros of the type and on the device of ``like``."""
        zeros = like.new_zeros(videos, self.hidden_size)
        return State(zeros, zeros if self.has_cell_state else None)


class Unrolled(Recurrent):
    """A network split into what is computed outside and inside the time loop; its gradient is torch's."""

    @abstractmethod
    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """All that does not depend on the state, for any number of rows (n, D) at once."""

    @abstractmethod
    def advance(self, projected: tuple[Tensor, ...], before: State) -> State:
        """One step of n videos, from the result of `project`."""

    def step(self, inputs: Tensor, before: State) -> State:
        return self.advance(self.project(inputs), before)

    def prepared(self) -> Prepared:
        return Prepared(self.project, self.advance)

    def run(self, inputs: Tensor, batch_sizes: Sequence[int]) -> State:
        return self.prepared().run(inputs, batch_sizes, self.zero_state(inputs, batch_sizes[0]))

    def run_gated(
        self, inputs: Tensor, batch_sizes: Sequence[int], gate: GateInput, sync: State | None
    ) -> GatedRun:
        state = self.zero_state(inputs, batch_sizes[0])
        states, gates, log_odds = [], [], []
        nothing = [None] * len(batch_sizes)
        steps = zip(
            batch_sizes,
            zip(*(split_steps(part, batch_sizes) for part in self.project(inputs)), strict=True),
            split_steps(gate.log_odds, batch_sizes),
            nothing if gate.noise is None else split_steps(gate.noise, batch_sizes),
            nothing if gate.fixed is None else split_steps(gate.fixed, batch_sizes),
            nothing if sync is None else _split_states(sync, batch_sizes),
            strict=True,
        )
        for n, projected, input_log_odds, noise, fixed, copied in steps:
            before = rows_of(state, slice(n))
            odds = input_log_odds + state_log_odds(gate, before)  # Eq. 2
            opened = decide(odds, noise, gate) if fixed is None else fixed  # Eq. 8, 9
            closed = closed_state(before, copied)  # Eq. 5
            candidate = self.advance(projected, before)  # Eq. 3
            state = mixed(closed, candidate, opened)  # Eq. 4
            states.append(state)
            gates.append(opened)
            log_odds.append(odds)
        return GatedRun(join_steps(states), torch.cat(gates), torch.cat(log_odds))


# --- states ---


def each(function: Callable[..., Tensor], *states: State) -> State:
    """The function applied to the hidden states, and to the cell states if there are any."""
    cells = [state.c for state in states if state.c is not None]
    return State(function(*(state.h for state in states)), function(*cells) if cells else None)


def rows_of(state: State, rows: Tensor | slice) -> State:
    """The state of some of the videos."""
    return each(lambda entries: entries[rows], state)


def join_steps(states: Sequence[State]) -> State:
    """The states of all steps, packed."""
    return each(lambda *steps: torch.cat(steps), *states)


def _split_states(packed: State, batch_sizes: Sequence[int]) -> list[State]:
    """The state of each step."""
    h = split_steps(packed.h, batch_sizes)
    c = [None] * len(h) if packed.c is None else split_steps(packed.c, batch_sizes)
    return [State(*pair) for pair in zip(h, c, strict=True)]
