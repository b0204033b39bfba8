"""Matrix products of the recurrent networks, in float32 or bfloat16.

"bfloat16" rounds both factors and the result to it and adds up in float32; "float32" rounds nothing: it computes
in the parameters' own type.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from policy.config import Precision

WORTH_LAYING_OUT = 1 << 20
"""Entries of a weight, those of 512 units. oneDNN prepares itself for every new number of rows; for a smaller
weight that takes longer than it saves."""


def rounded(x: Tensor, precision: Precision) -> Tensor:
    """As it enters a product; itself where nothing is rounded."""
    return x.bfloat16() if precision == "bfloat16" else x


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, precision: Precision) -> Tensor:
    """x Wᵀ + b, (n, I) -> (n, O); torch works out the gradient."""
    if precision == "float32":
        return functional.linear(x, weight, bias)
    product = functional.linear(rounded(x, precision), rounded(weight, precision)).to(x.dtype)
    return product if bias is None else product + bias


class Product:
    """x ↦ x Wᵀ for one weight and many x, without gradient.

    On a CPU the weight is laid out once for oneDNN, through the operators that torch's own compiler uses for it.
    With the 32 rows of one time step that is 1.8 times as quick as ``torch.mm`` (docs/training-speed.md).

    Args:
        weight: (O, I), `rounded`. Do not change it while this is in use.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.laid_out = _for_onednn(weight)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, I) of any type -> (n, O) of the same."""
        factor = x.to(self.weight.dtype)
        if self.laid_out is None or len(x) == 0:
            product = functional.linear(factor, self.weight)
        else:
            product = torch.ops.mkldnn._linear_pointwise(factor, self.laid_out, None, "none", [], "")
        return product.to(x.dtype)


def _for_onednn(weight: Tensor) -> Tensor | None:
    """The weight as oneDNN wants it; None where oneDNN has nothing for it."""
    if weight.device.type != "cpu" or weight.numel() < WORTH_LAYING_OUT or not torch.backends.mkldnn.enabled:
        return None
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return laid_out
