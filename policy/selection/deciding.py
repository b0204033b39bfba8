"""From what a selector sees to the model that it names, with nothing but its configuration and its network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from policy.selection.config import SelectorConfig
from policy.selection.network import SelectorNetwork
from policy.selection.rule import choose, choose_at_price

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@torch.no_grad()
def said_of(config: SelectorConfig, network: SelectorNetwork, inputs: Tensor) -> FloatArray:
    """(M, N): P(M_k, x) of Sec. 3.4 or, with target "loss", exp(−loss) as it is expected of each model.

    Args:
        inputs: (M, D), on the network's device.
    """
    logits = network(inputs).double()
    said: Tensor = logits.sigmoid() if config.target == "loss" else logits.softmax(1)
    return np.asarray(said.cpu().numpy(), np.float64)


def decide(config: SelectorConfig, said: FloatArray, gflops: FloatArray, value: float) -> IntArray:
    """(M,): a model for each video, at a threshold or price.

    Args:
        said: (M, N).
        gflops: (N,), what choosing each model costs beyond what is spent anyway; the cheapest is met first.
    """
    order = gflops.argsort(kind="stable")
    ordered = said[:, order]
    if config.by_price:
        return np.asarray(order[choose_at_price(ordered, gflops[order], value)])
    return np.asarray(order[choose(ordered, value, config.when_none)])
