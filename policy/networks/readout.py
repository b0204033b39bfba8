"""What a classifier reads of a recurrent network's states: the last one, as in the papers, or one over time.

Each is a recurrence over the steps of a video, so that a video that arrives frame by frame is read exactly as a
whole one: after every step there is something to read, and after the last step it is what the whole video gives.

    last        h_t
    mean        mean of h_1 … h_t
    max         the largest of h_1 … h_t, unit by unit
    attention   mean of h_1 … h_t weighted by exp(w · h_i), w learned
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from policy.config import ReadoutKind
from policy.networks.macs import linear_macs
from policy.networks.packing import split_steps


class Reading(NamedTuple):
    """What there is to read of n videos so far; zeros before the first step."""

    value: Tensor
    """(n, H)."""
    log_weight: Tensor
    """(n, 1): with attention, the logarithm of the sum of the steps' weights."""
    steps: Tensor
    """(n, 1)."""

    @staticmethod
    def of(*parts: Tensor | None) -> Reading | None:
        """From the inputs of an exported network, which has none with the readout of the last state."""
        present = [part for part in parts if part is not None]
        return Reading(*present) if present else None


class Readout(nn.Module):
    """H: units of the network. Only "attention" has parameters."""

    def __init__(self, kind: ReadoutKind, hidden: int) -> None:
        super().__init__()
        self.kind = kind
        self.hidden = hidden
        self.score = nn.Linear(hidden, 1, bias=False) if kind == "attention" else None

    @property
    def step_macs(self) -> int:
        """Multiply-accumulates of a step of one video."""
        return 0 if self.score is None else linear_macs(self.hidden, 1)

    def start(self, like: Tensor, videos: int) -> Reading:
        """Before the first step, of the type and on the device of ``like``."""
        return Reading(like.new_zeros(videos, self.hidden), *like.new_zeros(2, videos, 1))

    def states(self, prefix: str) -> dict[str, Tensor]:
        """What an exported network keeps of a video beside its state, by name; nothing where it reads the last."""
        if self.kind == "last":
            return {}
        reading = self.start(torch.zeros(()), 1)
        return {f"{prefix}_{part}": values for part, values in reading._asdict().items()}

    def step(self, before: Reading, h: Tensor) -> Reading:
        """After a step of n videos to the hidden state h (n, H)."""
        steps, log_weight = before.steps + 1, before.log_weight
        if self.kind == "last":
            value = h
        elif self.kind == "max":
            value = torch.where(before.steps == 0, h, torch.maximum(before.value, h))
        elif self.score is None:
            value = before.value.lerp(h, 1 / steps)
        else:
            score = self.score(h)
            earlier = log_weight.masked_fill(before.steps == 0, -torch.inf)
            log_weight = torch.logaddexp(earlier, score)
            value = before.value.lerp(h, (score - log_weight).exp())
        return Reading(value, log_weight, steps)

    def forward(self, states: Tensor, batch_sizes: Sequence[int]) -> Tensor:
        """Packed hidden states (N, H) -> what there is to read after each step, (N, H), packed alike."""
        if self.kind == "last":
            return states
        reading, values = self.start(states, batch_sizes[0]), []
        for h in split_steps(states, batch_sizes):
            reading = self.step(Reading(*(part[: len(h)] for part in reading)), h)
            values.append(reading.value)
        return torch.cat(values)


def dropped(values: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Dropout (Srivastava et al., 2014), drawn from a generator on the CPU, so that a stopped run draws the same.

    Args:
        values: (n, D).
        share: of the values, set to zero; the others grow by 1 / (1 − share). 0 draws nothing.
    """
    if share == 0:
        return values
    kept = torch.rand(values.shape, generator=generator) >= share
    return values * kept.to(values) / (1 - share)
