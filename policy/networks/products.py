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
"""Entries of a weight, as many as 512 units have. oneDNN prepares for every new number of rows; with a smaller
weight that takes longer than it saves."""


def rounded(x: Tensor, precision: Precision) -> Tensor:
    """`x` as a product takes it; unchanged for float32."""
    return x.bfloat16() if precision == "bfloat16" else x


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, precision: Precision) -> Tensor:
    """x Wᵀ + b, (n, I) -> (n, O); torch works out the gradient."""
    if precision == "float32":
        return functional.linear(x, weight, bias)
    product = functional.linear(rounded(x, precision), rounded(weight, precision)).to(x.dtype)
    return product if bias is None else product + bias


class Product:
    """x ↦ x Wᵀ for one weight and many x, without gradient.

    On a CPU the weight is laid out once for oneDNN, by the operators of torch's compiler. For the 32 rows of one
    time step that is 1.8 times as fast as ``torch.mm`` (docs/training-speed.md).

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
    """The weight in oneDNN's layout; None where that is not worth it or not supported."""
    if weight.device.type != "cpu" or weight.numel() < WORTH_LAYING_OUT or not torch.backends.mkldnn.enabled:
        return None
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    bfloat16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (
        torch.ops.mkldnn._reorder_linear_weight(weight) if bfloat16 or weight.dtype == torch.float32 else None
    )
