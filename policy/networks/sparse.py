"""The fine network in evaluation, where only opened steps are computed.

Videos do not depend on each other, and while a gate stays closed the state is known in advance: the coarse state
in the first S entries, the rest unchanged (Eq. 5). So the log-odds of all steps up to a video's next opening are
known, too, and no time loop is needed: each round finds the next opened step of every video, at whatever time,
and computes these together. There are as many rounds as any video has opened steps at most.
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
"""Rounds. Laying out the weights takes about as long as it saves in this many."""


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
        inputs: from rows (m,) of the packed batch to the network's inputs (m, D); called for opened rows only.
        batch_sizes: videos still running, per step; T steps of B videos, N rows.
        gate: log-odds of the inputs, weights of the state, or ``fixed`` gates.
        sync: (N, S), see `closed_state`.
        threshold: (), of the log-odds.
    """
    videos, device = batch_sizes[0], gate.log_odds.device
    sizes = torch.tensor(batch_sizes, device=device)
    time = torch.arange(len(batch_sizes), device=device)[:, None]
    video = torch.arange(videos, device=device)
    running = video < sizes[:, None]  # (T, B), like the tensors below up to the result
    row = (sizes.cumsum(0) - sizes)[:, None] + video

    def unpacked(packed: Tensor) -> Tensor:
        return packed.new_zeros(running.shape).masked_scatter(running, packed)

    width = 0 if sync is None else sync.h.shape[1]
    first, rest = slice(width), slice(width, None)  # entries that a closed step copies from `sync`, and keeps
    input_odds = after_closed = unpacked(gate.log_odds)
    if sync is not None:
        copied_odds = unpacked(_log_odds_of(gate, sync, first))
        after_closed = input_odds + torch.cat([torch.zeros_like(copied_odds[:1]), copied_odds[:-1]])
    fixed = None if gate.fixed is None else unpacked(gate.fixed) > 0

    state = network.zero_state(gate.log_odds, videos)  # after each video's last opened step
    start = torch.zeros_like(video)  # the step after that one
    state_odds = rest_odds = gate.log_odds.new_zeros(
        videos
    )  # what `state` adds to the log-odds there, and later
    odds = input_odds
    computed = [rows_of(state, slice(1))]
    source = torch.zeros_like(row)  # index in `computed` of the state after a step, before Eq. 5
    step: Callable[[Tensor, State], State] = network.step
    count = 1
    for round_ in itertools.count():
        later = torch.where(time == start, input_odds + state_odds, after_closed + rest_odds)
        odds = torch.where(time < start, odds, later)
        opens = running & (time >= start) & (odds > threshold if fixed is None else fixed)
        active = opens.any(0).nonzero().squeeze(1)
        if len(active) == 0:
            break
        when = opens[:, active].int().argmax(0)  # the first
        before = rows_of(state, active)
        if sync is not None:
            copied = rows_of(sync, row[(when - 1).clamp(min=0), active])
            before = _where(when > start[active], closed_state(before, copied), before)
        if round_ == LAY_OUT_AFTER and not torch.is_grad_enabled():
            step = network.prepared().step
        after = step(inputs(row[when, active]), before)
        computed.append(after)
        source = source.index_put((when, active), torch.arange(count, count + len(active), device=device))
        count += len(active)
        state = each(lambda old, new: old.index_copy(0, active, new), state, after)  # noqa: B023  # called at once
        start = start.index_copy(0, active, when + 1)
        state_odds, rest_odds = state_log_odds(gate, state), _log_odds_of(gate, state, rest, rest)

    opened = (source > 0)[running]
    # `computed` is in the order of time for each video, so the latest is the largest.
    latest = source.cummax(0).values[running]
    states = rows_of(join_steps(computed), latest)
    if sync is not None:
        states = _where(opened, states, closed_state(states, sync))
    return GatedRun(states, opened.to(odds.dtype), odds[running])


def _where(condition: Tensor, state: State, other: State) -> State:
    return each(lambda a, b: torch.where(condition[:, None], a, b), state, other)


def _log_odds_of(gate: GateInput, state: State, weights: slice, entries: slice = slice(None)) -> Tensor:
    """(n,): the part of `state_log_odds` of some entries of a state, with some entries of the gate's weights."""
    cell_weight = None if gate.cell_weight is None else gate.cell_weight[weights]
    part = gate._replace(state_weight=gate.state_weight[weights], cell_weight=cell_weight)
    return state_log_odds(part, each(lambda values: values[:, entries], state))
