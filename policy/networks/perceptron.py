"""A perceptron of one hidden layer on scaled inputs."""

from __future__ import annotations

from torch import Tensor, nn

from policy.networks.macs import linear_macs
from policy.networks.standardize import Standardize


class Perceptron(nn.Module):
    """Scaled inputs -> linear, ReLU, linear -> logits.

    Attributes:
        macs: multiply-accumulates of one input.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.scale = Standardize(inputs)
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
        self.macs = linear_macs(inputs, hidden) + linear_macs(hidden, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, D) of any float type -> (B, N)."""
        logits: Tensor = self.layers(self.scale(inputs))
        return logits
