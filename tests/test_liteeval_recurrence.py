"""The hand-written recurrence against the same equations in plain torch, and against finite differences."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from policy.liteeval.cells import GatedStates, GateInput, gated_lstm

SIZES = [3, 2, 2, 1]
INPUTS, HIDDEN, WIDTH = 3, 4, 2


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def plain_loop(
    cell: nn.LSTMCell,
    inputs: Tensor,
    sizes: list[int],
    gate: GateInput,
    sync: tuple[Tensor, Tensor] | None,
) -> GatedStates:
    """Eq. 2-5 and 9 step by step, by ``nn.LSTMCell`` and torch's own gradients."""
    h = c = inputs.new_zeros(sizes[0], cell.hidden_size)
    steps = []
    for start, stop in itertools.pairwise([0, *itertools.accumulate(sizes)]):
        h, c = h[: stop - start], c[: stop - start]
        log_odds = gate.log_odds[start:stop] + h @ gate.state_weight
        if gate.cell_weight is not None:
            log_odds = log_odds + c @ gate.cell_weight
        noisy = log_odds if gate.noise is None else log_odds + gate.noise[start:stop]
        relaxed = torch.sigmoid(noisy / gate.temperature)
        opened = relaxed + ((relaxed > 0.5) * 1.0 - relaxed).detach() if gate.hard else relaxed
        if gate.given is not None:
            opened = gate.given[start:stop]
        new_h, new_c = cell(inputs[start:stop], (h, c))
        if sync is not None:
            h, c = (
                torch.cat([s[start:stop], old[:, WIDTH:]], 1) for s, old in zip(sync, (h, c), strict=True)
            )
        h, c = (
            b * new + (1 - b) * old
            for b, new, old in ((opened[:, None], new_h, h), (opened[:, None], new_c, c))
        )
        steps.append(GatedStates(h, c, opened, log_odds))
    return GatedStates(*(torch.cat(parts) for parts in zip(*steps, strict=True)))


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
    sees_cell=st.booleans(),
    sync=st.booleans(),
    hard=st.booleans(),
    imposed=st.booleans(),
)
def test_equals_the_plain_loop(
    lengths: list[int], seed: int, sees_cell: bool, sync: bool, hard: bool, imposed: bool
) -> None:
    """Every output, and the gradient of a random mixture of them by every input."""
    torch.manual_seed(seed)
    sizes = [sum(length > t for length in lengths) for t in range(max(lengths))]
    total = sum(sizes)
    cell = nn.LSTMCell(INPUTS, HIDDEN).double()
    x, h, c = random(total, INPUTS), random(total, WIDTH), random(total, WIDTH)
    odds, state_weight, cell_weight = random(total), random(HIDDEN), random(HIDDEN)
    opened = torch.rand(total, dtype=torch.float64).requires_grad_()
    gate = GateInput(
        odds,
        state_weight,
        cell_weight if sees_cell else None,
        noise=torch.randn(total, dtype=torch.float64),
        given=opened if imposed else None,
        temperature=0.7,
        hard=hard,
    )
    mixture = [torch.randn_like(y) for y in (random(total, HIDDEN), random(total, HIDDEN), odds, odds)]
    sources = [x, h, c, odds, state_weight, cell_weight, opened, *cell.parameters()]
    results = []
    for recurrence in (gated_lstm, plain_loop):
        states = recurrence(cell, x, sizes, gate, (h, c) if sync else None)
        total_of = sum(((m * y).sum() for m, y in zip(mixture, states, strict=True)), start=torch.zeros(()))
        gradients = torch.autograd.grad(total_of, sources, allow_unused=True)
        results.append((states, [torch.zeros(()) if g is None else g for g in gradients]))
    (ours, our_gradients), (plain, plain_gradients) = results
    torch.testing.assert_close(tuple(ours), tuple(plain))
    for mine, expected in zip(our_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(mine, expected.expand_as(mine) if mine.dim() else expected)


@pytest.mark.parametrize("sync", [True, False])
def test_gradient_where_the_gate_sees_the_cell_state(sync: bool) -> None:
    """Finite differences of every output by every input. The gate is relaxed: a hard one has no derivative."""
    torch.manual_seed(0)
    total = sum(SIZES)
    cell = nn.LSTMCell(INPUTS, HIDDEN).double()
    noise = torch.randn(total, dtype=torch.float64)

    def relaxed(x: Tensor, h: Tensor, c: Tensor, odds: Tensor, w_h: Tensor, w_c: Tensor) -> Any:
        gate = GateInput(odds, w_h, w_c, noise=noise, temperature=0.8, hard=False)
        return tuple(gated_lstm(cell, x, SIZES, gate, (h, c) if sync else None))

    inputs = random(total, INPUTS), random(total, WIDTH), random(total, WIDTH)
    assert torch.autograd.gradcheck(relaxed, (*inputs, random(total), random(HIDDEN), random(HIDDEN)))
