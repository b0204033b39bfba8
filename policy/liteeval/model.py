"""LiteEval (Sec. 3 of the paper) on packed videos of any length."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from policy.config import Cell, GateState, Precision, ReadoutKind
from policy.liteeval.cost import PolicyCost
from policy.liteeval.gate import CLOSED, OPEN, ConditionalGate, gumbel_pairs
from policy.networks.cells import NETWORKS
from policy.networks.gated import State, closed_state, state_log_odds
from policy.networks.packing import last_rows, place_of_row, split_videos
from policy.networks.projection import Projection
from policy.networks.readout import Readout, dropped
from policy.networks.sparse import run_opened
from policy.networks.standardize import Standardize


@dataclass(frozen=True)
class LiteEvalOutput:
    """Predictions and decisions for B videos of N steps in all.

    Per-video tensors are in the order of the caller's videos; per-step tensors are packed like the inputs (N
    rows).
    """

    logits: Tensor
    """(B, C): class logits after each video's last step (Eq. 6 before the softmax)."""
    usage: Tensor
    """(B,): mean of B_t over each video's steps, differentiable like ``gates``."""
    gates: Tensor
    """(N,): B_t, 0 or 1. In training its gradient is that of Eq. 9 (straight-through)."""
    log_odds: Tensor
    """(N,): of opening, b_t[OPEN] − b_t[CLOSED], without noise."""
    states: Tensor
    """(N, H_f): h^f after each step."""
    read: Tensor
    """(N, H_f): what the classifier reads after each step, which gives the prediction so far: h^f, or more with
    another readout than "last"."""
    batch_sizes: Tensor
    unsorted_indices: Tensor | None

    @property
    def probabilities(self) -> Tensor:
        """(N,): of opening, softmax(b_t)[OPEN], without noise."""
        return torch.sigmoid(self.log_odds)

    def split(self, packed: Tensor) -> list[Tensor]:
        """A per-step tensor (N, ...) as one (T, ...) tensor per video, in the caller's order."""
        return split_videos(packed, self.batch_sizes, self.unsorted_indices)


class LiteEval(nn.Module):
    """Coarse network, gate, fine network and classifier (Eq. 1-6).

    In training, gates are sampled by Gumbel-softmax: hard forward, soft gradient (Eq. 9). In evaluation, the
    gate opens where b_t[OPEN] − b_t[CLOSED] > ``threshold`` (a buffer; 0 is Algorithm 1), and the fine network
    is computed for opened rows only: fine features of other rows are not read, so they may be missing (NaN).

    ``multiplier`` (a buffer, too) is that of constrained usage (`policy.liteeval.loss.ascend`), used in training
    only.

    ``coarse_cell`` and ``fine_cell`` are recurrent networks of one kind, by default with the parameters of an
    ``nn.LSTMCell``. Features pass through ``coarse_scale`` and ``fine_scale`` first (:class:`Standardize`, our
    addition, the identity until fitted), and on request through learned layers (:class:`Projection`, which is in
    the released code).

    Args:
        coarse_dim: D of the coarse features v^c.
        fine_dim: D of the fine features v^f.
        num_classes: C.
        coarse_hidden: D^c, units of the coarse network.
        fine_hidden: D^f, units of the fine network.
        sync: copy the coarse state where the gate is closed (Eq. 5, for hidden and cell state); False is the
            ablation of Table 8.
        cell: of both networks (Table 6).
        coarse_projection, fine_projection: outputs of the learned layers; 0 is none.
        gate_state: the fine network's state in the gate's input beside v^c: h^f, or h^f and c^f.
        gate_hidden: units of the gate's hidden layer; 0 is none.
        precision: of the matrix products in training (:mod:`policy.networks.products`), except for the gate and
            the classifier.
        readout: what the classifier reads of the fine network's states; "last" is Eq. 6.

    Raises:
        ValueError: a size is not positive, ``coarse_hidden`` > ``fine_hidden`` (Eq. 5 copies all of h^c), or the
            gate should see a cell state that the cell does not have.
    """

    threshold: Tensor
    multiplier: Tensor

    def __init__(
        self,
        *,
        coarse_dim: int,
        fine_dim: int,
        num_classes: int,
        coarse_hidden: int,
        fine_hidden: int,
        sync: bool = True,
        cell: Cell = "lstm",
        coarse_projection: int = 0,
        fine_projection: int = 0,
        gate_state: GateState = "hidden",
        gate_hidden: int = 0,
        precision: Precision = "float32",
        readout: ReadoutKind = "last",
    ) -> None:
        super().__init__()
        if min(coarse_dim, fine_dim, num_classes, coarse_hidden, fine_hidden) < 1:
            raise ValueError("every size of LiteEval must be at least 1")
        if min(coarse_projection, fine_projection, gate_hidden) < 0:
            raise ValueError("a learned layer of LiteEval has a positive size, or 0 where there is none")
        if coarse_hidden > fine_hidden:
            raise ValueError(
                f"coarse_hidden ({coarse_hidden}) must not exceed fine_hidden ({fine_hidden}): where the "
                "gate is closed, the whole coarse state is copied into the fine state (Eq. 5)"
            )
        network = NETWORKS[cell]
        sees_cell_state = gate_state == "hidden+cell"
        if sees_cell_state and not network.has_cell_state:
            raise ValueError(f"the gate cannot see the cell state of a {cell.upper()}, which has none")
        self.coarse_scale = Standardize(coarse_dim)
        self.fine_scale = Standardize(fine_dim)
        self.coarse_projection = (
            Projection(coarse_dim, coarse_projection, precision) if coarse_projection else None
        )
        self.fine_projection = Projection(fine_dim, fine_projection, precision) if fine_projection else None
        coarse_width, fine_width = coarse_projection or coarse_dim, fine_projection or fine_dim
        self.coarse_cell = network(coarse_width, coarse_hidden)
        self.fine_cell = network(coarse_width + fine_width, fine_hidden)
        self.coarse_cell.precision = self.fine_cell.precision = precision
        self.gate = ConditionalGate(
            coarse_width, fine_hidden, sees_cell_state=sees_cell_state, hidden=gate_hidden
        )
        self.readout = Readout(readout, fine_hidden)
        self.classifier = nn.Linear(fine_hidden, num_classes)
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("multiplier", torch.zeros(()))
        self.sync = sync
        self.cost = PolicyCost.of(
            coarse_dim=coarse_dim,
            fine_dim=fine_dim,
            num_classes=num_classes,
            coarse_hidden=coarse_hidden,
            fine_hidden=fine_hidden,
            cell=cell,
            coarse_projection=coarse_projection,
            fine_projection=fine_projection,
            gate_state=gate_state,
            gate_hidden=gate_hidden,
            readout_step=self.readout.step_macs,
        )

    def forward(
        self,
        coarse: PackedSequence,
        fine: PackedSequence,
        *,
        temperature: float = 1.0,
        noise_scale: float = 1.0,
        generator: torch.Generator | None = None,
        gates: Tensor | None = None,
        dropout: float = 0.0,
    ) -> LiteEvalOutput:
        """Run whole videos.

        Args:
            coarse: features v^c, (N, D_c) packed, of any float type; converted to the model's.
            fine: features v^f, (N, D_f), packed alike.
            temperature: τ of Eq. 9, used in training only.
            noise_scale: factor of the Gumbel noise, in training only; 1 is Eq. 8.
            generator: source of the Gumbel noise, and of dropout; needed in training unless ``gates`` are given.
                The same state gives the same noise on every device.
            gates: (N,) of 0 and 1, packed alike, to be used instead (all open, all closed, random, oracle).
            dropout: share of the networks' input features, and of what the classifier reads, left out in training.

        Raises:
            ValueError: the two sequences or the gates do not fit each other, τ is not positive, the scale of the
                noise is negative, or training lacks a generator.
        """
        _check(coarse, fine, gates, temperature, noise_scale)
        batch_sizes: list[int] = coarse.batch_sizes.tolist()
        dropout = dropout if self.training else 0.0
        coarse_input = dropped(self.coarse_input(coarse.data, batch_sizes), dropout, generator)
        coarse_states = self.coarse_cell.run(coarse_input, batch_sizes)
        gate = self.gate.gate_input(coarse_input)._replace(
            fixed=None if gates is None else gates.to(coarse_input.dtype), temperature=temperature
        )
        sync = coarse_states if self.sync else None
        if self.training:
            if gates is None:
                if generator is None:
                    raise ValueError("training samples its gates: pass a torch.Generator (or the gates)")
                pairs = gumbel_pairs(len(coarse_input), generator).to(coarse_input)
                gate = gate._replace(noise=noise_scale * (pairs[:, OPEN] - pairs[:, CLOSED]))
            fine_input = dropped(self.fine_input(fine.data, batch_sizes), dropout, generator)
            inputs = torch.cat([coarse_input, fine_input], 1)
            run = self.fine_cell.run_gated(inputs, batch_sizes, gate, sync)
        else:

            def inputs_of(rows: Tensor) -> Tensor:
                return torch.cat([coarse_input[rows], self.fine_input(fine.data[rows], [len(rows)])], 1)

            run = run_opened(self.fine_cell, inputs_of, batch_sizes, gate, sync, self.threshold)

        place, lengths = place_of_row(coarse.batch_sizes)
        lengths = lengths.to(run.gates.device)
        usage = run.gates.new_zeros(len(lengths)).index_add(0, place.to(lengths.device), run.gates) / lengths
        last = last_rows(coarse.batch_sizes).to(lengths.device)
        read = dropped(self.readout(run.states.h, batch_sizes), dropout, generator)
        logits = self.classifier(read[last])
        unsorted = coarse.unsorted_indices
        return LiteEvalOutput(
            logits=logits if unsorted is None else logits[unsorted],
            usage=usage if unsorted is None else usage[unsorted],
            gates=run.gates,
            log_odds=run.log_odds,
            states=run.states.h,
            read=read,
            batch_sizes=coarse.batch_sizes,
            unsorted_indices=unsorted,
        )

    def initial_state(self, videos: int) -> tuple[State, State]:
        """The zero states of the coarse and the fine network, for ``videos`` videos."""
        like = self.gate.weight
        return self.coarse_cell.zero_state(like, videos), self.fine_cell.zero_state(like, videos)

    def look(self, coarse: Tensor, coarse_state: State, fine_state: State) -> tuple[Tensor, State]:
        """First half of a step (Eq. 1-2) in evaluation mode: whether the fine backbone is worth running.

        Args:
            coarse: v^c_t of n videos, (n, D_c).
            coarse_state: (n, H_c), after the step before.
            fine_state: (n, H_f), after the step before.

        Returns:
            The log-odds of opening (n,), and the coarse network's state after the step.
        """
        coarse_input = self.coarse_input(coarse, [len(coarse)])
        gate = self.gate.gate_input(coarse_input)
        log_odds = gate.log_odds + state_log_odds(gate, fine_state)
        return log_odds, self.coarse_cell.step(coarse_input, coarse_state)

    def refine(self, coarse: Tensor, fine: Tensor, fine_state: State) -> State:
        """Second half of a step where the gates of n videos are open (Eq. 3).

        Args:
            coarse: v^c_t, (n, D_c), as given to :meth:`look`.
            fine: v^f_t, (n, D_f).
            fine_state: (n, H_f), after the step before.

        Returns:
            The fine network's state after the step. ``readout.step`` takes its h, and what the classifier makes of
            the result are the class logits so far (Eq. 6).
        """
        inputs = [self.coarse_input(coarse, [len(coarse)]), self.fine_input(fine, [len(fine)])]
        return self.fine_cell.step(torch.cat(inputs, 1), fine_state)

    def reuse(self, coarse_state: State, fine_state: State) -> State:
        """Second half of a step where they are closed (Eq. 5), with the coarse network's state after the step."""
        return closed_state(fine_state, coarse_state if self.sync else None)

    def coarse_input(self, features: Tensor, batch_sizes: Sequence[int]) -> Tensor:
        """Coarse features as the networks take them: scaled, and projected if there is a learned layer."""
        scaled: Tensor = self.coarse_scale(features)
        return scaled if self.coarse_projection is None else self.coarse_projection(scaled, batch_sizes)

    def fine_input(self, features: Tensor, batch_sizes: Sequence[int]) -> Tensor:
        """Fine features as the fine network takes them."""
        scaled: Tensor = self.fine_scale(features)
        return scaled if self.fine_projection is None else self.fine_projection(scaled, batch_sizes)


def _check(
    coarse: PackedSequence, fine: PackedSequence, gates: Tensor | None, temperature: float, noise_scale: float
) -> None:
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
    if not noise_scale >= 0:
        raise ValueError(f"noise_scale must not be negative, not {noise_scale}")
