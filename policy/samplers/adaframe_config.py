"""Options of AdaFrame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cache_schema import UserError
from policy.config import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    CoarseConfig,
    DropoutConfig,
    FineConfig,
    FineHiddenConfig,
    RunConfig,
    option,
)


@dataclass(frozen=True, kw_only=True)
class LooksConfig:
    looks: int = option(
        5,
        "K: at how many frames it looks at most.",
        POSITIVE,
        sets_cost=True,
        beyond="it looks at some of them again",
    )  # 3, 5 and 10, as we know the paper
    memory_rows: int = option(
        16,
        "Uniformly spaced coarse rows in the global memory.",
        POSITIVE,
        sets_cost=True,
        beyond="the memory has all of them",
    )  # Sec. 4.1, and the best of those compared in Sec. 4.3
    attention_units: int = option(64, "Units in which state and memory are compared.", POSITIVE)  # ours
    points: bool = option(
        True,
        "Look, as far as the state decides, where it attends to in the memory; or choose the place from the state "
        "alone, as in the paper.",
        flag="--points/--no-points",
    )  # ours
    location_std: float = option(
        0.1, "Spread of the locations drawn in training, as a share of the video.", POSITIVE
    )  # Sec. 3.1: a variance of 0.01
    discount: float = option(0.9, "Of a reward, for each look until it comes.", SHARE)  # the paper's
    exploration: float = option(
        1.0, "λ: weight of the losses of utility and selection beside that of the classes.", NOT_NEGATIVE
    )  # Sec. 3.1; the value is ours
    margin: float = option(
        0.1,
        "μ: how far the utility must have fallen below its maximum to stop.",
        NOT_NEGATIVE,
        sets_cost=True,
    )  # ours: what a margin is worth depends on the rewards
    falls: int = option(
        2, "Patience p: after how many such looks in a row it stops.", POSITIVE, sets_cost=True
    )  # for K below 10, as we know the paper


@dataclass(frozen=True, kw_only=True)
class AdaFrameConfig(DropoutConfig, FineHiddenConfig, LooksConfig, FineConfig, CoarseConfig, RunConfig):
    """AdaFrame: an LSTM with a memory of cheap features says where to look next, and when that no longer pays.

    Trained with REINFORCE, for how far each look raises the margin of the right class. No backbone is trained
    with it: the features are the cache's. A frame that it looks at again is computed, and charged, once; coarse
    rows are charged for the memory alone.

    \b
    Example:
      train-policy adaframe --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --looks 5 --out runs/adaframe
    """

    method = "adaframe"
    tuned = ("lr", "weight_decay", "location_std", "dropout")
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"input_norm": "none", "points": False}}

    def check_together(self) -> None:
        if self.looks < 2:
            raise UserError("looks must be at least 2, as the first is always at the middle of a video")
