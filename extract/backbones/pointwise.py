"""1×1 convolutions in float32 on a CPU: by oneDNN, also where torch leaves them to BLAS."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# oneDNN reorders the weights at every call, which must be worth it: for fewer places than these, or fewer
# multiplications, it was slower than BLAS (about as quick on either bound).
MIN_PLACES, MIN_MACS = 64, 2_000_000


def convolve_by_onednn(model: nn.Module) -> None:
    """Have convolutions that are 1×1 in space computed by oneDNN, as torch computes all others.

    In float32, in one thread and with fewer than 16 inputs, which is so in each thread of the batcher, torch
    computes them as matrix products by its BLAS. That was quicker when oneDNN had to reorder the maps before and
    after; where channels come last, as in every Backbone, it need not, and BLAS is far slower on some processors.
    `python -m benchmarks.cpu_forward` has both.

    Args:
        model: in float32, on a CPU; changed in place, its parameters and their names are not.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_pointwise(module):
            module.__class__ = _Conv2d
        elif type(module) is nn.Conv3d and _is_pointwise(module):
            module.__class__ = _Conv3d


def _is_pointwise(module: nn.Conv2d | nn.Conv3d) -> bool:
    # Padding that is given as a word, or is not by zeros, stays with the module itself.
    plain = not isinstance(module.padding, str) and module.padding_mode == "zeros"
    return plain and module.kernel_size[-2:] == (1, 1)


class _Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self, x) if _worth_it(self, x) else super().forward(x)


class _Conv3d(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self, x) if _worth_it(self, x) else super().forward(x)


def _worth_it(module: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    places = x.numel() // x.shape[1]
    return places >= MIN_PLACES and places * module.weight.numel() >= MIN_MACS


def _convolve(module: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    assert not isinstance(module.padding, str)
    maps: Tensor = torch.mkldnn_convolution(
        x, module.weight, module.bias, module.padding, module.stride, module.dilation, module.groups
    )
    return maps
