"""BatchNorm folded into the convolution before it: the same function, without a pass over the maps."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode  # torch's notes on extending it have it

# Its arguments: input, weight, bias, stride, padding, dilation, transposed, output padding, groups.
_CONVOLUTION, _TRANSPOSED = torch.ops.aten.convolution.default, 6


def fold_batch_norms(model: nn.Module, shape: Sequence[int]) -> None:
    """Fold, in place, every BatchNorm of a convolution's output that nothing else sees into that convolution.

    What follows what is found by sending an input without memory through the network: modules need not stand in
    the order in which they are called.

    Args:
        model: in evaluation mode.
        shape: of an input, such as (1, 3, S, S).
    """
    if not any(_rest(module) for module in model.modules()):
        return
    # A copy of the modules alone: in the place of each tensor is one without memory.
    without_memory, names = {}, {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        without_memory[id(tensor)] = meta = tensor.to("meta")
        names[id(meta)] = name
    shadow = copy.deepcopy(model, dict(without_memory))
    with torch.no_grad(), _Calls() as calls:
        output = shadow(torch.empty(*shape, device="meta"))
    uses = Counter(map(id, _tensors([output, *(args for _, args, _ in calls.made)])))
    weights = {
        id(maps): args[1]
        for function, args, maps in calls.made
        if function is _CONVOLUTION and not args[_TRANSPOSED]
    }
    for _, args, _ in calls.made:
        for tensor in _tensors(args):
            norm, _, role = names.get(id(tensor), "").rpartition(".")
            if role != "running_mean" or id(args[0]) not in weights:
                continue
            maps, weight = args[0], weights[id(args[0])]
            if id(weight) in names and uses[id(maps)] == uses[id(weight)] == uses[id(tensor)] == 1:
                _fold(model, names[id(weight)].rpartition(".")[0], norm)


def _fold(model: nn.Module, convolution: str, norm: str) -> None:
    before: Any = model.get_submodule(convolution)
    after: Any = model.get_submodule(norm)
    rest = _rest(after)
    if rest is None:
        return
    fused = fuse_conv_bn_eval(before, after)
    before.weight, before.bias = fused.weight, fused.bias
    for name, module in list(model.named_modules(remove_duplicate=False)):  # it may have several names
        if module is after:
            model.set_submodule(name, rest)


def _rest(module: Any) -> nn.Module | None:
    """What a BatchNorm does besides; None of what is none, or does what is not known."""
    if type(module) in (nn.BatchNorm2d, nn.BatchNorm3d):
        return nn.Identity()
    if isinstance(module, nn.BatchNorm2d):
        from timm.layers.norm_act import BatchNormAct2d  # here, where timm is at work already

        if type(module) is BatchNormAct2d:
            return nn.Sequential(module.drop, module.act)
    return None


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what was called and with it all tensors, so that none gets the `id` of another that is gone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[tuple[Any, tuple[Any, ...], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self.made.append((func, args, output))
        return output


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
