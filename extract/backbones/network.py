"""What a family of backbones builds: a network with its weights, and what must be known of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cache_schema import Preprocessing


@dataclass(frozen=True)
class Network:
    """A network and where its weights come from.

    Attributes:
        model: normalised input to (features (B, D), scores (B, C) or None). Frames are (B, 3, S, S), clips
            (B, 3, T, S, S), flow (B, 2, T, S, S).
        parameters: the part whose parameters are the weights, by the names they have in files.
        weights: "pretrained:TAG", "random:SEED" or "file".
        feature_dim, num_classes: D and C; C = 0 without a classifier.
        classes: names of the C scores, where they are known.
        flow: pixels (B, T + 1, 3, R, R), 0 to 255, to flow (B, T, 2, R, R), where a network estimates it.
        classifier: the name in `parameters` of a classifier that can be replaced, where there is one.
    """

    model: nn.Module
    parameters: nn.Module
    weights: str
    preprocessing: Preprocessing
    feature_dim: int
    num_classes: int
    classes: tuple[str, ...] | None = None
    flow: nn.Module | None = None
    classifier: str | None = None


def told_apart(names: tuple[str, ...]) -> tuple[str, ...]:
    """Class names, each with its column where it occurs several times: ImageNet has two kinds of "crane".

    A label "crane" is then neither, for which of them it means is not known.
    """
    times = Counter(names)
    return tuple(
        f"{name} (column {column})" if times[name] > 1 else name for column, name in enumerate(names)
    )


def count(model: Any, *inputs: Tensor) -> int:
    """Multiply-accumulates of one call, in evaluation. Tensors and model may be on the meta device."""
    import torch

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    # The counter counts a multiplication and an addition as two.
    return int(counter.get_total_flops()) // 2
