"""The fine network in evaluation, where only opened steps are computed.

Videos do not depend on each other, and while a gate stays closed the state is known in advance: the coarse
network's over the first S entries, and the rest as it was (Eq. 5). So the log-odds of all steps up to a video's
next opening are known as well, and there is no time loop: each round finds the next opened step of every video, at
whatever time it is, and computes those together. There are as many rounds as the busiest video has opened steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from policy.networks.gated import (
    GatedRun,
    GateInput,
    Recurrent,
    State,
    closed_state,
    each,
    join_steps,
    rows_of,
    state_log_odds,
)

LAY_OUT_AFTER = 8
"""Rounds. Laying out the weights anew takes about as long as it saves in so many."""


def run_opened(
    network: Recurrent,
    inputs: Callable[[Tensor], Tensor],
    batch_sizes: Sequence[int],
    gate: GateInput,
    sync: State | None,
    threshold: Tensor,
) -> GatedRun:
    """Eq. 2-5 from a zero state, without sampling: a gate opens where its log-odds exceed the threshold.

    Args:
        inputs: rows (m,) of the packed batch -> what the network takes of them, (m, D). Asked of opened rows only.
        batch_sizes: videos still running, per step; T steps of B videos, N rows.
        gate: log-odds of the inputs, weights of the state, or ``given`` gates.
        sync: (N, S), see `closed_state`.
        threshold: (), of the log-odds.
    """
    videos, device = batch_sizes[0], gate.log_odds.device
    sizes = torch.tensor(batch_sizes, device=device)
    time = torch.arange(len(batch_sizes), device=device)[:, None]
    video = torch.arange(videos, device=device)
    runs = video < sizes[:, None]  # (T, B), like all that follows up to the result
    row = (sizes.cumsum(0) - sizes)[:, None] + video

    def spread(packed: Tensor) -> Tensor:
        return packed.new_zeros(runs.shape).masked_scatter(runs, packed)

    of_input = spread(gate.log_odds)
    after_closed = of_input
    if sync is not None:
        of_copied = spread(_log_odds_of_copied(gate, sync))
        after_closed = of_input + torch.cat([torch.zeros_like(of_copied[:1]), of_copied[:-1]])
    given = None if gate.given is None else spread(gate.given) > 0

    state = network.zero_state(gate.log_odds, videos)  # after each video's last opened step
    at = torch.zeros_like(video)  # the step behind it
    of_state = of_kept = gate.log_odds.new_zeros(videos)  # what it adds to the log-odds there, and further on
    odds = of_input
    computed = [rows_of(state, slice(1))]
    source = torch.zeros_like(row)  # which of `computed` is the state after a step, were it not for Eq. 5
    step: Callable[[Tensor, State], State] = network.step
    count = 1
    for round_ in itertools.count():
        odds = torch.where(
            time < at, odds, torch.where(time == at, of_input + of_state, after_closed + of_kept)
        )
        opens = runs & (time >= at) & (odds > threshold if given is None else given)
        here = opens.any(0).nonzero().squeeze(1)
        if len(here) == 0:
            break
        when = opens[:, here].int().argmax(0)  # the first
        rows = row[when, here]
        before = rows_of(state, here)
        if sync is not None:
            copied = rows_of(sync, row[(when - 1).clamp(min=0), here])
            before = _where(when > at[here], closed_state(before, copied), before)
        if round_ == LAY_OUT_AFTER:
            step = network.repeated_step()
        after = step(inputs(rows), before)
        computed.append(after)
        source = source.index_put((when, here), torch.arange(count, count + len(here), device=device))
        count += len(here)
        state = _replace(state, here, after)
        at = at.index_copy(0, here, when + 1)
        of_state, of_kept = state_log_odds(gate, state), _log_odds_of_kept(gate, state, sync)

    opened = (source > 0)[runs]
    # `computed` is in the order of time for each video, so the latest is the largest.
    latest = source.cummax(0).values[runs]
    states = rows_of(join_steps(computed), latest)
    if sync is not None:
        states = _where(opened, states, closed_state(states, sync))
    return GatedRun(states, opened.to(odds.dtype), odds[runs])


def _where(condition: Tensor, one: State, other: State) -> State:
    return each(lambda a, b: torch.where(condition[:, None], a, b), one, other)


def _replace(state: State, rows: Tensor, new: State) -> State:
    return each(lambda old, entries: old.index_copy(0, rows, entries), state, new)


def _log_odds_of_copied(gate: GateInput, sync: State) -> Tensor:
    """(N,): what the coarse states add at the step after one that stayed closed."""
    return state_log_odds(_entries(gate, slice(None, sync.h.shape[1])), sync)


def _log_odds_of_kept(gate: GateInput, state: State, sync: State | None) -> Tensor:
    """(B,): what the entries of a state (B, H) that a closed step keeps add to the log-odds."""
    kept = slice(0 if sync is None else sync.h.shape[1], None)
    return state_log_odds(_entries(gate, kept), each(lambda entries: entries[:, kept], state))


def _entries(gate: GateInput, entries: slice) -> GateInput:
    cell_weight = None if gate.cell_weight is None else gate.cell_weight[entries]
    return gate._replace(state_weight=gate.state_weight[entries], cell_weight=cell_weight)
