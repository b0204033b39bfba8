"""What LiteEval asks of a recurrent network, and all of it for networks whose gradient torch works out.

Batches are packed, time-major, as :mod:`.cells` describes: N rows in all, ``batch_sizes[t]`` of them at step t.
D are the inputs of a network, H its hidden units, S <= H those of the network it is synchronised with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from policy.config import Precision
from policy.networks.cells import GateInput


class State(NamedTuple):
    """What a recurrent network remembers of n videos, or (N rows) of every step."""

    h: Tensor
    """(n, H): hidden state, its output."""
    c: Tensor | None
    """(n, H): cell state. None where the network has none (GRU)."""


class GatedRun(NamedTuple):
    """What a gated network did, packed like its inputs."""

    states: State
    """After each step."""
    gates: Tensor
    """(N,): B_t."""
    log_odds: Tensor
    """(N,): of opening, without noise."""


def each(function: Callable[..., Tensor], *states: State) -> State:
    """The function of the hidden states, and of the cell states where there are any."""
    cells = [state.c for state in states if state.c is not None]
    return State(function(*(state.h for state in states)), function(*cells) if cells else None)


def closed_state(before: State, sync: State | None) -> State:
    """The state after a step whose gate stays closed: ``sync`` (n, S) over the first S entries (Eq. 5).

    None keeps the state as it was (Table 8, "without").
    """
    if sync is None:
        return before
    return each(lambda kept, copied: torch.cat([copied, kept[:, copied.shape[1] :]], 1), before, sync)


def state_log_odds(gate: GateInput, state: State) -> Tensor:
    """(n,): the part of the log-odds of opening that the state (n, H) before the step gives (Eq. 2)."""
    seen = state.h @ gate.state_weight
    return seen if gate.cell_weight is None or state.c is None else seen + state.c @ gate.cell_weight


def split_steps(packed: Tensor, batch_sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """The rows of each step. (Slices would do, but the gradient of each would be as large as the whole.)"""
    return torch.split(packed, list(batch_sizes))


def split_states(packed: State, batch_sizes: Sequence[int]) -> list[State]:
    """The state of each step."""
    h = split_steps(packed.h, batch_sizes)
    c = [None] * len(h) if packed.c is None else split_steps(packed.c, batch_sizes)
    return [State(*pair) for pair in zip(h, c, strict=True)]


def join_steps(states: Sequence[State]) -> State:
    """The states of all steps, packed."""
    return each(lambda *steps: torch.cat(steps), *states)


def first_videos(state: State, n: int) -> State:
    """The state of the first n videos, those that are still running."""
    return each(lambda rows: rows[:n], state)


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
        """Steps from a zero state that move only where the gate opens (Eq. 3-5).

        Args:
            inputs: (N, D) packed, of all steps: the gradient of the gate compares both ways.
            batch_sizes: videos still running, per step.
            gate: what decides; may read the cell state where there is one.
            sync: (N, S), see :func:`closed_state`.
        """

    @abstractmethod
    def step(self, inputs: Tensor, before: State) -> State:
        """One step of n videos: (n, D) and the state before it -> the state after it."""

    def repeated_step(self) -> Callable[[Tensor, State], State]:
        """`step`, to be called many times with the same weights."""
        return self.step

    def zero_state(self, like: Tensor, videos: int) -> State:
        """(videos, H) zeros of the type and on the device of ``like``."""
        zeros = like.new_zeros(videos, self.hidden_size)
        return State(zeros, zeros if self.has_cell_state else None)

    def open(self, inputs: Tensor, rows: Tensor, before: State, closed: State) -> State:
        """One step that is computed for the opened rows only.

        Args:
            inputs: (m, D) of the m opened rows; those of the others need not exist.
            rows: (m,), which of the n rows they are.
            before: state (n, H) before the step.
            closed: state (n, H) of every row, were its gate closed.
        """
        after = self.step(inputs, each(lambda state: state[rows], before))
        return each(lambda kept, moved: kept.index_copy(0, rows, moved), closed, after)


class Unrolled(Recurrent):
    """A network given by what leaves the time loop and what stays in it; torch works out the gradient."""

    @abstractmethod
    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """All that does not wait for the state, for any number of rows (n, D) at once."""

    @abstractmethod
    def advance(self, projected: tuple[Tensor, ...], before: State) -> State:
        """One step of n videos, from what `project` made of their inputs."""

    def step(self, inputs: Tensor, before: State) -> State:
        return self.advance(self.project(inputs), before)

    def run(self, inputs: Tensor, batch_sizes: Sequence[int]) -> State:
        state, states = self.zero_state(inputs, batch_sizes[0]), []
        for n, projected in zip(batch_sizes, self._projected(inputs, batch_sizes), strict=True):
            state = self.advance(projected, first_videos(state, n))
            states.append(state)
        return join_steps(states)

    def run_gated(
        self, inputs: Tensor, batch_sizes: Sequence[int], gate: GateInput, sync: State | None
    ) -> GatedRun:
        state = self.zero_state(inputs, batch_sizes[0])
        states, gates, log_odds = [], [], []
        nothing = [None] * len(batch_sizes)
        steps = zip(
            batch_sizes,
            self._projected(inputs, batch_sizes),
            split_steps(gate.log_odds, batch_sizes),
            nothing if gate.noise is None else split_steps(gate.noise, batch_sizes),
            nothing if gate.given is None else split_steps(gate.given, batch_sizes),
            nothing if sync is None else split_states(sync, batch_sizes),
            strict=True,
        )
        for n, projected, odds_of_input, noise, given, copied in steps:
            before = first_videos(state, n)
            odds = odds_of_input + state_log_odds(gate, before)
            opened = _decide(odds, noise, gate) if given is None else given
            state = _mixed(closed_state(before, copied), self.advance(projected, before), opened)
            states.append(state)
            gates.append(opened)
            log_odds.append(odds)
        return GatedRun(join_steps(states), torch.cat(gates), torch.cat(log_odds))

    def _projected(self, inputs: Tensor, batch_sizes: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(split_steps(part, batch_sizes) for part in self.project(inputs)), strict=True)


def _mixed(closed: State, after: State, opened: Tensor) -> State:
    """Eq. 4, for B_t (n,)."""
    return each(lambda kept, moved: kept.lerp(moved, opened[:, None]), closed, after)


def _decide(log_odds: Tensor, noise: Tensor | None, gate: GateInput) -> Tensor:
    """B_t (n,) from the log-odds, with the gradient of Eq. 9 (straight-through where it is hard)."""
    decision = log_odds if noise is None else log_odds + noise
    relaxed = torch.sigmoid(decision / gate.temperature)
    # In this order the sum is exactly 0 or 1.
    return (decision > 0).to(relaxed.dtype) + (relaxed - relaxed.detach()) if gate.hard else relaxed
