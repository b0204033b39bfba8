"""W-TALC's network: class activations of each clip by itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from policy.config import Precision
from policy.networks.macs import linear_macs
from policy.networks.products import linear
from policy.networks.standardize import Standardize


class Activations(NamedTuple):
    """Of N clips.

    Attributes:
        hidden: (N, H), after ReLU and, in training, dropout.
        logits: (N, C).
    """

    hidden: Tensor
    logits: Tensor


class WTALCNetwork(nn.Module):
    """Linear, ReLU, dropout, linear (Paul et al., ECCV 2018, Sec. 3.2; initialised as the released code).

    Args:
        input_dim: features of a clip, of all streams side by side.
        dropout: probability that a hidden unit of a clip is left out of a training step.
        standardize: scale the input (`Standardize`).
        precision: of the hidden layer's products.
    """

    def __init__(
        self,
        input_dim: int,
        hidden: int,
        num_classes: int,
        *,
        dropout: float = 0.7,
        standardize: bool = False,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.dropout, self.precision = dropout, precision
        self.scale = Standardize(input_dim) if standardize else None
        self.hidden = nn.Linear(input_dim, hidden)
        self.classifier = nn.Linear(hidden, num_classes)
        for layer in (self.hidden, self.classifier):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one clip."""
        return sum(
            linear_macs(layer.in_features, layer.out_features) for layer in (self.hidden, self.classifier)
        )

    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> Activations:
        """Of clips (N, D) of any float type (float16 in the cache).

        Args:
            generator: on the CPU, for dropout; needed in training.
        """
        inputs = features.to(self.hidden.weight.dtype) if self.scale is None else self.scale(features)
        hidden = linear(inputs, self.hidden.weight, self.hidden.bias, self.precision).relu_()
        if self.training and self.dropout:
            hidden = hidden * self._kept(hidden, generator)
        return Activations(hidden, self.classifier(hidden))

    def _kept(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        """Like `hidden`: 0 for what is left out, else what makes up for it."""
        # One number is drawn on the CPU, and what follows from it on the device: the mask has millions of entries.
        seed = int(torch.randint(2**62, (), generator=generator))
        on_device = torch.Generator(hidden.device).manual_seed(seed)
        kept = torch.empty_like(hidden, requires_grad=False).bernoulli_(1 - self.dropout, generator=on_device)
        return kept.div_(1 - self.dropout)
