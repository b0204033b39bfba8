"""The selector: a multi-layer perceptron with one hidden layer (Sec. 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policy.networks.macs import linear_macs
from policy.networks.standardize import Standardize


class SelectorNetwork(nn.Module):
    """Scaled inputs -> linear, ReLU, linear -> a logit for each of N models.

    Attributes:
        threshold: () at which it decides; part of the state, because it may be found after training.
        gflops: (N,) that choosing each model costs beyond what is spent anyway; in the state, for those who decide
            without the pool.
    """

    threshold: Tensor
    gflops: Tensor

    def __init__(self, inputs: int, hidden: int, models: int) -> None:
        super().__init__()
        self.scale = Standardize(inputs)
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, models))
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64))
        self.register_buffer("gflops", torch.zeros(models, dtype=torch.float64))
        self.macs = linear_macs(inputs, hidden) + linear_macs(hidden, models)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, D) -> (B, N)."""
        logits: Tensor = self.layers(self.scale(inputs))
        return logits
