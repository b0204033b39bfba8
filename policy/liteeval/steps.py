"""LiteEval's steps on videos that are under way: many with the same weights, several videos together.

The coarse network does not depend on the gate (Eq. 1), so it runs over all rows that are there. While the gate
stays closed the fine network's state follows from that (Eq. 5), so that the log-odds of all rows up to the next
opening are known at once (Eq. 2), as in :mod:`policy.networks.sparse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from policy.liteeval.model import LiteEval
from policy.networks.gated import Prepared, State, each, join_steps, rows_of, state_log_odds
from policy.networks.packing import split_videos


@dataclass(frozen=True, eq=False)
class Watched:
    """Consecutive rows of a video, of which the coarse network's part is done.

    Attributes:
        inputs: (n, D), coarse features as the networks take them.
        states: (n, H_c), of the coarse network after each.
    """

    inputs: Tensor
    states: State

    def __len__(self) -> int:
        return len(self.inputs)

    def after(self, count: int) -> Watched:
        """Without the first of them."""
        return Watched(self.inputs[count:], rows_of(self.states, slice(count, None)))


class Steps:
    """Without gradient. A copy is the same one: sessions with the same networks share what is prepared.

    Args:
        model: in evaluation mode. Its weights must not change while this is in use.
    """

    def __init__(self, model: LiteEval) -> None:
        self._model = model

    def __deepcopy__(self, memo: object) -> Steps:
        return self

    @cached_property
    def _coarse(self) -> Prepared:
        return self._model.coarse_cell.prepared()

    @cached_property
    def _fine(self) -> Prepared:
        return self._model.fine_cell.prepared()

    @torch.no_grad()
    def watch(self, coarse: Sequence[Tensor], before: Sequence[State]) -> list[Watched]:
        """Eq. 1 for the next rows of videos.

        Args:
            coarse: of each video v^c, (n, D_c), n ≥ 1.
            before: of each the coarse network's state (1, H_c) before them.
        """
        packed = pack_sequence(list(coarse), enforce_sorted=False)
        batch_sizes = packed.batch_sizes.tolist()
        inputs = self._model.coarse_input(packed.data, batch_sizes)
        assert packed.sorted_indices is not None
        state = rows_of(join_steps(before), packed.sorted_indices)
        states = self._coarse.run(inputs, batch_sizes, state)

        def split(rows: Tensor) -> list[Tensor]:
            return split_videos(rows, packed.batch_sizes, packed.unsorted_indices)

        cells = [None] * len(coarse) if states.c is None else split(states.c)
        return [
            Watched(rows, State(h, c))
            for rows, h, c in zip(split(inputs), split(states.h), cells, strict=True)
        ]

    @torch.no_grad()
    def closed(self, rows: Watched, before: State) -> tuple[Tensor, State]:
        """Eq. 2 and 5 for rows of a video whose gates stay closed.

        Args:
            before: the fine network's state (1, H_f) before the first of n rows.

        Returns:
            The log-odds of opening (n,), and the fine network's state after each row (n, H_f).
        """
        unchanged = each(lambda values: values.expand(len(rows), -1), before)
        after = self._model.reuse(rows.states, unchanged)
        gate = self._model.gate.gate_input(rows.inputs)
        return gate.log_odds + state_log_odds(
            gate, join_steps([before, rows_of(after, slice(len(rows) - 1))])
        ), after

    @torch.no_grad()
    def opened(
        self, inputs: Sequence[Tensor], fine: Sequence[Tensor], before: Sequence[State]
    ) -> list[State]:
        """Eq. 3 for a row of each of n videos: the fine network's state after it, (1, H_f).

        Args:
            inputs: (1, D), as in `Watched`.
            fine: v^f, (1, D_f).
            before: the fine network's state (1, H_f) before it.
        """
        rows = torch.cat(list(fine))
        both = torch.cat([torch.cat(list(inputs)), self._model.fine_input(rows, [len(rows)])], 1)
        after = self._fine.step(both, join_steps(before))
        return [rows_of(after, slice(place, place + 1)) for place in range(len(rows))]
