"""LiteEval as Sec. 3 of the paper has it, on packed videos of any length."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from policy.liteeval.cells import GatedStates, GateInput, closed_state, gated_lstm, lstm, open_rows
from policy.liteeval.cost import PolicyCost
from policy.liteeval.gate import CLOSED, OPEN, ConditionalGate, gumbel_pairs
from policy.liteeval.standardize import Standardize
from policy.packing import place_of_row


@dataclass(frozen=True)
class LiteEvalOutput:
    """Predictions and decisions for B videos of N steps in all.

    Per-video tensors are in the order of the caller's videos; per-step tensors are packed like the inputs (N
    rows).
    """

    logits: Tensor
    """(B, C): class logits after each video's own last step (Eq. 6 before the softmax)."""
    usage: Tensor
    """(B,): mean of B_t over each video's own steps, differentiable like ``gates``."""
    gates: Tensor
    """(N,): B_t, 0 or 1. In training its gradient is that of Eq. 9 (straight-through)."""
    log_odds: Tensor
    """(N,): of opening, b_t[OPEN] − b_t[CLOSED], without noise."""
    states: Tensor
    """(N, H_f): h^f after each step; the classifier on it is the prediction so far."""
    batch_sizes: Tensor
    unsorted_indices: Tensor | None

    @property
    def probabilities(self) -> Tensor:
        """(N,): of opening, softmax(b_t)[OPEN], without noise."""
        return torch.sigmoid(self.log_odds)

    def split(self, packed: Tensor) -> list[Tensor]:
        """A per-step tensor (N, ...) as one (T, ...) tensor per video, in the caller's order."""
        video, lengths = place_of_row(self.batch_sizes)
        # A stable sort by video keeps the steps of each in order.
        by_video = packed[torch.argsort(video, stable=True).to(packed.device)]
        parts = torch.tensor_split(by_video, lengths.cumsum(0)[:-1])
        order = range(len(parts)) if self.unsorted_indices is None else self.unsorted_indices.tolist()
        return [parts[k] for k in order]


@dataclass(frozen=True)
class LiteEvalState:
    """What LiteEval remembers of n videos between two steps: (n, H_c) and (n, H_f) tensors."""

    coarse_h: Tensor
    coarse_c: Tensor
    fine_h: Tensor
    fine_c: Tensor


class LiteEval(nn.Module):
    """Coarse LSTM, gate, fine LSTM and classifier (Eq. 1-6).

    In training, gates are sampled by Gumbel-softmax: hard forward, soft gradient (Eq. 9). In evaluation, the
    gate opens where b_t[OPEN] − b_t[CLOSED] > ``threshold`` (a buffer; 0 is Algorithm 1), and the fine LSTM is
    computed for opened rows only: fine features of other rows are not read, so they may be missing (NaN).

    ``coarse_cell`` and ``fine_cell`` are plain ``nn.LSTMCell`` as far as their parameters go; features pass
    through ``coarse_scale`` and ``fine_scale`` first (:class:`Standardize`, our addition, the identity until
    fitted).

    Args:
        coarse_dim: D of the coarse features v^c.
        fine_dim: D of the fine features v^f.
        num_classes: C.
        coarse_hidden: D^c, units of the coarse LSTM.
        fine_hidden: D^f, units of the fine LSTM.
        sync: copy the coarse state where the gate is closed (Eq. 5, for hidden and cell state); False is the
            ablation of Table 8.

    Raises:
        ValueError: when a size is not positive, or ``coarse_hidden`` > ``fine_hidden`` (Eq. 5 copies all of
            h^c).
    """

    threshold: Tensor

    def __init__(
        self,
        *,
        coarse_dim: int,
        fine_dim: int,
        num_classes: int,
        coarse_hidden: int,
        fine_hidden: int,
        sync: bool = True,
    ) -> None:
        super().__init__()
        if min(coarse_dim, fine_dim, num_classes, coarse_hidden, fine_hidden) < 1:
            raise ValueError("every size of LiteEval must be at least 1")
        if coarse_hidden > fine_hidden:
            raise ValueError(
                f"coarse_hidden ({coarse_hidden}) must not exceed fine_hidden ({fine_hidden}): where the "
                "gate is closed, the whole coarse state is copied into the fine state (Eq. 5)"
            )
        self.coarse_scale = Standardize(coarse_dim)
        self.fine_scale = Standardize(fine_dim)
        self.coarse_cell = nn.LSTMCell(coarse_dim, coarse_hidden)
        self.fine_cell = nn.LSTMCell(coarse_dim + fine_dim, fine_hidden)
        self.gate = ConditionalGate(coarse_dim, fine_hidden)
        self.classifier = nn.Linear(fine_hidden, num_classes)
        self.register_buffer("threshold", torch.zeros(()))
        self.sync = sync

    @property
    def cost(self) -> PolicyCost:
        """Multiply-accumulates of these networks, per step and per prediction."""
        coarse_dim = self.gate.coarse_dim
        return PolicyCost.of(
            coarse_dim=coarse_dim,
            fine_dim=self.fine_cell.input_size - coarse_dim,
            num_classes=self.classifier.out_features,
            coarse_hidden=self.coarse_cell.hidden_size,
            fine_hidden=self.fine_cell.hidden_size,
        )

    def forward(
        self,
        coarse: PackedSequence,
        fine: PackedSequence,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        gates: Tensor | None = None,
    ) -> LiteEvalOutput:
        """Run whole videos.

        Args:
            coarse: features v^c, (N, D_c) packed. Any float type; computed in the model's own.
            fine: features v^f, (N, D_f), packed alike.
            temperature: τ of Eq. 9, used in training only.
            generator: source of the Gumbel noise, drawn once; needed in training unless ``gates`` are given.
                The same generator state gives the same noise on every device.
            gates: (N,) of 0 and 1, packed alike: decide these instead (all open, all closed, random, oracle).

        Raises:
            ValueError: when the two sequences or the gates do not fit each other, τ is not positive, or
                training lacks a generator.
        """
        _check(coarse, fine, gates, temperature)
        batch_sizes: list[int] = coarse.batch_sizes.tolist()
        seen = self.coarse_scale(coarse.data)
        coarse_states = lstm(self.coarse_cell, seen, batch_sizes)
        gate = GateInput(
            log_odds=self.gate.coarse_log_odds(seen),
            state_weight=self.gate.state_weight(),
            given=None if gates is None else gates.to(seen.dtype),
            temperature=temperature,
        )
        if self.training:
            if gates is None:
                if generator is None:
                    raise ValueError("training samples its gates: pass a torch.Generator (or the gates)")
                pairs = gumbel_pairs(len(seen), generator).to(seen)
                gate = gate._replace(noise=pairs[:, OPEN] - pairs[:, CLOSED])
            inputs = torch.cat([seen, self.fine_scale(fine.data)], 1)
            sync = coarse_states if self.sync else None
            states = gated_lstm(self.fine_cell, inputs, batch_sizes, gate, sync)
        else:
            states = self._evaluate(seen, coarse_states, fine.data, batch_sizes, gate)

        video, lengths = place_of_row(coarse.batch_sizes)
        lengths = lengths.to(seen.device)
        usage = seen.new_zeros(len(lengths)).index_add(0, video.to(seen.device), states.gates) / lengths
        last = _last_rows(coarse.batch_sizes).to(seen.device)
        logits = self.classifier(states.h[last])
        unsorted = coarse.unsorted_indices
        return LiteEvalOutput(
            logits=logits if unsorted is None else logits[unsorted],
            usage=usage if unsorted is None else usage[unsorted],
            gates=states.gates,
            log_odds=states.log_odds,
            states=states.h,
            batch_sizes=coarse.batch_sizes,
            unsorted_indices=unsorted,
        )

    def initial_state(self, videos: int) -> LiteEvalState:
        """The zero state of ``videos`` videos."""
        zeros = self.gate.weight.new_zeros
        coarse, fine = (videos, self.coarse_cell.hidden_size), (videos, self.fine_cell.hidden_size)
        return LiteEvalState(zeros(coarse), zeros(coarse), zeros(fine), zeros(fine))

    def look(self, coarse: Tensor, state: LiteEvalState) -> tuple[Tensor, LiteEvalState]:
        """First half of a step (Eq. 1-2), one frame at a time: is the fine backbone worth running?

        Args:
            coarse: v^c_t of n videos, (n, D_c).
            state: after the step before.

        Returns:
            The log-odds of opening (n,), and the state with its coarse half advanced, for :meth:`update`.
        """
        seen = self.coarse_scale(coarse)
        log_odds = self.gate.coarse_log_odds(seen) + state.fine_h @ self.gate.state_weight()
        coarse_h, coarse_c = self.coarse_cell(seen, (state.coarse_h, state.coarse_c))
        return log_odds, LiteEvalState(coarse_h, coarse_c, state.fine_h, state.fine_c)

    def update(
        self, coarse: Tensor, fine: Tensor, opened_rows: Tensor, state: LiteEvalState
    ) -> LiteEvalState:
        """Second half of a step (Eq. 3-5).

        Args:
            coarse: v^c_t of n videos, (n, D_c), as given to :meth:`look`.
            fine: v^f_t of the m videos whose gate is open, (m, D_f).
            opened_rows: (m,), which of the n they are.
            state: as :meth:`look` returned it.

        Returns:
            The state after the step; ``classifier(state.fine_h)`` are the class logits so far (Eq. 6).
        """
        inputs = torch.cat([self.coarse_scale(coarse[opened_rows]), self.fine_scale(fine)], 1)
        before = state.fine_h, state.fine_c
        closed = closed_state(*before, (state.coarse_h, state.coarse_c) if self.sync else None)
        h, c = open_rows(self.fine_cell, inputs, opened_rows, before, closed)
        return LiteEvalState(state.coarse_h, state.coarse_c, h, c)

    def _evaluate(
        self,
        seen: Tensor,
        coarse_states: tuple[Tensor, Tensor],
        fine: Tensor,
        batch_sizes: Sequence[int],
        gate: GateInput,
    ) -> GatedStates:
        """The fine LSTM for opened rows only, without sampling. ``seen`` is scaled, ``fine`` is as given."""
        initial = self.initial_state(batch_sizes[0])
        h, c = initial.fine_h, initial.fine_c
        steps: list[GatedStates] = []
        start = 0
        for n in batch_sizes:
            rows = slice(start, start + n)
            h, c = h[:n], c[:n]
            log_odds = gate.log_odds[rows] + h @ gate.state_weight
            opened = log_odds > self.threshold if gate.given is None else gate.given[rows] > 0
            local = opened.nonzero().squeeze(1)
            inputs = torch.cat([seen[rows][local], self.fine_scale(fine[rows][local])], 1)
            sync = (coarse_states[0][rows], coarse_states[1][rows]) if self.sync else None
            h, c = open_rows(self.fine_cell, inputs, local, (h, c), closed_state(h, c, sync))
            steps.append(GatedStates(h, c, opened.to(h.dtype), log_odds))
            start += n
        return GatedStates(*(torch.cat(parts) for parts in zip(*steps, strict=True)))


def _check(coarse: PackedSequence, fine: PackedSequence, gates: Tensor | None, temperature: float) -> None:
    if not torch.equal(coarse.batch_sizes, fine.batch_sizes):
        raise ValueError("coarse and fine features have different lengths: pack the same videos and steps")
    a, b = coarse.sorted_indices, fine.sorted_indices
    if (a is None) != (b is None) or (a is not None and b is not None and not torch.equal(a, b)):
        raise ValueError("coarse and fine features are packed in different orders of videos")
    if gates is not None:
        if gates.shape != coarse.data.shape[:1]:
            raise ValueError(f"gates have shape {tuple(gates.shape)}, not ({len(coarse.data)},)")
        if not ((gates == 0) | (gates == 1)).all():
            raise ValueError("given gates must be 0 or 1")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")


def _last_rows(batch_sizes: Tensor) -> Tensor:
    """Packed row (B,) of each sorted video's last step."""
    _, lengths = place_of_row(batch_sizes)
    starts = batch_sizes.cumsum(0) - batch_sizes
    return starts[lengths - 1] + torch.arange(len(lengths))
