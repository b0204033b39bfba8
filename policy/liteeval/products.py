"""Matrix products of the recurrent networks, in float32 or bfloat16.

On a CPU the weight is laid out once for oneDNN, through the operators that torch's own compiler uses for it:
with the 32 rows of one time step that is 1.8 times as quick as ``torch.mm`` in float32 (docs/training-speed.md).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from policy.config import Precision


class Product:
    """x ↦ x Wᵀ for one weight and many x.

    Args:
        weight: (O, I), not copied unless it is laid out anew: do not change it while this is in use.
        precision: "bfloat16" rounds both factors and the result to it and adds up in float32; "float32" computes
            in the weight's own type.
    """

    def __init__(self, weight: Tensor, precision: Precision) -> None:
        self.dtype = torch.bfloat16 if precision == "bfloat16" else weight.dtype
        self.weight = weight.to(self.dtype)
        self.laid_out = _for_onednn(self.weight)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, I) -> (n, O) of the type of x."""
        rows = x.to(self.dtype)
        if self.laid_out is not None and len(x):
            product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.laid_out, None, "none", [], "")
        else:
            product = linear(rows, self.weight)
        return product.to(x.dtype)


def weight_gradient(grad: Tensor, x: Tensor, precision: Precision) -> Tensor:
    """The gradient (O, I) of a weight from that of its products (n, O) and what it multiplied (n, I)."""
    return Product(x.t(), precision)(grad.t())


def _for_onednn(weight: Tensor) -> Tensor | None:
    """The weight as oneDNN wants it; None where oneDNN has nothing for it."""
    if weight.device.type != "cpu" or weight.numel() == 0 or not torch.backends.mkldnn.is_available():
        return None
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return laid_out
