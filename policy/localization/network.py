"""W-TALC's network: class activations of each clip by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from policy.config import Precision
from policy.networks.macs import linear_macs
from policy.networks.products import linear, rounded
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
        weight = self.hidden.weight
        if self.scale is not None:
            features = self.scale(features)
        inputs = (
            rounded(features, self.precision) if self.precision == "bfloat16" else features.to(weight.dtype)
        )
        hidden = linear(inputs, weight, self.hidden.bias, self.precision)
        if self.training and self.dropout:
            hidden = _ReLUDropout.apply(hidden, left_out(hidden, self.dropout, generator), 1 - self.dropout)
        else:
            hidden = hidden.relu()
        return Activations(hidden, self.classifier(hidden))


def left_out(like: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Bool of the same shape on the same device, true with a probability, to 1/65536.

    Args:
        generator: on the CPU. One number is drawn there, and from it millions on the device: four from each random
            integer, which is several times as quick as one by one.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    on_device = torch.Generator(like.device).manual_seed(seed)
    integers = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device)
    bits = integers.random_(-(2**63), None, generator=on_device).view(torch.int16)[: like.numel()]
    return bits.view(like.shape) < min(round(probability * 2**16), 2**16 - 1) - 2**15


class _ReLUDropout(torch.autograd.Function):
    """ReLU and dropout at once and in place, for each pass over (N, H) values counts beside the matrix products.
    The gradient needs no mask: it is that of what is not zero."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, dropped: Tensor, kept_share: float) -> Tensor:
        ctx.kept_share = kept_share
        outputs = inputs.relu_().masked_fill_(dropped, 0).div_(kept_share)
        ctx.mark_dirty(outputs)
        ctx.save_for_backward(outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (outputs,), (gradient,) = ctx.saved_tensors, gradients
        return torch.ops.aten.threshold_backward(gradient, outputs, 0).div_(ctx.kept_share), None, None
